//! Arrays.

use std::marker::PhantomData;

use super::lookup::{InMemory, Role, look_up, update};
use super::{MMAPABLE, definition};
use crate::builder::function::{Function, Kind};
use crate::builder::ir::Arg;
use crate::builder::memory::Ptr;
use crate::builder::value::{IntoVal, Val};
use crate::program::{MapDef, MapType};

/// An array of `V`: `BPF_MAP_TYPE_ARRAY`, or one per CPU.
#[derive(Clone, Copy, Debug)]
pub struct Array<V> {
    name: &'static str,
    entries: u32,
    flags: u32,
    map_type: MapType,
    of: PhantomData<fn() -> V>,
}

impl<V> Array<V> {
    /// An array shared by all CPUs.
    #[must_use]
    pub const fn new(name: &'static str, entries: u32) -> Array<V> {
        Array {
            name,
            entries,
            flags: 0,
            map_type: MapType::Array,
            of: PhantomData,
        }
    }

    /// An array of which each CPU has its own.
    #[must_use]
    pub const fn per_cpu(name: &'static str, entries: u32) -> Array<V> {
        Array {
            map_type: MapType::PerCpuArray,
            ..Array::new(name, entries)
        }
    }

    /// The same, such that user space can map it into its memory.
    #[must_use]
    pub const fn mmapable(self) -> Array<V> {
        Array {
            flags: self.flags | MMAPABLE,
            ..self
        }
    }

    pub(super) fn definition(&self) -> MapDef {
        let sizes = [4, size_of::<V>()];
        definition(self.name, self.map_type, sizes, self.entries, self.flags)
    }

    /// The value at an index; `missing` when there is none, and must end the program or leave the loop.
    #[track_caller]
    pub fn lookup<'f, K: Kind>(
        &self,
        f: Function<'f, K>,
        index: impl IntoVal<'f, u32>,
        missing: impl FnOnce(),
    ) -> Ptr<'f, V> {
        let body = f.body;
        let index = Val::<u32>::new(body, index.operand(body));
        let map = Arg::Map(body.map(self.definition()));
        let key = InMemory::<u32>::address(index, body, Role::Key);
        look_up(body, map, key, missing)
    }

    /// Writes the whole value at an index: 0 or a negative error. `flags` is [`BPF_ANY`](super::BPF_ANY).
    #[track_caller]
    pub fn update<'f, K: Kind>(
        &self,
        f: Function<'f, K>,
        index: impl IntoVal<'f, u32>,
        value: impl InMemory<'f, V>,
        flags: impl IntoVal<'f, u64>,
    ) -> Val<'f, i64> {
        let body = f.body;
        let index = Val::<u32>::new(body, index.operand(body));
        let (map, flags) = (Arg::Map(body.map(self.definition())), flags.operand(body));
        let value = value.address(body, Role::Value);
        let key = InMemory::<u32>::address(index, body, Role::Key);
        update(body, map, key, value, flags)
    }
}
