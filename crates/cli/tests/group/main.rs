//! Real groups under faults: the shipped binary, a network namespace per replica, the programs in the kernel.
//!
//! Every test needs root and says so loudly without it. They run one at a time, since each asks for all of the machine.
//! The rules (R1 to R10) are those of `docs/fast-path.md`.

mod chaos;
mod clocks;
mod counter;
mod group;
mod kill;
mod load;
mod mixed;
mod network;
mod pause;
mod replacement;
mod sizes;
