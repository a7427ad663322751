//! Prints what the examples cost beside clang's for the same logic: `cargo run --release -p bpf-asm --example against_clang`.
//! Needs clang, and root to load programs.

#![allow(clippy::duplicate_mod)] // each example brings its headers

#[path = "../tests/clang/compare.rs"]
mod compare;
#[path = "../tests/clang/compiler.rs"]
mod compiler;
#[path = "echo.rs"]
mod echo;
#[path = "../tests/examples/frames.rs"]
mod frames;
#[path = "load_balancer.rs"]
mod load_balancer;
#[path = "lpm_firewall.rs"]
mod lpm_firewall;
#[path = "packet_counter.rs"]
mod packet_counter;
#[path = "../tests/clang/pairs.rs"]
mod pairs;
#[path = "syn_flood.rs"]
mod syn_flood;

/// Runs of a series; the kernel reports their mean.
const REPEAT: u32 = 200_000;

fn main() {
    if !compiler::has_clang() {
        eprintln!("there is no clang that compiles for BPF: install it");
        std::process::exit(1);
    }
    let columns = ["instructions", "machine code", "time per packet"];
    println!(
        "{:16} {:>22} {:>22} {:>24}",
        "builder / clang", columns[0], columns[1], columns[2]
    );
    for pair in pairs::pairs() {
        let (name, ours, theirs) = pair.compare(&frames::mixed(), REPEAT);
        let column = |a: u128, b: u128, unit: &str| {
            format!("{a:5} / {b:5} {unit} {:.2}", a as f64 / b.max(1) as f64)
        };
        println!(
            "{name:16} {:>22} {:>22} {:>24}",
            column(ours.instructions.into(), theirs.instructions.into(), ""),
            column(ours.native_bytes.into(), theirs.native_bytes.into(), "B"),
            column(ours.time.as_nanos(), theirs.time.as_nanos(), "ns"),
        );
    }
}
