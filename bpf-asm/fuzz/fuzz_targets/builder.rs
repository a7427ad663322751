//! Fuzz target: programs of the builder against Rust. `cargo fuzz run --sanitizer none builder` in `bpf-asm`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::builder(data));
