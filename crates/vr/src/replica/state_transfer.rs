//! State transfer (VR Revisited, section 5.2): chunked, resumable, one question at a time, verified by digest (rule 12).
//!
//! A backup that is behind in its own view appends each chunk as it comes. Everybody else (a new primary, a replica that
//! joins a started view, a recovering one) stages the whole and replaces its own log in one step (rule 2).
//!
//! A checkpoint is of committed state, the same in every view. What is here of one outlives its transfer: whoever is asked next,
//! in this view or a later one, is asked for the rest alone.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Replica;
use super::checkpoint::Checkpoint;
use super::fast_path::{AfterFence, Held};
use super::log::{chain, digest_of, wire_bytes};
use super::normal::well_formed;
use crate::effect::{Effect, Note};
use crate::ids::{Digest, Nonce, OpNumber, ReplicaId, Time, View};
use crate::message::{Entry, Message, Prepare};
use crate::mutations::{Mutation, active};
use crate::state_machine::{RestoreError, StateMachine};
use crate::status::Status;

/// Questions in vain after which a recovering replica begins anew: the one it asks may have gone.
const MAX_ATTEMPTS: u32 = 4;

/// How often the wait doubles before what was no use is fetched again.
const MAX_DOUBLINGS: u32 = 6;

/// Why fetching state doesn't get on.
#[derive(Clone, Debug, Hash)]
pub(super) struct Obstacle {
    pub(super) text: String,
    /// Times in a row that all had to be fetched again.
    restarts: u32,
}

/// Why state is fetched, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// A backup fills a gap.
    CatchUp,
    /// A new primary lacks the log that its view begins with; `commit` is the highest commit number of the quorum.
    Lead { commit: OpNumber },
    /// A replica joins a view that was started.
    Follow,
    /// A recovering replica has nothing at all.
    Recover,
}

/// A checkpoint of which a part is here; or all of it, verified.
#[derive(Clone, Debug, Hash)]
pub(super) struct Partial {
    checkpoint: Checkpoint,
    /// How many bytes all of it has.
    total: u64,
}

impl Partial {
    fn here(&self) -> u64 {
        self.checkpoint.bytes.len() as u64
    }

    fn is_whole(&self) -> bool {
        self.here() == self.total
    }
}

/// State on its way.
#[derive(Clone, Debug, Hash)]
pub(super) struct Transfer {
    purpose: Purpose,
    from: ReplicaId,
    view: View,
    pub(super) nonce: Nonce,
    /// The last op that is here: what is asked for comes after it.
    end: OpNumber,
    /// The digest at `end`.
    digest: Digest,
    /// The log's op that the staged entries follow.
    base: OpNumber,
    staged: Vec<Entry>,
    staged_bytes: usize,
    partial: Option<Partial>,
    /// A whole one, verified; the staged entries follow it.
    checkpoint: Option<Checkpoint>,
    /// Where the log to be fetched ends.
    target: Option<(OpNumber, Digest)>,
    commit: OpNumber,
    pub(super) attempts: u32,
    pub(super) again_at: Time,
}

/// What a replica shows whose checkpoint can't be restored.
fn unfit(error: &RestoreError) -> String {
    alloc::format!("a checkpoint that can't be restored: {error}")
}

impl Transfer {
    /// The op of the checkpoint of which a part or all is here.
    fn known_checkpoint(&self) -> Option<OpNumber> {
        let partial = self.partial.as_ref().map(|partial| &partial.checkpoint);
        partial
            .or(self.checkpoint.as_ref())
            .map(|checkpoint| checkpoint.op)
    }

    fn has_whole(&self, op: OpNumber) -> bool {
        self.checkpoint
            .as_ref()
            .is_some_and(|checkpoint| checkpoint.op == op)
    }

    /// A whole checkpoint is here: what is staged has to follow it.
    fn follow_checkpoint(&mut self, whole: Checkpoint) {
        (self.end, self.base, self.digest) = (whole.op, whole.op, whole.log_digest);
        self.staged.clear();
        self.staged_bytes = 0;
        // The log went on meanwhile: the first answer after the checkpoint says how far.
        if self.target.is_some_and(|(end, _)| end < whole.op) {
            self.target = None;
        }
        self.checkpoint = Some(whole);
    }
}

impl<S: StateMachine> Replica<S> {
    /// Begins to fetch everything after the commit number: below it all logs are equal.
    pub(super) fn begin_transfer(
        &mut self,
        purpose: Purpose,
        from: ReplicaId,
        view: View,
        target: Option<(OpNumber, Digest)>,
        out: &mut Vec<Effect>,
    ) {
        self.open_transfer(purpose, from, view, target);
        self.ask_state(out);
    }

