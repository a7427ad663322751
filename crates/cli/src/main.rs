//! The `electrode` command.

fn main() {}
