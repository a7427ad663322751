//! Where inputs come from: the ring, the socket, the disk, the quorum slots.

use std::mem;

use electrode_vr::{FastPathEvent, Input, Prepare, StateMachine};
use electrode_wire::admission::Refusal;

use super::{Armed, Driver};
use crate::{Happened, Received, System};

/// Records taken from the ring before the socket gets its turn.
const RECORDS: usize = 1024;

impl<S: StateMachine> Driver<S> {
    /// Gives the core the Prepares that the kernel stored; true when there may be more than one round's worth.
    pub(super) fn drain_ring<Y: System<S>>(&mut self, system: &mut Y) -> Result<bool, Y::Error> {
        for _ in 0..RECORDS {
            let Some(prepare) = self.take_stored(system)? else {
                return Ok(false);
            };
            self.step(system, Input::FastPath(FastPathEvent::Stored(prepare)))?;
        }
        Ok(system.host().is_some())
    }

    fn take_stored<Y: System<S>>(&mut self, system: &mut Y) -> Result<Option<Prepare>, Y::Error> {
        let Some(prepare) = system.take_stored(&self.door)? else {
            return Ok(None);
        };
        self.counts.stored += 1;
        // Read after the record: from now, not from before it was acknowledged, this replica is bound (rule 15).
        self.now = system.now();
        self.last_stored = self.now;
        Ok(Some(prepare))
    }

    /// Gives the core the ring's records, and nothing else; whether there were any. Their effects wait for their turn.
    pub(super) fn give_stored<Y: System<S>>(&mut self, system: &mut Y) -> Result<bool, Y::Error> {
        let mut any = false;
        while let Some(prepare) = self.take_stored(system)? {
            any = true;
            self.give(system, Input::FastPath(FastPathEvent::Stored(prepare)));
        }
        Ok(any)
    }

    /// Gives the core the batch that was received last.
    pub(super) fn take_datagrams<Y: System<S>>(
        &mut self,
        system: &mut Y,
        received: usize,
    ) -> Result<(), Y::Error> {
        for index in 0..received {
            if let Err(refusal) = self.take_datagram(system, index)? {
                system.refused(index, refusal);
            }
        }
        Ok(())
    }

    fn take_datagram<Y: System<S>>(
        &mut self,
        system: &mut Y,
        index: usize,
    ) -> Result<Result<(), Refusal>, Y::Error> {
        match system.received(&mut self.door, index) {
            Ok(received) if !system.reaches(self, &received) => {}
            Ok(Received::Message { from, message }) => {
                self.step(system, Input::Message { from, message })?;
            }
            Ok(Received::Request {
                client,
                request,
                op,
            }) => {
                self.counts.requests += 1;
                self.step(
                    system,
                    Input::Request {
                        client,
                        request,
                        op,
                    },
                )?;
            }
            Ok(Received::StatusRequest { nonce, source }) => {
                return Ok(system.answer_status(self, nonce, source));
            }
            Err(refusal) => return Ok(Err(refusal)),
        }
        Ok(Ok(()))
    }

    /// Tells the core what of the log is on disk now; or ends this replica, if nothing ever will be.
    pub(super) fn take_persisted<Y: System<S>>(&mut self, system: &mut Y) -> Result<(), Y::Error> {
        if let Some((view, op)) = system.persisted()? {
            self.step(system, Input::Persisted { view, op })?;
        }
        Ok(())
    }

    /// Gives the core the new acks in the quorum slots; true when there were any.
    pub(super) fn give_acks<Y: System<S>>(&mut self, system: &mut Y) -> Result<bool, Y::Error> {
        if self.armed != Some(Armed::Primary) {
            return Ok(false);
        }
        self.read_slots(system);
        if self.slots.is_empty() {
            return Ok(false);
        }
        let arms = self.arms;
        let mut slots = mem::take(&mut self.slots);
        for (op, acks) in slots.drain(..) {
            // A step may end in another view, and then the rest is history.
            if self.arms == arms && self.armed.is_some() {
                system.saw(self, Happened::Counted { op, acks });
                self.step(
                    system,
                    Input::FastPath(FastPathEvent::SlotAcks { op, acks }),
                )?;
            }
        }
        if self.slots.is_empty() {
            self.slots = slots;
        }
        Ok(true)
    }

    /// Collects new acks, and lets go of slots whose ops are committed.
    pub(super) fn read_slots<Y: System<S>>(&mut self, system: &mut Y) {
        if let Some(host) = system.host() {
            host.acks(self.commit, &mut self.slots);
        }
    }

    /// Tells the core which backups the kernel heard (R9): life signs and progress of those whose acks it dropped.
    pub(super) fn give_heard<Y: System<S>>(&mut self, system: &mut Y) -> Result<(), Y::Error> {
        let Some(host) = system.host() else {
            return Ok(());
        };
        if self.armed != Some(Armed::Primary) {
            return Ok(());
        }
        let mut heard = Vec::new();
        host.heard(&mut heard);
        for (from, at, op) in heard {
            let at = system.on_own_clock(at);
            self.step(
                system,
                Input::FastPath(FastPathEvent::Heard { from, at, op }),
            )?;
        }
        Ok(())
    }
}
