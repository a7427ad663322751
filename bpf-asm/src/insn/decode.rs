//! Bytes to instructions, strictly: whatever decodes encodes to the same bytes again.

use super::ops::{self, class, imm64, mode};
use super::{AtomicOp, Imm64, Insn, Reg, Size, Source, Width};

/// Why bytes are no instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is no slot, or the second one of a 64-bit immediate load is missing.
    #[error("the instruction is cut off")]
    Truncated,
    /// No instruction has this opcode.
    #[error("unknown opcode {0:#04x}")]
    Opcode(u8),
    /// A register field above 10.
    #[error("there is no register r{0}")]
    Register(u8),
    /// A field that this instruction does not use, or only for a few values, holds something else.
    #[error("the {field} of opcode {opcode:#04x} has a reserved value")]
    Reserved {
        /// The opcode.
        opcode: u8,
        /// The field's name: `dst`, `src`, `offset`, `imm` or `second slot`.
        field: &'static str,
    },
}

/// A slot's fields, taken apart.
#[derive(Clone, Copy)]
struct Fields {
    opcode: u8,
    dst: u8,
    src: u8,
    offset: i16,
    imm: i32,
}

impl Insn {
    /// The first instruction in `slots`, and how many slots it takes. Any bytes may be passed.
    ///
    /// # Errors
    /// Unknown opcodes, registers above r10 and anything but zero in an unused field are refused.
    pub fn decode(slots: &[[u8; 8]]) -> Result<(Insn, usize), DecodeError> {
        let fields = Fields::of(slots.first().ok_or(DecodeError::Truncated)?);
        let insn = match fields.opcode & 0x07 {
            class::LD => return load_immediate_or_packet(fields, slots),
            class::LDX => load(fields)?,
            class::ST | class::STX => store(fields)?,
            class::ALU32 | class::ALU64 => arithmetic(fields)?,
            _ => jump(fields)?,
        };
        Ok((insn, 1))
    }

    /// Every instruction in `slots`.
    ///
    /// # Errors
    /// As [`Insn::decode`], with the slot where it happened.
    pub fn decode_all(slots: &[[u8; 8]]) -> Result<Vec<Insn>, (usize, DecodeError)> {
        let mut insns = Vec::new();
        let mut at = 0;
        while at < slots.len() {
            let (insn, taken) = Insn::decode(&slots[at..]).map_err(|error| (at, error))?;
            insns.push(insn);
            at += taken;
        }
        Ok(insns)
    }
}

fn load_immediate_or_packet(f: Fields, slots: &[[u8; 8]]) -> Result<(Insn, usize), DecodeError> {
    let size = Size::of_opcode(f.opcode);
    f.zero_offset()?;
    match (f.opcode & 0xe0, size) {
        (mode::IMM, Size::DW) => {
            let next = Fields::of(slots.get(1).ok_or(DecodeError::Truncated)?);
            if (next.opcode, next.dst, next.src, next.offset) != (0, 0, 0, 0) {
                return Err(f.reserved("second slot"));
            }
            let value = imm64_value(f, next.imm)?;
            let dst = f.dst()?;
            Ok((Insn::LoadImm64 { dst, value }, 2))
        }
        (mode::ABS | mode::IND, Size::B | Size::H | Size::W) => {
            f.zero_dst()?;
            let index = if f.opcode & 0xe0 == mode::IND {
                Some(f.src()?)
            } else {
                f.zero_src()?;
                None
            };
            let insn = Insn::LoadPacket {
                size,
                index,
                offset: f.imm,
            };
            Ok((insn, 1))
        }
        _ => Err(f.unknown()),
    }
}

fn imm64_value(f: Fields, high: i32) -> Result<Imm64, DecodeError> {
    let alone = |value| match high {
        0 => Ok(value),
        _ => Err(f.reserved("second slot")),
    };
    let offset = high.cast_unsigned();
    match f.src {
        imm64::VALUE => {
            let low = u64::from(f.imm.cast_unsigned());
            Ok(Imm64::Value(u64::from(offset) << 32 | low))
        }
        imm64::MAP_FD => alone(Imm64::MapFd(f.imm)),
        imm64::MAP_VALUE => Ok(Imm64::MapValue { fd: f.imm, offset }),
        imm64::BTF_ID => Ok(Imm64::BtfId {
            id: f.imm,
            btf_fd: high,
        }),
        imm64::FUNCTION => alone(Imm64::Function { offset: f.imm }),
        imm64::MAP_INDEX => alone(Imm64::MapIndex(f.imm)),
        imm64::MAP_INDEX_VALUE => Ok(Imm64::MapIndexValue {
            index: f.imm,
            offset,
        }),
        _ => Err(f.reserved("src")),
    }
}

