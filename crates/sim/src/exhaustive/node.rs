//! One replica: the core and user space's half that ship, the programs' steps, and the driver's order of things.
//!
//! The order is that of `crate::process` (drain before datagrams, acks before a tick, a flush at the end; effects in their
//! order, fences and claims answered before anything else comes in), without bytes, and without time.

use std::collections::VecDeque;
use std::rc::Rc;

use electrode_fastpath::abi::{PEERS, RECORD_NOTICE};
use electrode_fastpath::host::{Host, Identity};
use electrode_vr::{
    ClientId, Config, Durability, Effect, FastPathCommand, FastPathEvent, GroupId, Input, Limits,
    Message, Nonce, Note, OpNumber, Promise, Replica, ReplicaId, Reply, RequestNumber, Role, Start,
    Status, Time, Timing, View,
};

use super::choices::Choices;
use super::memory::{Armed, Shared};
use super::program::{Program, Verdict};
use super::sequence::{Sequence, op};
use crate::checks::{Rule, Violation, acks, promises, tail};

/// The one group that there is.
const GROUP: GroupId = GroupId(7);
/// Retries are due first, doubts much later; both small enough that no jitter is added to the former.
const RETRY: u64 = 1;
const PATIENCE: u64 = 1000;

/// What can happen at one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// A message reaches user space; those of the fast path only because no program looked at them (`Frame` otherwise).
    Deliver(ReplicaId, Rc<Message>),
    /// A packet reaches the card; its program runs to its end, or stops before one of its steps.
    Frame {
        from: ReplicaId,
        message: Rc<Message>,
        stop: Option<u8>,
        /// The ring has no room.
        full: bool,
    },
    /// A program that stands still takes one step.
    Program(u8),
    /// A client's request reaches it.
    Request(u8, u8),
    /// User space looks at ring and slots.
    Look,
    /// Retries, resends and heartbeats are due.
    Retry,
    /// The primary wasn't heard for long, and the others support a view change.
    Doubt,
    /// It dies and starts again.
    Crash,
}

/// What an event showed, in order, for the checks that look at more than one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Seen {
    /// The commit number rose to this in `view`; the digests of the log from op 1 on.
    Committed {
        view: View,
        primary: bool,
        commit: OpNumber,
        digests: Vec<u64>,
    },
    /// It became normal in a view, with this log.
    Normal { view: View, digests: Vec<u64> },
    /// A primary counts this as acknowledged.
    Believed {
        view: View,
        who: ReplicaId,
        op: OpNumber,
    },
    /// It acknowledged everything up to an op of a view, by user space or by a program.
    Acknowledged { view: View, op: OpNumber },
    /// A client hears its op's place in the order.
    Replied { client: u8, number: u8, place: u8 },
}

/// One way in which an event can end.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) node: Node,
    pub(super) sent: Vec<(ReplicaId, Message)>,
    pub(super) seen: Vec<Seen>,
    /// It died in the middle.
    pub(super) died: bool,
    /// The first rule that it broke.
    pub(super) broken: Option<Violation>,
}

/// The group that is explored.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Shape {
    pub(super) replicas: u8,
    /// A checkpoint is taken at every multiple of this many ops.
    pub(super) checkpoint_ops: u64,
    /// Prepares in flight.
    pub(super) window: u8,
}

/// One replica.
#[derive(Clone, Debug, Hash)]
pub(super) struct Node {
    shape: Shape,
    pub(super) index: ReplicaId,
    pub(super) life: u8,
    /// Questions asked in this life: each has a nonce of its own.
    questions: u8,
    pub(super) core: Replica<Sequence>,
    pub(super) host: Host<Shared>,
    disk: Option<Promise>,
    /// What the primary said last that is committed: those slots are free.
    commit: OpNumber,
}

