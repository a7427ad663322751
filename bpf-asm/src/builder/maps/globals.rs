//! Global variables: `.rodata`, `.data` and `.bss`, which loaders turn into maps of one value.

use std::marker::PhantomData;

use zerocopy::{Immutable, IntoBytes};

use crate::builder::function::{Function, Kind};
use crate::builder::ir::{Base, Op};
use crate::builder::memory::Ptr;
use crate::builder::scalar::{Cell, Field};
use crate::builder::value::Val;
use crate::program::{BSS, DATA, RODATA};

/// A constant that user space may set before it loads the program (`.rodata`): afterwards the verifier knows its value and drops
/// code that it rules out.
#[derive(Clone, Copy, Debug)]
pub struct Constant<T> {
    name: &'static str,
    value: T,
}

/// A variable that all CPUs and programs of the object share (`.data`, or `.bss` if it begins as zeros).
#[derive(Clone, Copy, Debug)]
pub struct Global<T> {
    name: &'static str,
    value: Option<T>,
    of: PhantomData<fn() -> T>,
}

impl<T> Constant<T> {
    /// A constant with the value that it has unless user space sets another.
    #[must_use]
    pub const fn new(name: &'static str, value: T) -> Constant<T> {
        Constant { name, value }
    }
}

impl<T: IntoBytes + Immutable> Constant<T> {
    /// Reads a field.
    #[track_caller]
    pub fn load<'f, K: Kind, U: Cell>(
        &self,
        f: Function<'f, K>,
        field: Field<T, U>,
    ) -> Val<'f, U::Value> {
        self.ptr(f).load(field)
    }

    #[track_caller]
    fn ptr<'f, K: Kind>(&self, f: Function<'f, K>) -> Ptr<'f, T> {
        place(f, RODATA, self.name, self.value.as_bytes())
    }
}

impl<T: IntoBytes + Immutable + Cell> Constant<T> {
    /// Reads it.
    #[track_caller]
    pub fn read<'f, K: Kind>(&self, f: Function<'f, K>) -> Val<'f, T::Value> {
        self.ptr(f).read()
    }
}

impl<T: IntoBytes + Immutable + Cell, const N: usize> Constant<[T; N]> {
    /// Reads the element of an index; `or_else` when it is out of range, and must end the program or leave the loop.
    #[track_caller]
    pub fn index<'f, K: Kind>(
        &self,
        f: Function<'f, K>,
        index: Val<'f, u64>,
        or_else: impl FnOnce(),
    ) -> Val<'f, T::Value> {
        self.ptr(f).index(index, or_else).read()
    }
}

impl<T> Global<T> {
    /// A variable with its first value (`.data`).
    #[must_use]
    pub const fn new(name: &'static str, value: T) -> Global<T> {
        Global {
            name,
            value: Some(value),
            of: PhantomData,
        }
    }

    /// A variable that begins as zeros (`.bss`).
    #[must_use]
    pub const fn zeroed(name: &'static str) -> Global<T> {
        Global {
            name,
            value: None,
            of: PhantomData,
        }
    }
}

impl<T: IntoBytes + Immutable> Global<T> {
    /// Its place in memory.
    #[track_caller]
    pub fn ptr<'f, K: Kind>(&self, f: Function<'f, K>) -> Ptr<'f, T> {
        match &self.value {
            Some(value) => place(f, DATA, self.name, value.as_bytes()),
            None => place(f, BSS, self.name, &vec![0; size_of::<T>()]),
        }
    }
}

#[track_caller]
fn place<'f, K: Kind, T>(
    f: Function<'f, K>,
    section: &str,
    name: &str,
    bytes: &[u8],
) -> Ptr<'f, T> {
    // Eight-byte alignment suits every type that has a place here.
    let (map, offset) = f.body.global(section, name, bytes, 8);
    let dst = f.body.fresh(true, u64::MAX);
    f.body.emit(Op::Global { dst, map, offset });
    Ptr::new(f.body, Base::Reg(dst), 0)
}
