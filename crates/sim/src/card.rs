//! One machine's network card with its programs, the memory that they share with user space, and the socket behind it.
//!
//! The programs run on two CPUs and can be stopped before every access to shared memory. They go on when the world lets
//! them, and between any two accesses of user space: [`CardMemory`] is what `electrode_fastpath::host` works on here, and
//! each of its accesses is such a moment. Whatever a program does is done at a simulated instant of its own choosing; the
//! card belongs to the process, and goes with it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use electrode_fastpath::abi::{Block, SLOTS};
use electrode_fastpath::host::{Memory, Word};
use electrode_wire::{Kind, peek};

use crate::frame::parse;
use crate::nic::{Engine, Stop, Verdict};
use crate::random::Random;

/// CPUs that take packets.
pub(crate) const CPUS: usize = 2;
/// Frames that wait for a CPU, and datagrams that wait in the socket; what is more is dropped, as systems do.
pub(crate) const QUEUE: usize = 512;
pub(crate) const SOCKET: usize = 256;
/// The atomics of a program, counted from `dispatch`'s own look at the tail: the program's look at it, its exchange (of the tail
/// or of a slot), and one that shouldn't be there.
const LOOK: u32 = 2;
const EXCHANGE: u32 = 3;
const BEHIND: u32 = 4;
/// Where there are so few quorum slots (in tests) a program may stand still until its own is another op's.
const FEW_SLOTS: u32 = 64;
/// Per mille of acks at which it does, where programs stop at all; and for how long at most, in nanoseconds.
const ROUNDS: u64 = 5;
const ROUND: u64 = 150_000_000;

/// How much programs and user space get in each other's way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interleaving {
    /// Per mille of user space's accesses before which programs go on.
    pub(crate) accesses: u64,
    /// Per mille of frames whose program stops on its way.
    pub(crate) suspensions: u64,
    /// Per mille of datagrams that are lost between the card and the socket.
    pub(crate) socket_loss: u64,
}

/// What happened in the card, for the checkers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The tail's op moved by a program's exchange.
    Accepted { generation: u16, from: u64, to: u64 },
    /// A program changed memory for a frame that it then refused.
    Tainted { what: String },
    /// A program marked a slot for an ack of this view; the slot is of this generation.
    Marked { generation: u16, view: u64 },
    /// A program's answer isn't to what was asked.
    Answered { what: String },
    /// A program did what the engine doesn't allow.
    Fault { what: String },
}

/// The card of one process.
pub(crate) struct Card(RefCell<State>);

struct State {
    engine: Option<Engine>,
    waiting: [VecDeque<Vec<u8>>; CPUS],
    busy: [bool; CPUS],
    /// Until then a CPU stands still in the middle of a program: something more urgent runs on it, or its machine gave it away.
    held_until: [u64; CPUS],
    /// It stands still only as long as this slot has this word.
    held_over: [Option<(usize, u64)>; CPUS],
    /// View and op of the message that each CPU works on.
    asked: [Option<(u64, u64)>; CPUS],
    /// View and op of the PrepareOk that each CPU works on.
    acked: [Option<(u64, u64)>; CPUS],
    /// A Prepare that is on its way, and arrives right before user space stops the programs.
    late: Option<Vec<u8>>,
    socket: VecDeque<(Vec<u8>, SocketAddr)>,
    own: SocketAddr,
    sent: Vec<Vec<u8>>,
    events: Vec<Event>,
    random: Random,
    interleaving: Interleaving,
    /// Whether the programs are attached.
    attached: bool,
    /// A record was submitted with a wake-up since the world looked last.
    woken: bool,
    now: u64,
}

