//! A loaded program: instructions decoded once into operations whose jumps are indices and whose immediates are extended.

use std::rc::Rc;

use super::value::{Pointer, Region, Value};
use crate::insn::{
    AluOp, AtomicOp, DecodeError, EndianKind, Imm64, Insn, JumpOp, Reg, Size, Source, Width,
};
use crate::object::{Linked, ObjectError, link};
use crate::program::{Line, Program, ProgramKind};

/// The most instructions that a program may have: the verifier's own limit for privileged loaders.
pub const MAX_INSNS: usize = 1_000_000;

/// Why a program can't be loaded into the machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The program contradicts itself.
    #[error("the program can't be linked: {0}")]
    Link(String),
    /// Bytes that are no instruction.
    #[error("slot {slot}: {error}")]
    Decode {
        /// The slot.
        slot: usize,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// Code whose length is no multiple of 8.
    #[error("{0} bytes of code are no whole number of 8-byte slots")]
    Length(usize),
    /// No instructions, or more than [`MAX_INSNS`].
    #[error("a program has 1 to {MAX_INSNS} instructions, not {0}")]
    Size(usize),
    /// A jump or call out of the program or into the middle of an instruction.
    #[error("slot {slot}: the jump or call leads to no instruction")]
    Target {
        /// The slot.
        slot: usize,
    },
    /// A write to the frame pointer.
    #[error("slot {slot}: r10 can't be written")]
    FramePointer {
        /// The slot.
        slot: usize,
    },
    /// An instruction that only a kernel can carry out.
    #[error("slot {slot}: `{insn}` needs a kernel")]
    Unsupported {
        /// The slot.
        slot: usize,
        /// The instruction.
        insn: Insn,
    },
    /// A map that can't be made.
    #[error(transparent)]
    Map(#[from] super::map::MapError),
}

impl From<ObjectError> for LoadError {
    fn from(error: ObjectError) -> LoadError {
        LoadError::Link(error.to_string())
    }
}

/// What a program is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Memory in r1, its length in r2.
    Raw,
    Xdp,
    Tc,
}

/// One operation. Registers are their numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Alu64Imm {
        op: AluOp,
        dst: u8,
        imm: u64,
    },
    Alu64Reg {
        op: AluOp,
        dst: u8,
        src: u8,
    },
    Alu32Imm {
        op: AluOp,
        dst: u8,
        imm: u32,
    },
    Alu32Reg {
        op: AluOp,
        dst: u8,
        src: u8,
    },
    MovSx {
        width: Width,
        bits: u8,
        dst: u8,
        src: u8,
    },
    Neg {
        width: Width,
        dst: u8,
    },
    Endian {
        kind: EndianKind,
        bits: u8,
        dst: u8,
    },
    Load {
        size: Size,
        signed: bool,
        dst: u8,
        base: u8,
        offset: i16,
    },
    StoreImm {
        size: Size,
        base: u8,
        offset: i16,
        imm: i32,
    },
    StoreReg {
        size: Size,
        base: u8,
        offset: i16,
        src: u8,
    },
    Atomic {
        size: Size,
        op: AtomicOp,
        base: u8,
        offset: i16,
        src: u8,
    },
    Const {
        dst: u8,
        value: u64,
    },
    Address {
        dst: u8,
        constant: u32,
    },
    LoadPacket {
        size: Size,
        index: Option<u8>,
        offset: i32,
    },
    Jump64Imm {
        op: JumpOp,
        dst: u8,
        imm: i32,
        target: u32,
    },
    Jump64Reg {
        op: JumpOp,
        dst: u8,
        src: u8,
        target: u32,
    },
    Jump32Imm {
        op: JumpOp,
        dst: u8,
        imm: i32,
        target: u32,
    },
    Jump32Reg {
        op: JumpOp,
        dst: u8,
        src: u8,
        target: u32,
    },
    Goto {
        target: u32,
    },
    MayGoto {
        target: u32,
    },
    Call {
        helper: u32,
    },
    CallLocal {
        target: u32,
    },
    Exit,
}

/// A loaded program.
#[derive(Debug)]
pub(crate) struct Image {
    pub(super) name: Rc<str>,
    pub(super) hook: Hook,
    pub(super) ops: Vec<Op>,
    pub(super) insns: Vec<Insn>,
    pub(super) slots: Vec<usize>,
    lines: Vec<Line>,
    /// Pointers that instructions load.
    pub(super) constants: Vec<Value>,
}

