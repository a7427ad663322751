//! A file system that forgets what wasn't synced, and keeps some of what wasn't synced only in part: for tests, and for the
//! simulator's disks.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::Files;

/// One directory: what programs see, and what would be there after a power cut.
#[derive(Clone, Debug, Default)]
pub struct Forgetful(Arc<Mutex<Disk>>);

/// What is in it.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Each file's bytes as programs see them.
    pub seen: BTreeMap<String, Vec<u8>>,
    /// Bytes of each file, whatever its name, as last synced.
    synced: BTreeMap<String, Vec<u8>>,
    /// Names as last synced.
    names: Vec<String>,
    /// Operations that still succeed, all if None; then the disk is full.
    pub left: Option<usize>,
}

impl Disk {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Vec<u8>> {
        self.seen
            .get_mut(name)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The power goes. Files keep what was synced; of what was written since, a part may be there, wrong bytes included.
    /// `below` draws a number below its argument, or 0.
    pub fn lose_power(&mut self, mut below: impl FnMut(usize) -> usize) {
        let mut after = BTreeMap::new();
        for (name, seen) in &self.seen {
            let kept = self.names.contains(name);
            if !kept && below(2) == 0 {
                continue;
            }
            let mut bytes = self.synced.get(name).cloned().unwrap_or_default();
            if let Some(since) = seen.get(bytes.len()..) {
                // The length may be there without all of the bytes.
                let length = match below(3) {
                    0 => since.len(),
                    _ => below(since.len() + 1),
                };
                let mut since = since[..length].to_vec();
                if !since.is_empty() && below(2) == 0 {
                    let at = below(since.len());
                    let end = match below(2) {
                        0 => since.len(),
                        _ => at + 1 + below(since.len() - at),
                    };
                    since[at..end].fill(0);
                }
                bytes.extend(since);
            }
            after.insert(name.clone(), bytes);
        }
        self.names = after.keys().cloned().collect();
        self.synced = after.clone();
        self.seen = after;
        self.left = None;
    }
}

impl Forgetful {
    /// What is in it, to be looked at and tampered with.
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        // Bytes and names are consistent whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another directory with the same files.
    #[must_use]
    pub fn copy(&self) -> Forgetful {
        Forgetful(Arc::new(Mutex::new(self.disk().clone())))
    }

    /// The log's file that was begun last, if there is one.
    #[must_use]
    pub fn last_log(&self) -> Option<String> {
        let disk = self.disk();
        let mut names = disk.seen.keys().filter(|name| name.starts_with("log-"));
        names.next_back().cloned()
    }
}

impl Files for Forgetful {
    fn another(&self) -> Forgetful {
        self.clone()
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/disk").join(name)
    }

    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.disk().seen.keys().cloned().collect())
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        self.disk().file(name).cloned()
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        disk.seen.insert(name.to_owned(), Vec::new());
        disk.synced.remove(name);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        disk.file(name)?.extend_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        disk.file(name)?.truncate(length);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        let bytes = disk.file(name)?.clone();
        disk.synced.insert(name.to_owned(), bytes);
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        disk.names = disk.seen.keys().cloned().collect();
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        let bytes = std::mem::take(disk.file(from)?);
        disk.seen.remove(from);
        disk.seen.insert(to.to_owned(), bytes);
        if let Some(bytes) = disk.synced.remove(from) {
            disk.synced.insert(to.to_owned(), bytes);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        disk.seen.remove(name);
        Ok(())
    }
}