impl Card {
    /// The card of a process that has just started.
    pub(crate) fn new(
        own: SocketAddr,
        engine: Option<Engine>,
        random: Random,
        interleaving: Interleaving,
    ) -> Rc<Card> {
        Rc::new(Card(RefCell::new(State {
            engine,
            waiting: Default::default(),
            busy: [false; CPUS],
            held_until: [0; CPUS],
            held_over: [None; CPUS],
            asked: [None; CPUS],
            acked: [None; CPUS],
            late: None,
            socket: VecDeque::new(),
            own,
            sent: Vec::new(),
            events: Vec::new(),
            random,
            interleaving,
            attached: true,
            woken: false,
            now: 0,
        })))
    }

    /// Calm: nothing is suspended any more than a working system would.
    pub(crate) fn set_interleaving(&self, interleaving: Interleaving) {
        self.0.borrow_mut().interleaving = interleaving;
    }

    /// Detaches or attaches the programs; memory and those that run stay.
    pub(crate) fn set_attached(&self, attached: bool) {
        self.0.borrow_mut().attached = attached;
    }

    /// The machine's clock, in nanoseconds.
    pub(crate) fn set_time(&self, now: u64) {
        let mut state = self.0.borrow_mut();
        state.now = now;
        if let Some(engine) = &mut state.engine {
            engine.set_time(now);
        }
    }

    /// A frame arrives.
    pub(crate) fn arrive(&self, frame: Vec<u8>, intact: bool) {
        let mut state = self.0.borrow_mut();
        if state.engine.is_none() || !state.attached {
            return state.pass(&frame);
        }
        let cpu = state.random.index(CPUS);
        if !intact && !state.busy.contains(&true) {
            return state.run_refused(cpu, &frame);
        }
        if state.waiting[cpu].len() < QUEUE {
            state.waiting[cpu].push_back(frame);
        }
    }

    /// A frame that arrives right before user space moves the tail, if it does so before it sleeps again.
    pub(crate) fn arrive_late(&self, frame: Option<Vec<u8>>) {
        self.0.borrow_mut().late = frame;
    }

    /// A datagram that came in fragments, put together by the stack; the programs have seen and passed each of them.
    pub(crate) fn arrive_fragments(
        &self,
        frames: &[Vec<u8>],
        payload: Vec<u8>,
        source: SocketAddr,
    ) {
        let mut state = self.0.borrow_mut();
        if state.engine.is_some() && state.attached && !state.busy.contains(&true) {
            let cpu = state.random.index(CPUS);
            for frame in frames {
                state.run_refused(cpu, frame);
            }
        }
        state.deliver(payload, source);
    }

    /// Lets programs run for a while; when the next of those that still aren't done goes on, on the machine's clock.
    pub(crate) fn run(&self) -> Option<u64> {
        let mut state = self.0.borrow_mut();
        state.run_some();
        let waits = (0..CPUS).filter(|cpu| state.busy[*cpu] || !state.waiting[*cpu].is_empty());
        waits.map(|cpu| state.held_until[cpu].max(state.now)).min()
    }

    /// Time passes for user space, which waits for a program: held CPUs come back.
    pub(crate) fn run_held(&self) {
        let mut state = self.0.borrow_mut();
        state.held_until = [0; CPUS];
        state.run_some();
    }

