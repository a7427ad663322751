//! What operations compute on numbers (RFC 9669, sections 4 and 5).

use crate::insn::{AluOp, AtomicOp, EndianKind, JumpOp, Size};

/// `a op b` on 64 bits.
#[inline]
pub(super) fn alu64(op: AluOp, a: u64, b: u64) -> u64 {
    let (signed_a, signed_b) = (a.cast_signed(), b.cast_signed());
    match op {
        AluOp::Add => a.wrapping_add(b),
        AluOp::Sub => a.wrapping_sub(b),
        AluOp::Mul => a.wrapping_mul(b),
        AluOp::Div => a.checked_div(b).unwrap_or(0),
        AluOp::Mod => a.checked_rem(b).unwrap_or(a),
        AluOp::Or => a | b,
        AluOp::And => a & b,
        AluOp::Xor => a ^ b,
        AluOp::Lsh => a << (b & 63),
        AluOp::Rsh => a >> (b & 63),
        AluOp::Arsh => (signed_a >> (b & 63)).cast_unsigned(),
        AluOp::Mov => b,
        AluOp::SDiv if b == 0 => 0,
        AluOp::SDiv => signed_a.wrapping_div(signed_b).cast_unsigned(),
        AluOp::SMod if b == 0 => a,
        AluOp::SMod => signed_a.wrapping_rem(signed_b).cast_unsigned(),
    }
}

/// `a op b` on 32 bits.
#[inline]
pub(super) fn alu32(op: AluOp, a: u32, b: u32) -> u32 {
    let (signed_a, signed_b) = (a.cast_signed(), b.cast_signed());
    match op {
        AluOp::Add => a.wrapping_add(b),
        AluOp::Sub => a.wrapping_sub(b),
        AluOp::Mul => a.wrapping_mul(b),
        AluOp::Div => a.checked_div(b).unwrap_or(0),
        AluOp::Mod => a.checked_rem(b).unwrap_or(a),
        AluOp::Or => a | b,
        AluOp::And => a & b,
        AluOp::Xor => a ^ b,
        AluOp::Lsh => a << (b & 31),
        AluOp::Rsh => a >> (b & 31),
        AluOp::Arsh => (signed_a >> (b & 31)).cast_unsigned(),
        AluOp::Mov => b,
        AluOp::SDiv if b == 0 => 0,
        AluOp::SDiv => signed_a.wrapping_div(signed_b).cast_unsigned(),
        AluOp::SMod if b == 0 => a,
        AluOp::SMod => signed_a.wrapping_rem(signed_b).cast_unsigned(),
    }
}

/// The lowest `bits` of `value`, sign-extended to 64.
#[inline]
pub(super) fn sign_extended(bits: u8, value: u64) -> u64 {
    let unused = 64 - u32::from(bits);
    ((value << unused).cast_signed() >> unused).cast_unsigned()
}

/// The converted value, for a little-endian host as all of the tested ones are.
#[inline]
pub(super) fn endian(kind: EndianKind, bits: u8, value: u64) -> u64 {
    let unused = 64 - u32::from(bits);
    let low = value & (u64::MAX >> unused);
    match kind {
        EndianKind::ToLe => low,
        EndianKind::ToBe | EndianKind::Swap => low.swap_bytes() >> unused,
    }
}

/// Whether the comparison of 64 bits holds.
#[inline]
pub(super) fn holds64(op: JumpOp, a: u64, b: u64) -> bool {
    let (signed_a, signed_b) = (a.cast_signed(), b.cast_signed());
    match op {
        JumpOp::Eq => a == b,
        JumpOp::Ne => a != b,
        JumpOp::Gt => a > b,
        JumpOp::Ge => a >= b,
        JumpOp::Lt => a < b,
        JumpOp::Le => a <= b,
        JumpOp::Set => a & b != 0,
        JumpOp::SGt => signed_a > signed_b,
        JumpOp::SGe => signed_a >= signed_b,
        JumpOp::SLt => signed_a < signed_b,
        JumpOp::SLe => signed_a <= signed_b,
    }
}

/// Whether the comparison of the lower halves holds.
#[inline]
pub(super) fn holds32(op: JumpOp, a: u32, b: u32) -> bool {
    let extended = |value: u32| match op {
        JumpOp::SGt | JumpOp::SGe | JumpOp::SLt | JumpOp::SLe => {
            sign_extended(32, u64::from(value))
        }
        _ => u64::from(value),
    };
    holds64(op, extended(a), extended(b))
}

/// What an atomic operation leaves in memory. All values are of the access's size already.
#[inline]
pub(super) fn atomic(op: AtomicOp, size: Size, old: u64, src: u64, expected: u64) -> u64 {
    match op {
        AtomicOp::Add | AtomicOp::FetchAdd => truncated(size, old.wrapping_add(src)),
        AtomicOp::And | AtomicOp::FetchAnd => old & src,
        AtomicOp::Or | AtomicOp::FetchOr => old | src,
        AtomicOp::Xor | AtomicOp::FetchXor => old ^ src,
        AtomicOp::Exchange | AtomicOp::StoreRelease => src,
        AtomicOp::CompareExchange if old == expected => src,
        AtomicOp::CompareExchange | AtomicOp::LoadAcquire => old,
    }
}

/// The lowest bytes of `value`.
#[inline]
pub(super) fn truncated(size: Size, value: u64) -> u64 {
    value & (u64::MAX >> (64 - 8 * u32::from(size.bytes())))
}
