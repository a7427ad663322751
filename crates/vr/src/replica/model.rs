//! Time taken out of a replica's state, for who explores all states of a small group (`crates/sim/src/exhaustive`): two
//! replicas that differ only in when things happened are the same there, and time-outs are events that may happen.

use super::Replica;
use super::replica_set::ReplicaSet;
use crate::ids::{Nonce, OpNumber, Time};
use crate::mutations::{Mutation, active};
use crate::state_machine::StateMachine;
use crate::status::Status;

/// The only time that there is, and a while before it: what happened at all happened then.
const PRESENT: Time = Time(1 << 40);

impl<S: StateMachine> Replica<S> {
    /// Puts the replica into the state in which everything that was heard has been heard just now, and in which every timer has
    /// just been started: retries, resends and heartbeats for `Timing::retry`, doubts and patience for
    /// `Timing::view_change`. Forgotten with it is what only decides when, or whether, something is said again: back-off,
    /// counted retries, who has shown that it joined the view, and that somebody was recovering a while ago. `entropy`
    /// replaces what is left of the random sequence. Returns that present time.
    pub fn forget_time(&mut self, entropy: Nonce) -> Time {
        let soon = PRESENT.plus(self.config.timing.retry);
        let patience = PRESENT.plus(self.config.timing.view_change);
        self.now = PRESENT;
        self.random = entropy.0;
        for peer in &mut self.peers {
            (peer.heard, peer.followed) = (PRESENT, PRESENT);
            (peer.recovering, peer.joined) = (None, true);
            // It decides only how much is shown at once, and for how long it is kept.
            peer.shown = None;
        }
        self.pinned = None;
        self.obstacle = None;
        self.primary.heartbeat_at = soon;
        self.primary.start_view_at = soon;
        self.primary.since = PRESENT;
        self.primary.lease_until = Time(0);
        for flight in &mut self.primary.flights {
            (flight.first_sent, flight.sent) = (PRESENT, PRESENT);
        }
        let change = &mut self.view_change;
        change.heard_primary = change.heard_primary.map(|_| PRESENT);
        (change.suspect_at, change.give_up_at, change.again_at) = (patience, patience, soon);
        (change.asked, change.failed) = (0, 0);
        if let Some(transfer) = &mut self.transfer {
            (transfer.again_at, transfer.attempts) = (soon, 0);
        }
        self.recovery.again_at = soon;
        (self.recovery.rounds, self.recovery.warned) = (self.recovery.rounds.min(1), false);
        self.first_start.again_at = soon;
        self.first_start.rumour = self.first_start.rumour.map(|(group, _)| (group, PRESENT));
        self.bound_until = Time(0);
        self.forget_unread();
        PRESENT
    }

    /// Forgets what nothing reads before it is written anew: votes that have had their effect, acks that nobody counts, and what
    /// leases alone want to know.
    fn forget_unread(&mut self) {
        let counts = self.status == Status::Normal && self.is_primary();
        if !counts && !active(Mutation::AcksSurviveViews) {
            for peer in &mut self.peers {
                peer.acked = OpNumber(0);
            }
        }
        if self.view_change.announced {
            self.view_change.starters = ReplicaSet::default();
        }
        if self.view_change.chosen {
            self.view_change.candidates.fill(None);
        }
        if !self.config.lease_reads {
            self.primary.inherited = OpNumber(0);
        }
    }

    /// Gives other nonces to the questions that are open, as [`Replica::open_nonces`] tells them; of a transfer only if there is
    /// one.
    pub fn rename_questions(&mut self, recovery: Nonce, transfer: Nonce) {
        self.recovery.nonce = recovery;
        if let Some(open) = &mut self.transfer {
            open.nonce = transfer;
        }
    }

    /// The nonces of the questions that are open: recovery's, state transfer's. An answer to any other is ignored.
    #[must_use]
    pub fn open_nonces(&self) -> (Nonce, Option<Nonce>) {
        let transfer = self.transfer.as_ref().map(|transfer| transfer.nonce);
        (self.recovery.nonce, transfer)
    }
}
