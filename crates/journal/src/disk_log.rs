//! The log on disk: numbered files of records, and the latest checkpoint in a file of its own.
//!
//! A file begins with a header that sums up all before it, so that files which a checkpoint makes superfluous are simply
//! removed. A new file is begun, all before it synced and marked, with each checkpoint and when one is long.

use std::collections::VecDeque;

use electrode_vr::{Digest, GroupId, OpNumber, ReplicaId, View, Write};
use serde::{Deserialize, Serialize};

use crate::error::DiskError;
use crate::files::Files;
use crate::mark::Mark;
use crate::record::{Kind, encode};

/// The format of everything here.
pub(crate) const FORMAT: u16 = 1;
/// A file that is longer than this is followed by a new one, in bytes.
const FILE_BYTES: u64 = 64 << 20;

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The replica.
    pub index: ReplicaId,
    /// In a group of how many.
    pub replicas: usize,
}

/// The first record of each file: where the log stood when it was begun.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) format: u16,
    pub(crate) index: u8,
    pub(crate) replicas: usize,
    pub(crate) group: GroupId,
    /// Whether any view was entered; before that there is no log, only the beginning of one.
    pub(crate) entered: bool,
    pub(crate) last_normal: View,
    pub(crate) op: OpNumber,
    pub(crate) digest: Digest,
}

/// The file that is being written.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) number: u64,
    pub(crate) length: u64,
    /// How much of it is durable.
    pub(crate) synced: u64,
}

/// The log, open for writing.
#[derive(Debug)]
pub struct DiskLog<F> {
    pub(crate) files: F,
    pub(crate) identity: Identity,
    /// What the next header says.
    pub(crate) now: Header,
    pub(crate) current: Option<Current>,
    /// All files, oldest first: number, and the op that the log ended with when it was begun.
    pub(crate) starts: VecDeque<(u64, OpNumber)>,
    /// What the mark on disk says, if there is one.
    pub(crate) mark: Option<Mark>,
    pub(crate) buffer: Vec<u8>,
}

pub(crate) fn log_name(number: u64) -> String {
    format!("log-{number:016x}")
}

pub(crate) fn checkpoint_name(op: OpNumber) -> String {
    format!("checkpoint-{:016x}", op.0)
}

