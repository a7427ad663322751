//! Runs the intermediate form as it was written, before any pass.

use super::meaning::{alu, atomic, endian, helper, holds, map_address, sign_extended, truncated};
use crate::builder::ir::{Arg, Base, Body, Callee, Op, Operand, Reg, Terminator};
use crate::insn::{AluOp, AtomicOp, Size, Width};

/// Where buffers lie: far apart, so that nothing depends on their order.
const BUFFERS: u64 = 0x5555_0000_0000;
const APART: u64 = 4096;

struct Memory {
    registers: Vec<Option<u64>>,
    buffers: Vec<Vec<u8>>,
}

impl Memory {
    fn read(&self, reg: Reg) -> u64 {
        self.registers[reg as usize].expect("the body reads a register before it is written")
    }

    fn value(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Reg(reg) => self.read(reg),
            Operand::Const(value) => value,
        }
    }

    fn address(&self, base: Base, offset: i32) -> u64 {
        let base = match base {
            Base::Reg(reg) => self.read(reg),
            Base::Stack(buffer) => BUFFERS + APART * buffer as u64,
        };
        base.wrapping_add_signed(offset.into())
    }

    fn bytes(&mut self, address: u64, size: Size) -> &mut [u8] {
        let (buffer, start) = (
            (address - BUFFERS) / APART,
            ((address - BUFFERS) % APART) as usize,
        );
        &mut self.buffers[buffer as usize][start..start + usize::from(size.bytes())]
    }

    fn load(&mut self, address: u64, size: Size) -> u64 {
        self.bytes(address, size)
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn store(&mut self, address: u64, size: Size, value: u64) {
        let bytes = self.bytes(address, size);
        bytes.copy_from_slice(&value.to_le_bytes()[..bytes.len()]);
    }
}

/// The value that it returns.
pub(super) fn run(body: &Body, arguments: &[u64]) -> u64 {
    let state = body.state.borrow();
    let buffers = state
        .buffers
        .iter()
        .map(|(bytes, _)| vec![0; *bytes as usize])
        .collect();
    let mut memory = Memory {
        registers: vec![None; state.regs.len()],
        buffers,
    };
    for (reg, value) in body.arguments.iter().zip(arguments) {
        memory.registers[*reg as usize] = Some(*value);
    }
    let mut block = state.order[0];
    for _ in 0..100_000 {
        for (op, _) in &state.blocks[block].ops {
            memory.step(op);
        }
        match &state.blocks[block]
            .end
            .as_ref()
            .expect("a block without an end")
            .0
        {
            Terminator::Jump(to) => block = *to,
            Terminator::Branch {
                width,
                op,
                a,
                b,
                then,
                otherwise,
            } => {
                let taken = holds(*width, *op, memory.value(*a), memory.value(*b));
                block = if taken { *then } else { *otherwise };
            }
            Terminator::MayGoto { .. } => panic!("the random bodies end by themselves"),
            Terminator::Return(value) => return memory.value(*value),
        }
    }
    panic!("it doesn't end");
}

impl Memory {
    fn step(&mut self, op: &Op) {
        let result = match *op {
            Op::Alu {
                width,
                op: AluOp::Mov,
                b,
                ..
            } => Some(alu(width, AluOp::Mov, 0, self.value(b))),
            Op::Alu {
                width, op, a, b, ..
            } => Some(alu(width, op, self.value(a), self.value(b))),
            Op::Copy { src, .. } => Some(alu(Width::W64, AluOp::Mov, 0, self.value(src))),
            Op::Endian {
                kind, bits, src, ..
            } => Some(endian(kind, bits, self.read(src))),
            Op::Load {
                size, base, offset, ..
            } => Some(self.load(self.address(base, offset), size)),
            Op::Store {
                size,
                base,
                offset,
                src,
            } => {
                let (address, value) = (self.address(base, offset), self.value(src));
                self.store(address, size, value);
                None
            }
            Op::Atomic {
                size,
                op,
                base,
                offset,
                src,
                expected,
                ..
            } => {
                let address = self.address(base, offset);
                let (src, expected) = (
                    self.value(src),
                    expected.map_or(0, |expected| self.value(expected)),
                );
                let old = self.load(address, size);
                let src = if op == AtomicOp::LoadAcquire { 0 } else { src };
                self.store(
                    address,
                    size,
                    truncated(size, atomic(size, op, old, src, expected)),
                );
                Some(old)
            }
            Op::Address { base, offset, .. } => Some(self.address(base, offset)),
            Op::Call {
                callee: Callee::Helper(number),
                ref args,
                ..
            } => {
                let mut arguments = Vec::new();
                for arg in args {
                    arguments.push(match *arg {
                        Arg::Value(operand) => self.value(operand),
                        Arg::Map(map) => map_address(map),
                        Arg::Function(_) => panic!("the random bodies have no callbacks"),
                        Arg::Address(base, offset) => {
                            self.load(self.address(base, offset), Size::DW)
                        }
                    });
                }
                Some(helper(number, &arguments))
            }
            Op::Call { .. } => panic!("the random bodies call no subprograms"),
            Op::SignExtend {
                width, bits, src, ..
            } => Some(sign_extended(width, bits, self.read(src))),
            Op::Global { .. } => panic!("the random bodies have no global variables"),
            Op::OpenRecord(_) | Op::CloseRecord(_) => None,
        };
        if let (Some(reg), Some(value)) = (super::assigned(op), result) {
            self.registers[reg as usize] = Some(value);
        }
    }
}
