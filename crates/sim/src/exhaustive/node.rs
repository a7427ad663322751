//! One replica: the core, the driver and user space's half that ship, and the programs' steps; without bytes, and without time.

mod timeless;

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use electrode_driver::{Door, Driver, Ready, Received, Setup};
use electrode_fastpath::abi::PEERS;
use electrode_fastpath::host::{Host, Identity};
use electrode_vr::{
    ClientId, Config, Durability, GroupId, Limits, Message, Nonce, OpNumber, Promise, Replica,
    ReplicaId, RequestNumber, Start, Status, Time, Timing, View,
};
use electrode_wire::Key;

use super::choices::Choices;
use super::memory::Shared;
use super::program::{Program, Verdict};
use super::sequence::{Sequence, op};
use crate::checks::{Violation, tail};

use timeless::{Ended, Making, STOPS, Timeless};

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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    driver: Driver<Sequence>,
    pub(super) host: Host<Shared>,
    disk: Option<Promise>,
}

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
        let config = config(index, shape);
        let addresses: Vec<SocketAddr> = (0..shape.replicas)
            .map(|port| (Ipv4Addr::LOCALHOST, u16::from(port)).into())
            .collect();
        let setup = Setup {
            config,
            start,
            stored: None,
            machine: Sequence::default(),
            door: Door::new(index, Key::UNKEYED, &addresses, start),
            busy_poll: false,
        };
        let driver = Driver::new(setup, Time(0), ENTROPY).expect("nothing is restored");
        Node {
            shape,
            index,
            life,
            driver,
            host,
            disk,
        }
    }

    /// The first tick, which is due at once.
    fn begin(mut self, choices: &Rc<Choices>) -> Outcome {
        let mut making = Making::default();
        // No question of this life is open yet, and none of the last one is any more.
        let ended = self.turn(&mut making, Time(1), None, choices);
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
        let now = self.driver.forget_time(ENTROPY);
        let mut making = Making {
            asked: self.core().open_nonces(),
            ..Making::default()
        };
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
                let received = Received::Request {
                    client: ClientId(u64::from(*client)),
                    request: RequestNumber(u64::from(*number)),
                    op: op(*client, *number).as_slice().into(),
                };
                self.turn(&mut making, now, Some(received), choices)
            }
            Event::Look => self.turn(&mut making, now, None, choices),
            Event::Retry => self.turn(&mut making, now.plus(RETRY), None, choices),
            Event::Doubt => self.doubt(&mut making, now, choices),
            Event::Crash => Err(Ended::Died),
        };
        self.ended(making, ended, choices)
    }

    /// Time is taken out again, and what programs and the last effects left is looked at.
    fn ended(
        mut self,
        mut making: Making,
        ended: Result<(), Ended>,
        choices: &Rc<Choices>,
    ) -> Outcome {
        if let Err(Ended::Stopped(text)) = &ended {
            making.require(STOPS, Err(text.clone()));
        }
        if let Err(Ended::Died) = ended {
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
        let read = self.driver.commit();
        self.driver.forget_time(ENTROPY);
        self.check_tail(&mut making);
        let mut state = self.host.memory().state_mut();
        for (to, message) in state.answers.drain(..) {
            making.leaves(to, message);
        }
        let now = self.core().snapshot();
        state.forget_unread(read.min(now.commit), &now.peers);
        drop(state);
        self.rename_questions(&mut making);
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
            making.require(tail::RULE, Err(text));
        }
        let backup = state.armed.is_some_and(|armed| !armed.primary);
        let (last, end) = (state.last_op(), state.stored_through(log));
        if backup && last > end {
            let text = format!("the kernel says op {last}; log and ring end at {end}");
            making.require(tail::RULE, Err(text));
        }
    }

    /// Questions that are open have names that tell them from others that are, and from those that were when the event began:
    /// when a question isn't open any more, it and its answers go from the network, so its name is free. How many were
    /// asked before makes no difference then.
    fn rename_questions(&mut self, making: &mut Making) {
        let (recovery, transfer) = self.core().open_nonces();
        let name = |kind: u8, nonce: Nonce, before: Option<Nonce>| {
            let names = [0, 1].map(|turn| name(self.index, self.life, 2 * kind + turn));
            if names.contains(&nonce) {
                // Still the same question.
                return nonce;
            }
            names[usize::from(before == Some(names[0]))]
        };
        let recovers = self.core().snapshot().status == Status::Recovering;
        let recovery = (
            recovery,
            if recovers {
                name(0, recovery, Some(making.asked.0))
            } else {
                recovery
            },
        );
        let transfer = transfer.map(|nonce| (nonce, name(1, nonce, making.asked.1)));
        let renamed = [Some(recovery), transfer];
        for (_, message) in &mut making.sent {
            if let Message::Recovery { nonce, .. }
            | Message::GetState { nonce, .. }
            | Message::GetCheckpoint { nonce, .. } = message
                && let Some((_, new)) = renamed.iter().flatten().find(|(old, _)| old == nonce)
            {
                *nonce = *new;
            }
        }
        let transfer = transfer.map_or(Nonce(0), |(_, new)| new);
        self.driver.rename_questions(recovery.1, transfer);
    }

    /// The replica in one line.
    pub(super) fn describe(&self) -> String {
        let now = self.core().snapshot();
        let state = self.host.memory().state();
        format!(
            "{:?} {:?} view {} (promised {}) op {} commit {}; tail {}:{}, {} in the ring, {} programs stand still",
            now.status,
            now.role,
            now.view,
            self.core().promised(),
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
        let now = self.core().snapshot();
        let state = self.host.memory().state();
        let normal = u64::from(now.status == Status::Normal);
        let acked: u64 = now.peers.iter().map(|peer| peer.1.0).sum();
        let marks: u32 = state
            .slots
            .values()
            .map(|word| (word & 0xffff).count_ones())
            .sum();
        let come = 1000 * u64::from(self.life)
            + 200 * self.core().promised().0
            + 100 * normal
            + 20 * state.generation()
            + 16 * now.commit.0
            + 6 * now.op.0
            + 4 * state.last_op().0
            + 4 * acked
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
    ) -> Result<(), Ended> {
        let message = message.clone();
        let received = Received::Message { from, message };
        self.turn(making, now, Some(received), choices)
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
    ) -> Result<(), Ended> {
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
    ) -> Result<(), Ended> {
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
    ) -> Result<(), Ended> {
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

    /// A turn of the driver, woken by a datagram or by something else.
    fn turn(
        &mut self,
        making: &mut Making,
        now: Time,
        received: Option<Received>,
        choices: &Rc<Choices>,
    ) -> Result<(), Ended> {
        let ready = Ready {
            socket: received.is_some(),
            disk: false,
        };
        let mut timeless = Timeless {
            now,
            received,
            host: &mut self.host,
            disk: &mut self.disk,
            making,
            choices,
            composed: None,
            waiting: 0,
        };
        self.driver.turn(&mut timeless, ready)
    }

    /// A pre-vote that succeeds. It changes nothing at anybody, so who supports it makes no difference: anybody may begin a view
    /// change at any time.
    fn doubt(
        &mut self,
        making: &mut Making,
        now: Time,
        choices: &Rc<Choices>,
    ) -> Result<(), Ended> {
        self.turn(making, now.plus(PATIENCE), None, choices)?;
        let Some(view) = making.pre_vote.take() else {
            return Ok(());
        };
        let primary = self
            .core()
            .promised()
            .primary(usize::from(self.shape.replicas));
        let from = (0..self.shape.replicas)
            .map(ReplicaId)
            .find(|other| *other != self.index && *other != primary)
            .expect("three replicas or more");
        let message = Message::PreVoteOk { view };
        let received = Received::Message { from, message };
        self.turn(making, now.plus(PATIENCE), Some(received), choices)
    }

    /// The log's last op.
    fn op(&self) -> OpNumber {
        self.core().snapshot().op
    }

    pub(super) fn core(&self) -> &Replica<Sequence> {
        self.driver.core()
    }
}

/// What nonces are drawn from in every event: they get names of their own at its end.
const ENTROPY: Nonce = Nonce(1 << 63);

/// An open question's name: who asks, in which life, and which of its questions it is.
fn name(index: ReplicaId, life: u8, which: u8) -> Nonce {
    Nonce(u64::from(index.0 + 1) << 16 | u64::from(life) << 8 | u64::from(which))
}