fn load(f: Fields) -> Result<Insn, DecodeError> {
    let size = Size::of_opcode(f.opcode);
    let signed = match (f.opcode & 0xe0, size) {
        (mode::MEM, _) => false,
        (mode::MEMSX, Size::B | Size::H | Size::W) => true,
        _ => return Err(f.unknown()),
    };
    f.zero_imm()?;
    Ok(Insn::Load {
        size,
        signed,
        dst: f.dst()?,
        base: f.src()?,
        offset: f.offset,
    })
}

fn store(f: Fields) -> Result<Insn, DecodeError> {
    let size = Size::of_opcode(f.opcode);
    let (is_register, mode) = (f.opcode & 0x07 == class::STX, f.opcode & 0xe0);
    if is_register && mode == mode::ATOMIC {
        return atomic(f, size);
    }
    if mode != mode::MEM {
        return Err(f.unknown());
    }
    Ok(Insn::Store {
        size,
        base: f.dst()?,
        offset: f.offset,
        src: f.operand(is_register)?,
    })
}

fn atomic(f: Fields, size: Size) -> Result<Insn, DecodeError> {
    let &(op, ..) = ops::ATOMIC
        .iter()
        .find(|row| row.1 == f.imm)
        .ok_or_else(|| f.reserved("imm"))?;
    if matches!(size, Size::B | Size::H) && !op.any_size() {
        return Err(f.reserved("imm"));
    }
    let (dst, src) = (f.dst()?, f.src()?);
    let (base, src) = match op {
        AtomicOp::LoadAcquire => (src, dst),
        _ => (dst, src),
    };
    Ok(Insn::Atomic {
        size,
        op,
        base,
        offset: f.offset,
        src,
    })
}

fn arithmetic(f: Fields) -> Result<Insn, DecodeError> {
    let width = match f.opcode & 0x07 {
        class::ALU32 => Width::W32,
        _ => Width::W64,
    };
    let (code, is_register) = (f.opcode & 0xf0, f.opcode & ops::X != 0);
    if code == ops::NEG && !is_register {
        f.zero_src()?;
        f.zero_offset()?;
        f.zero_imm()?;
        return Ok(Insn::Neg {
            width,
            dst: f.dst()?,
        });
    }
    if code == ops::END {
        return endian(f);
    }
    let mut rows = ops::ALU.iter().filter(|row| row.1 == code).peekable();
    if rows.peek().is_none() {
        return Err(f.unknown());
    }
    let dst = f.dst()?;
    if let Some(&(op, ..)) = rows.find(|row| row.2 == f.offset) {
        let src = f.operand(is_register)?;
        return Ok(Insn::Alu {
            width,
            op,
            dst,
            src,
        });
    }
    let is_move = code == super::AluOp::Mov.row().1;
    match (f.offset, width) {
        (8 | 16, _) | (32, Width::W64) if is_move && is_register => {
            f.zero_imm()?;
            let bits = u8::try_from(f.offset).map_err(|_| f.reserved("offset"))?;
            let src = f.src()?;
            Ok(Insn::MovSx {
                width,
                bits,
                dst,
                src,
            })
        }
        (ops::CAST_ADDRESS_SPACE, Width::W64) if is_move && is_register => {
            let [from_low, from_high, to_low, to_high] = f.imm.to_le_bytes();
            Ok(Insn::CastAddressSpace {
                dst,
                src: f.src()?,
                to: u16::from_le_bytes([to_low, to_high]),
                from: u16::from_le_bytes([from_low, from_high]),
            })
        }
        _ => Err(f.reserved("offset")),
    }
}

fn endian(f: Fields) -> Result<Insn, DecodeError> {
    let &(kind, ..) = ops::ENDIAN
        .iter()
        .find(|row| row.1 == f.opcode)
        .ok_or_else(|| f.unknown())?;
    f.zero_src()?;
    f.zero_offset()?;
    let bits = match f.imm {
        16 => 16,
        32 => 32,
        64 => 64,
        _ => return Err(f.reserved("imm")),
    };
    let dst = f.dst()?;
    Ok(Insn::Endian { kind, bits, dst })
}

