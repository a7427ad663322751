//! Packets: variable headers, growing and shrinking, bytes by copy; and layouts declared once.

use bpf_asm::builder::{
    BPF_ADJ_ROOM_MAC, BPF_F_RECOMPUTE_CSUM, TC_ACT_OK, TC_ACT_SHOT, XDP_ABORTED, XDP_DROP, XDP_TX,
    classifier, xdp, xdp_frags,
};
use bpf_asm::{field, layout};
use zerocopy::byteorder::big_endian::{U16, U32};

use crate::kernel::{Running, is_root};

layout! {
    /// An IPv4 header without options.
    #[derive(Clone, Copy)]
    pub(crate) struct Ipv4: 20 bytes {
        0 => version_length: u8,
        1 => tos: u8,
        2 => length: U16,
        4 => identification: U16,
        6 => fragment: U16,
        8 => ttl: u8,
        9 => protocol: u8,
        10 => checksum: U16,
        12 => source: U32,
        16 => destination: U32,
    }
}

#[test]
fn a_header_of_variable_length_is_stepped_over() {
    if !is_root() {
        return;
    }
    // Answers with the 16 bits behind an IPv4 header, options and all.
    let program = xdp("options", |f| {
        let packet = f.packet();
        let short = || f.ret(XDP_DROP);
        let ip = packet.view::<Ipv4>(0, short);
        let words = (ip.load(field!(Ipv4, version_length)) & 15u8).cast::<u64>();
        f.if_(words.lt(5u64), short);
        let port = packet.view_at::<U16>(words << 2u64, 60, short);
        f.ret(port.read().to_native().cast::<u32>());
    });
    let mut running = Running::new(program.unwrap());
    for words in [5, 7, 15] {
        let mut packet = [0; 64];
        packet[0] = 0x40 | words;
        packet[usize::from(words) * 4..][..2].copy_from_slice(&[0x12, words]);
        assert_eq!(running.run(&packet).0, 0x1200 + u32::from(words));
    }
    assert_eq!(running.run(&[0x44; 64]).0, XDP_DROP);
    assert_eq!(running.run(&[0x4f; 61]).0, XDP_DROP);
}

#[test]
fn structs_are_copied_between_the_packet_and_the_stack_at_any_alignment() {
    type Piece = [u8; 15];
    #[repr(C)]
    struct Shifted {
        before: [u8; 3],
        piece: Piece,
    }
    if !is_root() {
        return;
    }
    let program = xdp("pieces", |f| {
        let packet = f.packet();
        let view = packet.view::<[Piece; 3]>(0, || f.ret(XDP_DROP));
        let shifted = f.stack::<Shifted>().at(field!(Shifted, piece));
        shifted.copy_from(view.element(0));
        view.element(2).copy_from(shifted);
        view.element(0).copy_from(view.element(1));
        f.ret(XDP_TX);
    });
    let packet: Vec<u8> = (0..64).collect();
    let (verdict, out) = Running::new(program.unwrap()).run(&packet);
    assert_eq!(verdict, XDP_TX);
    let expected = [
        &packet[15..30],
        &packet[15..30],
        &packet[..15],
        &packet[45..],
    ]
    .concat();
    assert_eq!(out, expected);
}

#[test]
fn a_packet_grows_at_its_head_and_shrinks_again() {
    if !is_root() {
        return;
    }
    let program = xdp("grow", |f| {
        let failed = || f.ret(XDP_ABORTED);
        let packet = f.packet();
        let moved = f.adjust_head(packet, -4i64);
        f.if_rare(moved.is_negative(), failed);
        let packet = f.packet();
        packet
            .view::<U32>(0, failed)
            .write(bpf_asm::builder::Be::new(0xdead_beefu32));
        let moved = f.adjust_tail(packet, -8i64);
        f.if_rare(moved.is_negative(), failed);
        f.ret(XDP_TX);
    });
    let mut running = Running::new(program.unwrap());
    let packet: Vec<u8> = (0..64).collect();
    let (verdict, out) = running.run(&packet);
    assert_eq!(verdict, XDP_TX);
    assert_eq!(out, [&[0xde, 0xad, 0xbe, 0xef], &packet[..56]].concat());
}

