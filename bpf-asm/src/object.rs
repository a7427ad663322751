//! The ELF object writer.
