//! A handle that ends a running replica from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Tells a replica to stop; its clones are the same handle.
#[derive(Clone, Debug)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// A handle for [`crate::Options::stop`].
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> io::Result<Stop> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stop(Arc::new(event)))
    }

    /// Stops the replica that was given this handle, now or as soon as it starts.
    pub fn stop(&self) {
        // The counter can only be full when it has been rung before, which is as good.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
