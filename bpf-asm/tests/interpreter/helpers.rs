//! Helpers, against what the kernel's do.

use std::net::{IpAddr, Ipv4Addr};

use bpf_asm::asm::Assembler;
use bpf_asm::harness::{Harness, Outcome};
use bpf_asm::insn::Reg;
use bpf_asm::interpreter::{
    Checksum, DEFAULT_MTU, Errno, OutputKind, Route, RouteAnswer, SkbInput, XdpInput,
};
use bpf_asm::program::{MapType, ProgramKind};

use crate::support::{map, program, tc, xdp};

const R0: Reg = Reg::R0;
const R1: Reg = Reg::R1;
const R2: Reg = Reg::R2;
const R3: Reg = Reg::R3;
const R4: Reg = Reg::R4;
const R5: Reg = Reg::R5;
const R6: Reg = Reg::R6;
const R10: Reg = Reg::R10;

fn harness(kind: ProgramKind, write: impl FnOnce(&mut Assembler)) -> Harness {
    Harness::new([program(kind, &[], write)]).unwrap()
}

fn xdp_outcome(write: impl FnOnce(&mut Assembler)) -> Outcome {
    let packet: Vec<u8> = (0..64).collect();
    harness(ProgramKind::Xdp, write)
        .xdp("main", packet)
        .unwrap()
}

#[test]
fn the_head_moves_by_what_the_headroom_has() {
    for (by, result) in [(-216, 0), (-217, -22), (50, 0), (51, -22), (-8, 0)] {
        let outcome = xdp_outcome(|a| {
            a.mov64_imm(R2, by).call(44).exit();
        });
        assert_eq!(outcome.verdict.cast_signed(), result, "{by}");
        let length = if result == 0 { 64 - by } else { 64 };
        assert_eq!(outcome.packet.len(), length as usize);
        assert_eq!(outcome.packet.last(), Some(&63));
    }
}

#[test]
fn the_tail_moves_by_what_the_page_has_and_new_bytes_are_zero() {
    for (by, result) in [(3456, 0), (3457, -22), (-50, 0), (-51, -22)] {
        let outcome = xdp_outcome(|a| {
            a.mov64_imm(R2, by).call(65).exit();
        });
        assert_eq!(outcome.verdict.cast_signed(), result, "{by}");
        let length = if result == 0 { 64 + by } else { 64 };
        assert_eq!(outcome.packet.len(), length as usize);
        assert!(outcome.packet.iter().skip(64).all(|byte| *byte == 0));
    }
}

#[test]
fn packet_bytes_are_copied_and_ranges_checked() {
    let outcome = xdp_outcome(|a| {
        a.mov64(R6, R1)
            .mov64_imm(R2, 4)
            .mov64(R3, R10)
            .add64_imm(R3, -8);
        a.mov64_imm(R4, 8).call(189);
        a.mov64(R1, R6)
            .mov64_imm(R2, 56)
            .mov64(R3, R10)
            .add64_imm(R3, -8);
        a.mov64_imm(R4, 8).call(190).mov64(Reg::R7, R0);
        a.mov64(R1, R6)
            .mov64_imm(R2, 57)
            .mov64(R3, R10)
            .add64_imm(R3, -8);
        a.mov64_imm(R4, 8).call(190).add64(R0, Reg::R7).exit();
    });
    assert_eq!(outcome.verdict.cast_signed(), -22);
    assert_eq!(outcome.packet[56..], [4, 5, 6, 7, 8, 9, 10, 11]);
}

#[test]
fn redirects_send_at_the_end_and_only_if_the_verdict_says_so() {
    for (verdict, sent) in [(4, 1), (2, 0)] {
        let outcome = xdp_outcome(|a| {
            a.mov64_imm(R1, 9).mov64_imm(R2, 0).call(23);
            a.mov64_imm(R0, verdict).exit();
        });
        assert_eq!(outcome.outputs.len(), sent);
    }
    let devices = map("devices", MapType::DevMap, (4, 4), 4);
    let program = program(ProgramKind::Xdp, &[devices], |a| {
        // Flags: broadcast, but not where it came from.
        a.load_map(R1, "devices")
            .mov64_imm(R2, 0)
            .mov64_imm(R3, 8 | 16)
            .call(51)
            .exit();
    });
    let harness = Harness::new([program]).unwrap();
    let devices = harness.map("devices").unwrap();
    for (key, ifindex) in [(0u32, 5u32), (1, 1), (3, 6)] {
        devices
            .update(&key.to_le_bytes(), &ifindex.to_le_bytes())
            .unwrap();
    }
    let outcome = harness.xdp("main", vec![1; 64]).unwrap();
    let sent: Vec<u32> = outcome
        .outputs
        .iter()
        .map(|output| output.ifindex)
        .collect();
    assert_eq!((outcome.verdict, sent), (4, vec![5, 6]));
    assert_eq!(outcome.outputs[0].kind, OutputKind::RedirectMap);
}

