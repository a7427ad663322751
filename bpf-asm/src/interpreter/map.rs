//! Maps as the programs and user space share them: definitions, storage, and what the kernel's operations do to it.

mod hash;
mod ring;

use std::collections::{HashSet, VecDeque};

use crate::program::MapDef;
use hash::Slab;
pub(crate) use ring::Reservation;
pub(super) use ring::Ring;
pub use ring::RingRecord;

/// The most bytes that one map's values may take here.
pub const MAX_MAP_BYTES: u64 = 1 << 30;
/// The largest key, as in the kernel's `MAX_BPF_STACK`.
const MAX_KEY_BYTES: u32 = 512;

const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_RDONLY_PROG: u32 = 1 << 7;
const BPF_F_WRONLY_PROG: u32 = 1 << 8;
/// `BPF_NOEXIST`: create, don't replace.
pub(super) const BPF_NOEXIST: u64 = 1;
/// `BPF_EXIST`: replace, don't create; in queues, push the oldest out.
pub(super) const BPF_EXIST: u64 = 2;
/// `BPF_F_LOCK`: under the value's spin lock.
pub(super) const BPF_F_LOCK: u64 = 4;

/// An error number of the kernel's, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} ({0})", name = self.name())]
pub struct Errno(pub i32);

impl Errno {
    /// `EPERM`.
    pub const EPERM: Errno = Errno(1);
    /// `ENOENT`.
    pub const ENOENT: Errno = Errno(2);
    /// `E2BIG`.
    pub const E2BIG: Errno = Errno(7);
    /// `EAGAIN`.
    pub const EAGAIN: Errno = Errno(11);
    /// `ENOMEM`.
    pub const ENOMEM: Errno = Errno(12);
    /// `EFAULT`.
    pub const EFAULT: Errno = Errno(14);
    /// `EEXIST`.
    pub const EEXIST: Errno = Errno(17);
    /// `EINVAL`.
    pub const EINVAL: Errno = Errno(22);
    /// `ENOSPC`.
    pub const ENOSPC: Errno = Errno(28);
    /// `EOPNOTSUPP`.
    pub const EOPNOTSUPP: Errno = Errno(95);
    /// `ENOTSUPP`, which the kernel leaks to programs.
    pub const ENOTSUPP: Errno = Errno(524);

    /// The constant's name, where this file has one.
    pub fn name(self) -> &'static str {
        match self {
            Errno::EPERM => "EPERM",
            Errno::ENOENT => "ENOENT",
            Errno::E2BIG => "E2BIG",
            Errno::EAGAIN => "EAGAIN",
            Errno::ENOMEM => "ENOMEM",
            Errno::EFAULT => "EFAULT",
            Errno::EEXIST => "EEXIST",
            Errno::EINVAL => "EINVAL",
            Errno::ENOSPC => "ENOSPC",
            Errno::EOPNOTSUPP => "EOPNOTSUPP",
            Errno::ENOTSUPP => "ENOTSUPP",
            _ => "errno",
        }
    }

    /// What a helper returns for it.
    pub(super) fn result(self) -> u64 {
        i64::from(-self.0).cast_unsigned()
    }
}

/// What can go wrong between user space and a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// A definition that the kernel would refuse, or that doesn't fit here.
    #[error("the map `{map}` can't be made: {reason}")]
    Definition {
        /// The map.
        map: String,
        /// Why.
        reason: &'static str,
    },
    /// Two definitions of one name.
    #[error("the map `{0}` exists already, with another definition")]
    Conflict(String),
    /// No map of that name.
    #[error("there is no map `{0}`: load a program that uses it, or create it")]
    Unknown(String),
    /// A key or a value of the wrong length.
    #[error("the map `{map}` has {what} of {expected} bytes, not {found}")]
    Length {
        /// The map.
        map: String,
        /// `keys` or `values`.
        what: &'static str,
        /// The right length.
        expected: usize,
        /// The given one.
        found: usize,
    },
    /// Memory outside of the map's values, or a word that isn't aligned.
    #[error("the map `{map}` has no {bytes} bytes at {offset}")]
    Range {
        /// The map.
        map: String,
        /// Bytes from the start of the first value.
        offset: usize,
        /// The access's length.
        bytes: usize,
    },
    /// An operation of another type of map.
    #[error("the map `{map}` is {kind}, which can't do this")]
    Kind {
        /// The map.
        map: String,
        /// What it is.
        kind: &'static str,
    },
    /// What the kernel's system call would say.
    #[error("the map `{map}`: {errno}")]
    Refused {
        /// The map.
        map: String,
        /// The error number.
        errno: Errno,
    },
}

