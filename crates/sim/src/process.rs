//! One replica's process: the core and the driver around it.
//!
//! The order of everything here is the shipped driver's (`crates/replica/src/driver.rs`, `driver/effects.rs`,
//! `driver/intake.rs`), function by function under the same names; what differs is only where bytes come from and go to.
//! Change both together.

mod effects;
mod intake;
mod journal;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use electrode_fastpath::abi::PEERS;
use electrode_fastpath::host::{Host as FastPath, Identity};
use electrode_vr::{
    ClientId, Config, Durability, Effect, GroupId, Input, Limits, Nonce, OpNumber, Promise,
    Replica, ReplicaId, Start, Stored, Time,
};
use electrode_wire::{Envelope, Key};

use crate::card::{Card, CardMemory};
use crate::checks::Checks;
use crate::disk::Disk;
use crate::frame::{Host, Layout};
use crate::machine::Ledger;
use crate::plan::{MS, Plan};
use crate::random::Random;
use crate::trace::Trace;

pub(crate) use journal::Journal;

/// As in the driver, in nanoseconds.
const EXECUTION_LAG: u64 = 5 * MS;
const RING_IDLE: u64 = 100 * MS;
const HEARD: u64 = 10 * MS;
/// As in the driver: rounds of a turn, datagrams of a batch.
const ROUNDS: usize = 32;
const BATCH: usize = 64;
/// As in the driver: in disk mode an unanswered Prepare is sent again after this at the earliest, in nanoseconds.
pub(crate) const DISK_RESEND: u64 = 50 * MS;

/// What the kernel does for this replica just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Armed {
    Primary,
    Backup,
}

/// Why a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was killed, at a moment of chance.
    Killed,
    /// The driver would stop with this error.
    Stopped(String),
    /// The log can't be written any more: the driver stops with this error, and is right to.
    DiskFailed(String),
}

/// What a process does when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Looks again at once, without asking the system.
    Again,
    /// Asks the system and goes on at once.
    Restless,
    /// Sleeps, at most until then (on the machine's clock).
    Until(Option<Time>),
}

/// The disk says no: nothing more can be acknowledged here.
fn disk_failed(error: electrode_journal::DiskError) -> End {
    End::DiskFailed(error.to_string())
}

/// What a process can reach: the machine that it runs on, and those who watch.
pub(crate) struct Surroundings<'a> {
    /// The simulated time.
    pub(crate) at: u64,
    /// The machine's clock.
    pub(crate) now: Time,
    pub(crate) random: &'a mut Random,
    pub(crate) disk: &'a mut Disk,
    pub(crate) checks: &'a mut Checks,
    pub(crate) trace: &'a mut Trace,
    /// What left the card.
    pub(crate) sent: &'a mut Vec<Outgoing>,
    /// Whether it may be killed amid its effects.
    pub(crate) may_die: bool,
    pub(crate) sudden_death: u64,
    pub(crate) promise_death: u64,
}

/// What leaves a machine.
#[derive(Clone, Debug)]
pub(crate) enum Outgoing {
    /// One frame, whoever built it.
    Frame(Vec<u8>),
    /// A datagram in pieces.
    Fragments {
        to: SocketAddr,
        frames: Vec<Vec<u8>>,
        payload: Vec<u8>,
    },
}

/// One running replica.
pub(crate) struct Process {
    pub(crate) replica: Replica<Ledger>,
    index: ReplicaId,
    layout: Layout,
    addresses: Vec<SocketAddr>,
    key: Key,
    group: GroupId,
    pub(crate) card: Rc<Card>,
    pub(crate) fast_path: Option<FastPath<CardMemory>>,
    /// The log on disk, in disk mode.
    pub(crate) journal: Option<Journal>,
    broadcasts: bool,
    pub(crate) armed: Option<Armed>,
    arms: u64,
    last_stored: Time,
    clients: BTreeMap<ClientId, SocketAddr>,
    effects: VecDeque<Effect>,
    fresh: Vec<Effect>,
    slots: Vec<(OpNumber, u16)>,
    commit: OpNumber,
    next_heard: Time,
    ring_left: bool,
    skipped_sleep: bool,
    /// Datagrams that leave at the next flush.
    outbox: Vec<(SocketAddr, Vec<u8>)>,
    packets: u16,
    limits: Limits,
    ring_bytes: u32,
}

