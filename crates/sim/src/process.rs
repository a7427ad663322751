//! One replica's process: the driver that ships, on a machine that is simulated.
//!
//! The order of everything here is `electrode-driver`'s. What it runs on is [`Simulated`]: a card in place of network and kernel, a disk
//! that forgets, a clock that the world sets, and checks that look at every step.

mod journal;
mod simulated;

use std::net::SocketAddr;
use std::rc::Rc;

use electrode_driver::{Armed, Door, Driver, Ready, Rest, Setup};
use electrode_fastpath::abi::PEERS;
use electrode_fastpath::host::{Host as FastPath, Identity};
use electrode_vr::{
    Config, Durability, GroupId, Limits, Nonce, Promise, Replica, ReplicaId, Start, Stored, Time,
};
use electrode_wire::Key;

use crate::card::{Card, CardMemory};
use crate::checks::Checks;
use crate::disk::Disk;
use crate::frame::{Host, Layout};
use crate::machine::Ledger;
use crate::plan::Plan;
use crate::random::Random;
use crate::trace::Trace;

pub(crate) use journal::Journal;
use simulated::{Outbox, Simulated};

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

/// What a process has of its machine.
pub(crate) struct Place {
    index: usize,
    layout: Layout,
    pub(crate) card: Rc<Card>,
    host: Option<FastPath<CardMemory>>,
    /// The log on disk, in disk mode.
    pub(crate) journal: Option<Journal>,
    /// Whether broadcasts are copied by the card.
    broadcasts: bool,
    addresses: Vec<SocketAddr>,
    /// The batch that was received last.
    received: Vec<(Vec<u8>, SocketAddr)>,
    outbox: Outbox,
    packets: u16,
    limits: Limits,
    ring_bytes: u32,
}

/// One running replica.
pub(crate) struct Process {
    driver: Driver<Ledger>,
    pub(crate) place: Place,
}

/// A replica as those see it who watch, also amid its turns.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    driver: &'a Driver<Ledger>,
    place: &'a Place,
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
        let door = Door::new(id, Key(plan.key), &addresses, start);
        let host = programs.any().then(|| {
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
            host.set_group(door.group().0);
            host
        });
        let config = Config {
            replicas: plan.replicas,
            index: id,
            timing: plan.timing.clone(),
            limits: plan.limits.clone(),
            fast_path: host.is_some(),
            durability: match journal {
                Some(_) => Durability::Disk,
                None => Durability::Memory,
            },
            lease_reads: plan.lease_reads,
        };
        let setup = Setup {
            config,
            start,
            stored,
            machine: Ledger::default(),
            door,
            busy_poll: false,
        };
        let driver = Driver::new(setup, now, entropy);
        Process {
            driver: driver.expect("what this replica wrote it can restore"),
            place: Place {
                index,
                layout: plan.layout,
                card,
                host,
                journal,
                broadcasts: programs.broadcast,
                addresses,
                received: Vec::new(),
                outbox: Outbox::default(),
                packets: 0,
                limits: plan.limits.clone(),
                ring_bytes: plan.ring_bytes,
            },
        }
    }

    pub(crate) fn seen(&self) -> Seen<'_> {
        Seen {
            driver: &self.driver,
            place: &self.place,
        }
    }

    pub(crate) fn core(&self) -> &Replica<Ledger> {
        self.driver.core()
    }

    pub(crate) fn armed(&self) -> Option<Armed> {
        self.driver.armed()
    }

    /// What there is to look at.
    pub(crate) fn ready(&self) -> Ready {
        Ready {
            socket: self.place.card.readable(),
            disk: self.place.journal.as_ref().is_some_and(Journal::rings),
        }
    }

    /// Prepares to sleep.
    pub(crate) fn rest(&mut self, around: &mut Surroundings<'_>) -> Rest {
        let now = around.now;
        let (driver, mut system) = self.on(around);
        driver.rest(&mut system, now)
    }

    /// The system returned from its sleep.
    pub(crate) fn woke(&mut self, around: &mut Surroundings<'_>) {
        let (driver, mut system) = self.on(around);
        driver.woke(&mut system);
    }

    /// Does what there is to do until nothing is left but waiting.
    pub(crate) fn turn(&mut self, around: &mut Surroundings<'_>, ready: Ready) -> Result<(), End> {
        let (driver, mut system) = self.on(around);
        driver.turn(&mut system, ready)
    }

    /// What happened in the card since the last look is judged by what the replica was then.
    pub(crate) fn watch(&mut self, around: &mut Surroundings<'_>) {
        let (driver, mut system) = self.on(around);
        system.watch(driver);
    }

    fn on<'a, 'w>(
        &'a mut self,
        around: &'a mut Surroundings<'w>,
    ) -> (&'a mut Driver<Ledger>, Simulated<'a, 'w>) {
        let place = &mut self.place;
        (&mut self.driver, Simulated { around, place })
    }
}

impl<'a> Seen<'a> {
    pub(crate) fn id(self) -> usize {
        self.place.index
    }

    pub(crate) fn core(self) -> &'a Replica<Ledger> {
        self.driver.core()
    }

    pub(crate) fn card(self) -> &'a Card {
        &self.place.card
    }

    /// Whether it has a fast path.
    pub(crate) fn accelerated(self) -> bool {
        self.place.host.is_some()
    }

    pub(crate) fn armed(self) -> Option<Armed> {
        self.driver.armed()
    }

    pub(crate) fn key(self) -> Key {
        self.driver.door().key()
    }

    pub(crate) fn limits(self) -> &'a Limits {
        &self.place.limits
    }

    pub(crate) fn ring_bytes(self) -> u32 {
        self.place.ring_bytes
    }
}
