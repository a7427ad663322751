//! The reference interpreter: runs programs in plain Rust, without root, and is stricter than the kernel.
//!
//! A [`Machine`] is what CPUs share: maps, programs, clock, random numbers. A [`Run`] is one program on one virtual CPU, and
//! can be stepped, so that runs interleave with each other and with user space in any order a test wants. Most tests need
//! less: see [`harness`](crate::harness).
//!
//! Registers and stack slots are numbers or pointers with a region and an offset ([`Value`]); no address has a number.
//! Everything that the verifier would refuse *on the path taken* ends the run with a [`Fault`]: registers and stack bytes
//! that nothing was written to, bounds, null, look-ups that were not compared with null, packet pointers from before a
//! helper that moved the packet, pointers that leak, records left open. Where privileged programs may leak addresses in the
//! kernel, they may not here.
//!
//! What differs from a kernel: memory is sequentially consistent; an LRU map evicts exactly the least recently used; a bloom
//! filter has no false positives; values in a reserved record that nothing was written to are what was there before.

mod arithmetic;
mod context;
mod cpu;
mod execute;
mod fault;
mod frame;
mod helper;
mod image;
mod machine;
mod map;
mod memory;
mod packet;
mod route;
mod run;
mod state;
mod value;

use context::Context;
pub use cpu::{MAX_TAIL_CALLS, MAY_GOTO_ROUNDS};
pub use fault::{Fault, FaultKind, Place};
pub use frame::{MAX_FRAMES, STACK_BYTES};
pub use image::{LoadError, MAX_INSNS};
pub use machine::{MAX_CPUS, Machine, Map, ProgramId};
pub use map::{Errno, MAX_MAP_BYTES, MapError, RingRecord};
pub use packet::{
    Checksum, HEADROOM, Input, MAX_PACKET_BYTES, Output, OutputKind, SkbInput, XDP_LINEAR_BYTES,
    XdpInput,
};
pub use route::{DEFAULT_MTU, Route, RouteAnswer};
pub use run::{Access, MAX_TRACE_STEPS, Point, Progress, Run, Step};
pub use state::{DEFAULT_BUDGET, MAX_PRINTED_LINES};
pub use value::{Pointer, Region, Value};

/// What the other engines of this crate take from the interpreter.
#[cfg(feature = "rbpf")]
pub(crate) mod internals;
