//! The thread that writes: takes what has queued up, syncs once, tells. When nothing has come for a while it marks what is
//! durable, so that a busy log pays nothing for the mark.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use electrode_journal::{DiskLog, Files, write_checkpoint};
use electrode_vr::{OpNumber, View, Write};

use super::{Command, DiskError, Shared};

/// Writes that are synced together at most: their acknowledgements wait for the last of them.
pub(super) const GROUP: usize = 1024;

/// A thread that writes a checkpoint, and where it says what came of it.
type Checkpointing = (JoinHandle<()>, Receiver<Result<OpNumber, DiskError>>);

pub(super) struct Writer<F> {
    pub(super) log: DiskLog<F>,
    pub(super) shared: Arc<Shared>,
    /// After so long without anything to do it marks what is durable.
    pub(super) idle: Duration,
    /// For the thread that writes a checkpoint.
    pub(super) commands: SyncSender<Command>,
    /// A checkpoint may be large, and nobody waits for it: a thread writes it beside.
    pub(super) checkpointing: Option<Checkpointing>,
    /// The next one, if there is one already; an older one that never began is superfluous then.
    pub(super) waiting: Option<(OpNumber, Write)>,
    /// Who waits for the present group. Kept until an error is told: that the answer never comes is noticed after it.
    pub(super) barrier: Option<SyncSender<()>>,
}

impl<F: Files> Writer<F> {
    /// Until it is told to stop, or an error: then what is on disk isn't known, and nothing more is said of it.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        if let Err(error) = self.serve(commands) {
            self.shared.news().failed = Some(error);
            self.shared.ring();
        }
    }

    fn serve(&mut self, commands: &Receiver<Command>) -> Result<(), DiskError> {
        // What a start has read is durable, and whoever stopped before may have had no time to say so.
        self.log.mark()?;
        while let Some(first) = self.next(commands)? {
            if !self.turn(first, commands)? {
                self.finish_checkpoints()?;
                break;
            }
        }
        self.log.mark()
    }

    /// What is to be done next; None: there will be nothing more.
    fn next(&mut self, commands: &Receiver<Command>) -> Result<Option<Command>, DiskError> {
        if !self.log.marked() {
            match commands.recv_timeout(self.idle) {
                Ok(command) => return Ok(Some(command)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.log.mark()?,
            }
        }
        Ok(commands.recv().ok())
    }

    /// One group: false when it was the last.
    fn turn(&mut self, first: Command, commands: &Receiver<Command>) -> Result<bool, DiskError> {
        let mut persisted = None;
        let mut goes_on = true;
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(command) = next {
            match command {
                Command::Write(write) => persisted = self.write(write)?.or(persisted),
                Command::Wake => {}
                Command::Barrier(done) => {
                    self.barrier = Some(done);
                    break;
                }
                Command::Stop => {
                    goes_on = false;
                    break;
                }
            }
            taken += 1;
            next = if taken < GROUP {
                commands.try_recv().ok()
            } else {
                None
            };
        }
        if self.log.dirty() {
            self.log.sync()?;
            self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        }
        if persisted.is_some() {
            self.shared.news().persisted = persisted;
            self.shared.ring();
        }
        if let Some(done) = self.barrier.take() {
            // Whoever asked may be gone: the replica is stopping.
            let _ = done.send(());
        }
        self.look_at_checkpoint()?;
        Ok(goes_on)
    }

    fn write(&mut self, write: Write) -> Result<Option<(View, OpNumber)>, DiskError> {
        self.shared.writes.fetch_add(1, Ordering::Relaxed);
        let persisted = match &write {
            Write::Checkpoint { op, .. } => {
                let op = *op;
                self.log.rotate()?;
                self.waiting = Some((op, write));
                return self.look_at_checkpoint().map(|()| None);
            }
            Write::Enter { .. } => {
                // It may begin where a checkpoint ends.
                self.finish_checkpoints()?;
                None
            }
            Write::Append {
                view,
                after,
                entries,
                ..
            } => Some((*view, OpNumber(after.0 + entries.len() as u64))),
        };
        self.log.write(&write)?;
        Ok(persisted)
    }

    /// Lets go of what a finished checkpoint made superfluous, and begins the next one.
    fn look_at_checkpoint(&mut self) -> Result<(), DiskError> {
        if let Some((_, result)) = &self.checkpointing {
            match result.try_recv() {
                Ok(written) => self.checkpointed(written)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(DiskError::Gone),
            }
        }
        let Some((op, write)) = self.waiting.take() else {
            return Ok(());
        };
        let mut files = self.log.files().another();
        let commands = self.commands.clone();
        let (what, path) = ("starting a thread for", files.path(""));
        let (done, result) = sync_channel(1);
        let thread = thread::Builder::new().name("checkpoint".into());
        let started = thread.spawn(move || {
            let written = write_checkpoint(&mut files, op, &write);
            let _ = done.send(written.map(|()| op));
            // When the queue is full the writer looks anyway.
            let _ = commands.try_send(Command::Wake);
        });
        self.checkpointing = Some((
            started.map_err(|source| DiskError::Io { what, path, source })?,
            result,
        ));
        Ok(())
    }

    fn checkpointed(&mut self, written: Result<OpNumber, DiskError>) -> Result<(), DiskError> {
        if let Some((thread, _)) = self.checkpointing.take() {
            let _ = thread.join();
        }
        self.log.trim(written?)
    }

    /// Waits for all checkpoints.
    fn finish_checkpoints(&mut self) -> Result<(), DiskError> {
        while let Some((_, result)) = &self.checkpointing {
            let written = result.recv().unwrap_or(Err(DiskError::Gone));
            self.checkpointed(written)?;
            self.look_at_checkpoint()?;
        }
        Ok(())
    }
}
