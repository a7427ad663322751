//! The other side of state transfer: showing the log, or the checkpoint where the log is trimmed (rules 12, 14).
//!
//! What a peer is fetching is kept for it while it gets on: the checkpoint, though later ones were taken meanwhile, and the log
//! from there. Otherwise a large state would never be there before the next checkpoint, under load not ever.

use alloc::vec::Vec;

use super::Replica;
use super::checkpoint::Checkpoint;
use crate::effect::Effect;
use crate::ids::{Nonce, OpNumber, ReplicaId, Time, View};
use crate::message::Message;
use crate::state_machine::StateMachine;
use crate::status::Status;

/// Retries for which state is kept for a peer that was fetching it and gets no further.
const PATIENCE: u64 = 16;

/// What a replica wants to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// The log after this op.
    Log(OpNumber),
    /// The checkpoint at this op, from this byte on.
    Checkpoint(OpNumber, u64),
}

impl Question {
    /// The op after which the log will be needed, if it isn't already.
    fn op(self) -> OpNumber {
        let (Question::Log(op) | Question::Checkpoint(op, _)) = self;
        op
    }

    /// How far its asker has come.
    fn reach(self) -> (OpNumber, u64) {
        match self {
            Question::Log(op) => (op, u64::MAX),
            Question::Checkpoint(op, offset) => (op, offset),
        }
    }
}

/// A peer's latest question of state, and its answer.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Shown {
    question: Question,
    nonce: Nonce,
    /// How many bytes the answer could have.
    bytes: usize,
    /// When it left.
    at: Time,
    /// When the peer last asked for more than before.
    advanced: Time,
}

impl<S: StateMachine> Replica<S> {
    /// How many bytes the answer may have. One to a question that is asked again fits a packet, and the next ones are twice as
    /// long each time: a longer one is many fragments, of which a bad link loses one almost always, and those that arrive fill
    /// the receiver's memory for them, until nothing that is fragmented arrives for a minute.
    ///
    /// None: it was answered just now. Nobody asks again within half the time after which questions are repeated, so this one
    /// was duplicated on its way (rule 12: one question at a time).
    fn chunk_bytes(&mut self, from: ReplicaId, nonce: Nonce, question: Question) -> Option<usize> {
        let limits = &self.config.limits;
        let whole = limits.chunk_bytes.max(1);
        // What surrounds it is longer than in a Prepare, for which the limit is made.
        let packet = (limits.batch_bytes - limits.batch_bytes / 8).clamp(1, whole);
        let (now, soon) = (self.now, self.config.timing.retry / 2);
        let before = self.peers[from.index()].shown;
        let same = before.filter(|shown| shown.nonce == nonce);
        if same.is_some_and(|shown| shown.question == question && shown.at.plus(soon) > now) {
            return None;
        }
        let bytes = match before {
            None => whole,
            Some(shown) if shown.question == question => packet,
            Some(shown) => shown.bytes.saturating_mul(2).min(whole),
        };
        let advanced = same
            .filter(|shown| question.reach() <= shown.question.reach())
            .map_or(now, |shown| shown.advanced);
        self.peers[from.index()].shown = Some(Shown {
            question,
            nonce,
            bytes,
            at: now,
            advanced,
        });
        Some(bytes)
    }

