//! Each feature of the typed builder in the kernel: loaded by aya, run by BPF_PROG_TEST_RUN, compared with what it must compute.
//!
//! They need root and say so loudly when they don't have it.

mod arithmetic;
mod atomics;
mod calls;
mod contexts;
mod control;
mod globals;
mod kernel;
mod maps;
mod packets;
mod refused;
