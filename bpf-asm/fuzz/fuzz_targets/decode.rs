//! Fuzz target: bytes to instructions and back. `cargo +nightly fuzz run decode` in `bpf-asm`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::decode(data));
