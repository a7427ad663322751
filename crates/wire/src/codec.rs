//! Messages to bytes and back.
//!
//! Numbers that every kind may need stand in the header (`view`, `op`, `first`, `commit`; a nonce in `client`); the
//! rest is the body, in postcard, but for entries of the log, which the kernel reads too (see [`entries`]). Header
//! fields that a kind doesn't use are zero when sent and not looked at when received.

mod decode;
mod encode;
mod entries;

use std::sync::Arc;

use electrode_vr::{ClientId, GroupId, Message, Nonce, Reply, RequestNumber, View};

use crate::header::{Header, Kind};

pub use decode::{DecodeError, decode, decode_reply, peek};
pub use encode::{encode, encode_message, encode_reply, encode_request};

/// The longest message that a UDP datagram takes over IPv4, in bytes.
pub const MAX_DATAGRAM: usize = 65507;

/// Who speaks, and in the name of which group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The group; 0 when the sender doesn't know it yet.
    pub group: GroupId,
    /// The configuration's epoch.
    pub epoch: u32,
    /// The replica that sends, or [`crate::CLIENT`].
    pub sender: u8,
    /// [`crate::FLAG_BROADCAST`] or 0.
    pub flags: u8,
}

/// Everything that can be on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Between replicas.
    Message(Message),
    /// A client asks.
    Request {
        /// The session.
        client: ClientId,
        /// The number of the request.
        request: RequestNumber,
        /// The operation.
        op: Arc<[u8]>,
    },
    /// A replica answers a client.
    Reply {
        /// The replica's view.
        view: View,
        /// The session.
        client: ClientId,
        /// The number of the request that is answered.
        request: RequestNumber,
        /// The answer.
        reply: Reply,
    },
    /// Somebody asks a replica how it is.
    StatusRequest {
        /// Tells the answers apart.
        nonce: Nonce,
    },
    /// A replica says how it is.
    StatusReply {
        /// The nonce of the question.
        nonce: Nonce,
        /// The status, in the replica's own format.
        body: Vec<u8>,
    },
}

/// A [`Reply`] that borrows its bytes from the datagram: the same encoding, no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ReplyRef<'a> {
    /// As [`Reply::Done`].
    Done(#[serde(serialize_with = "at_once")] &'a [u8]),
    /// As [`Reply::NotPrimary`].
    NotPrimary,
    /// As [`Reply::Busy`].
    Busy {
        /// How long to wait, in milliseconds.
        retry_after_ms: u32,
    },
    /// As [`Reply::NoSession`].
    NoSession,
    /// As [`Reply::TooLarge`].
    TooLarge {
        /// The limit in bytes.
        limit: u32,
    },
    /// As [`Reply::Unavailable`].
    Unavailable,
    /// As [`Reply::NotRead`].
    NotRead,
}

/// The same bytes as one by one, but in one go.
fn at_once<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// A decoded reply and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyView<'a> {
    /// Who speaks.
    pub envelope: Envelope,
    /// The replica's view.
    pub view: View,
    /// The session.
    pub client: ClientId,
    /// The number of the request that is answered.
    pub request: RequestNumber,
    /// The answer.
    pub reply: ReplyRef<'a>,
}

impl<'a> From<&'a Reply> for ReplyRef<'a> {
    fn from(reply: &'a Reply) -> ReplyRef<'a> {
        match *reply {
            Reply::Done(ref result) => ReplyRef::Done(result),
            Reply::NotPrimary => ReplyRef::NotPrimary,
            Reply::Busy { retry_after_ms } => ReplyRef::Busy { retry_after_ms },
            Reply::NoSession => ReplyRef::NoSession,
            Reply::TooLarge { limit } => ReplyRef::TooLarge { limit },
            Reply::Unavailable => ReplyRef::Unavailable,
            Reply::NotRead => ReplyRef::NotRead,
        }
    }
}

impl From<ReplyRef<'_>> for Reply {
    fn from(reply: ReplyRef<'_>) -> Reply {
        match reply {
            ReplyRef::Done(result) => Reply::Done(result.into()),
            ReplyRef::NotPrimary => Reply::NotPrimary,
            ReplyRef::Busy { retry_after_ms } => Reply::Busy { retry_after_ms },
            ReplyRef::NoSession => Reply::NoSession,
            ReplyRef::TooLarge { limit } => Reply::TooLarge { limit },
            ReplyRef::Unavailable => Reply::Unavailable,
            ReplyRef::NotRead => Reply::NotRead,
        }
    }
}

impl From<&Header> for Envelope {
    fn from(header: &Header) -> Envelope {
        Envelope {
            group: GroupId(header.group.get()),
            epoch: header.epoch.get(),
            sender: header.sender,
            flags: header.flags,
        }
    }
}

impl TryFrom<u8> for Kind {
    type Error = DecodeError;

    fn try_from(number: u8) -> Result<Kind, DecodeError> {
        const KINDS: [Kind; 21] = [
            Kind::Request,
            Kind::Reply,
            Kind::Prepare,
            Kind::PrepareOk,
            Kind::Commit,
            Kind::PreVote,
            Kind::PreVoteOk,
            Kind::StartViewChange,
            Kind::DoViewChange,
            Kind::StartView,
            Kind::GetState,
            Kind::NewState,
            Kind::GetCheckpoint,
            Kind::CheckpointChunk,
            Kind::Recovery,
            Kind::RecoveryResponse,
            Kind::Hello,
            Kind::HelloOk,
            Kind::Bootstrap,
            Kind::StatusRequest,
            Kind::StatusReply,
        ];
        KINDS
            .into_iter()
            .find(|kind| *kind as u8 == number)
            .ok_or(DecodeError::UnknownKind(number))
    }
}