    /// Frames that programs sent (XDP_TX).
    pub(crate) fn take_sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.borrow_mut().sent)
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.borrow_mut().events)
    }

    /// Whether a program asked for user space to be woken since the last call.
    pub(crate) fn take_woken(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().woken)
    }

    pub(crate) fn readable(&self) -> bool {
        !self.0.borrow().socket.is_empty()
    }

    pub(crate) fn socket_length(&self) -> usize {
        self.0.borrow().socket.len()
    }

    /// Receives at most `most` datagrams.
    pub(crate) fn receive(&self, most: usize) -> Vec<(Vec<u8>, SocketAddr)> {
        let mut state = self.0.borrow_mut();
        let count = most.min(state.socket.len());
        state.socket.drain(..count).collect()
    }

    /// A frame leaves user space: what the egress program makes of it.
    pub(crate) fn egress(&self, frame: Vec<u8>) -> Vec<Vec<u8>> {
        let mut state = self.0.borrow_mut();
        match &mut state.engine {
            Some(engine) => match engine.egress(frame) {
                Ok(frames) => frames,
                Err(what) => {
                    state.events.push(Event::Fault { what });
                    Vec::new()
                }
            },
            None => vec![frame],
        }
    }

    /// The next record of the ring that is submitted, in order.
    pub(crate) fn take_record(&self) -> Option<Vec<u8>> {
        let mut state = self.0.borrow_mut();
        state.interleave(1);
        state.engine.as_mut().and_then(Engine::take_record)
    }

    /// Every record that isn't taken yet and isn't discarded, submitted or not, as messages; for the checkers.
    pub(crate) fn untaken(&self) -> Vec<Vec<u8>> {
        self.0
            .borrow()
            .engine
            .as_ref()
            .map(Engine::untaken)
            .unwrap_or_default()
    }

    /// A word as it is, for the checkers: nothing runs before it.
    pub(crate) fn peek(&self, word: Word) -> u64 {
        self.0
            .borrow()
            .engine
            .as_ref()
            .map_or(0, |engine| engine.load(word))
    }

    /// Bytes of the ring that are reserved and not taken.
    pub(crate) fn ring_used(&self) -> u64 {
        self.0.borrow().engine.as_ref().map_or(0, Engine::ring_used)
    }

    /// What the programs counted, by name, for reports.
    pub(crate) fn counters(&self) -> Vec<(String, u64)> {
        self.0
            .borrow()
            .engine
            .as_ref()
            .map(Engine::counters)
            .unwrap_or_default()
    }
}

impl State {
    fn has_work(&self) -> bool {
        self.busy.contains(&true) || self.waiting.iter().any(|queue| !queue.is_empty())
    }

    /// Some of what is waiting runs, in an order of chance, perhaps not to its end.
    fn run_some(&mut self) {
        for _ in 0..2 * QUEUE {
            let free = |cpu: usize| {
                (self.held_until[cpu] <= self.now || self.round_is_over(cpu))
                    && (self.busy[cpu] || !self.waiting[cpu].is_empty())
            };
            let cpu = match (free(0), free(1)) {
                (false, false) => return,
                (true, false) => 0,
                (false, true) => 1,
                (true, true) => self.random.index(CPUS),
            };
            self.held_over[cpu] = None;
            if self.waits_for_a_round(cpu) {
                continue;
            }
            if !self.random.chance(self.interleaving.suspensions) {
                self.advance(cpu, Stop::Never);
                continue;
            }
            let stop = self.somewhere();
            self.advance(cpu, stop);
            if self.busy[cpu] {
                let most = self.random.pick(&[50, 50, 200, 2_000, 30_000, 150_000]);
                self.held_until[cpu] = self.now + 1000 * self.random.below(most);
            }
        }
    }

    /// Now and then the program of an ack stops right before it marks the slot, until that is another op's.
    fn waits_for_a_round(&mut self, cpu: usize) -> bool {
        if SLOTS > FEW_SLOTS || self.busy[cpu] || self.interleaving.suspensions == 0 {
            return false;
        }
        let ack = self.waiting[cpu].front().and_then(|frame| acked(frame));
        let Some((_, op)) = ack.filter(|_| self.random.chance(ROUNDS)) else {
            return false;
        };
        self.advance(cpu, Stop::BeforeAtomic(EXCHANGE));
        if let (true, Some(engine)) = (self.busy[cpu], &self.engine) {
            let slot = usize::try_from(op % u64::from(SLOTS)).expect("few slots");
            self.held_over[cpu] = Some((slot, engine.load(Word::Slot(slot)) >> 16));
            self.held_until[cpu] = self.now + ROUND;
        }
        true
    }

    fn round_is_over(&self, cpu: usize) -> bool {
        let (Some((slot, word)), Some(engine)) = (self.held_over[cpu], &self.engine) else {
            return false;
        };
        engine.load(Word::Slot(slot)) >> 16 != word
    }

