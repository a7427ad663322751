//! What can be wrong with the log on disk.

use std::io;
use std::path::PathBuf;

use electrode_vr::GroupId;

/// Why the log on disk can't be used, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file operation failed.
    #[error("{what} {path}: {source}{hint}", hint = hint(source))]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What was durable isn't what was written.
    #[error("{path}, byte {offset}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The log is that of another group or replica.
    #[error(
        "{path} is of replica {index} of {replicas} in group {group:016x}, and this is another: give each replica its own \
         --state-dir",
        group = group.0
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose log it is.
        index: u8,
        /// In a group of how many.
        replicas: usize,
        /// Which group.
        group: GroupId,
    },
    /// A group of one has nobody to repair its log from.
    #[error(
        "the log on disk is damaged ({damage}), and a group of one has nobody to get it from. Restore the directory from \
         a copy, or move it away to begin without its data"
    )]
    Alone {
        /// The damage.
        damage: Box<DiskError>,
    },
    /// A log on disk, but the replica shall run in memory.
    #[error(
        "{0} has a log on disk, and without it this replica would forget what it acknowledged: start it with --durability \
         disk, or move that directory away to have it recover from the others"
    )]
    InMemory(PathBuf),
    /// There is a log, but not the promise that belongs to it.
    #[error(
        "{0} has a log on disk, but the file `promise` beside it is missing, and without it this replica must not vote: \
         restore that file, or move both away to have the replica recover from the others"
    )]
    NoPromise(PathBuf),
    /// There is a promise, but no log, and nobody else who could have one.
    #[error(
        "{0} has no log, but the file `promise` beside it says that this group of one has begun: what it had is lost. Restore \
         the directory from a copy, or give an empty state directory, and --bootstrap, to begin a new group"
    )]
    NoLog(PathBuf),
    /// The thread that writes has ended without saying why.
    #[error("the thread that writes the log has ended; stopping, as in a crash")]
    Gone,
}

/// Linux' number for an error of the device; the standard library has no kind for it.
const EIO: i32 = 5;

fn hint(source: &io::Error) -> &'static str {
    if source.raw_os_error() == Some(EIO) {
        return ". Its device failed (see dmesg). What couldn't be written was not acknowledged. If it is to be read and \
                stays like that, move the directory away: the replica then recovers from the others (a group of one \
                needs a copy of it)";
    }
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". There is no room left: make some and start this replica again. What couldn't be written was not \
             acknowledged"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ". The file system became read-only, as after an error of its device (see dmesg). What couldn't be written \
             was not acknowledged"
        }
        io::ErrorKind::PermissionDenied => ". The replica's user needs to read and write there",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_fails_is_named_as_the_reason() {
        let error = DiskError::Io {
            what: "reading",
            path: "/disk/log".into(),
            source: io::Error::from_raw_os_error(EIO),
        };
        let text = error.to_string();
        assert!(
            text.contains("reading /disk/log: Input/output error"),
            "{text}"
        );
        assert!(text.contains("Its device failed"), "{text}");
    }
}
