//! The examples: each on the harness, with packets made for it, and in the kernel, where both answer alike.

#![allow(clippy::duplicate_mod)] // each example brings its headers

#[path = "../../examples/echo.rs"]
mod echo;
#[path = "../../examples/load_balancer.rs"]
mod load_balancer;
#[path = "../../examples/lpm_firewall.rs"]
mod lpm_firewall;
#[path = "../../examples/packet_counter.rs"]
mod packet_counter;
#[path = "../../examples/syn_flood.rs"]
mod syn_flood;

mod frames;
mod harness;
mod kernel;
