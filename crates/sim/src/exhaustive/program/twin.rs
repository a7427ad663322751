//! The steps here against the bytecode that ships: both run over a memory of their own, both memories are `fastpath::host`'s, and
//! the same frames and calls of chance come to both. Whatever others can tell has to be the same after each.

mod maps;
mod packets;
mod tally;

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use electrode_fastpath::abi::{OP_BITS, OP_MASK, PEERS, RecordHeader, SLOTS};
use electrode_fastpath::host::{Host, Identity, Memory, Word};
use electrode_vr::{GroupId, Message, OpNumber, ReplicaId, View};
use electrode_wire::{Key, Packet, decode};

use super::super::choices::Choices;
use super::super::memory::{Armed, Shared};
use super::Program;
use crate::frame::Host as Place;
use crate::nic::{Engine, Programs};
use crate::plan::{Acceleration, Plan};
use crate::random::Random;
use maps::Maps;
use tally::Tally;

const REPLICAS: usize = 3;
/// The replica whose card it is: primary of views 1, 4, 7, ...
const INDEX: ReplicaId = ReplicaId(1);
const GROUP: GroupId = GroupId(7);
/// Few records fit.
const RING_BYTES: u32 = 4096;
/// What one Prepare of a few small ops takes of it: a record of the smaller size, and the ring's own header.
const RECORD_BYTES: u64 = size_of::<RecordHeader>() as u64 + 256 + 8;
/// While a program stands still, the ring isn't filled further than this: its second try has room like its first.
const HALF: u64 = RING_BYTES as u64 / 2;
const CPUS: usize = 2;
const SEQUENCES: u64 = 300;
const ACTIONS: usize = 100;

/// A program that stands still in both.
struct Held {
    program: Program,
    tail: u64,
}

struct Twin {
    plan: Plan,
    engine: Rc<RefCell<Engine>>,
    real: Host<Maps>,
    model: Host<Shared>,
    held: [Option<Held>; CPUS],
    random: Random,
    view: View,
    primary: bool,
    /// What user space's log has.
    log: OpNumber,
    commit: OpNumber,
    /// The ring is read only when that has to be.
    lazy: bool,
    tally: Tally,
}

impl Twin {
    fn new(seed: u64, programs: &Programs, tally: Tally) -> Twin {
        let mut plan = Plan::of(seed, 1, Acceleration::All);
        plan.replicas = REPLICAS;
        plan.programs = vec![crate::plan::Programs::ALL; REPLICAS];
        plan.ring_bytes = RING_BYTES;
        plan.engine = crate::plan::Engine::Interpreter;
        let mut engine = programs.engine(&plan, INDEX.index());
        // It was just now that a message of an older view was passed up: the next ones are dropped.
        engine.set_time(0);
        let engine = Rc::new(RefCell::new(engine));
        let mut peers = [Default::default(); PEERS];
        for (index, peer) in peers.iter_mut().enumerate().take(REPLICAS) {
            *peer = plan.layout.address(Place::Replica(index)).into();
        }
        let identity = Identity {
            index: INDEX,
            replicas: REPLICAS,
            key: plan.key,
            peers,
            store: true,
            answer: true,
            count: true,
        };
        let mut real = Host::new(Maps(Rc::clone(&engine)), identity.clone());
        real.set_group(GROUP.0);
        let mut model = Host::new(Shared::new(Rc::new(Choices::default()), View(0)), identity);
        model.set_group(GROUP.0);
        Twin {
            plan,
            engine,
            real,
            model,
            held: [None, None],
            random: Random::new(seed),
            view: View(0),
            primary: false,
            log: OpNumber(0),
            commit: OpNumber(0),
            lazy: seed.is_multiple_of(3),
            tally,
        }
    }

    fn act(&mut self) {
        let fenced = !self.real.armed();
        if fenced && self.random.chance(300) {
            self.change();
        }
        match self.random.below(100) {
            0..45 => self.frame(),
            45..55 => self.go_on(),
            55..70 if self.lazy => self.frame(),
            55..70 => _ = self.take_record(),
            70..78 => self.append(),
            78..86 => self.open_slot(),
            86..90 => self.read_acks(),
            _ => self.change(),
        }
        let newest = self.tail() & OP_MASK;
        self.compare(newest.saturating_sub(4)..newest + 4);
    }

    fn tail(&self) -> u64 {
        self.real.memory().load(Word::Tail)
    }

    fn near(&mut self, number: u64) -> u64 {
        (number + self.random.pick(&[0, 1, 1, 2, 2, 2, 3])).saturating_sub(1)
    }

