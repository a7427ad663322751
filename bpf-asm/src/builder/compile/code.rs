//! Code for the allocator: two-address instructions over registers of which 0 to 10 are the machine's and the rest virtual.

use super::super::ir::{At, BlockId};
use crate::insn::{AluOp, AtomicOp, EndianKind, JumpOp, Size, Width};

/// A register: the machine's up to 10, then virtual ones.
pub(super) type R = u32;
/// The first virtual register.
pub(super) const VIRTUAL: R = 11;
/// Registers that a call overwrites: r0 to r5.
pub(super) const CLOBBERED: std::ops::Range<R> = 0..6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Src {
    Reg(R),
    Imm(i32),
}

/// What an address is relative to: a register, or an object of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Reg(R),
    Slot(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Callee {
    Helper(u32),
    Subprogram(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Code {
    Alu {
        width: Width,
        op: AluOp,
        dst: R,
        src: Src,
    },
    Endian {
        kind: EndianKind,
        bits: u8,
        dst: R,
    },
    SignExtend {
        width: Width,
        bits: u8,
        dst: R,
        src: R,
    },
    Load {
        size: Size,
        dst: R,
        base: Place,
        offset: i16,
    },
    Store {
        size: Size,
        base: Place,
        offset: i16,
        src: Src,
    },
    Atomic {
        size: Size,
        op: AtomicOp,
        base: Place,
        offset: i16,
        src: R,
    },
    Imm64 {
        dst: R,
        value: u64,
    },
    Map {
        dst: R,
        map: usize,
    },
    /// The address of a byte in a map's value.
    MapValue {
        dst: R,
        map: usize,
        offset: u32,
    },
    /// The address of a subprogram.
    Function {
        dst: R,
        number: usize,
    },
    /// The address of an object of the frame.
    Frame {
        dst: R,
        slot: usize,
        offset: i32,
    },
    Call {
        callee: Callee,
        arguments: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    Jump(BlockId),
    Branch {
        width: Width,
        op: JumpOp,
        a: R,
        b: Src,
        then: BlockId,
        otherwise: BlockId,
    },
    /// On to `out` once the kernel's loop budget is used up.
    MayGoto {
        out: BlockId,
        go_on: BlockId,
    },
    Exit,
}

#[derive(Clone, Debug)]
pub(super) struct CodeBlock {
    pub(super) code: Vec<(Code, At)>,
    pub(super) end: (End, At),
    /// How much an instruction here weighs.
    pub(super) weight: f64,
}

impl Code {
    /// A copy between registers and nothing else.
    pub(super) fn as_copy(&self) -> Option<(R, R)> {
        match *self {
            Code::Alu {
                width: Width::W64,
                op: AluOp::Mov,
                dst,
                src: Src::Reg(src),
            } => Some((dst, src)),
            _ => None,
        }
    }

    /// The register that it writes, and calls none of these.
    pub(super) fn def(&self) -> Option<R> {
        match *self {
            Code::Alu { dst, .. }
            | Code::Endian { dst, .. }
            | Code::Load { dst, .. }
            | Code::Imm64 { dst, .. }
            | Code::Map { dst, .. }
            | Code::MapValue { dst, .. }
            | Code::Function { dst, .. }
            | Code::SignExtend { dst, .. }
            | Code::Frame { dst, .. } => Some(dst),
            Code::Atomic {
                op: AtomicOp::CompareExchange,
                ..
            } => Some(0),
            Code::Atomic { op, src, .. } if fetches(op) => Some(src),
            Code::Atomic { .. } | Code::Store { .. } | Code::Call { .. } => None,
        }
    }

    /// Calls `f` with each register that it writes.
    pub(super) fn defs(&self, mut f: impl FnMut(R)) {
        match self {
            Code::Call { .. } => CLOBBERED.for_each(f),
            _ => {
                if let Some(dst) = self.def() {
                    f(dst);
                }
            }
        }
    }

    /// Calls `f` with each register that it reads.
    pub(super) fn uses(&self, mut f: impl FnMut(R)) {
        let mut copy = *self;
        if let Code::Call { arguments, .. } = self {
            return (1..=*arguments).for_each(f);
        }
        if let Code::Atomic {
            op: AtomicOp::CompareExchange,
            ..
        } = self
        {
            f(0);
        }
        copy.map_uses(|reg| {
            f(reg);
            reg
        });
    }

    /// Replaces registers that it reads by what `f` says; a register that is written too is renamed with it.
    pub(super) fn map_uses(&mut self, mut f: impl FnMut(R) -> R) {
        let place = |place: &mut Place, f: &mut dyn FnMut(R) -> R| {
            if let Place::Reg(reg) = place {
                *reg = f(*reg);
            }
        };
        match self {
            Code::Alu { op, dst, src, .. } => {
                if let Src::Reg(reg) = src {
                    *reg = f(*reg);
                }
                if *op != AluOp::Mov {
                    *dst = f(*dst);
                }
            }
            Code::Endian { dst, .. } => *dst = f(*dst),
            Code::SignExtend { src, .. } => *src = f(*src),
            Code::Load { base, .. } => place(base, &mut f),
            Code::Store { base, src, .. } => {
                place(base, &mut f);
                if let Src::Reg(reg) = src {
                    *reg = f(*reg);
                }
            }
            Code::Atomic { base, src, .. } => {
                place(base, &mut f);
                *src = f(*src);
            }
            Code::Imm64 { .. }
            | Code::Map { .. }
            | Code::MapValue { .. }
            | Code::Function { .. }
            | Code::Frame { .. }
            | Code::Call { .. } => {}
        }
    }

    /// Replaces every register by what `f` says.
    pub(super) fn map(&mut self, mut f: impl FnMut(R) -> R) {
        self.map_uses(&mut f);
        match self {
            Code::Alu {
                op: AluOp::Mov,
                dst,
                ..
            }
            | Code::Load { dst, .. }
            | Code::Imm64 { dst, .. }
            | Code::Map { dst, .. }
            | Code::MapValue { dst, .. }
            | Code::Function { dst, .. }
            | Code::SignExtend { dst, .. }
            | Code::Frame { dst, .. } => *dst = f(*dst),
            _ => {}
        }
    }

    /// Whether it does nothing but write its register.
    pub(super) fn is_pure(&self) -> bool {
        !matches!(
            self,
            Code::Store { .. } | Code::Atomic { .. } | Code::Call { .. }
        )
    }

    /// Whether it computes the same wherever it stands: it reads no register.
    pub(super) fn is_constant(&self) -> bool {
        match self {
            Code::Alu { op, src, .. } => *op == AluOp::Mov && matches!(src, Src::Imm(_)),
            Code::Imm64 { .. }
            | Code::Map { .. }
            | Code::MapValue { .. }
            | Code::Function { .. }
            | Code::Frame { .. } => true,
            _ => false,
        }
    }
}

/// Whether the operation leaves the old value in its source register.
pub(super) fn fetches(op: AtomicOp) -> bool {
    matches!(
        op,
        AtomicOp::FetchAdd
            | AtomicOp::FetchAnd
            | AtomicOp::FetchOr
            | AtomicOp::FetchXor
            | AtomicOp::Exchange
            | AtomicOp::LoadAcquire
    )
}

impl End {
    pub(super) fn uses(&self, mut f: impl FnMut(R)) {
        match *self {
            End::Jump(_) | End::MayGoto { .. } => {}
            End::Branch { a, b, .. } => {
                f(a);
                if let Src::Reg(b) = b {
                    f(b);
                }
            }
            End::Exit => f(0),
        }
    }

    pub(super) fn map(&mut self, mut f: impl FnMut(R) -> R) {
        if let End::Branch { a, b, .. } = self {
            *a = f(*a);
            if let Src::Reg(b) = b {
                *b = f(*b);
            }
        }
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = BlockId> + use<> {
        match *self {
            End::Jump(to) => [Some(to), None],
            End::Branch {
                then, otherwise, ..
            } => [Some(then), Some(otherwise)],
            End::MayGoto { out, go_on } => [Some(out), Some(go_on)],
            End::Exit => [None, None],
        }
        .into_iter()
        .flatten()
    }

    pub(super) fn map_targets(&mut self, mut f: impl FnMut(BlockId) -> BlockId) {
        match self {
            End::Jump(to) => *to = f(*to),
            End::Branch {
                then, otherwise, ..
            } => {
                *then = f(*then);
                *otherwise = f(*otherwise);
            }
            End::MayGoto { out, go_on } => {
                *out = f(*out);
                *go_on = f(*go_on);
            }
            End::Exit => {}
        }
    }
}
