//! The engines by hand: what all of them compute, and where rbpf goes its own way. Each case of the list in
//! docs/bpf-asm.md is here.

use bpf_asm::asm::Assembler;
use bpf_asm::engine::{Engine, EngineError, EngineKind, Interpreter, Kernel, Rbpf};
use bpf_asm::insn::Reg;

const R0: Reg = Reg::R0;
const R1: Reg = Reg::R1;
const R2: Reg = Reg::R2;
const R3: Reg = Reg::R3;
const R10: Reg = Reg::R10;

fn code(write: impl FnOnce(&mut Assembler)) -> Vec<u8> {
    let mut assembler = Assembler::new("case");
    write(&mut assembler);
    let function = assembler.finish().expect("it assembles");
    let mut slots = Vec::new();
    for insn in &function.insns {
        insn.encode(&mut slots);
    }
    slots.concat()
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t"))
}

/// Demands r0 of interpreter and kernel.
#[track_caller]
fn right(code: &[u8], memory: &[u8], r0: u64) {
    assert_eq!(Interpreter.run(code, memory).unwrap().r0, r0, "interpreter");
    if is_root() {
        assert_eq!(Kernel.run(code, memory).unwrap().r0, r0, "kernel");
    } else {
        eprintln!("skipped: programs in the kernel need root");
    }
}

/// Demands that rbpf says something else.
#[track_caller]
fn diverges(code: &[u8], r0: u64, rbpf: u64) {
    right(code, &[0; 16], r0);
    assert_eq!(Rbpf.run(code, &[0; 16]).unwrap().r0, rbpf, "rbpf");
}

/// Demands that rbpf refuses what the others run.
#[track_caller]
fn missing(code: &[u8], r0: u64) {
    right(code, &[0x80; 16], r0);
    let refused = Rbpf.run(code, &[0x80; 16]);
    assert!(
        matches!(refused, Err(EngineError::Refused { .. })),
        "{refused:?}"
    );
}

#[test]
fn all_engines_run_a_program_on_its_memory() {
    let code = code(|a| {
        a.ldx_w(R0, R1, 4)
            .be32(R0)
            .add64(R0, R2)
            .st_h(R1, 0, 0x1234)
            .exit();
    });
    for kind in EngineKind::ALL {
        if kind == EngineKind::Kernel && !is_root() {
            continue;
        }
        assert_eq!(kind.name().parse(), Ok(kind));
        let memory: Vec<u8> = (0..20).collect();
        let answer = kind.engine().unwrap().run(&code, &memory).unwrap();
        assert_eq!(answer.r0, 0x0405_0607 + 20, "{kind}");
        assert_eq!(answer.memory[..3], [0x34, 0x12, 2], "{kind}");
    }
    assert!("ubpf".parse::<EngineKind>().is_err());
}

#[test]
fn calls_between_functions_work_on_interpreter_and_kernel() {
    // main: r1 = 5, call +2, r0 += 1, exit; double: r0 = r1, r0 += r1, exit.
    let code = code(|a| {
        a.mov64_imm(R1, 5);
        a.emit(bpf_asm::insn::Insn::CallLocal { offset: 2 });
        a.add64_imm(R0, 1).exit();
        a.mov64(R0, R1).add64(R0, R1).exit();
    });
    right(&code, &[], 11);
}

#[test]
fn rbpf_ignores_the_sign_of_moves_divisions_and_remainders() {
    diverges(
        &code(|a| {
            a.mov64_imm(R1, 0x80).movsx64_8(R0, R1).exit();
        }),
        0xffff_ffff_ffff_ff80,
        0x80,
    );
    diverges(
        &code(|a| {
            a.mov64_imm(R0, -8).mov64_imm(R1, 2).sdiv64(R0, R1).exit();
        }),
        (-4_i64).cast_unsigned(),
        (-8_i64).cast_unsigned() / 2,
    );
    diverges(
        &code(|a| {
            a.mov64_imm(R0, -7).mov64_imm(R1, 3).smod64(R0, R1).exit();
        }),
        (-1_i64).cast_unsigned(),
        (-7_i64).cast_unsigned() % 3,
    );
}

