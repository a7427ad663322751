//! Encode and decode are inverses, and decode takes any bytes.

use proptest::prelude::*;

use super::*;

/// Every operation in every form, at every size and width, with telling fields.
fn every_form() -> Vec<Insn> {
    let (dst, src) = (Reg::R9, Reg::R10);
    let base = Reg::R6;
    let widths = [Width::W32, Width::W64];
    let sizes = [Size::B, Size::H, Size::W, Size::DW];
    let sources = [Source::Reg(src), Source::Imm(-2), Source::Imm(i32::MAX)];
    let mut all = Vec::new();
    for width in widths {
        for src in sources {
            for op in AluOp::ALL {
                all.push(Insn::Alu {
                    width,
                    op,
                    dst,
                    src,
                });
            }
            for op in JumpOp::ALL {
                let offset = -300;
                all.push(Insn::Jump {
                    width,
                    op,
                    dst,
                    src,
                    offset,
                });
            }
        }
        for bits in [8, 16, 32] {
            all.push(Insn::MovSx {
                width,
                bits,
                dst,
                src,
            });
        }
        all.push(Insn::Neg { width, dst });
    }
    for (to, from) in [(0, 1), (1, 0), (u16::MAX, 0x8000)] {
        all.push(Insn::CastAddressSpace { dst, src, to, from });
    }
    for kind in [EndianKind::ToLe, EndianKind::ToBe, EndianKind::Swap] {
        for bits in [16, 32, 64] {
            all.push(Insn::Endian { kind, bits, dst });
        }
    }
    for size in sizes {
        let offset = i16::MIN;
        for signed in [false, true] {
            all.push(Insn::Load {
                size,
                signed,
                dst,
                base,
                offset,
            });
        }
        for src in sources {
            all.push(Insn::Store {
                size,
                base,
                offset,
                src,
            });
        }
        for op in AtomicOp::ALL {
            all.push(Insn::Atomic {
                size,
                op,
                base,
                offset,
                src: dst,
            });
        }
        for index in [None, Some(Reg::R3)] {
            all.push(Insn::LoadPacket {
                size,
                index,
                offset: -7,
            });
        }
    }
    let values = [
        Imm64::Value(0),
        Imm64::Value(0x8877_6655_4433_2211),
        Imm64::MapFd(7),
        Imm64::MapValue {
            fd: 7,
            offset: u32::MAX,
        },
        Imm64::BtfId { id: 9, btf_fd: 3 },
        Imm64::Function { offset: -5 },
        Imm64::MapIndex(2),
        Imm64::MapIndexValue {
            index: 2,
            offset: 8,
        },
    ];
    all.extend(values.map(|value| Insn::LoadImm64 { dst, value }));
    all.extend([
        Insn::Goto { offset: -1 },
        Insn::GotoLong { offset: 70_000 },
        Insn::MayGoto { offset: 3 },
        Insn::Call { helper: u32::MAX },
        Insn::CallLocal { offset: -1 },
        Insn::CallKfunc {
            btf_id: 12,
            btf_fd_index: -1,
        },
        Insn::CallReg { target: Reg::R4 },
        Insn::GotoReg { target: Reg::R4 },
        Insn::Exit,
    ]);
    all
}

fn encoded(insn: Insn) -> Vec<[u8; 8]> {
    let mut slots = Vec::new();
    insn.encode(&mut slots);
    slots
}

#[test]
fn every_legal_form_survives_a_round_trip_and_no_illegal_one_decodes() {
    let mut illegal = 0;
    for insn in every_form() {
        let slots = encoded(insn);
        assert_eq!(slots.len(), insn.slots());
        if insn.check().is_ok() {
            assert_eq!(Insn::decode(&slots), Ok((insn, insn.slots())));
        } else {
            illegal += 1;
            assert!(Insn::decode(&slots).is_err(), "{insn:?}");
        }
    }
    // 32-bit movsx of 32 bits, signed load of 8 bytes, 10 atomics at 2 sizes, 2 packet loads of 8 bytes.
    assert_eq!(illegal, 1 + 1 + 20 + 2);
}

#[test]
fn a_map_to_be_relocated_is_encoded_as_zeroes() {
    let load = |value| {
        encoded(Insn::LoadImm64 {
            dst: Reg::R1,
            value,
        })
    };
    assert_eq!(load(Imm64::Map), load(Imm64::Value(0)));
}