    fn open_transfer(
        &mut self,
        purpose: Purpose,
        from: ReplicaId,
        view: View,
        target: Option<(OpNumber, Digest)>,
    ) {
        let retry = self.config.timing.retry;
        let catches_up = purpose == Purpose::CatchUp;
        self.abandon_transfer();
        if active(Mutation::TruncationOnRequest) && !catches_up {
            self.log.truncate(self.commit);
        }
        let end = if catches_up {
            self.log.op()
        } else {
            self.commit
        };
        let mut transfer = Transfer {
            purpose,
            from,
            view,
            nonce: self.fresh_nonce(),
            end,
            digest: self
                .log
                .digest_at(end)
                .expect("the log reaches from the commit number on"),
            base: end,
            staged: Vec::new(),
            staged_bytes: 0,
            partial: None,
            checkpoint: None,
            target,
            commit: OpNumber(0),
            attempts: 0,
            again_at: self.now.plus(self.jittered(retry)),
        };
        let commit = self.commit;
        self.fetched.take_if(|had| had.checkpoint.op <= commit);
        let wanted = |had: &mut Partial| {
            let follows = target.is_none_or(|(end, _)| end >= had.checkpoint.op);
            had.is_whole() && follows && !catches_up
        };
        if let Some(whole) = self.fetched.take_if(wanted) {
            transfer.follow_checkpoint(whole.checkpoint);
        }
        self.transfer = Some(transfer);
    }

    /// Ends the transfer, and keeps what it had of a checkpoint.
    pub(super) fn abandon_transfer(&mut self) {
        let Some(transfer) = self.transfer.take() else {
            return;
        };
        let whole = transfer.checkpoint.map(|checkpoint| Partial {
            total: checkpoint.bytes.len() as u64,
            checkpoint,
        });
        if let Some(had) = transfer.partial.or(whole) {
            self.fetched = Some(had);
        }
    }

    /// Asks for what comes next; again when no answer comes in time.
    fn ask_state(&mut self, out: &mut Vec<Effect>) {
        let retry = self.config.timing.retry;
        let again_at = self.now.plus(self.jittered(retry));
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        transfer.again_at = again_at;
        let (view, nonce, to) = (transfer.view, transfer.nonce, transfer.from);
        let message = match &transfer.partial {
            None => Message::GetState {
                view,
                nonce,
                after: transfer.end,
            },
            Some(partial) => Message::GetCheckpoint {
                view,
                nonce,
                op: partial.checkpoint.op,
                offset: partial.here(),
            },
        };
        out.push(Effect::Send { to, message });
    }

