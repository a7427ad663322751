//! One replica of the group: its state, and the door.
//!
//! What the driver owes: effects take place in order, each before the next; a Persist that fails stops the process; ticks
//! come when the deadline passes; a Flush follows every batch of inputs, ticks and the kernel's included; and the ring's
//! records come in before a tick and before the datagrams received with them: they are life signs, and they fill what would
//! look like gaps.

mod checkpoint;
mod client_table;
mod durability;
mod fast_path;
mod lease;
mod log;
mod model;
mod normal;
mod pre_vote;
mod recovery;
mod replica_set;
mod requests;
mod start;
mod state_source;
mod state_transfer;
pub mod stored;
mod view_change;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::MAX_REPLICAS;
use crate::config::{Config, Start};
use crate::effect::{Effect, FastPathEvent, Input, Note, Promise};
use crate::ids::{
    ClientId, Digest, GroupId, Nonce, OpNumber, ReplicaId, RequestNumber, Time, View,
};
use crate::message::Message;
use crate::mutations::{Mutation, active};
use crate::state_machine::StateMachine;
use crate::status::{Role, Snapshot, Status};

use checkpoint::Checkpoint;
use client_table::ClientTable;
use durability::Disk;
use fast_path::{Fast, Held};
use log::Log;
use requests::Primary;
use start::FirstStart;
use state_source::Shown;
use state_transfer::{Obstacle, Partial, Transfer};
use view_change::ViewChange;

/// Views above this come from no group that ever lived; they are ignored, so that no arithmetic on views can overflow.
const VIEW_LIMIT: u64 = 1 << 62;

/// What is known of a replica (of oneself: unused).
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Peer {
    /// When it was last heard, by socket or kernel.
    heard: Time,
    /// When it last said something that a backup of this replica's view can say (`may_follow`).
    followed: Time,
    /// The highest op that it acknowledged in this view.
    acked: OpNumber,
    /// When it last said that it was recovering, unless it said something else since.
    recovering: Option<Time>,
    /// Its latest Hello's nonce.
    hello: Option<Nonce>,
    /// Its Hello's nonce when this replica bootstrapped the group with it.
    bootstrapped: Option<Nonce>,
    /// Whether it showed that it is in this primary's view.
    joined: bool,
    /// Its latest question of state.
    shown: Option<Shown>,
}

/// One replica.
#[derive(Clone, Debug, Hash)]
pub struct Replica<S> {
    config: Config,
    machine: S,
    /// The latest time that an input brought.
    now: Time,
    /// Entropy, mixed anew by each tick.
    random: u64,
    group: GroupId,
    status: Status,
    /// The view whose log this is, or the one that this replica votes for.
    view: View,
    /// The highest view promised, on disk before anything of it was said. Above `view` only while recovering, or while the
    /// state of a view that others started is being fetched (rule 2: the view rises when the state is there).
    promised: View,
    /// The latest view in which the status was normal (rule 1).
    last_normal: View,
    log: Log,
    /// What of the log is on disk; of no interest in memory mode.
    disk: Disk,
    commit: OpNumber,
    /// The highest commit number heard of in this view; at most `commit` until the log reaches it.
    learned_commit: OpNumber,
    table: ClientTable,
    checkpoint: Option<Checkpoint>,
    /// What the entries executed since that take.
    unsaved_bytes: usize,
    /// An earlier checkpoint that somebody is fetching; the log reaches back to it.
    pinned: Option<Checkpoint>,
    peers: Vec<Peer>,
    primary: Primary,
    /// Prepares that wait for the ones before them, by first op; at most `window`.
    early: BTreeMap<OpNumber, Held>,
    view_change: ViewChange,
    transfer: Option<Transfer>,
    /// What an earlier transfer had of a checkpoint.
    fetched: Option<Partial>,
    /// Why fetching state doesn't get on.
    obstacle: Option<Obstacle>,
    recovery: recovery::Recovery,
    first_start: FirstStart,
    fast: Fast,
    /// Until then this replica, which acknowledged, joins no newer view (rule 15).
    bound_until: Time,
    /// What must never fall: last normal view, promised view, commit number.
    floor: (View, View, OpNumber),
}

