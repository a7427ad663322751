//! The memory that the programs and user space share, declared once: user space maps it, the programs reach it by `field!`.
//!
//! ```text
//! shared (array, mmapable, 1 entry)            slots (array, mmapable, SLOTS entries)
//!   0  tail   generation 16 | last op 48         generation 16 | low 32 bits of op | acks 16
//!   8  wake   what user space wants to be       targets (array, mmapable, MAX_REPLICAS + 1 entries)
//!             woken for while it sleeps           next-hop MAC, address and port of each replica
//!  64  blocks[2]  used in turn                  heard (array, mmapable, MAX_REPLICAS + 1 entries)
//!                                                 per backup: last time heard, highest op
//! ```
//! Who writes what: the tail by atomics of both sides; blocks, wake, targets by user space alone; slots opened by user
//! space and marked by `prepare_ok`; heard by `prepare_ok` alone.

use std::net::SocketAddr;

use zerocopy::{Immutable, IntoBytes};

/// Bits of the tail word that hold the op.
pub const OP_BITS: u32 = 48;
/// The op part of the tail word.
pub const OP_MASK: u64 = (1 << OP_BITS) - 1;
/// Adding this to the tail moves its generation by one and leaves the op alone.
pub const GENERATION_STEP: u64 = 1 << OP_BITS;

/// Quorum slots; slot = op mod `SLOTS`. At least window * batch ops of the core, so that no two undecided Prepares share one.
/// (Few where rules are taken out to see who notices: there the slots have to come round within one short run.)
pub const SLOTS: u32 = if cfg!(feature = "mutations") {
    16
} else {
    1024
};
/// Most ops in one Prepare that the kernel takes.
pub const BATCH_OPS: u64 = 64;
/// The longest message (header and body) that the kernel stores: the UDP payload of a 1500-byte IPv4 packet.
pub const MESSAGE_BYTES: usize = 1472;
/// Messages up to this length take the small record.
pub const SMALL_MESSAGE_BYTES: usize = 256;
/// Bytes of the ring buffer.
pub const RING_BYTES: u32 = 1 << 20;
/// Entries of the per-replica arrays.
pub const PEERS: usize = 16;
/// The skb mark of a copy that `broadcast` made ("ELCT").
pub const CLONE_MARK: u32 = 0x454c_4354;
/// A message of an older view is passed up at most once in this many nanoseconds, so that a deposed primary is told.
pub const STALE_INTERVAL_NS: u64 = 50_000_000;

/// [`Block::flags`]: `prepare` stores Prepares.
pub const FLAG_STORE: u64 = 1;
/// [`Block::flags`]: `prepare` answers what it stored (not in disk mode, where stored is not yet durable).
pub const FLAG_ANSWER: u64 = 2;
/// [`Block::flags`]: `prepare_ok` counts.
pub const FLAG_COUNT: u64 = 4;

/// [`Shared::wake`]: user space sleeps; a completed quorum must wake it.
pub const WAKE_ON_QUORUM: u64 = 1;
/// [`Shared::wake`]: user space sleeps; the next stored Prepare must wake it.
pub const WAKE_ON_STORE: u64 = 2;

/// A replica's address as the programs compare it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, IntoBytes, Immutable)]
#[repr(C)]
pub struct Peer {
    /// The address's bytes as they are on the wire, IPv4 in the first four.
    pub address: [u64; 2],
    /// The UDP port as it is on the wire (network order in the low 16 bits).
    pub port: u32,
    /// 4 or 6.
    pub family: u32,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        let mut bytes = [0; 16];
        let family = match address {
            SocketAddr::V4(v4) => {
                bytes[..4].copy_from_slice(&v4.ip().octets());
                4
            }
            SocketAddr::V6(v6) => {
                bytes.copy_from_slice(&v6.ip().octets());
                6
            }
        };
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Peer {
            address: [word(0), word(8)],
            port: u32::from(address.port().to_be()),
            family,
        }
    }
}

/// Everything that a program needs to know of one generation. Written whole before the tail names it, never while it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Block {
    /// The generation it belongs to.
    pub generation: u64,
    /// `FLAG_*`; 0 when fenced.
    pub flags: u64,
    /// The view.
    pub view: u64,
    /// The group.
    pub group: u64,
    /// The authenticator's key, as two little-endian words.
    pub key: [u64; 2],
    /// This replica.
    pub index: u32,
    /// The group's size.
    pub replicas: u32,
    /// f: acks that complete a quorum.
    pub quorum: u32,
    /// The view's primary.
    pub primary: u32,
    /// Everybody's address.
    pub peers: [Peer; PEERS],
}

/// The shared words and blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Shared {
    /// generation (16 bits) | last op (48 bits).
    pub tail: u64,
    /// `WAKE_*`, 0 while user space is awake.
    pub wake: u64,
    /// When a message of an older view was last passed up (ktime, nanoseconds).
    pub stale_passed: u64,
    /// Keeps the blocks off the tail's cache line.
    pub padding: [u64; 5],
    /// The control blocks; generation mod 2 chooses.
    pub blocks: [Block; 2],
}

/// Where a copy of a Prepare goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Target {
    /// Next hop's MAC: wire bytes in the low 48 bits, [`TARGET_RESOLVED`] when it is known. One word, so that it never tears.
    pub mac: u64,
    /// The address.
    pub peer: Peer,
}

/// [`Target::mac`]: the MAC is known.
pub const TARGET_RESOLVED: u64 = 1 << 63;

/// What the kernel heard of one backup while it kept the acks to itself (rule R9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Heard {
    /// `bpf_ktime_get_ns` (CLOCK_MONOTONIC) of the last valid ack.
    pub at: u64,
    /// generation (16) | highest op (48) that it acknowledged.
    pub op: u64,
}

/// The front of a ring record; the message follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RecordHeader {
    /// The generation whose exchange stored it; [`RECORD_NOTICE`] for a quorum notice.
    pub generation: u64,
    /// Bytes of the message that follows.
    pub length: u64,
}

/// [`RecordHeader::generation`] of a notice: a quorum was completed, `length` is its op. Read the slots.
pub const RECORD_NOTICE: u64 = u64::MAX;

/// A record for a message of at most `WORDS` 64-bit words.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Record<const WORDS: usize> {
    /// Its front.
    pub header: RecordHeader,
    /// The message.
    pub words: [u64; WORDS],
}

/// The tail word of a generation and an op.
#[must_use]
pub const fn tail(generation: u16, op: u64) -> u64 {
    (generation as u64) << OP_BITS | (op & OP_MASK)
}

/// A quorum slot's word when it is opened.
#[must_use]
pub const fn slot(generation: u16, op: u64) -> u64 {
    (generation as u64) << OP_BITS | (op & 0xffff_ffff) << 16
}

const _: () =
    assert!(size_of::<Shared>().is_multiple_of(64) && core::mem::offset_of!(Shared, blocks) == 64);
const _: () = assert!(SLOTS.is_power_of_two());
