//! The operation tables: each operation's code and its sign in the verifier's syntax, written down once.

use super::{AluOp, AtomicOp, EndianKind, JumpOp, Size};

/// Instruction classes, the lowest three bits of the opcode.
pub(super) mod class {
    pub(crate) const LD: u8 = 0x00;
    pub(crate) const LDX: u8 = 0x01;
    pub(crate) const ST: u8 = 0x02;
    pub(crate) const STX: u8 = 0x03;
    pub(crate) const ALU32: u8 = 0x04;
    pub(crate) const JMP64: u8 = 0x05;
    pub(crate) const JMP32: u8 = 0x06;
    pub(crate) const ALU64: u8 = 0x07;
}

/// Modes of loads and stores, the highest three bits of the opcode.
pub(super) mod mode {
    pub(crate) const IMM: u8 = 0x00;
    pub(crate) const ABS: u8 = 0x20;
    pub(crate) const IND: u8 = 0x40;
    pub(crate) const MEM: u8 = 0x60;
    pub(crate) const MEMSX: u8 = 0x80;
    pub(crate) const ATOMIC: u8 = 0xc0;
}

/// The source bit of arithmetic and jumps: set when the second operand is a register.
pub(super) const X: u8 = 0x08;

/// Arithmetic that is no row of [`ALU`].
pub(super) const NEG: u8 = 0x80;
pub(super) const END: u8 = 0xd0;

/// What the offset of a 64-bit register move says when it moves a pointer to another address space.
pub(super) const CAST_ADDRESS_SPACE: i16 = 1;

/// Jumps that are no row of [`JUMP`].
pub(super) const GOTO: u8 = 0x00;
pub(super) const CALL: u8 = 0x80;
pub(super) const EXIT: u8 = 0x90;
pub(super) const MAY_GOTO: u8 = 0xe0;

/// Operation, code, offset field, sign.
pub(super) const ALU: [(AluOp, u8, i16, &str); 14] = [
    (AluOp::Add, 0x00, 0, "+="),
    (AluOp::Sub, 0x10, 0, "-="),
    (AluOp::Mul, 0x20, 0, "*="),
    (AluOp::Div, 0x30, 0, "/="),
    (AluOp::SDiv, 0x30, 1, "s/="),
    (AluOp::Or, 0x40, 0, "|="),
    (AluOp::And, 0x50, 0, "&="),
    (AluOp::Lsh, 0x60, 0, "<<="),
    (AluOp::Rsh, 0x70, 0, ">>="),
    (AluOp::Mod, 0x90, 0, "%="),
    (AluOp::SMod, 0x90, 1, "s%="),
    (AluOp::Xor, 0xa0, 0, "^="),
    (AluOp::Mov, 0xb0, 0, "="),
    (AluOp::Arsh, 0xc0, 0, "s>>="),
];

/// Operation, code, sign.
pub(super) const JUMP: [(JumpOp, u8, &str); 11] = [
    (JumpOp::Eq, 0x10, "=="),
    (JumpOp::Gt, 0x20, ">"),
    (JumpOp::Ge, 0x30, ">="),
    (JumpOp::Set, 0x40, "&"),
    (JumpOp::Ne, 0x50, "!="),
    (JumpOp::SGt, 0x60, "s>"),
    (JumpOp::SGe, 0x70, "s>="),
    (JumpOp::Lt, 0xa0, "<"),
    (JumpOp::Le, 0xb0, "<="),
    (JumpOp::SLt, 0xc0, "s<"),
    (JumpOp::SLe, 0xd0, "s<="),
];

/// Operation, immediate, sign or name.
pub(super) const ATOMIC: [(AtomicOp, i32, &str); 12] = [
    (AtomicOp::Add, 0x00, "+="),
    (AtomicOp::Or, 0x40, "|="),
    (AtomicOp::And, 0x50, "&="),
    (AtomicOp::Xor, 0xa0, "^="),
    (AtomicOp::FetchAdd, 0x01, "fetch_add"),
    (AtomicOp::FetchOr, 0x41, "fetch_or"),
    (AtomicOp::FetchAnd, 0x51, "fetch_and"),
    (AtomicOp::FetchXor, 0xa1, "fetch_xor"),
    (AtomicOp::Exchange, 0xe1, "xchg"),
    (AtomicOp::CompareExchange, 0xf1, "cmpxchg"),
    (AtomicOp::LoadAcquire, 0x100, "load_acquire"),
    (AtomicOp::StoreRelease, 0x110, "store_release"),
];

/// Kind, opcode, name.
pub(super) const ENDIAN: [(EndianKind, u8, &str); 3] = [
    (EndianKind::ToLe, class::ALU32 | END, "le"),
    (EndianKind::ToBe, class::ALU32 | END | X, "be"),
    (EndianKind::Swap, class::ALU64 | END, "bswap"),
];

