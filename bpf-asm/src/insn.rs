//! The instruction set as types: one variant of [`Insn`] per encoding form of RFC 9669, and what kernels added since.
//!
//! [`Insn::encode`] and [`Insn::decode`] are inverses; [`Insn::check`] says whether a hand-built value is a
//! legal encoding at all. Nothing here knows what an instruction does, only how it is written:
//!
//! ```text
//!   byte  0        1            2..4          4..8
//!         opcode   src << 4 | dst   offset (le)   immediate (le)
//! ```

#[cfg(test)]
pub(crate) mod arbitrary;
mod decode;
mod encode;
mod helpers;
mod ops;
#[cfg(test)]
mod tests;

pub use decode::DecodeError;
pub use encode::IllegalInsn;

/// A register, r0 to r10.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(u8);

impl Reg {
    /// Return value of functions and helpers.
    pub const R0: Reg = Reg(0);
    /// First argument; clobbered by calls.
    pub const R1: Reg = Reg(1);
    /// Second argument; clobbered by calls.
    pub const R2: Reg = Reg(2);
    /// Third argument; clobbered by calls.
    pub const R3: Reg = Reg(3);
    /// Fourth argument; clobbered by calls.
    pub const R4: Reg = Reg(4);
    /// Fifth argument; clobbered by calls.
    pub const R5: Reg = Reg(5);
    /// Preserved by calls.
    pub const R6: Reg = Reg(6);
    /// Preserved by calls.
    pub const R7: Reg = Reg(7);
    /// Preserved by calls.
    pub const R8: Reg = Reg(8);
    /// Preserved by calls.
    pub const R9: Reg = Reg(9);
    /// The frame pointer; read-only.
    pub const R10: Reg = Reg(10);

    /// Register number `n`, if there is one.
    pub const fn new(n: u8) -> Option<Reg> {
        if n <= 10 { Some(Reg(n)) } else { None }
    }

    /// Its number, 0 to 10.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl std::fmt::Debug for Reg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// How much of a register an arithmetic instruction or a comparison works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// The lower half; arithmetic zeroes the upper half.
    W32,
    /// The whole register; immediates are sign-extended.
    W64,
}

/// The size of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// 1 byte.
    B,
    /// 2 bytes.
    H,
    /// 4 bytes.
    W,
    /// 8 bytes.
    DW,
}

impl Size {
    /// Its length in bytes.
    pub const fn bytes(self) -> u8 {
        match self {
            Size::B => 1,
            Size::H => 2,
            Size::W => 4,
            Size::DW => 8,
        }
    }
}

/// The second operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A register.
    Reg(Reg),
    /// An immediate, sign-extended to the width of the operation.
    Imm(i32),
}

impl From<Reg> for Source {
    fn from(reg: Reg) -> Source {
        Source::Reg(reg)
    }
}

impl From<i32> for Source {
    fn from(imm: i32) -> Source {
        Source::Imm(imm)
    }
}

/// Two-operand arithmetic: `dst = dst op src`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AluOp {
    /// Wrapping addition.
    Add,
    /// Wrapping subtraction.
    Sub,
    /// Wrapping multiplication.
    Mul,
    /// Unsigned division; by zero gives 0.
    Div,
    /// Bitwise or.
    Or,
    /// Bitwise and.
    And,
    /// Shift left; the distance is masked to the width.
    Lsh,
    /// Logical shift right; the distance is masked to the width.
    Rsh,
    /// Unsigned remainder; by zero leaves `dst`.
    Mod,
    /// Bitwise exclusive or.
    Xor,
    /// Copy.
    Mov,
    /// Arithmetic shift right; the distance is masked to the width.
    Arsh,
    /// Signed division, truncating; by zero gives 0.
    SDiv,
    /// Signed remainder; by zero leaves `dst`.
    SMod,
}

/// The comparison of a conditional jump: jump if `dst op src`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JumpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Unsigned greater.
    Gt,
    /// Unsigned greater or equal.
    Ge,
    /// Unsigned less.
    Lt,
    /// Unsigned less or equal.
    Le,
    /// Any common bit: `dst & src != 0`.
    Set,
    /// Signed greater.
    SGt,
    /// Signed greater or equal.
    SGe,
    /// Signed less.
    SLt,
    /// Signed less or equal.
    SLe,
}

/// An atomic memory operation. All but the last two exist for 4 and 8 bytes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AtomicOp {
    /// `*mem += src`.
    Add,
    /// `*mem &= src`.
    And,
    /// `*mem |= src`.
    Or,
    /// `*mem ^= src`.
    Xor,
    /// `*mem += src`, `src` becomes the old value.
    FetchAdd,
    /// `*mem &= src`, `src` becomes the old value.
    FetchAnd,
    /// `*mem |= src`, `src` becomes the old value.
    FetchOr,
    /// `*mem ^= src`, `src` becomes the old value.
    FetchXor,
    /// `src` and `*mem` change places.
    Exchange,
    /// If `*mem == r0` then `*mem = src`; r0 becomes the old value either way.
    CompareExchange,
    /// `src = *mem` with acquire ordering (the register named `src` is written); any size.
    LoadAcquire,
    /// `*mem = src` with release ordering; any size.
    StoreRelease,
}

