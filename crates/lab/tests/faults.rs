//! Bad links, seen by a receiver that knows what was sent.

use std::net::UdpSocket;
use std::time::Duration;

use electrode_lab::{Faults, Host, Lab, root_or_skip};

const PACKETS: u64 = 3000;

/// Bytes of a datagram: each is the number of the datagram, over and over.
const SIZE: usize = 256;

/// What a receiver saw of so many numbered datagrams.
#[derive(Debug, Default)]
struct Seen {
    intact: Vec<u64>,
    damaged: u64,
}

impl Seen {
    /// Datagrams that came after one of a higher number.
    fn overtaken(&self) -> u64 {
        let mut highest = 0;
        let mut overtaken = 0;
        for &number in &self.intact {
            overtaken += u64::from(number < highest);
            highest = highest.max(number);
        }
        overtaken
    }

    fn distinct(&self) -> u64 {
        let mut numbers = self.intact.clone();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len() as u64
    }
}

/// Sends numbered datagrams one by one and reads what comes.
fn exchange(from: &Host, to: &Host, ipv6: bool) -> Seen {
    let (here, there): (std::net::IpAddr, std::net::IpAddr) = if ipv6 {
        (from.ipv6().into(), to.ipv6().into())
    } else {
        (from.ip(), to.ip())
    };
    let receiver = to
        .in_namespace(|| UdpSocket::bind((there, 0)).unwrap())
        .unwrap();
    let sender = from
        .in_namespace(|| UdpSocket::bind((here, 0)).unwrap())
        .unwrap();
    let target = receiver.local_addr().unwrap();
    let mut seen = Seen::default();
    let mut buffer = [0; 2 * SIZE];
    let mut drain = |patience: u64| {
        receiver
            .set_read_timeout(Some(Duration::from_millis(patience)))
            .unwrap();
        while let Ok(length) = receiver.recv(&mut buffer) {
            let words: Vec<&[u8]> = buffer[..length].chunks(8).collect();
            let number = u64::from_le_bytes(words[0].try_into().unwrap());
            if length == SIZE && words.iter().all(|word| *word == words[0]) {
                seen.intact.push(number);
            } else {
                seen.damaged += 1;
            }
        }
    };
    for number in 1..=PACKETS {
        let datagram = number.to_le_bytes().repeat(SIZE / 8);
        sender.send_to(&datagram, target).unwrap();
        // Well within the receiver's buffer.
        if number % 50 == 0 {
            drain(1);
        }
    }
    drain(200);
    seen
}

fn two_hosts() -> Option<(Lab, Host, Host)> {
    if !root_or_skip("bad links") {
        return None;
    }
    let lab = Lab::new("faults").unwrap();
    let a = lab.host("a").unwrap();
    let b = lab.host("b").unwrap();
    Some((lab, a, b))
}

/// Whether `n` is what a share of 1024 makes of the packets, give or take a good deal of chance.
fn about(n: u64, share: u32) -> bool {
    let expected = PACKETS * u64::from(share) / 1024;
    (expected / 2..=expected * 2).contains(&n)
}

#[test]
fn a_good_link_brings_everything_once_and_in_order() {
    let Some((_lab, a, b)) = two_hosts() else {
        return;
    };
    b.set_faults(Faults::default()).unwrap();
    for ipv6 in [false, true] {
        let seen = exchange(&a, &b, ipv6);
        assert_eq!(seen.intact, (1..=PACKETS).collect::<Vec<_>>());
        assert_eq!(seen.damaged, 0);
    }
    assert_eq!(b.fault_counts().unwrap(), Default::default());
}

#[test]
fn the_share_that_is_to_be_dropped_is_missing() {
    let Some((_lab, a, b)) = two_hosts() else {
        return;
    };
    let drop = 100;
    let faults = Faults {
        drop,
        ..Faults::default()
    };
    b.set_faults(faults).unwrap();
    let seen = exchange(&a, &b, false);
    let lost = PACKETS - seen.distinct();
    assert!(about(lost, drop), "{lost}");
    assert!(b.fault_counts().unwrap().dropped >= lost);
    // The other way is as good as before.
    assert_eq!(exchange(&b, &a, false).distinct(), PACKETS);
}

#[test]
fn the_share_that_is_to_be_duplicated_comes_twice() {
    let Some((_lab, a, b)) = two_hosts() else {
        return;
    };
    let duplicate = 100;
    let faults = Faults {
        duplicate,
        ..Faults::default()
    };
    b.set_faults(faults).unwrap();
    for ipv6 in [false, true] {
        let seen = exchange(&a, &b, ipv6);
        assert_eq!(seen.distinct(), PACKETS);
        let twice = seen.intact.len() as u64 - PACKETS;
        assert!(about(twice, duplicate), "{twice}");
    }
}

#[test]
fn the_share_that_is_to_be_reordered_is_overtaken_and_not_lost() {
    let Some((_lab, a, b)) = two_hosts() else {
        return;
    };
    let reorder = 100;
    let faults = Faults {
        reorder,
        ..Faults::default()
    };
    b.set_faults(faults).unwrap();
    for ipv6 in [false, true] {
        let seen = exchange(&a, &b, ipv6);
        let overtaken = seen.overtaken();
        assert!(about(overtaken, reorder), "{overtaken}");
        // The last one may still be held back, for want of a next.
        assert!(seen.distinct() >= PACKETS - 1, "{}", seen.distinct());
        assert_eq!(seen.intact.len() as u64, seen.distinct());
    }
}

#[test]
fn the_share_that_is_to_be_damaged_arrives_damaged_or_not_at_all() {
    let Some((_lab, a, b)) = two_hosts() else {
        return;
    };
    let corrupt = 100;
    let faults = Faults {
        corrupt,
        ..Faults::default()
    };
    b.set_faults(faults).unwrap();
    let seen = exchange(&a, &b, false);
    let harmed = PACKETS - seen.distinct();
    assert!(about(harmed, corrupt), "{harmed}");
    assert!(seen.damaged > 0 && seen.damaged <= harmed, "{seen:?}");
    let counted = b.fault_counts().unwrap().corrupted;
    assert!(counted >= harmed, "{counted}");
}

#[test]
fn faults_from_a_port_spare_the_others() {
    let Some((_lab, a, b)) = two_hosts() else {
        return;
    };
    let socket = |host: &Host, ip: std::net::IpAddr| {
        host.in_namespace(|| UdpSocket::bind((ip, 0)).unwrap())
            .unwrap()
    };
    let everything = Faults {
        drop: 1024,
        ..Faults::default()
    };
    for (here, there) in [
        (a.ip(), b.ip()),
        (a.ipv6().into(), std::net::IpAddr::from(b.ipv6())),
    ] {
        let receiver = socket(&b, there);
        receiver
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let to = receiver.local_addr().unwrap();
        let [hit, spared] = [socket(&a, here), socket(&a, here)];
        let port = hit.local_addr().unwrap().port();
        b.set_faults_from(port, everything).unwrap();
        let mut seen = Vec::new();
        for _ in 0..50 {
            hit.send_to(b"h", to).unwrap();
            spared.send_to(b"s", to).unwrap();
        }
        let mut buffer = [0; 8];
        while let Ok(length) = receiver.recv(&mut buffer) {
            seen.extend_from_slice(&buffer[..length]);
        }
        assert_eq!(seen, [b's'; 50]);
        b.set_faults(Faults::default()).unwrap();
    }
    assert_eq!(b.fault_counts().unwrap().dropped, 100);
}
