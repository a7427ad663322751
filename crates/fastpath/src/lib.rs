//! Electrode's fast path: the eBPF programs, the maps they share with user space, and user space's half of the protocol
//! between them ([`host`]). What must hold is in docs/fast-path.md (rules R1 to R10).

#![forbid(unsafe_code)]

pub mod abi;
pub mod counters;
pub mod host;
pub mod programs;
