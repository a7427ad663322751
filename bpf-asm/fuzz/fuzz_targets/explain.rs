//! Fuzz target: any verifier log. `cargo fuzz run --sanitizer none explain` in `bpf-asm`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::explain(data));
