//! Recovery after a crash (VR Revisited, section 4.3, made sound by a promise on disk: protocol.md, rules 4 to 6).
//!
//! As printed, recovery without stable storage can forget a view change that the replica took part in (Michael et al.,
//! "Recovering Shared Objects Without Stable Storage", DISC 2017). Here the highest promised view survives, and a
//! replica never ends up in a lower one.

use alloc::string::String;
use alloc::vec::Vec;

use super::Replica;
use super::state_transfer::Purpose;
use crate::effect::{Effect, Note};
use crate::ids::{Digest, Nonce, OpNumber, ReplicaId, Time, View};
use crate::message::Message;
use crate::mutations::{Mutation, active};
use crate::state_machine::StateMachine;
use crate::status::Status;

/// Rounds in vain after which a person is told.
const PATIENT_ROUNDS: u32 = 10;

/// Retries for which a Recovery message says that its sender is recovering.
const LATELY: u64 = 8;

/// One answer.
#[derive(Clone, Copy, Debug, Hash)]
struct Response {
    view: View,
    primary: Option<(OpNumber, OpNumber, Digest)>,
}

/// The answers to a recovering replica's question.
#[derive(Clone, Debug, Hash)]
pub(super) struct Recovery {
    pub(super) nonce: Nonce,
    responses: Vec<Option<Response>>,
    pub(super) rounds: u32,
    pub(super) warned: bool,
    pub(super) again_at: Time,
}

impl Recovery {
    pub(super) fn new(replicas: usize) -> Recovery {
        Recovery {
            nonce: Nonce(0),
            responses: alloc::vec![None; replicas],
            rounds: 0,
            warned: false,
            again_at: Time(0),
        }
    }
}

impl<S: StateMachine> Replica<S> {
    /// Asks anew, by a new nonce; the question leaves with the next tick, due at once.
    pub(super) fn begin_recovery(&mut self) {
        self.abandon_transfer();
        self.status = Status::Recovering;
        self.recovery.nonce = self.fresh_nonce();
        self.recovery.responses.fill(None);
        self.recovery.again_at = self.now;
    }

    pub(super) fn tick_recovering(&mut self, out: &mut Vec<Effect>) {
        if self.disk.resuming {
            return self.resume(out);
        }
        if self.now < self.recovery.again_at {
            return;
        }
        let retry = self.config.timing.retry;
        self.recovery.again_at = self.now.plus(self.jittered(retry));
        if self.transfer.is_some() {
            return;
        }
        if self.recovery.rounds == 0 {
            self.note_entered("recovering", out);
        }
        self.recovery.rounds = self.recovery.rounds.saturating_add(1);
        let (nonce, promised) = (self.recovery.nonce, self.promised);
        if self.config.replicas > 1 {
            out.push(Effect::Broadcast(Message::Recovery { nonce, promised }));
        }
        if self.too_many_recover() && !self.recovery.warned {
            self.recovery.warned = true;
            out.push(Effect::Note(Note::Warning(self.recovery_reason())));
        }
    }

    /// Whether `replica` said lately that it was recovering.
    pub(super) fn recovering_lately(&self, replica: ReplicaId) -> bool {
        let lately = self.config.timing.retry.saturating_mul(LATELY);
        let said = self.peers[replica.index()].recovering;
        said.is_some_and(|said| said.plus(lately) > self.now)
    }

    /// A replica that lost its log asks (section 4.3, step 2). Only a normal one answers.
    pub(super) fn on_recovery(
        &mut self,
        from: ReplicaId,
        nonce: Nonce,
        promised: View,
        out: &mut Vec<Effect>,
    ) {
        if self.status != Status::Normal {
            return self.ignore_recovery();
        }
        if self.view < promised && !active(Mutation::RecoveryBelowPromise) {
            // The asker can't come back below its promise, so the others have to come up to it (rule 4).
            let view = (0..self.config.replicas as u64)
                .map(|ahead| View(promised.0 + ahead))
                .find(|view| !self.leads(from, *view) && !self.recovering_primary(*view));
            let view = view.unwrap_or(promised.next());
            return self.change_view(view, None, out);
        }
        let primary = self
            .is_primary()
            .then(|| (self.log.op(), self.commit, self.log.digest()));
        let message = Message::RecoveryResponse {
            nonce,
            view: self.view,
            primary,
        };
        out.push(Effect::Send { to: from, message });
    }