    /// What each peer is fetching that gets on with it.
    fn fetches(&self) -> impl Iterator<Item = (ReplicaId, Question)> + use<'_, S> {
        let patience = self.config.timing.retry.saturating_mul(PATIENCE);
        let now = self.now;
        self.others().filter_map(move |other| {
            let shown = self.peers[other.index()].shown?;
            (shown.advanced.plus(patience) > now).then_some((other, shown.question))
        })
    }

    /// The peer that needs the log from the lowest op on, and that op.
    pub(super) fn furthest_behind(&self) -> Option<(ReplicaId, OpNumber)> {
        let needed = self.fetches().map(|(peer, question)| (peer, question.op()));
        needed.min_by_key(|(_, op)| *op)
    }

    /// Nothing is kept for this peer any more.
    pub(super) fn give_up_on(&mut self, peer: ReplicaId) {
        self.peers[peer.index()].shown = None;
    }

    fn is_being_fetched(&self, checkpoint: OpNumber) -> bool {
        self.fetches().any(
            |(_, question)| matches!(question, Question::Checkpoint(op, _) if op == checkpoint),
        )
    }

    /// A later checkpoint was taken than `before`, which stays while somebody fetches it. At most one does, so whoever begins
    /// meanwhile is shown that one too.
    pub(super) fn pin(&mut self, before: Option<Checkpoint>) {
        self.release_pinned();
        if self.pinned.is_none() {
            self.pinned = before.filter(|before| self.is_being_fetched(before.op));
        }
    }

    /// Lets the pinned checkpoint go when nobody gets on with it.
    pub(super) fn release_pinned(&mut self) {
        if let Some(pinned) = &self.pinned
            && !self.is_being_fetched(pinned.op)
        {
            self.pinned = None;
        }
    }

    /// Shows its log to who is in the same view. Between views the log is shown only as it was announced (frozen).
    pub(super) fn on_get_state(
        &mut self,
        from: ReplicaId,
        view: View,
        nonce: Nonce,
        after: OpNumber,
        out: &mut Vec<Effect>,
    ) {
        if !self.shows_state_of(view) || after > self.log.op() {
            return self.ignore_get_state();
        }
        self.peers[from.index()].joined = true;
        let Some(digest_after) = self.log.digest_at(after) else {
            self.release_pinned();
            return self.send_checkpoint(from, view, nonce, None, out);
        };
        let Some(bytes) = self.chunk_bytes(from, nonce, Question::Log(after)) else {
            return self.ignore_duplicate();
        };
        let entries = self.log.batch(after, bytes, usize::MAX);
        let (op, digest, commit) = (self.log.op(), self.log.digest(), self.commit);
        let message = Message::NewState {
            view,
            nonce,
            after,
            digest_after,
            entries,
            op,
            digest,
            commit,
        };
        out.push(Effect::Send { to: from, message });
    }

    fn shows_state_of(&self, view: View) -> bool {
        let announced = self.status == Status::ViewChange && self.view_change.announced;
        view == self.view && (self.status == Status::Normal || announced)
    }

    pub(super) fn on_get_checkpoint(
        &mut self,
        from: ReplicaId,
        view: View,
        nonce: Nonce,
        op: OpNumber,
        offset: u64,
        out: &mut Vec<Effect>,
    ) {
        if !self.shows_state_of(view) {
            return self.ignore_get_state();
        }
        self.send_checkpoint(from, view, nonce, Some((op, offset)), out);
    }

    fn send_checkpoint(
        &mut self,
        to: ReplicaId,
        view: View,
        nonce: Nonce,
        wanted: Option<(OpNumber, u64)>,
        out: &mut Vec<Effect>,
    ) {
        let Some((checkpoint, offset)) = self.checkpoint_to_show(wanted) else {
            return self.ignore_get_state();
        };
        let question = Question::Checkpoint(checkpoint.op, offset);
        let Some(bytes) = self.chunk_bytes(to, nonce, question) else {
            return self.ignore_duplicate();
        };
        let Some(rest) = usize::try_from(offset)
            .ok()
            .and_then(|offset| checkpoint.bytes.get(offset..))
        else {
            return;
        };
        let message = Message::CheckpointChunk {
            view,
            nonce,
            op: checkpoint.op,
            log_digest: checkpoint.log_digest,
            digest: checkpoint.digest,
            total: checkpoint.bytes.len() as u64,
            offset,
            bytes: rest[..rest.len().min(bytes)].to_vec(),
        };
        out.push(Effect::Send { to, message });
    }

    /// The checkpoint that was asked for, from there on; where there is none such, a later one from its begin.
    fn checkpoint_to_show(&self, wanted: Option<(OpNumber, u64)>) -> Option<(Checkpoint, u64)> {
        let kept = || self.checkpoint.iter().chain(&self.pinned);
        if let Some((op, offset)) = wanted
            && let Some(checkpoint) = kept().find(|checkpoint| checkpoint.op == op)
        {
            return Some((checkpoint.clone(), offset));
        }
        let later = |checkpoint: &&Checkpoint| wanted.is_none_or(|(op, _)| checkpoint.op > op);
        let checkpoint = kept().filter(later).min_by_key(|checkpoint| checkpoint.op);
        checkpoint.map(|checkpoint| (checkpoint.clone(), 0))
    }

    /// Of another view, from beyond this log, or of a checkpoint that isn't known here.
    fn ignore_get_state(&self) {}

    /// It was answered just now.
    fn ignore_duplicate(&self) {}
}