/// Bytes as clang and llvm-mc write them.
#[test]
fn known_instructions_have_their_known_bytes() {
    let (r0, r1, r2) = (Reg::R0, Reg::R1, Reg::R2);
    let cases: [(Insn, u64); 9] = [
        // r1 = addr_space_cast(r2, 0, 1)
        (
            Insn::CastAddressSpace {
                dst: r1,
                src: r2,
                to: 0,
                from: 1,
            },
            0xbf21_0100_0100_0000,
        ),
        // r2 = *(u32 *)(r1 + 4)
        (
            Insn::Load {
                size: Size::W,
                signed: false,
                dst: r2,
                base: r1,
                offset: 4,
            },
            0x6112_0400_0000_0000,
        ),
        // *(u64 *)(r10 - 8) = r1
        (
            Insn::Store {
                size: Size::DW,
                base: Reg::R10,
                offset: -8,
                src: r1.into(),
            },
            0x7b1a_f8ff_0000_0000,
        ),
        // lock *(u64 *)(r0 + 0) += r1
        (
            Insn::Atomic {
                size: Size::DW,
                op: AtomicOp::Add,
                base: r0,
                offset: 0,
                src: r1,
            },
            0xdb10_0000_0000_0000,
        ),
        // r0 = 2
        (
            Insn::Alu {
                width: Width::W64,
                op: AluOp::Mov,
                dst: r0,
                src: 2.into(),
            },
            0xb700_0000_0200_0000,
        ),
        // w0 s/= w1
        (
            Insn::Alu {
                width: Width::W32,
                op: AluOp::SDiv,
                dst: r0,
                src: r1.into(),
            },
            0x3c10_0100_0000_0000,
        ),
        // if r2 > r1 goto +5
        (
            Insn::Jump {
                width: Width::W64,
                op: JumpOp::Gt,
                dst: r2,
                src: r1.into(),
                offset: 5,
            },
            0x2d12_0500_0000_0000,
        ),
        // r2 = load_acquire((u32 *)(r1 + 0)): the fields are where a load has them
        (
            Insn::Atomic {
                size: Size::W,
                op: AtomicOp::LoadAcquire,
                base: r1,
                offset: 0,
                src: r2,
            },
            0xc312_0000_0001_0000,
        ),
        (Insn::Exit, 0x9500_0000_0000_0000),
    ];
    for (insn, bytes) in cases {
        assert_eq!(encoded(insn), [bytes.to_be_bytes()], "{insn:?}");
    }
}

#[test]
fn half_a_wide_load_is_cut_off() {
    let value = Imm64::Value(1);
    let slots = encoded(Insn::LoadImm64 {
        dst: Reg::R1,
        value,
    });
    assert_eq!(Insn::decode(&slots[..1]), Err(DecodeError::Truncated));
    assert_eq!(Insn::decode(&[]), Err(DecodeError::Truncated));
    assert_eq!(Insn::decode_all(&slots).map(|all| all.len()), Ok(1));
    let cut = [slots[0], [0; 8], slots[0]];
    assert_eq!(Insn::decode_all(&cut), Err((2, DecodeError::Truncated)));
}

#[test]
fn every_comparison_but_set_has_an_inverse() {
    for op in JumpOp::ALL {
        match op.inverse() {
            Some(inverse) => assert_eq!(inverse.inverse(), Some(op)),
            None => assert_eq!(op, JumpOp::Set),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(
        opcode: u8,
        registers in prop_oneof![Just(0u8), any::<u8>()],
        offset in prop_oneof![Just(0i16), Just(1), Just(8), Just(16), Just(32), any::<i16>()],
        imm in prop_oneof![Just(0i32), Just(16), Just(0xe1), Just(0x100), Just(0x110), any::<i32>()],
        next in prop_oneof![Just([0u8; 8]), any::<[u8; 8]>()],
    ) {
        let [o0, o1] = offset.to_le_bytes();
        let [i0, i1, i2, i3] = imm.to_le_bytes();
        let slots = [[opcode, registers, o0, o1, i0, i1, i2, i3], next];
        if let Ok((insn, taken)) = Insn::decode(&slots) {
            prop_assert_eq!(insn.check(), Ok(()));
            prop_assert_eq!(&encoded(insn)[..], &slots[..taken]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_legal_instruction_survives_encoding_and_decoding(insn in arbitrary::legal()) {
        prop_assert_eq!(insn.check(), Ok(()));
        prop_assert_eq!(Insn::decode(&encoded(insn)), Ok((insn, insn.slots())));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_with_a_place(slots in prop::collection::vec(any::<[u8; 8]>(), 0..12)) {
        match Insn::decode_all(&slots) {
            Ok(insns) => prop_assert_eq!(insns.iter().map(Insn::slots).sum::<usize>(), slots.len()),
            Err((at, _)) => prop_assert!(at < slots.len()),
        }
    }
}

#[test]
fn helpers_are_named_by_their_numbers() {
    let name = Insn::helper_name;
    assert_eq!(name(1), Some("map_lookup_elem"));
    assert_eq!(name(51), Some("redirect_map"));
    assert_eq!(name(135), Some("csum_level"));
    assert_eq!(name(211), Some("cgrp_storage_delete"));
    assert_eq!((name(212), name(u32::MAX)), (None, None));
}
