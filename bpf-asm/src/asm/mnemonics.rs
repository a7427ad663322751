//! A method per mnemonic, made from tables: each operation is one row.

use super::{Assembler, Label};
use crate::insn::{AluOp, AtomicOp, EndianKind, Imm64, Insn, JumpOp, Reg, Size, Source, Width};

/// Two-operand arithmetic: four methods a row.
macro_rules! arithmetic {
    ($($op:ident $w32:ident $w32_imm:ident $w64:ident $w64_imm:ident $sign:literal;)*) => {
        impl Assembler {$(
            #[doc = concat!("`dst ", $sign, " src`, on the lower halves; the upper half becomes 0.")]
            #[track_caller]
            pub fn $w32(&mut self, dst: Reg, src: Reg) -> &mut Assembler {
                let (width, src) = (Width::W32, Source::Reg(src));
                self.emit(Insn::Alu { width, op: AluOp::$op, dst, src })
            }

            #[doc = concat!("`dst ", $sign, " imm`, on the lower half; the upper half becomes 0.")]
            #[track_caller]
            pub fn $w32_imm(&mut self, dst: Reg, imm: i32) -> &mut Assembler {
                let (width, src) = (Width::W32, Source::Imm(imm));
                self.emit(Insn::Alu { width, op: AluOp::$op, dst, src })
            }

            #[doc = concat!("`dst ", $sign, " src`.")]
            #[track_caller]
            pub fn $w64(&mut self, dst: Reg, src: Reg) -> &mut Assembler {
                let (width, src) = (Width::W64, Source::Reg(src));
                self.emit(Insn::Alu { width, op: AluOp::$op, dst, src })
            }

            #[doc = concat!("`dst ", $sign, " imm`, the immediate sign-extended.")]
            #[track_caller]
            pub fn $w64_imm(&mut self, dst: Reg, imm: i32) -> &mut Assembler {
                let (width, src) = (Width::W64, Source::Imm(imm));
                self.emit(Insn::Alu { width, op: AluOp::$op, dst, src })
            }
        )*}
    };
}

arithmetic! {
    Add add32 add32_imm add64 add64_imm "+=";
    Sub sub32 sub32_imm sub64 sub64_imm "-=";
    Mul mul32 mul32_imm mul64 mul64_imm "*=";
    Div div32 div32_imm div64 div64_imm "/=";
    SDiv sdiv32 sdiv32_imm sdiv64 sdiv64_imm "s/=";
    Mod mod32 mod32_imm mod64 mod64_imm "%=";
    SMod smod32 smod32_imm smod64 smod64_imm "s%=";
    Or or32 or32_imm or64 or64_imm "|=";
    And and32 and32_imm and64 and64_imm "&=";
    Xor xor32 xor32_imm xor64 xor64_imm "^=";
    Lsh lsh32 lsh32_imm lsh64 lsh64_imm "<<=";
    Rsh rsh32 rsh32_imm rsh64 rsh64_imm ">>=";
    Arsh arsh32 arsh32_imm arsh64 arsh64_imm "s>>=";
    Mov mov32 mov32_imm mov64 mov64_imm "=";
}

/// Conditional jumps: four methods a row.
macro_rules! jumps {
    ($($op:ident $w32:ident $w32_imm:ident $w64:ident $w64_imm:ident $sign:literal;)*) => {
        impl Assembler {$(
            #[doc = concat!("Jumps to `label` if `dst ", $sign, " src`, comparing the lower halves.")]
            #[track_caller]
            pub fn $w32(&mut self, dst: Reg, src: Reg, label: Label) -> &mut Assembler {
                self.jump(Width::W32, JumpOp::$op, dst, src, label)
            }

            #[doc = concat!("Jumps to `label` if `dst ", $sign, " imm`, comparing the lower half.")]
            #[track_caller]
            pub fn $w32_imm(&mut self, dst: Reg, imm: i32, label: Label) -> &mut Assembler {
                self.jump(Width::W32, JumpOp::$op, dst, imm, label)
            }

            #[doc = concat!("Jumps to `label` if `dst ", $sign, " src`.")]
            #[track_caller]
            pub fn $w64(&mut self, dst: Reg, src: Reg, label: Label) -> &mut Assembler {
                self.jump(Width::W64, JumpOp::$op, dst, src, label)
            }

            #[doc = concat!("Jumps to `label` if `dst ", $sign, " imm`, the immediate sign-extended.")]
            #[track_caller]
            pub fn $w64_imm(&mut self, dst: Reg, imm: i32, label: Label) -> &mut Assembler {
                self.jump(Width::W64, JumpOp::$op, dst, imm, label)
            }
        )*}
    };
}