    /// The ring's next record; false when there is none.
    fn take_record(&mut self) -> bool {
        let real = self.engine.borrow_mut().take_record();
        let model = self.model.memory().take_record();
        let Some(real) = real else {
            assert!(
                model.is_none(),
                "the bytecode stored nothing, the steps {model:?}"
            );
            return false;
        };
        let model = model.expect("the bytecode stored something");
        let generation = u64::from_ne_bytes(real[..8].try_into().unwrap());
        assert_eq!(generation, model.generation);
        let message = self.real.message(&real).expect("no notice: nobody sleeps");
        let (_, packet) = decode(message, &Key(self.plan.key)).unwrap();
        self.log = self.log.max(model.prepare.last());
        assert_eq!(packet, Packet::Message(Message::Prepare(model.prepare)));
        self.tally.records += 1;
        true
    }

    /// User space claims what came by the socket.
    fn append(&mut self) {
        if !self.real.armed() || self.primary {
            return;
        }
        let after = OpNumber(self.near(self.log.0 + 1) - u64::from(self.log.0 > 0));
        let last = OpNumber(after.0 + 1 + self.random.below(2));
        let real = self.real.claim(after, last);
        assert_eq!(real, self.model.claim(after, last));
        self.tally.claims += u32::from(real);
        self.tally.lost += u32::from(!real);
        if real {
            self.log = last;
        }
    }

    fn open_slot(&mut self) {
        if !self.real.armed() || !self.primary {
            return;
        }
        let newest = self.tail() & OP_MASK;
        let op = OpNumber(self.commit.0.max(newest.saturating_sub(2)) + 1 + self.random.below(3));
        self.real.open_slot(op);
        self.model.open_slot(op);
    }

    fn read_acks(&mut self) {
        let newest = self.tail() & OP_MASK;
        if self.random.chance(300) && self.commit.0 < newest {
            self.commit = self.commit.next();
        }
        let (mut real, mut model) = (Vec::new(), Vec::new());
        self.real.acks(self.commit, &mut real);
        self.model.acks(self.commit, &mut model);
        assert_eq!(real, model);
        self.tally.marks += u32::try_from(real.len()).expect("few slots");
    }

    /// A fence, or the next generation.
    fn change(&mut self) {
        if self.real.armed() {
            if !self.random.chance(if self.lazy { 100 } else { 300 }) {
                return;
            }
            let real = self.real.fence();
            assert_eq!(real, self.model.fence());
            self.model.memory().state_mut().armed = None;
            while self.take_record() {}
            return;
        }
        while self.take_record() {}
        if self.real.memory().ring_has_record() {
            // Who holds the first one gives it back before there is another generation.
            (0..CPUS).for_each(|cpu| self.finish(cpu));
            while self.take_record() {}
        }
        self.view = View(self.view.0 + self.random.pick(&[0, 1, 1, 2]));
        self.primary = self.view.primary(REPLICAS) == INDEX;
        self.log = OpNumber(self.near(self.log.0 + 1));
        self.commit = self.commit.min(self.log);
        {
            let mut state = self.model.memory().state_mut();
            state.promised = self.view;
            state.armed = Some(Armed {
                generation: self.real.generation().wrapping_add(1),
                view: self.view,
                primary: self.primary,
            });
        }
        self.real.arm(self.view, self.primary, self.log);
        self.model.arm(self.view, self.primary, self.log);
    }

    /// Everything that others can tell; of the slots those of these ops.
    fn compare(&self, ops: Range<u64>) {
        let (real, model) = (self.real.memory(), self.model.memory());
        let tail = |word: u64| (word >> OP_BITS, word & OP_MASK);
        assert_eq!(tail(real.load(Word::Tail)), tail(model.load(Word::Tail)));
        let slots = ops.map(|op| usize::try_from(op % u64::from(SLOTS)).expect("few slots"));
        for slot in slots.map(Word::Slot) {
            assert_eq!(real.load(slot), model.load(slot), "{slot:?}");
        }
        for heard in (0..PEERS).map(Word::HeardOp) {
            assert_eq!(real.load(heard), model.load(heard), "{heard:?}");
        }
        let state = model.state();
        assert_eq!(state.broken, None);
        let standing = self.held.iter().any(Option::is_some);
        if !standing {
            let used = RECORD_BYTES * state.ring.len() as u64;
            // What was given back before it was submitted is skipped only when records are taken.
            assert!(self.engine.borrow().ring_used() >= used);
        }
    }
}

#[test]
fn the_steps_do_what_the_bytecode_does() {
    let programs = Programs::new().unwrap();
    let mut tally = Tally::default();
    for seed in 0..SEQUENCES {
        let mut twin = Twin::new(seed, &programs, tally);
        for action in 0..ACTIONS {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| twin.act()));
            assert!(caught.is_ok(), "sequence {seed}, action {action}");
        }
        twin.compare(0..u64::from(SLOTS));
        tally = twin.tally;
    }
    println!("{tally:?}");
    assert!(tally.least() >= 20, "all of it came about: {tally:?}");
}
