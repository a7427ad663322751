//! Requests before they are in the log: the primary's queue, and the order of each session's numbers.
//!
//! Requests of one session enter the log in the order of their numbers; one that is early is held until its predecessor
//! comes. Everything here is volatile and the primary's alone: it is derived anew from the log when a view begins (rule 7).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Replica;
use super::log::{Log, entry_bytes, wire_bytes};
use crate::config::Limits;
use crate::effect::Effect;
use crate::ids::{ClientId, OpNumber, RequestNumber, Time};
use crate::message::{Entry, Reply};
use crate::mutations::{Mutation, active};
use crate::state_machine::StateMachine;
use crate::status::Status;

/// A Prepare that left and isn't decided.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Flight {
    pub(super) first: OpNumber,
    pub(super) last: OpNumber,
    /// When it was sent first: what acknowledges it came later.
    pub(super) first_sent: Time,
    /// When it was sent last.
    pub(super) sent: Time,
}

/// What only a primary has.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Primary {
    /// Requests that wait for the window; at most `queue`, and `queue_bytes`.
    queue: VecDeque<Entry>,
    queue_bytes: usize,
    /// Requests that came before their predecessors; likewise.
    held: BTreeMap<(ClientId, RequestNumber), Arc<[u8]>>,
    held_bytes: usize,
    /// Per session the highest number in the queue or in the log above the commit number.
    pub(super) pending: BTreeMap<ClientId, RequestNumber>,
    /// Undecided Prepares in order; at most `window`.
    pub(super) flights: VecDeque<Flight>,
    /// The last op that was put into a Prepare of this view.
    pub(super) sent_to: OpNumber,
    /// When a Commit is due, unless a Prepare goes first.
    pub(super) heartbeat_at: Time,
    /// Reads are answered from this replica's own state until then (rule 15).
    pub(super) lease_until: Time,
    /// When this replica began to lead.
    pub(super) since: Time,
    /// The log's last op then: backups acknowledged those ops when they heard of the view, perhaps before the ops were sent
    /// again.
    pub(super) inherited: OpNumber,
    /// No quorum shows signs of life: requests are turned away.
    pub(super) stepped_down: bool,
    /// When StartView is due again for those who haven't joined.
    pub(super) start_view_at: Time,
}

impl Primary {
    /// A primary at the begin of its view: everything above `commit` has to be sent.
    pub(super) fn starting(log: &Log, commit: OpNumber) -> Primary {
        Primary {
            pending: pending(log, commit),
            inherited: log.op(),
            sent_to: commit,
            ..Primary::default()
        }
    }

    /// Before this no backup acknowledged, in this view, the op that is being sent now.
    pub(super) fn first_sent(&self, op: OpNumber, now: Time) -> Time {
        if op <= self.inherited {
            self.since
        } else {
            now
        }
    }

    /// Whether every bound is kept.
    pub(super) fn within(&self, limits: &Limits) -> bool {
        self.queue.len() <= limits.queue
            && (self.queue.len() <= 1 || self.queue_bytes <= limits.queue_bytes)
            && self.held_within(limits)
            && (self.flights.len() <= limits.window || active(Mutation::SlotReopenedWhileUndecided))
    }

    fn held_within(&self, limits: &Limits) -> bool {
        self.held.len() <= limits.queue
            && (self.held.len() <= 1 || self.held_bytes <= limits.queue_bytes)
    }

    /// Whether this op may wait for the window.
    pub(super) fn has_room(&self, limits: &Limits, op: &[u8]) -> bool {
        let bytes = self.queue_bytes.saturating_add(entry_bytes(op));
        self.queue.is_empty() || (self.queue.len() < limits.queue && bytes <= limits.queue_bytes)
    }

    /// Puts a request at the end of the queue, which has room for it.
    pub(super) fn enqueue(&mut self, entry: Entry) {
        self.queue_bytes += wire_bytes(&entry);
        self.queue.push_back(entry);
    }

    fn take_held(&mut self, client: ClientId, request: RequestNumber) -> Option<Arc<[u8]>> {
        let op = self.held.remove(&(client, request))?;
        self.held_bytes -= entry_bytes(&op);
        Some(op)
    }

    /// Takes from the queue what fits into one Prepare.
    pub(super) fn next_batch(&mut self, limits: &Limits) -> Vec<Entry> {
        let mut batch: Vec<Entry> = Vec::new();
        let mut left = limits.batch_bytes;
        while let Some(entry) = self.queue.front() {
            let size = wire_bytes(entry);
            if !batch.is_empty() && (size > left || batch.len() >= limits.batch_ops) {
                break;
            }
            left = left.saturating_sub(size);
            self.queue_bytes -= size;
            batch.extend(self.queue.pop_front());
        }
        batch
    }

    /// An entry was executed: its session's number isn't pending any more unless a higher one is.
    pub(super) fn forget_executed(&mut self, entry: &Entry) {
        if !entry.request.is_read()
            && self
                .pending
                .get(&entry.client)
                .is_some_and(|highest| *highest <= entry.request)
        {
            self.pending.remove(&entry.client);
        }
    }
}

/// Per session the highest number in the log above the commit number.
fn pending(log: &Log, commit: OpNumber) -> BTreeMap<ClientId, RequestNumber> {
    let logged = log.after(commit).into_iter();
    let logged = logged.filter(|entry| !entry.request.is_read());
    logged.map(|entry| (entry.client, entry.request)).collect()
}

