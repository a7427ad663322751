//! What can go wrong with a lab.

use std::io;

/// Why a lab, a host or something in it could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The `ip` command is missing.
    #[error("there is no `ip` command; install the package iproute2")]
    NoIpTool,
    /// Namespaces are root's.
    #[error("network namespaces need root")]
    NotRoot,
    /// A name that can't be part of a namespace's name.
    #[error("`{0}` is no name for a host: 1 to 20 letters, digits and hyphens")]
    BadName(String),
    /// A second host of the same name, or more hosts than addresses.
    #[error("host {0}: the name is taken, or the lab has no address left")]
    NoRoom(String),
    /// The lab has no namespaces (see [`crate::Lab::loopback`]), so this can't be done in it.
    #[error("{0}: not on the loopback device")]
    OnLoopback(&'static str),
    /// The `ip` command said no.
    #[error("`ip {arguments}`: {message}")]
    Ip {
        /// Its arguments.
        arguments: String,
        /// What it printed.
        message: String,
    },
    /// A file, a process or a namespace.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A link that was set up stays down.
    #[error("{interface} in {namespace} doesn't come up: {shown}")]
    LinkDown {
        /// The interface.
        interface: String,
        /// Its namespace.
        namespace: String,
        /// What `ip link show` says of it.
        shown: String,
    },
    /// A program of the lab's own was refused by the kernel or by its loader.
    #[error("{doing}: {message}")]
    Program {
        /// What was being done.
        doing: String,
        /// The loader's words, with the verifier's where there are any.
        message: String,
    },
}

impl LabError {
    /// For `map_err`: an input or output error with what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        let doing = doing.into();
        move |source| LabError::Io { doing, source }
    }
}