/// What an event makes; taken apart when it ends.
#[derive(Default)]
struct Making {
    effects: VecDeque<Effect>,
    sent: Vec<(ReplicaId, Message)>,
    seen: Vec<Seen>,
    pre_vote: Option<View>,
    /// Acks that were read and not yet given.
    slots: Vec<(OpNumber, u16)>,
    claims: usize,
    broken: Option<Violation>,
}

/// Claims of one event. More means that user space asks for ever.
const CLAIMS: usize = 64;

/// Why an event ends before its end.
struct Died;

const STOPS: Rule = Rule {
    name: "the driver never has to stop",
    source: "docs/fast-path.md R1",
};

fn config(index: ReplicaId, shape: Shape) -> Config {
    Config {
        replicas: usize::from(shape.replicas),
        index,
        timing: Timing {
            heartbeat: RETRY,
            view_change: PATIENCE,
            resend: RETRY,
            retry: RETRY,
            lease: 0,
        },
        limits: Limits {
            op_bytes: 16,
            batch_bytes: 1000,
            batch_ops: 1,
            window: usize::from(shape.window),
            queue: 4,
            checkpoint_ops: shape.checkpoint_ops,
            sessions: 8,
            session_requests: 2,
            chunk_bytes: 1000,
            ..Limits::default()
        },
        fast_path: true,
        lease_reads: false,
        durability: Durability::Memory,
    }
}

impl Node {
    /// A replica of a group that begins, normal in view 0 after its first tick.
    pub(super) fn bootstrapped(index: u8, shape: Shape, choices: &Rc<Choices>) -> Outcome {
        let start = Start::Bootstrap(GROUP);
        choices.begin();
        Node::starting(shape, ReplicaId(index), start, None, 0, choices).begin(choices)
    }

    fn starting(
        shape: Shape,
        index: ReplicaId,
        start: Start,
        disk: Option<Promise>,
        life: u8,
        choices: &Rc<Choices>,
    ) -> Node {
        let identity = Identity {
            index,
            replicas: usize::from(shape.replicas),
            key: [0; 16],
            peers: [Default::default(); PEERS],
            store: true,
            answer: true,
            count: true,
        };
        let promised = disk.map_or(View(0), |promise| promise.view);
        let mut host = Host::new(Shared::new(Rc::clone(choices), promised), identity);
        host.set_group(GROUP.0);
        let entropy = entropy(index, life, 0);
        let config = config(index, shape);
        let core = Replica::new(config, start, Sequence::default(), Time(0), entropy);
        Node {
            shape,
            index,
            life,
            questions: 0,
            core,
            host,
            disk,
            commit: OpNumber(0),
        }
    }

    /// The first tick, which is due at once.
    fn begin(mut self, choices: &Rc<Choices>) -> Outcome {
        let mut making = Making::default();
        let ended = self.tick(&mut making, Time(1), choices);
        self.ended(making, ended, choices)
    }

    /// Every way in which an event can end. The code's own assertions are among what can break.
    pub(super) fn outcomes(&self, event: &Event, choices: &Rc<Choices>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        choices.begin();
        loop {
            let node = self.clone();
            let outcome = crate::run::caught(|| node.happen(event, choices));
            outcomes.push(outcome.unwrap_or_else(|violation| Outcome {
                node: self.clone(),
                sent: Vec::new(),
                seen: Vec::new(),
                died: false,
                broken: Some(violation),
            }));
            if !choices.advance() {
                return outcomes;
            }
        }
    }