#[test]
fn a_clone_is_the_packet_of_its_moment() {
    let harness = harness(ProgramKind::Classifier, |a| {
        a.mov64(R6, R1)
            .st_w(R1, 8, 0x55)
            .mov64_imm(R2, 3)
            .mov64_imm(R3, 0)
            .call(13);
        a.ldx_w(R2, R6, 76).st_b(R2, 0, 0xee);
        a.st_w(R6, 8, 0)
            .mov64(R1, R6)
            .mov64_imm(R2, 8)
            .mov64_imm(R3, 0)
            .call(13);
        a.exit();
    });
    harness.machine().set_interface_removed(8, true);
    let outcome = harness.tc("main", vec![1; 64]).unwrap();
    assert_eq!(outcome.verdict.cast_signed(), -22, "no such interface");
    let [clone] = &outcome.outputs[..] else {
        panic!("{:?}", outcome.outputs)
    };
    assert_eq!((clone.ifindex, clone.mark, clone.packet[0]), (3, 0x55, 1));
    assert_eq!((outcome.skb.unwrap().mark, outcome.packet[0]), (0, 0xee));
}

/// RFC 1624's example: header word 0x5555 becomes 0x3285; the sum 0xdd2f becomes 0x0000.
#[test]
fn checksums_are_corrected_as_rfc_1624_says() {
    let run = |checksum, flags| {
        let harness = harness(ProgramKind::Classifier, |a| {
            a.mov64_imm(R2, 20).mov64_imm(R3, 0x5555_u16.to_be() as i32);
            a.mov64_imm(R4, 0x3285_u16.to_be() as i32)
                .mov64_imm(R5, flags)
                .call(11)
                .exit();
        });
        let mut packet = vec![0; 64];
        packet[20..22].copy_from_slice(&[0xdd, 0x2f]);
        let input = SkbInput {
            checksum,
            ..SkbInput::new(packet)
        };
        let outcome = harness.run("main", input).unwrap();
        assert_eq!(outcome.verdict, 0);
        [outcome.packet[20], outcome.packet[21]]
    };
    assert_eq!(run(Checksum::None, 2), [0, 0]);
    // Of UDP, a sum of 0 would mean that there is none.
    assert_eq!(run(Checksum::None, 2 | 1 << 5), [0xff, 0xff]);
    // The device does the payload's part, so only the pseudo header's change counts.
    assert_eq!(run(Checksum::Partial, 2), [0xdd, 0x2f]);
    assert_eq!(run(Checksum::Partial, 2 | 1 << 4), [0xba, 0x5f]);
}

#[test]
fn metadata_of_a_socket_buffer_is_where_the_header_file_says() {
    let read = |offset: i16, bytes: u8| {
        let harness = harness(ProgramKind::Classifier, |a| {
            match bytes {
                1 => a.ldx_b(R0, R1, offset),
                2 => a.ldx_h(R0, R1, offset),
                _ => a.ldx_w(R0, R1, offset),
            };
            a.exit();
        });
        let mut packet = vec![0; 60];
        packet[12] = 0x08;
        let input = SkbInput {
            vlan: Some((0x8100, 0x6005)),
            gso_segs: 4,
            gso_size: 1448,
            priority: 0x0102_0304,
            ..SkbInput::new(packet)
        };
        harness.run("main", input).unwrap().verdict
    };
    for (offset, bytes, value) in [
        (0, 4, 60),
        (16, 4, 0x0008),
        (20, 4, 1),
        (24, 4, 0x6005),
        (28, 4, 0x0081),
        (32, 1, 4),
        (34, 2, 0x0102),
        (40, 4, 1),
        (164, 4, 4),
        (176, 4, 1448),
    ] {
        assert_eq!(read(offset, bytes), value, "offset {offset}");
    }
}

#[test]
fn data_that_is_not_linear_is_pulled() {
    let harness = harness(ProgramKind::Classifier, |a| {
        let short = a.label();
        a.mov64(R6, R1).mov64_imm(R2, 40).call(39);
        a.ldx_w(R2, R6, 76)
            .ldx_w(R3, R6, 80)
            .mov64(R0, R3)
            .sub64(R0, R2);
        a.jlt64_imm(R0, 40, short).ldx_b(R0, R2, 39).exit();
        a.bind(short).mov64_imm(R0, -1).exit();
    });
    let input = SkbInput {
        linear: Some(14),
        ..SkbInput::new((0..64).collect::<Vec<u8>>())
    };
    assert_eq!(harness.run("main", input).unwrap().verdict, 39);
}

