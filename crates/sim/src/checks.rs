//! What must hold after every step, whatever happens: one file per rule, each with its source.
//!
//! To add one: a file here with a `RULE` and a function that says what is wrong; a field in [`Checks`]; a call where it can
//! be seen. The first violation ends the run.

pub(crate) mod acks;
mod bounds;
mod checkpoints;
mod committed;
mod durable;
mod kept;
mod once;
mod order;
mod primaries;
pub(crate) mod promises;
mod quorum;
mod slots;
mod states;
pub(crate) mod tail;

use std::collections::{BTreeMap, HashSet};

use electrode_vr::{
    ClientId, Message, OpNumber, Promise, Reply, RequestNumber, Snapshot, Status, View,
};

use crate::card::Event;
use crate::disk::Disk;
use crate::process::Process;

pub(crate) use kept::Committed;

/// A rule, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its short name.
    pub name: &'static str,
    /// The paper's section, or the page of docs/ and the number there.
    pub source: &'static str,
}

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text} [{}]", rule.name, rule.source)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// What happened.
    pub text: String,
}

/// What a check says: nothing, or what is wrong.
type Verdict = Result<(), String>;

/// Everything that was acknowledged, by user space or kernel.
#[derive(Debug, Default)]
pub(crate) struct Acked {
    /// Per view and replica the highest op.
    highest: BTreeMap<(View, usize), OpNumber>,
    /// Every (view, replica, op) that an ack named as the op that it answers.
    exact: HashSet<(View, usize, OpNumber)>,
}

/// What is known of one replica's present life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    /// How often it was started.
    number: u64,
    commit: OpNumber,
    op: OpNumber,
    last_normal: View,
    status: Option<(Status, View)>,
    /// The latest view in which it was normal in this life.
    entered: Option<View>,
    /// Views in which its kernel stored, with the log's last op when that ended (None: it still stores).
    stored: BTreeMap<View, Option<OpNumber>>,
    /// The view and role of the kernel, by generation.
    generations: BTreeMap<u16, (View, bool)>,
    armed: Option<View>,
    slots: slots::Opened,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    violation: Option<Violation>,
    lives: Vec<Life>,
    faults: usize,
    /// Whether the group is in disk mode.
    on_disk: bool,
    acked: Acked,
    committed: Committed,
    states: states::States,
    primaries: primaries::Primaries,
    once: once::Once,
    checkpoints: checkpoints::Checkpoints,
    /// Commits by primaries that [`Checks::look_at_all`] hasn't seen yet.
    news: Vec<(usize, View, OpNumber)>,
    /// How many steps were checked.
    pub(crate) steps: u64,
    /// Views in which some replica was normal.
    pub(crate) views: std::collections::BTreeSet<View>,
    /// Ops that kernels accepted.
    pub(crate) stored_by_kernels: u64,
    /// Claims that user space won, and the ops of them.
    pub(crate) claims: (u64, u64),
}

impl Checks {
    pub(crate) fn new(replicas: usize, on_disk: bool) -> Checks {
        Checks {
            lives: vec![Life::default(); replicas],
            faults: replicas / 2,
            on_disk,
            ..Checks::default()
        }
    }

    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Records the first violation.
    pub(crate) fn require(&mut self, rule: Rule, verdict: Verdict) {
        if let Err(text) = verdict
            && self.violation.is_none()
        {
            self.violation = Some(Violation { rule, text });
        }
    }

    /// The digests of committed ops.
    pub(crate) fn committed(&self) -> &Committed {
        &self.committed
    }

    pub(crate) fn started(&mut self, node: usize) {
        let life = &mut self.lives[node];
        *life = Life {
            number: life.number + 1,
            ..Life::default()
        };
    }