fn jump(f: Fields) -> Result<Insn, DecodeError> {
    let width = match f.opcode & 0x07 {
        class::JMP32 => Width::W32,
        _ => Width::W64,
    };
    let (code, is_register) = (f.opcode & 0xf0, f.opcode & ops::X != 0);
    if let Some(&(op, ..)) = ops::JUMP.iter().find(|row| row.1 == code) {
        return Ok(Insn::Jump {
            width,
            op,
            dst: f.dst()?,
            src: f.operand(is_register)?,
            offset: f.offset,
        });
    }
    match (code, width, is_register) {
        (ops::GOTO, Width::W64, false) => {
            f.zero_dst()?;
            f.zero_src()?;
            f.zero_imm()?;
            Ok(Insn::Goto { offset: f.offset })
        }
        (ops::GOTO, Width::W64, true) => {
            f.zero_src()?;
            f.zero_offset()?;
            f.zero_imm()?;
            Ok(Insn::GotoReg { target: f.dst()? })
        }
        (ops::GOTO, Width::W32, false) => {
            f.zero_dst()?;
            f.zero_src()?;
            f.zero_offset()?;
            Ok(Insn::GotoLong { offset: f.imm })
        }
        (ops::MAY_GOTO, Width::W64, false) => {
            f.zero_dst()?;
            f.zero_src()?;
            f.zero_imm()?;
            Ok(Insn::MayGoto { offset: f.offset })
        }
        (ops::EXIT, Width::W64, false) => {
            f.zero_dst()?;
            f.zero_src()?;
            f.zero_offset()?;
            f.zero_imm()?;
            Ok(Insn::Exit)
        }
        (ops::CALL, Width::W64, true) => {
            f.zero_src()?;
            f.zero_offset()?;
            f.zero_imm()?;
            Ok(Insn::CallReg { target: f.dst()? })
        }
        (ops::CALL, Width::W64, false) => call(f),
        _ => Err(f.unknown()),
    }
}

fn call(f: Fields) -> Result<Insn, DecodeError> {
    f.zero_dst()?;
    match f.src {
        ops::call::HELPER => {
            f.zero_offset()?;
            Ok(Insn::Call {
                helper: f.imm.cast_unsigned(),
            })
        }
        ops::call::LOCAL => {
            f.zero_offset()?;
            Ok(Insn::CallLocal { offset: f.imm })
        }
        ops::call::KFUNC => Ok(Insn::CallKfunc {
            btf_id: f.imm,
            btf_fd_index: f.offset,
        }),
        _ => Err(f.reserved("src")),
    }
}

impl Fields {
    fn of(slot: &[u8; 8]) -> Fields {
        let [opcode, registers, o0, o1, i0, i1, i2, i3] = *slot;
        Fields {
            opcode,
            dst: registers & 0x0f,
            src: registers >> 4,
            offset: i16::from_le_bytes([o0, o1]),
            imm: i32::from_le_bytes([i0, i1, i2, i3]),
        }
    }

    fn dst(self) -> Result<Reg, DecodeError> {
        Reg::new(self.dst).ok_or(DecodeError::Register(self.dst))
    }

    fn src(self) -> Result<Reg, DecodeError> {
        Reg::new(self.src).ok_or(DecodeError::Register(self.src))
    }

    /// The second operand; the field that it leaves unused has to be zero.
    fn operand(self, is_register: bool) -> Result<Source, DecodeError> {
        if is_register {
            self.zero_imm()?;
            self.src().map(Source::Reg)
        } else {
            self.zero_src()?;
            Ok(Source::Imm(self.imm))
        }
    }

    fn zero_dst(self) -> Result<(), DecodeError> {
        self.require(self.dst == 0, "dst")
    }

    fn zero_src(self) -> Result<(), DecodeError> {
        self.require(self.src == 0, "src")
    }

    fn zero_offset(self) -> Result<(), DecodeError> {
        self.require(self.offset == 0, "offset")
    }

    fn zero_imm(self) -> Result<(), DecodeError> {
        self.require(self.imm == 0, "imm")
    }

    fn require(self, holds: bool, field: &'static str) -> Result<(), DecodeError> {
        if holds {
            Ok(())
        } else {
            Err(self.reserved(field))
        }
    }

    fn reserved(self, field: &'static str) -> DecodeError {
        DecodeError::Reserved {
            opcode: self.opcode,
            field,
        }
    }

    fn unknown(self) -> DecodeError {
        DecodeError::Opcode(self.opcode)
    }
}