impl Image {
    /// A program of the builder or the assembler; `map` gives each of its maps' numbers by name.
    pub(super) fn of_program(
        program: &Program,
        map: impl Fn(&str) -> Option<u32>,
    ) -> Result<Image, LoadError> {
        let Linked {
            insns, lines, maps, ..
        } = link(program)?;
        let mut numbers = vec![None; insns.len()];
        for (at, name) in &maps {
            numbers[*at] = map(name);
        }
        let hook = match program.kind {
            ProgramKind::Xdp | ProgramKind::XdpFrags => Hook::Xdp,
            ProgramKind::Classifier => Hook::Tc,
        };
        Image::new(
            &program.main.name,
            hook,
            insns,
            lines,
            &|at, insn| match insn {
                Imm64::Map => numbers[at].map(|map| Pointer {
                    region: Region::Map { map, lookup: 0 },
                    offset: 0,
                }),
                Imm64::MapValue { offset, .. } => numbers[at].map(|map| Pointer {
                    region: Region::MapValue {
                        map,
                        element: 0,
                        lookup: 0,
                    },
                    offset: offset.into(),
                }),
                _ => None,
            },
        )
    }

    /// Instructions without a source.
    pub(super) fn of_insns(name: &str, hook: Hook, insns: Vec<Insn>) -> Result<Image, LoadError> {
        Image::new(name, hook, insns, Vec::new(), &|_, _| None)
    }

    /// Encoded instructions.
    pub(super) fn of_bytes(name: &str, hook: Hook, code: &[u8]) -> Result<Image, LoadError> {
        let (slots, rest) = code.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(LoadError::Length(code.len()));
        }
        let insns =
            Insn::decode_all(slots).map_err(|(slot, error)| LoadError::Decode { slot, error })?;
        Image::of_insns(name, hook, insns)
    }

    pub(super) fn line(&self, at: usize) -> Option<Line> {
        self.lines.get(at).copied()
    }

    /// The number of the instruction that begins at `slot`.
    fn at_slot(slots: &[usize], slot: i64) -> Option<u32> {
        let slot = usize::try_from(slot).ok()?;
        let at = slots.binary_search(&slot).ok()?;
        u32::try_from(at).ok()
    }

    fn new(
        name: &str,
        hook: Hook,
        insns: Vec<Insn>,
        lines: Vec<Line>,
        address: &dyn Fn(usize, Imm64) -> Option<Pointer>,
    ) -> Result<Image, LoadError> {
        if insns.is_empty() || insns.len() > MAX_INSNS {
            return Err(LoadError::Size(insns.len()));
        }
        let slots: Vec<usize> = insns
            .iter()
            .scan(0, |slot, insn| {
                let at = *slot;
                *slot += insn.slots();
                Some(at)
            })
            .collect();
        let mut constants = Vec::new();
        let mut ops = Vec::with_capacity(insns.len());
        for (at, insn) in insns.iter().enumerate() {
            let slot = slots[at];
            let target = |offset: i64| {
                let next = (slot + insn.slots()) as i64;
                Image::at_slot(&slots, next.saturating_add(offset))
                    .ok_or(LoadError::Target { slot })
            };
            if written(insn) == Some(Reg::R10) {
                return Err(LoadError::FramePointer { slot });
            }
            ops.push(match *insn {
                Insn::LoadImm64 { dst, value } => {
                    let dst = dst.number();
                    let pointer = match value {
                        Imm64::Value(value) => {
                            ops.push(Op::Const { dst, value });
                            continue;
                        }
                        Imm64::Function { offset } => {
                            // Relative to the slot after the instruction's first one, as calls are.
                            let entry = Image::at_slot(&slots, slot as i64 + 1 + i64::from(offset))
                                .ok_or(LoadError::Target { slot })?;
                            Some(Pointer {
                                region: Region::Function { entry },
                                offset: 0,
                            })
                        }
                        other => address(at, other),
                    };
                    let pointer = pointer.ok_or(LoadError::Unsupported { slot, insn: *insn })?;
                    let constant = constants.len() as u32;
                    constants.push(Value::Pointer(pointer));
                    Op::Address { dst, constant }
                }
                _ => {
                    decoded(insn, target).ok_or(LoadError::Unsupported { slot, insn: *insn })??
                }
            });
        }
        Ok(Image {
            name: name.into(),
            hook,
            ops,
            insns,
            slots,
            lines,
            constants,
        })
    }
}

/// The register that an instruction names as written.
pub(super) fn written(insn: &Insn) -> Option<Reg> {
    match *insn {
        Insn::Alu { dst, .. }
        | Insn::MovSx { dst, .. }
        | Insn::Neg { dst, .. }
        | Insn::Endian { dst, .. }
        | Insn::Load { dst, .. }
        | Insn::LoadImm64 { dst, .. } => Some(dst),
        Insn::Atomic {
            op: AtomicOp::LoadAcquire,
            src,
            ..
        } => Some(src),
        Insn::Atomic { op, src, .. } if fetches(op) => Some(src),
        _ => None,
    }
}