macro_rules! kinds {
    ($($name:ident = $number:literal $words:literal,)*) => {
        /// Types of maps, by their numbers in the kernel's `enum bpf_map_type`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind {
            $($name,)*
        }

        impl Kind {
            fn of(number: u32) -> Option<Kind> {
                match number {
                    $($number => Some(Kind::$name),)*
                    _ => None,
                }
            }

            /// In words, with an article.
            pub(super) fn words(self) -> &'static str {
                match self {
                    $(Kind::$name => $words,)*
                }
            }
        }
    };
}

kinds! {
    Hash = 1 "a hash map",
    Array = 2 "an array",
    ProgArray = 3 "a program array",
    PerfEventArray = 4 "a perf event array",
    PerCpuHash = 5 "a per-CPU hash map",
    PerCpuArray = 6 "a per-CPU array",
    LruHash = 9 "an LRU hash map",
    LruPerCpuHash = 10 "a per-CPU LRU hash map",
    LpmTrie = 11 "an LPM trie",
    ArrayOfMaps = 12 "an array of maps",
    HashOfMaps = 13 "a hash of maps",
    DevMap = 14 "a device map",
    CpuMap = 16 "a CPU map",
    XskMap = 17 "an XSK map",
    Queue = 22 "a queue",
    Stack = 23 "a stack",
    DevMapHash = 25 "a device hash map",
    RingBuf = 27 "a ring buffer",
    Bloom = 30 "a bloom filter",
}

impl Kind {
    pub(super) fn per_cpu(self) -> bool {
        matches!(
            self,
            Kind::PerCpuHash | Kind::PerCpuArray | Kind::LruPerCpuHash
        )
    }

    pub(super) fn of_maps(self) -> bool {
        matches!(self, Kind::ArrayOfMaps | Kind::HashOfMaps)
    }

    /// Whether programs get pointers to its values.
    pub(super) fn has_values(self) -> bool {
        matches!(
            self,
            Kind::Hash
                | Kind::Array
                | Kind::PerCpuHash
                | Kind::PerCpuArray
                | Kind::LruHash
                | Kind::LruPerCpuHash
                | Kind::LpmTrie
        )
    }

    /// Whether entries are places that packets are redirected to.
    pub(super) fn redirects(self) -> bool {
        matches!(
            self,
            Kind::DevMap | Kind::DevMapHash | Kind::CpuMap | Kind::XskMap
        )
    }
}

/// How keys find elements, or what there is instead of them.
#[derive(Debug)]
pub(super) enum Contents {
    /// Element = key.
    Array,
    /// Elements by key; also the prefixes of an LPM trie.
    Hash(Slab),
    /// Queue, stack: values in order, oldest first.
    Sequence(VecDeque<Vec<u8>>),
    /// Exact: it never says yes to what wasn't added.
    Bloom(HashSet<Vec<u8>>),
    Ring(Ring),
}

/// A map.
#[derive(Debug)]
pub(super) struct MapState {
    pub(super) def: MapDef,
    pub(super) kind: Kind,
    pub(super) key_size: usize,
    pub(super) value_size: usize,
    /// Bytes from one value to the next.
    pub(super) stride: usize,
    /// Copies of each element's value.
    copies: usize,
    pub(super) values: Vec<u8>,
    pub(super) contents: Contents,
    /// Whether accesses are preemption points.
    pub(super) shared: bool,
}

