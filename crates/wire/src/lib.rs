//! Electrode's messages as bytes: the fixed header that the kernel parses, and the bodies.
//!
//! [`encode`] and [`decode`] are inverses. Decoding takes any bytes: it never panics, never believes a length before
//! it has looked at it, and names what is wrong. Nothing here does I/O.

#![forbid(unsafe_code)]

pub mod admission;
pub mod check;
pub mod codec;
pub mod header;

pub use check::{Key, check};
pub use codec::{
    DecodeError, Envelope, MAX_DATAGRAM, Packet, ReplyRef, ReplyView, decode, decode_reply, encode,
    encode_message, encode_reply, encode_request, peek,
};
pub use header::{
    CLIENT, ENTRY_HEADER_BYTES, EntryHeader, FLAG_BROADCAST, HEADER_BYTES, Header, Kind,
};
