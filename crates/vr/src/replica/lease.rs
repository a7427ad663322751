//! Reads, and the lease that lets a primary answer them alone (VR Revisited, section 6.3; protocol.md, rule 15).
//!
//! A backup that acknowledges joins no newer view for `Timing::lease` from then. When f of them have acknowledged an op, no
//! newer view can begin before the lease has passed since the op was first sent, since they acknowledged it after
//! that: f backups and this primary are one more than any other quorum can do without. Who acknowledged, user space or
//! kernel, and how often, makes no difference. The primary's state has to have all that earlier views may have decided: the
//! whole log that it began with. Clocks need not agree, only run about equally fast.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Replica;
use crate::effect::Effect;
use crate::ids::{ClientId, RequestNumber, Time};
use crate::message::{Entry, Reply};
use crate::mutations::{Mutation, active};
use crate::state_machine::StateMachine;

/// The part of a lease (one in so many) by which clocks may drift apart while it lasts.
const DRIFT: u64 = 8;

impl<S: StateMachine> Replica<S> {
    /// A read goes through the log, and by that renews the lease, unless the lease holds. Nothing of it is remembered: who
    /// asks again is answered again.
    pub(super) fn on_read(
        &mut self,
        client: ClientId,
        request: RequestNumber,
        op: Arc<[u8]>,
        out: &mut Vec<Effect>,
    ) {
        if self.primary.stepped_down {
            return self.reply(client, request, Reply::Unavailable, out);
        }
        let Some(result) = self.machine.read(&op) else {
            return self.reply(client, request, Reply::NotRead, out);
        };
        if self.config.lease_reads && self.lease_holds() {
            return self.reply(client, request, Reply::Done(result.into()), out);
        }
        if !self.primary.has_room(&self.config.limits, &op) {
            return self.reply_busy(client, request, out);
        }
        self.primary.enqueue(Entry {
            client,
            request,
            op,
        });
    }

    fn lease_holds(&self) -> bool {
        // What earlier views may have decided has to be executed here first.
        self.commit >= self.primary.inherited
            && (self.faults() == 0 || self.now < self.primary.lease_until)
    }

    /// f backups acknowledged, in this view, an op that was first sent at this time.
    pub(super) fn extend_lease(&mut self, first_sent: Time) {
        let lease = self.config.timing.lease;
        let begun = if active(Mutation::LeaseFromAckTime) {
            self.now
        } else {
            first_sent
        };
        let until = begun.plus(lease - lease / DRIFT);
        self.primary.lease_until = self.primary.lease_until.max(until);
    }

    /// This replica acknowledges: a lease may rely on it.
    pub(super) fn bind(&mut self) {
        self.bound_until = self.now.plus(self.config.timing.lease);
    }

    /// Whether a lease may rely on this replica to join no newer view.
    pub(super) fn is_bound(&self) -> bool {
        self.now < self.bound_until && !active(Mutation::LeaseNotWaitedFor)
    }

    /// Whatever called for a newer view comes again.
    pub(super) fn ignore_while_bound(&self) {}
}