    fn happen(mut self, event: &Event, choices: &Rc<Choices>) -> Outcome {
        let now = self.forget_time();
        let mut making = Making::default();
        let ended = match event {
            Event::Deliver(from, message) => {
                self.deliver(&mut making, now, *from, message, choices)
            }
            Event::Frame {
                from,
                message,
                stop,
                full,
            } => self.frame(&mut making, now, (*from, message), *stop, *full, choices),
            Event::Program(number) => self.go_on(&mut making, now, *number, choices),
            Event::Request(client, number) => {
                let input = Input::Request {
                    client: ClientId(u64::from(*client)),
                    request: RequestNumber(u64::from(*number)),
                    op: op(*client, *number).as_slice().into(),
                };
                self.turn(&mut making, now, Some(input), choices)
            }
            Event::Look => self.turn(&mut making, now, None, choices),
            Event::Retry => self.tick(&mut making, now.plus(RETRY), choices),
            Event::Doubt => self.doubt(&mut making, now, choices),
            Event::Crash => Err(Died),
        };
        self.ended(making, ended, choices)
    }

    /// Time is taken out again, and what programs and the last effects left is looked at.
    fn ended(
        mut self,
        mut making: Making,
        ended: Result<(), Died>,
        choices: &Rc<Choices>,
    ) -> Outcome {
        if ended.is_err() {
            // Memory, ring, programs and socket go with the process; the promise stays.
            let promise = self.disk.expect("it has been normal before");
            let start = Start::Recover(promise);
            let next = Node::starting(
                self.shape,
                self.index,
                start,
                self.disk,
                self.life + 1,
                choices,
            );
            let mut outcome = next.begin(choices);
            outcome.died = true;
            making.sent.append(&mut outcome.sent);
            outcome.sent = making.sent;
            outcome.seen = making.seen;
            outcome.broken = making.broken.or(outcome.broken);
            return outcome;
        }
        self.forget_time();
        self.check_tail(&mut making);
        let mut state = self.host.memory().state_mut();
        for (to, message) in state.answers.drain(..) {
            note_ack(&mut making, &message);
            making.sent.push((to, message));
        }
        let now = self.core.snapshot();
        state.forget_unread(self.commit.min(now.commit), &now.peers);
        drop(state);
        Outcome {
            node: self,
            sent: making.sent,
            seen: making.seen,
            died: false,
            broken: making.broken,
        }
    }

    /// R1: the kernel's last op is in log or ring. And what a program broke by itself.
    fn check_tail(&self, making: &mut Making) {
        let log = self.op();
        let mut state = self.host.memory().state_mut();
        if let Some(text) = state.broken.take() {
            require(making, tail::RULE, Err(text));
        }
        let backup = state.armed.is_some_and(|armed| !armed.primary);
        let (last, end) = (state.last_op(), state.stored_through(log));
        if backup && last > end {
            let text = format!("the kernel says op {last}; log and ring end at {end}");
            require(making, tail::RULE, Err(text));
        }
    }

    fn forget_time(&mut self) -> Time {
        self.core
            .forget_time(entropy(self.index, self.life, self.questions))
    }

    /// The replica in one line.
    pub(super) fn describe(&self) -> String {
        let now = self.core.snapshot();
        let state = self.host.memory().state();
        format!(
            "{:?} {:?} view {} (promised {}) op {} commit {}; tail {}:{}, {} in the ring, {} programs stand still",
            now.status,
            now.role,
            now.view,
            self.core.promised(),
            now.op,
            now.commit,
            state.generation(),
            state.last_op(),
            state.ring.len(),
            state.programs.len()
        )
    }

    /// How far it has come, in steps of no particular size: nearly everything that happens adds to it. The search visits what has
    /// come least far first.
    pub(super) fn come(&self) -> u32 {
        let now = self.core.snapshot();
        let state = self.host.memory().state();
        let normal = u64::from(now.status == Status::Normal);
        let acked: u64 = now.peers.iter().map(|peer| peer.1.0).sum();
        let marks: u32 = state
            .slots
            .values()
            .map(|word| (word & 0xffff).count_ones())
            .sum();
        let come = 1000 * u64::from(self.life)
            + 200 * self.core.promised().0
            + 100 * normal
            + 20 * state.generation()
            + 16 * now.commit.0
            + 6 * now.op.0
            + 4 * state.last_op().0
            + 4 * acked
            + 2 * u64::from(self.questions)
            + u64::from(marks)
            + state.heard.len() as u64;
        u32::try_from(come).expect("small groups don't come far")
    }

