//! The sequences that stand in for instructions.

use std::collections::HashMap;

use super::LowerErrorKind;
use super::registers::{Registers, Scratch};
use crate::insn::{AluOp, AtomicOp, EndianKind, Insn, JumpOp, Reg, Size, Source, Width};
use crate::target::{Feature, Target};

/// What stands in for one instruction.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    pub(super) insns: Vec<Insn>,
    /// Jumps inside the sequence: which instruction, and which one it leads to (the number of instructions: the end).
    pub(super) jumps: HashMap<usize, usize>,
}

impl Sequence {
    pub(super) fn of(insn: Insn) -> Sequence {
        Sequence {
            insns: vec![insn],
            jumps: HashMap::new(),
        }
    }

    pub(super) fn slots(&self) -> usize {
        self.slots_before(self.insns.len())
    }

    pub(super) fn slots_before(&self, place: usize) -> usize {
        self.insns[..place].iter().map(Insn::slots).sum()
    }

    fn push(&mut self, insn: Insn) {
        self.insns.push(insn);
    }

    fn alu(&mut self, width: Width, op: AluOp, dst: Reg, src: impl Into<Source>) {
        let src = src.into();
        self.push(Insn::Alu {
            width,
            op,
            dst,
            src,
        });
    }

    /// A jump whose target [`Sequence::here`] sets.
    fn jump(&mut self, width: Width, op: JumpOp, dst: Reg, src: impl Into<Source>) -> usize {
        let (src, offset) = (src.into(), 0);
        self.push(Insn::Jump {
            width,
            op,
            dst,
            src,
            offset,
        });
        self.insns.len() - 1
    }

    fn goto(&mut self) -> usize {
        self.push(Insn::Goto { offset: 0 });
        self.insns.len() - 1
    }

    fn here(&mut self, jump: usize) {
        self.jumps.insert(jump, self.insns.len());
    }
}

/// What stands in for `insn`. An error of `None`: nothing can.
pub(super) fn replacement(
    target: &Target,
    insn: &Insn,
    registers: &Registers,
    at: usize,
) -> Result<Sequence, Option<LowerErrorKind>> {
    let mut out = Sequence::default();
    match *insn {
        Insn::MovSx {
            width,
            bits,
            dst,
            src,
        } => {
            out.alu(width, AluOp::Mov, dst, src);
            sign_extend(&mut out, width, dst, bits);
        }
        Insn::Load {
            size,
            signed: true,
            dst,
            base,
            offset,
        } => {
            out.push(Insn::Load {
                size,
                signed: false,
                dst,
                base,
                offset,
            });
            sign_extend(&mut out, Width::W64, dst, 8 * size.bytes());
        }
        Insn::Endian {
            kind: EndianKind::Swap,
            bits,
            dst,
        } => out.push(Insn::Endian {
            kind: EndianKind::ToBe,
            bits,
            dst,
        }),
        Insn::Alu {
            width,
            op: op @ (AluOp::SDiv | AluOp::SMod),
            dst,
            src,
        } => {
            signed_division(&mut out, width, op, dst, src);
            // The parts may need replacing in their turn.
            if !target.has(Feature::WrappingNegation) || !target.has(Feature::RemainderClears) {
                return Ok(again(target, out));
            }
        }
        Insn::Alu {
            width: Width::W32,
            op: AluOp::Mod,
            dst,
            ..
        } => {
            out.push(*insn);
            out.alu(Width::W32, AluOp::Mov, dst, dst);
        }
        Insn::Neg { width, dst } => {
            out.alu(width, AluOp::Xor, dst, -1);
            out.alu(width, AluOp::Add, dst, 1);
        }
        Insn::Jump {
            width,
            op,
            dst,
            src: Source::Imm(imm),
            offset,
        } => {
            let scratch = registers.scratch(at, &[dst])?;
            let register = scratch.register;
            if scratch.kept_at.is_none() {
                out.alu(Width::W64, AluOp::Mov, register, imm);
                out.push(Insn::Jump {
                    width,
                    op,
                    dst,
                    src: register.into(),
                    offset,
                });
                return Ok(out);
            }
            // Whether it jumps or not, the register must be itself again.
            keep(&mut out, scratch);
            out.alu(Width::W64, AluOp::Mov, register, imm);
            let taken = out.jump(width, op, dst, register);
            restore(&mut out, scratch);
            let done = out.goto();
            out.here(taken);
            restore(&mut out, scratch);
            out.push(Insn::Goto { offset });
            out.here(done);
        }
        Insn::GotoLong { offset } => out.push(Insn::Goto {
            offset: i16::try_from(offset).map_err(|_| Some(LowerErrorKind::JumpTooFar))?,
        }),
        Insn::Atomic { .. } => return atomic(target, insn, registers, at),
        _ => return Err(None),
    }
    Ok(out)
}

