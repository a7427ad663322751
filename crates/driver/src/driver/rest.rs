//! Before anybody sleeps: until when, and whether the kernel's part has made it superfluous meanwhile.

use electrode_vr::{StateMachine, Time};

use super::{Armed, Driver, MS};
use crate::System;

/// A backup whose kernel stores for it executes at the latest this long after, in nanoseconds.
const EXECUTION_LAG: u64 = 5 * MS;
/// A ring that was empty for this long belongs to an idle group: the next record may wake at once. In nanoseconds.
const RING_IDLE: u64 = 100 * MS;

/// What to do when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Take another turn at once, without asking the system.
    Again,
    /// Ask the system what is readable, and go on at once.
    Restless,
    /// Sleep, at most until then.
    Until(Option<Time>),
}

impl<S: StateMachine> Driver<S> {
    /// Prepares to sleep. Unless it is [`Rest::Again`], ask the system, and then tell the driver that it [`woke`](Driver::woke).
    pub fn rest<Y: System<S>>(&mut self, system: &mut Y, now: Time) -> Rest {
        let mut until = self.core.deadline();
        let mut restless = self.busy_poll || self.ring_left;
        if let Some(host) = system.host() {
            let backup = self.armed == Some(Armed::Backup);
            let flowing = now < self.last_stored.plus(RING_IDLE);
            if backup && flowing {
                let lag = now.plus(EXECUTION_LAG);
                until = Some(until.map_or(lag, |until| until.min(lag)));
            }
            if !self.busy_poll && host.before_sleep(backup && !flowing) {
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

    /// The system returned from the sleep that [`Driver::rest`] prepared.
    pub fn woke<Y: System<S>>(&mut self, system: &mut Y) {
        if let Some(host) = system.host().filter(|_| !self.busy_poll) {
            host.after_sleep();
        }
    }
}
