//! The mark: how much of the log is durable, in a small file of its own.
//!
//! Records say what was durable when they were written, so the last ones have nobody to speak for them. The mark does,
//! once whoever writes has a moment. It stands apart from the log, so that a file that lost its end, or is gone, is noticed
//! as well. It is written in place: lost or torn it says nothing, and what it says is never more than what is durable.

use electrode_vr::mutations::{Mutation, active};
use serde::{Deserialize, Serialize};

use crate::disk_log::{DiskLog, failed};
use crate::error::DiskError;
use crate::files::Files;
use crate::record::{Kind, decode, encode};

/// The file's name.
pub(crate) const MARK: &str = "durable";
/// What its check takes for the file's number.
const NUMBER: u64 = u64::MAX;

/// What is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// This file, and all before it that weren't removed.
    #[serde(with = "postcard::fixint::le")]
    pub(crate) number: u64,
    /// Bytes of that file.
    #[serde(with = "postcard::fixint::le")]
    pub(crate) length: u64,
}

impl<F: Files> DiskLog<F> {
    /// Whether the mark says of everything durable that it is.
    #[must_use]
    pub fn marked(&self) -> bool {
        self.mark == self.durable()
    }

    /// Notes what is durable, so that damage to the last of it isn't taken for a torn write by the next start. Costs a small
    /// write and a sync of another file, nothing when there is no news: for when nobody waits for the disk.
    ///
    /// # Errors
    /// As [`DiskLog::sync`].
    pub fn mark(&mut self) -> Result<(), DiskError> {
        let Some(mark) = self.durable().filter(|_| !self.marked()) else {
            return Ok(());
        };
        self.buffer.clear();
        encode(Kind::Mark, NUMBER, 0, 0, &mark, &mut self.buffer);
        self.files
            .overwrite(MARK, &self.buffer)
            .map_err(failed(&self.files, "writing", MARK))?;
        self.files
            .sync(MARK)
            .map_err(failed(&self.files, "syncing", MARK))?;
        if self.mark.is_none() {
            let what = "syncing the directory of";
            self.files
                .sync_directory()
                .map_err(failed(&self.files, what, MARK))?;
        }
        self.mark = Some(mark);
        Ok(())
    }

    fn durable(&self) -> Option<Mark> {
        self.current.as_ref().map(|current| Mark {
            number: current.number,
            length: current.synced,
        })
    }
}

/// The mark, if there is one that can be read.
pub(crate) fn read_mark<F: Files>(
    files: &mut F,
    names: &[String],
) -> Result<Option<Mark>, DiskError> {
    if active(Mutation::MarkIgnored) || !names.iter().any(|name| name == MARK) {
        return Ok(None);
    }
    let bytes = files.read(MARK).map_err(failed(files, "reading", MARK))?;
    Ok(decode(&bytes, NUMBER, 0).and_then(|record| record.read(Kind::Mark)))
}
