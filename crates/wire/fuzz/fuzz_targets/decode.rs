//! Fuzz target: bytes to messages and back. CONTRIBUTING.md says how to run it.
#![no_main]

#[path = "../body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::decode(data));
