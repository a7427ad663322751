//! Asking a kernel, by programs of a few instructions: one per feature, one per helper and hook.
//!
//! Nothing here loads anything: the caller does, so that this crate stays without I/O.

use super::{Feature, Target};
use crate::asm::{AsmError, Assembler};
use crate::helper::{HELPERS, Hook};
use crate::insn::Reg;
use crate::program::{Program, ProgramKind};

/// What the kernel said to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was loaded.
    Loaded,
    /// It was refused; the verifier's log.
    Refused(String),
}

/// What each program asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Feature(Feature),
    Helper(Hook, u32),
}

impl Target {
    /// What a kernel has, as `load` finds out: it gets a program at a time, tries to load it (under a licence that is
    /// compatible with the GPL), and says what came of it. Nothing has to stay loaded.
    ///
    /// # Errors
    /// The first error of `load`: that one couldn't ask, for example for lack of privileges.
    pub fn probe<E>(mut load: impl FnMut(&Program) -> Result<Answer, E>) -> Result<Target, E> {
        // What no kernel lacks that loads programs at all isn't asked.
        let mut target = Feature::ALL
            .into_iter()
            .filter(|feature| code(*feature).is_some())
            .fold(Target::everything(), Target::without);
        for (question, program) in questions() {
            let answer = load(&program)?;
            match (question, answer) {
                (Question::Feature(feature), Answer::Loaded) => target = target.with(feature),
                (Question::Feature(_), Answer::Refused(_)) => {}
                (Question::Helper(hook, number), answer) => {
                    if is_helper_known(&answer) {
                        target.set_helper(hook, number);
                    }
                }
            }
        }
        Ok(target)
    }
}

/// The programs that [`Target::probe`] loads, for looking at.
#[must_use]
pub fn probe_programs() -> Vec<Program> {
    questions()
        .into_iter()
        .map(|(_, program)| program)
        .collect()
}

/// A helper that the kernel has is refused for its arguments, which these programs never set, or not at all.
fn is_helper_known(answer: &Answer) -> bool {
    const STRANGERS: [&str; 4] = [
        "unknown func",
        "invalid func",
        "cannot use helper",
        "invalid helper",
    ];
    match answer {
        Answer::Loaded => true,
        Answer::Refused(log) => !STRANGERS.iter().any(|stranger| log.contains(stranger)),
    }
}

fn questions() -> Vec<(Question, Program)> {
    let mut questions = Vec::new();
    let mut ask = |question, kind, a: Result<crate::program::Function, AsmError>| {
        // What the assembler refuses can't be asked; a test sees that this doesn't happen.
        if let Ok(main) = a {
            let (subprograms, maps) = (Vec::new(), Vec::new());
            questions.push((
                question,
                Program {
                    kind,
                    main,
                    subprograms,
                    maps,
                },
            ));
        }
    };
    for feature in Feature::ALL {
        if let Some(code) = code(feature) {
            let mut a = Assembler::new("probe");
            code(&mut a);
            a.mov64_imm(Reg::R0, 2).exit();
            ask(Question::Feature(feature), ProgramKind::Xdp, a.finish());
        }
    }
    for hook in Hook::ALL {
        let kind = match hook {
            Hook::Xdp => ProgramKind::Xdp,
            Hook::Tc => ProgramKind::Classifier,
        };
        for helper in HELPERS {
            let mut a = Assembler::new("probe");
            a.call(helper.number).mov64_imm(Reg::R0, 0).exit();
            ask(Question::Helper(hook, helper.number), kind, a.finish());
        }
    }
    questions
}

/// Code with the one instruction, on registers and stack that are written.
fn code(feature: Feature) -> Option<fn(&mut Assembler)> {
    Some(match feature {
        Feature::AtomicAdd => |a| {
            a.st_dw(Reg::R10, -8, 0).mov64_imm(Reg::R1, 1);
            a.atomic_add64(Reg::R10, -8, Reg::R1)
                .atomic_add32(Reg::R10, -8, Reg::R1);
        },
        Feature::Atomics => |a| {
            a.st_dw(Reg::R10, -8, 0)
                .mov64_imm(Reg::R0, 0)
                .mov64_imm(Reg::R1, 1);
            a.fetch_add64(Reg::R10, -8, Reg::R1)
                .fetch_or32(Reg::R10, -8, Reg::R1);
            a.xchg64(Reg::R10, -8, Reg::R1)
                .cmpxchg64(Reg::R10, -8, Reg::R1);
        },
        Feature::OrderedAccess => |a| {
            a.st_dw(Reg::R10, -8, 0)
                .load_acquire_dw(Reg::R1, Reg::R10, -8);
            a.store_release_dw(Reg::R10, -8, Reg::R1);
        },
        Feature::SignExtendingMove => |a| {
            a.mov64_imm(Reg::R1, 1).movsx64_8(Reg::R1, Reg::R1);
            a.movsx32_16(Reg::R1, Reg::R1);
        },
        Feature::SignExtendingLoad => |a| {
            a.st_dw(Reg::R10, -8, 0).ldsx_b(Reg::R1, Reg::R10, -8);
        },
        Feature::ByteSwap => |a| {
            a.mov64_imm(Reg::R1, 1).bswap32(Reg::R1);
        },
        Feature::SignedDivision => |a| {
            a.mov64_imm(Reg::R1, 9).mov64_imm(Reg::R2, 2);
            a.sdiv64(Reg::R1, Reg::R2).smod32_imm(Reg::R1, 3);
        },
        Feature::LongJump => |a| {
            let next = a.label();
            a.gotol(next).bind(next);
        },
        Feature::MayGoto => |a| {
            let next = a.label();
            a.may_goto(next).bind(next);
        },
        // These are older than anything that loads our objects, or (the last three) right in every kernel.
        Feature::Callback
        | Feature::LocalCall
        | Feature::TailCall
        | Feature::SignExtendedCompare
        | Feature::RemainderClears
        | Feature::WrappingNegation => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_asked_and_every_answer_counts() {
        let features = Feature::ALL.iter().filter(|f| code(**f).is_some()).count();
        assert_eq!(probe_programs().len(), features + 2 * HELPERS.len());
        let all = Target::probe(|_| Ok::<_, ()>(Answer::Loaded)).unwrap();
        assert_eq!(all.features().count(), Feature::ALL.len());
        assert_eq!(all.has_helper(Hook::Tc, 44), Some(true));
        let none =
            Target::probe(|_| Ok::<_, ()>(Answer::Refused("unknown func 1".into()))).unwrap();
        assert!(!none.has(Feature::Atomics) && none.has(Feature::LocalCall));
        assert_eq!(Target::probe(|_| Err::<Answer, _>("no")), Err("no"));
    }

    #[test]
    fn a_feature_s_program_has_an_instruction_that_needs_it() {
        for (question, program) in questions() {
            if let Question::Feature(feature) = question {
                let needs = |insn| Feature::of(insn) == Some(feature);
                assert!(program.main.insns.iter().any(needs), "{feature}");
            }
        }
    }
}