jumps! {
    Eq jeq32 jeq32_imm jeq64 jeq64_imm "==";
    Ne jne32 jne32_imm jne64 jne64_imm "!=";
    Gt jgt32 jgt32_imm jgt64 jgt64_imm ">";
    Ge jge32 jge32_imm jge64 jge64_imm ">=";
    Lt jlt32 jlt32_imm jlt64 jlt64_imm "<";
    Le jle32 jle32_imm jle64 jle64_imm "<=";
    Set jset32 jset32_imm jset64 jset64_imm "&";
    SGt jsgt32 jsgt32_imm jsgt64 jsgt64_imm "s>";
    SGe jsge32 jsge32_imm jsge64 jsge64_imm "s>=";
    SLt jslt32 jslt32_imm jslt64 jslt64_imm "s<";
    SLe jsle32 jsle32_imm jsle64 jsle64_imm "s<=";
}

/// Memory: three methods a row.
macro_rules! memory {
    ($($size:ident $ldx:ident $stx:ident $st:ident $type:literal;)*) => {
        impl Assembler {$(
            #[doc = concat!("`dst = *(", $type, " *)(base + offset)`.")]
            #[track_caller]
            pub fn $ldx(&mut self, dst: Reg, base: Reg, offset: i16) -> &mut Assembler {
                let (size, signed) = (Size::$size, false);
                self.emit(Insn::Load { size, signed, dst, base, offset })
            }

            #[doc = concat!("`*(", $type, " *)(base + offset) = src`.")]
            #[track_caller]
            pub fn $stx(&mut self, base: Reg, offset: i16, src: Reg) -> &mut Assembler {
                let (size, src) = (Size::$size, Source::Reg(src));
                self.emit(Insn::Store { size, base, offset, src })
            }

            #[doc = concat!("`*(", $type, " *)(base + offset) = imm`.")]
            #[track_caller]
            pub fn $st(&mut self, base: Reg, offset: i16, imm: i32) -> &mut Assembler {
                let (size, src) = (Size::$size, Source::Imm(imm));
                self.emit(Insn::Store { size, base, offset, src })
            }
        )*}
    };
}

memory! {
    B ldx_b stx_b st_b "u8";
    H ldx_h stx_h st_h "u16";
    W ldx_w stx_w st_w "u32";
    DW ldx_dw stx_dw st_dw "u64";
}

/// Sign-extending loads and legacy packet loads: three methods a row.
macro_rules! narrow_loads {
    ($($size:ident $ldsx:ident $abs:ident $ind:ident $signed:literal $unsigned:literal;)*) => {
        impl Assembler {$(
            #[doc = concat!("`dst = *(", $signed, " *)(base + offset)`, sign-extended.")]
            #[track_caller]
            pub fn $ldsx(&mut self, dst: Reg, base: Reg, offset: i16) -> &mut Assembler {
                let (size, signed) = (Size::$size, true);
                self.emit(Insn::Load { size, signed, dst, base, offset })
            }

            #[doc = concat!("`r0 = *(", $unsigned, " *)skb[offset]` in host order; legacy.")]
            #[track_caller]
            pub fn $abs(&mut self, offset: i32) -> &mut Assembler {
                let (size, index) = (Size::$size, None);
                self.emit(Insn::LoadPacket { size, index, offset })
            }

            #[doc = concat!("`r0 = *(", $unsigned, " *)skb[index + offset]` in host order; legacy.")]
            #[track_caller]
            pub fn $ind(&mut self, index: Reg, offset: i32) -> &mut Assembler {
                let (size, index) = (Size::$size, Some(index));
                self.emit(Insn::LoadPacket { size, index, offset })
            }
        )*}
    };
}

narrow_loads! {
    B ldsx_b ld_abs_b ld_ind_b "s8" "u8";
    H ldsx_h ld_abs_h ld_ind_h "s16" "u16";
    W ldsx_w ld_abs_w ld_ind_w "s32" "u32";
}

/// Atomic operations of 4 and 8 bytes: two methods a row.
macro_rules! atomics {
    ($($op:ident $w32:ident $w64:ident $what:literal;)*) => {
        impl Assembler {$(
            #[doc = concat!("Atomically, on 4 bytes at `base + offset`: ", $what, ".")]
            #[track_caller]
            pub fn $w32(&mut self, base: Reg, offset: i16, src: Reg) -> &mut Assembler {
                self.emit(Insn::Atomic { size: Size::W, op: AtomicOp::$op, base, offset, src })
            }

            #[doc = concat!("Atomically, on 8 bytes at `base + offset`: ", $what, ".")]
            #[track_caller]
            pub fn $w64(&mut self, base: Reg, offset: i16, src: Reg) -> &mut Assembler {
                self.emit(Insn::Atomic { size: Size::DW, op: AtomicOp::$op, base, offset, src })
            }
        )*}
    };
}

