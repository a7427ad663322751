//! The crate `rbpf`: atomics, which it doesn't have, become plain operations first; nobody else looks at its memory.

mod program;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use self::program::{RbpfRun, run};
use super::{Answer, Engine, EngineError, EngineKind};
use crate::insn::{AluOp, AtomicOp, Insn, JumpOp, Reg, Size, Source, Width};
use crate::interpreter::LoadError;

/// The crate `rbpf`, its interpreter. It has no instruction budget: a program that doesn't end doesn't return.
///
/// What it computes otherwise than the instruction set says is listed in docs/bpf-asm.md.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rbpf;

impl Engine for Rbpf {
    fn run(&mut self, code: &[u8], memory: &[u8]) -> Result<Answer, EngineError> {
        let (slots, rest) = code.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(LoadError::Length(code.len()).into());
        }
        let insns =
            Insn::decode_all(slots).map_err(|(slot, error)| LoadError::Decode { slot, error })?;
        let length = i32::try_from(memory.len()).map_err(|_| refused("too much memory".into()))?;
        // rbpf says where memory is, not how long.
        let mut lowered = vec![Insn::Alu {
            width: Width::W64,
            op: AluOp::Mov,
            dst: Reg::R2,
            src: Source::Imm(length),
        }];
        lowered.extend(laid_out(&insns, without_atomics)?);
        let mut encoded = Vec::new();
        for insn in &lowered {
            insn.encode(&mut encoded);
        }
        let code = encoded.concat();
        let mut memory = memory.to_vec();
        // It panics where an addition overflows and assertions are on.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let vm = ::rbpf::EbpfVmRaw::new(Some(&code))?;
            vm.execute_program(&mut memory)
        }));
        match result {
            Ok(Ok(r0)) => Ok(Answer { r0, memory }),
            Ok(Err(error)) => Err(refused(error.to_string())),
            Err(_) => Err(refused("it panicked".into())),
        }
    }
}

fn refused(words: String) -> EngineError {
    EngineError::Refused {
        engine: EngineKind::Rbpf,
        words,
    }
}

/// An atomic operation as a load, an operation and a store.
fn without_atomics(insn: &Insn) -> Option<Vec<Insn>> {
    match *insn {
        Insn::Atomic {
            size,
            op,
            base,
            offset,
            src,
        } => Some(plain(size, op, base, offset, src)),
        _ => None,
    }
}

/// The program with some instructions replaced by several. Jumps are laid out anew, but those within a replacement.
///
/// # Errors
/// Jumps that lead nowhere, or too far then.
fn laid_out(
    insns: &[Insn],
    replacement: impl Fn(&Insn) -> Option<Vec<Insn>>,
) -> Result<Vec<Insn>, LoadError> {
    let parts: Vec<Vec<Insn>> = insns
        .iter()
        .map(|insn| replacement(insn).unwrap_or_else(|| vec![*insn]))
        .collect();
    let starts = |lengths: &mut dyn Iterator<Item = usize>| {
        let mut starts = vec![0];
        for length in lengths {
            starts.push(starts[starts.len() - 1] + length);
        }
        starts
    };
    let old = starts(&mut insns.iter().map(Insn::slots));
    let new = starts(&mut parts.iter().map(|part| part.iter().map(Insn::slots).sum()));
    let mut out = Vec::with_capacity(insns.len());
    for (at, part) in parts.into_iter().enumerate() {
        let slot = old[at];
        let moved = |offset: i64| -> Result<i64, LoadError> {
            let target = usize::try_from(slot as i64 + 1 + offset).ok();
            let index = target.and_then(|target| old.binary_search(&target).ok());
            let index = index.ok_or(LoadError::Target { slot })?;
            Ok(new[index] as i64 - (new[at] as i64 + 1))
        };
        let near = |offset: i16| {
            let offset = moved(i64::from(offset))?;
            i16::try_from(offset).map_err(|_| LoadError::Target { slot })
        };
        let far = |offset: i32| {
            let offset = moved(i64::from(offset))?;
            i32::try_from(offset).map_err(|_| LoadError::Target { slot })
        };
        let is_jump = part.len() == 1;
        for insn in part {
            out.push(match insn {
                Insn::Jump {
                    width,
                    op,
                    dst,
                    src,
                    offset,
                } if is_jump => Insn::Jump {
                    width,
                    op,
                    dst,
                    src,
                    offset: near(offset)?,
                },
                Insn::Goto { offset } => Insn::Goto {
                    offset: near(offset)?,
                },
                Insn::GotoLong { offset } => Insn::GotoLong {
                    offset: far(offset)?,
                },
                Insn::CallLocal { offset } => Insn::CallLocal {
                    offset: far(offset)?,
                },
                insn => insn,
            });
        }
    }
    Ok(out)
}

