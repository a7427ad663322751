//! Messages to bytes.

use electrode_vr::{ClientId, Message, Nonce, OpNumber, Prepare, Reply, RequestNumber, View};
use serde::Serialize;
use zerocopy::{FromZeros, IntoBytes};

use super::entries::put_entries;
use super::{Envelope, Packet, ReplyRef};
use crate::check::{Key, check};
use crate::header::{HEADER_BYTES, Header, Kind, MAGIC, VERSION};

/// Writes `packet` into `out`, which is cleared first: give the same buffer again and nothing is allocated.
///
/// `key` is the group's; it is used for the kinds that replicas send to each other alone.
///
/// # Panics
/// A body is longer than a `u32` can say; limits keep messages far below.
pub fn encode(envelope: &Envelope, key: &Key, packet: &Packet, out: &mut Vec<u8>) {
    match packet {
        Packet::Message(message) => encode_message(envelope, key, message, out),
        Packet::Request {
            client,
            request,
            op,
        } => encode_request(envelope, *client, *request, op, out),
        Packet::Reply {
            view,
            client,
            request,
            reply,
        } => {
            encode_reply(envelope, *view, *client, *request, reply, out);
        }
        Packet::StatusRequest { nonce } => {
            let mut writer = Writer::new(envelope, Kind::StatusRequest, out);
            writer.header.client = nonce.0.into();
            writer.finish(key);
        }
        Packet::StatusReply { nonce, body } => {
            let mut writer = Writer::new(envelope, Kind::StatusReply, out);
            writer.header.client = nonce.0.into();
            writer.out.extend_from_slice(body);
            writer.finish(key);
        }
    }
}

/// As [`encode`], for a client's request; the op needs no owner.
///
/// # Panics
/// As [`encode`].
pub fn encode_request(
    envelope: &Envelope,
    client: ClientId,
    request: RequestNumber,
    op: &[u8],
    out: &mut Vec<u8>,
) {
    let mut writer = Writer::new(envelope, Kind::Request, out);
    writer.header.client = client.0.into();
    writer.header.request = request.0.into();
    writer.out.extend_from_slice(op);
    writer.finish(&Key::UNKEYED);
}

/// As [`encode`], for an answer to a client.
///
/// # Panics
/// As [`encode`].
pub fn encode_reply(
    envelope: &Envelope,
    view: View,
    client: ClientId,
    request: RequestNumber,
    reply: &Reply,
    out: &mut Vec<u8>,
) {
    let mut writer = Writer::new(envelope, Kind::Reply, out).view(view);
    writer.header.client = client.0.into();
    writer.header.request = request.0.into();
    writer.body(&ReplyRef::from(reply));
    writer.finish(&Key::UNKEYED);
}

