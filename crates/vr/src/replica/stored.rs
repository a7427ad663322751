//! What the writes to a log on disk amount to, so that whoever keeps them (a disk, a test's model of one) can give them
//! back to a replica that starts.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::log::Log;
use crate::effect::Write;
use crate::ids::{Digest, OpNumber, View};
use crate::mutations::{Mutation, active};

/// The durable state of a replica in disk mode, but for its promise.
#[derive(Clone, Debug)]
pub struct Stored {
    last_normal: View,
    log: Log,
    checkpoint: Option<StoredCheckpoint>,
}

/// Op, digest of the log there, state and client table.
pub(super) type StoredCheckpoint = (OpNumber, Digest, Arc<Vec<u8>>);

/// Why a write doesn't follow what is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// The log ends elsewhere.
    #[error("ops after {after} follow a log that ends with op {op}")]
    Gap {
        /// What the write expects.
        after: OpNumber,
        /// Where the log ends.
        op: OpNumber,
    },
    /// The entries aren't those that were written.
    #[error("the digest of the log up to op {0} is another than the one that was written with it")]
    Digest(OpNumber),
    /// Views only rise.
    #[error("view {view} is entered after view {last_normal}")]
    View {
        /// The view that is entered.
        view: View,
        /// The one before.
        last_normal: View,
    },
}

impl Stored {
    /// A log that ended with `op` when `last_normal` was the last normal view; what came before is in a checkpoint.
    #[must_use]
    pub fn starting_after(last_normal: View, op: OpNumber, digest: Digest) -> Stored {
        Stored {
            last_normal,
            log: Log::starting_after(op, digest),
            checkpoint: None,
        }
    }

    /// A log that never had anything.
    #[must_use]
    pub fn empty() -> Stored {
        Stored::starting_after(View(0), OpNumber(0), Digest(0))
    }

    /// The latest view in which the replica was normal.
    #[must_use]
    pub fn last_normal(&self) -> View {
        self.last_normal
    }

    /// The last op.
    #[must_use]
    pub fn op(&self) -> OpNumber {
        self.log.op()
    }

    /// The digest of the log.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.log.digest()
    }

    /// The op of the latest checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Option<OpNumber> {
        self.checkpoint.as_ref().map(|checkpoint| checkpoint.0)
    }

    /// Takes one write.
    ///
    /// # Errors
    /// It doesn't follow what is here, which is then unusable.
    pub fn apply(&mut self, write: Write) -> Result<(), StoredError> {
        match write {
            Write::Append {
                after,
                entries,
                digest,
                ..
            } => {
                let op = self.log.op();
                if after != op {
                    return Err(StoredError::Gap { after, op });
                }
                self.append(entries, digest)
            }
            Write::Enter {
                view,
                after,
                digest_after,
                entries,
                digest,
                ..
            } => {
                let last_normal = self.last_normal;
                if view < last_normal {
                    return Err(StoredError::View { view, last_normal });
                }
                if self.log.digest_at(after) == Some(digest_after) {
                    self.log.truncate(after);
                } else {
                    self.log = Log::starting_after(after, digest_after);
                }
                self.last_normal = view;
                self.append(entries, digest)
            }
            Write::Checkpoint {
                op,
                log_digest,
                bytes,
            } => {
                if self.checkpoint().is_none_or(|known| known < op) {
                    self.checkpoint = Some((op, log_digest, bytes));
                    self.log.trim(op);
                }
                Ok(())
            }
        }
    }

    fn append(
        &mut self,
        entries: Vec<crate::message::Entry>,
        digest: Digest,
    ) -> Result<(), StoredError> {
        for entry in entries {
            self.log.append(entry);
        }
        if self.log.digest() == digest || active(Mutation::TornTailTakenWhole) {
            Ok(())
        } else {
            Err(StoredError::Digest(self.log.op()))
        }
    }

    pub(super) fn into_parts(self) -> (View, Log, Option<StoredCheckpoint>) {
        (self.last_normal, self.log, self.checkpoint)
    }
}
