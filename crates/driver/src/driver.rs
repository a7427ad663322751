//! One replica's driver: the core, what is waiting around it, and the turn.
//!
//! Inputs come in the order ring, socket, disk, acks, tick, and the ring always before a tick; effects take place in the
//! core's order. What is to be sent is gathered and leaves at once per turn, at the latest before sleeping.

mod effects;
mod intake;
mod model;
mod rest;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use electrode_vr::Nonce;
use electrode_vr::{
    Config, Durability, Effect, Input, OpNumber, Replica, ReplicaId, RestoreError, Start,
    StateMachine, Stored, Time,
};

use crate::{Door, Happened, System};

pub use rest::Rest;

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;
/// How often the primary looks at what its kernel heard of the backups, in nanoseconds.
const HEARD: u64 = 10 * MS;
/// In disk mode an unanswered Prepare is sent again after this at the earliest, since its answer waits for a disk. In
/// nanoseconds.
pub const DISK_RESEND: u64 = 50 * MS;
/// Rounds of one turn (acks that bring Prepares that bring acks) before the socket is looked at again.
const ROUNDS: usize = 32;
/// Datagrams that are received at once.
pub const BATCH: usize = 64;

/// What the kernel does for this replica just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Armed {
    /// Counts acks and copies broadcasts.
    Primary,
    /// Stores and acknowledges.
    Backup,
}

/// What there is to look at when a turn begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The socket has datagrams.
    pub socket: bool,
    /// More of the log is durable, or never will be.
    pub disk: bool,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Prepares taken from the ring.
    pub stored: u64,
    /// Messages that left once for the kernel to copy.
    pub broadcasts: u64,
    /// Messages to all that went plainly though there is a fast path.
    pub broadcasts_plain: u64,
    /// Clients' requests taken.
    pub requests: u64,
    /// Replies sent.
    pub replies: u64,
    /// Turns.
    pub turns: u64,
}

/// How a driver begins.
#[derive(Debug)]
pub struct Setup<S> {
    /// The core's configuration; in disk mode its time-out for resending is raised to what a disk needs.
    pub config: Config,
    /// What the promise on disk says.
    pub start: Start,
    /// The log that was on disk, in disk mode.
    pub stored: Option<Stored>,
    /// The state machine, as new.
    pub machine: S,
    /// Who this is, and whom it lets in.
    pub door: Door,
    /// Never to sleep.
    pub busy_poll: bool,
}

/// One running replica, but for what it runs on.
#[derive(Clone, Debug)]
pub struct Driver<S> {
    core: Replica<S>,
    door: Door,
    busy_poll: bool,
    /// None while fenced.
    armed: Option<Armed>,
    /// How often it was armed: acks read before the latest time say nothing now.
    arms: u64,
    /// When the ring last had a record.
    last_stored: Time,
    now: Time,
    /// The core's effects that haven't taken place yet, oldest first.
    effects: VecDeque<Effect>,
    /// Where the core writes; empty between steps.
    fresh: Vec<Effect>,
    /// Acks read from the quorum slots that the core hasn't been given yet.
    slots: Vec<(OpNumber, u16)>,
    /// Whom the kernel doesn't copy for, while a broadcast is being sent.
    plain: Vec<ReplicaId>,
    /// A lower bound of the commit number: slots at or below it are of no interest.
    commit: OpNumber,
    next_heard: Time,
    /// The ring has more than a turn could take.
    ring_left: bool,
    /// Whether the last sleep was left out because an ack was there already.
    skipped_sleep: bool,
    counts: Counts,
}

