//! Write eBPF programs in Rust: assembler, typed builder, ELF and BTF writer; no LLVM
