//! Disassembly in the syntax of the kernel's verifier, so that it can be laid beside a verifier log.
//!
//! `Display` of an [`Insn`] is one line of it without the slot number; [`listing`] numbers a whole function.

use std::fmt;

use crate::insn::{AtomicOp, EndianKind, Imm64, Insn, JumpOp, Reg, Size, Source, Width};
use crate::program::{Function, Target};

/// A function as the verifier would print it: slot number, opcode, instruction, with the Rust line wherever it
/// changes, and the names behind relocations.
///
/// ```text
///   ; src/drop.rs:12
///   0: (b7) r0 = 1
///   1: (95) exit
/// ```
pub fn listing(function: &Function) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| {
        let mut slot = 0;
        let mut last = None;
        let mut relocations = function.relocations.iter().peekable();
        for (i, insn) in function.insns.iter().enumerate() {
            if let Some(line) = function.lines.get(i) {
                let place = Some((line.file, line.line));
                if place != last {
                    writeln!(f, "; {}:{}", line.file, line.line)?;
                }
                last = place;
            }
            write!(f, "{slot}: ({:02x}) {insn}", opcode(insn))?;
            match relocations.next_if(|r| r.at == i).map(|r| &r.target) {
                Some(Target::Map(name)) => write!(f, " ; map {name}")?,
                Some(Target::Subprogram(name)) => write!(f, " ; {name}")?,
                None => {}
            }
            writeln!(f)?;
            slot += insn.slots();
        }
        Ok(())
    })
}

fn opcode(insn: &Insn) -> u8 {
    let mut slots = Vec::with_capacity(2);
    insn.encode(&mut slots);
    slots.first().map_or(0, |slot| slot[0])
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.number())
    }
}

impl fmt::Display for Insn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Insn::Alu {
                width,
                op,
                dst,
                src,
            } => {
                write!(f, "{} {} ", half(width, dst), op.sign())?;
                match src {
                    Source::Reg(src) => write!(f, "{}", half(width, src)),
                    Source::Imm(imm) => write!(f, "{imm}"),
                }
            }
            Insn::MovSx {
                width,
                bits,
                dst,
                src,
            } => write!(f, "{} = (s{bits}){}", half(width, dst), half(width, src)),
            Insn::CastAddressSpace { dst, src, to, from } => {
                write!(f, "{dst} = addr_space_cast({src}, {to}, {from})")
            }
            Insn::Neg { width, dst } => {
                write!(f, "{} = -{}", half(width, dst), half(width, dst))
            }
            Insn::Endian { kind, bits, dst } => endian(f, kind, bits, dst),
            Insn::Load {
                size,
                signed,
                dst,
                base,
                offset,
            } => {
                let sign = if signed { 's' } else { 'u' };
                write!(f, "{dst} = *({sign}{} *)({base} {offset:+})", bits(size))
            }
            Insn::Store {
                size,
                base,
                offset,
                src,
            } => {
                write!(f, "*(u{} *)({base} {offset:+}) = ", bits(size))?;
                match src {
                    Source::Reg(src) => write!(f, "{src}"),
                    Source::Imm(imm) => write!(f, "{imm}"),
                }
            }
            Insn::Atomic {
                size,
                op,
                base,
                offset,
                src,
            } => atomic(f, size, op, base, offset, src),
            Insn::LoadImm64 { dst, value } => {
                write!(f, "{dst} = ")?;
                imm64(f, value)
            }
            Insn::LoadPacket {
                size,
                index: None,
                offset,
            } => write!(f, "r0 = *(u{} *)skb[{offset}]", bits(size)),
            Insn::LoadPacket {
                size,
                index: Some(index),
                offset,
            } => write!(f, "r0 = *(u{} *)skb[{index} + {offset}]", bits(size)),
            Insn::Jump {
                width,
                op,
                dst,
                src,
                offset,
            } => jump(f, width, op, dst, src, offset),
            Insn::Goto { offset } => write!(f, "goto pc{offset:+}"),
            Insn::GotoLong { offset } => write!(f, "gotol pc{offset:+}"),
            Insn::MayGoto { offset } => write!(f, "may_goto pc{offset:+}"),
            Insn::Call { helper } => match Insn::helper_name(helper) {
                Some(name) => write!(f, "call bpf_{name}#{helper}"),
                None => write!(f, "call unknown#{helper}"),
            },
            Insn::CallLocal { offset } => write!(f, "call pc{offset:+}"),
            Insn::CallKfunc {
                btf_id,
                btf_fd_index: 0,
            } => write!(f, "call kernel-function#{btf_id}"),
            // The verifier leaves the index out; without it the text would not lead back to the instruction.
            Insn::CallKfunc {
                btf_id,
                btf_fd_index,
            } => write!(f, "call kernel-function#{btf_id}@{btf_fd_index}"),
            Insn::CallReg { target } => write!(f, "callx {target}"),
            Insn::GotoReg { target } => write!(f, "gotox {target}"),
            Insn::Exit => f.write_str("exit"),
        }
    }
}

