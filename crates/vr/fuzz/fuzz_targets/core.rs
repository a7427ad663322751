//! Fuzz target: inputs of any content against one replica's core. CONTRIBUTING.md says how to run it.
#![no_main]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/core/garbage.rs"]
mod garbage;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/core/support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| garbage::any_inputs(data));
