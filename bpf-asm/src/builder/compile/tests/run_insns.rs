//! Runs instructions as the kernel would, and stops where its verifier would object: reading a register or a part of
//! the frame before it is written, or writing a spill slot in part.

use std::collections::HashMap;

use super::meaning::{alu, atomic, endian, helper, holds, map_address};
use crate::insn::{AtomicOp, Imm64, Insn, Reg, Size, Source};
use crate::program::{Function, Target};

/// Above the frame.
const TOP: u64 = 0x7fff_0000_0000;
const FRAME: usize = 512;

struct Cpu {
    registers: [Option<u64>; 11],
    frame: Vec<Option<u8>>,
    /// What lies below the buffers is the allocator's.
    slots_end: usize,
}

impl Cpu {
    fn read(&self, reg: Reg) -> u64 {
        self.registers[usize::from(reg.number())]
            .unwrap_or_else(|| panic!("{reg:?} is read before it is written"))
    }

    fn write(&mut self, reg: Reg, value: u64) {
        assert_ne!(reg, Reg::R10, "the frame pointer is written");
        self.registers[usize::from(reg.number())] = Some(value);
    }

    fn source(&self, source: Source) -> u64 {
        match source {
            Source::Reg(reg) => self.read(reg),
            Source::Imm(imm) => i64::from(imm).cast_unsigned(),
        }
    }

    fn place(&self, address: u64, size: Size) -> std::ops::Range<usize> {
        let below = TOP
            .checked_sub(address)
            .unwrap_or_else(|| panic!("{address:#x} is not in the frame"));
        let start = FRAME
            .checked_sub(below as usize)
            .unwrap_or_else(|| panic!("{address:#x} is not in the frame"));
        start..start + usize::from(size.bytes())
    }

    fn load(&self, address: u64, size: Size) -> u64 {
        let bytes = self.frame[self.place(address, size)].iter().rev();
        bytes.fold(0, |value, byte| {
            value << 8 | u64::from(byte.expect("the frame is read before it is written"))
        })
    }

    fn store(&mut self, address: u64, size: Size, value: u64) {
        let place = self.place(address, size);
        if place.start < self.slots_end {
            assert_eq!(size, Size::DW, "a slot is written in part");
        }
        for (byte, value) in self.frame[place].iter_mut().zip(value.to_le_bytes()) {
            *byte = Some(value);
        }
    }
}

/// Calls a function; `buffers` is how much of its frame the program itself asked for.
pub(super) fn run(function: &Function, arguments: &[u64], buffers: u32) -> u64 {
    let mut cpu = Cpu {
        registers: [None; 11],
        frame: vec![None; FRAME],
        slots_end: FRAME - buffers as usize,
    };
    cpu.registers[10] = Some(TOP);
    for (register, argument) in cpu.registers[1..].iter_mut().zip(arguments) {
        *register = Some(*argument);
    }
    // Jumps count slots.
    let mut starts = HashMap::new();
    let mut slots = Vec::new();
    for (index, insn) in function.insns.iter().enumerate() {
        starts.insert(slots.len(), index);
        slots.resize(slots.len() + insn.slots(), index);
    }
    let maps: HashMap<usize, u64> = function
        .relocations
        .iter()
        .filter_map(|relocation| match &relocation.target {
            Target::Map(name) => Some((relocation.at, map_address(name[1..].parse().ok()?))),
            Target::Subprogram(_) => None,
        })
        .collect();
    let mut slot = 0_usize;
    for _ in 0..1_000_000 {
        let index = starts[&slot];
        let insn = function.insns[index];
        slot += insn.slots();
        let mut jump = |offset: i16| {
            slot = slot
                .checked_add_signed(offset.into())
                .expect("a jump leaves the function")
        };
        match insn {
            Insn::Alu {
                width,
                op,
                dst,
                src,
            } => {
                let a = if op == crate::insn::AluOp::Mov {
                    0
                } else {
                    cpu.read(dst)
                };
                let value = alu(width, op, a, cpu.source(src));
                cpu.write(dst, value);
            }
            Insn::Endian { kind, bits, dst } => {
                let value = endian(kind, bits, cpu.read(dst));
                cpu.write(dst, value);
            }
            Insn::Load {
                size,
                signed: false,
                dst,
                base,
                offset,
            } => {
                let value = cpu.load(cpu.read(base).wrapping_add_signed(offset.into()), size);
                cpu.write(dst, value);
            }
            Insn::Store {
                size,
                base,
                offset,
                src,
            } => {
                let value = cpu.source(src);
                cpu.store(
                    cpu.read(base).wrapping_add_signed(offset.into()),
                    size,
                    value,
                );
            }
            Insn::Atomic {
                size,
                op,
                base,
                offset,
                src,
            } => {
                let address = cpu.read(base).wrapping_add_signed(offset.into());
                let (old, operand) = (cpu.load(address, size), cpu.read(src));
                let expected = if op == AtomicOp::CompareExchange {
                    cpu.read(Reg::R0)
                } else {
                    0
                };
                cpu.store(address, size, atomic(size, op, old, operand, expected));
                match op {
                    AtomicOp::CompareExchange => cpu.write(Reg::R0, old),
                    AtomicOp::Add | AtomicOp::And | AtomicOp::Or | AtomicOp::Xor => {}
                    _ => cpu.write(src, old),
                }
            }
            Insn::LoadImm64 {
                dst,
                value: Imm64::Value(value),
            } => cpu.write(dst, value),
            Insn::LoadImm64 {
                dst,
                value: Imm64::Map,
            } => cpu.write(dst, maps[&index]),
            Insn::Jump {
                width,
                op,
                dst,
                src,
                offset,
            } => {
                if holds(width, op, cpu.read(dst), cpu.source(src)) {
                    jump(offset);
                }
            }
            Insn::Goto { offset } => jump(offset),
            Insn::Call { helper: number } => {
                // Helper n takes n % 6 arguments; those that are addresses stand for what is there.
                let argument = |register: u8| {
                    let value = cpu.read(Reg::new(register).expect("at most r5"));
                    if (TOP - FRAME as u64..=TOP).contains(&value) {
                        cpu.load(value, Size::DW)
                    } else {
                        value
                    }
                };
                let arguments: Vec<u64> = (1..=(number % 6) as u8).map(argument).collect();
                cpu.registers[..6].fill(None);
                cpu.write(Reg::R0, helper(number, &arguments));
            }
            Insn::Exit => return cpu.read(Reg::R0),
            other => panic!("not written by the builder: {other:?}"),
        }
    }
    panic!("it doesn't end");
}