/// Replaces in a replacement what the target lacks; those parts need no registers.
fn again(target: &Target, sequence: Sequence) -> Sequence {
    let mut out = Sequence::default();
    let mut moved = Vec::with_capacity(sequence.insns.len() + 1);
    for insn in &sequence.insns {
        moved.push(out.insns.len());
        let lacking = Feature::of(insn).is_some_and(|feature| !target.has(feature));
        match (insn, lacking) {
            (&Insn::Neg { width, dst }, true) => {
                out.alu(width, AluOp::Xor, dst, -1);
                out.alu(width, AluOp::Add, dst, 1);
            }
            (&Insn::Alu { dst, .. }, true) => {
                out.push(*insn);
                out.alu(Width::W32, AluOp::Mov, dst, dst);
            }
            _ => out.push(*insn),
        }
    }
    moved.push(out.insns.len());
    let jumps = sequence.jumps.iter();
    out.jumps = jumps.map(|(from, to)| (moved[*from], moved[*to])).collect();
    out
}

fn sign_extend(out: &mut Sequence, width: Width, dst: Reg, bits: u8) {
    let register = if width == Width::W64 { 64 } else { 32 };
    let by = register - i32::from(bits);
    out.alu(width, AluOp::Lsh, dst, by);
    out.alu(width, AluOp::Arsh, dst, by);
}

/// By magnitudes: the quotient is negative if the signs differ, the remainder if the dividend is. A divisor in a register is
/// negated and negated back, as 64 bits, so that all of it is as it was.
fn signed_division(out: &mut Sequence, width: Width, op: AluOp, dst: Reg, src: Source) {
    let unsigned = if op == AluOp::SDiv {
        AluOp::Div
    } else {
        AluOp::Mod
    };
    let negate = |out: &mut Sequence| out.push(Insn::Neg { width, dst });
    // |dst| op |by|, with the sign that it must have.
    let by_magnitude = |out: &mut Sequence, by: Source, is_negative: bool| {
        let changes = is_negative && op == AluOp::SDiv;
        let not_negative = out.jump(width, JumpOp::SGe, dst, 0);
        negate(out);
        out.alu(width, unsigned, dst, by);
        if !changes {
            negate(out);
        }
        let done = out.goto();
        out.here(not_negative);
        out.alu(width, unsigned, dst, by);
        if changes {
            negate(out);
        }
        out.here(done);
    };
    match src {
        // Its magnitude as an unsigned number; that of the smallest one is itself.
        Source::Imm(imm) if imm != i32::MIN || width == Width::W32 => {
            by_magnitude(out, Source::Imm(imm.wrapping_neg().max(imm)), imm < 0);
        }
        Source::Imm(imm) => {
            // 2^31 is no sign-extended immediate: |dst| / 2^31 is a shift, |dst| % 2^31 a mask.
            let (op, by) = if op == AluOp::SDiv {
                (AluOp::Rsh, 31)
            } else {
                (AluOp::And, i32::MAX)
            };
            debug_assert_eq!(imm, i32::MIN);
            let not_negative = out.jump(width, JumpOp::SGe, dst, 0);
            negate(out);
            out.alu(width, op, dst, by);
            if op == AluOp::And {
                negate(out);
            }
            let done = out.goto();
            out.here(not_negative);
            out.alu(width, op, dst, by);
            if op == AluOp::Rsh {
                negate(out);
            }
            out.here(done);
        }
        Source::Reg(reg) if reg == dst => {
            // By itself: 1 with no remainder, or, for 0, 0 and 0.
            if op == AluOp::SMod {
                out.alu(width, AluOp::Mov, dst, 0);
                return;
            }
            out.alu(width, AluOp::Mov, dst, dst);
            let zero = out.jump(width, JumpOp::Eq, dst, 0);
            out.alu(width, AluOp::Mov, dst, 1);
            out.here(zero);
        }
        Source::Reg(reg) => {
            let negate_divisor = Insn::Neg {
                width: Width::W64,
                dst: reg,
            };
            let not_negative = out.jump(width, JumpOp::SGe, reg, 0);
            out.push(negate_divisor);
            by_magnitude(out, src, true);
            out.push(negate_divisor);
            let done = out.goto();
            out.here(not_negative);
            by_magnitude(out, src, false);
            out.here(done);
        }
    }
}

