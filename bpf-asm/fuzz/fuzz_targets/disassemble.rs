//! Fuzz target: instructions to text and back. `cargo fuzz run --sanitizer none disassemble` in `bpf-asm`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::disassemble(data));
