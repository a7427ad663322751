//! The instruction set, claim by claim: case files of our own, run by those who should know.
//!
//! Each file in this folder is a table of programs with what r0 holds in the end, or with why there is no such program. The
//! kernel is asked through BPF_PROG_TEST_RUN, which needs root; without it that part says so loudly.

mod case;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;

use bpf_asm::engine::EngineError;
use bpf_asm::engine::kernel::{Call, Loaded};
use bpf_asm::insn::{AtomicOp, Insn};
use bpf_asm::interpreter::{Input, Machine, SkbInput};
use bpf_asm::program::ProgramKind;
use case::{Case, Run};

const FILES: &[(&str, &str)] = &[
    ("alu32.cases", include_str!("alu32.cases")),
    ("alu64.cases", include_str!("alu64.cases")),
    ("atomic.cases", include_str!("atomic.cases")),
    ("byteorder.cases", include_str!("byteorder.cases")),
    ("control.cases", include_str!("control.cases")),
    ("jump32.cases", include_str!("jump32.cases")),
    ("jump64.cases", include_str!("jump64.cases")),
    ("memory.cases", include_str!("memory.cases")),
    ("packet.cases", include_str!("packet.cases")),
    ("refused.cases", include_str!("refused.cases")),
];

fn cases() -> Vec<Case> {
    let read = |(file, text): &(&str, &str)| case::read(file, text);
    FILES.iter().flat_map(read).collect()
}

fn code(case: &Case, run: &Run) -> Vec<Insn> {
    case.assemble(&run.text)
        .unwrap_or_else(|error| panic!("{}: {error}", case.title))
}

/// Runs every row of every case that is not to be refused; each finding is told, and any is a failure.
fn all_pass(mut run: impl FnMut(&Case, &Run) -> Result<u64, String>) {
    let mut findings = Vec::new();
    let mut runs = 0;
    for case in cases() {
        for row in case.runs() {
            runs += 1;
            match run(&case, &row) {
                Ok(r0) if r0 == row.result => {}
                Ok(r0) => findings.push(format!(
                    "{}\n  r0 is {r0:#x}, not {:#x}, with memory {:02x?} in:\n{}",
                    case.title, row.result, row.memory, row.text
                )),
                Err(error) => findings.push(format!("{}\n  {error}", case.title)),
            }
        }
    }
    assert!(runs > 1000, "{runs} runs");
    let shown = findings[..findings.len().min(20)].join("\n");
    assert!(
        findings.is_empty(),
        "{} of {runs} runs:\n{shown}",
        findings.len()
    );
}

#[test]
fn what_is_no_instruction_is_refused_with_its_reason() {
    let mut refused = 0;
    for case in cases() {
        let Some(message) = &case.refused else {
            continue;
        };
        match case.assemble(&case.source) {
            Ok(insns) => panic!("{}: taken, as {insns:?}", case.title),
            Err(error) => assert!(error.contains(message), "{}\n  {error}", case.title),
        }
        refused += 1;
    }
    assert!(refused > 50, "{refused} cases");
}

/// Bytes, instructions and text of every case lead to each other.
#[test]
fn every_case_survives_disassembly_and_decoding() {
    for case in cases().iter().filter(|case| case.refused.is_none()) {
        for run in case.runs() {
            let insns = code(case, &run);
            let mut slots = Vec::new();
            let mut text = String::new();
            for insn in &insns {
                insn.encode(&mut slots);
                text.push_str(&format!("{insn}\n"));
            }
            assert_eq!(
                Insn::decode_all(&slots).as_ref(),
                Ok(&insns),
                "{}",
                case.title
            );
            assert_eq!(case.assemble(&text).as_ref(), Ok(&insns), "{}", case.title);
        }
    }
}

/// What makes an instruction another one: its opcode, and the offset or the immediate where these choose the operation.
fn operation(insn: &Insn) -> (u8, i32) {
    let mut slots = Vec::new();
    insn.encode(&mut slots);
    let [opcode, registers, o0, o1, i0, i1, i2, i3] = slots[0];
    let imm = i32::from_le_bytes([i0, i1, i2, i3]);
    let choice = match insn {
        Insn::Atomic { .. } | Insn::Endian { .. } => imm,
        Insn::Alu { .. } | Insn::MovSx { .. } => i32::from(i16::from_le_bytes([o0, o1])),
        Insn::LoadImm64 { .. } | Insn::CallLocal { .. } => i32::from(registers >> 4),
        _ => 0,
    };
    (opcode, choice)
}

