//! Fuzz target: any text to code. `cargo fuzz run --sanitizer none assemble` in `bpf-asm`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::assemble(data));