    /// The late frame's program starts, and stops at one of the words that decide.
    fn start_late(&mut self) {
        let free = (0..CPUS).find(|cpu| !self.busy[*cpu]);
        let (Some(cpu), true, Some(frame)) = (free, self.attached, self.late.take()) else {
            return;
        };
        self.waiting[cpu].push_front(frame);
        let count = self.random.pick(&[LOOK, EXCHANGE, BEHIND, BEHIND]);
        self.advance(cpu, Stop::BeforeAtomic(count));
        if self.busy[cpu] {
            let most = self.random.pick(&[50, 2_000, 150_000]);
            self.held_until[cpu] = self.now + 1000 * self.random.below(most);
        }
    }

    /// How far a program goes before it stops: half of the time up to one of the few words that decide, otherwise anywhere.
    /// Most of its accesses are to the record that it copies into.
    fn somewhere(&mut self) -> Stop {
        if self.random.chance(500) {
            return Stop::BeforeAtomic(self.random.pick(&[LOOK, EXCHANGE, BEHIND]));
        }
        let most = self.random.pick(&[4, 24, 60, 150]);
        Stop::After(1 + u32::try_from(self.random.below(most)).expect("small"))
    }

    /// Between two accesses of user space.
    fn interleave(&mut self, weight: u64) {
        if self.has_work() && self.random.chance(self.interleaving.accesses * weight) {
            let cpu = self.random.index(CPUS);
            if self.held_until[cpu] > self.now && !self.random.chance(20) {
                return;
            }
            let stop = match self.random.below(4) {
                0 => Stop::After(1),
                1 | 2 => self.somewhere(),
                _ => Stop::Never,
            };
            self.advance(cpu, stop);
        }
    }

    /// Runs one CPU.
    fn advance(&mut self, cpu: usize, stop: Stop) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        let before = engine.load(Word::Tail);
        if !self.busy[cpu] {
            self.acked[cpu] = self.waiting[cpu].front().and_then(|frame| acked(frame));
        }
        let slot = |engine: &Engine| {
            let (_, op) = self.acked[cpu]?;
            let index = usize::try_from(op % u64::from(SLOTS)).expect("few slots");
            Some((op, engine.load(Word::Slot(index))))
        };
        let slot_before = slot(engine);
        let verdict = if self.busy[cpu] {
            engine.go_on(cpu, stop)
        } else if let Some(frame) = self.waiting[cpu].pop_front() {
            self.asked[cpu] = view_and_op(&frame);
            engine.start(cpu, frame, stop)
        } else {
            return;
        };
        self.busy[cpu] = verdict.is_none();
        self.woken |= engine.take_woken();
        let slot_after = slot(engine);
        if let (Some((view, _)), Some((op, word))) = (self.acked[cpu], slot_after)
            && slot_before != slot_after
        {
            let of = (word >> 16) & 0xffff_ffff;
            if of != op & 0xffff_ffff {
                let what = format!("an ack of op {op} marks the slot of op {of}");
                self.events.push(Event::Answered { what });
            }
            let generation = u16::try_from(word >> 48).expect("16 bits");
            self.events.push(Event::Marked { generation, view });
        }
        let after = engine.load(Word::Tail);
        self.note_accepted(before, after);
        if let Some(verdict) = verdict {
            // A frame whose IP header is damaged no stack reads; a program may, since its message has a check of its own.
            if let Verdict::Send(answer) = &verdict
                && let Some(asked) = self.asked[cpu]
                && view_and_op(answer) != Some(asked)
            {
                let told = view_and_op(answer);
                let what =
                    format!("a program answers {told:?} (view, op) to a message of {asked:?}");
                self.events.push(Event::Answered { what });
            }
            self.take_verdict(verdict);
        }
    }

    fn note_accepted(&mut self, before: u64, after: u64) {
        use electrode_fastpath::abi::{OP_BITS, OP_MASK};
        if before != after {
            self.events.push(Event::Accepted {
                generation: u16::try_from(after >> OP_BITS).expect("16 bits"),
                from: before & OP_MASK,
                to: after & OP_MASK,
            });
        }
    }

    fn take_verdict(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Pass(frame) => self.pass(&frame),
            Verdict::Send(frame) => self.sent.push(frame),
            Verdict::Drop => {}
            Verdict::Fault(what) => self.events.push(Event::Fault { what }),
        }
    }

    /// R8: what is damaged, foreign or a fragment changes nothing but counters, and is passed intact or dropped.
    fn run_refused(&mut self, cpu: usize, frame: &[u8]) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        let before = engine.image();
        let verdict = engine.start(cpu, frame.to_vec(), Stop::Never);
        let taint = |what: &str| Event::Tainted {
            what: what.to_owned(),
        };
        if engine.image() != before {
            self.events
                .push(taint("a frame that is to be refused changed a map"));
        }
        match verdict {
            Some(Verdict::Pass(after)) => {
                if after != frame {
                    self.events
                        .push(taint("a frame that was passed up was changed"));
                }
                self.pass(&after);
            }
            Some(Verdict::Send(_)) => self
                .events
                .push(taint("a frame that is to be refused was answered")),
            Some(Verdict::Drop) => {}
            Some(Verdict::Fault(what)) => self.events.push(Event::Fault { what }),
            None => unreachable!("it was to run to its end"),
        }
    }

    /// The stack takes a frame: what is whole and for this socket is received.
    fn pass(&mut self, frame: &[u8]) {
        if let Ok(datagram) = parse(frame)
            && datagram.destination == self.own
        {
            self.deliver(datagram.payload.to_vec(), datagram.source);
        }
    }

    fn deliver(&mut self, payload: Vec<u8>, source: SocketAddr) {
        let lost = self.random.chance(self.interleaving.socket_loss);
        if self.socket.len() < SOCKET && !lost {
            self.socket.push_back((payload, source));
        }
    }
}

