//! Normal operation (VR Revisited, section 4.1): the primary orders, the backups follow, both execute in order.

use alloc::string::String;
use alloc::vec::Vec;

use super::Replica;
use super::client_table::Bounds;
use super::fast_path::Held;
use super::log::wire_bytes;
use super::requests::{Flight, Primary};
use crate::MAX_REPLICAS;
use crate::effect::{Effect, FastPathCommand, Note};
use crate::ids::{OpNumber, ReplicaId, Time, View};
use crate::message::{Message, Prepare, Reply};
use crate::mutations::{Mutation, active};
use crate::state_machine::StateMachine;
use crate::status::Status;

impl<S: StateMachine> Replica<S> {
    /// Begins to lead the view that was just entered: all uncommitted ops are sent again, in windows (rule 10).
    pub(super) fn begin_primary(&mut self, out: &mut Vec<Effect>) {
        let mut before = core::mem::take(&mut self.primary.pending);
        self.primary = Primary::starting(&self.log, self.commit);
        if active(Mutation::ClientTableNotRolledBack) {
            before.append(&mut self.primary.pending);
            self.primary.pending = before;
        }
        self.primary.since = self.now;
        self.primary.heartbeat_at = self.now.plus(self.config.timing.heartbeat);
        self.primary.start_view_at = self.now.plus(self.config.timing.retry);
        self.advance_commit(out);
        if self.config.replicas > 1 {
            out.push(Effect::Broadcast(self.start_view()));
        }
        self.send_prepares(out);
    }

    /// Fills the window: first with what was inherited, then from the queue.
    pub(super) fn send_prepares(&mut self, out: &mut Vec<Effect>) {
        let more = if active(Mutation::SlotReopenedWhileUndecided) {
            8
        } else {
            1
        };
        while self.primary.flights.len() < more * self.config.limits.window && !self.forsaken() {
            if self.primary.sent_to == self.log.op() {
                let batch = self.primary.next_batch(&self.config.limits);
                self.append(batch, out);
            }
            let limits = &self.config.limits;
            let entries =
                self.log
                    .batch(self.primary.sent_to, limits.batch_bytes, limits.batch_ops);
            if entries.is_empty() {
                return;
            }
            let first = self.primary.sent_to.next();
            let last = OpNumber(self.primary.sent_to.0 + entries.len() as u64);
            self.primary.sent_to = last;
            self.primary.flights.push_back(Flight {
                first,
                last,
                first_sent: self.primary.first_sent(first, self.now),
                sent: self.now,
            });
            if self.faults() == 0 {
                self.advance_commit(out);
            } else {
                self.send_prepare(first, entries, out);
            }
        }
    }

    fn send_prepare(
        &mut self,
        first: OpNumber,
        entries: Vec<crate::message::Entry>,
        out: &mut Vec<Effect>,
    ) {
        let prepare = Prepare {
            view: self.view,
            first,
            commit: self.commit,
            entries,
        };
        if self.fast.armed() {
            let op = prepare.last();
            out.push(Effect::FastPath(FastPathCommand::OpenSlot { op }));
        }
        out.push(Effect::Broadcast(Message::Prepare(prepare)));
        self.primary.heartbeat_at = self.now.plus(self.config.timing.heartbeat);
    }

    /// Sends the Prepares again that weren't decided in time, each as it was: the same first and last op.
    fn resend_prepares(&mut self, out: &mut Vec<Effect>) {
        if active(Mutation::NoResend) {
            for flight in &mut self.primary.flights {
                flight.sent = self.now;
            }
            return;
        }
        let (now, forsaken, resend) = (self.now, self.forsaken(), self.resend_after());
        for index in 0..self.primary.flights.len() {
            let flight = &mut self.primary.flights[index];
            if flight.sent.plus(resend) > now {
                continue;
            }
            flight.sent = now;
            if forsaken {
                continue;
            }
            let first = flight.first;
            let ops = usize::try_from(flight.last.0 - first.0 + 1).expect("a batch is in memory");
            let entries = self.log.batch(OpNumber(first.0 - 1), usize::MAX, ops);
            self.send_prepare(first, entries, out);
        }
    }