/// What a file's name says, if it is one of these.
pub(crate) fn parse_name(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    if digits.len() != 16 {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

impl<F: Files> DiskLog<F> {
    /// No log yet; the first [`Write::Enter`] begins it.
    pub(crate) fn empty(files: F, identity: Identity) -> DiskLog<F> {
        DiskLog {
            files,
            identity,
            now: Header {
                format: FORMAT,
                index: identity.index.0,
                replicas: identity.replicas,
                group: GroupId(0),
                entered: false,
                last_normal: View(0),
                op: OpNumber(0),
                digest: Digest(0),
            },
            current: None,
            starts: VecDeque::new(),
            mark: None,
            buffer: Vec::new(),
        }
    }

    /// The file system that it is on.
    #[must_use]
    pub fn files(&self) -> &F {
        &self.files
    }

    /// Writes an append or a view's first log; it is durable after [`DiskLog::sync`].
    ///
    /// # Errors
    /// As the file system says; the log must not be used any more.
    pub fn write(&mut self, write: &Write) -> Result<(), DiskError> {
        if let Write::Enter { group, .. } = write {
            self.now.group = *group;
        }
        if self.current.is_none() {
            self.begin_file(0)?;
        } else if self
            .current
            .as_ref()
            .is_some_and(|current| current.length > FILE_BYTES)
        {
            self.rotate()?;
        }
        self.put(Kind::Write, write)?;
        match write {
            Write::Append {
                after,
                entries,
                digest,
                ..
            } => {
                self.now.op = OpNumber(after.0 + entries.len() as u64);
                self.now.digest = *digest;
            }
            Write::Enter {
                view,
                after,
                entries,
                digest,
                ..
            } => {
                self.now.entered = true;
                self.now.last_normal = *view;
                self.now.op = OpNumber(after.0 + entries.len() as u64);
                self.now.digest = *digest;
            }
            Write::Checkpoint { .. } => {}
        }
        Ok(())
    }

    /// Whether anything isn't durable yet.
    #[must_use]
    pub fn dirty(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.synced < current.length)
    }

    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// As the file system says. The log must not be used any more: what is on disk isn't known.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let name = log_name(current.number);
        self.files
            .sync(&name)
            .map_err(failed(&self.files, "syncing", &name))?;
        current.synced = current.length;
        Ok(())
    }

    /// Begins a new file, so that the ones before it can go when a checkpoint covers them.
    ///
    /// # Errors
    /// As [`DiskLog::sync`].
    pub fn rotate(&mut self) -> Result<(), DiskError> {
        self.sync()?;
        match &self.current {
            Some(current) => self.begin_file(current.number + 1),
            None => Ok(()),
        }
    }

    fn begin_file(&mut self, number: u64) -> Result<(), DiskError> {
        let name = log_name(number);
        self.files
            .create(&name)
            .map_err(failed(&self.files, "creating", &name))?;
        self.current = Some(Current {
            number,
            length: 0,
            synced: 0,
        });
        let header = self.now;
        self.put(Kind::Header, &header)?;
        self.sync()?;
        self.files.sync_directory().map_err(failed(
            &self.files,
            "syncing the directory of",
            &name,
        ))?;
        self.starts.push_back((number, self.now.op));
        // Before anything of the files that come before it goes: from now on a missing header is a loss.
        self.mark()
    }

    fn put(&mut self, kind: Kind, payload: &impl Serialize) -> Result<(), DiskError> {
        let current = self.current.as_mut().expect("a file was begun");
        self.buffer.clear();
        encode(
            kind,
            current.number,
            current.length,
            current.synced,
            payload,
            &mut self.buffer,
        );
        let name = log_name(current.number);
        self.files
            .append(&name, &self.buffer)
            .map_err(failed(&self.files, "writing", &name))?;
        current.length += self.buffer.len() as u64;
        Ok(())
    }

    /// A checkpoint at `op` is durable: older ones go, and the files whose ops it has.
    ///
    /// # Errors
    /// As the file system says.
    pub fn trim(&mut self, op: OpNumber) -> Result<(), DiskError> {
        while self.starts.get(1).is_some_and(|(_, start)| *start <= op) {
            let name = log_name(self.starts[0].0);
            self.files
                .remove(&name)
                .map_err(failed(&self.files, "removing", &name))?;
            self.starts.pop_front();
        }
        let names = self
            .files
            .list()
            .map_err(failed(&self.files, "listing", ""))?;
        for name in names {
            if parse_name(&name, "checkpoint-").is_some_and(|known| known < op.0) {
                self.files
                    .remove(&name)
                    .map_err(failed(&self.files, "removing", &name))?;
            }
        }
        Ok(())
    }
}

/// Writes a checkpoint to a file of its own: beside, synced, renamed, the directory synced.
///
/// # Errors
/// As the file system says.
pub fn write_checkpoint<F: Files>(
    files: &mut F,
    op: OpNumber,
    write: &Write,
) -> Result<(), DiskError> {
    let (name, temporary) = (checkpoint_name(op), "checkpoint.new");
    let mut bytes = Vec::new();
    encode(Kind::Write, op.0, 0, 0, write, &mut bytes);
    files
        .create(temporary)
        .map_err(failed(files, "creating", temporary))?;
    files
        .append(temporary, &bytes)
        .map_err(failed(files, "writing", temporary))?;
    files
        .sync(temporary)
        .map_err(failed(files, "syncing", temporary))?;
    files
        .rename(temporary, &name)
        .map_err(failed(files, "renaming", temporary))?;
    files
        .sync_directory()
        .map_err(failed(files, "syncing the directory of", &name))
}

/// For `map_err` around a file operation.
pub(crate) fn failed<F: Files>(
    files: &F,
    what: &'static str,
    name: &str,
) -> impl FnOnce(std::io::Error) -> DiskError + use<F> {
    let path = files.path(name);
    move |source| DiskError::Io { what, path, source }
}
