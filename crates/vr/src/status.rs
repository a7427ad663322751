//! What a replica shows of itself.

use alloc::string::String;
use alloc::vec::Vec;

use crate::ids::{Digest, GroupId, OpNumber, Time, View};

/// The replica's status (VR Revisited, section 4.1), and the first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Asking whether everybody is new.
    Starting,
    /// Processing requests.
    Normal,
    /// Between two views.
    ViewChange,
    /// Fetching the state after a crash.
    Recovering,
}

/// What a normal replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Orders requests.
    Primary,
    /// Follows.
    Backup,
}

/// What `status` shows of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The group, 0 before it is known.
    pub group: GroupId,
    /// The status.
    pub status: Status,
    /// The role that the view gives.
    pub role: Role,
    /// The view.
    pub view: View,
    /// The last op.
    pub op: OpNumber,
    /// The commit number.
    pub commit: OpNumber,
    /// The last op that survives the process: on disk in disk mode, none in memory mode.
    pub durable: Option<OpNumber>,
    /// The digest of the log at `commit`.
    pub log_digest: Digest,
    /// The state machine's digest at `commit`.
    pub state_digest: Digest,
    /// The latest checkpoint.
    pub checkpoint: OpNumber,
    /// Entries in the log.
    pub log_entries: usize,
    /// What they take, in bytes.
    pub log_bytes: usize,
    /// Client sessions.
    pub sessions: usize,
    /// What the replies kept for them take, in bytes.
    pub reply_bytes: usize,
    /// Whether the fast path is armed.
    pub armed: bool,
    /// Why the replica isn't normal, in words, if it isn't; or why it doesn't get the state that it lacks.
    pub reason: Option<String>,
    /// Per replica: when it was last heard (0: never) and the highest op it acknowledged in this view.
    pub peers: Vec<(Time, OpNumber)>,
}
