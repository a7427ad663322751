//! What the examples do, as unit tests without root or kernel.

use bpf_asm::builder::{XDP_DROP, XDP_PASS, XDP_TX};
use bpf_asm::harness::Harness;

use crate::frames::{Frame, TCP, UDP};
use crate::{echo, load_balancer, lpm_firewall, packet_counter, syn_flood};

#[test]
fn packet_counter_counts_by_protocol() {
    let harness = Harness::new([packet_counter::program().unwrap()]).unwrap();
    for (protocol, times) in [(UDP, 3), (TCP, 2)] {
        for _ in 0..times {
            let frame = Frame::new(protocol, [10, 0, 0, 2]).bytes();
            let outcome = harness.xdp("packet_counter", frame.clone()).unwrap();
            assert_eq!((outcome.verdict, outcome.packet), (XDP_PASS, frame));
        }
    }
    harness.xdp("packet_counter", vec![0; 60]).unwrap();
    let counts = harness.map("counts").unwrap();
    let of = |protocol: u32| {
        let value = counts.lookup(&protocol.to_ne_bytes()).unwrap().unwrap();
        let word = |at: usize| u64::from_ne_bytes(value[at..at + 8].try_into().unwrap());
        (word(0), word(8))
    };
    assert_eq!((of(UDP.into()), of(TCP.into())), ((3, 192), (2, 128)));
    assert_eq!((of(0), of(1)), ((1, 60), (0, 0)));
}

#[test]
fn lpm_firewall_drops_what_lies_in_a_blocked_network_and_counts_it() {
    let harness = Harness::new([lpm_firewall::program().unwrap()]).unwrap();
    let blocked = harness.map("blocked").unwrap();
    let key = [24u32.to_ne_bytes(), [192, 0, 2, 0]].concat();
    blocked.update(&key, &0u64.to_ne_bytes()).unwrap();
    for (source, verdict) in [
        ([192, 0, 2, 9], XDP_DROP),
        ([192, 0, 3, 9], XDP_PASS),
        ([192, 0, 2, 200], XDP_DROP),
    ] {
        let frame = Frame::new(UDP, source).bytes();
        let outcome = harness.xdp("lpm_firewall", frame).unwrap();
        assert_eq!(outcome.verdict, verdict, "{source:?}");
    }
    let count = blocked.lookup(&key).unwrap().unwrap();
    assert_eq!(count, 2u64.to_ne_bytes());
}

/// Service 3 is UDP port 80 of 10.0.0.1, its servers 172.16.0.0 to 172.16.0.15.
pub(crate) fn service() -> [u8; 8] {
    [10, 0, 0, 1, 0, 80, UDP, 0]
}

pub(crate) fn server(number: u8) -> [u8; 16] {
    [172, 16, 0, number, 10, 0, 0, 1, 2, 0, 0, 0, 1, number, 0, 0]
}

#[test]
fn load_balancer_sends_each_flow_to_one_server_and_flows_to_all() {
    let harness = Harness::new([load_balancer::program().unwrap()]).unwrap();
    let services = harness.map("services").unwrap();
    services.update(&service(), &3u32.to_ne_bytes()).unwrap();
    let servers = harness.map("servers").unwrap();
    for number in 0..16u8 {
        let index = 3 * load_balancer::SERVERS_EACH + u32::from(number);
        servers
            .update(&index.to_ne_bytes(), &server(number))
            .unwrap();
    }
    let mut used = [0; 16];
    for port in 1000..1200 {
        let frame = Frame {
            ports: [port, 80],
            ..Frame::new(UDP, [10, 9, 8, 7])
        };
        let before = frame.bytes();
        let outcome = harness.xdp("load_balancer", before.clone()).unwrap();
        assert_eq!(outcome.verdict, XDP_TX);
        let packet = outcome.packet;
        let again = harness.xdp("load_balancer", before.clone()).unwrap();
        assert_eq!(again.packet, packet, "a flow stays where it is");
        assert_eq!(packet[34..], before[14..], "what was sent is inside");
        let number = packet[33];
        used[usize::from(number)] += 1;
        assert_eq!(
            packet[..14],
            [&[2, 0, 0, 0, 1, number], &before[..6], &[8, 0]].concat()
        );
        assert_eq!(packet[14..24], [0x45, 0, 0, 70, 0, 0, 0, 0, 64, 4]);
        assert_eq!(packet[26..34], [10, 0, 0, 1, 172, 16, 0, number]);
        let words = packet[14..34].chunks(2);
        let sum: u32 = words
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        assert_eq!(
            (sum & 0xffff) + (sum >> 16),
            0xffff,
            "the header's checksum"
        );
    }
    assert!(used.iter().all(|flows| *flows > 0), "{used:?}");
    let other = Frame::new(TCP, [10, 9, 8, 7]).bytes();
    let outcome = harness.xdp("load_balancer", other.clone()).unwrap();
    assert_eq!((outcome.verdict, outcome.packet), (XDP_PASS, other));
}

#[test]
fn syn_flood_reports_a_source_once_and_drops_it_from_then_on() {
    let harness = Harness::new([syn_flood::program().unwrap()]).unwrap();
    let syn = |source| Frame {
        flags: 0x02,
        ..Frame::new(TCP, source)
    };
    let verdict = |frame: Frame| harness.xdp("syn_flood", frame.bytes()).unwrap().verdict;
    for _ in 0..100 {
        assert_eq!(verdict(syn([10, 0, 0, 2])), XDP_PASS);
    }
    assert_eq!(harness.records("events").unwrap().len(), 0);
    for _ in 0..5 {
        assert_eq!(verdict(syn([10, 0, 0, 2])), XDP_DROP);
    }
    let events = harness.records("events").unwrap();
    let expected = [&[10, 0, 0, 2, 0, 0, 0, 0][..], &100u64.to_ne_bytes()].concat();
    assert_eq!(events, [expected]);
    // Others go on, and so do connections that stand.
    assert_eq!(verdict(syn([10, 0, 0, 3])), XDP_PASS);
    assert_eq!(verdict(Frame::new(TCP, [10, 0, 0, 2])), XDP_PASS);
}

#[test]
fn echo_sends_a_datagram_back_where_it_came_from() {
    let harness = Harness::new([echo::program().unwrap()]).unwrap();
    let asked = Frame {
        ports: [5000, 7],
        ..Frame::new(UDP, [10, 0, 0, 2])
    };
    let outcome = harness.xdp("echo", asked.bytes()).unwrap();
    let mut expected = Frame {
        ports: [7, 5000],
        source: asked.destination,
        destination: asked.source,
        ..asked
    }
    .bytes();
    expected[..12].rotate_left(6);
    assert_eq!((outcome.verdict, outcome.packet), (XDP_TX, expected));
    let other = Frame::new(UDP, [10, 0, 0, 2]).bytes();
    assert_eq!(harness.xdp("echo", other).unwrap().verdict, XDP_PASS);
}
