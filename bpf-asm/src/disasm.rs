//! Disassembly in the verifier's syntax.