    /// How many programs stand still.
    pub(super) fn standing(&self) -> usize {
        self.host.memory().state().programs.len()
    }

    /// Numbers of the programs that stand still.
    pub(super) fn programs(&self) -> Vec<u8> {
        let state = self.host.memory().state();
        state
            .programs
            .iter()
            .map(|program| program.number)
            .collect()
    }

    /// Whether user space would find something in the ring or in its slots.
    pub(super) fn has_news(&self) -> bool {
        let state = self.host.memory().state();
        !state.ring.is_empty() || state.armed.is_some_and(|armed| armed.primary)
    }

    /// Whether a program could do anything with a message of this kind.
    pub(super) fn takes(&self, message: &Message) -> bool {
        let state = self.host.memory().state();
        // What is fenced is passed up: the program leaves no trace.
        let switched_off = cfg!(feature = "mutations");
        state.armed.is_some_and(|armed| match message {
            Message::Prepare(_) => !armed.primary || switched_off,
            Message::PrepareOk { .. } => armed.primary,
            _ => false,
        }) || (switched_off && matches!(message, Message::Prepare(_)))
    }

    fn deliver(
        &mut self,
        making: &mut Making,
        now: Time,
        from: ReplicaId,
        message: &Message,
        choices: &Rc<Choices>,
    ) -> Result<(), Died> {
        let message = message.clone();
        self.turn(making, now, Some(Input::Message { from, message }), choices)
    }

    /// A packet at the card. What its program passes up user space gets at once; later would be another copy of it.
    fn frame(
        &mut self,
        making: &mut Making,
        now: Time,
        (from, message): (ReplicaId, &Rc<Message>),
        stop: Option<u8>,
        full: bool,
        choices: &Rc<Choices>,
    ) -> Result<(), Died> {
        let mut state = self.host.memory().state_mut();
        let number = state.free_number();
        let Some(mut program) = Program::new(number, from, message, full) else {
            unreachable!("only what programs take comes as a frame")
        };
        let mut steps = 0;
        let verdict = loop {
            if stop == Some(steps) {
                state.programs.push(program);
                return Ok(());
            }
            if let Some(verdict) = program.step(&mut state) {
                break verdict;
            }
            steps += 1;
        };
        drop(state);
        // To stop where it has ended already is no event of its own.
        if stop.is_some() {
            return Ok(());
        }
        self.after_program(making, now, (from, message), verdict, choices)
    }

    /// User space gets what was passed up. A primary reads its slots as soon as a program has marked one: to read them later is
    /// what it does when the ack comes later.
    fn after_program(
        &mut self,
        making: &mut Making,
        now: Time,
        (from, message): (ReplicaId, &Message),
        verdict: Verdict,
        choices: &Rc<Choices>,
    ) -> Result<(), Died> {
        self.check_tail(making);
        if making.broken.is_some() {
            return Ok(());
        }
        if verdict == Verdict::Pass {
            return self.deliver(making, now, from, message, choices);
        }
        if matches!(message, Message::PrepareOk { .. }) {
            return self.turn(making, now, None, choices);
        }
        Ok(())
    }

    fn go_on(
        &mut self,
        making: &mut Making,
        now: Time,
        number: u8,
        choices: &Rc<Choices>,
    ) -> Result<(), Died> {
        let mut state = self.host.memory().state_mut();
        let at = state
            .programs
            .iter()
            .position(|program| program.number == number);
        let ended = state.advance(at.expect("it stands still here"));
        drop(state);
        match ended {
            Some((program, verdict)) => {
                let packet = (program.from, &*program.message);
                self.after_program(making, now, packet, verdict, choices)
            }
            None => Ok(()),
        }
    }

