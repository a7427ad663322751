//! The log on disk and whoever writes it; the counterpart of `crates/replica/src/journal.rs` and its `writer.rs`. What is
//! written is the shipped `electrode-journal`'s; the thread is a row of moments here.

use std::collections::VecDeque;

use electrode_journal::forgetful::Forgetful;
use electrode_journal::{DiskError, DiskLog, Files as _, Found, Identity, write_checkpoint};
use electrode_vr::{OpNumber, View, Write};

use crate::disk::{Book, Disk};
use crate::plan::US;
use crate::random::Random;

/// How often, per mille of its idle moments, the thread finds that it has been idle for long enough to mark what is durable.
const MARKS: u64 = 30;

/// What the thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It takes what has queued up.
    Write,
    /// It syncs what it wrote.
    Sync,
}

/// The log of a process, and its queue; both go with it.
pub(crate) struct Journal {
    log: DiskLog<Forgetful>,
    queue: VecDeque<Write>,
    stage: Stage,
    /// The last append that was written and isn't synced.
    appended: Option<(View, OpNumber)>,
    /// A checkpoint that is being written beside, and the one after it.
    checkpointing: Option<(OpNumber, Write)>,
    waiting: Option<(OpNumber, Write)>,
    /// Nanoseconds that one of its moments takes at most.
    delay: u64,
    /// When it goes on, in simulated nanoseconds; None: it has nothing to do.
    due: Option<u64>,
    persisted: Option<(View, OpNumber)>,
    failed: Option<DiskError>,
}

impl Journal {
    /// Opens the log in a machine's files.
    pub(crate) fn open(
        disk: &Disk,
        identity: Identity,
        delay: u64,
    ) -> Result<(Journal, Option<Found>), DiskError> {
        let (log, found) = DiskLog::open(disk.files.clone(), identity)?;
        let journal = Journal {
            log,
            queue: VecDeque::new(),
            stage: Stage::Write,
            appended: None,
            checkpointing: None,
            waiting: None,
            delay,
            due: None,
            persisted: None,
            failed: None,
        };
        Ok((journal, found))
    }

    /// When the thread goes on.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due
    }

    /// Whether it has rung and wasn't looked at.
    pub(crate) fn rings(&self) -> bool {
        self.persisted.is_some() || self.failed.is_some()
    }

    /// Takes a write; an Enter is durable, and all before it, when this returns.
    pub(super) fn write(
        &mut self,
        write: Write,
        book: &mut Book,
        at: u64,
        random: &mut Random,
    ) -> Result<(), DiskError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let enters = matches!(write, Write::Enter { .. });
        self.queue.push_back(write);
        if enters {
            return self.barrier(book);
        }
        if self.due.is_none() {
            self.due = Some(at + self.moment(random));
        }
        Ok(())
    }

    /// Waits until all appends are durable. (No time passes for it here.)
    pub(super) fn barrier(&mut self, book: &mut Book) -> Result<(), DiskError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while let Some(write) = self.queue.pop_front() {
            self.take(write, book)?;
        }
        self.sync(book)
    }

    /// After it rang: the last append that is durable, if there is a new one.
    pub(super) fn persisted(&mut self) -> Result<Option<(View, OpNumber)>, DiskError> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(self.persisted.take()),
        }
    }

    /// The thread goes on.
    pub(crate) fn go_on(&mut self, book: &mut Book, now: u64, random: &mut Random) {
        self.due = None;
        if let Err(error) = self.step(book, random) {
            // What is on disk isn't known, and nothing more is said of it.
            self.failed = Some(error);
            self.persisted = None;
            return;
        }
        let unfinished = self.checkpointing.is_some() || !self.log.marked();
        if !self.queue.is_empty() || self.stage == Stage::Sync || unfinished {
            self.due = Some(now + self.moment(random));
        }
    }

    fn step(&mut self, book: &mut Book, random: &mut Random) -> Result<(), DiskError> {
        if self.checkpointing.is_some() && random.chance(300) {
            self.finish_checkpoint()?;
        }
        match self.stage {
            Stage::Write if self.queue.is_empty() => {
                if random.chance(MARKS) {
                    self.mark(book)?;
                }
                Ok(())
            }
            // The system has it do nothing for a while, and more queues up.
            Stage::Write if random.chance(400) => Ok(()),
            Stage::Write => {
                let group = match random.below(2) {
                    0 => self.queue.len(),
                    _ => 1 + random.index(self.queue.len()),
                };
                for write in self
                    .queue
                    .drain(..group.min(self.queue.len()))
                    .collect::<Vec<_>>()
                {
                    self.take(write, book)?;
                }
                self.stage = Stage::Sync;
                Ok(())
            }
            Stage::Sync => self.sync(book),
        }
    }

    fn take(&mut self, write: Write, book: &mut Book) -> Result<(), DiskError> {
        match &write {
            Write::Checkpoint { op, .. } => {
                let op = *op;
                // With the new file comes a mark.
                book.unmarked();
                self.log.rotate()?;
                book.synced();
                book.marked(self.log.files());
                // An older one that never began is superfluous.
                self.waiting = Some((op, write));
                self.look_at_checkpoint();
                return Ok(());
            }
            // It may begin where a checkpoint ends.
            Write::Enter { .. } => {
                while self.checkpointing.is_some() {
                    self.finish_checkpoint()?;
                }
            }
            Write::Append {
                view,
                after,
                entries,
                ..
            } => self.appended = Some((*view, OpNumber(after.0 + entries.len() as u64))),
        }
        self.log.write(&write)?;
        book.wrote(&write);
        Ok(())
    }

    fn sync(&mut self, book: &mut Book) -> Result<(), DiskError> {
        if self.log.dirty() {
            self.log.sync()?;
        }
        book.synced();
        self.stage = Stage::Write;
        self.persisted = self.appended.take().or(self.persisted);
        Ok(())
    }

    /// Nothing has come for a while, or it has just been opened.
    pub(crate) fn mark(&mut self, book: &mut Book) -> Result<(), DiskError> {
        if !self.log.marked() {
            // Until it is synced it may be torn.
            book.unmarked();
            self.log.mark()?;
            book.marked(self.log.files());
        }
        Ok(())
    }

    fn look_at_checkpoint(&mut self) {
        if self.checkpointing.is_none() {
            self.checkpointing = self.waiting.take();
        }
    }

    fn finish_checkpoint(&mut self) -> Result<(), DiskError> {
        if let Some((op, write)) = self.checkpointing.take() {
            let mut beside = self.log.files().another();
            write_checkpoint(&mut beside, op, &write)?;
            self.log.trim(op)?;
            self.look_at_checkpoint();
        }
        Ok(())
    }

    fn moment(&self, random: &mut Random) -> u64 {
        10 * US + random.below(self.delay)
    }
}
