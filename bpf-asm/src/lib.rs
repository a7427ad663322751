//! Write eBPF programs in Rust: assembler, typed builder, ELF and BTF writer; no LLVM.
//!
//! Bottom up: [`insn`] is the instruction set as types, [`asm`] an assembler with labels, [`builder`] structured code
//! with typed values on top of it, [`program`] what both of them produce, [`object`] the ELF file that loaders take,
//! [`btf`] the type information in it, [`disasm`] prints it all as the kernel's verifier does, and [`text`] reads that.

pub mod asm;
pub mod btf;
pub mod builder;
pub mod code;
pub mod disasm;
pub mod engine;
pub mod harness;
pub mod helper;
pub mod insn;
pub mod interpreter;
pub mod object;
pub mod program;
pub mod target;
pub mod text;
pub mod verifier;
