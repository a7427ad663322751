//! Hash tables and longest-prefix tries.

use std::marker::PhantomData;

use super::lookup::{InMemory, Role, delete, look_up, update};
use super::{NO_PREALLOC, definition};
use crate::builder::function::{Function, Kind};
use crate::builder::ir::Arg;
use crate::builder::memory::Ptr;
use crate::builder::value::{IntoVal, Val};
use crate::program::{MapDef, MapType};

/// `BPF_ANY`: add the entry or replace it.
pub const BPF_ANY: u64 = 0;
/// `BPF_NOEXIST`: only add.
pub const BPF_NOEXIST: u64 = 1;
/// `BPF_EXIST`: only replace.
pub const BPF_EXIST: u64 = 2;

/// A hash table from `K` to `V`: `BPF_MAP_TYPE_HASH` and its kin. All bytes of a key count, padding too: use types that
/// have none.
#[derive(Clone, Copy, Debug)]
pub struct Hash<K, V> {
    name: &'static str,
    entries: u32,
    flags: u32,
    map_type: MapType,
    of: PhantomData<fn(K) -> V>,
}

impl<K, V> Hash<K, V> {
    const fn of(map_type: MapType, name: &'static str, entries: u32) -> Hash<K, V> {
        Hash {
            name,
            entries,
            flags: 0,
            map_type,
            of: PhantomData,
        }
    }

    /// A table shared by all CPUs; a new key is refused when it is full.
    #[must_use]
    pub const fn new(name: &'static str, entries: u32) -> Hash<K, V> {
        Hash::of(MapType::Hash, name, entries)
    }

    /// A table that forgets what wasn't used for long when it is full.
    #[must_use]
    pub const fn lru(name: &'static str, entries: u32) -> Hash<K, V> {
        Hash::of(MapType::LruHash, name, entries)
    }

    /// A table whose values each CPU has its own of.
    #[must_use]
    pub const fn per_cpu(name: &'static str, entries: u32) -> Hash<K, V> {
        Hash::of(MapType::PerCpuHash, name, entries)
    }

    /// Both.
    #[must_use]
    pub const fn lru_per_cpu(name: &'static str, entries: u32) -> Hash<K, V> {
        Hash::of(MapType::LruPerCpuHash, name, entries)
    }

    /// The same, whose entries get their memory when they are added (not for LRU tables).
    #[must_use]
    pub const fn no_prealloc(self) -> Hash<K, V> {
        Hash {
            flags: self.flags | NO_PREALLOC,
            ..self
        }
    }

    pub(super) fn definition(&self) -> MapDef {
        let sizes = [size_of::<K>(), size_of::<V>()];
        definition(self.name, self.map_type, sizes, self.entries, self.flags)
    }

    /// The value of a key; `missing` when there is none, and must end the program or leave the loop.
    #[track_caller]
    pub fn lookup<'f, P: Kind>(
        &self,
        f: Function<'f, P>,
        key: impl InMemory<'f, K>,
        missing: impl FnOnce(),
    ) -> Ptr<'f, V> {
        let map = Arg::Map(f.body.map(self.definition()));
        let key = key.address(f.body, Role::Key);
        look_up(f.body, map, key, missing)
    }

    /// Sets the value of a key: 0 or a negative error. `flags`: [`BPF_ANY`], [`BPF_NOEXIST`] or [`BPF_EXIST`].
    #[track_caller]
    pub fn update<'f, P: Kind>(
        &self,
        f: Function<'f, P>,
        key: impl InMemory<'f, K>,
        value: impl InMemory<'f, V>,
        flags: impl IntoVal<'f, u64>,
    ) -> Val<'f, i64> {
        let (map, flags) = (
            Arg::Map(f.body.map(self.definition())),
            flags.operand(f.body),
        );
        let key = key.address(f.body, Role::Key);
        let value = value.address(f.body, Role::Value);
        update(f.body, map, key, value, flags)
    }

    /// Removes a key: 0, or a negative error when there is none.
    #[track_caller]
    pub fn delete<'f, P: Kind>(
        &self,
        f: Function<'f, P>,
        key: impl InMemory<'f, K>,
    ) -> Val<'f, i64> {
        let map = Arg::Map(f.body.map(self.definition()));
        let key = key.address(f.body, Role::Key);
        delete(f.body, map, key)
    }
}

/// A key of a longest-prefix trie: how many bits of `data` count, then the data in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LpmKey<D> {
    /// Bits of `data` that count: for a look-up all of them.
    pub prefix_len: u32,
    /// An address in network byte order.
    pub data: D,
}

/// A trie in which the longest prefix of an address is found: `BPF_MAP_TYPE_LPM_TRIE`.
#[derive(Clone, Copy, Debug)]
pub struct LpmTrie<D, V> {
    name: &'static str,
    entries: u32,
    of: PhantomData<fn(D) -> V>,
}

impl<D, V> LpmTrie<D, V> {
    /// A trie with room for this many prefixes.
    #[must_use]
    pub const fn new(name: &'static str, entries: u32) -> LpmTrie<D, V> {
        LpmTrie {
            name,
            entries,
            of: PhantomData,
        }
    }

    fn definition(&self) -> MapDef {
        let sizes = [size_of::<LpmKey<D>>(), size_of::<V>()];
        // The kernel insists on the flag.
        definition(
            self.name,
            MapType::LpmTrie,
            sizes,
            self.entries,
            NO_PREALLOC,
        )
    }

    /// The value of the longest prefix that fits; `missing` when none does, and must end the program or leave the loop.
    #[track_caller]
    pub fn lookup<'f, P: Kind>(
        &self,
        f: Function<'f, P>,
        key: Ptr<'f, LpmKey<D>>,
        missing: impl FnOnce(),
    ) -> Ptr<'f, V> {
        let map = Arg::Map(f.body.map(self.definition()));
        let key = key.address(f.body, Role::Key);
        look_up(f.body, map, key, missing)
    }

    /// Sets the value of a prefix: 0 or a negative error.
    #[track_caller]
    pub fn update<'f, P: Kind>(
        &self,
        f: Function<'f, P>,
        key: Ptr<'f, LpmKey<D>>,
        value: impl InMemory<'f, V>,
        flags: impl IntoVal<'f, u64>,
    ) -> Val<'f, i64> {
        let (map, flags) = (
            Arg::Map(f.body.map(self.definition())),
            flags.operand(f.body),
        );
        let key = key.address(f.body, Role::Key);
        let value = value.address(f.body, Role::Value);
        update(f.body, map, key, value, flags)
    }

    /// Removes a prefix: 0, or a negative error when there is none.
    #[track_caller]
    pub fn delete<'f, P: Kind>(&self, f: Function<'f, P>, key: Ptr<'f, LpmKey<D>>) -> Val<'f, i64> {
        let map = Arg::Map(f.body.map(self.definition()));
        let key = key.address(f.body, Role::Key);
        delete(f.body, map, key)
    }
}
