//! Datagrams that are damaged, mistaken or forged: none does harm, each is counted by its reason.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use electrode_vr::{Message, OpNumber, View};
use electrode_wire::{HEADER_BYTES, Key, MAX_DATAGRAM};

use crate::harness::{Client, Group, message, wait_until};

fn commit(view: u64) -> Message {
    Message::Commit {
        view: View(view),
        commit: OpNumber(0),
    }
}

fn group_number(group: &Group) -> u64 {
    u64::from_str_radix(&group.status(0).unwrap().group.unwrap(), 16).unwrap()
}

fn socket_at(address: SocketAddr) -> UdpSocket {
    UdpSocket::bind(address).unwrap()
}

#[test]
fn garbage_of_every_size_is_survived_and_counted() {
    let group = Group::start();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = 1_u64;
    let mut garbage = |length: usize| -> Vec<u8> {
        let mut next = || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    };
    let lengths: Vec<usize> = (0..=1600).chain([9000, 40_000, MAX_DATAGRAM]).collect();
    for (count, length) in lengths.iter().enumerate() {
        sender
            .send_to(&garbage(*length), group.addresses[0])
            .unwrap();
        if count % 50 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    wait_until("all counted", || {
        let short = group.refused(0, "too_short");
        short == HEADER_BYTES as u64
            && short + group.refused(0, "not_electrode") == lengths.len() as u64
    });
    assert_eq!(Client::new(&group, 1).call(b"alive"), b"alive");
}

#[test]
fn a_message_with_any_bit_flipped_changes_nothing() {
    let mut group = Group::start();
    let number = group_number(&group);
    group.kill(2);
    let impostor = socket_at(group.addresses[2]);
    let before = group.status(0).unwrap();
    let good = message(
        number,
        2,
        Message::StartViewChange { view: View(9) },
        &Key::UNKEYED,
    );
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        impostor.send_to(&bad, group.addresses[0]).unwrap();
        if bit % 50 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    wait_until("all refused", || {
        let dropped = group.status(0).unwrap().driver.dropped;
        dropped.values().sum::<u64>() - before.driver.dropped.values().sum::<u64>()
            >= good.len() as u64 * 8
    });
    let after = group.status(0).unwrap();
    assert!(after.view < 9);
    for reason in [
        "bad_check",
        "not_electrode",
        "wrong_version",
        "wrong_length",
    ] {
        assert!(
            after.driver.dropped.contains_key(reason),
            "{reason} in {:?}",
            after.driver.dropped
        );
    }
}

#[test]
fn another_group_is_named() {
    let mut group = Group::start();
    let number = group_number(&group);
    group.kill(2);
    let stranger = socket_at(group.addresses[2]);
    stranger
        .send_to(
            &message(0xabcdef, 2, commit(7), &Key::UNKEYED),
            group.addresses[0],
        )
        .unwrap();
    wait_until("counted", || group.refused(0, "wrong_group") == 1);
    let report = group.status(0).unwrap();
    let expected = format!(
        "wrong_group: from {}: replica 2 of group 0000000000abcdef, but this is group {number:016x}",
        group.addresses[2]
    );
    assert!(report.notices.contains(&expected), "{:?}", report.notices);
    assert!(report.view < 7);
}

#[test]
fn a_peer_is_believed_only_from_its_address() {
    let group = Group::start();
    let number = group_number(&group);
    let forger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for sender in [0, 1, 2, 3, 14] {
        let bytes = message(
            number,
            sender,
            Message::StartViewChange { view: View(9) },
            &Key::UNKEYED,
        );
        forger.send_to(&bytes, group.addresses[0]).unwrap();
    }
    wait_until("counted", || group.refused(0, "wrong_source") == 5);
    assert!(group.status(0).unwrap().view < 7);
}

#[test]
fn without_the_key_nobody_is_a_peer() {
    let mut group = Group::idle(3, false);
    group.key = Key([3; 16]);
    group.start_all();
    let number = group_number(&group);
    group.kill(2);
    let forger = socket_at(group.addresses[2]);
    forger
        .send_to(
            &message(number, 2, commit(7), &Key::UNKEYED),
            group.addresses[0],
        )
        .unwrap();
    wait_until("counted", || group.refused(0, "bad_check") == 1);
    assert!(group.status(0).unwrap().view < 7);
}

#[test]
fn status_is_not_answered_without_limit() {
    let group = Group::start();
    let flooder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut question = Vec::new();
    let packet = electrode_wire::Packet::StatusRequest {
        nonce: electrode_vr::Nonce(1),
    };
    electrode_wire::encode(
        &crate::harness::client_envelope(),
        &Key::UNKEYED,
        &packet,
        &mut question,
    );
    for _ in 0..400 {
        flooder.send_to(&question, group.addresses[0]).unwrap();
    }
    wait_until("counted, and answered again later", || {
        group.refused(0, "status_too_often") > 0
    });
    assert_eq!(Client::new(&group, 1).call(b"x"), b"x");
}
