//! The state directory: the one thing that a replica must not forget, its promise (protocol.md, rule 4).
//!
//! A small versioned text file, replaced as a whole: written beside, synced, renamed, and the directory synced. What
//! doesn't read back exactly is an error, never a first start. A lock keeps two processes from sharing the directory.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use electrode_vr::{GroupId, Promise, ReplicaId, View};
use rustix::fs::{FlockOperation, flock};

use crate::calls::counted;

/// The first line of the file.
const FORMAT: &str = "electrode-state 1";
/// The file.
const FILE: &str = "promise";
/// What the file is called while it is being written.
const TEMPORARY: &str = "promise.new";
/// The file that is locked; it stays empty.
const LOCK: &str = "lock";

/// Why the state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("{0} is in use by another replica; give each its own --state-dir")]
    Locked(PathBuf),
    /// The file isn't what this program writes.
    #[error(
        "{path}:{line}: expected {expected}. The file is damaged, and with it this replica's promise is unknown: it \
         must not start as if it were new. Restore the file as it was"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What should stand there.
        expected: String,
    },
    /// The file is that of another replica or another group size.
    #[error(
        "{path}: written by replica {stored_index} of {stored_replicas}, but this is replica {index} of {replicas}"
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        stored_index: u8,
        /// In a group of how many.
        stored_replicas: usize,
        /// Who reads it.
        index: ReplicaId,
        /// In a group of how many.
        replicas: usize,
    },
}

/// The directory, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    directory: PathBuf,
    file: PathBuf,
    index: ReplicaId,
    replicas: usize,
    _lock: File,
}

impl StateDir {
    /// Creates the directory if need be and locks it.
    pub(crate) fn open(
        directory: &Path,
        index: ReplicaId,
        replicas: usize,
    ) -> Result<StateDir, StateError> {
        fs::create_dir_all(directory).map_err(failed("creating", directory))?;
        let path = directory.join(LOCK);
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed("opening", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StateError::Locked(directory.to_owned()));
            }
            Err(errno) => return Err(failed("locking", &path)(errno.into())),
        }
        let file = directory.join(FILE);
        Ok(StateDir {
            directory: directory.to_owned(),
            file,
            index,
            replicas,
            _lock: lock,
        })
    }

    /// The file's path, for messages.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The promise that was made here; None when none ever was.
    pub(crate) fn load(&self) -> Result<Option<Promise>, StateError> {
        match fs::read(&self.file) {
            Ok(bytes) => self.parse(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("reading", &self.file)(error)),
        }
    }

    /// Makes `promise` durable; when this returns it survives a crash.
    pub(crate) fn store(&self, promise: Promise) -> Result<(), StateError> {
        let temporary = self.directory.join(TEMPORARY);
        let mut file =
            counted(|| File::create(&temporary)).map_err(failed("creating", &temporary))?;
        let text = render(self.index.0, self.replicas, promise);
        counted(|| file.write_all(text.as_bytes())).map_err(failed("writing", &temporary))?;
        counted(|| file.sync_all()).map_err(failed("syncing", &temporary))?;
        counted(|| fs::rename(&temporary, &self.file)).map_err(failed("renaming", &temporary))?;
        let directory =
            counted(|| File::open(&self.directory)).map_err(failed("opening", &self.directory))?;
        counted(|| directory.sync_all()).map_err(failed("syncing", &self.directory))
    }

    fn parse(&self, bytes: &[u8]) -> Result<Promise, StateError> {
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<&str> = text.lines().collect();
        let corrupt = |line: usize, expected: &str| StateError::Corrupt {
            path: self.file.clone(),
            line: line + 1,
            expected: expected.to_owned(),
        };
        let field = |line: usize, name: &str| {
            let value = lines
                .get(line)
                .and_then(|text| text.strip_prefix(name)?.strip_prefix(' '));
            value.ok_or_else(|| corrupt(line, &format!("`{name} ...`")))
        };
        if lines.first() != Some(&FORMAT) {
            return Err(corrupt(0, &format!("`{FORMAT}`")));
        }
        let stored_index = field(1, "index")?
            .parse()
            .map_err(|_| corrupt(1, "an index"))?;
        let stored_replicas = field(2, "replicas")?
            .parse()
            .map_err(|_| corrupt(2, "a number of replicas"))?;
        let group =
            u64::from_str_radix(field(3, "group")?, 16).map_err(|_| corrupt(3, "16 hex digits"))?;
        let view = field(4, "view")?
            .parse()
            .map_err(|_| corrupt(4, "a view number"))?;
        let promise = Promise {
            group: GroupId(group),
            view: View(view),
        };
        // Rendering again covers the check, the line ends and anything that follows.
        if render(stored_index, stored_replicas, promise).as_bytes() != bytes {
            return Err(corrupt(
                5,
                "the check of the lines above, and nothing after it",
            ));
        }
        if stored_index != self.index.0 || stored_replicas != self.replicas {
            return Err(StateError::Mismatch {
                path: self.file.clone(),
                stored_index,
                stored_replicas,
                index: self.index,
                replicas: self.replicas,
            });
        }
        Ok(promise)
    }
}

