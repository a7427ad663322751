//! Instructions to bytes.

use super::ops::{self, class, imm64, mode};
use super::{AtomicOp, Imm64, Insn, Reg, Size, Source, Width};

/// Why an [`Insn`] is no instruction: a field's value that its encoding form has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalInsn {
    /// A sign-extending move of something other than 8, 16, or (64-bit only) 32 bits.
    #[error("no sign-extending move of {0} bits at this width")]
    MoveBits(u8),
    /// A byte-order conversion of something other than 16, 32 or 64 bits.
    #[error("no byte-order conversion of {0} bits")]
    EndianBits(u8),
    /// A sign-extending load of 8 bytes.
    #[error("a load of 8 bytes has nothing to sign-extend")]
    SignedDoubleWord,
    /// An atomic operation at a size it does not exist for.
    #[error("no atomic {0:?} of {1:?}")]
    AtomicSize(AtomicOp, Size),
    /// A legacy packet load of 8 bytes.
    #[error("no packet load of 8 bytes")]
    PacketDoubleWord,
}

impl Insn {
    /// Whether the fields make a legal instruction: exactly those that [`Insn::decode`] can return.
    ///
    /// # Errors
    /// Says which field is out of its range.
    pub fn check(&self) -> Result<(), IllegalInsn> {
        match *self {
            Insn::MovSx { bits: 8 | 16, .. }
            | Insn::MovSx {
                width: Width::W64,
                bits: 32,
                ..
            } => Ok(()),
            Insn::MovSx { bits, .. } => Err(IllegalInsn::MoveBits(bits)),
            Insn::Endian { bits, .. } if !matches!(bits, 16 | 32 | 64) => {
                Err(IllegalInsn::EndianBits(bits))
            }
            Insn::Load {
                size: Size::DW,
                signed: true,
                ..
            } => Err(IllegalInsn::SignedDoubleWord),
            Insn::Atomic { size, op, .. }
                if matches!(size, Size::B | Size::H) && !op.any_size() =>
            {
                Err(IllegalInsn::AtomicSize(op, size))
            }
            Insn::LoadPacket { size: Size::DW, .. } => Err(IllegalInsn::PacketDoubleWord),
            _ => Ok(()),
        }
    }

