//! What the program and user space both know: fates, tallies, and records of the ring; and what is looked at of a frame.

use bpf_asm::layout;
use zerocopy::byteorder::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes that are copied at a time; the shortest frame that is held back.
pub(crate) const BLOCK: usize = 64;
/// Blocks of a record: a power of two, and more than any frame of a lab has.
pub(crate) const BLOCKS: usize = 32;

layout! {
    /// What becomes of the frames from one host to another; shares are of 65,536.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
    pub(crate) struct Fate: 64 bytes {
        0 => seed: u64,
        8 => cut: u64,
        16 => lose: u64,
        24 => corrupt: u64,
        32 => duplicate: u64,
        40 => reorder: u64,
        48 => delay: u64,
        56 => late: u64,
    }
}

layout! {
    /// What became of them so far.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes)]
    pub(crate) struct Tally: 72 bytes {
        0 => seen: u64,
        8 => cut: u64,
        16 => lost: u64,
        24 => corrupted: u64,
        32 => duplicated: u64,
        40 => delayed: u64,
        48 => late: u64,
        // What should have been held back, but the ring had no room.
        56 => ring_full: u64,
        // How many frames wait for one that overtakes them.
        64 => waiting: u64,
    }
}

layout! {
    /// The front of a record in the ring.
    pub(crate) struct Front: 24 bytes {
        0 => kind: u32,
        4 => pair: u32,
        8 => port: u32,
        12 => length: u32,
        16 => draw: u64,
    }
}

layout! {
    /// A record with a frame: whole blocks from its beginning, and its last bytes once more.
    pub(crate) struct Held: 2136 bytes {
        0 => front: Front,
        24 => blocks: [[u8; BLOCK]; BLOCKS],
        2072 => tail: [u8; BLOCK],
    }
}

layout! {
    pub(crate) struct Ethernet: 14 bytes {
        0 => destination_high: [u8; 4],
        4 => destination_low: [u8; 2],
        6 => source_high: [u8; 4],
        10 => source_low: [u8; 2],
        12 => ethertype: U16,
    }
}

layout! {
    /// What is looked at of an IPv4 header.
    pub(crate) struct Ipv4: 20 bytes {
        0 => version_length: u8,
        1 => tos: u8,
        2 => length: U16,
        4 => identification: U16,
        6 => fragment: U16,
        8 => ttl: u8,
        9 => protocol: u8,
        10 => checksum: U16,
        12 => source: [u8; 4],
        16 => destination: [u8; 4],
    }
}

layout! {
    pub(crate) struct Ports: 4 bytes {
        0 => source: U16,
        2 => destination: U16,
    }
}
