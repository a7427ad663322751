//! Fuzz target: any text to code. `cargo +nightly fuzz run assemble` in `bpf-asm`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::assemble(data));
