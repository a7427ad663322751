//! One replica of the group: its configuration, its state, and the door.

use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::effect::{Effect, Input, Promise};
use crate::ids::{Digest, GroupId, Nonce, OpNumber, ReplicaId, Time, View};
use crate::state_machine::StateMachine;

/// What a replica needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The group's size, 2f+1, at most [`crate::MAX_REPLICAS`].
    pub replicas: usize,
    /// This replica's index.
    pub index: ReplicaId,
    /// Time-outs.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
    /// Whether there is a fast path. Without one no [`Effect::FastPath`] is ever given.
    pub fast_path: bool,
}

/// Time-outs, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Timing {
    /// An idle primary sends a Commit this often.
    pub heartbeat: u64,
    /// A backup that hears nothing from its primary for this long (plus jitter) asks for a view change.
    pub view_change: u64,
    /// A primary sends an unanswered Prepare again after this.
    pub resend: u64,
    /// Recovery, state transfer and first-start questions are asked again after this.
    pub retry: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        const MS: u64 = 1_000_000;
        Timing { heartbeat: 25 * MS, view_change: 150 * MS, resend: 10 * MS, retry: 50 * MS }
    }
}

/// The bounds of everything that could grow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest operation, in bytes.
    pub op_bytes: usize,
    /// A Prepare takes entries until they have this many bytes on the wire (one entry always fits).
    pub batch_bytes: usize,
    /// A Prepare has at most this many entries.
    pub batch_ops: usize,
    /// Prepares in flight.
    pub window: usize,
    /// Requests waiting for the window; beyond it clients hear `Busy`.
    pub queue: usize,
    /// A checkpoint is taken at every multiple of this many ops; the log keeps at most twice as many entries.
    pub checkpoint_ops: u64,
    /// Client sessions remembered; the longest unused goes first, the same at every replica.
    pub sessions: usize,
    /// Requests of one session that may be in flight, and replies that are kept for it.
    pub session_requests: usize,
    /// Bytes of log or checkpoint in one state-transfer message.
    pub chunk_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            op_bytes: 32 << 10,
            batch_bytes: 1320,
            batch_ops: 64,
            window: 8,
            queue: 4096,
            checkpoint_ops: 16384,
            sessions: 4096,
            session_requests: 64,
            chunk_bytes: 32 << 10,
        }
    }
}

/// How a replica comes up (protocol.md, rule 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// No promise on disk: a first start, normal only when all n turn out to be new; otherwise recovery.
    New,
    /// The operator says so: normal in view 0 of this group.
    Bootstrap(GroupId),
    /// There is a promise on disk: recover.
    Recover(Promise),
}

/// The replica's status (VR Revisited, section 4.1), and the first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The digest of the log at `commit`.
    pub log_digest: Digest,
    /// The state machine's digest at `commit`.
    pub state_digest: Digest,
    /// The latest checkpoint.
    pub checkpoint: OpNumber,
    /// Entries in the log.
    pub log_entries: usize,
    /// Client sessions.
    pub sessions: usize,
    /// Whether the fast path is armed.
    pub armed: bool,
    /// Why the replica isn't normal, in words, if it isn't.
    pub reason: Option<alloc::string::String>,
    /// Per replica: when it was last heard (0: never) and the highest op it acknowledged in this view.
    pub peers: Vec<(Time, OpNumber)>,
}

/// One replica.
#[derive(Debug)]
pub struct Replica<S> {
    machine: PhantomData<S>,
}

impl<S: StateMachine> Replica<S> {
    /// A replica that is about to start. Its first effects come with the first [`Input::Tick`], due at once.
    #[must_use]
    pub fn new(config: Config, start: Start, machine: S, now: Time, entropy: Nonce) -> Replica<S> {
        let _ = (config, start, machine, now, entropy);
        Replica { machine: PhantomData }
    }

    /// Takes one input; appends what is to be done to `out`, in order.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Effect>) {
        let _ = (now, input, out);
    }

    /// When the next [`Input::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        None
    }

    /// The replica's state for people.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        unreachable!("replaced by the core")
    }

    /// The state machine, at the commit number.
    #[must_use]
    pub fn machine(&self) -> &S {
        unreachable!("replaced by the core")
    }
}
