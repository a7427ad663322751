//! A file system that forgets what wasn't synced, and keeps some of what wasn't synced only in part: for tests, and for the
//! simulator's disks.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
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
    /// Of each file, what a program was told is durable.
    confirmed: BTreeMap<String, Confirmed>,
    /// Of each file, where what was appended since its last sync begins.
    appended: BTreeMap<String, Vec<usize>>,
    /// Of each file, what was synced together with something that was appended later.
    together: BTreeMap<String, Vec<Range<usize>>>,
    /// Names as last synced.
    names: Vec<String>,
    /// Operations that still succeed, all if None; then the disk is full.
    pub left: Option<usize>,
}

/// How much of a file a program was told is durable, whatever the file says of itself. A power cut changes nothing in it:
/// what survives by luck was never confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// Bytes.
    pub length: usize,
    /// Bytes before the last sync that made it more.
    pub before: usize,
}

impl Disk {
    /// How much of a file a program was told is durable.
    #[must_use]
    pub fn confirmed(&self, name: &str) -> Confirmed {
        self.confirmed.get(name).copied().unwrap_or_default()
    }

    /// The bytes of a file that were synced together with something that was appended after them.
    #[must_use]
    pub fn synced_together(&self, name: &str) -> &[Range<usize>] {
        self.together.get(name).map_or(&[], Vec::as_slice)
    }

    /// Nothing is known of a file of this name any more.
    fn forget(&mut self, name: &str) {
        self.confirmed.remove(name);
        self.appended.remove(name);
        self.together.remove(name);
    }

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
            let front = bytes.len().min(seen.len());
            if bytes[..front] != seen[..front] {
                // Written over and not synced: not yet, wholly, or in part.
                let new = match below(3) {
                    0 => 0,
                    1 => front,
                    _ => below(front + 1),
                };
                bytes[..new].copy_from_slice(&seen[..new]);
            }
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
        self.confirmed.retain(|name, _| after.contains_key(name));
        self.together.retain(|name, _| after.contains_key(name));
        self.appended.clear();
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

    /// Changes a file behind everybody's back, or makes it vanish; what was confirmed stays confirmed.
    pub fn tamper(&self, name: &str, bytes: Option<Vec<u8>>) {
        let mut disk = self.disk();
        match bytes {
            Some(bytes) => {
                disk.seen.insert(name.to_owned(), bytes.clone());
                disk.synced.insert(name.to_owned(), bytes);
            }
            None => {
                disk.seen.remove(name);
                disk.synced.remove(name);
            }
        }
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
        disk.forget(name);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        let file = disk.file(name)?;
        let start = file.len();
        file.extend_from_slice(bytes);
        disk.appended
            .entry(name.to_owned())
            .or_default()
            .push(start);
        Ok(())
    }

    fn overwrite(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        let file = disk.seen.entry(name.to_owned()).or_default();
        file.resize(file.len().max(bytes.len()), 0);
        file[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        disk.file(name)?.truncate(length);
        if let Some(confirmed) = disk.confirmed.get_mut(name) {
            confirmed.length = confirmed.length.min(length);
            confirmed.before = confirmed.before.min(length);
        }
        disk.appended.remove(name);
        if let Some(together) = disk.together.get_mut(name) {
            together.retain(|range| range.end <= length);
        }
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        let bytes = disk.file(name)?.clone();
        let appended = disk.appended.remove(name).unwrap_or_default();
        if let [first, .., last] = appended[..] {
            let together = disk.together.entry(name.to_owned()).or_default();
            together.push(first..last);
        }
        let known = disk.confirmed(name);
        if known.length < bytes.len() {
            let confirmed = Confirmed {
                length: bytes.len(),
                before: known.length,
            };
            disk.confirmed.insert(name.to_owned(), confirmed);
        }
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
        if let Some(confirmed) = disk.confirmed.remove(from) {
            disk.confirmed.insert(to.to_owned(), confirmed);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        disk.seen.remove(name);
        disk.forget(name);
        Ok(())
    }
}