/// Rows of the 64-bit immediate load: the number in its source field.
pub(super) mod imm64 {
    pub(crate) const VALUE: u8 = 0;
    pub(crate) const MAP_FD: u8 = 1;
    pub(crate) const MAP_VALUE: u8 = 2;
    pub(crate) const BTF_ID: u8 = 3;
    pub(crate) const FUNCTION: u8 = 4;
    pub(crate) const MAP_INDEX: u8 = 5;
    pub(crate) const MAP_INDEX_VALUE: u8 = 6;
}

/// What a call's source field says the immediate is.
pub(super) mod call {
    pub(crate) const HELPER: u8 = 0;
    pub(crate) const LOCAL: u8 = 1;
    pub(crate) const KFUNC: u8 = 2;
}

impl AluOp {
    /// Every operation, in the order of its code.
    pub const ALL: [AluOp; 14] = {
        let mut all = [ALU[0].0; 14];
        let mut i = 1;
        while i < all.len() {
            all[i] = ALU[i].0;
            i += 1;
        }
        all
    };

    pub(super) fn row(self) -> &'static (AluOp, u8, i16, &'static str) {
        row_of(&ALU, |row| row.0 == self)
    }

    /// The verifier's sign for it, for example `s>>=`.
    pub fn sign(self) -> &'static str {
        self.row().3
    }
}

impl JumpOp {
    /// Every comparison, in the order of its code.
    pub const ALL: [JumpOp; 11] = {
        let mut all = [JUMP[0].0; 11];
        let mut i = 1;
        while i < all.len() {
            all[i] = JUMP[i].0;
            i += 1;
        }
        all
    };

    pub(super) fn row(self) -> &'static (JumpOp, u8, &'static str) {
        row_of(&JUMP, |row| row.0 == self)
    }

    /// The verifier's sign for it, for example `s>=`.
    pub fn sign(self) -> &'static str {
        self.row().2
    }

    /// The comparison that holds exactly when this one does not; `Set` has none.
    pub fn inverse(self) -> Option<JumpOp> {
        Some(match self {
            JumpOp::Eq => JumpOp::Ne,
            JumpOp::Ne => JumpOp::Eq,
            JumpOp::Gt => JumpOp::Le,
            JumpOp::Le => JumpOp::Gt,
            JumpOp::Ge => JumpOp::Lt,
            JumpOp::Lt => JumpOp::Ge,
            JumpOp::SGt => JumpOp::SLe,
            JumpOp::SLe => JumpOp::SGt,
            JumpOp::SGe => JumpOp::SLt,
            JumpOp::SLt => JumpOp::SGe,
            JumpOp::Set => return None,
        })
    }
}

impl AtomicOp {
    /// Every operation.
    pub const ALL: [AtomicOp; 12] = {
        let mut all = [ATOMIC[0].0; 12];
        let mut i = 1;
        while i < all.len() {
            all[i] = ATOMIC[i].0;
            i += 1;
        }
        all
    };

    pub(super) fn row(self) -> &'static (AtomicOp, i32, &'static str) {
        row_of(&ATOMIC, |row| row.0 == self)
    }

    /// The verifier's sign or name for it, for example `+=` or `fetch_add`.
    pub fn sign(self) -> &'static str {
        self.row().2
    }

    /// Whether it exists for 1 and 2 bytes too.
    pub fn any_size(self) -> bool {
        matches!(self, AtomicOp::LoadAcquire | AtomicOp::StoreRelease)
    }
}

impl EndianKind {
    pub(super) fn row(self) -> &'static (EndianKind, u8, &'static str) {
        row_of(&ENDIAN, |row| row.0 == self)
    }

    /// The verifier's name for it: `le`, `be` or `bswap`.
    pub fn sign(self) -> &'static str {
        self.row().2
    }
}

impl Size {
    /// The code of each size is its place here, shifted left by three.
    const BY_CODE: [Size; 4] = [Size::W, Size::H, Size::B, Size::DW];

    pub(super) fn code(self) -> u8 {
        match self {
            Size::W => 0x00,
            Size::H => 0x08,
            Size::B => 0x10,
            Size::DW => 0x18,
        }
    }

    /// The size that an opcode names.
    pub(super) fn of_opcode(opcode: u8) -> Size {
        Size::BY_CODE[usize::from(opcode >> 3 & 3)]
    }
}

/// The row of a table that is asked for. Every enum variant has one; a test holds that.
fn row_of<T>(table: &'static [T], is_it: impl Fn(&T) -> bool) -> &'static T {
    table
        .iter()
        .find(|row| is_it(row))
        .expect("every operation has a row in its table")
}
