//! Disk mode (docs/protocol.md, "Durability"): what is written to the log on disk, what waits for it, and how a replica
//! comes up from it.
//!
//! Appends are written while the protocol goes on; acknowledgements, and the primary's own vote, wait for `Persisted`.
//! What happens at view changes alone (promises, a view's first log) is durable before anything of it is said.

use alloc::vec::Vec;

use super::Replica;
use super::checkpoint::Checkpoint;
use super::log::digest_of;
use super::recovery::Recovery;
use super::stored::Stored;
use crate::config::{Config, Durability, Start};
use crate::effect::{Effect, Promise, Write};
use crate::ids::{Nonce, OpNumber, Time, View};
use crate::message::Entry;
use crate::mutations::{Mutation, active};
use crate::state_machine::{RestoreError, StateMachine};
use crate::status::Status;

/// How the log on disk compares to the one in memory.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Disk {
    /// Everything up to here survives a crash.
    durable: OpNumber,
    /// The log on disk is, or will be, the one in memory up to here.
    written: OpNumber,
    /// The last view that was entered on disk.
    entered: Option<View>,
    /// The state came from disk, and the first tick begins with it.
    pub(super) resuming: bool,
}

impl Disk {
    /// The log in memory begins anew after `op`.
    pub(super) fn restarted_after(&mut self, op: OpNumber) {
        self.written = op;
        self.durable = self.durable.min(op);
    }
}

impl<S: StateMachine> Replica<S> {
    /// A replica that comes up with what its disk has, and without the others' help. Its first effects come with the first
    /// [`crate::Input::Tick`], due at once.
    ///
    /// # Errors
    /// What is stored is no state of this replica: the checkpoint is missing or not of this state machine, or the log
    /// is of a view that was never promised.
    ///
    /// # Panics
    /// As [`Replica::new`]; or the configuration isn't one of disk mode.
    pub fn restore(
        config: Config,
        promise: Promise,
        stored: Stored,
        machine: S,
        now: Time,
        entropy: Nonce,
    ) -> Result<Replica<S>, RestoreError> {
        assert!(config.durability == Durability::Disk, "there is no disk");
        let mut replica = Replica::new(config, Start::Recover(promise), machine, now, entropy);
        let (last_normal, log, checkpoint) = stored.into_parts();
        if last_normal > promise.view {
            return Err(RestoreError(alloc::format!(
                "its log is of view {last_normal}, but only view {} was promised",
                promise.view
            )));
        }
        if let Some((op, log_digest, bytes)) = checkpoint {
            let digest = digest_of(&bytes);
            replica.restore_checkpoint(Checkpoint {
                op,
                log_digest,
                digest,
                bytes,
            })?;
        }
        let (commit, digest) = (replica.commit, replica.log.digest());
        let joins = log.digest_at(commit) == Some(digest);
        if joins {
            replica.log = log;
            replica.trim_log();
        } else if log.base() > commit {
            return Err(RestoreError(alloc::format!(
                "the log begins after op {}, but there is no checkpoint of it",
                log.base()
            )));
        }
        // Otherwise the log ends before the checkpoint, or is of ops that lost to those in it: it begins anew on disk, too,
        // when a view is entered.
        let op = replica.log.op();
        replica.last_normal = last_normal;
        replica.view = last_normal;
        replica.floor = (last_normal, promise.view, commit);
        replica.disk = Disk {
            durable: op,
            written: op,
            entered: joins.then_some(last_normal),
            resuming: true,
        };
        Ok(replica)
    }

    /// Takes part again, with what the disk had.
    pub(super) fn resume(&mut self, out: &mut Vec<Effect>) {
        self.disk.resuming = false;
        self.recovery = Recovery::new(self.config.replicas);
        let view = self.promised;
        if self.last_normal < view {
            return self.vote(view, out);
        }
        if self.leads(self.config.index, view) {
            // It may have sent ops that its disk lost, and must not send others under their numbers: this view is over.
            return self.enter_view_change(view.next(), out);
        }
        self.follow(view, out);
    }

    pub(super) fn on_disk(&self) -> bool {
        self.config.durability == Durability::Disk
    }

    /// The last op that may be acknowledged, or counted as this replica's own.
    pub(super) fn durable(&self) -> OpNumber {
        let early = if self.is_primary() {
            active(Mutation::PrimaryCountsItselfBeforeDurable)
        } else {
            active(Mutation::AckBeforeWriteDurable)
        };
        if self.on_disk() && !early {
            self.disk.durable
        } else {
            self.log.op()
        }
    }

    /// Appends to the log, and to the one on disk.
    pub(super) fn append(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
        out: &mut Vec<Effect>,
    ) {
        let after = self.log.op();
        for entry in entries {
            self.log.append(entry);
        }
        if !self.on_disk() || self.log.op() == after {
            return;
        }
        assert!(
            self.disk.written == after,
            "the disk has another log than the memory"
        );
        self.disk.written = self.log.op();
        out.push(Effect::Write(Write::Append {
            view: self.view,
            after,
            entries: self.log.after(after),
            digest: self.log.digest(),
        }));
    }

    /// Drops everything past `op`; the disk follows when a view is entered.
    pub(super) fn truncate(&mut self, op: OpNumber) {
        self.log.truncate(op);
        self.disk.written = self.disk.written.min(op);
        self.disk.durable = self.disk.durable.min(op);
    }

    /// The view is about to be entered with this log: all of it is durable before anything of it is said.
    pub(super) fn write_entered(&mut self, out: &mut Vec<Effect>) {
        if !self.on_disk()
            || (self.disk.entered == Some(self.view) && self.disk.durable == self.log.op())
        {
            return;
        }
        let after = self.disk.written;
        self.disk.entered = Some(self.view);
        self.disk.written = self.log.op();
        self.disk.durable = self.log.op();
        out.push(Effect::Write(Write::Enter {
            group: self.group,
            view: self.view,
            after,
            digest_after: self
                .log
                .digest_at(after)
                .expect("what isn't written isn't trimmed"),
            entries: self.log.after(after),
            digest: self.log.digest(),
        }));
    }

    /// The latest checkpoint goes to disk.
    pub(super) fn write_checkpoint(&mut self, out: &mut Vec<Effect>) {
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| self.on_disk()) else {
            return;
        };
        out.push(Effect::Write(Write::Checkpoint {
            op: checkpoint.op,
            log_digest: checkpoint.log_digest,
            bytes: checkpoint.bytes.clone(),
        }));
    }

    /// A backup jumped to a checkpoint within its view: the log on disk begins anew there.
    pub(super) fn write_installed(&mut self, out: &mut Vec<Effect>) {
        if self.disk.written != self.log.op() || self.disk.durable != self.log.op() {
            self.write_checkpoint(out);
            self.write_entered(out);
        }
    }

    /// Everything written so far is durable by the time that what follows takes place.
    pub(super) fn disk_caught_up(&mut self) {
        self.disk.durable = self.disk.written.min(self.log.op());
    }

    /// Appends are durable: a backup acknowledges them, a primary counts itself.
    pub(super) fn on_persisted(&mut self, view: View, op: OpNumber, out: &mut Vec<Effect>) {
        if self.status != Status::Normal || view != self.view || op <= self.disk.durable {
            return self.ignore_persisted();
        }
        assert!(
            op <= self.disk.written,
            "the disk has op {op}, which was never written"
        );
        self.disk.durable = op;
        if self.is_primary() {
            self.advance_commit(out);
        } else {
            self.acknowledge_log(out);
        }
    }

    /// Of an earlier view, or known.
    fn ignore_persisted(&self) {}
}