fn render(index: u8, replicas: usize, promise: Promise) -> String {
    let Promise { group, view } = promise;
    let mut text = format!(
        "{FORMAT}\nindex {index}\nreplicas {replicas}\ngroup {:016x}\nview {view}\n",
        group.0
    );
    let check = fnv(text.as_bytes());
    let _ = writeln!(text, "check {check:016x}");
    text
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { what, path, source }
}

/// FNV-1a, 64 bits: enough to tell a damaged file, and readable with a pocket calculator.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: Promise = Promise {
        group: GroupId(0xabc),
        view: View(12),
    };

    fn open(directory: &Path, index: u8, replicas: usize) -> StateDir {
        StateDir::open(directory, ReplicaId(index), replicas).unwrap()
    }

    #[test]
    fn a_promise_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let state = open(&directory.path().join("new/deep"), 2, 5);
        assert_eq!(state.load().unwrap(), None);
        state.store(Promise::default()).unwrap();
        state.store(PROMISE).unwrap();
        assert_eq!(state.load().unwrap(), Some(PROMISE));
        assert_eq!(
            fs::read_to_string(state.file()).unwrap(),
            render(2, 5, PROMISE)
        );
    }

    #[test]
    fn every_damaged_byte_and_every_truncation_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let state = open(directory.path(), 0, 3);
        state.store(PROMISE).unwrap();
        let good = fs::read(state.file()).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(state.file(), &bad).unwrap();
            assert!(
                matches!(state.load(), Err(StateError::Corrupt { .. })),
                "byte {at}"
            );
            fs::write(state.file(), &good[..at]).unwrap();
            assert!(
                matches!(state.load(), Err(StateError::Corrupt { .. })),
                "cut at {at}"
            );
        }
        fs::write(state.file(), [good.as_slice(), b"\n"].concat()).unwrap();
        assert!(matches!(state.load(), Err(StateError::Corrupt { .. })));
    }

    #[test]
    fn another_replica_or_group_size_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), 1, 3).store(PROMISE).unwrap();
        for (index, replicas) in [(0, 3), (1, 5)] {
            let state = open(directory.path(), index, replicas);
            assert!(matches!(state.load(), Err(StateError::Mismatch { .. })));
        }
    }

    #[test]
    fn two_cannot_share_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), 0, 3);
        let second = StateDir::open(directory.path(), ReplicaId(0), 3);
        assert!(matches!(second, Err(StateError::Locked(_))));
        drop(first);
        open(directory.path(), 0, 3);
    }

    #[test]
    fn an_interrupted_write_leaves_the_old_promise() {
        let directory = tempfile::tempdir().unwrap();
        let state = open(directory.path(), 0, 3);
        state.store(PROMISE).unwrap();
        fs::write(directory.path().join(TEMPORARY), "electrode-st").unwrap();
        assert_eq!(state.load().unwrap(), Some(PROMISE));
    }
}