#[test]
fn rbpf_does_not_extend_the_sign_of_a_jumps_immediate() {
    let jump = |write: fn(&mut Assembler, bpf_asm::asm::Label)| {
        code(|a| {
            let taken = a.label();
            a.mov64_imm(R0, 1).mov64_imm(R1, -1);
            write(a, taken);
            a.mov64_imm(R0, 0).bind(taken).exit();
        })
    };
    // r1 is -1, and is compared with -1, or with 0xffff_ffff by rbpf.
    diverges(
        &jump(|a, l| {
            a.jeq64_imm(R1, -1, l);
        }),
        1,
        0,
    );
    diverges(
        &jump(|a, l| {
            a.jne64_imm(R1, -1, l);
        }),
        0,
        1,
    );
    diverges(
        &jump(|a, l| {
            a.jgt64_imm(R1, -1, l);
        }),
        0,
        1,
    );
    diverges(
        &jump(|a, l| {
            a.jle64_imm(R1, -1, l);
        }),
        1,
        0,
    );
    // r1 becomes 2^63: at least 2^32 - 1, and below 2^64 - 1.
    let high = |write: fn(&mut Assembler, bpf_asm::asm::Label)| {
        code(|a| {
            let taken = a.label();
            a.mov64_imm(R0, 1).ld_imm64(R1, 1 << 63);
            write(a, taken);
            a.mov64_imm(R0, 0).bind(taken).exit();
        })
    };
    diverges(
        &high(|a, l| {
            a.jge64_imm(R1, -1, l);
        }),
        0,
        1,
    );
    diverges(
        &high(|a, l| {
            a.jlt64_imm(R1, -1, l);
        }),
        1,
        0,
    );
}

#[test]
fn rbpf_keeps_the_upper_half_when_a_32_bit_remainder_is_by_zero() {
    let code = code(|a| {
        a.ld_imm64(R0, 0x1_0000_0005)
            .mov64_imm(R1, 0)
            .mod32(R0, R1)
            .exit();
    });
    diverges(&code, 5, 0x1_0000_0005);
}

#[test]
fn rbpf_lacks_swaps_far_jumps_and_signed_loads() {
    missing(
        &code(|a| {
            a.mov64_imm(R0, 0x1234).bswap16(R0).exit();
        }),
        0x3412,
    );
    missing(
        &code(|a| {
            a.ldsx_b(R0, R1, 0).exit();
        }),
        0xffff_ffff_ffff_ff80,
    );
    missing(
        &code(|a| {
            let (end, other) = (a.label(), a.label());
            a.mov64_imm(R0, 3).jeq64_imm(R0, 4, other).gotol(end);
            a.bind(other).mov64_imm(R0, 4).bind(end).exit();
        }),
        3,
    );
}

/// Where overflow is checked, negating the smallest number panics; the engine turns that into an error.
#[test]
fn rbpf_panics_or_is_right_about_the_smallest_number() {
    let code = code(|a| {
        a.ld_imm64(R0, 1 << 63).neg64(R0).exit();
    });
    right(&code, &[0; 16], 1 << 63);
    match Rbpf.run(&code, &[0; 16]) {
        Ok(answer) => assert_eq!(answer.r0, 1 << 63),
        Err(EngineError::Refused { words, .. }) => assert_eq!(words, "it panicked"),
        Err(other) => panic!("{other}"),
    }
}

/// rbpf itself has no atomics; the engine runs them as plain operations.
#[test]
fn rbpf_has_no_atomics_and_gets_plain_operations() {
    let code = code(|a| {
        a.st_dw(R10, -8, 40)
            .mov64_imm(R3, 2)
            .fetch_add64(R10, -8, R3);
        a.mov64_imm(R0, 42).mov64_imm(R2, 7).cmpxchg64(R10, -8, R2);
        a.ldx_dw(R2, R10, -8)
            .mul64_imm(R2, 1000)
            .add64(R0, R2)
            .add64(R0, R3)
            .exit();
    });
    right(&code, &[0; 16], 7000 + 42 + 40);
    assert_eq!(Rbpf.run(&code, &[0; 16]).unwrap().r0, 7000 + 42 + 40);
    let plain = rbpf::EbpfVmRaw::new(Some(&code));
    assert!(plain.is_err());
}

#[test]
fn what_an_engine_refuses_it_explains() {
    let uninitialised = code(|a| {
        a.mov64(R0, Reg::R7).exit();
    });
    let error = Interpreter.run(&uninitialised, &[]).unwrap_err();
    assert!(error.to_string().contains("r7 holds nothing"), "{error}");
    if is_root() {
        let error = Kernel.run(&uninitialised, &[]).unwrap_err();
        assert!(error.to_string().contains("R7 !read_ok"), "{error}");
    }
    for kind in [
        EngineKind::Interpreter,
        EngineKind::Rbpf,
        EngineKind::Kernel,
    ] {
        let error = kind.engine().unwrap().run(&[1, 2, 3], &[]).unwrap_err();
        assert!(
            error.to_string().contains("3 bytes of code"),
            "{kind}: {error}"
        );
    }
}
