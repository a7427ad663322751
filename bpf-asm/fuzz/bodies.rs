//! What the fuzz targets do with their bytes: the same here and in the bounded tests of `tests/fuzz_bounded.rs`.

#![allow(dead_code, reason = "each target uses one of them")]

#[path = "bodies/program.rs"]
mod program;

use bpf_asm::engine::{Engine, EngineError, Interpreter, Kernel};
use bpf_asm::insn::{Imm64, Insn};
use bpf_asm::interpreter::{FaultKind, Input, Machine};
use bpf_asm::object::link;
use bpf_asm::program::{Program, ProgramKind};
use bpf_asm::{code, text, verifier};

/// Instructions that one run of the interpreter may take: enough for a loop to show itself.
const BUDGET: u64 = 10_000;

/// Bytes of memory for code in the kernel.
const KERNEL_MEMORY: usize = 32;

fn slots(data: &[u8]) -> &[[u8; 8]] {
    data.as_chunks().0
}

/// Bytes are instructions or have a place where they are not; instructions are legal and give the same bytes.
pub(crate) fn decode(data: &[u8]) {
    let slots = slots(data);
    match Insn::decode_all(slots) {
        Ok(insns) => {
            let mut encoded = Vec::new();
            for insn in &insns {
                assert_eq!(insn.check(), Ok(()));
                insn.encode(&mut encoded);
            }
            assert_eq!(encoded, slots);
        }
        Err((at, _)) => assert!(at < slots.len()),
    }
}

/// What decodes is printed, and the text is assembled to the same.
pub(crate) fn disassemble(data: &[u8]) {
    for at in 0..slots(data).len() {
        if let Ok((insn, _)) = Insn::decode(&slots(data)[at..]) {
            let text = insn.to_string();
            assert_eq!(text::assemble_code("fuzz", &text), Ok(vec![insn]), "{text}");
        }
    }
}

/// Text is assembled to what decodes, or refused with places inside of it.
pub(crate) fn assemble(data: &[u8]) {
    let source = String::from_utf8_lossy(data);
    match text::assemble("fuzz", &source) {
        Ok(assembly) => {
            for unit in assembly.units {
                let mut encoded = Vec::new();
                for insn in &unit.insns {
                    insn.encode(&mut encoded);
                }
                let mut decoded = Insn::decode_all(&encoded).expect("it was assembled");
                for (decoded, insn) in decoded.iter_mut().zip(&unit.insns) {
                    // The one value that bytes can't tell apart.
                    if let Insn::LoadImm64 {
                        value: value @ Imm64::Map,
                        ..
                    } = insn
                        && let Insn::LoadImm64 { value: decoded, .. } = decoded
                    {
                        *decoded = *value;
                    }
                }
                assert_eq!(decoded, unit.insns);
                let _ = code::functions("fuzz", "fuzz", &unit.insns);
            }
        }
        Err(errors) => {
            let lines = source.lines().count().max(1);
            let inside = |line: u32| (1..=lines).contains(&(line as usize));
            assert!(errors.errors.iter().all(|error| inside(error.line)));
            assert!(!errors.to_string().is_empty());
        }
    }
}

/// Code ends by itself, by a fault or by its budget, and never by a panic. The first byte says how much of it is memory.
pub(crate) fn interpret(data: &[u8]) {
    let Some((length, data)) = data.split_first() else {
        return;
    };
    let (memory, code) = data.split_at(data.len().min(usize::from(*length)));
    let Ok(insns) = Insn::decode_all(slots(code)) else {
        return;
    };
    let machine = Machine::new();
    machine.set_budget(BUDGET);
    if let Ok(program) = machine.load_insns(&insns) {
        let _ = machine.start(program, Input::Memory(memory.to_vec())).run();
    }
}

/// The builder's program computes what Rust computes, on the interpreter, which finds nothing to object to.
pub(crate) fn builder(data: &[u8]) {
    program::check(data);
}

/// Code that the kernel takes ends there as on the interpreter; true if it took it. The first bytes are memory. Needs root.
pub(crate) fn against_kernel(data: &[u8]) -> bool {
    let (memory, code) = data.split_at(data.len().min(KERNEL_MEMORY));
    let Ok(insns) = Insn::decode_all(slots(code)) else {
        return false;
    };
    // Helpers know the time, and more that differs.
    if insns
        .iter()
        .any(|insn| matches!(insn, Insn::Call { .. } | Insn::CallKfunc { .. }))
    {
        return false;
    }
    let code = code.as_chunks::<8>().0.concat();
    let Ok(kernel) = Kernel.run(&code, memory) else {
        return false;
    };
    match Interpreter.run(&code, memory) {
        Ok(ours) => assert_eq!(ours, kernel),
        Err(EngineError::Fault(fault)) if for_root_alone(&fault.kind) => return false,
        Err(error) => panic!("the kernel took it: {error}"),
    }
    true
}

/// What the kernel lets root do with pointers and the stack, and the interpreter nobody.
fn for_root_alone(kind: &FaultKind) -> bool {
    matches!(
        kind,
        FaultKind::UninitialisedStack(_)
            | FaultKind::PointerArithmetic(_)
            | FaultKind::PointerComparison(..)
            | FaultKind::PointerLeak { .. }
            | FaultKind::PointerReturned(_)
            | FaultKind::PartOfPointer(_)
    )
}

/// Logs are explained in few lines, whatever they hold.
pub(crate) fn explain(data: &[u8]) {
    let functions = code::functions("fuzz", "fuzz", &[Insn::Goto { offset: 0 }, Insn::Exit]);
    let mut functions = functions.expect("two instructions").into_iter();
    let program = Program {
        kind: ProgramKind::Xdp,
        main: functions.next().expect("one function"),
        subprograms: Vec::new(),
        maps: Vec::new(),
    };
    let linked = link(&program).expect("a program of two instructions");
    let told = verifier::explain(&String::from_utf8_lossy(data), &linked, &[]);
    assert!(told.steps.len() <= verifier::MAX_STEPS);
    assert!(told.complaint.len() <= verifier::MAX_COMPLAINT_LINES);
    let _ = told.to_string();
}
