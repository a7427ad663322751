//! The core's door: what goes in, and the ordered effects that come out.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::ids::{
    ClientId, Digest, GroupId, Nonce, OpNumber, ReplicaId, RequestNumber, Time, View,
};
use crate::message::{Entry, Message, Prepare, Reply};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Another replica's message, already authenticated.
    Message {
        /// The sender, never this replica.
        from: ReplicaId,
        /// What it said.
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
    /// [`crate::Replica::deadline`] has passed (or not: a tick too early changes nothing).
    Tick {
        /// Fresh randomness for jitter and nonces.
        entropy: Nonce,
    },
    /// The kernel's side of the log.
    FastPath(FastPathEvent),
    /// Disk mode: every [`Write::Append`] of `view` up to `op` is durable, and so is everything written before it.
    Persisted {
        /// The view of the append.
        view: View,
        /// Its last op.
        op: OpNumber,
    },
    /// The inputs that were at hand have all been given: queued requests may now leave as one Prepare.
    Flush,
}

/// What the fast path reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FastPathEvent {
    /// The kernel stored (and acknowledged) this Prepare; delivered in the order of the log.
    Stored(Prepare),
    /// Answers [`FastPathCommand::Fence`], after every record up to `last_op` was delivered as [`FastPathEvent::Stored`].
    Fenced {
        /// The last op that the kernel accepted, exactly.
        last_op: OpNumber,
    },
    /// Answers [`FastPathCommand::Claim`]: the ops are the core's to append.
    Claimed,
    /// Answers [`FastPathCommand::Claim`]: the kernel was first; its records have been delivered meanwhile.
    Lost,
    /// The backups whose bit is set in the quorum slot of `op`: each has every op up to `op` of the current view.
    SlotAcks {
        /// The slot's op.
        op: OpNumber,
        /// Bit `i` is replica `i`.
        acks: u16,
    },
    /// The kernel dropped (surplus) acks of this backup: its life sign and its progress (R9).
    Heard {
        /// The backup.
        from: ReplicaId,
        /// When, on the driver's clock.
        at: Time,
        /// The highest op that it acknowledged in the current generation.
        op: OpNumber,
    },
}

/// What the core asks of the fast path. Only given when the configuration has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastPathCommand {
    /// Stop the kernel's part at once; deliver what it stored; then answer [`FastPathEvent::Fenced`]. No other input may come between.
    Fence,
    /// Start the kernel's part: this view, this role, a log that ends at `last_op`.
    Arm {
        /// The view, already persisted.
        view: View,
        /// Whether this replica is the view's primary (counting acks) or a backup (storing).
        primary: bool,
        /// The log's last op.
        last_op: OpNumber,
    },
    /// A backup wants to append ops `after + 1 ..= last` itself. Answered at once by `Claimed`, or by `Lost`.
    Claim {
        /// The core's own last op.
        after: OpNumber,
        /// The last op to append.
        last: OpNumber,
    },
    /// The primary will (re)send the Prepare whose last op is `op`: open its quorum slot.
    OpenSlot {
        /// The last op of the Prepare.
        op: OpNumber,
    },
}

/// What has to be on disk before the next effect takes place (protocol.md, rule 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Promise {
    /// The group that this replica belongs to; 0 before the bootstrap.
    pub group: GroupId,
    /// The highest view that it promised.
    pub view: View,
}

/// A change of the log on disk, in disk mode. [`crate::Stored`] says what a sequence of them amounts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// The log grows. Others go on meanwhile; [`Input::Persisted`] says when it is durable.
    Append {
        /// The view in which it grows.
        view: View,
        /// The log's last op so far.
        after: OpNumber,
        /// What follows.
        entries: Vec<Entry>,
        /// The digest of the log with them.
        digest: Digest,
    },
    /// The replica is about to be normal in `view` with this log: up to `after` as it is on disk (or in the checkpoint
    /// that was written), then `entries`. All or nothing; with every write before it, durable before the
    /// next effect takes place.
    Enter {
        /// The group.
        group: GroupId,
        /// The view.
        view: View,
        /// What is kept.
        after: OpNumber,
        /// The digest of the log there.
        digest_after: Digest,
        /// What follows.
        entries: Vec<Entry>,
        /// The digest of the log with them.
        digest: Digest,
    },
    /// A checkpoint. Once it is durable, the log up to `op` and older checkpoints may go.
    Checkpoint {
        /// The op it stands at.
        op: OpNumber,
        /// The digest of the log there.
        log_digest: Digest,
        /// State and client table.
        bytes: Arc<Vec<u8>>,
    },
}

/// Something to do. Effects take place in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write the promise to stable storage; go on only when it is there, and (in disk mode) every [`Write::Append`] before it.
    Persist(Promise),
    /// Disk mode: change the log on disk, in the order given. Each kind says who waits for it.
    Write(Write),
    /// Send to one replica.
    Send {
        /// The receiver.
        to: ReplicaId,
        /// What.
        message: Message,
    },
    /// Send to every other replica.
    Broadcast(Message),
    /// Answer a client.
    Reply {
        /// The session.
        client: ClientId,
        /// The request that is answered.
        request: RequestNumber,
        /// The replica's view, so that the client finds the primary.
        view: View,
        /// The answer.
        reply: Reply,
    },
    /// An order to the fast path.
    FastPath(FastPathCommand),
    /// For the log.
    Note(Note),
}

/// Events worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Status, view or role changed.
    Entered {
        /// The status's name.
        status: &'static str,
        /// The view.
        view: View,
        /// Whether this replica is the view's primary.
        primary: bool,
    },
    /// Something a person should read.
    Warning(String),
}