#[test]
fn bytes_are_copied_out_of_and_into_packets_of_both_hooks() {
    if !is_root() {
        return;
    }
    let packet: Vec<u8> = (0..64).collect();
    let expected = [&packet[..40], &packet[16..24], &packet[48..]].concat();
    let program = xdp_frags("copy", |f| {
        let bytes = f.stack::<u64>();
        let failed = f.load_bytes(16u32, bytes).is_negative();
        f.if_(failed, || f.ret(XDP_ABORTED));
        let failed = f.store_bytes(40u32, bytes).is_negative();
        f.if_(failed, || f.ret(XDP_ABORTED));
        let beyond = f.load_bytes(60u32, bytes);
        f.if_(!beyond.is_negative(), || f.ret(XDP_ABORTED));
        f.ret(XDP_TX);
    });
    assert_eq!(
        Running::new(program.unwrap()).run(&packet),
        (XDP_TX, expected.clone())
    );
    let program = classifier("copy", |f| {
        let bytes = f.stack::<u64>();
        let failed = f.load_bytes(16u32, bytes).is_negative();
        f.if_(failed, || f.ret(TC_ACT_SHOT));
        let failed = f.store_bytes(f.packet(), 40u32, bytes, BPF_F_RECOMPUTE_CSUM);
        f.if_(failed.is_negative(), || f.ret(TC_ACT_SHOT));
        f.ret(TC_ACT_OK);
    });
    assert_eq!(
        Running::new(program.unwrap()).run(&packet),
        (TC_ACT_OK, expected)
    );
}

#[test]
fn a_socket_buffer_is_cut_tagged_and_given_room() {
    if !is_root() {
        return;
    }
    let program = classifier("shape", |f| {
        let failed = |result: bpf_asm::builder::Val<'_, i64>, code: u32| {
            f.if_rare(result.is_negative(), || f.ret(code));
        };
        failed(f.change_tail(f.packet(), 80u32), 10);
        failed(
            f.vlan_push(f.packet(), bpf_asm::builder::Be::new(0x8100), 7u16),
            11,
        );
        f.if_(f.vlan_present().eq(0u32), || f.ret(12u32));
        failed(f.vlan_pop(f.packet()), 13);
        failed(f.change_head(f.packet(), 16u32), 14);
        failed(f.adjust_room(f.packet(), 8i32, BPF_ADJ_ROOM_MAC, 0), 15);
        failed(f.pull_data(f.packet(), 64u32), 16);
        f.ret(f.len());
    });
    let mut packet = vec![0; 64];
    packet[12..14].copy_from_slice(&[8, 0]);
    packet[14] = 0x45;
    assert_eq!(Running::new(program.unwrap()).run(&packet).0, 80 + 16 + 8);
}

#[test]
fn a_check_that_was_passed_is_not_written_again() {
    let program = |twice: bool| {
        let program = xdp("checks", |f| {
            let packet = f.packet();
            let first = packet.view::<[u32; 8]>(0, || f.ret(XDP_DROP));
            let sum = first.element(7).read();
            let again = if twice {
                packet
                    .view::<[u32; 4]>(4, || f.ret(XDP_ABORTED))
                    .element(0)
                    .read()
            } else {
                first.element(1).read()
            };
            f.ret(sum + again);
        });
        program.unwrap().main.insns.len()
    };
    assert_eq!(program(true), program(false));
}

#[test]
fn a_check_inside_a_branch_proves_nothing_behind_it() {
    if !is_root() {
        return;
    }
    let program = xdp("branches", |f| {
        let packet = f.packet();
        f.if_(f.random_u32().lt(7u32), || {
            packet
                .view::<[u32; 20]>(0, || f.ret(XDP_DROP))
                .element(19)
                .write(1u32);
        });
        // 64 bytes are not enough for this one; the verifier would refuse it without a check.
        packet
            .view::<[u32; 20]>(0, || f.ret(XDP_DROP))
            .element(18)
            .write(1u32);
        f.ret(XDP_TX);
    });
    assert_eq!(Running::new(program.unwrap()).verdict(), XDP_DROP);
}