impl<S: StateMachine> Replica<S> {
    pub(super) fn on_request(
        &mut self,
        client: ClientId,
        request: RequestNumber,
        op: Arc<[u8]>,
        out: &mut Vec<Effect>,
    ) {
        let limit = self.config.limits.op_bytes;
        if self.status != Status::Normal {
            return self.reply(client, request, Reply::Unavailable, out);
        }
        if !self.is_primary() {
            return self.reply(client, request, Reply::NotPrimary, out);
        }
        if op.len() > limit {
            let limit = u32::try_from(limit).unwrap_or(u32::MAX);
            return self.reply(client, request, Reply::TooLarge { limit }, out);
        }
        if request.is_read() {
            return self.on_read(client, request, op, out);
        }
        if active(Mutation::SecondExecution) && self.primary.has_room(&self.config.limits, &op) {
            return self.enqueue(Entry {
                client,
                request,
                op,
            });
        }
        let executed = self.table.highest(client);
        let pending = self.primary.pending.get(&client).copied();
        let highest = pending.or(executed).unwrap_or_default();
        if request <= executed.unwrap_or_default() {
            if active(Mutation::RetryKeepsSession) {
                self.table.rejuvenate(client);
            }
            let answer = self.table.answer(client, request);
            return self.reply(client, request, answer, out);
        }
        if self.primary.stepped_down {
            return self.reply(client, request, Reply::Unavailable, out);
        }
        if request <= highest {
            return self.ignore_request_in_flight();
        }
        // A session begins with 1. Anything else from a session that isn't known means that it was evicted.
        if highest == RequestNumber(0) && request != RequestNumber(1) {
            return self.reply(client, request, Reply::NoSession, out);
        }
        let ahead = request.0 - executed.unwrap_or_default().0;
        if ahead > self.config.limits.session_requests as u64 {
            return self.reply_busy(client, request, out);
        }
        if request.0 != highest.0 + 1 {
            return self.hold(client, request, op, out);
        }
        if !self.primary.has_room(&self.config.limits, &op) {
            return self.reply_busy(client, request, out);
        }
        self.primary.take_held(client, request);
        self.enqueue(Entry {
            client,
            request,
            op,
        });
        self.release_held(client, request);
    }

    /// Tells every client that waits that it should ask elsewhere. What isn't in the log is forgotten; what is may still be
    /// decided, here or by another primary, and its client hears so there.
    pub(super) fn turn_away(&mut self, out: &mut Vec<Effect>) {
        let queue = core::mem::take(&mut self.primary.queue);
        let held = core::mem::take(&mut self.primary.held);
        (self.primary.queue_bytes, self.primary.held_bytes) = (0, 0);
        let logged = self.log.after(self.commit);
        let waiting = logged.iter().chain(&queue);
        let waiting = waiting.map(|entry| (entry.client, entry.request));
        for (client, request) in waiting.chain(held.into_keys()) {
            self.reply(client, request, Reply::Unavailable, out);
        }
        self.primary.pending = pending(&self.log, self.commit);
    }

    fn enqueue(&mut self, entry: Entry) {
        self.primary.pending.insert(entry.client, entry.request);
        self.primary.enqueue(entry);
    }

    /// A number whose predecessor is missing waits. When too many wait, some predecessor never came: one of them is told to
    /// come again.
    fn hold(
        &mut self,
        client: ClientId,
        request: RequestNumber,
        op: Arc<[u8]>,
        out: &mut Vec<Effect>,
    ) {
        self.primary.take_held(client, request);
        self.primary.held_bytes += entry_bytes(&op);
        self.primary.held.insert((client, request), op);
        while !self.primary.held_within(&self.config.limits)
            && let Some(((client, request), op)) = self.primary.held.pop_first()
        {
            self.primary.held_bytes -= entry_bytes(&op);
            self.reply_busy(client, request, out);
        }
    }

    fn release_held(&mut self, client: ClientId, mut request: RequestNumber) {
        loop {
            request = RequestNumber(request.0 + 1);
            let room = |op: &Arc<[u8]>| self.primary.has_room(&self.config.limits, op);
            if !self.primary.held.get(&(client, request)).is_some_and(room) {
                return;
            }
            let op = self.primary.take_held(client, request);
            let op = op.expect("it was there just now");
            self.enqueue(Entry {
                client,
                request,
                op,
            });
        }
    }

    pub(super) fn reply_busy(
        &self,
        client: ClientId,
        request: RequestNumber,
        out: &mut Vec<Effect>,
    ) {
        let ms = self.config.timing.resend / 1_000_000;
        let retry_after_ms = u32::try_from(ms.max(1)).unwrap_or(u32::MAX);
        self.reply(client, request, Reply::Busy { retry_after_ms }, out);
    }

    pub(super) fn reply(
        &self,
        client: ClientId,
        request: RequestNumber,
        reply: Reply,
        out: &mut Vec<Effect>,
    ) {
        out.push(Effect::Reply {
            client,
            request,
            view: self.promised,
            reply,
        });
    }

    /// It is queued or in the log: the reply comes when it is executed.
    fn ignore_request_in_flight(&self) {}
}
