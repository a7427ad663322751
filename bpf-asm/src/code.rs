//! Plain code to functions: where a program begins that was given as one stretch of instructions, as hexadecimal bytes or
//! a text with labels give it.
//!
//! Local calls in such code are distances; loaders want functions with names. Each target of a call begins one.

use std::collections::BTreeSet;

use crate::insn::{Imm64, Insn};
use crate::program::{Function, Line, Relocation, Target};

/// Registers that arguments are passed in: r1 to r5.
const MAX_ARGUMENTS: usize = 5;

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
    /// The address of a function that is given by its distance; only by its name can it be relocated.
    #[error(
        "slot {slot}: the address of a function by its distance can't be relocated; name the function"
    )]
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
    let mut slot = 0;
    let mut lines = Vec::with_capacity(insns.len());
    for insn in insns {
        lines.push(Line {
            file,
            line: u32::try_from(slot + 1).unwrap_or(u32::MAX),
            column: 1,
        });
        slot += insn.slots();
    }
    cut(&Function {
        name: name.to_owned(),
        // The verifier follows static functions with the registers that they have; nobody counts them.
        arguments: MAX_ARGUMENTS,
        insns: insns.to_vec(),
        lines,
        relocations: Vec::new(),
    })
}

/// Cuts one function as [`functions`] does; calls that have a relocation stay as they are.
///
/// # Errors
/// See [`CodeError`].
pub fn cut(whole: &Function) -> Result<Vec<Function>, CodeError> {
    let mut starts = Vec::with_capacity(whole.insns.len());
    let mut slot = 0;
    for insn in &whole.insns {
        starts.push(slot);
        slot += insn.slots();
    }
    let heads = heads(whole, &starts, slot)?;
    let called = |slot: usize| match slot {
        0 => whole.name.clone(),
        slot => format!("{}_{slot}", whole.name),
    };
    let mut relocations = whole.relocations.iter().peekable();
    let mut functions: Vec<Function> = Vec::with_capacity(heads.len());
    for (at, (insn, slot)) in whole.insns.iter().zip(&starts).enumerate() {
        if heads.contains(slot) {
            functions.push(Function {
                name: called(*slot),
                arguments: match slot {
                    0 => whole.arguments,
                    _ => MAX_ARGUMENTS,
                },
                insns: Vec::new(),
                lines: Vec::new(),
                relocations: Vec::new(),
            });
        }
        let Some(function) = functions.last_mut() else {
            continue;
        };
        if let Some(offset) = jump_offset(insn) {
            check_jump(&heads, slot, offset)?;
        }
        let mut insn = *insn;
        let mut relocation = relocations
            .next_if(|relocation| relocation.at == at)
            .cloned();
        if let (Insn::CallLocal { offset }, None) = (insn, &relocation) {
            let callee = usize::try_from(target(*slot, i64::from(offset))).unwrap_or(0);
            relocation = Some(Relocation {
                at,
                target: Target::Subprogram(called(callee)),
            });
            insn = Insn::CallLocal { offset: -1 };
        }
        function
            .relocations
            .extend(relocation.map(|relocation| Relocation {
                at: function.insns.len(),
                ..relocation
            }));
        function.insns.push(insn);
        function.lines.extend(whole.lines.get(at).copied());
    }
    if functions.is_empty() {
        return Err(CodeError::Empty);
    }
    Ok(functions)
}

/// The slots where functions begin, and the one behind the last.
fn heads(whole: &Function, starts: &[usize], end: usize) -> Result<BTreeSet<usize>, CodeError> {
    let mut heads = BTreeSet::from([0, end]);
    for (at, (insn, slot)) in whole.insns.iter().zip(starts).enumerate() {
        let slot = *slot;
        let is_by_name = || whole.relocations.iter().any(|r| r.at == at);
        match insn {
            Insn::CallLocal { offset } if !is_by_name() => {
                let target = target(slot, i64::from(*offset));
                let head = usize::try_from(target).ok();
                let head = head.filter(|head| starts.binary_search(head).is_ok());
                heads.insert(head.ok_or(CodeError::Call { slot, target })?);
            }
            Insn::LoadImm64 {
                value: Imm64::Function { .. },
                ..
            } if !is_by_name() => return Err(CodeError::Address { slot }),
            _ => {}
        }
    }
    Ok(heads)
}

/// Whether a jump stays in its function.
fn check_jump(heads: &BTreeSet<usize>, slot: &usize, offset: i64) -> Result<(), CodeError> {
    let slot = *slot;
    let target = target(slot, offset);
    let first = heads.range(..=slot).next_back().copied();
    let after = heads.range(slot + 1..).next().copied();
    let bounds = (first.unwrap_or(slot), after.unwrap_or(slot + 1));
    let inside = |slot: usize| (bounds.0..bounds.1).contains(&slot);
    if usize::try_from(target).is_ok_and(inside) {
        return Ok(());
    }
    Err(CodeError::Jump {
        slot,
        target,
        bounds,
    })
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
    fn relocations_and_lines_go_with_their_instructions() {
        let text = "call f\nexit\nf: r1 = map[m]\ncall other\nexit\n.function other\nexit";
        let assembly = crate::text::assemble("code", text).unwrap();
        let cut = super::cut(&assembly.units[0].function("code.s", 1)).unwrap();
        assert_eq!(cut.len(), 2);
        assert_eq!((cut[0].arguments, cut[1].lines[0].line), (1, 3));
        let targets: Vec<_> = cut[1]
            .relocations
            .iter()
            .map(|r| (r.at, r.target.clone()))
            .collect();
        let expected = [
            (0, Target::Map("m".into())),
            (1, Target::Subprogram("other".into())),
        ];
        assert_eq!(targets, expected);
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
