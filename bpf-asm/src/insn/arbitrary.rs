//! Arbitrary legal instructions of every form, for tests.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn register() -> impl Strategy<Value = Reg> {
    (0..=10u8).prop_map(Reg)
}

fn width() -> impl Strategy<Value = Width> {
    select(&[Width::W32, Width::W64][..])
}

fn size() -> impl Strategy<Value = Size> {
    select(&[Size::B, Size::H, Size::W, Size::DW][..])
}

/// Numbers at the edges more often than chance would have them.
fn number() -> impl Strategy<Value = i32> {
    prop_oneof![
        select(&[0, 1, -1, 9, 10, i32::MAX, i32::MIN][..]),
        any::<i32>()
    ]
}

fn offset() -> impl Strategy<Value = i16> {
    prop_oneof![
        select(&[0, 1, -1, -8, i16::MAX, i16::MIN][..]),
        any::<i16>()
    ]
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        register().prop_map(Source::Reg),
        number().prop_map(Source::Imm)
    ]
}

fn imm64() -> impl Strategy<Value = Imm64> {
    prop_oneof![
        prop_oneof![Just(0), Just(u64::MAX), any::<u64>()].prop_map(Imm64::Value),
        number().prop_map(Imm64::MapFd),
        (number(), any::<u32>()).prop_map(|(fd, offset)| Imm64::MapValue { fd, offset }),
        (number(), number()).prop_map(|(id, btf_fd)| Imm64::BtfId { id, btf_fd }),
        number().prop_map(|offset| Imm64::Function { offset }),
        number().prop_map(Imm64::MapIndex),
        (number(), any::<u32>()).prop_map(|(index, offset)| Imm64::MapIndexValue { index, offset }),
    ]
}

fn arithmetic() -> impl Strategy<Value = Insn> {
    prop_oneof![
        4 => (width(), select(&AluOp::ALL[..]), register(), source())
            .prop_map(|(width, op, dst, src)| Insn::Alu { width, op, dst, src }),
        1 => (width(), select(&[8, 16, 32][..]), register(), register())
            .prop_map(|(width, bits, dst, src)| Insn::MovSx { width, bits, dst, src }),
        1 => (register(), register(), any::<u16>(), any::<u16>())
            .prop_map(|(dst, src, to, from)| Insn::CastAddressSpace { dst, src, to, from }),
        1 => (width(), register()).prop_map(|(width, dst)| Insn::Neg { width, dst }),
        1 => (
            select(&[EndianKind::ToLe, EndianKind::ToBe, EndianKind::Swap][..]),
            select(&[16, 32, 64][..]),
            register(),
        )
            .prop_map(|(kind, bits, dst)| Insn::Endian { kind, bits, dst }),
    ]
}

fn memory() -> impl Strategy<Value = Insn> {
    prop_oneof![
        (size(), any::<bool>(), register(), register(), offset()).prop_map(
            |(size, signed, dst, base, offset)| Insn::Load {
                size,
                signed,
                dst,
                base,
                offset
            }
        ),
        (size(), register(), offset(), source()).prop_map(|(size, base, offset, src)| {
            Insn::Store {
                size,
                base,
                offset,
                src,
            }
        }),
        (
            size(),
            select(&AtomicOp::ALL[..]),
            register(),
            offset(),
            register()
        )
            .prop_map(|(size, op, base, offset, src)| Insn::Atomic {
                size,
                op,
                base,
                offset,
                src
            }),
        (register(), imm64()).prop_map(|(dst, value)| Insn::LoadImm64 { dst, value }),
        (size(), prop::option::of(register()), number()).prop_map(|(size, index, offset)| {
            Insn::LoadPacket {
                size,
                index,
                offset,
            }
        }),
    ]
}

fn control() -> impl Strategy<Value = Insn> {
    prop_oneof![
        4 => (width(), select(&JumpOp::ALL[..]), register(), source(), offset())
            .prop_map(|(width, op, dst, src, offset)| Insn::Jump { width, op, dst, src, offset }),
        1 => offset().prop_map(|offset| Insn::Goto { offset }),
        1 => number().prop_map(|offset| Insn::GotoLong { offset }),
        1 => offset().prop_map(|offset| Insn::MayGoto { offset }),
        1 => prop_oneof![0..300u32, any::<u32>()].prop_map(|helper| Insn::Call { helper }),
        1 => number().prop_map(|offset| Insn::CallLocal { offset }),
        1 => (number(), offset())
            .prop_map(|(btf_id, btf_fd_index)| Insn::CallKfunc { btf_id, btf_fd_index }),
        1 => register().prop_map(|target| Insn::CallReg { target }),
        1 => register().prop_map(|target| Insn::GotoReg { target }),
        1 => Just(Insn::Exit),
    ]
}

/// Any instruction that [`Insn::check`] allows.
pub(crate) fn legal() -> impl Strategy<Value = Insn> {
    prop_oneof![arithmetic(), memory(), control()].prop_filter("legal", |insn| insn.check().is_ok())
}
