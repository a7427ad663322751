//! What a register holds: nothing yet, a number, or a pointer that remembers what it points into.

use std::fmt;

/// What a register or an 8-byte stack slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing was written, or a call took it away.
    Uninit,
    /// A number.
    Scalar(u64),
    /// A pointer.
    Pointer(Pointer),
}

/// A region of memory, and bytes from its start. No number is behind it: what depends on an address is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// What it points into.
    pub region: Region,
    /// Bytes from the region's start; may be outside of it until it is used.
    pub offset: i64,
}

/// What a pointer points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Region {
    /// The context that the program was called with.
    Context,
    /// The memory that a raw program was given.
    Memory,
    /// The packet from `data` on. Offsets count from the start of its buffer, so they stay comparable.
    Packet {
        /// Raised whenever a helper moves the packet.
        generation: u32,
    },
    /// What lies between `data_meta` and `data`.
    PacketMeta {
        /// As in [`Region::Packet`].
        generation: u32,
    },
    /// `data_end`: good for comparing only.
    PacketEnd {
        /// As in [`Region::Packet`].
        generation: u32,
    },
    /// A function's stack; offset 0 is the frame pointer.
    Stack {
        /// Depth of the call, from 0.
        frame: u8,
        /// Tells frames of one depth apart.
        serial: u32,
    },
    /// A map itself, for helpers.
    Map {
        /// Its number in the machine.
        map: u32,
        /// The look-up that yielded it, 0 if it was loaded by an instruction.
        lookup: u32,
    },
    /// A map's value.
    MapValue {
        /// The map's number.
        map: u32,
        /// The element's place in the map's storage.
        element: u32,
        /// The look-up that yielded it, 0 if it was loaded by an instruction.
        lookup: u32,
    },
    /// A key that an iterating helper shows.
    MapKey {
        /// The map's number.
        map: u32,
        /// The element's place in the map's storage.
        element: u32,
    },
    /// A reserved ring buffer record.
    Record {
        /// Its number in this run.
        record: u32,
        /// The reservation that yielded it.
        lookup: u32,
    },
    /// A function of this program, for helpers that call back.
    Function {
        /// The index of its first instruction.
        entry: u32,
    },
}

impl Region {
    /// The look-up whose result has to be compared with null before use; 0 if none.
    pub(super) fn lookup(self) -> u32 {
        match self {
            Region::Map { lookup, .. }
            | Region::MapValue { lookup, .. }
            | Region::Record { lookup, .. } => lookup,
            _ => 0,
        }
    }
}

impl Value {
    /// The number, if it is one.
    pub fn scalar(self) -> Option<u64> {
        match self {
            Value::Scalar(value) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Uninit => f.write_str("?"),
            Value::Scalar(value) if *value < 1 << 16 => write!(f, "{value}"),
            Value::Scalar(value) => write!(f, "{value:#x}"),
            Value::Pointer(pointer) => pointer.fmt(f),
        }
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.region.fmt(f)?;
        match self.offset {
            0 => Ok(()),
            offset => write!(f, "{offset:+}"),
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Region::Context => f.write_str("ctx"),
            Region::Memory => f.write_str("mem"),
            Region::Packet { .. } => f.write_str("pkt"),
            Region::PacketMeta { .. } => f.write_str("pkt_meta"),
            Region::PacketEnd { .. } => f.write_str("pkt_end"),
            Region::Stack { frame, .. } => write!(f, "fp[{frame}]"),
            Region::Map { map, .. } => write!(f, "map#{map}"),
            Region::MapValue { map, element, .. } => write!(f, "map#{map}[{element}]"),
            Region::MapKey { map, element } => write!(f, "map#{map}.key[{element}]"),
            Region::Record { record, .. } => write!(f, "record#{record}"),
            Region::Function { entry } => write!(f, "func@{entry}"),
        }
    }
}
