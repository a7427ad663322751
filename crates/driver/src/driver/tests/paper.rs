//! A system on paper: what it is asked is written down, and what programs would do is done by the test.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use electrode_apps::Null;
use electrode_fastpath::abi::{Block, OP_BITS, PEERS, SLOTS};
use electrode_fastpath::host::{Host, Identity, Memory, Word};
use electrode_vr::{
    Config, Durability, FastPathEvent, GroupId, Input, Limits, Message, Nonce, Note, OpNumber,
    Prepare, Promise, ReplicaId, Start, Time, Timing, View, Write,
};
use electrode_wire::Key;
use electrode_wire::admission::Refusal;

use crate::{
    BATCH, Door, Driver, Happened, Ready, Received, ReplyTo, Setup, Stopped, System, Waiting,
};

/// The shared words.
#[derive(Default)]
pub(super) struct Words(RefCell<BTreeMap<Word, u64>>);

impl Memory for Words {
    fn load(&self, word: Word) -> u64 {
        self.0.borrow().get(&word).copied().unwrap_or(0)
    }

    fn store(&self, word: Word, value: u64) {
        self.0.borrow_mut().insert(word, value);
    }

    fn fetch_add(&self, word: Word, value: u64) -> u64 {
        let before = self.load(word);
        self.store(word, before + value);
        before
    }

    fn compare_exchange(&self, word: Word, expected: u64, new: u64) -> u64 {
        let before = self.load(word);
        if before == expected {
            self.store(word, new);
        }
        before
    }

    fn write_block(&self, _which: usize, _block: &Block) {}

    fn ring_has_record(&self) -> bool {
        false
    }
}

#[derive(Default)]
pub(super) struct Paper {
    pub(super) clock: Time,
    /// What it was asked, and with what.
    pub(super) lines: Vec<(&'static str, String)>,
    pub(super) inbox: Vec<Received>,
    batch: VecDeque<Received>,
    pub(super) ring: VecDeque<Prepare>,
    /// What is in the ring as soon as the driver waits for it.
    pub(super) late: Option<Prepare>,
    /// How long a pause takes, in nanoseconds.
    pub(super) pause: u64,
    pub(super) carrier: Option<(ReplicaId, Vec<ReplicaId>)>,
    host: Option<Host<Words>>,
    composed: String,
    waiting: usize,
}

/// Replica `index` of three, normal in view 0.
pub(super) fn started(index: u8, fast_path: bool) -> (Driver<Null>, Paper) {
    let index = ReplicaId(index);
    let identity = Identity {
        index,
        replicas: 3,
        key: [0; 16],
        peers: [Default::default(); PEERS],
        store: true,
        answer: true,
        count: true,
    };
    let mut paper = Paper {
        clock: Time(1_000_000_000),
        host: fast_path.then(|| Host::new(Words::default(), identity)),
        ..Paper::default()
    };
    let config = Config {
        replicas: 3,
        index,
        timing: Timing::default(),
        limits: Limits {
            batch_ops: 1,
            ..Limits::default()
        },
        fast_path,
        lease_reads: false,
        durability: Durability::Memory,
    };
    let start = Start::Bootstrap(GroupId(7));
    let addresses = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let door = Door::new(index, Key::UNKEYED, &addresses, start);
    let setup = Setup {
        config,
        start,
        stored: None,
        machine: Null::default(),
        door,
        busy_poll: false,
    };
    let mut driver = Driver::new(setup, paper.clock, Nonce(1)).unwrap();
    driver.turn(&mut paper, Ready::default()).unwrap();
    (driver, paper)
}

/// The same, and what was written down so far is forgotten.
pub(super) fn begin(index: u8, fast_path: bool) -> (Driver<Null>, Paper) {
    let (driver, mut paper) = started(index, fast_path);
    paper.lines.clear();
    (driver, paper)
}

impl Paper {
    /// Takes the lines of one kind; the others are forgotten.
    pub(super) fn lines(&mut self, kind: &str) -> Vec<String> {
        let lines = self.lines.drain(..);
        lines
            .filter(|line| line.0 == kind)
            .map(|line| line.1)
            .collect()
    }

    fn memory(&self) -> &Words {
        self.host.as_ref().expect("it has a fast path").memory()
    }

    /// A program accepts the next Prepare.
    pub(super) fn accept(&mut self, prepare: Prepare) {
        self.memory().fetch_add(Word::Tail, 1);
        self.ring.push_back(prepare);
    }

    /// A program marks acks in the slot of an op.
    pub(super) fn mark(&mut self, op: OpNumber, acks: u16) {
        let slot = Word::Slot(usize::try_from(op.0 % u64::from(SLOTS)).unwrap());
        let word = self.memory().load(slot);
        self.memory().store(slot, word | u64::from(acks));
    }

