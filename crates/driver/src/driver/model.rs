//! Time taken out of a driver's state, for who explores all states of a small group (`crates/sim/src/exhaustive`): between two
//! turns, two drivers that differ only in when things happened are the same there.

use std::hash::{Hash, Hasher};

use electrode_vr::{Nonce, OpNumber, StateMachine, Time};

use super::{Armed, Counts, Driver, HEARD};

impl<S: StateMachine> Driver<S> {
    /// Forgets when things happened, and how often, in the core ([`Replica::forget_time`](electrode_vr::Replica::forget_time)) and
    /// around it. Returns the present time.
    pub fn forget_time(&mut self, entropy: Nonce) -> Time {
        let present = self.core.forget_time(entropy);
        (self.now, self.last_stored) = (present, present);
        self.next_heard = present.plus(HEARD);
        (self.arms, self.counts) = (0, Counts::default());
        self.skipped_sleep = false;
        if self.armed != Some(Armed::Primary) {
            // A primary's first words in its view say how much is committed, and no slot is open before.
            self.commit = OpNumber(0);
        }
        present
    }

    /// As [`Replica::rename_questions`](electrode_vr::Replica::rename_questions).
    pub fn rename_questions(&mut self, recovery: Nonce, transfer: Nonce) {
        self.core.rename_questions(recovery, transfer);
    }

    /// What is committed for sure, as far as quorum slots go: those up to here are free.
    #[must_use]
    pub fn commit(&self) -> OpNumber {
        self.commit
    }
}

/// What there is between two turns when time is forgotten: no effect is waiting then.
impl<S: Hash> Hash for Driver<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.core, self.armed, self.commit).hash(state);
        (&self.slots, self.ring_left).hash(state);
    }
}