#[test]
fn tags_move_between_metadata_and_packet() {
    let harness = harness(ProgramKind::Classifier, |a| {
        a.mov64_imm(R2, 0x0081).mov64_imm(R3, 7).call(18).exit();
    });
    let mut packet = vec![0xaa; 60];
    packet[12..14].copy_from_slice(&[8, 0]);
    let input = SkbInput {
        vlan: Some((0x88a8, 5)),
        ..SkbInput::new(packet)
    };
    let outcome = harness.run("main", input).unwrap();
    assert_eq!(outcome.packet[12..18], [0x88, 0xa8, 0, 5, 8, 0]);
    assert_eq!(outcome.packet.len(), 64);
    assert_eq!(outcome.skb.unwrap().vlan, Some((0x8100, 7)));
}

#[test]
fn what_is_printed_is_kept() {
    let format = b"%d %x\0\0\0";
    let harness = harness(ProgramKind::Xdp, |a| {
        a.ld_imm64(R1, u64::from_le_bytes(format[..8].try_into().unwrap()));
        a.stx_dw(R10, -16, R1).st_dw(R10, -8, 0);
        a.mov64(R1, R10)
            .add64_imm(R1, -16)
            .mov64_imm(R2, 6)
            .mov64_imm(R3, -5);
        a.mov64_imm(R4, 255).mov64_imm(R5, 0).call(6).exit();
    });
    let outcome = harness.xdp("main", vec![0; 64]).unwrap();
    assert_eq!(outcome.printed, ["-5 ff"]);
    assert_eq!(outcome.verdict, 5);
}

#[test]
fn routes_are_found_by_their_longest_prefix() {
    let harness = harness(ProgramKind::Xdp, |a| {
        a.mov64(R6, R1);
        for at in (8..=64).step_by(8) {
            a.st_dw(R10, -at, 0);
        }
        a.st_b(R10, -64, 2)
            .st_w(R10, -32, i32::from_le_bytes([10, 1, 2, 3]));
        a.mov64(R2, R10)
            .add64_imm(R2, -64)
            .mov64_imm(R3, 64)
            .mov64_imm(R4, 0);
        a.call(69)
            .ldx_w(R1, R10, -56)
            .lsh64_imm(R1, 8)
            .or64(R0, R1)
            .exit();
    });
    let run = || harness.xdp("main", vec![0; 64]).unwrap().verdict;
    assert_eq!(run(), RouteAnswer::NotForwarded as u32);
    for (prefix, ifindex) in [(8, 3), (24, 4)] {
        harness.machine().add_route(Route {
            network: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 0)),
            prefix,
            answer: RouteAnswer::Success,
            ifindex,
            gateway: None,
            destination_mac: [1; 6],
            source_mac: [2; 6],
            mtu: DEFAULT_MTU,
        });
    }
    assert_eq!(run(), 4 << 8);
}

#[test]
fn clocks_and_random_numbers_are_the_tests() {
    let harness = harness(ProgramKind::Xdp, |a| {
        a.call(7).mov64(R6, R0).call(5).add64(R0, R6).exit();
    });
    harness.machine().set_time_ns(1_000);
    harness.machine().set_random(&[5, 6]);
    let run = || harness.run("main", XdpInput::new([0; 64])).unwrap().verdict;
    assert_eq!([run(), run(), run()], [1_005, 1_006, 1_005]);
}

#[test]
fn a_difference_of_sums_is_folded() {
    // From {1, 2} to {1, 5}: three more.
    let r0 = xdp(&[], |a| {
        a.st_w(R10, -16, 1)
            .st_w(R10, -12, 2)
            .st_w(R10, -8, 1)
            .st_w(R10, -4, 5);
        a.mov64(R1, R10).add64_imm(R1, -16).mov64_imm(R2, 8);
        a.mov64(R3, R10)
            .add64_imm(R3, -8)
            .mov64_imm(R4, 8)
            .mov64_imm(R5, 0)
            .call(28)
            .exit();
    });
    assert_eq!(r0, Ok(3));
    let odd = tc(|a| {
        a.mov64(R1, R10)
            .mov64_imm(R2, 0)
            .mov64(R3, R10)
            .mov64_imm(R4, 3);
        a.mov64_imm(R5, 0).call(28).exit();
    });
    assert_eq!(odd.map(|r0| r0 as i64), Ok(-i64::from(Errno::EINVAL.0)));
}

#[test]
fn legacy_loads_end_the_program_where_the_packet_ends() {
    for (offset, r0) in [(60, 0x0707_0707), (61, 0)] {
        let result = tc(|a| {
            a.mov64(R6, R1).ld_abs_w(offset).exit();
        });
        assert_eq!(result, Ok(r0));
    }
}
