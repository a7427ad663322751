//! What the back end writes, and that it means what was asked for.

mod linear;
mod meaning;
mod random;
mod run_body;
mod run_insns;
use super::super::ir::{Op, Reg};

/// The register that an operation assigns.
fn assigned(op: &Op) -> Option<Reg> {
    match op {
        Op::Alu { dst, .. }
        | Op::Copy { dst, .. }
        | Op::Endian { dst, .. }
        | Op::Load { dst, .. }
        | Op::SignExtend { dst, .. }
        | Op::Global { dst, .. }
        | Op::Address { dst, .. } => Some(*dst),
        Op::Atomic { dst, .. } | Op::Call { dst, .. } => *dst,
        Op::Store { .. } | Op::OpenRecord(_) | Op::CloseRecord(_) => None,
    }
}
