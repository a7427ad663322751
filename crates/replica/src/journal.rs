//! The log on disk, in disk mode: written and synced by a thread of its own, so that the replica's thread never waits for
//! the disk while requests are flowing. What it writes and reads is `electrode-journal`'s.
//!
//! Group commit comes by itself: whatever has queued up while the disk was busy is written together and synced once. The
//! thread then rings an event that the reactor watches. Only what happens at view changes is waited for.

mod directory;
#[cfg(test)]
mod tests;
mod writer;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use electrode_journal::DiskError;
use electrode_journal::{DiskLog, Files};
pub(crate) use electrode_journal::{Found, Identity};
use electrode_vr::{OpNumber, View, Write};
use rustix::event::{EventfdFlags, eventfd};

use crate::calls::counted;
use directory::Directory;
use writer::Writer;

/// The directory in the state directory.
const DIRECTORY: &str = "log";
/// Writes that wait for the thread; the core's limit on uncommitted ops keeps them fewer, and beyond it the replica waits.
const QUEUE: usize = 4096;
/// After so long without writes, what is durable is marked: so seldom that a sync more is nothing, and before the last
/// writes are old.
const IDLE: Duration = Duration::from_millis(250);

/// What the thread is told.
enum Command {
    Write(Write),
    /// Answer when everything before this is durable.
    Barrier(SyncSender<()>),
    /// The thread that writes a checkpoint is about to end.
    Wake,
    /// Write what came before this, and end.
    Stop,
}

/// What the thread tells.
#[derive(Debug)]
struct Shared {
    event: OwnedFd,
    news: Mutex<News>,
    syncs: AtomicU64,
    writes: AtomicU64,
}

#[derive(Debug, Default)]
struct News {
    /// The last append that is durable.
    persisted: Option<(View, OpNumber)>,
    failed: Option<DiskError>,
}

/// The replica's end: give it writes, and look at it when it rings.
#[derive(Debug)]
pub(crate) struct Journal {
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Where the log of a state directory is.
pub(crate) fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join(DIRECTORY)
}

/// Refuses to forget a log: a replica that runs in memory must not have one.
pub(crate) fn refuse_leftover(state_dir: &Path, identity: Identity) -> Result<(), DiskError> {
    let directory = directory(state_dir);
    if !directory.exists() {
        return Ok(());
    }
    match DiskLog::open(Directory::new(&directory), identity) {
        Ok((_, None)) => Ok(()),
        Ok((_, Some(_))) | Err(DiskError::Damaged { .. }) => Err(DiskError::InMemory(directory)),
        Err(error) => Err(error),
    }
}

/// Moves a damaged log aside, for whoever wants to look at it; the replica then begins a new one. Returns where it is.
pub(crate) fn set_aside(state_dir: &Path) -> Result<PathBuf, DiskError> {
    let from = directory(state_dir);
    let mut names = (1_u32..).map(|number| state_dir.join(format!("{DIRECTORY}.damaged-{number}")));
    let to = names
        .find(|path| !path.exists())
        .expect("some number is free");
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| DiskError::Io { what, path, source }
    };
    std::fs::rename(&from, &to).map_err(failed("renaming", &from))?;
    std::fs::File::open(state_dir)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("syncing", state_dir))?;
    Ok(to)
}

impl Journal {
    /// Opens the log of this state directory, and starts the thread. What was found is `None` where there is no log.
    pub(crate) fn open(
        state_dir: &Path,
        identity: Identity,
    ) -> Result<(Journal, Option<Found>), DiskError> {
        let directory = directory(state_dir);
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| DiskError::Io { what, path, source }
        };
        std::fs::create_dir_all(&directory).map_err(failed("creating", &directory))?;
        std::fs::File::open(state_dir)
            .and_then(|parent| parent.sync_all())
            .map_err(failed("syncing", state_dir))?;
        let (log, found) = DiskLog::open(Directory::new(&directory), identity)?;
        let journal =
            Journal::start(log, IDLE).map_err(failed("starting a thread for", &directory))?;
        Ok((journal, found))
    }

    fn start<F: Files>(log: DiskLog<F>, idle: Duration) -> std::io::Result<Journal> {
        let (commands, receiver) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            news: Mutex::default(),
            syncs: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        });
        let writer = Writer {
            log,
            shared: shared.clone(),
            idle,
            commands: commands.clone(),
            checkpointing: None,
            waiting: None,
            barrier: None,
        };
        let thread = thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(&receiver))?;
        Ok(Journal {
            commands,
            shared,
            thread: Some(thread),
        })
    }

    /// Takes a write; an Enter is durable, and all before it, when this returns.
    pub(crate) fn write(&mut self, write: Write) -> Result<(), DiskError> {
        let enters = matches!(write, Write::Enter { .. });
        self.tell(Command::Write(write))?;
        if enters { self.barrier() } else { Ok(()) }
    }

    /// Waits until all appends are durable.
    pub(crate) fn barrier(&mut self) -> Result<(), DiskError> {
        let (done, wait) = sync_channel(1);
        self.tell(Command::Barrier(done))?;
        counted(|| wait.recv()).map_err(|_| self.error())
    }

    fn tell(&mut self, command: Command) -> Result<(), DiskError> {
        counted(|| self.commands.send(command)).map_err(|_| self.error())
    }

    /// After it rang: the last append that is durable, if there is a new one.
    pub(crate) fn persisted(&mut self) -> Result<Option<(View, OpNumber)>, DiskError> {
        // A level-triggered event is read before the news, so that later news ring again.
        let _ = counted(|| rustix::io::read(&self.shared.event, &mut [0; 8]));
        let mut news = self.shared.news();
        match news.failed.take() {
            Some(error) => Err(error),
            None => Ok(news.persisted.take()),
        }
    }

    /// Writes and syncs so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.shared.writes), read(&self.shared.syncs))
    }

    fn error(&self) -> DiskError {
        self.shared.news().failed.take().unwrap_or(DiskError::Gone)
    }
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

impl Drop for Journal {
    /// What was given is written before the process goes on: a replica that is told to stop loses nothing.
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn news(&self) -> MutexGuard<'_, News> {
        // Two plain values are consistent whatever panicked.
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // A full counter has rung already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}