fn endian(f: &mut fmt::Formatter<'_>, kind: EndianKind, bits: u8, dst: Reg) -> fmt::Result {
    write!(f, "{dst} = {}{bits} {dst}", kind.sign())
}

fn atomic(
    f: &mut fmt::Formatter<'_>,
    size: Size,
    op: AtomicOp,
    base: Reg,
    offset: i16,
    src: Reg,
) -> fmt::Result {
    let (name, bits) = (op.sign(), bits(size));
    let wide = if size == Size::DW { "64" } else { "" };
    let memory = fmt::from_fn(|f| write!(f, "(u{bits} *)({base} {offset:+})"));
    match op {
        AtomicOp::Add | AtomicOp::And | AtomicOp::Or | AtomicOp::Xor => {
            write!(f, "lock *{memory} {name} {src}")
        }
        AtomicOp::FetchAdd
        | AtomicOp::FetchAnd
        | AtomicOp::FetchOr
        | AtomicOp::FetchXor
        | AtomicOp::Exchange => write!(f, "{src} = atomic{wide}_{name}({memory}, {src})"),
        AtomicOp::CompareExchange => write!(f, "r0 = atomic{wide}_{name}({memory}, r0, {src})"),
        AtomicOp::LoadAcquire => write!(f, "{src} = {name}({memory})"),
        AtomicOp::StoreRelease => write!(f, "{name}({memory}, {src})"),
    }
}

fn imm64(f: &mut fmt::Formatter<'_>, value: Imm64) -> fmt::Result {
    match value {
        Imm64::Value(value) => write!(f, "{value:#x}"),
        Imm64::Map => f.write_str("0x0"),
        Imm64::MapFd(fd) => write!(f, "map[fd:{fd}]"),
        Imm64::MapValue { fd, offset } => write!(f, "map[fd:{fd}][0]+{offset}"),
        Imm64::BtfId { id, btf_fd: 0 } => write!(f, "btf[id:{id}]"),
        Imm64::BtfId { id, btf_fd } => write!(f, "btf[id:{id}]@{btf_fd}"),
        Imm64::Function { offset } => write!(f, "subprog[{offset:+}]"),
        Imm64::MapIndex(index) => write!(f, "map[idx:{index}]"),
        Imm64::MapIndexValue { index, offset } => write!(f, "map[idx:{index}][0]+{offset}"),
    }
}

fn jump(
    f: &mut fmt::Formatter<'_>,
    width: Width,
    op: JumpOp,
    dst: Reg,
    src: Source,
    offset: i16,
) -> fmt::Result {
    write!(f, "if {} {} ", half(width, dst), op.sign())?;
    match src {
        Source::Reg(src) => write!(f, "{}", half(width, src))?,
        Source::Imm(imm) => write!(f, "{imm:#x}")?,
    }
    write!(f, " goto pc{offset:+}")
}

/// A register by the name of the part that is used: `w1` or `r1`.
fn half(width: Width, reg: Reg) -> impl fmt::Display {
    let letter = match width {
        Width::W32 => 'w',
        Width::W64 => 'r',
    };
    fmt::from_fn(move |f| write!(f, "{letter}{}", reg.number()))
}

fn bits(size: Size) -> u8 {
    size.bytes() * 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asm::Assembler;

    #[test]
    fn what_a_verifier_log_rarely_shows_reads_well() {
        let dst = Reg::R1;
        let load = |value| Insn::LoadImm64 { dst, value };
        let (offset, btf_fd, id) = (8, 0, 9);
        let cases = [
            (load(Imm64::MapFd(3)), "r1 = map[fd:3]"),
            (
                load(Imm64::MapValue { fd: 3, offset }),
                "r1 = map[fd:3][0]+8",
            ),
            (load(Imm64::BtfId { id, btf_fd }), "r1 = btf[id:9]"),
            (load(Imm64::Function { offset: -4 }), "r1 = subprog[-4]"),
            (load(Imm64::MapIndex(2)), "r1 = map[idx:2]"),
            (Insn::MayGoto { offset: -2 }, "may_goto pc-2"),
            (Insn::CallLocal { offset: 7 }, "call pc+7"),
            (Insn::Call { helper: 1 }, "call bpf_map_lookup_elem#1"),
            (Insn::Call { helper: 9999 }, "call unknown#9999"),
            (Insn::CallReg { target: dst }, "callx r1"),
            (Insn::GotoReg { target: dst }, "gotox r1"),
        ];
        for (insn, expected) in cases {
            assert_eq!(insn.to_string(), expected);
        }
    }

    #[test]
    fn a_listing_has_slots_lines_and_names() {
        let mut a = Assembler::new("f");
        let line = |line| crate::program::Line {
            file: "f.rs",
            line,
            column: 1,
        };
        a.at(line(4)).load_map(Reg::R1, "packets");
        a.at(line(5)).call_local("g").exit();
        let listing = listing(&a.finish().unwrap()).to_string();
        let expected = "; f.rs:4\n\
            0: (18) r1 = 0x0 ; map packets\n\
            ; f.rs:5\n\
            2: (85) call pc-1 ; g\n\
            3: (95) exit\n";
        assert_eq!(listing, expected);
    }
}