impl MapState {
    pub(super) fn new(def: &MapDef, cpus: u32) -> Result<MapState, MapError> {
        let refuse = |reason| MapError::Definition {
            map: def.name.clone(),
            reason,
        };
        let kind = Kind::of(def.map_type as u32).ok_or(refuse("its type isn't supported"))?;
        let index = def.key_size == 4;
        let keys = match kind {
            Kind::RingBuf | Kind::Queue | Kind::Stack | Kind::Bloom => def.key_size == 0,
            Kind::Array | Kind::PerCpuArray | Kind::ArrayOfMaps => index,
            Kind::ProgArray | Kind::PerfEventArray => index && def.value_size == 4,
            Kind::DevMap | Kind::DevMapHash | Kind::CpuMap | Kind::XskMap => index,
            Kind::LpmTrie => (5..=4 + 256).contains(&def.key_size),
            _ => (1..=MAX_KEY_BYTES).contains(&def.key_size),
        };
        if !keys {
            return Err(refuse("keys of this size don't go with its type"));
        }
        let value_fits = match kind {
            Kind::RingBuf => def.value_size == 0,
            Kind::HashOfMaps | Kind::ArrayOfMaps => def.value_size == 4,
            Kind::DevMap | Kind::DevMapHash => matches!(def.value_size, 4 | 8),
            _ => def.value_size != 0,
        };
        if !value_fits {
            return Err(refuse("values of this size don't go with its type"));
        }
        if def.max_entries == 0 {
            return Err(refuse("it has no entries"));
        }
        if kind == Kind::LpmTrie && def.flags & BPF_F_NO_PREALLOC == 0 {
            return Err(refuse("LPM tries need the flag BPF_F_NO_PREALLOC"));
        }
        let stride = (def.value_size as usize).next_multiple_of(8);
        let copies = if kind.per_cpu() { cpus as usize } else { 1 };
        let bytes = stride as u64 * copies as u64 * u64::from(def.max_entries);
        if bytes.max(u64::from(def.max_entries)) > MAX_MAP_BYTES {
            return Err(refuse("it is too large"));
        }
        let (contents, elements) = match kind {
            Kind::RingBuf => {
                let size = def.max_entries;
                if !size.is_power_of_two() || size < 4096 {
                    return Err(refuse("a ring's size is a power of two and whole pages"));
                }
                (Contents::Ring(Ring::new(size as usize)), 0)
            }
            Kind::Queue | Kind::Stack => (Contents::Sequence(VecDeque::new()), 0),
            Kind::Bloom => (Contents::Bloom(HashSet::new()), 0),
            Kind::Array
            | Kind::PerCpuArray
            | Kind::ProgArray
            | Kind::PerfEventArray
            | Kind::ArrayOfMaps
            | Kind::DevMap
            | Kind::CpuMap
            | Kind::XskMap => (Contents::Array, def.max_entries as usize),
            _ => (Contents::Hash(Slab::new()), 0),
        };
        Ok(MapState {
            def: def.clone(),
            kind,
            key_size: def.key_size as usize,
            value_size: def.value_size as usize,
            stride,
            copies,
            values: vec![0; elements * copies * stride],
            contents,
            shared: !kind.per_cpu(),
        })
    }

    pub(super) fn readable_by_programs(&self) -> bool {
        self.def.flags & BPF_F_WRONLY_PROG == 0
    }

    pub(super) fn writable_by_programs(&self) -> bool {
        self.def.flags & BPF_F_RDONLY_PROG == 0
    }

    /// The place of an element's value on this CPU, in strides.
    pub(super) fn place(&self, element: u32, cpu: u32) -> u32 {
        if self.copies == 1 {
            element
        } else {
            element * self.copies as u32 + cpu
        }
    }

    /// How many values each element has.
    pub(super) fn copies(&self) -> u32 {
        self.copies as u32
    }

    /// The bytes of the value at a place.
    pub(super) fn value(&self, place: u32) -> &[u8] {
        let start = place as usize * self.stride;
        &self.values[start..start + self.value_size]
    }

    pub(super) fn value_mut(&mut self, place: u32) -> &mut [u8] {
        let start = place as usize * self.stride;
        &mut self.values[start..start + self.value_size]
    }

    /// The element of a key. Reading refreshes an LRU element.
    pub(super) fn find(&mut self, key: &[u8]) -> Option<u32> {
        match &mut self.contents {
            Contents::Array => {
                let index = u32::from_le_bytes(key.try_into().ok()?);
                (index < self.def.max_entries).then_some(index)
            }
            Contents::Hash(slab) if self.kind == Kind::LpmTrie => slab.longest_prefix(key),
            Contents::Hash(slab) => slab.find(key),
            _ => None,
        }
    }

