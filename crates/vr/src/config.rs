//! What a replica is told before it starts: its place in the group, time-outs, bounds, and how to come up.

use crate::effect::Promise;
use crate::ids::{GroupId, ReplicaId};

/// What a replica needs to know before it starts.
#[derive(Clone, Debug, Hash)]
pub struct Config {
    /// The group's size, 2f+1, at most [`crate::MAX_REPLICAS`].
    pub replicas: usize,
    /// This replica's index.
    pub index: ReplicaId,
    /// Time-outs.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
    /// Whether there is a fast path. Without one no [`crate::Effect::FastPath`] is ever given.
    pub fast_path: bool,
    /// Whether this replica, as a primary, answers reads from its own state while its lease holds (rule 15).
    pub lease_reads: bool,
    /// What survives the process. In memory mode no [`crate::Effect::Write`] is ever given.
    pub durability: Durability,
}

/// What of a replica survives its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// The promise alone: the log is recovered from the others.
    #[default]
    Memory,
    /// The log too: nothing is acknowledged before it is on disk.
    Disk,
}

/// Time-outs, in nanoseconds.
#[derive(Clone, Debug, Hash)]
pub struct Timing {
    /// An idle primary sends a Commit this often.
    pub heartbeat: u64,
    /// A backup that hears nothing from its primary for this long (plus jitter) asks for a view change.
    pub view_change: u64,
    /// A primary sends an unanswered Prepare again after this.
    pub resend: u64,
    /// Recovery, state transfer and first-start questions are asked again after this.
    pub retry: u64,
    /// A backup that acknowledged joins no newer view within this time; 0: it promises nothing. The same on all replicas, since
    /// the primary's read lease relies on it. More than `view_change` would delay view changes.
    pub lease: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        const MS: u64 = 1_000_000;
        Timing {
            heartbeat: 25 * MS,
            view_change: 150 * MS,
            resend: 10 * MS,
            retry: 50 * MS,
            lease: 100 * MS,
        }
    }
}

impl Timing {
    /// The same, each time-out multiplied by `factor`: for machines or networks that are so much slower. All but the lease:
    /// a primary believes for as long as its backups are bound, so that must be the same at every replica, whatever
    /// factor each was given.
    #[must_use]
    pub fn slower(self, factor: u32) -> Timing {
        let factor = u64::from(factor);
        Timing {
            heartbeat: self.heartbeat.saturating_mul(factor),
            view_change: self.view_change.saturating_mul(factor),
            resend: self.resend.saturating_mul(factor),
            retry: self.retry.saturating_mul(factor),
            lease: self.lease,
        }
    }
}

/// The log is kept for a peer that fetches a checkpoint until there are as many later ops as so many checkpoints take: with the
/// default limits a million, ten seconds' worth at 100,000 a second, in which 32 KiB at a time a few hundred megabytes are there.
const PINNED: u64 = 64;

/// The same in bytes, as multiples of what a checkpoint is taken after.
const PINNED_BYTES: usize = 4;

/// More entries than fit a kernel's ring, and more bytes than it has.
const RING_OPS: u64 = 1 << 16;
const RING_BYTES: usize = 4 << 20;

/// What an entry has besides its op, padding included.
const LONGEST_HEADER: usize = 32;

