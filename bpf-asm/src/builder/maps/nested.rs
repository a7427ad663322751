//! Maps of maps.

use std::marker::PhantomData;

use super::array::Array;
use super::definition;
use super::hash::Hash;
use super::lookup::{InMemory, Role, delete, look_up, non_null, update};
use crate::builder::function::{Function, Kind};
use crate::builder::ir::{Arg, Body, Operand, Reg};
use crate::builder::memory::Ptr;
use crate::builder::scalar::Sealed;
use crate::builder::value::{IntoVal, Val};
use crate::helper;
use crate::program::{Contents, MapDef, MapType};

/// A map that may lie in a map of maps.
pub trait Nestable: Copy + Sealed {
    #[doc(hidden)]
    fn inner_definition(&self) -> MapDef;
}

impl<V> Sealed for Array<V> {}
impl<V: Copy> Nestable for Array<V> {
    fn inner_definition(&self) -> MapDef {
        self.definition()
    }
}

impl<K, V> Sealed for Hash<K, V> {}
impl<K: Copy, V: Copy> Nestable for Hash<K, V> {
    fn inner_definition(&self) -> MapDef {
        self.definition()
    }
}

/// A map that was found in another: it has the operations of its type.
#[derive(Clone, Copy)]
pub struct InnerMap<'f, M> {
    body: &'f Body,
    register: Reg,
    of: PhantomData<fn() -> M>,
}

impl<M> InnerMap<'_, M> {
    fn arg(&self) -> Arg {
        Arg::Value(Operand::Reg(self.register))
    }
}

macro_rules! outer {
    ($($(#[$doc:meta])* $name:ident $map_type:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<M> {
            name: &'static str,
            entries: u32,
            like: M,
        }

        impl<M> $name<M> {
            /// With this many places for maps that are all like `like`: its type, sizes and flags count, and it is no map of
            /// the program itself.
            #[must_use]
            pub const fn new(name: &'static str, entries: u32, like: M) -> $name<M> {
                $name { name, entries, like }
            }
        }

        impl<M: Nestable> $name<M> {
            /// The map at `key`; `missing` when there is none, and must end the program or leave the loop.
            #[track_caller]
            pub fn lookup<'f, K: Kind>(
                &self,
                f: Function<'f, K>,
                key: impl IntoVal<'f, u32>,
                missing: impl FnOnce(),
            ) -> InnerMap<'f, M> {
                let body = f.body;
                let key = Val::<u32>::new(body, key.operand(body));
                let map = body.map(MapDef {
                    contents: Contents::Maps(Box::new(self.like.inner_definition())),
                    ..definition(self.name, MapType::$map_type, [4, 4], self.entries, 0)
                });
                let key = InMemory::<u32>::address(key, body, Role::Key);
                let arguments = vec![Arg::Map(map), key];
                let register = body.pointer_helper(helper::MAP_LOOKUP_ELEM, arguments);
                non_null(body, register, missing);
                InnerMap { body, register, of: PhantomData }
            }
        }
    )*};
}

outer! {
    /// An array of maps: `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
    ArrayOfMaps ArrayOfMaps;
    /// A hash table of maps with keys of 32 bits: `BPF_MAP_TYPE_HASH_OF_MAPS`.
    HashOfMaps HashOfMaps;
}

impl<'f, V> InnerMap<'f, Array<V>> {
    /// The value at an index; `missing` when there is none, and must end the program or leave the loop.
    #[track_caller]
    pub fn lookup(&self, index: impl IntoVal<'f, u32>, missing: impl FnOnce()) -> Ptr<'f, V> {
        let index = Val::<u32>::new(self.body, index.operand(self.body));
        let key = InMemory::<u32>::address(index, self.body, Role::Key);
        look_up(self.body, self.arg(), key, missing)
    }
}

impl<'f, K, V> InnerMap<'f, Hash<K, V>> {
    /// The value of a key; `missing` when there is none, and must end the program or leave the loop.
    #[track_caller]
    pub fn lookup(&self, key: impl InMemory<'f, K>, missing: impl FnOnce()) -> Ptr<'f, V> {
        let key = key.address(self.body, Role::Key);
        look_up(self.body, self.arg(), key, missing)
    }

    /// Sets the value of a key: 0 or a negative error.
    #[track_caller]
    pub fn update(
        &self,
        key: impl InMemory<'f, K>,
        value: impl InMemory<'f, V>,
        flags: impl IntoVal<'f, u64>,
    ) -> Val<'f, i64> {
        let flags = flags.operand(self.body);
        let key = key.address(self.body, Role::Key);
        let value = value.address(self.body, Role::Value);
        update(self.body, self.arg(), key, value, flags)
    }

    /// Removes a key: 0, or a negative error when there is none.
    #[track_caller]
    pub fn delete(&self, key: impl InMemory<'f, K>) -> Val<'f, i64> {
        let key = key.address(self.body, Role::Key);
        delete(self.body, self.arg(), key)
    }
}