    /// After each step of a core.
    pub(crate) fn stepped(&mut self, process: &Process, disk: &Disk) {
        self.steps += 1;
        let node = process.id();
        let replica = &process.replica;
        let now = replica.snapshot();
        let verdict = order::check(&self.lives[node], &now, replica);
        self.require(order::RULE, verdict);
        let verdict = promises::normal(&now, disk.promise, node);
        self.require(promises::RULE, verdict);
        let verdict = bounds::check(process, &now);
        self.require(bounds::RULE, verdict);
        if now.status == Status::Normal && now.role == electrode_vr::Role::Primary {
            let verdict = quorum::believed(&self.acked, &now, node);
            self.require(quorum::RULE, verdict);
        }
        let before = self.lives[node].commit;
        if now.commit > before {
            let leads = now.status == Status::Normal && now.role == electrode_vr::Role::Primary;
            let known = self.committed.digest(now.commit).is_some();
            let verdict = committed::check(
                &mut self.committed,
                replica,
                before,
                now.commit,
                now.view,
                node,
            );
            self.require(committed::RULE, verdict);
            let verdict = self.states.check(&now, node);
            self.require(states::RULE, verdict);
            if leads {
                // A group of one votes, leads and commits in one step: if it dies before the promise is on disk, it did nothing.
                // In disk mode it is the view's log that it may die before, or stop since it can't be written.
                let begun = !self.on_disk || disk.book.durable_view() >= Some(now.view);
                if begun && disk.promise.is_some_and(|promise| promise.view >= now.view) {
                    let number = self.lives[node].number;
                    let verdict = self.primaries.check(now.view, node, number);
                    self.require(primaries::RULE, verdict);
                }
                // What a new primary finds committed elsewhere was acknowledged in an earlier view.
                if !known {
                    let verdict =
                        quorum::counted(&self.acked, self.faults, now.view, node, now.commit);
                    self.require(quorum::RULE, verdict);
                }
                self.news.push((node, now.view, now.commit));
            } else if !known {
                let commit = now.commit;
                let text = format!("replica {node}, no primary, commits op {commit} first");
                self.require(quorum::RULE, Err(text));
            }
        }
        self.entered(process, &now);
        let life = &mut self.lives[node];
        life.commit = now.commit;
        life.op = now.op;
        life.last_normal = replica.last_normal();
    }

    fn entered(&mut self, process: &Process, now: &Snapshot) {
        let node = process.id();
        if self.lives[node].status == Some((now.status, now.view)) {
            return;
        }
        self.lives[node].status = Some((now.status, now.view));
        if now.status == Status::Normal {
            self.views.insert(now.view);
            self.lives[node].entered = Some(now.view);
            let verdict = kept::check(&self.committed, &process.replica, now, node);
            self.require(kept::RULE, verdict);
            let verdict = acks::remembered(&self.acked, now, node);
            self.require(acks::RULE, verdict);
        }
    }

    /// Before a promise is on disk.
    pub(crate) fn persisted(&mut self, node: usize, old: Option<Promise>, new: Promise) {
        let verdict = promises::persisted(old, new, node);
        self.require(promises::RULE, verdict);
    }

    /// Before the kernel's part starts.
    pub(crate) fn arming(&mut self, process: &Process, view: View, disk: Option<Promise>) {
        let verdict = promises::arming(process.id(), view, disk);
        self.require(promises::RULE, verdict);
    }

    /// A start read its log back.
    pub(crate) fn read_back(&mut self, node: usize, verdict: Result<(), String>) {
        let verdict = verdict.map_err(|text| format!("replica {node}: {text}"));
        self.require(durable::READ_BACK, verdict);
    }

    /// The kernel's part has started.
    pub(crate) fn armed(&mut self, node: usize, generation: u16, view: View, primary: bool) {
        let life = &mut self.lives[node];
        life.generations.insert(generation, (view, primary));
        life.armed = Some(view);
        if !primary {
            life.stored.insert(view, None);
        }
    }

    /// The kernel's part has been stopped; it accepted everything up to `last_op`, and never will more.
    pub(crate) fn fenced(&mut self, node: usize, last_op: OpNumber) {
        let life = &mut self.lives[node];
        if let Some(end) = life
            .armed
            .take()
            .and_then(|view| life.stored.get_mut(&view))
        {
            *end = Some(last_op);
        }
    }

    /// A message leaves user space.
    pub(crate) fn sent(&mut self, process: &Process, disk: &Disk, message: &Message) {
        let node = process.id();
        let verdict = promises::sent(message, disk.promise, node);
        self.require(promises::RULE, verdict);
        if self.on_disk {
            let verdict = durable::acknowledged(disk, message, false, node);
            self.require(durable::RULE, verdict);
            let verdict = durable::committed(disk, message, node);
            self.require(durable::RULE, verdict);
        }
        match *message {
            Message::PrepareOk { view, op, last_op } => {
                let now = process.replica.snapshot();
                let verdict = acks::by_user_space(&now, op, last_op, node);
                self.require(acks::RULE, verdict);
                self.acked.note(view, node, op, last_op);
            }
            Message::CheckpointChunk {
                op,
                log_digest,
                digest,
                ..
            } => {
                let verdict = self.checkpoints.check(op, log_digest, digest, node);
                self.require(checkpoints::RULE, verdict);
            }
            _ => {}
        }
    }