    /// What the driver does when it is woken: ring, datagram, slots, flush.
    fn turn(
        &mut self,
        making: &mut Making,
        now: Time,
        input: Option<Input>,
        choices: &Rc<Choices>,
    ) -> Result<(), Died> {
        self.drain(making, now, choices)?;
        if let Some(input) = input {
            self.step(making, now, input, choices)?;
        }
        self.finish(making, now, choices)
    }

    /// Slots and flush; slots again if some were read on the way.
    fn finish(
        &mut self,
        making: &mut Making,
        now: Time,
        choices: &Rc<Choices>,
    ) -> Result<(), Died> {
        self.give_acks(making, now, choices)?;
        self.step(making, now, Input::Flush, choices)?;
        if making.slots.is_empty() {
            return Ok(());
        }
        self.finish(making, now, choices)
    }

    /// A turn in which the core's deadline has passed.
    fn tick(&mut self, making: &mut Making, now: Time, choices: &Rc<Choices>) -> Result<(), Died> {
        self.drain(making, now, choices)?;
        self.give_acks(making, now, choices)?;
        let mut heard = Vec::new();
        if self.armed().is_some_and(|armed| armed.primary) {
            self.host.heard(&mut heard);
        }
        for (from, at, op) in heard {
            let event = FastPathEvent::Heard { from, at, op };
            self.step(making, now, Input::FastPath(event), choices)?;
        }
        self.drain(making, now, choices)?;
        let entropy = Nonce(0);
        self.step(making, now, Input::Tick { entropy }, choices)?;
        self.finish(making, now, choices)
    }

    /// A pre-vote that succeeds. It changes nothing at anybody, so who supports it makes no difference: anybody may begin a view
    /// change at any time.
    fn doubt(&mut self, making: &mut Making, now: Time, choices: &Rc<Choices>) -> Result<(), Died> {
        self.tick(making, now.plus(PATIENCE), choices)?;
        let Some(view) = making.pre_vote.take() else {
            return Ok(());
        };
        let primary = self
            .core
            .promised()
            .primary(usize::from(self.shape.replicas));
        let from = (0..self.shape.replicas)
            .map(ReplicaId)
            .find(|other| *other != self.index && *other != primary)
            .expect("three replicas or more");
        let message = Message::PreVoteOk { view };
        let input = Input::Message { from, message };
        self.step(making, now.plus(PATIENCE), input, choices)?;
        self.step(making, now.plus(PATIENCE), Input::Flush, choices)
    }

    /// The log's last op.
    fn op(&self) -> OpNumber {
        self.core.snapshot().op
    }

    fn armed(&self) -> Option<Armed> {
        self.host.memory().state().armed
    }

    fn drain(&mut self, making: &mut Making, now: Time, choices: &Rc<Choices>) -> Result<(), Died> {
        while let Some(event) = self.take_stored() {
            self.step(making, now, Input::FastPath(event), choices)?;
        }
        Ok(())
    }

    fn take_stored(&mut self) -> Option<FastPathEvent> {
        let record = self.host.memory().take_record()?;
        // The generation is the host's to judge.
        let mut front = record.generation.to_ne_bytes().to_vec();
        front.extend(0u64.to_ne_bytes());
        assert!(record.generation != RECORD_NOTICE && self.host.message(&front).is_some());
        Some(FastPathEvent::Stored(record.prepare))
    }

    fn give_stored(&mut self, making: &mut Making, now: Time) -> bool {
        let mut any = false;
        while let Some(event) = self.take_stored() {
            any = true;
            self.give(making, now, Input::FastPath(event));
        }
        any
    }

