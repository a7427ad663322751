//! The program on bpf-asm's interpreter.

use bpf_asm::builder::{TC_ACT_OK, TC_ACT_SHOT};
use bpf_asm::harness::{Harness, Outcome};

use zerocopy::IntoBytes;

use super::*;

const REPLICAS: u16 = 7077;

/// Hosts 1 and 2.
const ONE: u8 = 1;
const TWO: u8 = 2;

/// Every frame.
const ALWAYS: u64 = 1 << 16;

fn harness() -> Harness {
    Harness::new([chaos(REPLICAS).unwrap()]).unwrap()
}

fn set(harness: &Harness, from: u8, to: u8, fate: Fate) {
    let index = u32::from(from) * HOSTS as u32 + u32::from(to);
    let fates = harness.map(FATES).unwrap();
    fates.update(&index.to_le_bytes(), fate.as_bytes()).unwrap();
}

/// A datagram over IPv4 with this many bytes in all.
fn frame(from: u8, to: u8, ports: [u16; 2], length: usize) -> Vec<u8> {
    let mut frame = vec![
        0x02, 0xe1, 0xec, 0, 0, to, 0x02, 0xe1, 0xec, 0, 0, from, 0x08, 0x00,
    ];
    frame.extend([
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 77, 0, from, 10, 77, 0, to,
    ]);
    frame.extend(ports[0].to_be_bytes());
    frame.extend(ports[1].to_be_bytes());
    frame.resize(length, 0);
    for (at, byte) in frame.iter_mut().enumerate().skip(38) {
        *byte = (at % 251) as u8;
    }
    frame
}

fn send(harness: &Harness, from: u8, to: u8) -> Outcome {
    harness
        .tc("chaos", frame(from, to, [REPLICAS, REPLICAS], 300))
        .unwrap()
}

#[test]
fn a_cut_holds_in_its_direction_and_for_the_groups_traffic_alone() {
    let harness = harness();
    set(
        &harness,
        ONE,
        TWO,
        Fate {
            cut: 1,
            ..Fate::default()
        },
    );
    assert_eq!(send(&harness, ONE, TWO).verdict, TC_ACT_SHOT);
    assert_eq!(send(&harness, TWO, ONE).verdict, TC_ACT_OK);
    for (ports, verdict) in [
        ([40_000, REPLICAS], TC_ACT_SHOT),
        ([REPLICAS, 40_000], TC_ACT_SHOT),
        ([53, 40_000], TC_ACT_OK),
    ] {
        let other = frame(ONE, TWO, ports, 100);
        assert_eq!(
            harness.tc("chaos", other).unwrap().verdict,
            verdict,
            "{ports:?}"
        );
    }
    // A later fragment has no ports; an ARP request is nobody's.
    let mut fragment = frame(ONE, TWO, [0, 0], 100);
    fragment[21] = 0xb9;
    assert_eq!(harness.tc("chaos", fragment).unwrap().verdict, TC_ACT_SHOT);
    let mut broadcast = frame(ONE, TWO, [REPLICAS, REPLICAS], 100);
    broadcast[..6].fill(0xff);
    assert_eq!(harness.tc("chaos", broadcast).unwrap().verdict, TC_ACT_OK);
}

#[test]
fn one_bit_behind_the_ethernet_header_is_flipped() {
    let harness = harness();
    let fate = Fate {
        seed: 3,
        corrupt: ALWAYS,
        ..Fate::default()
    };
    set(&harness, ONE, TWO, fate);
    let sent = frame(ONE, TWO, [REPLICAS, REPLICAS], 300);
    for _ in 0..100 {
        let arrived = send(&harness, ONE, TWO).packet;
        assert_eq!(arrived[..14], sent[..14]);
        let flipped: u32 = arrived
            .iter()
            .zip(&sent)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        assert_eq!(flipped, 1);
    }
}

#[test]
fn a_duplicate_leaves_before_the_frame_and_is_not_doubled_again() {
    let harness = harness();
    let fate = Fate {
        duplicate: ALWAYS,
        ..Fate::default()
    };
    set(&harness, ONE, TWO, fate);
    let outcome = send(&harness, ONE, TWO);
    assert_eq!((outcome.verdict, outcome.outputs.len()), (TC_ACT_OK, 1));
}

#[test]
fn what_is_held_back_is_in_the_ring_whole_and_the_next_one_says_that_it_has_passed() {
    let harness = harness();
    let fate = Fate {
        reorder: ALWAYS,
        ..Fate::default()
    };
    set(&harness, ONE, TWO, fate);
    assert_eq!(send(&harness, ONE, TWO).verdict, TC_ACT_SHOT);
    set(&harness, ONE, TWO, Fate::default());
    assert_eq!(send(&harness, ONE, TWO).verdict, TC_ACT_OK);
    assert_eq!(send(&harness, ONE, TWO).verdict, TC_ACT_OK);
    let records = harness.records(RING).unwrap();
    let kinds: Vec<u8> = records.iter().map(|record| record[0]).collect();
    assert_eq!(kinds, [REORDER as u8, OVERTAKEN as u8]);
    let sent = frame(ONE, TWO, [REPLICAS, REPLICAS], 300);
    let whole = 300 / BLOCK * BLOCK;
    assert_eq!(records[0][24..24 + whole], sent[..whole]);
    assert_eq!(records[0][24 + BLOCK * BLOCKS..], sent[300 - BLOCK..]);
}

#[test]
fn a_seed_decides_what_becomes_of_each_frame() {
    let fates = |seed| {
        let harness = harness();
        let fate = Fate {
            seed,
            lose: ALWAYS / 3,
            ..Fate::default()
        };
        set(&harness, ONE, TWO, fate);
        let lost = |_| send(&harness, ONE, TWO).verdict == TC_ACT_SHOT;
        (0..300).map(lost).collect::<Vec<bool>>()
    };
    let first = fates(1);
    assert_eq!(first, fates(1));
    assert_ne!(first, fates(2));
    let lost = first.iter().filter(|lost| **lost).count();
    assert!((50..150).contains(&lost), "{lost} of 300");
}