    /// A program hears a backup, whose ack nobody needs.
    pub(super) fn heard(&mut self, from: usize, op: OpNumber) {
        let host = self.host.as_ref().expect("it has a fast path");
        let word = u64::from(host.generation()) << OP_BITS | op.0;
        self.memory().store(Word::HeardOp(from), word);
        self.memory().fetch_add(Word::HeardAt(from), 1);
    }

    fn line(&mut self, kind: &'static str, text: impl ToString) {
        self.lines.push((kind, text.to_string()));
    }
}

fn name(input: &Input) -> &'static str {
    match input {
        Input::Message { .. } => "message",
        Input::Request { .. } => "request",
        Input::Tick { .. } => "tick",
        Input::Persisted { .. } => "persisted",
        Input::Flush => "flush",
        Input::FastPath(FastPathEvent::Stored(_)) => "stored",
        Input::FastPath(FastPathEvent::Fenced { .. }) => "fenced",
        Input::FastPath(FastPathEvent::Claimed) => "claimed",
        Input::FastPath(FastPathEvent::Lost) => "lost",
        Input::FastPath(FastPathEvent::SlotAcks { .. }) => "acks",
        Input::FastPath(FastPathEvent::Heard { .. }) => "heard",
    }
}

impl System<Null> for Paper {
    type Error = Stopped;
    type Memory = Words;

    fn now(&mut self) -> Time {
        self.clock
    }

    fn entropy(&mut self) -> Nonce {
        Nonce(1)
    }

    fn receive(&mut self) -> Result<usize, Stopped> {
        let count = self.inbox.len().min(BATCH);
        self.batch = self.inbox.drain(..count).collect();
        self.line("receive", count);
        Ok(count)
    }

    fn received(&mut self, _door: &mut Door, _index: usize) -> Result<Received, Refusal> {
        self.batch.pop_front().ok_or(Refusal::NoSource)
    }

    fn compose(&mut self, _door: &Door, flags: u8, message: &Message) {
        let text = format!("{message:?}");
        let name = text.split(['(', ' ']).next().unwrap_or_default();
        self.composed = format!("{name} with flags {flags}");
    }

    fn send_to(&mut self, to: ReplicaId) {
        self.waiting += 1;
        let text = format!("{} to {to}", self.composed);
        self.line("send", text);
    }

    fn reply(&mut self, _door: &Door, to: SocketAddr, reply: ReplyTo<'_>) {
        self.line("reply", format!("{to} {}", reply.request));
    }

    fn flush(&mut self) -> usize {
        self.line("flush", self.waiting);
        std::mem::take(&mut self.waiting)
    }

    fn answer_status(
        &mut self,
        _driver: &Driver<Null>,
        _nonce: Nonce,
        _source: SocketAddr,
    ) -> Result<(), Refusal> {
        Err(Refusal::TooOften)
    }

    fn store(&mut self, promise: Promise) -> Result<(), Stopped> {
        self.line("store", promise.view);
        Ok(())
    }

    fn write(&mut self, _write: Write) -> Result<(), Stopped> {
        unreachable!("it is in memory mode")
    }

    fn barrier(&mut self) -> Result<(), Stopped> {
        self.line("barrier", "");
        Ok(())
    }

    fn persisted(&mut self) -> Result<Option<(View, OpNumber)>, Stopped> {
        Ok(None)
    }

    fn host(&mut self) -> Option<&mut Host<Words>> {
        self.host.as_mut()
    }

    fn take_stored(&mut self, _door: &Door) -> Result<Option<Prepare>, Stopped> {
        Ok(self.ring.pop_front())
    }

    fn carrier(&mut self, _bytes: usize, plain: &mut Vec<ReplicaId>) -> Option<ReplicaId> {
        let (carrier, others) = self.carrier.clone()?;
        plain.extend(others);
        Some(carrier)
    }

    fn on_own_clock(&mut self, at: Time) -> Time {
        at
    }

    fn pause(&mut self, waiting: &Waiting) -> bool {
        self.clock = self.clock.plus(self.pause);
        self.ring.extend(self.late.take());
        self.clock < waiting.until
    }

    fn note(&mut self, _note: Note) {}

    fn saw(&mut self, _driver: &Driver<Null>, what: Happened<'_>) {
        match what {
            Happened::Given(input) => self.line("given", name(input)),
            Happened::Joined => self.line("joined", ""),
            Happened::Armed { view, .. } => self.line("armed", view),
            _ => {}
        }
    }
}