    fn resend_after(&self) -> u64 {
        let late = active(Mutation::LateResend);
        self.config.timing.resend * if late { 4 } else { 1 }
    }

    pub(super) fn primary_deadline(&self) -> Option<Time> {
        if self.faults() == 0 {
            return None;
        }
        let resend = self.resend_after();
        let oldest = self
            .primary
            .flights
            .iter()
            .map(|flight| flight.sent.plus(resend))
            .min();
        let start_view = (!self.all_joined()).then_some(self.primary.start_view_at);
        [oldest, start_view, Some(self.primary.heartbeat_at)]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn tick_primary(&mut self, out: &mut Vec<Effect>) {
        if self.faults() == 0 {
            return;
        }
        self.weigh_support(out);
        self.resend_prepares(out);
        if self.now >= self.primary.start_view_at && !self.all_joined() {
            self.primary.start_view_at = self.now.plus(self.config.timing.retry);
            let message = self.start_view();
            for to in self.others().filter(|_| !self.forsaken()) {
                if !self.peers[to.index()].joined {
                    out.push(Effect::Send {
                        to,
                        message: message.clone(),
                    });
                }
            }
        }
        // A Commit goes alone only when nothing else carries the commit number (rule 17).
        if self.now >= self.primary.heartbeat_at {
            self.primary.heartbeat_at = self.now.plus(self.config.timing.heartbeat);
            let commit = Message::Commit {
                view: self.view,
                commit: self.commit,
            };
            if !self.forsaken() {
                out.push(Effect::Broadcast(commit));
            }
        }
    }

    /// Steps down when f backups haven't been heard for long, and up again when they are: nothing was decided meanwhile, so
    /// if nobody else leads by then it still is the view's primary.
    fn weigh_support(&mut self, out: &mut Vec<Effect>) {
        let forsaken = self.forsaken();
        if forsaken == self.primary.stepped_down {
            return;
        }
        self.primary.stepped_down = forsaken;
        if forsaken {
            let reason = self.stepped_down_reason();
            out.push(Effect::Note(Note::Warning(reason)));
            self.turn_away(out);
        } else {
            self.note_entered("normal", out);
        }
    }

    pub(super) fn stepped_down_reason(&self) -> String {
        let quorum = self.faults();
        alloc::format!(
            "stepped down: fewer than {quorum} backups show signs of life, so nothing can be decided here; clients are sent elsewhere"
        )
    }

    /// Whether f backups haven't been heard for so long that this primary can decide nothing. It falls silent then: what it
    /// says would only keep backups loyal to it whose answers it can't hear (a link that works in one direction).
    fn forsaken(&self) -> bool {
        let patience = self.config.timing.view_change.saturating_mul(2);
        let heard = |other: &ReplicaId| {
            let heard = self.peers[other.index()].followed.max(self.primary.since);
            heard.plus(patience) > self.now
        };
        self.others().filter(heard).count() < self.faults()
    }

    fn all_joined(&self) -> bool {
        self.others().all(|other| self.peers[other.index()].joined)
    }

    /// Every replica but this one.
    pub(super) fn others(&self) -> impl Iterator<Item = ReplicaId> + use<S> {
        let own = self.config.index;
        let n = u8::try_from(self.config.replicas).expect("at most MAX_REPLICAS");
        (0..n).map(ReplicaId).filter(move |replica| *replica != own)
    }

    pub(super) fn on_prepare_ok(
        &mut self,
        from: ReplicaId,
        view: View,
        op: OpNumber,
        last_op: OpNumber,
        out: &mut Vec<Effect>,
    ) {
        let other_view = view != self.view && !active(Mutation::OlderAcksCounted);
        if self.status != Status::Normal || !self.is_primary() || other_view {
            return self.ignore_prepare_ok();
        }
        self.peers[from.index()].joined = true;
        self.acknowledge(from, op.max(last_op));
        self.advance_commit(out);
    }

    /// Replica `from` has every op of this view up to `op`. What the log doesn't have can't have been acknowledged.
    pub(super) fn acknowledge(&mut self, from: ReplicaId, op: OpNumber) {
        if op <= self.log.op() {
            let acked = &mut self.peers[from.index()].acked;
            *acked = op.max(*acked);
        }
    }

    /// Commits what f distinct backups and this primary have (R4).
    pub(super) fn advance_commit(&mut self, out: &mut Vec<Effect>) {
        let faults = self.faults();
        let mut decided = self.log.op();
        if faults > 0 {
            let mut acked = [OpNumber(0); MAX_REPLICAS];
            for other in self.others() {
                acked[other.index()] = self.peers[other.index()].acked;
            }
            acked.sort_unstable();
            decided = acked[MAX_REPLICAS - faults];
            if active(Mutation::CommitQuorumOfF) {
                let others = acked.get(MAX_REPLICAS - faults + 1);
                decided = others.copied().unwrap_or(self.log.op());
            }
        }
        // This primary is one of the f + 1, so its own disk has to have it too.
        self.learned_commit = self.learned_commit.max(decided.min(self.durable()));
        self.execute(out);
        while self
            .primary
            .flights
            .front()
            .is_some_and(|flight| flight.last <= self.commit)
        {
            if let Some(decided) = self.primary.flights.pop_front() {
                self.extend_lease(decided.first_sent);
            }
        }
        self.primary.sent_to = self.primary.sent_to.max(self.commit);
    }

    /// Executes everything up to the learned commit number that the log has, in order (section 4.1, steps 5 and 7).
    pub(super) fn execute(&mut self, out: &mut Vec<Effect>) {
        let limits = &self.config.limits;
        let bounds = Bounds {
            sessions: limits.sessions,
            replies: limits.session_requests,
            reply_bytes: limits.reply_bytes,
        };
        let (every, most) = (limits.checkpoint_ops, limits.checkpoint_bytes);
        let answers = self.status == Status::Normal && self.is_primary();
        while self.commit < self.learned_commit.min(self.log.op()) {
            let op = self.commit.next();
            let entry = self
                .log
                .entry(op)
                .expect("the log has what isn't executed")
                .clone();
            let machine = &mut self.machine;
            let reply = if entry.request.is_read() {
                // Nobody needs it but the primary's client, and it isn't of a session.
                let result = answers.then(|| machine.read(&entry.op)).flatten();
                result.map_or(Reply::NotRead, |bytes| Reply::Done(bytes.into()))
            } else {
                self.table
                    .execute(op, &entry, bounds, |bytes| machine.apply(bytes))
            };
            self.commit = op;
            self.view_works();
            if answers {
                self.primary.forget_executed(&entry);
                self.reply(entry.client, entry.request, reply, out);
            }
            self.unsaved_bytes += wire_bytes(&entry);
            if op.0.is_multiple_of(every) || self.unsaved_bytes >= most {
                self.take_checkpoint(out);
            }
        }
    }

    pub(super) fn on_prepare(&mut self, from: ReplicaId, prepare: Prepare, out: &mut Vec<Effect>) {
        let view = prepare.view;
        if active(Mutation::OlderViewAppended)
            && view < self.promised
            && self.status == Status::Normal
            && !self.is_primary()
            && well_formed(&prepare)
        {
            self.hold_early(Held {
                prepare,
                transferred: false,
            });
            return self.append_early(out);
        }
        if view < self.promised || !self.leads(from, view) || !well_formed(&prepare) {
            return self.ignore_prepare();
        }
        if view > self.promised {
            return self.join(view, from, Message::Prepare(prepare), out);
        }
        self.heard_primary();
        if self.status == Status::ViewChange {
            self.hold_early(Held {
                prepare,
                transferred: false,
            });
            if active(Mutation::AckAmidViewChange) {
                return self.append_early(out);
            }
            return self.fetch_started_view(view, out);
        }
        self.hold_early(Held {
            prepare,
            transferred: false,
        });
        self.append_early(out);
    }

    pub(super) fn on_commit(
        &mut self,
        from: ReplicaId,
        view: View,
        commit: OpNumber,
        out: &mut Vec<Effect>,
    ) {
        if view < self.promised || !self.leads(from, view) {
            return self.ignore_commit();
        }
        if view > self.promised {
            return self.join(view, from, Message::Commit { view, commit }, out);
        }
        self.heard_primary();
        if self.status == Status::ViewChange {
            return self.fetch_started_view(view, out);
        }
        self.view_works();
        // The idle primary has to know who follows it, and how far.
        self.acknowledge_log(out);
        self.learn_commit(commit, out);
        self.catch_up_if_behind(out);
    }

    /// Takes the primary's commit number; an impossible one is no one's commit number.
    pub(super) fn learn_commit(&mut self, commit: OpNumber, out: &mut Vec<Effect>) {
        if active(Mutation::UncommittedExecuted) {
            self.learned_commit = self.log.op();
        }
        if commit.0 < OpNumber::LIMIT {
            self.learned_commit = self.learned_commit.max(commit);
            self.execute(out);
        }
    }

    /// Keeps a Prepare until it is its turn; when there are too many, the last ones go.
    pub(super) fn hold_early(&mut self, held: Held) {
        let known = self
            .early
            .get(&held.prepare.first)
            .map_or(0, |old| old.prepare.entries.len());
        if held.prepare.entries.len() >= known {
            self.early.insert(held.prepare.first, held);
        }
        while self.early.len() > self.config.limits.window {
            self.early.pop_last();
        }
    }

    /// Appends the held Prepares that have nothing missing before them; asks for what is missing.
    pub(super) fn append_early(&mut self, out: &mut Vec<Effect>) {
        while let Some(entry) = self.early.first_entry() {
            if *entry.key() > self.log.op().next() && !active(Mutation::GapAppended) {
                break;
            }
            let held = entry.remove();
            let last = held.prepare.last();
            let committed = held.prepare.commit.min(last);
            if last.0 > self.commit.max(committed).0 + self.config.limits.uncommitted() {
                self.ignore_prepare();
                continue;
            }
            if last <= self.log.op() {
                self.accept(held, out);
            } else if self.fast.armed() {
                return self.claim(held, out);
            } else {
                self.accept(held, out);
            }
        }
        self.catch_up_if_behind(out);
    }

    /// Appends what of a Prepare isn't in the log yet, and acknowledges it (section 4.1, step 4).
    pub(super) fn accept(&mut self, held: Held, out: &mut Vec<Effect>) {
        let Held {
            prepare,
            transferred,
        } = held;
        let (view, op, commit) = (prepare.view, prepare.last(), prepare.commit);
        self.append_missing(prepare, out);
        let last_op = self.durable();
        // What came by state transfer may end anywhere; its acknowledgement is about the whole log.
        let op = if transferred { last_op } else { op };
        // What isn't durable yet is acknowledged when it is.
        if op <= last_op {
            self.bind();
            let to = view.primary(self.config.replicas);
            out.push(Effect::Send {
                to,
                message: Message::PrepareOk { view, op, last_op },
            });
        }
        self.learn_commit(commit, out);
        if transferred {
            self.continue_catch_up(out);
        }
    }

    /// Appends the entries past the log's last op.
    pub(super) fn append_missing(&mut self, prepare: Prepare, out: &mut Vec<Effect>) {
        let known = self.log.op().next().0.saturating_sub(prepare.first.0);
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        self.append(prepare.entries.into_iter().skip(known), out);
    }

    pub(super) fn tick_backup(&mut self, out: &mut Vec<Effect>) {
        if self.now >= self.view_change.suspect_at {
            self.ask_pre_vote(out);
        }
    }

    /// What a backup does after a batch of inputs: it isn't done between two of the kernel's records.
    pub(super) fn flush_backup(&mut self, out: &mut Vec<Effect>) {
        if self.over_soft_limit() && self.fast.armed() {
            return self.refuse_more(out);
        }
        self.rearm_below_soft_limit(out);
        self.append_early(out);
    }

    /// Of an older view, of no primary, or malformed.
    fn ignore_prepare(&self) {}

    /// Of an older view or of no primary.
    fn ignore_commit(&self) {}

    /// Of another view than the one that this replica leads.
    fn ignore_prepare_ok(&self) {}
}

/// Whether op numbers are ones that a group can reach, and there is something in it.
pub(super) fn well_formed(prepare: &Prepare) -> bool {
    let count = prepare.entries.len() as u64;
    prepare.first.0 >= 1
        && count >= 1
        && prepare
            .first
            .0
            .checked_add(count)
            .is_some_and(|end| end <= OpNumber::LIMIT)
}