/// As [`encode`], for a message between replicas that stays with its owner.
///
/// # Panics
/// As [`encode`].
pub fn encode_message(envelope: &Envelope, key: &Key, message: &Message, out: &mut Vec<u8>) {
    let new = |kind, out| Writer::new(envelope, kind, out);
    let writer = match *message {
        Message::Prepare(ref prepare) => {
            let writer = new(Kind::Prepare, out)
                .view(prepare.view)
                .commit(prepare.commit);
            put_prepare(writer, envelope.epoch, prepare)
        }
        Message::PrepareOk { view, op, last_op } => {
            new(Kind::PrepareOk, out).view(view).op(op).first(last_op)
        }
        Message::Commit { view, commit } => new(Kind::Commit, out).view(view).commit(commit),
        Message::PreVote { view } => new(Kind::PreVote, out).view(view),
        Message::PreVoteOk { view } => new(Kind::PreVoteOk, out).view(view),
        Message::StartViewChange { view } => new(Kind::StartViewChange, out).view(view),
        Message::DoViewChange {
            view,
            last_normal,
            op,
            commit,
            digest,
        } => {
            let mut writer = new(Kind::DoViewChange, out)
                .view(view)
                .op(op)
                .commit(commit);
            writer.body(&(last_normal, digest));
            writer
        }
        Message::StartView {
            view,
            op,
            commit,
            digest,
        } => {
            let mut writer = new(Kind::StartView, out).view(view).op(op).commit(commit);
            writer.body(&digest);
            writer
        }
        Message::GetState { view, nonce, after } => new(Kind::GetState, out)
            .view(view)
            .nonce(nonce)
            .first(after),
        Message::NewState {
            view,
            nonce,
            after,
            digest_after,
            ref entries,
            op,
            digest,
            commit,
        } => {
            let writer = new(Kind::NewState, out)
                .view(view)
                .nonce(nonce)
                .first(after);
            let mut writer = writer.op(op).commit(commit);
            writer.body(&(digest_after, digest, entries.len() as u64));
            put_entries(envelope.epoch, entries, writer.out);
            writer
        }
        Message::GetCheckpoint {
            view,
            nonce,
            op,
            offset,
        } => {
            let mut writer = new(Kind::GetCheckpoint, out).view(view).nonce(nonce).op(op);
            writer.body(&offset);
            writer
        }
        Message::CheckpointChunk {
            view,
            nonce,
            op,
            log_digest,
            digest,
            total,
            offset,
            ref bytes,
        } => {
            let mut writer = new(Kind::CheckpointChunk, out)
                .view(view)
                .nonce(nonce)
                .op(op);
            writer.body(&(log_digest, digest, total, offset));
            writer.out.extend_from_slice(bytes);
            writer
        }
        Message::Recovery { nonce, promised } => {
            new(Kind::Recovery, out).nonce(nonce).view(promised)
        }
        Message::RecoveryResponse {
            nonce,
            view,
            ref primary,
        } => {
            let mut writer = new(Kind::RecoveryResponse, out).nonce(nonce).view(view);
            writer.body(primary);
            writer
        }
        Message::Hello { nonce, group } => new(Kind::Hello, out).group(nonce, group),
        Message::HelloOk { nonce, group } => new(Kind::HelloOk, out).group(nonce, group),
        Message::Bootstrap { nonce, group } => new(Kind::Bootstrap, out).group(nonce, group),
    };
    writer.finish(key);
}

fn put_prepare<'a>(writer: Writer<'a>, epoch: u32, prepare: &Prepare) -> Writer<'a> {
    let writer = writer.first(prepare.first).op(prepare.last());
    put_entries(epoch, &prepare.entries, writer.out);
    writer
}

/// A message that is being written: the header apart, since its length and check are known last.
struct Writer<'a> {
    header: Header,
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(envelope: &Envelope, kind: Kind, out: &'a mut Vec<u8>) -> Writer<'a> {
        out.clear();
        out.resize(HEADER_BYTES, 0);
        let mut header = Header::new_zeroed();
        header.magic = MAGIC.into();
        header.version = VERSION;
        header.kind = kind as u8;
        header.sender = envelope.sender;
        header.flags = envelope.flags;
        header.group = envelope.group.0.into();
        header.epoch = envelope.epoch.into();
        Writer { header, out }
    }

    fn view(mut self, view: View) -> Writer<'a> {
        self.header.view = view.0.into();
        self
    }

    fn op(mut self, op: OpNumber) -> Writer<'a> {
        self.header.op = op.0.into();
        self
    }

    fn first(mut self, first: OpNumber) -> Writer<'a> {
        self.header.first = first.0.into();
        self
    }

    fn commit(mut self, commit: OpNumber) -> Writer<'a> {
        self.header.commit = commit.0.into();
        self
    }

    fn nonce(mut self, nonce: Nonce) -> Writer<'a> {
        self.header.client = nonce.0.into();
        self
    }

    /// The three messages of the first start: their group is what they say, not where they belong (the envelope's).
    fn group(self, nonce: Nonce, group: electrode_vr::GroupId) -> Writer<'a> {
        let mut writer = self.nonce(nonce);
        writer.body(&group);
        writer
    }

    fn body<T: Serialize>(&mut self, body: &T) {
        // Taken and put back because postcard extends what it is given.
        let written = postcard::to_extend(body, std::mem::take(self.out));
        *self.out =
            written.expect("a vector takes everything, and no body refuses to be serialized");
    }

    fn finish(mut self, key: &Key) {
        let length = self.out.len() - HEADER_BYTES;
        self.header.length = u32::try_from(length)
            .expect("bodies are bounded by limits")
            .into();
        let kind = Kind::try_from(self.header.kind).expect("a writer begins with a kind");
        self.out[..HEADER_BYTES].copy_from_slice(self.header.as_bytes());
        let check = check(&key.for_kind(kind), self.out);
        self.out[8..16].copy_from_slice(&check.to_le_bytes());
    }
}
