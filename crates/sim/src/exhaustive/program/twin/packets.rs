//! Packets of chance, and their programs in both.

use std::rc::Rc;

use electrode_fastpath::abi::OP_MASK;
use electrode_vr::{ClientId, Entry, Message, OpNumber, Prepare, ReplicaId, RequestNumber, View};
use electrode_wire::{Envelope, Key, Packet, decode, encode_message};

use super::super::{Program, Verdict};
use super::{CPUS, GROUP, HALF, Held, INDEX, RECORD_BYTES, REPLICAS, RING_BYTES, Twin};
use crate::frame::{Host as Place, parse};
use crate::nic::{self, Stop};

impl Twin {
    /// A packet of chance comes to the card.
    pub(super) fn frame(&mut self) {
        let cpu = self.random.index(CPUS);
        if self.held[cpu].is_some() {
            return self.finish(cpu);
        }
        let newest = self.tail() & OP_MASK;
        let views = [self.view.0; 6].into_iter().chain([self.view.0 + 1]);
        let views: Vec<u64> = views.chain(self.view.0.checked_sub(1)).collect();
        let view = View(self.random.pick(&views));
        let (from, message) = if self.random.chance(if self.primary { 100 } else { 850 }) {
            let primary = self.view.primary(REPLICAS);
            let from = self
                .random
                .pick(&[primary, primary, primary, ReplicaId(0), ReplicaId(2)]);
            let first = OpNumber(self.near(newest));
            let count = self.random.pick(&[1, 1, 1, 2, 3]);
            let entries = (0..count).map(|at| Entry {
                client: ClientId(view.0),
                request: RequestNumber(1 + first.0 + at),
                op: [1, 2][..].into(),
            });
            let commit = OpNumber(self.random.below(newest + 1));
            let entries = entries.collect();
            let prepare = Prepare {
                view,
                first,
                commit,
                entries,
            };
            (from, Message::Prepare(prepare))
        } else {
            let last_op = OpNumber(self.near(newest).saturating_sub(self.random.below(2)));
            let op = OpNumber(last_op.0.saturating_sub(self.random.pick(&[0, 0, 0, 1, 2])));
            let op = if self.random.chance(50) {
                last_op.next()
            } else {
                op
            };
            let from = ReplicaId(self.random.pick(&[0, 2]));
            (from, Message::PrepareOk { view, op, last_op })
        };
        // From itself nobody hears.
        if from != INDEX {
            self.run(cpu, from, &Rc::new(message));
        }
    }

    /// The frame's program runs to its end in both, or stops right before the exchange that decides.
    fn run(&mut self, cpu: usize, from: ReplicaId, message: &Rc<Message>) {
        let used = self.engine.borrow().ring_used();
        let full = used + RECORD_BYTES >= u64::from(RING_BYTES);
        let standing = self.held.iter().any(Option::is_some);
        if standing && used > HALF {
            return;
        }
        let stop = used <= HALF && self.random.chance(200);
        let frame = self.encoded(from, message);
        let number = u8::try_from(cpu).expect("few CPUs");
        let program = Program::new(number, from, message, full);
        let mut program = program.expect("it is the fast path's");
        let tail = self.tail();
        let is_prepare = matches!(**message, Message::Prepare(_));
        // The bytecode's atomics: `dispatch`'s look at the tail, the program's, and what decides. The same place here.
        let (atomics, steps) = (3, if is_prepare { 2 } else { 3 });
        let at = if stop {
            Stop::BeforeAtomic(atomics)
        } else {
            Stop::Never
        };
        let real = self.engine.borrow_mut().start(cpu, frame, at);
        let limit = if stop { steps } else { u32::MAX };
        let mut model = None;
        for _ in 0..limit {
            model = program.step(&mut self.model.memory().state_mut());
            if model.is_some() {
                break;
            }
        }
        self.tally.full += u32::from(full && self.would_store(from, message));
        match (real, model) {
            (None, None) => {
                self.tally.held += 1;
                self.held[cpu] = Some(Held { program, tail });
            }
            (Some(real), Some(model)) => self.judge(real, model, message),
            (real, model) => panic!("bytecode {real:?}, steps {model:?}: {message:?}"),
        }
    }

    /// Whether there is nothing against a message but that the ring may be full.
    fn would_store(&self, from: ReplicaId, message: &Message) -> bool {
        let newest = self.tail() & OP_MASK;
        let Message::Prepare(prepare) = message else {
            return false;
        };
        let next = (1..=newest + 1).contains(&prepare.first.0) && prepare.last().0 > newest;
        let backup = self.real.armed() && !self.primary;
        backup && next && prepare.view == self.view && from == self.view.primary(REPLICAS)
    }

    /// A program that stands still goes on, if there is one.
    pub(super) fn go_on(&mut self) {
        let cpu = self.random.index(CPUS);
        self.finish(cpu);
    }

    /// A program that stands still runs to its end in both.
    pub(super) fn finish(&mut self, cpu: usize) {
        let Some(Held { mut program, tail }) = self.held[cpu].take() else {
            return;
        };
        self.tally.overtaken += u32::from(self.tail() != tail);
        let real = self.engine.borrow_mut().go_on(cpu, Stop::Never);
        let model = loop {
            if let Some(verdict) = program.step(&mut self.model.memory().state_mut()) {
                break verdict;
            }
        };
        let message = Rc::clone(&program.message);
        self.judge(real.expect("it runs to its end"), model, &message);
    }

    fn judge(&mut self, real: nic::Verdict, model: Verdict, message: &Message) {
        let answers: Vec<_> = self.model.memory().state_mut().answers.drain(..).collect();
        match (&real, model) {
            (nic::Verdict::Pass(_), Verdict::Pass) => self.tally.passed += 1,
            (nic::Verdict::Drop, Verdict::Drop) => self.tally.dropped += 1,
            (nic::Verdict::Send(frame), Verdict::Answered) => {
                self.tally.answered += 1;
                let datagram = parse(frame).expect("what a program sends is whole");
                let (to, answer) = &answers[0];
                let to = self.plan.layout.address(Place::Replica(to.index()));
                assert_eq!(datagram.destination, to);
                let (envelope, packet) = decode(datagram.payload, &Key(self.plan.key)).unwrap();
                assert_eq!((envelope.group, envelope.sender), (GROUP, INDEX.0));
                assert_eq!(packet, Packet::Message(answer.clone()));
            }
            _ => panic!("bytecode {real:?}, steps {model:?}: {message:?}"),
        }
        assert_eq!(answers.len(), usize::from(model == Verdict::Answered));
    }

    fn encoded(&mut self, from: ReplicaId, message: &Message) -> Vec<u8> {
        let envelope = Envelope {
            group: GROUP,
            epoch: 0,
            sender: from.0,
            flags: 0,
        };
        let mut payload = Vec::new();
        encode_message(&envelope, &Key(self.plan.key), message, &mut payload);
        let layout = self.plan.layout;
        let to = layout.address(Place::Replica(INDEX.index()));
        let id = u16::try_from(self.random.below(1 << 16)).expect("16 bits");
        let mut frames = layout.frames(Place::Replica(from.index()), to, &payload, id);
        assert_eq!(frames.len(), 1, "a small message");
        frames.remove(0)
    }
}
