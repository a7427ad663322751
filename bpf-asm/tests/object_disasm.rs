//! The kernel's verifier prints the instructions that it walks; our disassembly has to say the same, word for word.
//!
//! Needs root and says so loudly when it doesn't have it.

use std::os::unix::fs::MetadataExt;

use aya::programs::{ProgramError, SchedClassifier};
use aya::{EbpfLoader, VerifierLogLevel};
use bpf_asm::asm::Assembler;
use bpf_asm::disasm;
use bpf_asm::insn::{AluOp, AtomicOp, Insn, JumpOp, Reg, Size, Source, Width};
use bpf_asm::object::Object;
use bpf_asm::program::{Program, ProgramKind};

#[test]
fn arithmetic_reads_as_in_the_verifiers_log() {
    let mut a = Assembler::new("arithmetic");
    a.mov64_imm(Reg::R1, 77).mov64_imm(Reg::R2, 5);
    for width in [Width::W32, Width::W64] {
        for op in AluOp::ALL {
            for src in [Source::Reg(Reg::R2), Source::Imm(3), Source::Imm(-3)] {
                let shifts = matches!(op, AluOp::Lsh | AluOp::Rsh | AluOp::Arsh);
                // The verifier refuses shifts by more than the width.
                if !(shifts && src == Source::Imm(-3)) {
                    let dst = Reg::R1;
                    a.emit(Insn::Alu {
                        width,
                        op,
                        dst,
                        src,
                    });
                }
            }
        }
    }
    a.neg32(Reg::R1).neg64(Reg::R1);
    a.movsx32_8(Reg::R1, Reg::R2).movsx32_16(Reg::R1, Reg::R2);
    a.movsx64_8(Reg::R1, Reg::R2).movsx64_16(Reg::R1, Reg::R2);
    a.movsx64_32(Reg::R1, Reg::R2);
    a.le16(Reg::R1).le32(Reg::R1).le64(Reg::R1);
    a.be16(Reg::R1).be32(Reg::R1).be64(Reg::R1);
    a.bswap16(Reg::R1).bswap32(Reg::R1).bswap64(Reg::R1);
    a.ld_imm64(Reg::R1, 0x1234_5678_9abc_def0);
    a.ld_imm64(Reg::R1, 0);
    compare(a);
}

#[test]
fn memory_reads_as_in_the_verifiers_log() {
    let mut a = Assembler::new("memory");
    let base = Reg::R10;
    a.mov64(Reg::R6, Reg::R1)
        .mov64_imm(Reg::R2, 5)
        .mov64_imm(Reg::R0, 0);
    a.st_b(base, -8, 1)
        .st_h(base, -8, -1)
        .st_w(base, -8, 7)
        .st_dw(base, -8, -9);
    a.stx_b(base, -8, Reg::R2).stx_h(base, -8, Reg::R2);
    a.stx_w(base, -8, Reg::R2).stx_dw(base, -8, Reg::R2);
    a.ldx_b(Reg::R3, base, -8).ldx_h(Reg::R3, base, -8);
    a.ldx_w(Reg::R3, base, -8).ldx_dw(Reg::R3, base, -8);
    a.ldsx_b(Reg::R3, base, -8)
        .ldsx_h(Reg::R3, base, -8)
        .ldsx_w(Reg::R3, base, -8);
    a.ldx_w(Reg::R3, Reg::R6, 0);
    for size in [Size::B, Size::H, Size::W, Size::DW] {
        for op in AtomicOp::ALL {
            if op.any_size() || matches!(size, Size::W | Size::DW) {
                let (offset, src) = (-8, Reg::R2);
                a.emit(Insn::Atomic {
                    size,
                    op,
                    base,
                    offset,
                    src,
                });
            }
        }
    }
    a.ld_abs_b(0).ld_abs_h(12).ld_abs_w(14);
    a.mov64_imm(Reg::R2, 3).ld_ind_b(Reg::R2, 1);
    a.mov64_imm(Reg::R2, 3).ld_ind_h(Reg::R2, 2);
    a.mov64_imm(Reg::R2, 3).ld_ind_w(Reg::R2, 0);
    compare(a);
}

#[test]
fn jumps_and_calls_read_as_in_the_verifiers_log() {
    let mut a = Assembler::new("jumps");
    a.mov64_imm(Reg::R6, 77).mov64_imm(Reg::R7, 77);
    for width in [Width::W32, Width::W64] {
        for op in JumpOp::ALL {
            for src in [Source::Reg(Reg::R7), Source::Imm(77), Source::Imm(-77)] {
                // Taken or not, the next instruction is the next.
                let next = a.label();
                a.jump(width, op, Reg::R6, src, next).bind(next);
            }
        }
    }
    let (near, far) = (a.label(), a.label());
    a.goto(near).bind(near);
    a.gotol(far).bind(far);
    let (ktime_get_ns, get_smp_processor_id) = (5, 8);
    a.call(ktime_get_ns).call(get_smp_processor_id);
    compare(a);
}

/// Loads the code with an instruction at its end that the verifier refuses, for only then is there a log, and compares
/// each line of the log with ours.
fn compare(mut a: Assembler) {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        skipped("needs root");
        return;
    }
    a.mov64(Reg::R0, Reg::R9).exit();
    let main = a.finish().unwrap();
    let name = main.name.clone();
    let ours = disasm::listing(&main).to_string();
    let program = Program {
        kind: ProgramKind::Classifier,
        main,
        subprograms: Vec::new(),
        maps: Vec::new(),
    };
    let elf = Object::new("GPL").program(program).to_elf().unwrap();
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::VERBOSE);
    let mut ebpf = loader.load(&elf).unwrap();
    let program: &mut SchedClassifier = ebpf.program_mut(&name).unwrap().try_into().unwrap();
    let log = match program.load() {
        Err(ProgramError::LoadError { verifier_log, .. }) => verifier_log.to_string(),
        other => panic!("the verifier was to refuse this, not {other:?}"),
    };
    assert!(
        log.contains("R9 !read_ok"),
        "it got no further than:\n{log}"
    );
    // All of it but the `exit` that it never reached.
    let mut ours: Vec<&str> = ours.lines().filter(|line| !line.starts_with(';')).collect();
    assert!(ours.pop().is_some_and(|exit| exit.ends_with("(95) exit")));
    assert_eq!(ours, instructions(&log), "{log}");
}

/// The log's instructions, each once, without the register states behind them.
fn instructions(log: &str) -> Vec<&str> {
    let mut next = 0;
    let walked = log
        .lines()
        .skip_while(|line| !line.starts_with("0: R1=ctx"));
    let is_insn = |line: &&str| {
        let numbered = line.strip_prefix(&format!("{next}: ("));
        next += usize::from(numbered.is_some()) * if line.contains("(18)") { 2 } else { 1 };
        numbered.is_some()
    };
    let code = walked.filter(is_insn);
    code.map(|line| line.split(" ; ").next().unwrap_or(line).trim_end())
        .collect()
}

/// Says so past the test harness, which would swallow a plain print.
fn skipped(why: &str) {
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("SKIPPED: {why}\n").as_bytes(),
    );
}