    fn give_acks(
        &mut self,
        making: &mut Making,
        now: Time,
        choices: &Rc<Choices>,
    ) -> Result<(), Died> {
        let Some(armed) = self.armed().filter(|armed| armed.primary) else {
            return Ok(());
        };
        let mut slots = std::mem::take(&mut making.slots);
        self.host.acks(self.commit, &mut slots);
        for (op, acks) in slots {
            if self.armed() == Some(armed) {
                let event = FastPathEvent::SlotAcks { op, acks };
                self.step(making, now, Input::FastPath(event), choices)?;
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        making: &mut Making,
        now: Time,
        input: Input,
        choices: &Rc<Choices>,
    ) -> Result<(), Died> {
        self.give(making, now, input);
        while let Some(effect) = making.effects.pop_front() {
            self.execute(making, now, effect, choices)?;
        }
        Ok(())
    }

    /// Gives the core one input, and looks at what it became.
    fn give(&mut self, making: &mut Making, now: Time, input: Input) {
        let before = self.core.snapshot();
        let nonces = self.core.open_nonces();
        let mut fresh = Vec::new();
        self.core.step(now, input, &mut fresh);
        making.effects.extend(fresh);
        let open = self.core.open_nonces();
        if open != nonces && (open.0 != nonces.0 || open.1.is_some()) {
            self.questions += 1;
        }
        let after = self.core.snapshot();
        let normal = after.status == Status::Normal;
        let primary = normal && after.role == Role::Primary;
        let entered = normal && (before.status != Status::Normal || before.view != after.view);
        if entered {
            making.seen.push(Seen::Normal {
                view: after.view,
                digests: self.digests(after.op),
            });
        }
        if primary {
            for (who, (_, op)) in after.peers.iter().enumerate() {
                let known = !entered && before.peers[who].1 == *op;
                if *op > OpNumber(0) && !known {
                    let who = ReplicaId(u8::try_from(who).expect("few replicas"));
                    let (view, op) = (after.view, *op);
                    making.seen.push(Seen::Believed { view, who, op });
                }
            }
        }
        if after.commit > before.commit {
            making.seen.push(Seen::Committed {
                view: after.view,
                primary,
                commit: after.commit,
                digests: self.digests(after.commit),
            });
        }
        let verdict = promises::normal(&after, self.disk, self.index.index());
        require(making, promises::RULE, verdict);
    }

    /// The digests of ops 1 to `end`; 0 for those that a checkpoint covers.
    fn digests(&self, end: OpNumber) -> Vec<u64> {
        let digest = |op| self.core.log_digest_at(OpNumber(op));
        (1..=end.0)
            .map(|op| digest(op).map_or(0, |digest| digest.0))
            .collect()
    }

    fn execute(
        &mut self,
        making: &mut Making,
        now: Time,
        effect: Effect,
        choices: &Rc<Choices>,
    ) -> Result<(), Died> {
        match effect {
            Effect::Persist(promise) => {
                // What is said before is said, what comes behind isn't.
                if self.disk.is_some() && choices.choose(2) == 1 {
                    return Err(Died);
                }
                let verdict = promises::persisted(self.disk, promise, self.index.index());
                require(making, promises::RULE, verdict);
                self.disk = Some(promise);
                self.host.set_group(promise.group.0);
                self.host.memory().state_mut().promised = promise.view;
            }
            Effect::Write(_) => unreachable!("groups in memory mode write no log"),
            Effect::Send { to, message } => self.send(making, to, message),
            Effect::Broadcast(Message::PreVote { view }) => making.pre_vote = Some(view),
            Effect::Broadcast(message) => {
                let said = match &message {
                    Message::Prepare(prepare) => prepare.commit,
                    Message::Commit { commit, .. } => *commit,
                    _ => OpNumber(0),
                };
                self.commit = self.commit.max(said);
                for to in (0..self.shape.replicas).map(ReplicaId) {
                    if to != self.index {
                        self.send(making, to, message.clone());
                    }
                }
            }
            Effect::Reply {
                client,
                request,
                reply: Reply::Done(bytes),
                ..
            } => making.seen.push(Seen::Replied {
                client: u8::try_from(client.0).expect("few clients"),
                number: u8::try_from(request.0).expect("few requests"),
                place: bytes[0],
            }),
            Effect::Reply { .. } | Effect::Note(Note::Entered { .. } | Note::Warning(_)) => {}
            Effect::FastPath(command) => self.obey(making, now, command, choices),
        }
        Ok(())
    }

    fn send(&mut self, making: &mut Making, to: ReplicaId, message: Message) {
        let verdict = promises::sent(&message, self.disk, self.index.index());
        require(making, promises::RULE, verdict);
        if let Message::PrepareOk { op, last_op, .. } = message {
            let now = self.core.snapshot();
            let verdict = acks::by_user_space(&now, op, last_op, self.index.index());
            require(making, acks::RULE, verdict);
        }
        note_ack(making, &message);
        making.sent.push((to, message));
    }

    fn obey(
        &mut self,
        making: &mut Making,
        now: Time,
        command: FastPathCommand,
        choices: &Rc<Choices>,
    ) {
        match command {
            FastPathCommand::Fence => self.fence(making, now),
            FastPathCommand::Arm {
                view,
                primary,
                last_op,
            } => {
                let verdict = promises::arming(self.index.index(), view, self.disk);
                require(making, promises::RULE, verdict);
                // The programs may go on from the moment at which the tail names the generation: the check has to know first.
                self.host.memory().state_mut().armed = Some(Armed {
                    generation: self.host.generation().wrapping_add(1),
                    view,
                    primary,
                });
                self.host.arm(view, primary, last_op);
            }
            FastPathCommand::Claim { after, last } => {
                making.claims += 1;
                if making.claims > CLAIMS {
                    let text = format!("{CLAIMS} claims for op {last} in one event");
                    return require(making, STOPS, Err(text));
                }
                let event = if self.host.claim(after, last) {
                    FastPathEvent::Claimed
                } else {
                    // The record may still be on its way: the driver waits for it, but not for ever.
                    while !self.give_stored(making, now)
                        && choices.choose(2) == 0
                        && self.host.memory().run_promised()
                    {}
                    FastPathEvent::Lost
                };
                self.give(making, now, Input::FastPath(event));
            }
            FastPathCommand::OpenSlot { op } => {
                if let Some(Effect::Broadcast(Message::Prepare(prepare))) = making.effects.front() {
                    self.commit = self.commit.max(prepare.commit);
                }
                // What the slot had is read before it is opened anew; the core hears of it at the next look.
                self.host.acks(self.commit, &mut making.slots);
                self.host.open_slot(op);
            }
        }
    }

    fn fence(&mut self, making: &mut Making, now: Time) {
        making.slots.clear();
        let last_op = self.host.fence();
        self.host.memory().state_mut().armed = None;
        loop {
            self.give_stored(making, now);
            let op = self.op();
            if op >= last_op {
                break;
            }
            if !self.host.memory().run_promised() {
                let text =
                    format!("the kernel accepted up to op {last_op}, but the ring ends at {op}");
                return require(making, STOPS, Err(text));
            }
        }
        self.give(
            making,
            now,
            Input::FastPath(FastPathEvent::Fenced { last_op }),
        );
    }
}

/// The first thing that is wrong.
fn require(making: &mut Making, rule: Rule, verdict: Result<(), String>) {
    if let Err(text) = verdict
        && making.broken.is_none()
    {
        making.broken = Some(Violation { rule, text });
    }
}

fn note_ack(making: &mut Making, message: &Message) {
    if let Message::PrepareOk { view, last_op, .. } = *message
        && last_op > OpNumber(0)
    {
        let op = last_op;
        making.seen.push(Seen::Acknowledged { view, op });
    }
}

/// Nonces are told apart by who asks, in which life, and which question it is.
fn entropy(index: ReplicaId, life: u8, questions: u8) -> Nonce {
    Nonce(u64::from(index.0) << 40 | u64::from(life) << 32 | u64::from(questions))
}
