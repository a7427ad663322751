//! Fuzz target: any code on the interpreter. `cargo +nightly fuzz run interpret` in `bpf-asm`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::interpret(data));