/// Which byte order an [`Insn::Endian`] converts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndianKind {
    /// Host to little-endian: truncates on a little-endian host.
    ToLe,
    /// Host to big-endian: swaps on a little-endian host.
    ToBe,
    /// Swap whatever the host is (instruction set version 4).
    Swap,
}

/// What a 64-bit immediate load loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Imm64 {
    /// A plain number.
    Value(u64),
    /// The address of the map behind a file descriptor.
    MapFd(i32),
    /// The address of a byte in an array map's value.
    MapValue {
        /// The map's file descriptor.
        fd: i32,
        /// Bytes from the start of the map's first value.
        offset: u32,
    },
    /// The address of a map that a loader fills in through a relocation. It is encoded as zeroes, as compilers do, and
    /// so decodes as `Value(0)`: the one value that does not survive a round trip.
    Map,
    /// The address of a kernel variable.
    BtfId {
        /// Its id in the BTF.
        id: i32,
        /// The file descriptor of a module's BTF; 0 for vmlinux.
        btf_fd: i32,
    },
    /// The address of a function of this program, in slots from the next instruction.
    Function {
        /// Slots from the end of this instruction's first slot.
        offset: i32,
    },
    /// The address of a map by its place in the loader's array of descriptors.
    MapIndex(i32),
    /// The address of a byte in an array map's value, the map by its place in the loader's array of descriptors.
    MapIndexValue {
        /// The place in the array.
        index: i32,
        /// Bytes from the start of the map's first value.
        offset: u32,
    },
}

/// One instruction. Jump and call offsets count 8-byte slots from the instruction that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the fields' types carry their meaning
pub enum Insn {
    /// `dst = dst op src`.
    Alu {
        width: Width,
        op: AluOp,
        dst: Reg,
        src: Source,
    },
    /// `dst` = the lowest `bits` (8, 16, or 32 for `W64` only) of `src`, sign-extended to the width.
    MovSx {
        width: Width,
        bits: u8,
        dst: Reg,
        src: Reg,
    },
    /// `dst = src`, a pointer moved from one address space to another (`BPF_ADDR_SPACE_CAST`, for arenas).
    CastAddressSpace {
        dst: Reg,
        src: Reg,
        to: u16,
        from: u16,
    },
    /// `dst = -dst`.
    Neg { width: Width, dst: Reg },
    /// Converts the byte order of the lowest `bits` (16, 32 or 64) of `dst`, zeroing the rest.
    Endian {
        kind: EndianKind,
        bits: u8,
        dst: Reg,
    },
    /// `dst = *(base + offset)`, zero- or sign-extended (signed: not for `DW`).
    Load {
        size: Size,
        signed: bool,
        dst: Reg,
        base: Reg,
        offset: i16,
    },
    /// `*(base + offset) = src`.
    Store {
        size: Size,
        base: Reg,
        offset: i16,
        src: Source,
    },
    /// An atomic operation on `*(base + offset)`.
    Atomic {
        size: Size,
        op: AtomicOp,
        base: Reg,
        offset: i16,
        src: Reg,
    },
    /// `dst` = a 64-bit immediate; the one instruction of two slots.
    LoadImm64 { dst: Reg, value: Imm64 },
    /// r0 = packet bytes in host order, at `index + offset` (legacy; not `DW`; needs the skb in r6, clobbers r1 to r5).
    LoadPacket {
        size: Size,
        index: Option<Reg>,
        offset: i32,
    },
    /// Jumps if `dst op src`.
    Jump {
        width: Width,
        op: JumpOp,
        dst: Reg,
        src: Source,
        offset: i16,
    },
    /// Jumps.
    Goto { offset: i16 },
    /// Jumps far (instruction set version 4).
    GotoLong { offset: i32 },
    /// Jumps to the instruction whose address is in `target`, out of an array that a map holds (Linux 6.19 and later, on x86-64).
    GotoReg { target: Reg },
    /// Jumps once a loop budget that the kernel keeps is used up; else falls through.
    MayGoto { offset: i16 },
    /// Calls a helper by its number.
    Call { helper: u32 },
    /// Calls a function of this program.
    CallLocal { offset: i32 },
    /// Calls a kernel function by BTF id; `btf_fd_index` 0 is vmlinux, else a place in the loader's array.
    CallKfunc { btf_id: i32, btf_fd_index: i16 },
    /// Calls the function whose address is in `target`. Encodable, but Linux refuses it.
    CallReg { target: Reg },
    /// Returns r0.
    Exit,
}

impl Insn {
    /// How many 8-byte slots it takes: 1, or 2 for a 64-bit immediate load.
    pub const fn slots(&self) -> usize {
        match self {
            Insn::LoadImm64 { .. } => 2,
            _ => 1,
        }
    }
}
