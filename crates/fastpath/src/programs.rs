//! The programs.

/// Index of `prepare` in the jump table.
pub const PROGRAM_PREPARE: u32 = 0;
/// Index of `prepare_ok` in the jump table.
pub const PROGRAM_PREPARE_OK: u32 = 1;

/// temporary
pub fn object() -> Result<Vec<u8>, String> { Err(String::new()) }
