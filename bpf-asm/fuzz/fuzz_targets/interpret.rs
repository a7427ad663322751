//! Fuzz target: any code on the interpreter. `cargo fuzz run --sanitizer none interpret` in `bpf-asm`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::interpret(data));
