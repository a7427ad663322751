//! Between bytes and messages: who this replica is, whom it lets in, and how what it says is signed.

use std::net::SocketAddr;
use std::sync::Arc;

use electrode_vr::{ClientId, GroupId, Message, Nonce, Prepare, ReplicaId, RequestNumber, Start};
use electrode_wire::admission::{Refusal, admit};
use electrode_wire::header::EPOCH;
use electrode_wire::{Envelope, Key, Packet, decode, encode_message, encode_reply};

use crate::clients::Clients;
use crate::{ReplyTo, Stopped};

/// Decodes and admits, and encodes: every system that has bytes passes them through here.
#[derive(Clone, Debug)]
pub struct Door {
    index: ReplicaId,
    key: Key,
    group: GroupId,
    addresses: Arc<[SocketAddr]>,
    pub(crate) clients: Clients,
}

/// A datagram that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Another replica's.
    Message {
        /// Who says it.
        from: ReplicaId,
        /// What.
        message: Message,
    },
    /// A client's request.
    Request {
        /// The session.
        client: ClientId,
        /// Its number.
        request: RequestNumber,
        /// The operation.
        op: Arc<[u8]>,
    },
    /// Somebody asks how this replica is.
    StatusRequest {
        /// Comes back in the answer.
        nonce: Nonce,
        /// Where the answer goes.
        source: SocketAddr,
    },
}

impl Door {
    /// The door of replica `index`, whose group has these addresses; the group's name is what `start` knows of it.
    #[must_use]
    pub fn new(index: ReplicaId, key: Key, addresses: &[SocketAddr], start: Start) -> Door {
        let group = match start {
            Start::Recover(promise) => promise.group,
            Start::New | Start::Bootstrap(_) => GroupId(0),
        };
        Door {
            index,
            key,
            group,
            addresses: addresses.into(),
            clients: Clients::default(),
        }
    }

    /// This replica.
    #[must_use]
    pub fn index(&self) -> ReplicaId {
        self.index
    }

    /// The group's key.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// The group's name; 0 before it is known.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Everybody's address.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn join(&mut self, group: GroupId) {
        self.group = group;
    }

    /// Decodes a datagram and lets it in; replies to a client that is let in go to where this came from.
    ///
    /// # Errors
    /// Why it goes no further.
    pub fn open(&mut self, bytes: &[u8], source: Option<SocketAddr>) -> Result<Received, Refusal> {
        let source = source.ok_or(Refusal::NoSource)?;
        let (envelope, packet) = decode(bytes, &self.key).map_err(Refusal::Undecodable)?;
        admit(
            &envelope,
            &packet,
            source,
            self.index,
            self.group,
            &self.addresses,
        )?;
        match packet {
            Packet::Message(message) => Ok(Received::Message {
                from: ReplicaId(envelope.sender),
                message,
            }),
            Packet::Request {
                client,
                request,
                op,
            } => {
                self.clients.heard(client, source);
                Ok(Received::Request {
                    client,
                    request,
                    op,
                })
            }
            Packet::StatusRequest { nonce } => Ok(Received::StatusRequest { nonce, source }),
            Packet::Reply { .. } | Packet::StatusReply { .. } => Err(Refusal::NotForReplicas),
        }
    }

    /// Decodes a record of the ring. The kernel checked and acknowledged it: if it can't be read, stop.
    ///
    /// # Errors
    /// It is no Prepare.
    pub fn stored(&self, record: &[u8]) -> Result<Prepare, Stopped> {
        match decode(record, &self.key) {
            Ok((_, Packet::Message(Message::Prepare(prepare)))) => Ok(prepare),
            Ok(_) => Err(Stopped::BadRecord("another kind of message".to_owned())),
            Err(error) => Err(Stopped::BadRecord(error.to_string())),
        }
    }

    /// Encodes a message for other replicas, in place of what is in `out`.
    pub fn encode_message(&self, flags: u8, message: &Message, out: &mut Vec<u8>) {
        encode_message(&self.envelope(flags), &self.key, message, out);
    }

    /// Encodes a reply to a client, in place of what is in `out`.
    pub fn encode_reply(&self, reply: ReplyTo<'_>, out: &mut Vec<u8>) {
        let ReplyTo {
            client,
            request,
            view,
            reply,
        } = reply;
        encode_reply(&self.envelope(0), view, client, request, reply, out);
    }

    /// What everything that this replica says begins with.
    #[must_use]
    pub fn envelope(&self, flags: u8) -> Envelope {
        Envelope {
            group: self.group,
            epoch: EPOCH,
            sender: self.index.0,
            flags,
        }
    }
}