    /// What `bpf_map_update_elem` does. For a per-CPU map `value` is written to `cpu`'s copy, or to all without one.
    pub(super) fn update(
        &mut self,
        key: &[u8],
        value: &[u8],
        flags: u64,
        cpu: Option<u32>,
    ) -> Result<(), Errno> {
        if flags & !BPF_F_LOCK > BPF_EXIST {
            return Err(Errno::EINVAL);
        }
        let max = self.def.max_entries as usize;
        let lpm = self.kind == Kind::LpmTrie;
        let lru = matches!(self.kind, Kind::LruHash | Kind::LruPerCpuHash);
        let fresh = !self.kind.per_cpu() && !lpm && !lru;
        let element = match &mut self.contents {
            Contents::Array => {
                let index = <[u8; 4]>::try_from(key).map_err(|_| Errno::EINVAL)?;
                let index = u32::from_le_bytes(index);
                if index >= self.def.max_entries {
                    return Err(Errno::E2BIG);
                }
                if flags & BPF_NOEXIST != 0 {
                    return Err(Errno::EEXIST);
                }
                index
            }
            Contents::Hash(slab) => {
                let masked;
                let key = if lpm {
                    masked = hash::masked(key).ok_or(Errno::EINVAL)?;
                    &masked[..]
                } else {
                    key
                };
                match slab.find(key) {
                    Some(_) if flags & BPF_NOEXIST != 0 => return Err(Errno::EEXIST),
                    None if flags & BPF_EXIST != 0 => return Err(Errno::ENOENT),
                    // Who still has a pointer to the old value keeps it, as in the kernel.
                    Some(_) if fresh => slab.replace(key),
                    Some(element) => element,
                    None => {
                        if slab.len() >= max {
                            if !lru {
                                return Err(if lpm { Errno::ENOSPC } else { Errno::E2BIG });
                            }
                            slab.evict();
                        }
                        slab.insert(key)
                    }
                }
            }
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let places = (element as usize + 1) * self.copies;
        if self.values.len() < places * self.stride {
            self.values.resize(places * self.stride, 0);
        }
        for copy in 0..self.copies as u32 {
            let place = element * self.copies as u32 + copy;
            match cpu {
                Some(cpu) if self.copies > 1 && cpu != copy => {}
                _ => self.value_mut(place).copy_from_slice(value),
            }
        }
        Ok(())
    }

    /// What `bpf_map_delete_elem` does.
    pub(super) fn delete(&mut self, key: &[u8]) -> Result<(), Errno> {
        let lpm = self.kind == Kind::LpmTrie;
        match &mut self.contents {
            Contents::Hash(slab) if lpm => {
                let key = hash::masked(key).ok_or(Errno::EINVAL)?;
                slab.remove(&key).map(drop).ok_or(Errno::ENOENT)
            }
            Contents::Hash(slab) => slab.remove(key).map(drop).ok_or(Errno::ENOENT),
            Contents::Array if self.kind != Kind::Array && self.kind != Kind::PerCpuArray => {
                let element = self.find(key).ok_or(Errno::E2BIG)?;
                if self.value(element).iter().all(|byte| *byte == 0) {
                    return Err(Errno::ENOENT);
                }
                self.value_mut(element).fill(0);
                Ok(())
            }
            Contents::Array => Err(Errno::EINVAL),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// The elements in the order of an iteration.
    pub(super) fn elements(&self) -> Vec<u32> {
        match &self.contents {
            Contents::Array => (0..self.def.max_entries).collect(),
            Contents::Hash(slab) => slab.elements().collect(),
            _ => Vec::new(),
        }
    }

    /// An element's key.
    pub(super) fn key(&self, element: u32) -> Vec<u8> {
        match &self.contents {
            Contents::Hash(slab) => slab.key(element).to_vec(),
            _ => element.to_le_bytes().to_vec(),
        }
    }

    /// What `bpf_map_push_elem` does.
    pub(super) fn push(&mut self, value: &[u8], flags: u64) -> Result<(), Errno> {
        let max = self.def.max_entries as usize;
        match &mut self.contents {
            Contents::Sequence(values) => {
                if flags != 0 && flags != BPF_EXIST {
                    return Err(Errno::EINVAL);
                }
                if values.len() == max {
                    if flags != BPF_EXIST {
                        return Err(Errno::E2BIG);
                    }
                    values.pop_front();
                }
                values.push_back(value.to_vec());
                Ok(())
            }
            Contents::Bloom(values) => {
                if flags != 0 {
                    return Err(Errno::EINVAL);
                }
                values.insert(value.to_vec());
                Ok(())
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// What `bpf_map_pop_elem` and, without `remove`, `bpf_map_peek_elem` do to a queue or a stack.
    pub(super) fn pop(&mut self, remove: bool) -> Result<Vec<u8>, Errno> {
        let last = self.kind == Kind::Stack;
        let Contents::Sequence(values) = &mut self.contents else {
            return Err(Errno::EOPNOTSUPP);
        };
        let value = match (last, remove) {
            (false, false) => values.front().cloned(),
            (false, true) => values.pop_front(),
            (true, false) => values.back().cloned(),
            (true, true) => values.pop_back(),
        };
        value.ok_or(Errno::ENOENT)
    }
}
