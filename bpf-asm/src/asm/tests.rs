//! Labels, far jumps, errors and lines.

use super::*;
use crate::insn::Size;

fn fault(a: Assembler) -> Fault {
    a.finish().unwrap_err().fault
}

fn text(function: &Function) -> Vec<String> {
    function.insns.iter().map(Insn::to_string).collect()
}

#[test]
fn jumps_count_slots_and_not_instructions() {
    let mut a = Assembler::new("f");
    let (back, out) = (a.label(), a.label());
    a.bind(back).jgt32_imm(Reg::R1, 3, out);
    a.ld_imm64(Reg::R2, 9).goto(back);
    a.bind(out).exit();
    let function = a.finish().unwrap();
    let expected = ["if w1 > 0x3 goto pc+3", "r2 = 0x9", "goto pc-4", "exit"];
    assert_eq!(text(&function), expected);
}

#[test]
fn a_label_of_another_assembler_is_refused() {
    let mut other = Assembler::new("other");
    let foreign = other.label();
    for place in 0..2 {
        let mut a = Assembler::new("f");
        a.label();
        if place == 0 {
            a.goto(foreign);
        } else {
            a.bind(foreign);
        }
        a.exit();
        assert_eq!(fault(a), Fault::ForeignLabel);
    }
}

#[test]
fn a_label_has_to_be_bound_once_and_inside() {
    let mut a = Assembler::new("unbound");
    let label = a.label();
    a.goto(label).exit();
    assert_eq!(fault(a), Fault::Unbound);

    let mut a = Assembler::new("twice");
    let label = a.label();
    a.bind(label).bind(label).exit();
    assert_eq!(fault(a), Fault::BoundTwice);

    let mut a = Assembler::new("at_the_end");
    let label = a.label();
    a.goto(label).bind(label);
    assert_eq!(fault(a), Fault::OutOfFunction);

    assert_eq!(fault(Assembler::new("f")), Fault::Empty("f".to_owned()));
}

#[test]
fn the_first_error_is_kept_with_its_place() {
    let mut a = Assembler::new("f");
    let label = a.label();
    a.bind(label);
    let line = line!() + 1;
    a.bind(label);
    a.movsx32_8(Reg::R1, Reg::R2);
    let (width, bits) = (Width::W32, 32);
    let (dst, src) = (Reg::R1, Reg::R2);
    a.emit(Insn::MovSx {
        width,
        bits,
        dst,
        src,
    });
    let error = a.finish().unwrap_err();
    assert_eq!(error.fault, Fault::BoundTwice);
    assert!(error.at.file.ends_with("asm/tests.rs"));
    assert_eq!(error.at.line, line);
    assert!(error.to_string().ends_with("this label is already bound"));
}

#[test]
fn an_illegal_instruction_is_an_error() {
    let mut a = Assembler::new("f");
    let (size, signed) = (Size::DW, true);
    let (dst, base, offset) = (Reg::R1, Reg::R2, 0);
    a.emit(Insn::Load {
        size,
        signed,
        dst,
        base,
        offset,
    });
    assert_eq!(fault(a), Fault::Illegal(IllegalInsn::SignedDoubleWord));
}

#[test]
fn offsets_given_as_numbers_are_checked() {
    for (offset, expected) in [
        (2, None),
        (-1, None),
        (-2, Some(Fault::OutOfFunction)),
        (3, Some(Fault::OutOfFunction)),
        (1, Some(Fault::MidInstruction)),
    ] {
        let mut a = Assembler::new("f");
        a.emit(Insn::Goto { offset });
        a.ld_imm64(Reg::R0, 0).exit();
        assert_eq!(
            a.finish().err().map(|error| error.fault),
            expected,
            "{offset}"
        );
    }
}

/// A function whose first instruction, `jump`, leads over `filler` one-slot instructions.
fn over(filler: usize, jump: impl Fn(&mut Assembler, Label)) -> Assembler {
    let mut a = Assembler::new("f");
    let far = a.label();
    jump(&mut a, far);
    for _ in 0..filler {
        a.mov64_imm(Reg::R0, 0);
    }
    a.bind(far).exit();
    a
}

#[test]
fn a_jump_of_32767_slots_is_near_and_one_more_is_an_error() {
    let goto = |a: &mut Assembler, far| {
        a.goto(far);
    };
    let near = over(32767, goto).finish().unwrap();
    assert_eq!(near.insns[0], Insn::Goto { offset: 32767 });
    assert_eq!(fault(over(32768, goto)), Fault::TooFar { slots: 32768 });
}

#[test]
fn far_jumps_become_long_where_that_is_allowed() {
    let mut a = over(32768, |a, far| {
        a.goto(far);
    });
    a.allow_long_jumps();
    assert_eq!(
        a.finish().unwrap().insns[0],
        Insn::GotoLong { offset: 32768 }
    );

    let mut a = over(40000, |a, far| {
        a.jeq64_imm(Reg::R1, 0, far).load_map(Reg::R1, "m");
    });
    a.allow_long_jumps();
    let function = a.finish().unwrap();
    let expected = ["if r1 == 0x0 goto pc+1", "goto pc+1", "gotol pc+40002"];
    assert_eq!(text(&function)[..3], expected);
    assert_eq!(function.lines.len(), function.insns.len());
    // The relocation moved along with its instruction.
    let at = function.relocations[0].at;
    let (dst, value) = (Reg::R1, Imm64::Map);
    assert_eq!(function.insns[at], Insn::LoadImm64 { dst, value });
}

#[test]
fn a_jump_that_grows_pushes_others_out_of_range() {
    // The second jump is exactly in range until the first one, which it spans, grows.
    let mut a = Assembler::new("f");
    let (start, far) = (a.label(), a.label());
    a.bind(start).jne64_imm(Reg::R1, 1, far);
    for _ in 0..32766 {
        a.mov64_imm(Reg::R0, 0);
    }
    a.goto(start);
    a.mov64_imm(Reg::R0, 0).mov64_imm(Reg::R0, 0);
    a.bind(far).allow_long_jumps().exit();
    let function = a.finish().unwrap();
    let slots = function.insns.len();
    assert_eq!(function.insns[2], Insn::GotoLong { offset: 32769 });
    assert_eq!(function.insns[slots - 4], Insn::GotoLong { offset: -32770 });
}

#[test]
fn instructions_remember_the_line_that_wrote_them() {
    let mut a = Assembler::new("f");
    let line = line!() + 1;
    a.mov64_imm(Reg::R0, 0);
    let given = Line {
        file: "elsewhere.rs",
        line: 7,
        column: 3,
    };
    a.at(given).mov64_imm(Reg::R0, 1).at_caller();
    a.exit();
    let lines = a.finish().unwrap().lines;
    assert_eq!(lines[0].line, line);
    assert_eq!(lines[1], given);
    assert_eq!(lines[2].line, line + 7);
}