    fn recovering_primary(&self, view: View) -> bool {
        let primary = view.primary(self.config.replicas);
        primary != self.config.index && self.recovering_lately(primary)
    }

    /// A recovering replica hears nothing but the answers to its own questions (rule 5).
    pub(super) fn on_message_recovering(
        &mut self,
        from: ReplicaId,
        message: Message,
        out: &mut Vec<Effect>,
    ) {
        match message {
            Message::RecoveryResponse {
                nonce,
                view,
                primary,
            } => {
                self.on_recovery_response(from, nonce, Response { view, primary }, out);
            }
            message @ Message::NewState { .. } => self.on_new_state(from, message, out),
            message @ Message::CheckpointChunk { .. } => {
                self.on_checkpoint_chunk(from, message, out);
            }
            _ => {}
        }
    }

    fn on_recovery_response(
        &mut self,
        from: ReplicaId,
        nonce: Nonce,
        response: Response,
        out: &mut Vec<Effect>,
    ) {
        let foreign = nonce != self.recovery.nonce && !active(Mutation::RecoveryWithoutNonce);
        if foreign || self.transfer.is_some() {
            return self.ignore_recovery_response();
        }
        // Only the newest counts: the same question is asked repeatedly, and the answers may overtake each other.
        let known = &mut self.recovery.responses[from.index()];
        if known.is_none_or(|known| known.view <= response.view) {
            *known = Some(response);
        }
        self.fetch_from_primary(out);
    }

    /// f + 1 answers, one of them from the primary of the highest view among them, which is no lower than the promise.
    fn fetch_from_primary(&mut self, out: &mut Vec<Effect>) {
        let answers = self.recovery.responses.iter().flatten();
        let Some(view) = answers.clone().map(|answer| answer.view).max() else {
            return;
        };
        let below = view < self.promised && !active(Mutation::RecoveryBelowPromise);
        if answers.count() <= self.faults() || below {
            return;
        }
        let primary = view.primary(self.config.replicas);
        let answer = self.recovery.responses[primary.index()];
        let Some((op, commit, digest)) = answer
            .filter(|answer| answer.view == view)
            .and_then(|answer| answer.primary)
        else {
            return;
        };
        if op.0 < OpNumber::LIMIT && commit <= op {
            self.begin_transfer(Purpose::Recover, primary, view, Some((op, digest)), out);
        }
    }

    /// The state is here: normal again, in a view that isn't below the promise (section 4.3, step 3).
    pub(super) fn recovered(&mut self, view: View, out: &mut Vec<Effect>) {
        if active(Mutation::RecoveryBelowPromise) {
            self.promised = view;
            self.floor.1 = view;
        }
        if active(Mutation::ArmBeforePromise) {
            let (group, promised) = (self.group, view);
            self.promised = view;
            self.recovery = Recovery::new(self.config.replicas);
            self.follow(view, out);
            let view = promised;
            return out.push(Effect::Persist(crate::effect::Promise { group, view }));
        }
        self.promise(view, out);
        self.recovery = Recovery::new(self.config.replicas);
        self.follow(view, out);
    }

    /// Whether more than f are known to be without state: nobody can then bring anybody back.
    fn too_many_recover(&self) -> bool {
        let others = self
            .others()
            .filter(|other| self.recovering_lately(*other))
            .count();
        self.recovery.rounds > PATIENT_ROUNDS && others + 1 > self.faults()
    }

    pub(super) fn recovery_reason(&self) -> String {
        let promised = self.promised;
        let answers = self.recovery.responses.iter().flatten().count();
        let needed = self.faults() + 1;
        if self.transfer.is_some() {
            return String::from("recovering: fetching the state");
        }
        if self.too_many_recover() {
            return alloc::format!(
                "more than f replicas are recovering: the group's state was in memory and is lost \
                 unless a replica that still has it comes back ({answers} of {needed} answers)"
            );
        }
        alloc::format!(
            "recovering: {answers} of {needed} answers, waiting for the primary of a view from {promised} on"
        )
    }

    /// Only a normal replica answers.
    fn ignore_recovery(&self) {}

    /// To another question, or the question is answered.
    fn ignore_recovery_response(&self) {}
}
