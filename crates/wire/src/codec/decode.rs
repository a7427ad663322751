//! Bytes to messages.

use electrode_vr::{
    ClientId, Digest, GroupId, MAX_REPLICAS, Message, Nonce, OpNumber, Prepare, RequestNumber, View,
};
use serde::Deserialize;
use zerocopy::FromBytes;

use super::entries::take_entries;
use super::{Envelope, MAX_DATAGRAM, Packet, ReplyRef, ReplyView};
use crate::check::{Key, check};
use crate::header::{CLIENT, HEADER_BYTES, Header, Kind, MAGIC, VERSION};

/// What is wrong with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than a header, in bytes.
    #[error("{0} bytes are too few for a header")]
    TooShort(usize),
    /// Longer than any datagram, in bytes.
    #[error("{0} bytes are more than a datagram holds")]
    TooLong(usize),
    /// Doesn't begin with [`MAGIC`]: not a message of ours.
    #[error("magic is {0:#010x}, expected {MAGIC:#010x}")]
    WrongMagic(u32),
    /// Another version of the protocol.
    #[error("protocol version is {0}, expected {VERSION}")]
    WrongVersion(u8),
    /// The header's length isn't the body's.
    #[error("header announces a body of {announced} bytes, {actual} came")]
    WrongLength {
        /// What the header says, in bytes.
        announced: u32,
        /// What came, in bytes.
        actual: usize,
    },
    /// No kind of message has this number.
    #[error("unknown message kind {0}")]
    UnknownKind(u8),
    /// The check doesn't match: the message is damaged, or from somebody with another key.
    #[error("check doesn't match: damaged, or another key")]
    WrongCheck,
    /// Replicas don't send this kind, or clients don't.
    #[error("sender {0} doesn't send messages of this kind")]
    WrongSender(u8),
    /// An op number is 2^48 or more, or numbers contradict each other.
    #[error("op numbers are out of range or contradict each other")]
    OpNumbers,
    /// The entries of a Prepare or NewState.
    #[error("entries: {0}")]
    Entries(&'static str),
    /// The body isn't what this kind has.
    #[error("body isn't what this kind of message has")]
    Body,
    /// Not the kind of message that was asked for.
    #[error("not a reply")]
    NotAReply,
}

/// Looks at magic, version and length alone: is this a message of ours, and whole? The check isn't verified.
///
/// # Errors
/// [`DecodeError::TooShort`], `TooLong`, `WrongMagic`, `WrongVersion` or `WrongLength`.
pub fn peek(bytes: &[u8]) -> Result<&Header, DecodeError> {
    let (header, body) =
        Header::ref_from_prefix(bytes).map_err(|_| DecodeError::TooShort(bytes.len()))?;
    if bytes.len() > MAX_DATAGRAM {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    if header.magic.get() != MAGIC {
        return Err(DecodeError::WrongMagic(header.magic.get()));
    }
    if header.version != VERSION {
        return Err(DecodeError::WrongVersion(header.version));
    }
    let announced = header.length.get();
    if usize::try_from(announced) != Ok(body.len()) {
        return Err(DecodeError::WrongLength {
            announced,
            actual: body.len(),
        });
    }
    Ok(header)
}

/// Reads one datagram. `key` is the group's; what clients send and hear is checked without it.
///
/// # Errors
/// A [`DecodeError`] that says what is wrong; the check is verified before anything but the fields of [`peek`] and
/// the kind is believed.
pub fn decode(bytes: &[u8], key: &Key) -> Result<(Envelope, Packet), DecodeError> {
    let (header, kind, body) = open(bytes, key)?;
    let packet = match kind {
        Kind::Request => Packet::Request {
            client: ClientId(header.client.get()),
            request: RequestNumber(header.request.get()),
            op: body.into(),
        },
        Kind::Reply => {
            let ReplyView {
                view,
                client,
                request,
                reply,
                ..
            } = reply(header, body)?;
            Packet::Reply {
                view,
                client,
                request,
                reply: reply.into(),
            }
        }
        Kind::StatusRequest => {
            let () = whole(body)?;
            Packet::StatusRequest {
                nonce: Nonce(header.client.get()),
            }
        }
        Kind::StatusReply => Packet::StatusReply {
            nonce: Nonce(header.client.get()),
            body: body.into(),
        },
        _ => Packet::Message(message(header, kind, body)?),
    };
    Ok((Envelope::from(header), packet))
}

/// Reads a Reply without copying its result.
///
/// # Errors
/// As [`decode`], and [`DecodeError::NotAReply`] for a message of another kind.
pub fn decode_reply(bytes: &[u8]) -> Result<ReplyView<'_>, DecodeError> {
    if peek(bytes)?.kind != Kind::Reply as u8 {
        return Err(DecodeError::NotAReply);
    }
    let (header, _, body) = open(bytes, &Key::UNKEYED)?;
    reply(header, body)
}

