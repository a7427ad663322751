//! The types of values: native integers, and integers in a stated byte order that don't mix with them.

use std::marker::PhantomData;

use zerocopy::byteorder::{BigEndian, LittleEndian, U16, U32, U64};

mod sealed {
    pub trait Sealed {}
}
pub(super) use sealed::Sealed;

/// A type of value that a register holds.
pub trait Scalar: Copy + Sealed + 'static {
    /// Its width.
    const BITS: u32;
    /// Whether comparisons and right shifts are signed.
    const SIGNED: bool;
    /// A constant in the form in which registers hold it: zero-extended; `i8` and `i16` sign-extended to 32 bits first.
    fn register(self) -> u64;
}

/// A native integer: arithmetic works.
pub trait Int: Scalar {}

/// A native unsigned integer: division, remainder and rotation work.
pub trait Unsigned: Int {}

/// A native signed integer.
pub trait Signed: Int {}

/// A type with two byte orders.
pub trait Ordered: Unsigned {
    /// Its bytes in reverse order.
    fn reversed(self) -> Self;
}

macro_rules! integers {
    ($($type:ty, $signed:literal, $marker:ident, |$v:ident| $register:expr;)*) => {$(
        impl Sealed for $type {}
        impl Scalar for $type {
            const BITS: u32 = <$type>::BITS;
            const SIGNED: bool = $signed;
            fn register(self) -> u64 {
                let $v = self;
                $register
            }
        }
        impl Int for $type {}
        impl $marker for $type {}
    )*};
}

integers! {
    u8, false, Unsigned, |v| u64::from(v);
    u16, false, Unsigned, |v| u64::from(v);
    u32, false, Unsigned, |v| u64::from(v);
    u64, false, Unsigned, |v| v;
    i8, true, Signed, |v| u64::from(i32::from(v).cast_unsigned());
    i16, true, Signed, |v| u64::from(i32::from(v).cast_unsigned());
    i32, true, Signed, |v| u64::from(v.cast_unsigned());
    i64, true, Signed, |v| v.cast_unsigned();
}

macro_rules! ordered {
    ($($type:ty)*) => {$(
        impl Ordered for $type {
            fn reversed(self) -> Self {
                self.swap_bytes()
            }
        }
    )*};
}
ordered! { u16 u32 u64 }

/// An integer in network byte order: loads and stores are as they are, arithmetic needs `to_native`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Be<T>(T);

/// An integer in little-endian byte order, which is that of every target here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Le<T>(T);

impl<T: Ordered> Be<T> {
    /// The constant that reads `native` in network byte order: `Be::new(0x0800u16)`.
    pub const fn new(native: T) -> Be<T> {
        Be(native)
    }
}

impl<T: Ordered> Le<T> {
    /// The constant that reads `native` in little-endian byte order.
    pub const fn new(native: T) -> Le<T> {
        Le(native)
    }
}

impl<T: Ordered> Sealed for Be<T> {}
impl<T: Ordered> Scalar for Be<T> {
    const BITS: u32 = T::BITS;
    const SIGNED: bool = false;
    fn register(self) -> u64 {
        self.0.reversed().register()
    }
}

impl<T: Ordered> Sealed for Le<T> {}
impl<T: Ordered> Scalar for Le<T> {
    const BITS: u32 = T::BITS;
    const SIGNED: bool = false;
    fn register(self) -> u64 {
        self.0.register()
    }
}

/// A type of memory that one instruction loads or stores.
pub trait Cell: Sealed + 'static {
    /// What a register holds of it.
    type Value: Scalar;
}

macro_rules! native_cells {
    ($($type:ty)*) => {$(
        impl Cell for $type {
            type Value = $type;
        }
    )*};
}
native_cells! { u8 u16 u32 u64 i8 i16 i32 i64 }

macro_rules! network_cells {
    ($($type:ident $native:ty),*) => {$(
        impl Sealed for $type<BigEndian> {}
        impl Cell for $type<BigEndian> {
            type Value = Be<$native>;
        }
        impl Sealed for $type<LittleEndian> {}
        impl Cell for $type<LittleEndian> {
            type Value = Le<$native>;
        }
    )*};
}
network_cells! { U16 u16, U32 u32, U64 u64 }

/// A part of a struct `S`: a `T` at a known offset. Made by [`field!`](crate::field).
pub struct Field<S, T> {
    offset: usize,
    types: PhantomData<fn(S) -> T>,
}

impl<S, T> Clone for Field<S, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, T> Copy for Field<S, T> {}

impl<S, T> Field<S, T> {
    /// For [`field!`](crate::field), which states the path twice so that type and offset agree.
    #[doc(hidden)]
    pub const fn new(offset: usize, _path: fn(S) -> T) -> Field<S, T> {
        Field {
            offset,
            types: PhantomData,
        }
    }

    /// Bytes from the start of `S`.
    pub const fn offset(self) -> usize {
        self.offset
    }

    /// A part of this part.
    pub const fn then<U>(self, inner: Field<T, U>) -> Field<S, U> {
        Field {
            offset: self.offset + inner.offset,
            types: PhantomData,
        }
    }
}

impl<S> Field<S, S> {
    /// The whole as a part of itself.
    #[must_use]
    pub const fn whole() -> Field<S, S> {
        Field {
            offset: 0,
            types: PhantomData,
        }
    }
}

/// `field!(Struct, path.to.field)`: the offset and the type of a field of a `#[repr(C)]` struct.
#[macro_export]
macro_rules! field {
    ($struct:ty, $($path:tt).+) => {
        $crate::builder::Field::new(::core::mem::offset_of!($struct, $($path).+), |whole: $struct| whole.$($path).+)
    };
}