/// A plain program for one atomic operation. The register that it needs besides those named is saved in the frame's
/// lowest slot meanwhile.
fn plain(size: Size, op: AtomicOp, base: Reg, offset: i16, src: Reg) -> Vec<Insn> {
    let width = match size {
        Size::DW => Width::W64,
        _ => Width::W32,
    };
    let load = |dst| Insn::Load {
        size,
        signed: false,
        dst,
        base,
        offset,
    };
    let store = |src| Insn::Store {
        size,
        base,
        offset,
        src: Source::Reg(src),
    };
    let alu = |op, dst, src| Insn::Alu {
        width,
        op,
        dst,
        src: Source::Reg(src),
    };
    // One that the instruction doesn't name.
    let mut spare = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5]
        .into_iter()
        .filter(|reg| *reg != base && *reg != src);
    let a = spare.next().unwrap_or(Reg::R5);
    let keep = |reg, store: bool| {
        if store {
            Insn::Store {
                size: Size::DW,
                base: Reg::R10,
                offset: SPILL,
                src: Source::Reg(reg),
            }
        } else {
            Insn::Load {
                size: Size::DW,
                signed: false,
                dst: reg,
                base: Reg::R10,
                offset: SPILL,
            }
        }
    };
    let fetched = |op: AluOp| {
        vec![
            keep(a, true),
            load(a),
            // The new value is in `a` before the old one takes the source's place; memory has the old one until the store.
            alu(op, a, src),
            load(src),
            store(a),
            keep(a, false),
        ]
    };
    match op {
        AtomicOp::Add | AtomicOp::And | AtomicOp::Or | AtomicOp::Xor => {
            vec![
                keep(a, true),
                load(a),
                alu(alu_of(op), a, src),
                store(a),
                keep(a, false),
            ]
        }
        AtomicOp::FetchAdd | AtomicOp::FetchAnd | AtomicOp::FetchOr | AtomicOp::FetchXor => {
            fetched(alu_of(op))
        }
        AtomicOp::Exchange => fetched(AluOp::Mov),
        AtomicOp::LoadAcquire => vec![load(src)],
        AtomicOp::StoreRelease => vec![store(src)],
        AtomicOp::CompareExchange => {
            // r0 is compared at the access's width; it becomes the old value either way.
            vec![
                keep(a, true),
                load(a),
                Insn::Jump {
                    width,
                    op: JumpOp::Ne,
                    dst: a,
                    src: Source::Reg(Reg::R0),
                    offset: 1,
                },
                store(src),
                Insn::Alu {
                    width: Width::W64,
                    op: AluOp::Mov,
                    dst: Reg::R0,
                    src: Source::Reg(a),
                },
                keep(a, false),
            ]
        }
    }
}

/// The frame's lowest slot, which programs to be compared leave alone.
const SPILL: i16 = -512;

fn alu_of(op: AtomicOp) -> AluOp {
    match op {
        AtomicOp::And | AtomicOp::FetchAnd => AluOp::And,
        AtomicOp::Or | AtomicOp::FetchOr => AluOp::Or,
        AtomicOp::Xor | AtomicOp::FetchXor => AluOp::Xor,
        _ => AluOp::Add,
    }
}
