//! A simulator of whole groups, from a seed: the real core, the real programs' bytecode on their real maps and packets, the
//! shipped driver's order of things, and a network and machines that fail in every way that docs/simulator.md lists.
//!
//! First things break, and every step is checked; then they are mended, and progress is demanded in bounded simulated time,
//! with the fast path armed again. A seed and a commit reproduce any failure.

#![forbid(unsafe_code)]

mod card;
mod checks;
mod client;
mod disk;
mod exhaustive;
mod frame;
mod history;
mod linearizability;
mod machine;
mod nic;
mod plan;
mod process;
mod random;
mod run;
#[cfg(test)]
mod scenarios;
mod trace;
mod workload;
mod world;

pub use checks::{Rule, Violation};
pub use exhaustive::{Bounds, Counterexample, Explored, explore};
pub use history::{Action, Answer, Call, Outcome, Step};
pub use linearizability::{NotLinearizable, check as check_linearizability};
pub use nic::{Programs, ProgramsError};
pub use plan::{Acceleration, Engine, Plan};
pub use random::Random;
pub use run::{Failure, Report, Traced, run, run_traced};
pub use workload::Workload;
