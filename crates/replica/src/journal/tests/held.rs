//! A disk whose syncs take as long as the test wants.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use electrode_journal::Files;
use electrode_journal::forgetful::Forgetful;

#[derive(Default)]
struct Gate {
    shut: bool,
    /// Somebody waits for it.
    waits: bool,
    /// Syncs of files of the log that are through.
    log_syncs: usize,
}

/// A [`Forgetful`] disk with a gate before each sync.
#[derive(Clone, Default)]
pub(super) struct Held {
    files: Forgetful,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

impl Held {
    fn change<T>(&self, change: impl FnOnce(&mut Gate) -> T) -> T {
        let changed = change(&mut self.gate.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.gate.1.notify_all();
        changed
    }

    /// From now on syncs wait.
    pub(super) fn hold(&self) {
        self.change(|gate| gate.shut = true);
    }

    /// They go on.
    pub(super) fn release(&self) {
        self.change(|gate| gate.shut = false);
    }

    /// Returns when a sync is waiting.
    pub(super) fn wait_for_a_sync(&self) {
        let gate = self.gate.0.lock().unwrap();
        let minute = Duration::from_secs(60);
        let waited = self
            .gate
            .1
            .wait_timeout_while(gate, minute, |gate| !gate.waits);
        assert!(waited.unwrap().0.waits, "no sync within a minute");
    }

    pub(super) fn log_syncs(&self) -> usize {
        self.change(|gate| gate.log_syncs)
    }
}

impl Files for Held {
    fn another(&self) -> Held {
        self.clone()
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut gate = self.gate.0.lock().unwrap();
        gate.waits = true;
        self.gate.1.notify_all();
        gate = self.gate.1.wait_while(gate, |gate| gate.shut).unwrap();
        gate.waits = false;
        gate.log_syncs += usize::from(name.starts_with("log-"));
        drop(gate);
        self.files.sync(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path(name)
    }

    fn list(&mut self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        self.files.read(name)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.files.create(name)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.files.append(name, bytes)
    }

    fn overwrite(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.files.overwrite(name, bytes)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.files.truncate(name, length)
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.files.sync_directory()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }
}
