//! The replica: everything around the protocol core that touches the outside world.
//!
//! One thread owns its reactor: a level-triggered epoll whose timeout is the core's next deadline, a UDP socket that is
//! drained and filled in batches, and the kernel's fast path when there is one. What isn't hot (the metrics page) runs on
//! a smol executor that the same thread polls when, and only when, it is woken. The core decides, the driver (`electrode-driver`)
//! brings it what comes in and carries out what it wants, and this crate is the Linux that the driver runs on.

#![forbid(unsafe_code)]

mod background;
mod calls;
mod clock;
mod error;
mod fast_path;
mod interface;
mod journal;
mod linux;
mod metrics;
mod options;
mod process;
mod reactor;
mod socket;
mod state;
mod status;
mod stop;
mod supervisor;

pub use error::RunError;
pub use interface::InterfaceError;
pub use journal::DiskError;
pub use options::{Accelerate, AccelerateError, App, Options};
pub use state::StateError;
pub use status::{Accelerated, DriverReport, PeerReport, StatusReport};
pub use stop::Stop;

use electrode_apps::{Kv, Null};

/// Runs one replica on the calling thread until it is told to stop (by [`Stop`], or by SIGTERM or SIGINT where
/// [`Options::handle_signals`] says so).
///
/// # Errors
/// Whatever keeps the replica from starting, or makes going on unsafe: see [`RunError`].
///
/// # Panics
/// A broken invariant of the protocol core panics; the process should then end, which the protocol treats as a crash.
pub fn run(options: Options) -> Result<(), RunError> {
    match options.app {
        App::Null => process::Process::new(options, Null::default())?.run(),
        App::Kv => process::Process::new(options, Kv::default())?.run(),
    }
}