/// The bounds of everything that could grow.
#[derive(Clone, Debug, Hash)]
pub struct Limits {
    /// The longest operation, in bytes.
    pub op_bytes: usize,
    /// A Prepare takes entries until they have this many bytes on the wire (one entry always fits).
    pub batch_bytes: usize,
    /// A Prepare has at most this many entries.
    pub batch_ops: usize,
    /// Prepares in flight.
    pub window: usize,
    /// Requests waiting for the window, and as many that wait for a predecessor; beyond it clients hear `Busy`.
    pub queue: usize,
    /// Their bytes: of those waiting for the window, and of those waiting for a predecessor. One always fits.
    pub queue_bytes: usize,
    /// A checkpoint is taken at every multiple of this many ops; the log keeps at most twice as many entries, but for peers
    /// that are fetching it ([`Limits::executed_ops`]).
    pub checkpoint_ops: u64,
    /// A checkpoint is also taken when the entries since the last one have this many bytes: at the same op by every replica. The
    /// same on all replicas.
    pub checkpoint_bytes: usize,
    /// The longest checkpoint (state and client table) that is fetched from others, in bytes. A replica whose state is longer
    /// says so, since who loses it doesn't get it back.
    pub state_bytes: u64,
    /// Client sessions remembered; the longest unused goes first, the same at every replica.
    pub sessions: usize,
    /// Requests of one session that may be in flight, and replies that are kept for it.
    pub session_requests: usize,
    /// Bytes of all replies that are kept; those of the sessions unused the longest go first, the same at every replica. The
    /// same on all replicas.
    pub reply_bytes: usize,
    /// Bytes of log or checkpoint in one state-transfer message.
    pub chunk_bytes: usize,
}

impl Limits {
    /// How many ops a backup takes beyond its commit number: twice what a primary has in flight, since what was in flight
    /// when a view ended is inherited. A Prepare further ahead is refused, and the kernel is fenced ("soft limit").
    #[must_use]
    pub fn uncommitted(&self) -> u64 {
        2 * self.window as u64 * self.batch_ops as u64
    }

    /// Entries kept below a checkpoint: never less than a Prepare may have to be sent again from.
    pub(crate) fn kept_ops(&self) -> u64 {
        self.checkpoint_ops.max(self.batch_ops as u64)
    }

    /// Entries kept below a checkpoint for peers that are getting on with fetching state.
    pub(crate) fn pinned_ops(&self) -> u64 {
        self.kept_ops().saturating_mul(PINNED)
    }

    /// How many executed entries the log has at most.
    #[must_use]
    pub fn executed_ops(&self) -> u64 {
        self.pinned_ops().saturating_add(self.checkpoint_ops)
    }

    /// Bytes of the entries below a checkpoint that are kept for peers that are getting on with fetching state; for others it
    /// is [`Limits::checkpoint_bytes`].
    pub(crate) fn pinned_bytes(&self) -> usize {
        self.checkpoint_bytes.saturating_mul(PINNED_BYTES)
    }

    /// How many bytes the executed entries of the log have at most: what is kept below a checkpoint, what comes until the next,
    /// and in any case what a Prepare may have to be sent again from.
    #[must_use]
    pub fn executed_bytes(&self) -> usize {
        let kept = self.pinned_bytes().saturating_add(self.checkpoint_bytes);
        kept.saturating_add(self.largest(self.batch_ops as u64 + 1))
    }

    /// Entries that a peer's log can have at most, with what its kernel's ring had acknowledged.
    pub(crate) fn log_ops(&self) -> u64 {
        let uncommitted = self.uncommitted().saturating_mul(2);
        self.executed_ops().saturating_add(uncommitted + RING_OPS)
    }

    /// Bytes that a peer's log can have at most: what is in a ring fits the ring.
    pub(crate) fn log_bytes(&self) -> usize {
        let uncommitted = self.uncommitted().saturating_mul(2);
        let executed = self.executed_bytes().saturating_add(RING_BYTES);
        executed.saturating_add(self.largest(uncommitted))
    }

    /// What so many of the longest entries take.
    fn largest(&self, entries: u64) -> usize {
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        let longest = self.op_bytes.saturating_add(LONGEST_HEADER);
        entries.saturating_mul(longest)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            op_bytes: 32 << 10,
            batch_bytes: 1320,
            batch_ops: 64,
            window: 8,
            queue: 4096,
            queue_bytes: 16 << 20,
            checkpoint_ops: 16384,
            checkpoint_bytes: 64 << 20,
            state_bytes: 4 << 30,
            sessions: 4096,
            session_requests: 64,
            reply_bytes: 64 << 20,
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