/// By asking the decoder about every opcode with every field that chooses an operation.
fn every_operation() -> BTreeMap<(u8, i32), Insn> {
    let atomic = [
        0, 0x40, 0x50, 0xa0, 1, 0x41, 0x51, 0xa1, 0xe1, 0xf1, 0x100, 0x110,
    ];
    let imms: BTreeSet<i32> = atomic.into_iter().chain([16, 32, 64]).collect();
    let mut all = BTreeMap::new();
    for opcode in 0..=u8::MAX {
        for offset in [0i16, 1, 8, 16, 32] {
            for imm in &imms {
                for src in [0u8, 1] {
                    let [o0, o1] = offset.to_le_bytes();
                    let [i0, i1, i2, i3] = imm.to_le_bytes();
                    let slots = [[opcode, src << 4, o0, o1, i0, i1, i2, i3], [0; 8]];
                    if let Ok((insn, _)) = Insn::decode(&slots) {
                        all.insert(operation(&insn), insn);
                    }
                }
            }
        }
    }
    all
}

#[test]
fn every_operation_has_a_case() {
    let mut covered = BTreeSet::new();
    for case in cases().iter().filter(|case| case.refused.is_none()) {
        for run in case.runs() {
            covered.extend(code(case, &run).iter().map(operation));
        }
    }
    let mut missing = every_operation();
    assert!(missing.len() > 150, "{} operations", missing.len());
    missing.retain(|operation, _| !covered.contains(operation));
    // What no program of plain code can show: Linux refuses calls by register, jumps by register need a map of addresses,
    // address spaces an arena, and map addresses a map (tests/object_load.rs).
    missing.retain(|_, insn| {
        !matches!(
            insn,
            Insn::CallReg { .. }
                | Insn::GotoReg { .. }
                | Insn::CastAddressSpace { .. }
                | Insn::LoadImm64 { .. }
        )
    });
    assert!(missing.is_empty(), "{missing:?}");
    let atomics = covered
        .iter()
        .filter(|(opcode, _)| matches!(opcode, 0xc3 | 0xdb));
    assert_eq!(atomics.count(), 2 * AtomicOp::ALL.len());
}

#[test]
fn the_kernel_agrees_with_every_case() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        skipped("needs root");
        return;
    }
    // Rows that differ in their memory alone share a program.
    let mut last: Option<(String, usize, Result<Loaded, EngineError>)> = None;
    all_pass(|case, run| {
        let length = run.memory.len();
        let is_last = |(text, len, _): &(String, usize, _)| *text == run.text && *len == length;
        if !last.as_ref().is_some_and(is_last) {
            let call = match case.is_classifier {
                true => Call::AsClassifier,
                false => Call::WithMemory(length),
            };
            let loaded = Loaded::load(&code(case, run), call);
            last = Some((run.text.clone(), length, loaded));
        }
        match (&last, &case.kernel_refuses) {
            (Some((.., Ok(loaded))), None) => loaded
                .run(&mut run.memory.clone())
                .map_err(|error| error.to_string()),
            (Some((.., Ok(_))), Some(why)) => Err(format!("the kernel was to refuse it: {why}")),
            (Some((.., Err(EngineError::Refused { .. }))), Some(_)) => Ok(run.result),
            (Some((.., Err(error))), _) => Err(error.to_string()),
            (None, _) => unreachable!("it was loaded above"),
        }
    });
}

#[test]
fn the_interpreter_agrees_with_every_case() {
    all_pass(|case, run| {
        let machine = Machine::new();
        // As many rounds of `may_goto` as the kernel allows take a while.
        machine.set_budget(1 << 26);
        let insns = code(case, run);
        let (program, input) = match case.is_classifier {
            true => (
                machine.load_insns_for(ProgramKind::Classifier, &insns),
                SkbInput::new(run.memory.clone()).into(),
            ),
            false => (
                machine.load_insns(&insns),
                Input::Memory(run.memory.clone()),
            ),
        };
        let program = program.map_err(|error| error.to_string())?;
        machine
            .start(program, input)
            .run()
            .map_err(|fault| fault.to_string())
    });
}

/// What rbpf answers: nothing where it refuses, fails or panics.
fn rbpf(code: &[Insn], mut memory: Vec<u8>) -> Option<u64> {
    let mut slots = Vec::new();
    for insn in code {
        insn.encode(&mut slots);
    }
    let run = move || {
        let vm = rbpf::EbpfVmRaw::new(Some(slots.as_flattened())).ok()?;
        vm.execute_program(&mut memory).ok()
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).ok()?
}

/// The list of its divergences is in the case files; it has to be complete, and to hold nothing that is not so.
#[test]
fn rbpf_agrees_with_every_case_but_those_that_say_otherwise() {
    let mut findings = Vec::new();
    for case in cases().iter().filter(|case| case.refused.is_none()) {
        let agrees = |run: &Run| rbpf(&code(case, run), run.memory.clone()) == Some(run.result);
        let all_agree = case.runs().iter().all(agrees);
        match &case.rbpf_differs {
            None if !all_agree => findings.push(format!("{}: rbpf differs", case.title)),
            Some(why) if all_agree => {
                findings.push(format!("{}: rbpf agrees, though {why}", case.title));
            }
            _ => {}
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

/// Says so past the test harness, which would swallow a plain print.
fn skipped(why: &str) {
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("SKIPPED: {why}\n").as_bytes(),
    );
}
