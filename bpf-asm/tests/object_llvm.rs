//! LLVM as a stranger's opinion: what its disassembler makes of our objects, its assembler turns into the same bytes.
//!
//! Needs `llvm-objdump`, `llvm-mc` and `llvm-objcopy` of version 19 or later, whose names end in `-19` or in nothing,
//! and says so loudly when they are missing.

use std::fmt::Write;
use std::process::Command;

use bpf_asm::asm::Assembler;
use bpf_asm::insn::{AluOp, AtomicOp, Insn, JumpOp, Reg, Size, Source, Width};
use bpf_asm::object::Object;
use bpf_asm::program::{Program, ProgramKind};

#[test]
fn llvm_disassembles_our_code_and_assembles_the_same() {
    let Some(suffix) = llvm_suffix() else {
        skipped("no LLVM 19 tools");
        return;
    };
    let tool = |name: &str| Command::new(format!("llvm-{name}{suffix}"));
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);

    let a = every_form_that_llvm_knows();
    let main = a.finish().unwrap();
    let mut ours = Vec::new();
    for insn in &main.insns {
        insn.encode(&mut ours);
    }
    let program = Program {
        kind: ProgramKind::Xdp,
        main,
        subprograms: Vec::new(),
        maps: Vec::new(),
    };
    let elf = Object::new("GPL").program(program).to_elf().unwrap();
    std::fs::write(path("ours.o"), elf).unwrap();

    let mut objdump = tool("objdump");
    objdump.args(["-d", "--no-show-raw-insn", "--mcpu=v4"]);
    let dump = run(objdump.arg(path("ours.o")));
    assert!(!dump.contains("<unknown>"), "{dump}");
    let mut assembly = String::new();
    for line in dump.lines() {
        // `      12:       if r1 == 0x5 goto +0x1 <every_form+0x70>`
        let Some((slot, text)) = line.split_once(":\t") else {
            continue;
        };
        if slot.trim().parse::<usize>().is_ok() {
            let text = text.split(" <every_form").next().unwrap_or(text);
            writeln!(assembly, "{text}").unwrap();
        }
    }
    std::fs::write(path("dump.s"), &assembly).unwrap();
    let mut mc = tool("mc");
    mc.args(["-triple=bpfel", "-mcpu=v4", "-filetype=obj", "-o"]);
    run(mc.arg(path("theirs.o")).arg(path("dump.s")));
    let mut objcopy = tool("objcopy");
    objcopy.args(["-O", "binary", "--only-section=.text"]);
    run(objcopy.arg(path("theirs.o")).arg(path("theirs.bin")));
    let theirs = std::fs::read(path("theirs.bin")).unwrap();
    assert_eq!(theirs.len(), ours.len() * 8, "{assembly}");
    for (slot, (theirs, ours)) in theirs.chunks(8).zip(&ours).enumerate() {
        assert_eq!(theirs, ours, "slot {slot} of:\n{dump}");
    }
}

#[test]
fn llvm_shows_the_rust_lines_that_instructions_come_from() {
    let Some(suffix) = llvm_suffix() else {
        skipped("no LLVM 19 tools");
        return;
    };
    let mut a = Assembler::new("lined");
    a.mov64_imm(Reg::R0, 7); // the verdict
    let line = line!() - 1;
    a.exit();
    let program = Program {
        kind: ProgramKind::Xdp,
        main: a.finish().unwrap(),
        subprograms: Vec::new(),
        maps: Vec::new(),
    };
    let object = Object::new("GPL").sources(&[(file!(), include_str!("object_llvm.rs"))]);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("lined.o");
    std::fs::write(&path, object.program(program).to_elf().unwrap()).unwrap();
    let mut objdump = Command::new(format!("llvm-objdump{suffix}"));
    objdump.args(["--source", "--line-numbers", "--no-show-raw-insn"]);
    let dump = run(objdump.arg(path));
    let lines: Vec<&str> = dump.lines().map(str::trim).collect();
    let place = format!("; {}:{line}", file!());
    let at = lines.iter().position(|line| *line == place);
    let at = at.unwrap_or_else(|| panic!("no `{place}` in {dump}"));
    assert_eq!(lines[at + 1], "; a.mov64_imm(Reg::R0, 7); // the verdict");
    assert_eq!(lines[at + 2], "0:\tr0 = 0x7");
}

/// All but what LLVM 19 lacks: ordered loads and stores, kernel functions, calls by register, and map and function
/// addresses.
fn every_form_that_llvm_knows() -> Assembler {
    let mut a = Assembler::new("every_form");
    let (dst, src, base, offset) = (Reg::R1, Reg::R2, Reg::R10, -8);
    let sources = [Source::Reg(src), Source::Imm(3), Source::Imm(-3)];
    for width in [Width::W32, Width::W64] {
        for src in sources {
            for op in AluOp::ALL {
                a.emit(Insn::Alu {
                    width,
                    op,
                    dst,
                    src,
                });
            }
            for op in JumpOp::ALL {
                let next = a.label();
                a.jump(width, op, dst, src, next);
                a.mov64_imm(dst, 1).bind(next);
            }
        }
    }
    a.emit(Insn::CastAddressSpace {
        dst,
        src,
        to: 0,
        from: 1,
    });
    a.neg32(dst).neg64(dst);
    a.movsx32_8(dst, src).movsx32_16(dst, src);
    a.movsx64_8(dst, src)
        .movsx64_16(dst, src)
        .movsx64_32(dst, src);
    a.le16(dst)
        .le32(dst)
        .le64(dst)
        .be16(dst)
        .be32(dst)
        .be64(dst);
    a.bswap16(dst).bswap32(dst).bswap64(dst);
    a.ldsx_b(dst, base, offset)
        .ldsx_h(dst, base, offset)
        .ldsx_w(dst, base, offset);
    for size in [Size::B, Size::H, Size::W, Size::DW] {
        let signed = false;
        a.emit(Insn::Load {
            size,
            signed,
            dst,
            base,
            offset,
        });
        for src in sources {
            a.emit(Insn::Store {
                size,
                base,
                offset,
                src,
            });
        }
        for op in AtomicOp::ALL {
            if !op.any_size() && matches!(size, Size::W | Size::DW) {
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
    a.ld_abs_b(3).ld_abs_h(12).ld_abs_w(14);
    a.ld_ind_b(src, 0).ld_ind_h(src, 0).ld_ind_w(src, 0);
    a.ld_imm64(dst, u64::MAX - 1);
    let (near, far, looped) = (a.label(), a.label(), a.label());
    a.goto(near).mov64_imm(dst, 1).bind(near);
    a.gotol(far).mov64_imm(dst, 1).bind(far);
    a.may_goto(looped).mov64_imm(dst, 1).bind(looped);
    a.call(5).exit();
    a
}

/// What the tools' names end in.
fn llvm_suffix() -> Option<&'static str> {
    ["-19", ""].into_iter().find(|suffix| {
        let version = Command::new(format!("llvm-mc{suffix}"))
            .arg("--version")
            .output();
        let version = version.map(|output| output.stdout).unwrap_or_default();
        let version = String::from_utf8_lossy(&version).into_owned();
        let major = version.split("LLVM version ").nth(1);
        let major = major.and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        major.is_some_and(|major| major >= 19)
    })
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Says so past the test harness, which would swallow a plain print.
fn skipped(why: &str) {
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("SKIPPED: {why}\n").as_bytes(),
    );
}
