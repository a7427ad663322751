//! The `bpf-asm` command.
fn main() {}