    pub(super) fn tick_transfer(&mut self, out: &mut Vec<Effect>) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        if self.now < transfer.again_at || self.fast.waits() {
            return;
        }
        transfer.attempts += 1;
        if transfer.purpose == Purpose::Recover && transfer.attempts >= MAX_ATTEMPTS {
            return self.begin_recovery();
        }
        if transfer.purpose == Purpose::CatchUp {
            transfer.end = self.log.op();
            if !self.behind() {
                return self.end_transfer();
            }
        }
        self.ask_state(out);
    }

    /// Whether the view is known to have ops that this backup lacks.
    fn behind(&self) -> bool {
        let op = self.log.op();
        let target = self.transfer.as_ref().and_then(|transfer| transfer.target);
        self.learned_commit > op
            || !self.early.is_empty()
            || target.is_some_and(|(end, _)| end > op)
    }

    /// A backup that lacks ops asks its primary (rule 9).
    pub(super) fn catch_up_if_behind(&mut self, out: &mut Vec<Effect>) {
        let backup = self.status == Status::Normal && !self.is_primary();
        if backup && !self.fast.waits() && self.transfer.is_none() && self.behind() {
            let primary = self.view.primary(self.config.replicas);
            self.begin_transfer(Purpose::CatchUp, primary, self.view, None, out);
        }
    }

    /// A chunk was appended: on to the next, if there is one.
    pub(super) fn continue_catch_up(&mut self, out: &mut Vec<Effect>) {
        let op = self.log.op();
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        if transfer.purpose != Purpose::CatchUp || transfer.end >= op {
            return;
        }
        transfer.end = op;
        transfer.attempts = 0;
        if let Some((end, digest)) = transfer.target {
            let own = self.log.digest_at(end);
            assert!(
                own.is_none_or(|own| own == digest),
                "divergence: the primary of this view has another log at op {end}"
            );
        }
        if transfer.target.is_some_and(|(end, _)| end > op) {
            self.ask_state(out);
        } else {
            self.end_transfer();
        }
    }

    /// Nothing is missing any more.
    pub(super) fn end_transfer(&mut self) {
        (self.transfer, self.fetched, self.obstacle) = (None, None, None);
    }

    /// Whether a message answers the question that is open.
    fn answers_transfer(&self, from: ReplicaId, view: View, nonce: Nonce) -> bool {
        self.transfer.as_ref().is_some_and(|transfer| {
            (transfer.from, transfer.view, transfer.nonce) == (from, view, nonce)
        })
    }

    pub(super) fn on_new_state(
        &mut self,
        from: ReplicaId,
        message: Message,
        out: &mut Vec<Effect>,
    ) {
        let Message::NewState {
            view,
            nonce,
            after,
            digest_after,
            entries,
            op,
            digest,
            commit,
        } = message
        else {
            return;
        };
        let impossible = op.0 >= OpNumber::LIMIT || commit > op || after > op;
        if !self.answers_transfer(from, view, nonce) || impossible {
            return self.ignore_new_state();
        }
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        if transfer.purpose == Purpose::CatchUp {
            transfer.target = Some((op, digest));
            if entries.is_empty() && !self.behind() {
                return self.end_transfer();
            }
            let prepare = Prepare {
                view,
                first: after.next(),
                commit,
                entries,
            };
            return self.append_chunk(after, digest_after, prepare, out);
        }
        if after != transfer.end || transfer.partial.is_some() {
            return self.ignore_new_state();
        }
        let above = !transfer.staged.is_empty() || transfer.checkpoint.is_some();
        assert!(
            digest_after == transfer.digest || above,
            "divergence: replica {from} has another log below the commit number {after}"
        );
        if digest_after != transfer.digest {
            return self.restart_transfer("another log than it showed before", out);
        }
        let (end, end_digest) = *transfer.target.get_or_insert((op, digest));
        let limits = &self.config.limits;
        if end > op || op.0 - transfer.base.0 > limits.log_ops() {
            return self.restart_transfer("a log that no replica can have", out);
        }
        let before = transfer.end;
        for entry in entries {
            if transfer.end < end {
                transfer.end = transfer.end.next();
                transfer.digest = chain(transfer.digest, transfer.end, &entry);
                transfer.staged_bytes += wire_bytes(&entry);
                transfer.staged.push(entry);
                transfer.attempts = 0;
            }
        }
        transfer.commit = transfer.commit.max(commit.min(end));
        if transfer.staged_bytes > limits.log_bytes() {
            self.restart_transfer("more bytes of log than a replica keeps", out);
        } else if (transfer.end, transfer.digest) == (end, end_digest) {
            self.finish_transfer(out);
        } else if transfer.end == end || transfer.end == before {
            self.restart_transfer("another log than the one announced", out);
        } else {
            self.postpone_giving_up();
            self.ask_state(out);
        }
    }

    /// A chunk for a backup of the view: it is appended like a Prepare, by a claim where the kernel appends too.
    fn append_chunk(
        &mut self,
        after: OpNumber,
        digest_after: Digest,
        prepare: Prepare,
        out: &mut Vec<Effect>,
    ) {
        let known = self.log.digest_at(after);
        assert!(
            known.is_none_or(|known| known == digest_after),
            "divergence: the primary of this view has another log at op {after}"
        );
        if known.is_some() && well_formed(&prepare) {
            self.hold_early(Held {
                prepare,
                transferred: true,
            });
            self.append_early(out);
        }
    }

    /// What was fetched is of no use: all of it again, from the same replica.
    fn restart_transfer(&mut self, shown: &str, out: &mut Vec<Effect>) {
        let Some(old) = self.transfer.take() else {
            return;
        };
        self.fetched = None;
        let text = alloc::format!("replica {} shows {shown}", old.from);
        self.hindered(text, out);
        let again = self.obstacle.as_mut().map_or(0, |obstacle| {
            obstacle.restarts = obstacle.restarts.saturating_add(1);
            obstacle.restarts - 1
        });
        // The question leaves later, each time later: a broken peer must not be asked for everything in a loop.
        self.open_transfer(old.purpose, old.from, old.view, None);
        let retry = self.config.timing.retry;
        let wait = retry.saturating_mul(1 << again.min(MAX_DOUBLINGS));
        let again_at = self.now.plus(self.jittered(wait));
        if let Some(transfer) = &mut self.transfer {
            transfer.again_at = again_at;
        }
    }

    /// Says why fetching the state doesn't get on, in status too; in the log once.
    fn hindered(&mut self, text: String, out: &mut Vec<Effect>) {
        let known = self.obstacle.as_ref();
        if known.is_none_or(|known| known.text != text) {
            out.push(Effect::Note(Note::Warning(text.clone())));
        }
        let restarts = known.map_or(0, |known| known.restarts);
        self.obstacle = Some(Obstacle { text, restarts });
    }

    pub(super) fn on_checkpoint_chunk(
        &mut self,
        from: ReplicaId,
        message: Message,
        out: &mut Vec<Effect>,
    ) {
        let Message::CheckpointChunk {
            view,
            nonce,
            op,
            log_digest,
            digest,
            total,
            offset,
            bytes,
        } = message
        else {
            return;
        };
        let useless = op <= self.commit || op.0 >= OpNumber::LIMIT;
        if !self.answers_transfer(from, view, nonce) || useless || bytes.is_empty() {
            return self.ignore_checkpoint_chunk();
        }
        let limit = self.config.limits.state_bytes;
        if total > limit {
            let text = alloc::format!(
                "the state at replica {from} has {total} bytes, more than the {limit} that are fetched"
            );
            return self.hindered(text, out);
        }
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        // The one that is asked never goes back to an earlier checkpoint: this chunk comes late.
        if transfer.known_checkpoint().is_some_and(|known| op < known) || transfer.has_whole(op) {
            return self.ignore_checkpoint_chunk();
        }
        let fits = |partial: &Partial| {
            let has = &partial.checkpoint;
            (has.op, has.log_digest, has.digest, partial.total) == (op, log_digest, digest, total)
        };
        if !transfer.partial.as_ref().is_some_and(fits) {
            let had = self.fetched.take();
            let had = had.filter(|had| fits(had) && !had.is_whole());
            let begun = || Partial {
                checkpoint: Checkpoint {
                    op,
                    log_digest,
                    digest,
                    bytes: Arc::default(),
                },
                total,
            };
            let goes_on = had.as_ref().is_some_and(|had| had.here() != offset);
            transfer.partial = Some(had.unwrap_or_else(begun));
            // The log after it is trimmed there, so it is of no use.
            transfer.checkpoint = None;
            if goes_on {
                transfer.attempts = 0;
                self.postpone_giving_up();
                return self.ask_state(out);
            }
        }
        let partial = transfer.partial.as_mut().expect("it was just put there");
        if offset != partial.here() || partial.here() + bytes.len() as u64 > total {
            return self.ignore_checkpoint_chunk();
        }
        Arc::make_mut(&mut partial.checkpoint.bytes).extend_from_slice(&bytes);
        transfer.attempts = 0;
        if !partial.is_whole() {
            self.postpone_giving_up();
            return self.ask_state(out);
        }
        let whole = transfer.partial.take().expect("it is whole").checkpoint;
        if digest_of(&whole.bytes) != whole.digest {
            return self.restart_transfer("a checkpoint that isn't what its digest says", out);
        }
        if transfer.purpose == Purpose::CatchUp {
            return self.fence(AfterFence::InstallCheckpoint(Box::new(whole)), out);
        }
        transfer.follow_checkpoint(whole);
        self.postpone_giving_up();
        self.ask_state(out);
    }

    /// A backup far behind jumps to the checkpoint, unless the kernel's records took it there already.
    pub(super) fn install_checkpoint(&mut self, checkpoint: Checkpoint, out: &mut Vec<Effect>) {
        let restored = if checkpoint.op > self.log.op() {
            self.restore_checkpoint(checkpoint)
        } else {
            Ok(())
        };
        self.write_installed(out);
        self.arm(out);
        let op = self.log.op();
        if let Err(error) = restored {
            self.restart_transfer(&unfit(&error), out);
        } else if let Some(transfer) = &mut self.transfer {
            transfer.end = op;
            self.ask_state(out);
        }
        self.append_early(out);
    }

    /// All is here and verified: the old suffix is replaced in one step.
    fn finish_transfer(&mut self, out: &mut Vec<Effect>) {
        let Some(mut transfer) = self.transfer.take() else {
            return;
        };
        if let Some(checkpoint) = transfer.checkpoint.take() {
            if let Err(error) = self.restore_checkpoint(checkpoint) {
                self.transfer = Some(transfer);
                return self.restart_transfer(&unfit(&error), out);
            }
            self.write_checkpoint(out);
        } else {
            assert!(
                transfer.base >= self.commit,
                "what is committed is never replaced"
            );
            if !active(Mutation::SuffixNotReplaced) {
                self.truncate(transfer.base);
            }
        }
        for entry in transfer.staged {
            self.log.append(entry);
        }
        self.learned_commit = self.learned_commit.max(transfer.commit);
        match transfer.purpose {
            Purpose::Lead { commit } => self.lead(commit, out),
            Purpose::Follow => self.follow(transfer.view, out),
            Purpose::Recover => self.recovered(transfer.view, out),
            Purpose::CatchUp => unreachable!("chunks of a catch-up are appended as they come"),
        }
    }

    /// Not the answer to the open question.
    fn ignore_new_state(&self) {}

    /// Not the answer to the open question, or of no use.
    fn ignore_checkpoint_chunk(&self) {}
}