/// View and op of a frame, if it is a PrepareOk.
fn acked(frame: &[u8]) -> Option<(u64, u64)> {
    let header = peek(parse(frame).ok()?.payload).ok()?;
    (header.kind == Kind::PrepareOk as u8).then(|| (header.view.get(), header.op.get()))
}

/// View and op of the message of ours in a frame.
fn view_and_op(frame: &[u8]) -> Option<(u64, u64)> {
    let header = peek(parse(frame).ok()?.payload).ok()?;
    Some((header.view.get(), header.op.get()))
}

/// The memory as user space's half sees it.
pub(crate) struct CardMemory(pub(crate) Rc<Card>);

impl CardMemory {
    /// `weight`: how much more often than usual programs go on before it; most before the words that decide.
    fn access<R>(&self, weight: u64, access: impl FnOnce(&mut Engine) -> R) -> R {
        let mut state = self.0.0.borrow_mut();
        state.interleave(weight);
        let engine = state.engine.as_mut();
        access(engine.expect("a host exists only where programs do"))
    }
}

impl Memory for CardMemory {
    fn load(&self, word: Word) -> u64 {
        self.access(1, |engine| engine.load(word))
    }

    fn store(&self, word: Word, value: u64) {
        self.access(2, |engine| engine.store(word, value));
    }

    fn fetch_add(&self, word: Word, value: u64) -> u64 {
        if word == Word::Tail {
            self.0.0.borrow_mut().start_late();
        }
        self.access(4, |engine| engine.fetch_add(word, value))
    }

    fn compare_exchange(&self, word: Word, expected: u64, new: u64) -> u64 {
        self.access(4, |engine| engine.compare_exchange(word, expected, new))
    }

    fn write_block(&self, which: usize, block: &Block) {
        // Word by word: a program may copy a block that is half written.
        for at in 0..size_of::<Block>() / 8 {
            self.access(1, |engine| engine.write_block_word(which, at, block));
        }
    }

    fn ring_has_record(&self) -> bool {
        self.access(1, |engine| engine.ring_used() > 0)
    }
}
