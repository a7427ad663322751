//! What operations compute, for both evaluators.

use crate::insn::{AluOp, AtomicOp, EndianKind, JumpOp, Size, Width};

/// `a op b` by RFC 9669.
pub(super) fn alu(width: Width, op: AluOp, a: u64, b: u64) -> u64 {
    match width {
        Width::W64 => match op {
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
            AluOp::Arsh => (a.cast_signed() >> (b & 63)).cast_unsigned(),
            AluOp::Mov => b,
            AluOp::SDiv | AluOp::SMod => panic!("the builder writes no signed division"),
        },
        Width::W32 => {
            let (a, b) = (a as u32, b as u32);
            u64::from(match op {
                AluOp::Lsh => a << (b & 31),
                AluOp::Rsh => a >> (b & 31),
                AluOp::Arsh => (a.cast_signed() >> (b & 31)).cast_unsigned(),
                _ => alu(Width::W64, op, a.into(), b.into()) as u32,
            })
        }
    }
}

pub(super) fn holds(width: Width, op: JumpOp, a: u64, b: u64) -> bool {
    let (a, b, signed_a, signed_b) = match width {
        Width::W64 => (a, b, a.cast_signed(), b.cast_signed()),
        Width::W32 => {
            let signed = |value: u64| i64::from((value as u32).cast_signed());
            (a & 0xffff_ffff, b & 0xffff_ffff, signed(a), signed(b))
        }
    };
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

pub(super) fn endian(kind: EndianKind, bits: u8, value: u64) -> u64 {
    let low = value & (u64::MAX >> (64 - bits));
    match kind {
        EndianKind::ToLe => low,
        EndianKind::ToBe | EndianKind::Swap => low.swap_bytes() >> (64 - bits),
    }
}

/// What an atomic operation leaves in memory.
pub(super) fn atomic(size: Size, op: AtomicOp, old: u64, src: u64, expected: u64) -> u64 {
    let low = truncated(size, src);
    match op {
        AtomicOp::Add | AtomicOp::FetchAdd => truncated(size, old.wrapping_add(low)),
        AtomicOp::And | AtomicOp::FetchAnd => old & low,
        AtomicOp::Or | AtomicOp::FetchOr => old | low,
        AtomicOp::Xor | AtomicOp::FetchXor => old ^ low,
        AtomicOp::Exchange | AtomicOp::StoreRelease => low,
        AtomicOp::CompareExchange => {
            if old == truncated(size, expected) {
                low
            } else {
                old
            }
        }
        AtomicOp::LoadAcquire => old,
    }
}

/// The lowest `bits` as a signed number of this width, zero-extended.
pub(super) fn sign_extended(width: Width, bits: u8, value: u64) -> u64 {
    let unused = 64 - u32::from(bits);
    let extended = (value << unused).cast_signed() >> unused;
    match width {
        Width::W64 => extended.cast_unsigned(),
        Width::W32 => extended.cast_unsigned() & 0xffff_ffff,
    }
}

pub(super) fn truncated(size: Size, value: u64) -> u64 {
    value & (u64::MAX >> (64 - 8 * u32::from(size.bytes())))
}

/// A function that stands in for helpers: it depends on everything that they are given.
pub(super) fn helper(number: u32, arguments: &[u64]) -> u64 {
    arguments.iter().fold(
        u64::from(number) + 0x9e37_79b9_7f4a_7c15,
        |hash, argument| (hash.rotate_left(23) ^ argument).wrapping_mul(0xff51_afd7_ed55_8ccd),
    )
}

/// The address that a map has in the evaluators.
pub(super) fn map_address(map: usize) -> u64 {
    0xffff_8000_0000_0000 + 64 * map as u64
}