impl<S: StateMachine> Driver<S> {
    /// A driver that hasn't had its first turn.
    ///
    /// # Errors
    /// What was on disk is no state of this replica.
    pub fn new(setup: Setup<S>, now: Time, entropy: Nonce) -> Result<Driver<S>, RestoreError> {
        let Setup {
            mut config,
            start,
            stored,
            machine,
            door,
            busy_poll,
        } = setup;
        if config.durability == Durability::Disk {
            config.timing.resend = config.timing.resend.max(DISK_RESEND);
        }
        let core = match (start, stored) {
            (Start::Recover(promise), Some(stored)) => {
                Replica::restore(config, promise, stored, machine, now, entropy)?
            }
            _ => Replica::new(config, start, machine, now, entropy),
        };
        Ok(Driver {
            core,
            door,
            busy_poll,
            armed: None,
            arms: 0,
            last_stored: Time(0),
            now,
            effects: VecDeque::new(),
            fresh: Vec::new(),
            slots: Vec::new(),
            plain: Vec::new(),
            commit: OpNumber(0),
            next_heard: now,
            ring_left: false,
            skipped_sleep: false,
            counts: Counts::default(),
        })
    }

    /// Does what there is to do until nothing is left but waiting.
    ///
    /// # Errors
    /// The replica ends.
    pub fn turn<Y: System<S>>(&mut self, system: &mut Y, ready: Ready) -> Result<(), Y::Error> {
        self.counts.turns += 1;
        let mut readable = ready.socket;
        for round in 0..ROUNDS {
            let received = if readable { system.receive()? } else { 0 };
            readable = received == BATCH;
            // The clock is read after what came: a lease is judged by the time at which a read had arrived for sure.
            self.now = system.now();
            // What the kernel stored before a datagram came up is in the log before the core sees the datagram.
            self.ring_left = self.drain_ring(system)?;
            self.take_datagrams(system, received)?;
            if ready.disk && round == 0 {
                self.take_persisted(system)?;
            }
            let acked = self.give_acks(system)?;
            self.tick_when_due(system)?;
            self.step(system, Input::Flush)?;
            let sent = system.flush() > 0;
            // On a fast network the backups' kernels have answered by the time the Prepare has left.
            let more_acks = self.armed == Some(Armed::Primary) && (sent || acked);
            if !readable && !self.ring_left && !more_acks {
                break;
            }
        }
        Ok(())
    }

    fn tick_when_due<Y: System<S>>(&mut self, system: &mut Y) -> Result<(), Y::Error> {
        let due = |driver: &Driver<S>| {
            let deadline = driver.core.deadline();
            deadline.is_some_and(|deadline| driver.now >= deadline)
        };
        if self.now >= self.next_heard || due(self) {
            self.next_heard = self.now.plus(HEARD);
            self.give_heard(system)?;
        }
        if due(self) {
            // What the kernel took meanwhile are life signs of the primary: they come before the verdict.
            self.drain_ring(system)?;
            if due(self) {
                let entropy = system.entropy();
                self.step(system, Input::Tick { entropy })?;
            }
        }
        Ok(())
    }

    /// Gives the core one input and carries out everything that follows from it.
    fn step<Y: System<S>>(&mut self, system: &mut Y, input: Input) -> Result<(), Y::Error> {
        self.give(system, input);
        while let Some(effect) = self.effects.pop_front() {
            system.before(self, &effect)?;
            self.execute(system, effect)?;
        }
        Ok(())
    }

    /// Gives the core one input; its effects queue up behind those that are waiting.
    fn give<Y: System<S>>(&mut self, system: &mut Y, input: Input) {
        system.saw(self, Happened::Given(&input));
        self.core.step(self.now, input, &mut self.fresh);
        self.effects.extend(self.fresh.drain(..));
        system.saw(self, Happened::Stepped);
    }
}

impl<S> Driver<S> {
    /// The core.
    #[must_use]
    pub fn core(&self) -> &Replica<S> {
        &self.core
    }

    /// Who this is, and whom it lets in.
    #[must_use]
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// What the kernel does just now; None while fenced.
    #[must_use]
    pub fn armed(&self) -> Option<Armed> {
        self.armed
    }

    /// The time of the turn.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// Totals since the start.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}