    /// A message that a program built leaves the card.
    pub(crate) fn kernel_sent(&mut self, process: &Process, disk: &Disk, message: &Message) {
        let node = process.id();
        if self.on_disk {
            let verdict = durable::acknowledged(disk, message, true, node);
            self.require(durable::RULE, verdict);
        }
        let verdict = acks::by_kernel(&self.lives[node], process, message, node);
        self.require(acks::RULE, verdict);
        if let Message::PrepareOk { view, op, last_op } = *message {
            self.acked.note(view, node, op, last_op);
        }
    }

    /// Something happened in a card.
    pub(crate) fn card_event(&mut self, process: &Process, disk: Option<Promise>, event: Event) {
        let node = process.id();
        match event {
            Event::Accepted {
                generation,
                from,
                to,
            } => {
                self.stored_by_kernels += to.saturating_sub(from);
                let verdict =
                    tail::accepted(&self.lives[node], process, disk, generation, from, to);
                self.require(tail::RULE, verdict);
            }
            Event::Marked { generation, view } => {
                let of = self.lives[node].generations.get(&generation).copied();
                let verdict = slots::marked(of, View(view), generation, node);
                self.require(slots::RULE, verdict);
            }
            Event::Tainted { what } => {
                self.require(tail::UNTOUCHED, Err(format!("replica {node}: {what}")))
            }
            Event::Answered { what } => {
                self.require(acks::ANSWERS, Err(format!("replica {node}: {what}")));
            }
            Event::Fault { what } => {
                self.require(tail::SOUND, Err(format!("replica {node}: {what}")))
            }
        }
    }

    /// User space opens a slot.
    pub(crate) fn slot_opened(&mut self, process: &Process, generation: u16, op: OpNumber) {
        let (node, commit) = (process.id(), process.replica.snapshot().commit);
        let verdict = self.lives[node].slots.open(generation, op, commit, node);
        self.require(slots::RULE, verdict);
    }

    /// User space counts acks that a slot's word holds.
    pub(crate) fn counted(&mut self, process: &Process, op: OpNumber, acks: u16) {
        let view = process.replica.snapshot().view;
        let verdict = slots::check(&self.acked, view, op, acks, process.id());
        self.require(slots::RULE, verdict);
    }

    /// A replica answers a client.
    pub(crate) fn replied(
        &mut self,
        process: &Process,
        disk: &Disk,
        client: ClientId,
        request: RequestNumber,
        reply: &Reply,
    ) {
        if self.on_disk && matches!(reply, Reply::Done(_)) {
            let now = process.replica.snapshot();
            if now.status == Status::Normal && now.role == electrode_vr::Role::Primary {
                let verdict = durable::counted(disk, now.commit, process.id());
                self.require(durable::RULE, verdict);
            }
        }
        let verdict = self.once.check(client, request, reply);
        self.require(once::RULE, verdict);
    }

    /// After everything that one moment brought: what needs a look at several replicas.
    pub(crate) fn look_at_all<'a>(
        &mut self,
        touched: usize,
        processes: impl Fn(usize) -> Option<&'a Process>,
    ) {
        if let Some(process) = processes(touched) {
            let verdict = tail::check(process);
            self.require(tail::RULE, verdict);
        }
        for (node, view, commit) in std::mem::take(&mut self.news) {
            let verdict = quorum::held(
                &self.acked,
                &self.lives,
                &self.committed,
                view,
                node,
                commit,
                &processes,
            );
            self.require(quorum::RULE, verdict);
        }
    }
}

impl Acked {
    fn note(&mut self, view: View, node: usize, op: OpNumber, last_op: OpNumber) {
        let highest = self.highest.entry((view, node)).or_default();
        *highest = last_op.max(*highest);
        self.exact.insert((view, node, op));
    }

    fn highest(&self, view: View, node: usize) -> OpNumber {
        self.highest.get(&(view, node)).copied().unwrap_or_default()
    }
}