impl Process {
    /// How it comes up: what the promise on disk says.
    pub(crate) fn start(plan: &Plan, promise: Option<Promise>) -> Start {
        match promise.filter(|promise| *promise != Promise::default()) {
            Some(promise) => Start::Recover(promise),
            None if plan.explicit_bootstrap => Start::Bootstrap(GroupId(7)),
            None => Start::New,
        }
    }

    /// Starts, with its log and what was in it in disk mode.
    pub(crate) fn new(
        plan: &Plan,
        index: usize,
        start: Start,
        (journal, stored): (Option<Journal>, Option<Stored>),
        card: Rc<Card>,
        now: Time,
        entropy: Nonce,
    ) -> Process {
        let programs = plan.programs[index];
        let addresses: Vec<SocketAddr> = (0..plan.replicas)
            .map(|of| plan.layout.address(Host::Replica(of)))
            .collect();
        let id = ReplicaId(u8::try_from(index).expect("few replicas"));
        let group = match start {
            Start::Recover(promise) => promise.group,
            Start::New | Start::Bootstrap(_) => GroupId(0),
        };
        let fast_path = programs.any().then(|| {
            let mut peers = [Default::default(); PEERS];
            for (peer, address) in peers.iter_mut().zip(&addresses) {
                *peer = (*address).into();
            }
            let identity = Identity {
                index: id,
                replicas: plan.replicas,
                key: plan.key,
                peers,
                store: programs.store,
                count: programs.count,
                // What is in the ring isn't on disk.
                answer: journal.is_none(),
            };
            let mut host = FastPath::new(CardMemory(Rc::clone(&card)), identity);
            host.set_group(group.0);
            host
        });
        let mut timing = plan.timing.clone();
        let durability = match journal {
            Some(_) => Durability::Disk,
            None => Durability::Memory,
        };
        if journal.is_some() {
            timing.resend = timing.resend.max(DISK_RESEND);
        }
        let config = Config {
            replicas: plan.replicas,
            index: id,
            timing,
            limits: plan.limits.clone(),
            fast_path: fast_path.is_some(),
            durability,
            lease_reads: plan.lease_reads,
        };
        let machine = Ledger::default();
        let replica = match (start, stored) {
            (Start::Recover(promise), Some(stored)) => {
                Replica::restore(config, promise, stored, machine, now, entropy)
                    .expect("what this replica wrote it can restore")
            }
            _ => Replica::new(config, start, machine, now, entropy),
        };
        Process {
            replica,
            index: id,
            layout: plan.layout,
            addresses,
            key: Key(plan.key),
            group,
            card,
            fast_path,
            journal,
            broadcasts: programs.broadcast,
            armed: None,
            arms: 0,
            last_stored: Time(0),
            clients: BTreeMap::new(),
            effects: VecDeque::new(),
            fresh: Vec::new(),
            slots: Vec::new(),
            commit: OpNumber(0),
            next_heard: now,
            ring_left: false,
            skipped_sleep: false,
            outbox: Vec::new(),
            packets: 0,
            limits: plan.limits.clone(),
            ring_bytes: plan.ring_bytes,
        }
    }

    pub(crate) fn id(&self) -> usize {
        self.index.index()
    }

    /// Prepares to sleep.
    pub(crate) fn rest(&mut self, now: Time) -> Rest {
        let mut until = self.replica.deadline();
        let mut restless = self.ring_left;
        if let Some(host) = &mut self.fast_path {
            let flowing = now < self.last_stored.plus(RING_IDLE);
            if self.armed == Some(Armed::Backup) && flowing {
                let lag = now.plus(EXECUTION_LAG);
                until = Some(until.map_or(lag, |until| until.min(lag)));
            }
            if host.before_sleep(self.armed == Some(Armed::Backup) && !flowing) {
                restless = true;
                // The first time there is nothing to ask the system; the second time the socket gets its turn.
                if !self.skipped_sleep {
                    self.skipped_sleep = true;
                    host.after_sleep();
                    return Rest::Again;
                }
            }
        }
        self.skipped_sleep = false;
        if restless {
            Rest::Restless
        } else {
            Rest::Until(until)
        }
    }

