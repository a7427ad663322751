//! What a replica is told at its start.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use electrode_dataplane::Programs;
use electrode_vr::{Durability, Limits, ReplicaId, Timing};
use electrode_wire::Key;

use crate::stop::Stop;

/// Everything [`crate::run`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Every replica's address, in the order of the configuration; this one's too.
    pub replicas: Vec<SocketAddr>,
    /// Which of them this replica is.
    pub index: ReplicaId,
    /// The authenticator's key between replicas.
    pub key: Key,
    /// The state machine.
    pub app: App,
    /// How much of the fast path to use.
    pub accelerate: Accelerate,
    /// The interface to attach to; `None`: the one that reaches the other replicas.
    pub interface: Option<String>,
    /// Where the promised view is kept; created when it doesn't exist.
    pub state_dir: PathBuf,
    /// Answer reads from the primary's own state while its lease holds.
    pub read_leases: bool,
    /// What survives the process.
    pub durability: Durability,
    /// Start a new group now, rather than finding out whether all replicas are new.
    pub bootstrap: bool,
    /// Where to serve Prometheus metrics.
    pub metrics: Option<SocketAddr>,
    /// Spin instead of sleeping.
    pub busy_poll: bool,
    /// The protocol's time-outs.
    pub timing: Timing,
    /// The protocol's bounds.
    pub limits: Limits,
    /// Ends the replica from outside.
    pub stop: Option<Stop>,
    /// Whether SIGTERM and SIGINT stop the replica. They are blocked for the calling thread, so start it before others.
    pub handle_signals: bool,
}

impl Options {
    /// Options with the defaults of the command: kv, accelerated as far as possible, unkeyed, state in `state_dir`.
    #[must_use]
    pub fn new(replicas: Vec<SocketAddr>, index: ReplicaId, state_dir: PathBuf) -> Options {
        Options {
            replicas,
            index,
            key: Key::UNKEYED,
            app: App::Kv,
            accelerate: Accelerate::Auto,
            interface: None,
            state_dir,
            read_leases: false,
            durability: Durability::Memory,
            bootstrap: false,
            metrics: None,
            busy_poll: false,
            timing: Timing::default(),
            limits: Limits::default(),
            stop: None,
            handle_signals: false,
        }
    }
}

/// The state machines that come with Electrode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// Echoes; for measuring.
    Null,
    /// Keys and values.
    Kv,
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            App::Null => "null",
            App::Kv => "kv",
        })
    }
}

impl FromStr for App {
    type Err = String;

    fn from_str(text: &str) -> Result<App, String> {
        match text {
            "null" => Ok(App::Null),
            "kv" => Ok(App::Kv),
            _ => Err(format!("there is no app {text:?}; expected kv or null")),
        }
    }
}

/// How much of the fast path to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerate {
    /// All of it; where that is impossible none of it, with a warning that says why.
    Auto,
    /// None: plain user space.
    None,
    /// These programs; anything that prevents it is an error.
    Only(Programs),
}

impl Accelerate {
    /// All programs.
    pub const ALL: Programs = Programs {
        broadcast: true,
        prepare: true,
        prepare_ok: true,
    };
}

/// Text that isn't `auto`, `none`, `all` or a list of programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} isn't a program; expected auto, none, all, or a list of broadcast, prepare, prepare-ok"
)]
pub struct AccelerateError(String);

impl FromStr for Accelerate {
    type Err = AccelerateError;

    fn from_str(text: &str) -> Result<Accelerate, AccelerateError> {
        match text {
            "auto" => return Ok(Accelerate::Auto),
            "none" => return Ok(Accelerate::None),
            "all" => return Ok(Accelerate::Only(Accelerate::ALL)),
            _ => {}
        }
        let mut programs = Programs::default();
        for name in text.split(',') {
            match name.trim() {
                "broadcast" => programs.broadcast = true,
                "prepare" => programs.prepare = true,
                "prepare-ok" => programs.prepare_ok = true,
                other => return Err(AccelerateError(other.to_owned())),
            }
        }
        Ok(Accelerate::Only(programs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accelerate_reads_each_word_and_lists() {
        assert_eq!("auto".parse(), Ok(Accelerate::Auto));
        assert_eq!("none".parse(), Ok(Accelerate::None));
        assert_eq!("all".parse(), Ok(Accelerate::Only(Accelerate::ALL)));
        let some = Programs {
            broadcast: true,
            prepare: false,
            prepare_ok: true,
        };
        assert_eq!("broadcast, prepare-ok".parse(), Ok(Accelerate::Only(some)));
    }

    #[test]
    fn accelerate_names_the_word_it_does_not_know() {
        let error = "broadcast,prepare_ok".parse::<Accelerate>().unwrap_err();
        assert!(error.to_string().contains("\"prepare_ok\""), "{error}");
        assert!("".parse::<Accelerate>().is_err());
    }
}
