//! Fuzz target: any code in the kernel and on the interpreter, as root. `cargo fuzz run --sanitizer none against_kernel` in `bpf-asm`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bodies::against_kernel(data);
});