fn atomic(
    target: &Target,
    insn: &Insn,
    registers: &Registers,
    at: usize,
) -> Result<Sequence, Option<LowerErrorKind>> {
    let &Insn::Atomic {
        size,
        op,
        base,
        offset,
        src,
    } = insn
    else {
        return Err(None);
    };
    if target.alone {
        return Ok(plain(
            registers.scratch(at, &[base, src, Reg::R0])?,
            size,
            op,
            base,
            offset,
            src,
        ));
    }
    let is_word = matches!(size, Size::W | Size::DW);
    let mut out = Sequence::default();
    match op {
        // An addition of nothing is ordered more strongly than a load with acquire.
        AtomicOp::LoadAcquire if is_word && target.has(Feature::Atomics) && src != base => {
            out.alu(Width::W64, AluOp::Mov, src, 0);
            out.push(Insn::Atomic {
                size,
                op: AtomicOp::FetchAdd,
                base,
                offset,
                src,
            });
        }
        AtomicOp::StoreRelease if is_word && target.has(Feature::Atomics) => {
            let scratch = registers.scratch(at, &[base, src])?;
            around(&mut out, scratch, |out| {
                out.alu(Width::W64, AluOp::Mov, scratch.register, src);
                out.push(Insn::Atomic {
                    size,
                    op: AtomicOp::Exchange,
                    base,
                    offset,
                    src: scratch.register,
                });
            });
        }
        _ => return Err(None),
    }
    Ok(out)
}

/// Writes `f` with a register kept safe around it.
fn around(out: &mut Sequence, scratch: Scratch, f: impl FnOnce(&mut Sequence)) {
    keep(out, scratch);
    f(out);
    restore(out, scratch);
}

fn keep(out: &mut Sequence, scratch: Scratch) {
    let (size, base) = (Size::DW, Reg::R10);
    if let Some(offset) = scratch.kept_at {
        out.push(Insn::Store {
            size,
            base,
            offset,
            src: scratch.register.into(),
        });
    }
}

fn restore(out: &mut Sequence, scratch: Scratch) {
    let (size, base) = (Size::DW, Reg::R10);
    if let Some(offset) = scratch.kept_at {
        let (signed, dst) = (false, scratch.register);
        out.push(Insn::Load {
            size,
            signed,
            dst,
            base,
            offset,
        });
    }
}

/// The operation without atomicity.
fn plain(scratch: Scratch, size: Size, op: AtomicOp, base: Reg, offset: i16, src: Reg) -> Sequence {
    let old = scratch.register;
    let width = if size == Size::DW {
        Width::W64
    } else {
        Width::W32
    };
    let load = |dst| Insn::Load {
        size,
        signed: false,
        dst,
        base,
        offset,
    };
    let store = |src: Reg| Insn::Store {
        size,
        base,
        offset,
        src: src.into(),
    };
    let combines = match op {
        AtomicOp::Add | AtomicOp::FetchAdd => Some(AluOp::Add),
        AtomicOp::And | AtomicOp::FetchAnd => Some(AluOp::And),
        AtomicOp::Or | AtomicOp::FetchOr => Some(AluOp::Or),
        AtomicOp::Xor | AtomicOp::FetchXor => Some(AluOp::Xor),
        _ => None,
    };
    let mut out = Sequence::default();
    match (op, combines) {
        (AtomicOp::LoadAcquire, _) => out.push(load(src)),
        (AtomicOp::StoreRelease, _) => out.push(store(src)),
        (AtomicOp::Add | AtomicOp::And | AtomicOp::Or | AtomicOp::Xor, Some(combine)) => {
            around(&mut out, scratch, |out| {
                out.push(load(old));
                out.alu(width, combine, old, src);
                out.push(store(old));
            });
        }
        (_, Some(combine)) => around(&mut out, scratch, |out| {
            out.push(load(old));
            out.alu(width, combine, src, old);
            out.push(store(src));
            out.alu(Width::W64, AluOp::Mov, src, old);
        }),
        (AtomicOp::CompareExchange, None) => around(&mut out, scratch, |out| {
            out.push(load(old));
            let differs = out.jump(width, JumpOp::Ne, old, Reg::R0);
            out.push(store(src));
            out.here(differs);
            out.alu(Width::W64, AluOp::Mov, Reg::R0, old);
        }),
        (_, None) => around(&mut out, scratch, |out| {
            out.push(load(old));
            out.push(store(src));
            out.alu(Width::W64, AluOp::Mov, src, old);
        }),
    }
    out
}
