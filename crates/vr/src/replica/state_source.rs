//! The other side of state transfer: showing the log, or the checkpoint where the log is trimmed (rules 12, 14).

use alloc::vec::Vec;

use super::Replica;
use crate::effect::Effect;
use crate::ids::{Nonce, OpNumber, ReplicaId, View};
use crate::message::Message;
use crate::state_machine::StateMachine;
use crate::status::Status;

/// What a replica wants to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// The log after this op.
    Log(OpNumber),
    /// The checkpoint from this byte on.
    Checkpoint(u64),
}

impl<S: StateMachine> Replica<S> {
    /// How many bytes the answer may have. One to a question that is asked again fits a packet, and the next ones are twice as
    /// long each time: a longer one is many fragments, of which a bad link loses one almost always, and those that arrive fill
    /// the receiver's memory for them, until nothing that is fragmented arrives for a minute.
    fn chunk_bytes(&mut self, from: ReplicaId, question: Question) -> usize {
        let limits = &self.config.limits;
        let whole = limits.chunk_bytes.max(1);
        // What surrounds it is longer than in a Prepare, for which the limit is made.
        let packet = (limits.batch_bytes - limits.batch_bytes / 8).clamp(1, whole);
        let shown = &mut self.peers[from.index()].shown;
        let bytes = match *shown {
            None => whole,
            Some((before, _)) if before == question => packet,
            Some((_, bytes)) => bytes.saturating_mul(2).min(whole),
        };
        *shown = Some((question, bytes));
        bytes
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
            return self.send_checkpoint(from, view, nonce, 0, out);
        };
        let bytes = self.chunk_bytes(from, Question::Log(after));
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
        // Another checkpoint was taken meanwhile: the asker begins with it anew.
        let same = self
            .checkpoint
            .as_ref()
            .is_some_and(|checkpoint| checkpoint.op == op);
        self.send_checkpoint(from, view, nonce, if same { offset } else { 0 }, out);
    }

    fn send_checkpoint(
        &mut self,
        to: ReplicaId,
        view: View,
        nonce: Nonce,
        offset: u64,
        out: &mut Vec<Effect>,
    ) {
        let bytes = self.chunk_bytes(to, Question::Checkpoint(offset));
        let Some(checkpoint) = &self.checkpoint else {
            return;
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

    /// Of another view, or from beyond this log.
    fn ignore_get_state(&self) {}
}
