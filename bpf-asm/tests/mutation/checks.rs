//! The checks in a finished function on which the verifier's consent hangs, and the function without one of them.
//!
//! A check is a conditional jump on the packet's end, or on what a look-up or a reservation returned. Which register holds
//! one of these where is followed through moves, spills and joins; nothing is asked of the builder.

use std::collections::BTreeMap;

use aya::programs::{ProgramError, SchedClassifier, Xdp};
use bpf_asm::insn::{AluOp, AtomicOp, Insn, JumpOp, Reg, Size, Source, Width};
use bpf_asm::object::Object;
use bpf_asm::program::{Function, MapType, Program, ProgramKind, Target};

/// Programs in one object: its maps are made once for all of them.
const AT_ONCE: usize = 50;
/// Helpers that return a pointer or null: `bpf_map_lookup_elem`, `bpf_ringbuf_reserve`.
const MAY_FAIL: [u32; 2] = [1, 131];

/// What is known of a register or a slot of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Context,
    End,
    OrNull,
}

/// Where something is known: a register, or an 8-byte slot by its offset from r10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Reg(u8),
    Slot(i16),
}

type State = BTreeMap<Place, Known>;

/// A check, and which way it goes if it is passed.
#[derive(Clone, Copy, Debug)]
struct Check {
    at: usize,
    known: Known,
    passed_by_jump: bool,
}

fn reg(reg: Reg) -> Place {
    Place::Reg(reg.number())
}

/// What is known behind an instruction.
fn after(insn: &Insn, kind: ProgramKind, state: &mut State) {
    let known = |state: &State, place| state.get(&place).copied();
    let (place, now) = match *insn {
        Insn::Alu {
            width: Width::W64,
            op: AluOp::Mov,
            dst,
            src: Source::Reg(src),
        } => (reg(dst), known(state, reg(src))),
        Insn::Load {
            size: Size::DW,
            dst,
            base: Reg::R10,
            offset,
            ..
        } => (reg(dst), known(state, Place::Slot(offset))),
        Insn::Load {
            dst, base, offset, ..
        } => {
            let end = if kind == ProgramKind::Classifier {
                80
            } else {
                4
            };
            let is_end = known(state, reg(base)) == Some(Known::Context) && offset == end;
            (reg(dst), is_end.then_some(Known::End))
        }
        Insn::Store {
            base: Reg::R10,
            offset,
            src,
            ..
        } => match src {
            Source::Reg(src) => (Place::Slot(offset), known(state, reg(src))),
            Source::Imm(_) => (Place::Slot(offset), None),
        },
        Insn::Alu { dst, .. }
        | Insn::MovSx { dst, .. }
        | Insn::Neg { dst, .. }
        | Insn::Endian { dst, .. }
        | Insn::LoadImm64 { dst, .. } => (reg(dst), None),
        Insn::Atomic {
            op: AtomicOp::CompareExchange,
            ..
        } => (Place::Reg(0), None),
        Insn::Atomic { src, .. } => (reg(src), None),
        Insn::Call { .. } | Insn::CallLocal { .. } => {
            (1..6).for_each(|number| {
                state.remove(&Place::Reg(number));
            });
            let may_fail = matches!(insn, Insn::Call { helper } if MAY_FAIL.contains(helper));
            (Place::Reg(0), may_fail.then_some(Known::OrNull))
        }
        _ => return,
    };
    match now {
        Some(now) => state.insert(place, now),
        None => state.remove(&place),
    };
}

/// The check that an instruction is, given what is known before it.
fn check(at: usize, insn: &Insn, state: &State) -> Option<Check> {
    let Insn::Jump { op, dst, src, .. } = *insn else {
        return None;
    };
    let (left, right) = match src {
        Source::Reg(src) => (state.get(&reg(dst)), state.get(&reg(src))),
        Source::Imm(0) => (state.get(&reg(dst)), None),
        Source::Imm(_) => return None,
    };
    let (known, passed_by_jump) = match (left, right, op) {
        (_, Some(Known::End), JumpOp::Lt | JumpOp::Le) => (Known::End, true),
        (_, Some(Known::End), JumpOp::Gt | JumpOp::Ge) => (Known::End, false),
        (Some(Known::End), _, JumpOp::Gt | JumpOp::Ge) => (Known::End, true),
        (Some(Known::End), _, JumpOp::Lt | JumpOp::Le) => (Known::End, false),
        (Some(Known::OrNull), None, JumpOp::Ne) => (Known::OrNull, true),
        (Some(Known::OrNull), None, JumpOp::Eq) => (Known::OrNull, false),
        _ => return None,
    };
    Some(Check {
        at,
        known,
        passed_by_jump,
    })
}

/// The checks of a main function.
fn checks(kind: ProgramKind, function: &Function) -> Vec<Check> {
    let mut slots = Vec::new();
    let mut places = Vec::new();
    for (at, insn) in function.insns.iter().enumerate() {
        places.push(slots.len());
        slots.extend(std::iter::repeat_n(at, insn.slots()));
    }
    let mut before: Vec<Option<State>> = vec![None; function.insns.len()];
    before[0] = Some(State::from([(Place::Reg(1), Known::Context)]));
    let mut open = vec![0];
    while let Some(at) = open.pop() {
        let insn = &function.insns[at];
        let mut state = before[at].clone().unwrap();
        after(insn, kind, &mut state);
        let by = |offset: i64| slots[(places[at] as i64 + 1 + offset) as usize];
        let next = match *insn {
            Insn::Exit => vec![],
            Insn::Goto { offset } => vec![by(offset.into())],
            Insn::GotoLong { offset } => vec![by(offset.into())],
            Insn::Jump { offset, .. } | Insn::MayGoto { offset } => {
                vec![at + 1, by(offset.into())]
            }
            _ => vec![at + 1],
        };
        for next in next {
            let joined = match &before[next] {
                None => state.clone(),
                Some(other) => {
                    let mut joined = other.clone();
                    joined.retain(|place, known| state.get(place) == Some(known));
                    joined
                }
            };
            if before[next].as_ref() != Some(&joined) {
                before[next] = Some(joined);
                open.push(next);
            }
        }
    }
    let found = (0..).zip(&function.insns).zip(&before);
    found
        .filter_map(|((at, insn), state)| check(at, insn, state.as_ref()?))
        .collect()
}

