//! The log on disk, in disk mode: which bytes are written to which files, and what a start makes of those that it finds.
//!
//! It does no I/O of its own: [`Files`] is the file system, a directory in a replica and one that forgets what wasn't
//! synced ([`forgetful`]) in tests and in the simulator. Who writes when, and who waits for it, is the driver's.

#![forbid(unsafe_code)]

pub mod author;
mod disk_log;
mod error;
mod files;
pub mod forgetful;
mod mark;
mod record;
mod replay;
#[cfg(test)]
mod tests;

pub use disk_log::{DiskLog, Identity, write_checkpoint};
pub use error::DiskError;
pub use files::Files;
pub use replay::Found;