impl<S: StateMachine> Replica<S> {
    /// A replica that is about to start. Its first effects come with the first [`Input::Tick`], due at once.
    ///
    /// # Panics
    /// The configuration is none: an even or too large group, an index outside of it, or a limit of 0.
    #[must_use]
    pub fn new(config: Config, start: Start, machine: S, now: Time, entropy: Nonce) -> Replica<S> {
        let limits = &config.limits;
        assert!(
            config.replicas % 2 == 1 && config.replicas <= MAX_REPLICAS,
            "2f+1 replicas"
        );
        assert!(
            config.index.index() < config.replicas,
            "the index is in the group"
        );
        assert!(
            limits.window > 0 && limits.batch_ops > 0 && limits.queue > 0,
            "limits above 0"
        );
        assert!(
            limits.checkpoint_ops > 0 && limits.sessions > 0,
            "limits above 0"
        );
        assert!(
            limits.session_requests > 0 && limits.checkpoint_bytes > 0,
            "limits above 0"
        );
        let promise = match start {
            Start::New => Promise::default(),
            Start::Bootstrap(group) => Promise {
                group,
                view: View(0),
            },
            Start::Recover(promise) => promise,
        };
        let mut replica = Replica {
            machine,
            now,
            random: entropy.0,
            group: promise.group,
            status: Status::Starting,
            view: View(0),
            promised: promise.view,
            last_normal: View(0),
            log: Log::starting_after(OpNumber(0), Digest(0)),
            disk: Disk::default(),
            commit: OpNumber(0),
            learned_commit: OpNumber(0),
            table: ClientTable::default(),
            checkpoint: None,
            unsaved_bytes: 0,
            pinned: None,
            peers: alloc::vec![Peer::default(); config.replicas],
            primary: Primary::default(),
            early: BTreeMap::new(),
            view_change: ViewChange::new(config.replicas),
            transfer: None,
            fetched: None,
            obstacle: None,
            recovery: recovery::Recovery::new(config.replicas),
            first_start: FirstStart::new(start, now),
            fast: Fast::Disarmed,
            // What an earlier life acknowledged isn't known, but it was before now.
            bound_until: match start {
                Start::Recover(_) => now.plus(config.timing.lease),
                Start::New | Start::Bootstrap(_) => Time(0),
            },
            floor: (View(0), promise.view, OpNumber(0)),
            config,
        };
        if matches!(start, Start::Recover(_)) {
            replica.status = Status::Recovering;
            replica.begin_recovery();
        }
        replica.first_start.nonce = replica.fresh_nonce();
        replica
    }