    /// Appends its one or two slots to `out`. Fields are written as they are: an instruction that
    /// [`check`](Insn::check) refuses gives bytes that the kernel refuses.
    pub fn encode(&self, out: &mut Vec<[u8; 8]>) {
        let mut slot = |opcode: u8, dst: Option<Reg>, src: u8, offset: i16, imm: i32| {
            let registers = src << 4 | dst.map_or(0, Reg::number);
            let [o0, o1] = offset.to_le_bytes();
            let [i0, i1, i2, i3] = imm.to_le_bytes();
            out.push([opcode, registers, o0, o1, i0, i1, i2, i3]);
        };
        match *self {
            Insn::Alu {
                width,
                op,
                dst,
                src,
            } => {
                let (_, code, offset, _) = *op.row();
                let (x, reg, imm) = operand(src);
                slot(alu_class(width) | code | x, Some(dst), reg, offset, imm);
            }
            Insn::MovSx {
                width,
                bits,
                dst,
                src,
            } => {
                let (_, code, ..) = *super::AluOp::Mov.row();
                let opcode = alu_class(width) | code | ops::X;
                slot(opcode, Some(dst), src.number(), i16::from(bits), 0);
            }
            Insn::CastAddressSpace { dst, src, to, from } => {
                let (_, code, ..) = *super::AluOp::Mov.row();
                let opcode = class::ALU64 | code | ops::X;
                let spaces = u32::from(to) << 16 | u32::from(from);
                let (src, offset) = (src.number(), ops::CAST_ADDRESS_SPACE);
                slot(opcode, Some(dst), src, offset, spaces.cast_signed());
            }
            Insn::Neg { width, dst } => slot(alu_class(width) | ops::NEG, Some(dst), 0, 0, 0),
            Insn::Endian { kind, bits, dst } => {
                slot(kind.row().1, Some(dst), 0, 0, i32::from(bits));
            }
            Insn::Load {
                size,
                signed,
                dst,
                base,
                offset,
            } => {
                let mode = if signed { mode::MEMSX } else { mode::MEM };
                let opcode = class::LDX | mode | size.code();
                slot(opcode, Some(dst), base.number(), offset, 0);
            }
            Insn::Store {
                size,
                base,
                offset,
                src,
            } => {
                let (x, reg, imm) = operand(src);
                let class = if x == 0 { class::ST } else { class::STX };
                let opcode = class | mode::MEM | size.code();
                slot(opcode, Some(base), reg, offset, imm);
            }
            Insn::Atomic {
                size,
                op,
                base,
                offset,
                src,
            } => {
                // An acquiring load writes a register, so it has its fields where loads have them.
                let (dst, src) = match op {
                    AtomicOp::LoadAcquire => (src, base),
                    _ => (base, src),
                };
                let opcode = class::STX | mode::ATOMIC | size.code();
                slot(opcode, Some(dst), src.number(), offset, op.row().1);
            }
            Insn::LoadImm64 { dst, value } => {
                let (kind, low, high) = imm64_fields(value);
                let opcode = class::LD | mode::IMM | Size::DW.code();
                slot(opcode, Some(dst), kind, 0, low);
                slot(0, None, 0, 0, high);
            }
            Insn::LoadPacket {
                size,
                index,
                offset,
            } => {
                let mode = if index.is_some() {
                    mode::IND
                } else {
                    mode::ABS
                };
                let index = index.map_or(0, Reg::number);
                slot(class::LD | mode | size.code(), None, index, 0, offset);
            }
            Insn::Jump {
                width,
                op,
                dst,
                src,
                offset,
            } => {
                let (x, reg, imm) = operand(src);
                let class = match width {
                    Width::W32 => class::JMP32,
                    Width::W64 => class::JMP64,
                };
                slot(class | op.row().1 | x, Some(dst), reg, offset, imm);
            }
            Insn::Goto { offset } => slot(class::JMP64 | ops::GOTO, None, 0, offset, 0),
            Insn::GotoLong { offset } => slot(class::JMP32 | ops::GOTO, None, 0, 0, offset),
            Insn::MayGoto { offset } => slot(class::JMP64 | ops::MAY_GOTO, None, 0, offset, 0),
            Insn::Call { helper } => slot(
                class::JMP64 | ops::CALL,
                None,
                ops::call::HELPER,
                0,
                helper.cast_signed(),
            ),
            Insn::CallLocal { offset } => {
                slot(class::JMP64 | ops::CALL, None, ops::call::LOCAL, 0, offset)
            }
            Insn::CallKfunc {
                btf_id,
                btf_fd_index,
            } => slot(
                class::JMP64 | ops::CALL,
                None,
                ops::call::KFUNC,
                btf_fd_index,
                btf_id,
            ),
            Insn::GotoReg { target } => {
                slot(class::JMP64 | ops::GOTO | ops::X, Some(target), 0, 0, 0);
            }
            Insn::CallReg { target } => {
                slot(class::JMP64 | ops::CALL | ops::X, Some(target), 0, 0, 0);
            }
            Insn::Exit => slot(class::JMP64 | ops::EXIT, None, 0, 0, 0),
        }
    }
}

fn alu_class(width: Width) -> u8 {
    match width {
        Width::W32 => class::ALU32,
        Width::W64 => class::ALU64,
    }
}

/// The source bit, the source field and the immediate.
fn operand(src: Source) -> (u8, u8, i32) {
    match src {
        Source::Reg(reg) => (ops::X, reg.number(), 0),
        Source::Imm(imm) => (0, 0, imm),
    }
}

/// The source field and the immediates of the two slots.
fn imm64_fields(value: Imm64) -> (u8, i32, i32) {
    match value {
        Imm64::Value(value) => {
            let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
            let low = i32::from_le_bytes([a, b, c, d]);
            (imm64::VALUE, low, i32::from_le_bytes([e, f, g, h]))
        }
        Imm64::Map => (imm64::VALUE, 0, 0),
        Imm64::MapFd(fd) => (imm64::MAP_FD, fd, 0),
        Imm64::MapValue { fd, offset } => (imm64::MAP_VALUE, fd, offset.cast_signed()),
        Imm64::BtfId { id, btf_fd } => (imm64::BTF_ID, id, btf_fd),
        Imm64::Function { offset } => (imm64::FUNCTION, offset, 0),
        Imm64::MapIndex(index) => (imm64::MAP_INDEX, index, 0),
        Imm64::MapIndexValue { index, offset } => {
            (imm64::MAP_INDEX_VALUE, index, offset.cast_signed())
        }
    }
}