atomics! {
    Add atomic_add32 atomic_add64 "`*mem += src`";
    And atomic_and32 atomic_and64 "`*mem &= src`";
    Or atomic_or32 atomic_or64 "`*mem |= src`";
    Xor atomic_xor32 atomic_xor64 "`*mem ^= src`";
    FetchAdd fetch_add32 fetch_add64 "`*mem += src`, `src` = what was there";
    FetchAnd fetch_and32 fetch_and64 "`*mem &= src`, `src` = what was there";
    FetchOr fetch_or32 fetch_or64 "`*mem |= src`, `src` = what was there";
    FetchXor fetch_xor32 fetch_xor64 "`*mem ^= src`, `src` = what was there";
    Exchange xchg32 xchg64 "`*mem = src`, `src` = what was there";
    CompareExchange cmpxchg32 cmpxchg64 "if `*mem == r0` then `*mem = src`; r0 = what was there";
}

/// Ordered loads and stores: two methods a row.
macro_rules! ordered {
    ($($size:ident $acquire:ident $release:ident $type:literal;)*) => {
        impl Assembler {$(
            #[doc = concat!("`dst = *(", $type, " *)(base + offset)` with acquire ordering.")]
            #[track_caller]
            pub fn $acquire(&mut self, dst: Reg, base: Reg, offset: i16) -> &mut Assembler {
                let (size, op) = (Size::$size, AtomicOp::LoadAcquire);
                self.emit(Insn::Atomic { size, op, base, offset, src: dst })
            }

            #[doc = concat!("`*(", $type, " *)(base + offset) = src` with release ordering.")]
            #[track_caller]
            pub fn $release(&mut self, base: Reg, offset: i16, src: Reg) -> &mut Assembler {
                let (size, op) = (Size::$size, AtomicOp::StoreRelease);
                self.emit(Insn::Atomic { size, op, base, offset, src })
            }
        )*}
    };
}

ordered! {
    B load_acquire_b store_release_b "u8";
    H load_acquire_h store_release_h "u16";
    W load_acquire_w store_release_w "u32";
    DW load_acquire_dw store_release_dw "u64";
}

/// Byte order: one method a row.
macro_rules! byte_order {
    ($($kind:ident $bits:literal $method:ident $what:literal;)*) => {
        impl Assembler {$(
            #[doc = concat!("`dst` = its lowest ", $bits, " bits, ", $what, ".")]
            #[track_caller]
            pub fn $method(&mut self, dst: Reg) -> &mut Assembler {
                self.emit(Insn::Endian { kind: EndianKind::$kind, bits: $bits, dst })
            }
        )*}
    };
}

byte_order! {
    ToLe 16 le16 "host to little-endian";
    ToLe 32 le32 "host to little-endian";
    ToLe 64 le64 "host to little-endian";
    ToBe 16 be16 "host to big-endian";
    ToBe 32 be32 "host to big-endian";
    ToBe 64 be64 "host to big-endian";
    Swap 16 bswap16 "swapped";
    Swap 32 bswap32 "swapped";
    Swap 64 bswap64 "swapped";
}

/// Sign-extending moves: one method a row.
macro_rules! sign_extensions {
    ($($width:ident $bits:literal $method:ident $what:literal;)*) => {
        impl Assembler {$(
            #[doc = concat!("`dst` = the lowest ", $bits, " bits of `src`, sign-extended to ", $what, ".")]
            #[track_caller]
            pub fn $method(&mut self, dst: Reg, src: Reg) -> &mut Assembler {
                self.emit(Insn::MovSx { width: Width::$width, bits: $bits, dst, src })
            }
        )*}
    };
}

sign_extensions! {
    W32 8 movsx32_8 "32";
    W32 16 movsx32_16 "32";
    W64 8 movsx64_8 "64";
    W64 16 movsx64_16 "64";
    W64 32 movsx64_32 "64";
}

impl Assembler {
    /// `dst = -dst`, on the lower half; the upper half becomes 0.
    #[track_caller]
    pub fn neg32(&mut self, dst: Reg) -> &mut Assembler {
        let width = Width::W32;
        self.emit(Insn::Neg { width, dst })
    }

    /// `dst = -dst`.
    #[track_caller]
    pub fn neg64(&mut self, dst: Reg) -> &mut Assembler {
        let width = Width::W64;
        self.emit(Insn::Neg { width, dst })
    }

    /// `dst = value`, in two slots.
    #[track_caller]
    pub fn ld_imm64(&mut self, dst: Reg, value: u64) -> &mut Assembler {
        let value = Imm64::Value(value);
        self.emit(Insn::LoadImm64 { dst, value })
    }

    /// Calls the helper of this number.
    #[track_caller]
    pub fn call(&mut self, helper: u32) -> &mut Assembler {
        self.emit(Insn::Call { helper })
    }

    /// Calls the kernel function of this BTF id in vmlinux.
    #[track_caller]
    pub fn call_kfunc(&mut self, btf_id: i32) -> &mut Assembler {
        let btf_fd_index = 0;
        self.emit(Insn::CallKfunc {
            btf_id,
            btf_fd_index,
        })
    }

    /// Returns r0.
    #[track_caller]
    pub fn exit(&mut self) -> &mut Assembler {
        self.emit(Insn::Exit)
    }
}
