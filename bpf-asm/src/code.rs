//! Plain code to functions: where a program begins that was given as one stretch of instructions, as hexadecimal bytes or
//! a text with labels give it.
//!
//! Local calls in such code are distances; loaders want functions with names. Each target of a call begins one.

use std::collections::BTreeSet;

use crate::insn::{Imm64, Insn};
use crate::program::{Function, Line, Relocation, Target};

/// Why code makes no functions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// No instruction at all.
    #[error("the code is empty")]
    Empty,
    /// A call to where no instruction begins.
    #[error("slot {slot}: this call leads to slot {target}, where no instruction begins")]
    Call {
        /// The call's slot.
        slot: usize,
        /// Where it leads.
        target: i64,
    },
    /// A jump from one function into another, which no kernel takes.
    #[error("slot {slot}: this jump leads to slot {target}, out of its function (slots {} to {})", bounds.0, bounds.1 - 1)]
    Jump {
        /// The jump's slot.
        slot: usize,
        /// Where it leads.
        target: i64,
        /// The function's slots: its first, and the one after its last.
        bounds: (usize, usize),
    },
    /// The address of a function, for which objects of ours have no relocation.
    #[error("slot {slot}: the address of a function can't be relocated; only calls can")]
    Address {
        /// The load's slot.
        slot: usize,
    },
}

/// Cuts `insns` where calls lead to. The first function is called `name`, those that are called `name_` and their slot;
/// every instruction is attributed to `file`, at its slot counted from 1.
///
/// # Errors
/// See [`CodeError`].
pub fn functions(
    name: &str,
    file: &'static str,
    insns: &[Insn],
) -> Result<Vec<Function>, CodeError> {
    let mut starts = Vec::with_capacity(insns.len() + 1);
    let mut slot = 0;
    for insn in insns {
        starts.push(slot);
        slot += insn.slots();
    }
    let end = slot;
    let mut heads = BTreeSet::from([0]);
    for (insn, slot) in insns.iter().zip(&starts) {
        match insn {
            Insn::CallLocal { offset } => {
                let target = target(*slot, i64::from(*offset));
                let head = usize::try_from(target).ok();
                let head = head.filter(|head| starts.binary_search(head).is_ok());
                heads.insert(head.ok_or(CodeError::Call {
                    slot: *slot,
                    target,
                })?);
            }
            Insn::LoadImm64 {
                value: Imm64::Function { .. },
                ..
            } => return Err(CodeError::Address { slot: *slot }),
            _ => {}
        }
    }
    let called = |slot: usize| match slot {
        0 => name.to_owned(),
        slot => format!("{name}_{slot}"),
    };
    let mut functions: Vec<Function> = Vec::with_capacity(heads.len());
    for (insn, slot) in insns.iter().zip(&starts) {
        if heads.contains(slot) {
            functions.push(Function {
                name: called(*slot),
                // The verifier follows static functions with the registers that they have; nobody counts them.
                arguments: 5,
                insns: Vec::new(),
                lines: Vec::new(),
                relocations: Vec::new(),
            });
        }
        let Some(function) = functions.last_mut() else {
            continue;
        };
        let bounds = || {
            let first = heads.range(..=*slot).next_back().copied().unwrap_or(0);
            let after = heads.range(slot + 1..).next().copied().unwrap_or(end);
            (first, after)
        };
        if let Some(offset) = jump_offset(insn) {
            let target = target(*slot, offset);
            let bounds = bounds();
            let inside = |slot: usize| (bounds.0..bounds.1).contains(&slot);
            if !usize::try_from(target).is_ok_and(inside) {
                let slot = *slot;
                return Err(CodeError::Jump {
                    slot,
                    target,
                    bounds,
                });
            }
        }
        let mut insn = *insn;
        if let Insn::CallLocal { offset } = insn {
            let callee = usize::try_from(target(*slot, i64::from(offset))).unwrap_or(0);
            function.relocations.push(Relocation {
                at: function.insns.len(),
                target: Target::Subprogram(called(callee)),
            });
            insn = Insn::CallLocal { offset: -1 };
        }
        function.insns.push(insn);
        function.lines.push(Line {
            file,
            line: u32::try_from(slot + 1).unwrap_or(u32::MAX),
            column: 1,
        });
    }
    if functions.is_empty() {
        return Err(CodeError::Empty);
    }
    Ok(functions)
}

/// The slot that is `offset` behind the instruction after `slot`. Slots are far fewer than 2^63.
fn target(slot: usize, offset: i64) -> i64 {
    slot as i64 + 1 + offset
}

fn jump_offset(insn: &Insn) -> Option<i64> {
    match *insn {
        Insn::Jump { offset, .. } | Insn::Goto { offset } | Insn::MayGoto { offset } => {
            Some(i64::from(offset))
        }
        Insn::GotoLong { offset } => Some(i64::from(offset)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::assemble_code;

    fn cut(text: &str) -> Result<Vec<Function>, CodeError> {
        functions("code", "code", &assemble_code("code", text).unwrap())
    }

    #[test]
    fn calls_cut_code_into_functions() {
        let functions =
            cut("r1 = 0x1 ll\ncall f\ncall g\nexit\ng: r0 = 1\nexit\nf: call g\nexit").unwrap();
        let names: Vec<&str> = functions.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["code", "code_5", "code_7"]);
        let lengths: Vec<usize> = functions.iter().map(|f| f.insns.len()).collect();
        assert_eq!(lengths, [4, 2, 2]);
        let targets = |f: &Function| {
            f.relocations
                .iter()
                .map(|r| (r.at, r.target.clone()))
                .collect::<Vec<_>>()
        };
        let sub = |name: &str| Target::Subprogram(name.into());
        assert_eq!(
            targets(&functions[0]),
            [(1, sub("code_7")), (2, sub("code_5"))]
        );
        assert_eq!(targets(&functions[2]), [(0, sub("code_5"))]);
        assert_eq!(functions[2].lines[1].line, 9);
    }

    #[test]
    fn what_crosses_functions_is_refused_with_its_slot() {
        assert_eq!(functions("c", "c", &[]), Err(CodeError::Empty));
        let cross = cut("call f\ngoto out\nf: r0 = 1\nout: exit");
        let bounds = (0, 2);
        assert_eq!(
            cross,
            Err(CodeError::Jump {
                slot: 1,
                target: 3,
                bounds
            })
        );
        assert_eq!(
            cut("r1 = 0x1 ll\ncall pc-2\nexit"),
            Err(CodeError::Call { slot: 2, target: 1 })
        );
        assert_eq!(
            cut("call pc+9\nexit"),
            Err(CodeError::Call {
                slot: 0,
                target: 10
            })
        );
        assert_eq!(
            cut("goto pc-5\nexit").unwrap_err().to_string(),
            "slot 0: this jump leads to slot -4, out of its function (slots 0 to 1)"
        );
        assert_eq!(
            cut("r1 = subprog[+0]\nexit"),
            Err(CodeError::Address { slot: 0 })
        );
    }
}