    /// Takes one input; appends what is to be done to `out`, in order.
    ///
    /// # Panics
    /// An invariant is broken: by the driver (an input that the fast path's contract excludes) or by divergence. The
    /// process has to stop; that is a crash, which the protocol is made for. Messages, whatever they hold, never do it,
    /// but for the answer of the replica that was asked for its state when it contradicts what is committed here.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        self.assert_expected(&input);
        let waited = self.fast.waits();
        match input {
            Input::Message { from, message } => self.on_message(from, message, out),
            Input::Request {
                client,
                request,
                op,
            } => self.on_request(client, request, op, out),
            Input::Tick { entropy } => {
                self.random ^= entropy.0;
                self.on_tick(out);
            }
            Input::FastPath(event) => self.on_fast_path(event, out),
            Input::Persisted { view, op } => self.on_persisted(view, op, out),
            Input::Flush => self.on_flush(out),
        }
        assert!(
            waited || !self.fast.waits() || matches!(out.last(), Some(Effect::FastPath(_))),
            "nothing follows a fence or a claim"
        );
        self.assert_invariants();
    }

    /// When the next [`Input::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let own = match self.status {
            Status::Starting => Some(self.first_start.again_at),
            Status::Recovering => Some(self.recovery.again_at),
            Status::ViewChange => Some(self.view_change.deadline()),
            Status::Normal if self.is_primary() => self.primary_deadline(),
            Status::Normal => Some(self.view_change.suspect_at),
        };
        let transfer = self.transfer.as_ref().map(|transfer| transfer.again_at);
        [own, transfer].into_iter().flatten().min()
    }

    /// The replica's state for people.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            group: self.group,
            status: self.status,
            role: if self.is_primary() {
                Role::Primary
            } else {
                Role::Backup
            },
            view: self.view,
            op: self.log.op(),
            commit: self.commit,
            durable: self.on_disk().then(|| self.durable()),
            log_digest: self
                .log
                .digest_at(self.commit)
                .expect("the commit number is in the log"),
            state_digest: self.machine.digest(),
            checkpoint: self
                .checkpoint
                .as_ref()
                .map_or(OpNumber(0), |checkpoint| checkpoint.op),
            log_entries: self.log.entries(),
            log_bytes: self.log.bytes(),
            sessions: self.table.len(),
            reply_bytes: self.table.reply_bytes(),
            armed: self.fast.armed(),
            reason: self.reason(),
            peers: self
                .peers
                .iter()
                .map(|peer| (peer.heard, peer.acked))
                .collect(),
        }
    }

    /// The state machine, at the commit number.
    #[must_use]
    pub fn machine(&self) -> &S {
        &self.machine
    }

    /// The highest request of a session that was executed; None: no such session is known, or it has expired.
    #[must_use]
    pub fn session(&self, client: ClientId) -> Option<RequestNumber> {
        self.table.highest(client)
    }

    /// The digests of the log at the latest checkpoint and of the checkpoint itself, if there is one.
    #[must_use]
    pub fn checkpoint_digests(&self) -> Option<(Digest, Digest)> {
        let checkpoint = self.checkpoint.as_ref()?;
        Some((checkpoint.log_digest, checkpoint.digest))
    }

    /// The highest view that this replica promised: what its disk has to hold.
    #[must_use]
    pub fn promised(&self) -> View {
        self.promised
    }

    /// The latest view in which this replica was normal.
    #[must_use]
    pub fn last_normal(&self) -> View {
        self.last_normal
    }

    /// The digest of the log at `op`, if the log still has that op.
    #[must_use]
    pub fn log_digest_at(&self, op: OpNumber) -> Option<Digest> {
        self.log.digest_at(op)
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut Vec<Effect>) {
        if from.index() >= self.config.replicas || from == self.config.index {
            return;
        }
        if view_of(&message).is_some_and(|view| view.0 > VIEW_LIMIT) {
            return;
        }
        let now = self.now;
        let follows = self.may_follow(&message);
        let peer = &mut self.peers[from.index()];
        peer.heard = now;
        if follows {
            peer.followed = now;
        }
        let recovering = matches!(message, Message::Recovery { .. });
        let knows_no_state = matches!(message, Message::Hello { .. } | Message::HelloOk { .. });
        if recovering {
            peer.recovering = Some(now);
        } else if !knows_no_state {
            peer.recovering = None;
        }
        match message {
            Message::Hello { nonce, group } => self.on_hello(from, nonce, group, out),
            Message::HelloOk { nonce, group } => self.on_hello_ok(from, nonce, group, out),
            Message::Bootstrap { nonce, group } => self.on_bootstrap(nonce, group, out),
            Message::Recovery { nonce, promised } => self.on_recovery(from, nonce, promised, out),
            message => match self.status {
                Status::Starting => {}
                Status::Recovering if active(Mutation::RecoveringTakesPart) => match message {
                    Message::RecoveryResponse { .. }
                    | Message::NewState { .. }
                    | Message::CheckpointChunk { .. } => {
                        self.on_message_recovering(from, message, out)
                    }
                    message => self.on_protocol(from, message, out),
                },
                Status::Recovering => self.on_message_recovering(from, message, out),
                Status::Normal | Status::ViewChange => self.on_protocol(from, message, out),
            },
        }
    }

    /// The messages that only a replica with a state takes part in (rule 5).
    fn on_protocol(&mut self, from: ReplicaId, message: Message, out: &mut Vec<Effect>) {
        match message {
            Message::Prepare(prepare) => self.on_prepare(from, prepare, out),
            Message::PrepareOk { view, op, last_op } => {
                self.on_prepare_ok(from, view, op, last_op, out);
            }
            Message::Commit { view, commit } => self.on_commit(from, view, commit, out),
            Message::PreVote { view } => self.on_pre_vote(from, view, out),
            Message::PreVoteOk { view } => self.on_pre_vote_ok(from, view, out),
            Message::StartViewChange { view } => self.on_start_view_change(from, view, out),
            message @ Message::DoViewChange { .. } => self.on_do_view_change(from, message, out),
            message @ Message::StartView { .. } => self.on_start_view(from, message, out),
            Message::GetState { view, nonce, after } => {
                self.on_get_state(from, view, nonce, after, out);
            }
            Message::GetCheckpoint {
                view,
                nonce,
                op,
                offset,
            } => {
                self.on_get_checkpoint(from, view, nonce, op, offset, out);
            }
            message @ Message::NewState { .. } => self.on_new_state(from, message, out),
            message @ Message::CheckpointChunk { .. } => {
                self.on_checkpoint_chunk(from, message, out);
            }
            Message::Recovery { .. } | Message::RecoveryResponse { .. } => {}
            Message::Hello { .. } | Message::HelloOk { .. } | Message::Bootstrap { .. } => {}
        }
    }

    fn on_tick(&mut self, out: &mut Vec<Effect>) {
        match self.status {
            Status::Starting => self.tick_starting(out),
            Status::Recovering => self.tick_recovering(out),
            Status::ViewChange => self.tick_view_change(out),
            Status::Normal if self.is_primary() => self.tick_primary(out),
            Status::Normal => self.tick_backup(out),
        }
        self.tick_transfer(out);
        self.release_pinned();
    }

    /// The primary sends what is queued; a backup does what it must not do amid the kernel's records.
    fn on_flush(&mut self, out: &mut Vec<Effect>) {
        match self.status {
            Status::Normal if self.is_primary() => self.send_prepares(out),
            Status::Normal => self.flush_backup(out),
            Status::Starting | Status::ViewChange | Status::Recovering => {}
        }
    }

    fn on_fast_path(&mut self, event: FastPathEvent, out: &mut Vec<Effect>) {
        match event {
            FastPathEvent::Stored(prepare) => self.on_stored(prepare, out),
            FastPathEvent::Fenced { last_op } => self.on_fenced(last_op, out),
            FastPathEvent::Claimed => self.on_claimed(out),
            FastPathEvent::Lost => self.on_lost(out),
            FastPathEvent::SlotAcks { op, acks } => self.on_slot_acks(op, acks, out),
            FastPathEvent::Heard { from, at, op } => self.on_heard(from, at, op, out),
        }
    }

    /// Becomes normal in `view`, whose log this is from now on; the fast path starts (R6).
    fn enter_normal(&mut self, view: View, out: &mut Vec<Effect>) {
        assert!(
            view == self.promised,
            "a view is promised before it is entered"
        );
        self.status = Status::Normal;
        self.view = view;
        self.last_normal = view;
        // The log is the view's, so nothing of an older state is missing.
        self.end_transfer();
        for peer in &mut self.peers {
            if !active(Mutation::AcksSurviveViews) {
                peer.acked = OpNumber(0);
            }
            peer.joined = false;
        }
        self.view_change.end(self.now);
        self.heard_primary();
        self.write_entered(out);
        self.note_entered("normal", out);
        self.arm(out);
    }

    fn note_entered(&self, status: &'static str, out: &mut Vec<Effect>) {
        let view = self.promised;
        let primary = view.primary(self.config.replicas) == self.config.index;
        out.push(Effect::Note(Note::Entered {
            status,
            view,
            primary,
        }));
    }

    /// Makes the promise durable (rule 4), before whatever `out` gets next.
    fn promise(&mut self, view: View, out: &mut Vec<Effect>) {
        assert!(view >= self.promised, "a promise is never taken back");
        self.promised = view;
        if active(Mutation::PromiseNotPersisted) && view > View(0) {
            return;
        }
        self.disk_caught_up();
        out.push(Effect::Persist(Promise {
            group: self.group,
            view,
        }));
    }

    /// Whether this replica is the primary of its view; it acts as one only when normal.
    fn is_primary(&self) -> bool {
        self.view.primary(self.config.replicas) == self.config.index
    }

    /// Whether `from` is the primary of `view`.
    fn leads(&self, from: ReplicaId, view: View) -> bool {
        view.primary(self.config.replicas) == from
    }

    /// f, of 2f+1.
    fn faults(&self) -> usize {
        self.config.replicas / 2
    }

    /// The next number of a SplitMix64 sequence: for jitter and nonces, not for secrets.
    fn fresh_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fresh_nonce(&mut self) -> Nonce {
        Nonce(self.fresh_random())
    }

    /// `time` and up to a third more.
    fn jittered(&mut self, time: u64) -> u64 {
        time.saturating_add(self.fresh_random() % (time / 3 + 1))
    }

    /// Why this replica isn't normal, or doesn't get on, for people.
    fn reason(&self) -> Option<alloc::string::String> {
        let reason = self.status_reason();
        let Some(obstacle) = &self.obstacle else {
            return reason;
        };
        let text = &obstacle.text;
        Some(reason.map_or(text.clone(), |reason| alloc::format!("{reason}; {text}")))
    }

    fn status_reason(&self) -> Option<alloc::string::String> {
        match self.status {
            Status::Normal => self
                .primary
                .stepped_down
                .then(|| self.stepped_down_reason()),
            Status::Starting => Some(self.starting_reason()),
            Status::Recovering => Some(self.recovery_reason()),
            Status::ViewChange => Some(self.view_change_reason()),
        }
    }

    /// What holds after every step; each is O(1), so it is checked in release too.
    fn assert_invariants(&mut self) {
        let limits = &self.config.limits;
        let (op, commit) = (self.log.op(), self.commit);
        assert!(commit <= op, "commit {commit} is beyond op {op}");
        assert!(
            self.log.base() <= commit,
            "the log is trimmed beyond the commit number"
        );
        assert!(
            self.checkpoint.as_ref().is_none_or(|c| c.op <= commit),
            "a checkpoint ahead"
        );
        assert!(
            self.last_normal <= self.view,
            "last normal view beyond the view"
        );
        assert!(self.view <= self.promised, "a view beyond the promise");
        let normal = self.status == Status::Normal;
        assert!(
            !normal || self.last_normal == self.promised,
            "normal below the promised view"
        );
        assert!(
            normal || !self.fast.armed(),
            "the kernel acts for a replica that isn't normal"
        );
        assert!(
            self.config.fast_path || !self.fast.armed(),
            "armed without a fast path"
        );
        let durable = self.durable();
        assert!(durable <= op, "durable beyond the log");
        assert!(
            !(normal && self.is_primary()) || commit <= durable,
            "a primary counted itself before its disk had the op"
        );
        assert!(self.primary.within(limits), "a queue is beyond its limit");
        assert!(self.early.len() <= limits.window, "too many early Prepares");
        assert!(self.table.len() <= limits.sessions, "too many sessions");
        let executed = commit.0 - self.log.base().0;
        assert!(
            executed <= limits.executed_ops(),
            "the log keeps {executed} executed entries"
        );
        assert!(
            self.pinned
                .as_ref()
                .is_none_or(|pinned| self.log.base() <= pinned.op),
            "the log doesn't follow the pinned checkpoint"
        );
        let reached = (self.last_normal, self.promised, commit);
        assert!(
            self.floor.0 <= reached.0 && self.floor.1 <= reached.1 && self.floor.2 <= reached.2,
            "a view or the commit number fell"
        );
        self.floor = reached;
    }
}

/// The view that a message is about, if it names one.
fn view_of(message: &Message) -> Option<View> {
    match message {
        Message::Prepare(prepare) => Some(prepare.view),
        Message::PrepareOk { view, .. }
        | Message::Commit { view, .. }
        | Message::PreVote { view }
        | Message::PreVoteOk { view }
        | Message::StartViewChange { view }
        | Message::DoViewChange { view, .. }
        | Message::StartView { view, .. }
        | Message::GetState { view, .. }
        | Message::NewState { view, .. }
        | Message::CheckpointChunk { view, .. }
        | Message::GetCheckpoint { view, .. }
        | Message::RecoveryResponse { view, .. }
        | Message::Recovery { promised: view, .. } => Some(*view),
        Message::Hello { .. } | Message::HelloOk { .. } | Message::Bootstrap { .. } => None,
    }
}