    /// The system returned from its sleep.
    pub(crate) fn woke(&mut self) {
        if let Some(host) = &mut self.fast_path {
            host.after_sleep();
        }
    }

    /// Does what there is to do until nothing is left but waiting.
    pub(crate) fn turn(
        &mut self,
        around: &mut Surroundings<'_>,
        readable: bool,
    ) -> Result<(), End> {
        let mut readable = readable;
        for round in 0..ROUNDS {
            let received = if readable {
                self.card.receive(BATCH)
            } else {
                Vec::new()
            };
            readable = received.len() == BATCH;
            // What the kernel stored before a datagram came up is in the log before the core sees the datagram.
            self.ring_left = self.drain_ring(around)?;
            self.take_datagrams(around, &received)?;
            if round == 0 {
                self.take_persisted(around)?;
            }
            let acked = self.give_acks(around)?;
            self.tick_when_due(around)?;
            self.step(around, Input::Flush)?;
            let sent = self.flush(around) > 0;
            let more_acks = self.armed == Some(Armed::Primary) && (sent || acked);
            if !readable && !self.ring_left && !more_acks {
                break;
            }
        }
        Ok(())
    }

    /// Tells the core what of the log is on disk now; or why nothing ever will be, which ends this replica.
    fn take_persisted(&mut self, around: &mut Surroundings<'_>) -> Result<(), End> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        if let Some((view, op)) = journal.persisted().map_err(disk_failed)? {
            self.step(around, Input::Persisted { view, op })?;
        }
        Ok(())
    }

    fn tick_when_due(&mut self, around: &mut Surroundings<'_>) -> Result<(), End> {
        let due = |process: &Process, now: Time| {
            process
                .replica
                .deadline()
                .is_some_and(|deadline| now >= deadline)
        };
        if around.now >= self.next_heard || due(self, around.now) {
            self.next_heard = around.now.plus(HEARD);
            self.give_heard(around)?;
        }
        if due(self, around.now) {
            // What the kernel took meanwhile are life signs of the primary: they come before the verdict.
            self.drain_ring(around)?;
            if due(self, around.now) {
                let entropy = Nonce(around.random.next());
                self.step(around, Input::Tick { entropy })?;
            }
        }
        Ok(())
    }

    /// Gives the core one input and carries out everything that follows from it.
    fn step(&mut self, around: &mut Surroundings<'_>, input: Input) -> Result<(), End> {
        self.give(around, input);
        while let Some(effect) = self.effects.pop_front() {
            if around.may_die && around.random.rarely(around.sudden_death) {
                return Err(End::Killed);
            }
            self.execute(around, effect)?;
        }
        Ok(())
    }

    /// Gives the core one input; its effects queue up behind those that are waiting.
    fn give(&mut self, around: &mut Surroundings<'_>, input: Input) {
        self.watch(around);
        around.trace.input(around.at, self.index.index(), &input);
        self.replica.step(around.now, input, &mut self.fresh);
        self.effects.extend(self.fresh.drain(..));
        around.checks.stepped(self, around.disk);
    }

    /// What happened in the card since the last look is judged by what the replica was then.
    pub(crate) fn watch(&self, around: &mut Surroundings<'_>) {
        for event in self.card.take_events() {
            around.trace.card(around.at, self.index.index(), &event);
            around.checks.card_event(self, around.disk.promise, event);
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn ring_bytes(&self) -> u32 {
        self.ring_bytes
    }

    fn envelope(&self, flags: u8) -> Envelope {
        Envelope {
            group: self.group,
            epoch: 0,
            sender: self.index.0,
            flags,
        }
    }

    /// Sends what is gathered; how much it was.
    fn flush(&mut self, around: &mut Surroundings<'_>) -> usize {
        let datagrams = std::mem::take(&mut self.outbox);
        let count = datagrams.len();
        for (to, payload) in datagrams {
            self.packets = self.packets.wrapping_add(1);
            let host = Host::Replica(self.index.index());
            let mut frames = self.layout.frames(host, to, &payload, self.packets);
            if frames.len() == 1 {
                let frame = frames.remove(0);
                around
                    .sent
                    .extend(self.card.egress(frame).into_iter().map(Outgoing::Frame));
            } else {
                around.sent.push(Outgoing::Fragments {
                    to,
                    frames,
                    payload,
                });
            }
        }
        count
    }
}
