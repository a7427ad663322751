//! Maps with typed keys and values, declared once as constants.
//!
//! Where a key or a value is wanted, a [`Ptr`](super::Ptr) to one does (for structs: [`Function::stack`](super::Function::stack)
//! gives room), and so does a value or a constant of a type that fits a register.

mod array;
mod globals;
mod hash;
mod lookup;
mod nested;
mod programs;
mod queue;
mod redirect;
mod ring;

pub use array::Array;
pub use globals::{Constant, Global};
pub use hash::{BPF_ANY, BPF_EXIST, BPF_NOEXIST, Hash, LpmKey, LpmTrie};
pub use lookup::InMemory;
pub use nested::{ArrayOfMaps, HashOfMaps, InnerMap, Nestable};
pub use programs::ProgArray;
pub use queue::{Bloom, Queue, Stack};
pub use redirect::{CpuMap, DevMap, XskMap};
pub use ring::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, Record, RingBuf};

use crate::program::{Contents, MapDef, MapType};

/// `BPF_F_NO_PREALLOC` of linux/bpf.h: entries get their memory when they are added.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: user space may map the values into its memory.
const MMAPABLE: u32 = 1 << 10;

fn definition(
    name: &str,
    map_type: MapType,
    [key_size, value_size]: [usize; 2],
    max_entries: u32,
    flags: u32,
) -> MapDef {
    MapDef {
        name: name.to_owned(),
        map_type,
        key_size: u32::try_from(key_size).unwrap_or(u32::MAX),
        value_size: u32::try_from(value_size).unwrap_or(u32::MAX),
        max_entries,
        flags,
        contents: Contents::Empty,
    }
}
