//! The simulator's twin on a real kernel: real replicas as processes in network namespaces, with their programs in the kernel,
//! under the simulator's workload, while a program of its own makes the links bad and processes are killed, paused and
//! restarted. Histories are checked by the simulator's linearizability checker.
//!
//! First things break; then they are healed, and progress is demanded in bounded time, agreement of all replicas, and that the
//! kernel takes part again. See docs/simulator.md.

#![forbid(unsafe_code)]

mod chaos;
mod clients;
mod deck;
mod delay_line;
mod group;
mod history;
mod network;
mod place;
mod plan;
mod program;
mod report;
mod run;
mod watch;

pub use network::Frames;
pub use plan::Plan;
pub use report::{Kernel, Report};
pub use run::run;
