//! The fixed header in front of every message, declared once: user space reads it through `zerocopy`, the programs through
//! `bpf-asm`'s `field!`.
//!
//! ```text
//!  0        4   5    6      7     8                16               24
//! | magic   |ver|kind|sender|flags| check          | group          |
//! 24               32               40              48               56
//! | view           | op             | first         | commit         |
//! 56               64               72       76      80
//! | client         | request        | length | epoch | body ...
//! ```
//! All numbers are little-endian. The last 24 bytes of a Request's header, `client..epoch`, are laid out like the
//! [`EntryHeader`] of a Prepare's entry: a Request becomes a Prepare of one op by growing its head by one header.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first four bytes of every message: "ELCT" on the wire.
pub const MAGIC: u32 = u32::from_le_bytes(*b"ELCT");

/// The protocol's version. Replicas speak this and the one before it (there is none yet).
pub const VERSION: u8 = 1;

/// The only epoch that there is: what comes from a group whose membership has changed is for replicas that know how.
pub const EPOCH: u32 = 0;

/// The `sender` of a message that comes from a client.
pub const CLIENT: u8 = 0xff;

/// Bytes of the header.
pub const HEADER_BYTES: usize = size_of::<Header>();

/// Bytes in front of each op in a Prepare.
pub const ENTRY_HEADER_BYTES: usize = size_of::<EntryHeader>();

/// `flags`: the primary's TC program makes a copy of this message for every backup.
pub const FLAG_BROADCAST: u8 = 1;

/// The header of every message.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: U32,
    /// [`VERSION`].
    pub version: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// The replica that sent it, or [`CLIENT`].
    pub sender: u8,
    /// [`FLAG_BROADCAST`] or 0.
    pub flags: u8,
    /// The authenticator: SipHash-2-4 over every other byte of header and body (see [`crate::check`]).
    pub check: U64,
    /// The group.
    pub group: U64,
    /// The view.
    pub view: U64,
    /// The (last) op; of a PrepareOk the op that is acknowledged.
    pub op: U64,
    /// The first op of a Prepare; of a PrepareOk the sender's newest op.
    pub first: U64,
    /// The commit number.
    pub commit: U64,
    /// The client session of a Request or Reply; otherwise 0 (a nonce in messages that have one).
    pub client: U64,
    /// The request number of a Request or Reply; otherwise 0.
    pub request: U64,
    /// Bytes of the body.
    pub length: U32,
    /// The configuration's epoch: [`EPOCH`] until membership can change.
    pub epoch: U32,
}

/// What stands in front of each op in a Prepare's body. The op follows, padded with zeros to a multiple of 8 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct EntryHeader {
    /// The client session.
    pub client: U64,
    /// The request number.
    pub request: U64,
    /// Bytes of the op, without the padding.
    pub length: U32,
    /// As in the request's header.
    pub epoch: U32,
}

const _: () = assert!(HEADER_BYTES == 80 && ENTRY_HEADER_BYTES == 24);
const _: () = assert!(core::mem::offset_of!(Header, client) + ENTRY_HEADER_BYTES == HEADER_BYTES);

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(
    missing_docs,
    reason = "each is the message of that name in electrode_vr::Message, or a client's"
)]
pub enum Kind {
    Request = 1,
    Reply = 2,
    Prepare = 3,
    PrepareOk = 4,
    Commit = 5,
    PreVote = 6,
    PreVoteOk = 7,
    StartViewChange = 8,
    DoViewChange = 9,
    StartView = 10,
    GetState = 11,
    NewState = 12,
    GetCheckpoint = 13,
    CheckpointChunk = 14,
    Recovery = 15,
    RecoveryResponse = 16,
    Hello = 17,
    HelloOk = 18,
    Bootstrap = 19,
    StatusRequest = 20,
    StatusReply = 21,
}
