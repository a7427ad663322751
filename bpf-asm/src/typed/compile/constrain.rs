//! Brings operations into forms that one instruction (and a move) can say.

use super::super::ir::{Op, Operand, Terminator};
use super::Code;
use crate::insn::{AluOp, Size, Width};

/// Whether a constant is an immediate of an instruction of this width.
pub(super) fn fits(width: Width, value: u64) -> bool {
    width == Width::W32 || i32::try_from(value.cast_signed()).is_ok()
}

pub(super) const fn commutes(op: AluOp) -> bool {
    matches!(op, AluOp::Add | AluOp::Mul | AluOp::And | AluOp::Or | AluOp::Xor)
}

pub(super) fn constrain(code: &mut Code) {
    for number in 0..code.blocks.len() {
        let old = std::mem::take(&mut code.blocks[number].ops);
        let mut ops = Vec::with_capacity(old.len());
        for (mut op, at) in old {
            // A constant that is no immediate is loaded into a register of its own first.
            let mut into_register = |operand: &mut Operand, ops: &mut Vec<_>| {
                let dst = match *operand {
                    Operand::Reg(reg) => {
                        let like = code.regs[reg as usize];
                        code.fresh(like)
                    }
                    Operand::Const(_) => code.fresh_scalar(),
                };
                ops.push((Op::Copy { dst, src: *operand }, at));
                *operand = Operand::Reg(dst);
            };
            match &mut op {
                Op::Alu { width, op, dst, a, b } => {
                    if let Operand::Const(value) = b
                        && !fits(*width, *value)
                    {
                        into_register(b, &mut ops);
                    }
                    // `dst = a op dst` would lose `dst` to the move of `a`.
                    if *b == Operand::Reg(*dst) && *a != *b && !commutes(*op) {
                        into_register(b, &mut ops);
                    }
                    if *b == Operand::Reg(*dst) && matches!(a, Operand::Const(_)) {
                        into_register(b, &mut ops);
                    }
                }
                Op::Store { size, src, .. } => {
                    if let Operand::Const(value) = src
                        && *size == Size::DW
                        && !fits(Width::W64, *value)
                    {
                        into_register(src, &mut ops);
                    }
                }
                Op::Atomic { src, expected, .. } => {
                    if matches!(src, Operand::Const(_)) {
                        into_register(src, &mut ops);
                    }
                    if let Some(Operand::Const(value)) = expected
                        && !fits(Width::W64, *value)
                    {
                        into_register(expected.as_mut().expect("just seen"), &mut ops);
                    }
                }
                _ => {}
            }
            ops.push((op, at));
        }
        let mut end = code.blocks[number].end.clone();
        let at = code.blocks[number].end_at;
        if let Terminator::Branch { width, a, b, .. } = &mut end {
            for (operand, immediate) in [(a, false), (b, true)] {
                if let Operand::Const(value) = *operand
                    && !(immediate && fits(*width, value))
                {
                    let dst = code.fresh_scalar();
                    ops.push((Op::Copy { dst, src: *operand }, at));
                    *operand = Operand::Reg(dst);
                }
            }
        }
        code.blocks[number].end = end;
        code.blocks[number].ops = ops;
    }
}
