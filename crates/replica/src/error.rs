//! Why a replica doesn't start, or stops.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use electrode_dataplane::AttachError;
use electrode_vr::{ReplicaId, RestoreError};

use crate::interface::InterfaceError;
use crate::journal::DiskError;
use crate::state::StateError;

/// Why [`crate::run`] returned without having been told to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The group can't be of this size.
    #[error("a group has 1, 3, 5 ... {max} replicas, not {0}", max = electrode_vr::MAX_REPLICAS)]
    GroupSize(usize),
    /// There is no such replica in the configuration.
    #[error("there is no replica {index}: the configuration has {replicas}, counted from 0")]
    NoSuchReplica {
        /// The index that was asked for.
        index: ReplicaId,
        /// How many there are.
        replicas: usize,
    },
    /// The replica's own address can't be bound.
    #[error("can't bind {address}, the address of replica {index}: {source}{hint}", hint = bind_hint(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Whose it is.
        index: ReplicaId,
        /// Why not.
        source: io::Error,
    },
    /// The address for metrics can't be bound.
    #[error("can't serve metrics on {address}: {source}")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The promised view can't be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log on disk can't be used, or not any more.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is on disk is no state of this replica.
    #[error(
        "{path}: {source}. Start it with the options that it had, or move that directory away to have it recover"
    )]
    Restore {
        /// The log's directory.
        path: PathBuf,
        /// Why not.
        source: RestoreError,
    },
    /// A group was bootstrapped here before.
    #[error(
        "--bootstrap starts a new group, but {0} says that this replica belongs to one already; without \
             --bootstrap it recovers from the others, and to give up its past move that file away"
    )]
    BootstrapTwice(PathBuf),
    /// The interface can't be found.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The programs can't be attached.
    #[error("the fast path can't be used: {0}")]
    Attach(#[from] AttachError),
    /// What the kernel accepted can't be had.
    #[error(transparent)]
    Stopped(#[from] electrode_driver::Stopped),
    /// The operating system refused something that never should be.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl RunError {
    /// For `map_err` around a system call.
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> RunError {
        move |source| RunError::System {
            what,
            source: source.into(),
        }
    }
}

fn bind_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; is this replica running already?",
        io::ErrorKind::AddrNotAvailable => "; is this the machine of that replica?",
        _ => "",
    }
}
