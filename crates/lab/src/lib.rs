//! Network namespaces on one machine: hosts, links, faults.
//!
//! A [`Lab`] is a switch and any number of [`Host`]s, each in a network namespace of its own with one interface `eth0`.
//! The demo, the benchmarks and the tests run real replicas in them. Everything that a lab makes is gone when it is
//! dropped, and also when its process is interrupted or killed: a keeper process outlives it just long enough.
//!
//! It never touches the machine's own interfaces, routes or settings, and ends only processes that run in its namespaces.

#![forbid(unsafe_code)]

mod child;
mod error;
mod faults;
mod guard;
mod host;
mod ip;
mod keeper;
mod leftovers;
mod maps;
mod namespace;
mod program;
mod switch;

pub use child::Child;
pub use error::LabError;
pub use faults::{FaultCounts, Faults};
pub use guard::{has_time_namespaces, is_root, root_or_skip};
pub use host::{Host, HostOptions};
pub use keeper::clean_on_signals;
pub use leftovers::sweep;
pub use maps::Ring;
pub use program::Loaded;
pub use switch::Lab;