/// Whether the operation's old value goes into its source register.
pub(super) fn fetches(op: AtomicOp) -> bool {
    matches!(
        op,
        AtomicOp::FetchAdd
            | AtomicOp::FetchAnd
            | AtomicOp::FetchOr
            | AtomicOp::FetchXor
            | AtomicOp::Exchange
    )
}

/// The operation of every instruction but a 64-bit immediate load; None for what needs a kernel.
fn decoded(
    insn: &Insn,
    target: impl Fn(i64) -> Result<u32, LoadError>,
) -> Option<Result<Op, LoadError>> {
    let jump = |offset: i64, op: &dyn Fn(u32) -> Op| Some(target(offset).map(op));
    Some(Ok(match *insn {
        Insn::Alu {
            width,
            op,
            dst,
            src,
        } => {
            let dst = dst.number();
            match (width, src) {
                (Width::W64, Source::Imm(imm)) => {
                    let imm = i64::from(imm).cast_unsigned();
                    Op::Alu64Imm { op, dst, imm }
                }
                (Width::W64, Source::Reg(src)) => Op::Alu64Reg {
                    op,
                    dst,
                    src: src.number(),
                },
                (Width::W32, Source::Imm(imm)) => Op::Alu32Imm {
                    op,
                    dst,
                    imm: imm.cast_unsigned(),
                },
                (Width::W32, Source::Reg(src)) => Op::Alu32Reg {
                    op,
                    dst,
                    src: src.number(),
                },
            }
        }
        Insn::MovSx {
            width,
            bits,
            dst,
            src,
        } => Op::MovSx {
            width,
            bits,
            dst: dst.number(),
            src: src.number(),
        },
        Insn::Neg { width, dst } => Op::Neg {
            width,
            dst: dst.number(),
        },
        Insn::Endian { kind, bits, dst } => Op::Endian {
            kind,
            bits,
            dst: dst.number(),
        },
        Insn::Load {
            size,
            signed,
            dst,
            base,
            offset,
        } => Op::Load {
            size,
            signed,
            dst: dst.number(),
            base: base.number(),
            offset,
        },
        Insn::Store {
            size,
            base,
            offset,
            src,
        } => {
            let base = base.number();
            match src {
                Source::Imm(imm) => Op::StoreImm {
                    size,
                    base,
                    offset,
                    imm,
                },
                Source::Reg(src) => Op::StoreReg {
                    size,
                    base,
                    offset,
                    src: src.number(),
                },
            }
        }
        Insn::Atomic {
            size,
            op,
            base,
            offset,
            src,
        } => Op::Atomic {
            size,
            op,
            base: base.number(),
            offset,
            src: src.number(),
        },
        Insn::LoadPacket {
            size,
            index,
            offset,
        } => Op::LoadPacket {
            size,
            index: index.map(Reg::number),
            offset,
        },
        Insn::Jump {
            width,
            op,
            dst,
            src,
            offset,
        } => {
            let dst = dst.number();
            return jump(i64::from(offset), &|target| match (width, src) {
                (Width::W64, Source::Imm(imm)) => Op::Jump64Imm {
                    op,
                    dst,
                    imm,
                    target,
                },
                (Width::W64, Source::Reg(src)) => Op::Jump64Reg {
                    op,
                    dst,
                    src: src.number(),
                    target,
                },
                (Width::W32, Source::Imm(imm)) => Op::Jump32Imm {
                    op,
                    dst,
                    imm,
                    target,
                },
                (Width::W32, Source::Reg(src)) => Op::Jump32Reg {
                    op,
                    dst,
                    src: src.number(),
                    target,
                },
            });
        }
        Insn::Goto { offset } => return jump(i64::from(offset), &|target| Op::Goto { target }),
        Insn::GotoLong { offset } => return jump(i64::from(offset), &|target| Op::Goto { target }),
        Insn::MayGoto { offset } => {
            return jump(i64::from(offset), &|target| Op::MayGoto { target });
        }
        Insn::CallLocal { offset } => {
            return jump(i64::from(offset), &|target| Op::CallLocal { target });
        }
        Insn::Call { helper } => Op::Call { helper },
        Insn::Exit => Op::Exit,
        Insn::LoadImm64 { .. }
        | Insn::CallKfunc { .. }
        | Insn::CallReg { .. }
        | Insn::GotoReg { .. }
        | Insn::CastAddressSpace { .. } => return None,
    }))
}