/// Everything that holds for all kinds.
fn open<'a>(bytes: &'a [u8], key: &Key) -> Result<(&'a Header, Kind, &'a [u8]), DecodeError> {
    let header = peek(bytes)?;
    let kind = Kind::try_from(header.kind)?;
    if check(&key.for_kind(kind), bytes) != header.check.get() {
        return Err(DecodeError::WrongCheck);
    }
    let from_client = matches!(kind, Kind::Request | Kind::StatusRequest);
    let sender_fits = if from_client {
        header.sender == CLIENT
    } else {
        usize::from(header.sender) < MAX_REPLICAS
    };
    if !sender_fits {
        return Err(DecodeError::WrongSender(header.sender));
    }
    Ok((header, kind, &bytes[HEADER_BYTES..]))
}

fn reply<'a>(header: &Header, body: &'a [u8]) -> Result<ReplyView<'a>, DecodeError> {
    Ok(ReplyView {
        envelope: Envelope::from(header),
        view: View(header.view.get()),
        client: ClientId(header.client.get()),
        request: RequestNumber(header.request.get()),
        reply: whole::<ReplyRef<'a>>(body)?,
    })
}

fn message(header: &Header, kind: Kind, body: &[u8]) -> Result<Message, DecodeError> {
    let view = View(header.view.get());
    let op = op_number(header.op.get())?;
    let first = op_number(header.first.get())?;
    let commit = op_number(header.commit.get())?;
    let nonce = Nonce(header.client.get());
    // A kind without a body has a body of no bytes.
    let bare = |message: Message| whole::<()>(body).map(|()| message);
    match kind {
        Kind::Prepare => {
            if first.0 == 0 || first > op {
                return Err(DecodeError::OpNumbers);
            }
            let entries = take_entries(body, op.0 - first.0 + 1)?;
            Ok(Message::Prepare(Prepare {
                view,
                first,
                commit,
                entries,
            }))
        }
        Kind::PrepareOk if first < op => Err(DecodeError::OpNumbers),
        Kind::PrepareOk => bare(Message::PrepareOk {
            view,
            op,
            last_op: first,
        }),
        Kind::Commit => bare(Message::Commit { view, commit }),
        Kind::PreVote => bare(Message::PreVote { view }),
        Kind::PreVoteOk => bare(Message::PreVoteOk { view }),
        Kind::StartViewChange => bare(Message::StartViewChange { view }),
        Kind::DoViewChange => {
            let (last_normal, digest) = whole(body)?;
            Ok(Message::DoViewChange {
                view,
                last_normal,
                op,
                commit,
                digest,
            })
        }
        Kind::StartView => Ok(Message::StartView {
            view,
            op,
            commit,
            digest: whole(body)?,
        }),
        Kind::GetState => bare(Message::GetState {
            view,
            nonce,
            after: first,
        }),
        Kind::NewState => {
            let ((digest_after, digest, count), rest) = part::<(Digest, Digest, u64)>(body)?;
            let entries = take_entries(rest, count)?;
            if first.0 + count > op.0 {
                return Err(DecodeError::OpNumbers);
            }
            Ok(Message::NewState {
                view,
                nonce,
                after: first,
                digest_after,
                entries,
                op,
                digest,
                commit,
            })
        }
        Kind::GetCheckpoint => Ok(Message::GetCheckpoint {
            view,
            nonce,
            op,
            offset: whole(body)?,
        }),
        Kind::CheckpointChunk => {
            let ((log_digest, digest, total, offset), bytes) =
                part::<(Digest, Digest, u64, u64)>(body)?;
            let bytes = bytes.to_vec();
            Ok(Message::CheckpointChunk {
                view,
                nonce,
                op,
                log_digest,
                digest,
                total,
                offset,
                bytes,
            })
        }
        Kind::Recovery => bare(Message::Recovery {
            nonce,
            promised: view,
        }),
        Kind::RecoveryResponse => {
            let primary: Option<(OpNumber, OpNumber, Digest)> = whole(body)?;
            if let Some((op, commit, _)) = primary {
                op_number(op.0)?;
                op_number(commit.0)?;
            }
            Ok(Message::RecoveryResponse {
                nonce,
                view,
                primary,
            })
        }
        Kind::Hello => Ok(Message::Hello {
            nonce,
            group: whole::<GroupId>(body)?,
        }),
        Kind::HelloOk => Ok(Message::HelloOk {
            nonce,
            group: whole::<GroupId>(body)?,
        }),
        Kind::Bootstrap => Ok(Message::Bootstrap {
            nonce,
            group: whole::<GroupId>(body)?,
        }),
        Kind::Request | Kind::Reply | Kind::StatusRequest | Kind::StatusReply => {
            unreachable!("decode reads what clients send and hear itself")
        }
    }
}

fn op_number(number: u64) -> Result<OpNumber, DecodeError> {
    if number < OpNumber::LIMIT {
        Ok(OpNumber(number))
    } else {
        Err(DecodeError::OpNumbers)
    }
}

/// A body that is one postcard value and nothing more.
fn whole<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, DecodeError> {
    let (value, rest) = part(body)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::Body)
    }
}

/// A postcard value and what follows it.
fn part<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<(T, &'a [u8]), DecodeError> {
    postcard::take_from_bytes(body).map_err(|_| DecodeError::Body)
}
