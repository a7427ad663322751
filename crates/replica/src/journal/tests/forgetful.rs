//! A file system that forgets what wasn't synced, and some of what wasn't synced only in part.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::journal::files::Files;

/// Enough for tests.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

/// One directory: what programs see, and what would be there after a power cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Forgetful(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) seen: BTreeMap<String, Vec<u8>>,
    /// Bytes of each file, whatever its name, as last synced.
    synced: BTreeMap<String, Vec<u8>>,
    /// Names as last synced.
    names: Vec<String>,
    /// Operations that still succeed.
    pub(super) left: Option<usize>,
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

    /// Files keep what was synced; of what was written since, a part may be there, wrong bytes included.
    pub(super) fn lose_power(&mut self, random: &mut Random) {
        let mut after = BTreeMap::new();
        for (name, seen) in &self.seen {
            let kept = self.names.contains(name);
            if !kept && random.below(2) == 0 {
                continue;
            }
            let mut bytes = self.synced.get(name).cloned().unwrap_or_default();
            if let Some(since) = seen.get(bytes.len()..) {
                let mut since = since[..random.below(since.len() + 1)].to_vec();
                if !since.is_empty() && random.below(2) == 0 {
                    let at = random.below(since.len());
                    since[at..].fill(0);
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
    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    pub(super) fn last_log(&self) -> String {
        let disk = self.disk();
        let mut names = disk.seen.keys().filter(|name| name.starts_with("log-"));
        names.next_back().unwrap().clone()
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
        Ok(self.disk().seen[name].clone())
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
        disk.seen.get_mut(name).unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        let length = usize::try_from(length).unwrap();
        disk.seen.get_mut(name).unwrap().truncate(length);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend()?;
        let bytes = disk.seen[name].clone();
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
        let bytes = disk.seen.remove(from).unwrap();
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