/// Whether there is nothing between a check that is passed and another one: a program that asks for a short view and right
/// then for a longer one has both, in this order, for its own reasons.
fn is_before_another(function: &Function, check: Check, checks: &[Check]) -> bool {
    let Insn::Jump { offset, .. } = function.insns[check.at] else {
        return false;
    };
    let mut at = check.at + 1;
    if check.passed_by_jump {
        let mut slots = i64::from(offset);
        while slots > 0 && at < function.insns.len() {
            slots -= function.insns[at].slots() as i64;
            at += 1;
        }
    }
    let moves = |insn: &&Insn| matches!(insn, Insn::Alu { .. });
    let between = function.insns[at..].iter().take_while(moves).count();
    let next = checks.iter().find(|other| other.at == at + between);
    next.is_some_and(|other| other.known == Known::End)
}

/// Whether it is about an array: from Linux 6.15 on, the verifier knows by itself that an element of a constant index is there.
fn is_of_an_array(program: &Program, check: Check) -> bool {
    let main = &program.main;
    let is_look_up = |insn: &Insn| matches!(insn, Insn::Call { helper: 1 });
    let Some(call) = main.insns[..check.at].iter().rposition(is_look_up) else {
        return false;
    };
    let name = main
        .relocations
        .iter()
        .filter(|relocation| relocation.at < call)
        .max_by_key(|relocation| relocation.at)
        .map(|relocation| &relocation.target);
    let Some(Target::Map(name)) = name else {
        return false;
    };
    let mut maps = program.maps.iter();
    maps.any(|map| {
        map.name == *name && matches!(map.map_type, MapType::Array | MapType::PerCpuArray)
    })
}

/// The program as if the check were always passed. Both ways stay, so that no code becomes unreachable.
fn without(program: &Program, check: Check, name: String) -> Program {
    let mut program = program.clone();
    let Insn::Jump { offset, .. } = program.main.insns[check.at] else {
        panic!("a check is a jump")
    };
    // r10 is never null, which no verifier takes for a bound.
    program.main.insns[check.at] = Insn::Jump {
        width: Width::W64,
        op: if check.passed_by_jump {
            JumpOp::Ne
        } else {
            JumpOp::Eq
        },
        dst: Reg::R10,
        src: Source::Imm(0),
        offset,
    };
    program.main.name = name;
    program
}

fn refusal(ebpf: &mut aya::Ebpf, name: &str, kind: ProgramKind) -> Option<String> {
    let program = ebpf.program_mut(name).unwrap();
    let loaded = if kind == ProgramKind::Classifier {
        <&mut SchedClassifier>::try_from(program).unwrap().load()
    } else {
        <&mut Xdp>::try_from(program).unwrap().load()
    };
    match loaded {
        Ok(()) => None,
        Err(ProgramError::LoadError { verifier_log, .. }) => Some(verifier_log.to_string()),
        Err(other) => panic!("{other}"),
    }
}

/// What came of taking out checks.
#[derive(Default)]
pub(crate) struct Taken {
    /// Checks of the packet's end.
    pub(crate) ends: usize,
    /// Checks of null.
    pub(crate) nulls: usize,
    /// Those of the packet's end without which the program loads: where they were written.
    pub(crate) needless: Vec<String>,
}

/// Takes out checks in turn, one of `every` so many: the kernel refuses the program for what was checked, or the check is
/// needless.
pub(crate) fn take_out(program: &Program, every: usize) -> Taken {
    let mut taken = Taken::default();
    let checks = checks(program.kind, &program.main);
    let picked: Vec<Check> = checks.iter().copied().step_by(every).collect();
    for (part, some) in picked.chunks(AT_ONCE).enumerate() {
        let name = |number: usize| format!("without_{}", part * AT_ONCE + number);
        let mut object = Object::new("GPL");
        for (number, check) in some.iter().enumerate() {
            object = object.program(without(program, *check, name(number)));
        }
        let mut ebpf = aya::Ebpf::load(&object.to_elf().unwrap()).unwrap();
        for (number, check) in some.iter().enumerate() {
            let (count, what) = match check.known {
                Known::End => (&mut taken.ends, "invalid access to packet"),
                _ => (&mut taken.nulls, "_or_null"),
            };
            *count += 1;
            let line = program.main.lines[check.at];
            let place = format!("{}, {}:{}", program.main.name, line.file, line.line);
            match refusal(&mut ebpf, &name(number), program.kind) {
                Some(log) => assert!(log.contains(what), "{place}, {check:?}: {log}"),
                None if check.known == Known::End => {
                    if !is_before_another(&program.main, *check, &checks) {
                        taken.needless.push(place);
                    }
                }
                None => assert!(
                    is_of_an_array(program, *check),
                    "{place}, {check:?}: the program loads without this check"
                ),
            }
        }
    }
    taken
}
