//! What replicas and clients say to each other (VR Revisited, sections 4 and 5).
//!
//! Sender, group and authenticator are the wire's business; a message here has passed them already.

use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, Digest, GroupId, Nonce, OpNumber, RequestNumber, View};

/// A client's request as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Who asked.
    pub client: ClientId,
    /// The number that the client gave it; see [`RequestNumber::is_read`].
    pub request: RequestNumber,
    /// The operation: bytes for the state machine.
    pub op: Arc<[u8]>,
}

/// Ops `first..=first + entries.len() - 1` of `view` (section 4.1, step 3). Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prepare {
    /// The view in which the primary ordered them.
    pub view: View,
    /// The op number of the first entry.
    pub first: OpNumber,
    /// The primary's commit number.
    pub commit: OpNumber,
    /// The entries, in order.
    pub entries: Vec<Entry>,
}

impl Prepare {
    /// The op number of the last entry.
    #[must_use]
    pub fn last(&self) -> OpNumber {
        OpNumber(self.first.0 + self.entries.len() as u64 - 1)
    }
}

/// A message between two replicas.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Primary to backups: append these ops.
    Prepare(Prepare),
    /// Backup to primary: every op up to `op` of `view` is in my log. `last_op` is my newest (>= `op`), for the kernel's
    /// answers to resent Prepares; it says the same of every op up to `last_op`.
    PrepareOk {
        /// The view of the Prepare that is answered.
        view: View,
        /// The last op of the Prepare that is answered.
        op: OpNumber,
        /// The backup's newest op of that view.
        last_op: OpNumber,
    },
    /// Primary to backups when idle: commit up to here; also the heartbeat.
    Commit {
        /// The primary's view.
        view: View,
        /// The primary's commit number.
        commit: OpNumber,
    },
    /// "Would you support a change to `view`?" Changes nothing at the receiver.
    PreVote {
        /// The view that the sender would move to.
        view: View,
    },
    /// "I have not heard from the primary of a view below `view` either."
    PreVoteOk {
        /// The view of the PreVote.
        view: View,
    },
    /// Section 4.2, step 1.
    StartViewChange {
        /// The new view.
        view: View,
    },
    /// Section 4.2, step 2, without the log: the new primary fetches what it lacks by [`Message::GetState`] from the best.
    DoViewChange {
        /// The new view.
        view: View,
        /// The latest view in which the sender's status was normal: stored on its own, not the log's.
        last_normal: View,
        /// The sender's last op.
        op: OpNumber,
        /// The sender's commit number.
        commit: OpNumber,
        /// The digest of the sender's log at `op`.
        digest: Digest,
    },
    /// Section 4.2, step 3, without the log: a backup whose log differs fetches by [`Message::GetState`].
    StartView {
        /// The new view.
        view: View,
        /// The last op of the new view's log.
        op: OpNumber,
        /// The new primary's commit number.
        commit: OpNumber,
        /// The digest of the log at `op`.
        digest: Digest,
    },
    /// Asks for the log after `after` (section 5.2). Truncates nothing at either side.
    GetState {
        /// The asker's view: only a replica in this very view answers.
        view: View,
        /// Tells the answers apart.
        nonce: Nonce,
        /// The asker has everything up to here.
        after: OpNumber,
    },
    /// A chunk of the log: the entries after `after`, as many as fit.
    NewState {
        /// The view of the question.
        view: View,
        /// The nonce of the question.
        nonce: Nonce,
        /// The op before the first entry.
        after: OpNumber,
        /// The digest of the sender's log at `after`.
        digest_after: Digest,
        /// The entries.
        entries: Vec<Entry>,
        /// The sender's last op.
        op: OpNumber,
        /// The digest of the sender's log at `op`.
        digest: Digest,
        /// The sender's commit number.
        commit: OpNumber,
    },
    /// The log after the asked op is trimmed: take this checkpoint first. Also the answer to [`Message::GetCheckpoint`].
    CheckpointChunk {
        /// The view of the question.
        view: View,
        /// The nonce of the question.
        nonce: Nonce,
        /// The op that the checkpoint stands at.
        op: OpNumber,
        /// The digest of the log at `op`.
        log_digest: Digest,
        /// The digest of the whole checkpoint's bytes.
        digest: Digest,
        /// How many bytes it has.
        total: u64,
        /// Where this chunk starts.
        offset: u64,
        /// The chunk.
        bytes: Vec<u8>,
    },
    /// Asks for the part of checkpoint `op` from `offset` on.
    GetCheckpoint {
        /// The asker's view.
        view: View,
        /// Tells the answers apart.
        nonce: Nonce,
        /// Which checkpoint.
        op: OpNumber,
        /// From which byte on.
        offset: u64,
    },
    /// Section 4.3, step 1. `promised` is the highest view that the sender ever promised (kept on disk).
    Recovery {
        /// New for each recovery.
        nonce: Nonce,
        /// The view below which the sender must not end up.
        promised: View,
    },
    /// Section 4.3, step 2. The log is fetched by [`Message::GetState`] afterwards.
    RecoveryResponse {
        /// The nonce of the question.
        nonce: Nonce,
        /// The responder's view.
        view: View,
        /// The log's end and digest, from the primary of `view` alone: (op, commit, digest).
        primary: Option<(OpNumber, OpNumber, Digest)>,
    },
    /// "Who are you, and is there a group already?" Sent at the first start, before the sender has a group.
    Hello {
        /// New for each start.
        nonce: Nonce,
        /// The group that the sender belongs to, 0 when it has none.
        group: GroupId,
    },
    /// The answer to [`Message::Hello`].
    HelloOk {
        /// The nonce of the question.
        nonce: Nonce,
        /// The responder's group, 0 when it is new as well.
        group: GroupId,
    },
    /// From replica 0 once all n are known to be new: this is the group's name; start as normal in view 0.
    Bootstrap {
        /// The nonce of the receiver's HelloOk round: the receiver's own latest Hello nonce.
        nonce: Nonce,
        /// The group's new name.
        group: GroupId,
    },
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// The request was executed, once; this is the state machine's result.
    Done(Arc<[u8]>),
    /// Not by me: ask the primary of `view` (the header carries the view).
    NotPrimary,
    /// I am the primary but can't take more now: come again after the hint.
    Busy {
        /// How long to wait, in milliseconds.
        retry_after_ms: u32,
    },
    /// The session is not in the client table (evicted, or never begun): whether the request was executed is not known.
    NoSession,
    /// The operation is longer than a request may be.
    TooLarge {
        /// The limit in bytes.
        limit: u32,
    },
    /// The replica isn't normal (view change, recovery), or hears no quorum: try again or elsewhere.
    Unavailable,
    /// Asked as a read, but the operation may change the state: it wasn't executed.
    NotRead,
}
