//! Threads in namespaces.

use std::fs::File;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::LabError;
use crate::leftovers::NAMESPACES;

/// Moves the calling thread, for good, into the network namespace `name`.
pub(crate) fn enter(name: &str) -> Result<(), LabError> {
    let path = Path::new(NAMESPACES).join(name);
    let doing = format!("entering the namespace {name}");
    let file = File::open(&path).map_err(LabError::io(doing.clone()))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .map_err(std::io::Error::from)
        .map_err(LabError::io(doing))
}

/// Runs `work` on a thread of its own in the namespace `name`.
pub(crate) fn run<R: Send>(name: &str, work: impl FnOnce() -> R + Send) -> Result<R, LabError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(name)?;
            Ok(work())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
