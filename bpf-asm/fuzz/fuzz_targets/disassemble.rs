//! Fuzz target: instructions to text and back. `cargo +nightly fuzz run disassemble` in `bpf-asm`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::disassemble(data));
