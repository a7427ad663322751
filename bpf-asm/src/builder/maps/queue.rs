//! Maps without keys: queues, stacks, Bloom filters.

use std::marker::PhantomData;

use super::definition;
use super::lookup::{InMemory, Role};
use crate::builder::condition::Cond;
use crate::builder::function::{Function, Kind};
use crate::builder::ir::{Arg, Operand};
use crate::builder::memory::Ptr;
use crate::builder::value::{IntoVal, Val};
use crate::helper;
use crate::program::MapType;

macro_rules! ends {
    ($($(#[$doc:meta])* $name:ident $map_type:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<V> {
            name: &'static str,
            entries: u32,
            of: PhantomData<fn() -> V>,
        }

        impl<V> $name<V> {
            /// With room for this many values.
            #[must_use]
            pub const fn new(name: &'static str, entries: u32) -> $name<V> {
                $name { name, entries, of: PhantomData }
            }

            /// Adds a value: 0, or a negative error when it is full. `flags`: 0, or `BPF_EXIST` to make room by removing the
            /// oldest value.
            #[track_caller]
            pub fn push<'f, K: Kind>(
                &self,
                f: Function<'f, K>,
                value: impl InMemory<'f, V>,
                flags: impl IntoVal<'f, u64>,
            ) -> Val<'f, i64> {
                let flags = flags.operand(f.body);
                let value = value.address(f.body, Role::Value);
                let arguments = vec![self.map(f), value, Arg::Value(flags)];
                Val::new(f.body, Operand::Reg(f.body.helper(helper::MAP_PUSH_ELEM, arguments)))
            }

            /// Takes the next value out and writes it to `into`: 0, or a negative error when there is none.
            #[track_caller]
            pub fn pop<'f, K: Kind>(&self, f: Function<'f, K>, into: Ptr<'f, V>) -> Val<'f, i64> {
                let arguments = vec![self.map(f), into.address(f.body, Role::Value)];
                Val::new(f.body, Operand::Reg(f.body.helper(helper::MAP_POP_ELEM, arguments)))
            }

            /// Writes the next value to `into` and leaves it where it is: 0, or a negative error when there is none.
            #[track_caller]
            pub fn peek<'f, K: Kind>(&self, f: Function<'f, K>, into: Ptr<'f, V>) -> Val<'f, i64> {
                let arguments = vec![self.map(f), into.address(f.body, Role::Value)];
                Val::new(f.body, Operand::Reg(f.body.helper(helper::MAP_PEEK_ELEM, arguments)))
            }

            #[track_caller]
            fn map<'f, K: Kind>(&self, f: Function<'f, K>) -> Arg {
                let sizes = [0, size_of::<V>()];
                Arg::Map(f.body.map(definition(self.name, MapType::$map_type, sizes, self.entries, 0)))
            }
        }
    )*};
}

ends! {
    /// First in, first out: `BPF_MAP_TYPE_QUEUE`.
    Queue Queue;
    /// Last in, first out: `BPF_MAP_TYPE_STACK`.
    Stack Stack;
}

/// A set that may hold more than was put into it, and never less: `BPF_MAP_TYPE_BLOOM_FILTER`.
#[derive(Clone, Copy, Debug)]
pub struct Bloom<V> {
    name: &'static str,
    entries: u32,
    of: PhantomData<fn() -> V>,
}

impl<V> Bloom<V> {
    /// Sized for this many values.
    #[must_use]
    pub const fn new(name: &'static str, entries: u32) -> Bloom<V> {
        Bloom {
            name,
            entries,
            of: PhantomData,
        }
    }

    #[track_caller]
    fn map<'f, K: Kind>(&self, f: Function<'f, K>) -> Arg {
        let sizes = [0, size_of::<V>()];
        let definition = definition(self.name, MapType::Bloom, sizes, self.entries, 0);
        Arg::Map(f.body.map(definition))
    }

    /// Adds a value: 0 or a negative error.
    #[track_caller]
    pub fn add<'f, K: Kind>(
        &self,
        f: Function<'f, K>,
        value: impl InMemory<'f, V>,
    ) -> Val<'f, i64> {
        let value = value.address(f.body, Role::Value);
        let arguments = vec![self.map(f), value, Arg::Value(Operand::Const(0))];
        let result = f.body.helper(helper::MAP_PUSH_ELEM, arguments);
        Val::new(f.body, Operand::Reg(result))
    }

    /// Whether a value may be in it; if not, it certainly isn't.
    #[track_caller]
    pub fn may_hold<'f, K: Kind>(
        &self,
        f: Function<'f, K>,
        value: impl InMemory<'f, V>,
    ) -> Cond<'f> {
        let value = value.address(f.body, Role::Value);
        let result = f
            .body
            .helper(helper::MAP_PEEK_ELEM, vec![self.map(f), value]);
        Val::<i64>::new(f.body, Operand::Reg(result)).eq(0i64)
    }
}
