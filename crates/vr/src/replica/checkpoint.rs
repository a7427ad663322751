//! Checkpoints (protocol.md, rule 14): state machine, client table and log digest at a multiple of `checkpoint_ops`, or when
//! the log since the last one has `checkpoint_bytes`. Entries are the same everywhere, hence so are the ops of checkpoints, for
//! who came by a checkpoint too.
//!
//! The latest is kept, and one before it while somebody fetches that. The log keeps at most as much below the latest as comes
//! between two, so that a replica that is a little behind still gets the log, and more for one that is getting on with fetching
//! it (`Limits::pinned_ops`). On top comes what may be uncommitted, and what the kernel's ring had acknowledged at the soft
//! limit.

use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize, Serializer};

use super::Replica;
use super::client_table::ClientTable;
use super::log::{Log, digest_of};
use crate::effect::{Effect, Note};
use crate::ids::{Digest, OpNumber};
use crate::mutations::{Mutation, active};
use crate::state_machine::{RestoreError, StateMachine};

/// The latest checkpoint, as bytes that can be sent.
#[derive(Clone, Debug, Hash)]
pub(super) struct Checkpoint {
    pub(super) op: OpNumber,
    pub(super) log_digest: Digest,
    pub(super) digest: Digest,
    pub(super) bytes: Arc<Vec<u8>>,
}

/// What the bytes hold.
#[derive(Serialize, Deserialize)]
struct Contents<'a> {
    op: OpNumber,
    log_digest: Digest,
    table: Cow<'a, ClientTable>,
    #[serde(serialize_with = "as_bytes")]
    state: &'a [u8],
}

/// A replica does nothing else meanwhile, and bytes one by one, as a sequence of numbers, take most of a second for 100 MB. What
/// they are written as is the same.
fn as_bytes<T: Serializer>(bytes: &&[u8], serializer: T) -> Result<T::Ok, T::Error> {
    serializer.serialize_bytes(bytes)
}

impl<S: StateMachine> Replica<S> {
    /// Takes a checkpoint at the commit number, and trims the log.
    pub(super) fn take_checkpoint(&mut self, out: &mut Vec<Effect>) {
        let log_digest = self
            .log
            .digest_at(self.commit)
            .expect("the commit number is in the log");
        let state = self.machine.snapshot();
        let contents = Contents {
            op: self.commit,
            log_digest,
            table: Cow::Borrowed(&self.table),
            state: &state,
        };
        let bytes = postcard::to_allocvec(&contents).expect("memory takes any checkpoint");
        let digest = digest_of(&bytes);
        let before = self.checkpoint.replace(Checkpoint {
            op: self.commit,
            log_digest,
            digest,
            bytes: Arc::new(bytes),
        });
        self.unsaved_bytes = 0;
        self.warn_of_size(before.as_ref(), out);
        self.pin(before);
        self.write_checkpoint(out);
        self.trim_log();
        self.release_pinned();
    }

    /// Says once that the state has outgrown what others fetch.
    fn warn_of_size(&self, before: Option<&Checkpoint>, out: &mut Vec<Effect>) {
        let limit = self.config.limits.state_bytes;
        let length = |checkpoint: &Checkpoint| checkpoint.bytes.len() as u64;
        let now = self.checkpoint.as_ref().map_or(0, length);
        if now > limit && before.map_or(0, length) <= limit {
            out.push(Effect::Note(Note::Warning(alloc::format!(
                "the state has {now} bytes, more than the {limit} that are fetched: a replica that loses it, or falls \
                 behind, can't get it back"
            ))));
        }
    }

    /// Drops what nobody needs any more: not the next views, and nobody who is fetching it, as long as that isn't too much.
    pub(super) fn trim_log(&mut self) {
        let limits = &self.config.limits;
        let kept = (limits.kept_ops(), limits.checkpoint_bytes);
        let pinned = (limits.pinned_ops(), limits.pinned_bytes());
        // A Prepare may have to be sent again from there.
        let commit = self.commit;
        let needed = OpNumber(commit.0.saturating_sub(limits.batch_ops as u64));
        let uncommitted = self.log.bytes_after(commit);
        let fits = |log: &Log, (ops, bytes): (u64, usize)| {
            commit.0 - log.base().0 <= ops && log.bytes() - uncommitted <= bytes
        };
        loop {
            let behind = self.furthest_behind();
            let end = behind.map_or(needed, |(_, op)| op.min(needed));
            while self.log.base() < end && !fits(&self.log, kept) {
                self.log.trim(self.log.base().next());
            }
            match behind {
                Some((peer, _)) if !fits(&self.log, pinned) => self.give_up_on(peer),
                _ => return,
            }
        }
    }

    /// Replaces state, table and log by a checkpoint of a later op. On an error nothing has changed.
    pub(super) fn restore_checkpoint(
        &mut self,
        checkpoint: Checkpoint,
    ) -> Result<(), RestoreError> {
        assert!(
            checkpoint.op > self.commit,
            "a checkpoint must not undo what was executed"
        );
        let foreign = |_| RestoreError("not a checkpoint".into());
        let contents: Contents<'_> = postcard::from_bytes(&checkpoint.bytes).map_err(foreign)?;
        if (contents.op, contents.log_digest) != (checkpoint.op, checkpoint.log_digest) {
            return Err(RestoreError("the checkpoint is of another op".into()));
        }
        self.machine.restore(contents.state)?;
        if !active(Mutation::TableNotInCheckpoint) {
            self.table = contents.table.into_owned();
        }
        self.log = Log::starting_after(checkpoint.op, checkpoint.log_digest);
        self.disk.restarted_after(checkpoint.op);
        self.commit = checkpoint.op;
        self.learned_commit = self.learned_commit.max(checkpoint.op);
        self.checkpoint = Some(checkpoint);
        self.unsaved_bytes = 0;
        // The log from there is gone.
        self.pinned = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same with nothing but what serde derives: what replicas of an earlier version write and read.
    #[derive(Serialize, Deserialize)]
    struct Plain {
        op: OpNumber,
        log_digest: Digest,
        table: ClientTable,
        state: Vec<u8>,
    }

    #[test]
    fn bytes_that_are_written_at_once_are_the_same_bytes() {
        let state: Vec<u8> = (0..1000_u16).map(|byte| byte.to_le_bytes()[0]).collect();
        let plain = Plain {
            op: OpNumber(7),
            log_digest: Digest(8),
            table: ClientTable::default(),
            state: state.clone(),
        };
        let contents = Contents {
            op: plain.op,
            log_digest: plain.log_digest,
            table: Cow::Borrowed(&plain.table),
            state: &state,
        };
        let bytes = postcard::to_allocvec(&plain).unwrap();
        assert_eq!(postcard::to_allocvec(&contents).unwrap(), bytes);
        let back: Contents<'_> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(back.state, state);
    }
}
