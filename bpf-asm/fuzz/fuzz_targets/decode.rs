//! Fuzz target: bytes to instructions and back. `cargo fuzz run --sanitizer none decode` in `bpf-asm`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::decode(data));
