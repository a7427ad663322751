//! Which registers and which bytes of the frame a replacement may use.

use super::{LowerError, LowerErrorKind, offset, slots};
use crate::insn::{AluOp, AtomicOp, Insn, Reg, Source, Width};
use crate::program::Function;

/// Registers as bits.
type Set = u16;
/// r1 to r5, where calls take arguments from.
const ARGUMENTS: Set = 0b11_1110;
/// r0 to r5, which calls overwrite.
const CLOBBERED: Set = 0b11_1111;
const FRAME_BYTES: i32 = 512;
const LOWEST: i32 = -FRAME_BYTES;

/// A register for a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scratch {
    pub(super) register: Reg,
    /// Where in the frame to keep what it holds, if that is wanted later.
    pub(super) kept_at: Option<i16>,
}

/// What a function uses, instruction by instruction.
pub(super) struct Registers {
    live_out: Vec<Set>,
    /// Below everything that the function itself has in its frame.
    free_at: Option<i16>,
}

impl Registers {
    pub(super) fn new(function: &Function) -> Result<Registers, LowerError> {
        let index_of_slot = slots(function);
        let mut successors = Vec::with_capacity(function.insns.len());
        let mut slot = 0;
        for (at, insn) in function.insns.iter().enumerate() {
            slot += insn.slots();
            let falls_through =
                !matches!(insn, Insn::Exit | Insn::Goto { .. } | Insn::GotoLong { .. });
            let mut next = [falls_through.then_some(at + 1), None];
            if let Some(offset) = offset(insn) {
                let target = usize::try_from(slot as i64 + offset).ok();
                let kind = LowerErrorKind::WildJump;
                let line = function.lines[at];
                let target = target.and_then(|slot| index_of_slot.get(&slot));
                next[1] = Some(*target.ok_or(LowerError { kind, line })?);
            }
            successors.push(next);
        }
        let mut live_in = vec![0; function.insns.len() + 1];
        let mut live_out = vec![0; function.insns.len()];
        let mut changed = true;
        while changed {
            changed = false;
            for (at, insn) in function.insns.iter().enumerate().rev() {
                let out = successors[at]
                    .iter()
                    .flatten()
                    .fold(0, |out, next| out | live_in[*next]);
                let (reads, writes) = accesses(insn);
                let before = (out & !writes) | reads;
                changed |= before != live_in[at];
                (live_in[at], live_out[at]) = (before, out);
            }
        }
        Ok(Registers {
            live_out,
            free_at: free_below(function),
        })
    }

    /// A register other than those in `taken`, to overwrite in the replacement of instruction `at`.
    pub(super) fn scratch(&self, at: usize, taken: &[Reg]) -> Result<Scratch, LowerErrorKind> {
        let is_free = |register: &Reg| !taken.contains(register);
        let all = (0..10).filter_map(Reg::new);
        let live = self.live_out[at];
        let mut dead = all.clone().filter(|reg| live & bit(*reg) == 0);
        if let Some(register) = dead.find(is_free) {
            let kept_at = None;
            return Ok(Scratch { register, kept_at });
        }
        // Those are read later by more than a call that may not have that many arguments: they hold something.
        let mut preserved = all.filter(|reg| reg.number() >= 6);
        match (preserved.find(is_free), self.free_at) {
            (Some(register), Some(kept_at)) => Ok(Scratch {
                register,
                kept_at: Some(kept_at),
            }),
            _ => Err(LowerErrorKind::FrameFull),
        }
    }
}

const fn bit(reg: Reg) -> Set {
    1 << reg.number()
}

/// What an instruction reads and what it writes. Calls may read all their arguments.
fn accesses(insn: &Insn) -> (Set, Set) {
    let source = |src: &Source| match src {
        Source::Reg(reg) => bit(*reg),
        Source::Imm(_) => 0,
    };
    match insn {
        Insn::Alu {
            op: AluOp::Mov,
            dst,
            src,
            ..
        } => (source(src), bit(*dst)),
        Insn::Alu { dst, src, .. } => (source(src) | bit(*dst), bit(*dst)),
        Insn::MovSx { dst, src, .. } | Insn::CastAddressSpace { dst, src, .. } => {
            (bit(*src), bit(*dst))
        }
        Insn::Neg { dst, .. } | Insn::Endian { dst, .. } => (bit(*dst), bit(*dst)),
        Insn::Load { dst, base, .. } => (bit(*base), bit(*dst)),
        Insn::Store { base, src, .. } => (bit(*base) | source(src), 0),
        Insn::Atomic { op, base, src, .. } => {
            let (base, src, r0) = (bit(*base), bit(*src), bit(Reg::R0));
            match op {
                AtomicOp::LoadAcquire => (base, src),
                AtomicOp::CompareExchange => (base | src | r0, r0),
                AtomicOp::Add
                | AtomicOp::And
                | AtomicOp::Or
                | AtomicOp::Xor
                | AtomicOp::StoreRelease => (base | src, 0),
                _ => (base | src, src),
            }
        }
        Insn::LoadImm64 { dst, .. } => (0, bit(*dst)),
        Insn::LoadPacket { index, .. } => {
            let index = index.map_or(0, bit);
            (bit(Reg::R6) | index, CLOBBERED)
        }
        Insn::Jump { dst, src, .. } => (bit(*dst) | source(src), 0),
        Insn::Call { .. } | Insn::CallLocal { .. } | Insn::CallKfunc { .. } => {
            (ARGUMENTS, CLOBBERED)
        }
        Insn::CallReg { target } => (ARGUMENTS | bit(*target), CLOBBERED),
        // Wherever it leads, anything may be read there.
        Insn::GotoReg { .. } => (!0, 0),
        Insn::Exit => (bit(Reg::R0), 0),
        Insn::Goto { .. } | Insn::GotoLong { .. } | Insn::MayGoto { .. } => (0, 0),
    }
}

/// The offset of 8 bytes that the function has nothing in: below every offset from r10 that it names.
fn free_below(function: &Function) -> Option<i16> {
    let mut lowest = 0_i32;
    for insn in &function.insns {
        let named = match *insn {
            Insn::Load { base, offset, .. }
            | Insn::Store { base, offset, .. }
            | Insn::Atomic { base, offset, .. }
                if base == Reg::R10 =>
            {
                i32::from(offset)
            }
            // Whatever is moved down may be a copy of r10.
            Insn::Alu {
                width: Width::W64,
                op: AluOp::Add,
                src: Source::Imm(by @ LOWEST..0),
                ..
            } => by,
            Insn::Alu {
                width: Width::W64,
                op: AluOp::Sub,
                src: Source::Imm(by @ 1..=FRAME_BYTES),
                ..
            } => -by,
            _ => continue,
        };
        lowest = lowest.min(named);
    }
    let below = lowest.div_euclid(8) * 8 - 8;
    i16::try_from(below)
        .ok()
        .filter(|below| i32::from(*below) >= LOWEST)
}
