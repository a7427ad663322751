//! Replacing instructions that a target lacks by sequences that it has.
//!
//! Each function is expanded on its own and its jumps laid out anew. Where a sequence needs a register, one is taken that
//! nobody reads afterwards; where there is none, one of r6 to r9 is kept in the frame meanwhile. That sequences are right for
//! little-endian hosts only is no restriction beyond what the objects have.

mod registers;
mod sequences;

use std::collections::HashMap;

use super::{Feature, Target};
use crate::insn::Insn;
use crate::program::{Function, Line, Program, Relocation};
use registers::Registers;
use sequences::Sequence;

/// Why a program can't run on a target, and the Rust line of the instruction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {kind}", line.file, line.line)]
pub struct LowerError {
    /// What is wrong.
    pub kind: LowerErrorKind,
    /// Where the instruction was written.
    pub line: Line,
}

/// What a target can't do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LowerErrorKind {
    /// There is no replacement for the instruction.
    #[error(
        "the target has no {feature}, and nothing can replace it here: write this without it, or choose another target"
    )]
    Missing {
        /// What is missing.
        feature: Feature,
    },
    /// The replacement is longer, and a jump over it reaches too far.
    #[error(
        "a jump over what replaces missing instructions is too far: move a part into a subprogram"
    )]
    JumpTooFar,
    /// The replacement needs room in the frame, which is full.
    #[error(
        "no register and no room in the frame for what replaces this instruction: use less stack"
    )]
    FrameFull,
    /// A jump that doesn't hit an instruction.
    #[error("a jump leads to no instruction")]
    WildJump,
}

impl Target {
    /// The same program in instructions that the target has.
    ///
    /// # Errors
    /// An instruction can't be replaced, or its replacement finds no room; the error names the Rust line.
    pub fn lower(&self, program: &Program) -> Result<Program, LowerError> {
        let subprograms = program.subprograms.iter().map(|f| self.lower_function(f));
        Ok(Program {
            kind: program.kind,
            main: self.lower_function(&program.main)?,
            subprograms: subprograms.collect::<Result<_, _>>()?,
            maps: program.maps.clone(),
        })
    }

    /// The same function in instructions that the target has.
    ///
    /// # Errors
    /// As [`Target::lower`].
    pub fn lower_function(&self, function: &Function) -> Result<Function, LowerError> {
        let lacks = |insn: &Insn| Feature::of(insn).filter(|feature| !self.has(*feature));
        if !function.insns.iter().any(|insn| lacks(insn).is_some()) {
            return Ok(function.clone());
        }
        let registers = Registers::new(function)?;
        let mut out = Output {
            sequences: Vec::with_capacity(function.insns.len()),
        };
        for (at, insn) in function.insns.iter().enumerate() {
            let Some(feature) = lacks(insn) else {
                out.sequences.push(Sequence::of(*insn));
                continue;
            };
            let sequence = sequences::replacement(self, insn, &registers, at);
            let kind = match sequence {
                Ok(sequence) => {
                    out.sequences.push(sequence);
                    continue;
                }
                Err(kind) => kind.unwrap_or(LowerErrorKind::Missing { feature }),
            };
            let line = function.lines[at];
            return Err(LowerError { kind, line });
        }
        out.lay_out(function)
    }
}

/// A sequence for each instruction.
struct Output {
    sequences: Vec<Sequence>,
}

impl Output {
    fn lay_out(self, function: &Function) -> Result<Function, LowerError> {
        let index_of_slot = slots(function);
        let mut starts = Vec::with_capacity(self.sequences.len());
        let mut firsts = Vec::with_capacity(self.sequences.len());
        let (mut slot, mut first) = (0, 0);
        for sequence in &self.sequences {
            starts.push(slot);
            firsts.push(first);
            slot += sequence.slots();
            first += sequence.insns.len();
        }
        let mut insns = Vec::with_capacity(first);
        let mut lines = Vec::with_capacity(first);
        let mut old_slot = 0_i64;
        for (at, sequence) in self.sequences.iter().enumerate() {
            let line = function.lines[at];
            let old_end = old_slot + function.insns[at].slots() as i64;
            let mut slot = starts[at] as i64;
            for (place, insn) in sequence.insns.iter().enumerate() {
                let mut insn = *insn;
                slot += insn.slots() as i64;
                // Jumps inside a sequence lead to its instruction of that number, all others to where they always led.
                let target = if let Some(inside) = sequence.jumps.get(&place) {
                    Some(starts[at] as i64 + sequence.slots_before(*inside) as i64)
                } else if let Some(offset) = offset(&insn) {
                    let old = usize::try_from(old_end + offset).ok();
                    let index = old.and_then(|old| index_of_slot.get(&old));
                    let kind = LowerErrorKind::WildJump;
                    let index = index.ok_or(LowerError { kind, line })?;
                    Some(starts[*index] as i64)
                } else {
                    None
                };
                if let Some(target) = target {
                    insn = with_offset(insn, target - slot).ok_or(LowerError {
                        kind: LowerErrorKind::JumpTooFar,
                        line,
                    })?;
                }
                insns.push(insn);
                lines.push(line);
            }
            old_slot = old_end;
        }
        // What is relocated is never replaced, so that it is the first of its sequence.
        let relocations = function.relocations.iter().map(|relocation| Relocation {
            at: firsts[relocation.at],
            target: relocation.target.clone(),
        });
        Ok(Function {
            name: function.name.clone(),
            arguments: function.arguments,
            relocations: relocations.collect(),
            insns,
            lines,
        })
    }
}

/// The instruction at each slot at which one begins.
fn slots(function: &Function) -> HashMap<usize, usize> {
    let mut slot = 0;
    let mut at = HashMap::with_capacity(function.insns.len());
    for (index, insn) in function.insns.iter().enumerate() {
        at.insert(slot, index);
        slot += insn.slots();
    }
    at
}

/// How far a jump goes, in slots from the next instruction.
fn offset(insn: &Insn) -> Option<i64> {
    match *insn {
        Insn::Jump { offset, .. } | Insn::Goto { offset } | Insn::MayGoto { offset } => {
            Some(offset.into())
        }
        Insn::GotoLong { offset } => Some(offset.into()),
        _ => None,
    }
}

fn with_offset(mut insn: Insn, distance: i64) -> Option<Insn> {
    match &mut insn {
        Insn::Jump { offset, .. } | Insn::Goto { offset } | Insn::MayGoto { offset } => {
            *offset = i16::try_from(distance).ok()?;
        }
        Insn::GotoLong { offset } => *offset = i32::try_from(distance).ok()?,
        _ => {}
    }
    Some(insn)
}
