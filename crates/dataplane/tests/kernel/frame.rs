//! Ethernet frames with UDP in them: built from their parts, and taken apart again without mercy.

use std::net::{IpAddr, SocketAddr};

pub(crate) const TAG_8021Q: u16 = 0x8100;
pub(crate) const TAG_8021AD: u16 = 0x88a8;

/// A UDP datagram in a frame. `bytes` writes it with every length and sum right; tests that want one wrong patch the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where it goes, as a MAC.
    pub(crate) to_mac: [u8; 6],
    /// Where it comes from, as a MAC.
    pub(crate) from_mac: [u8; 6],
    /// VLAN tags, outermost first: EtherType of the tag, then its control information.
    pub(crate) tags: Vec<(u16, u16)>,
    /// Source address and port.
    pub(crate) from: SocketAddr,
    /// Destination address and port, of the same family.
    pub(crate) to: SocketAddr,
    /// What UDP carries.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Where the IP header begins.
    pub(crate) fn ip_offset(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Where the UDP header begins.
    pub(crate) fn udp_offset(&self) -> usize {
        self.ip_offset() + if self.from.is_ipv4() { 20 } else { 40 }
    }

    /// Where the payload begins.
    pub(crate) fn payload_offset(&self) -> usize {
        self.udp_offset() + 8
    }

    /// The frame as it is on the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload_offset() + self.payload.len());
        out.extend(self.to_mac);
        out.extend(self.from_mac);
        for (ethertype, tci) in &self.tags {
            out.extend(ethertype.to_be_bytes());
            out.extend(tci.to_be_bytes());
        }
        let udp_length = u16::try_from(8 + self.payload.len()).expect("a datagram");
        let (from, to) = (octets(self.from.ip()), octets(self.to.ip()));
        let ip = if self.from.is_ipv4() {
            out.extend(0x0800u16.to_be_bytes());
            let mut ip = vec![0x45, 0];
            ip.extend((20 + udp_length).to_be_bytes());
            // Identification 0x1234, don't fragment; TTL 61 so that an answer with another one is seen.
            ip.extend([0x12, 0x34, 0x40, 0, 61, 17, 0, 0]);
            ip.extend(&from);
            ip.extend(&to);
            let sum = !sum(&ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            ip
        } else {
            out.extend(0x86ddu16.to_be_bytes());
            let mut ip = vec![0x60, 0, 0, 0];
            ip.extend(udp_length.to_be_bytes());
            ip.extend([17, 61]);
            ip.extend(&from);
            ip.extend(&to);
            ip
        };
        out.extend(ip);
        let mut udp = Vec::with_capacity(usize::from(udp_length));
        udp.extend(self.from.port().to_be_bytes());
        udp.extend(self.to.port().to_be_bytes());
        udp.extend(udp_length.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let sum = match !udp_sum(&from, &to, &udp) {
            0 => 0xffff,
            sum => sum,
        };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        out.extend(udp);
        out
    }

    /// Takes a frame apart; panics unless it is exactly one UDP datagram with every length and sum right, and nothing
    /// behind it. A UDP sum of 0 ("none") is allowed over IPv4 alone (RFC 768, RFC 8200 section 8.1).
    pub(crate) fn parse(bytes: &[u8]) -> Frame {
        let mac = |at: usize| <[u8; 6]>::try_from(&bytes[at..at + 6]).unwrap();
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let mut tags = Vec::new();
        let mut at = 12;
        while [TAG_8021Q, TAG_8021AD].contains(&word(at)) {
            tags.push((word(at), word(at + 2)));
            at += 4;
        }
        let ethertype = word(at);
        at += 2;
        let (from, to, udp): (IpAddr, IpAddr, usize) = match ethertype {
            0x0800 => {
                assert_eq!(bytes[at], 0x45, "version and header length of {bytes:02x?}");
                assert_eq!(sum(&bytes[at..at + 20]), 0xffff, "the IPv4 header's sum");
                assert_eq!(usize::from(word(at + 2)), bytes.len() - at, "IPv4's length");
                assert_eq!(word(at + 6) & 0x3fff, 0, "a fragment");
                assert_ne!(bytes[at + 8], 0, "TTL");
                assert_eq!(bytes[at + 9], 17, "UDP");
                let address = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap();
                (address(at + 12).into(), address(at + 16).into(), at + 20)
            }
            0x86dd => {
                assert_eq!(bytes[at] >> 4, 6, "the version");
                assert_eq!(
                    usize::from(word(at + 4)),
                    bytes.len() - at - 40,
                    "IPv6's length"
                );
                assert_eq!(bytes[at + 6], 17, "UDP");
                assert_ne!(bytes[at + 7], 0, "hop limit");
                let address = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap();
                (address(at + 8).into(), address(at + 24).into(), at + 40)
            }
            other => panic!("EtherType {other:#06x} in {bytes:02x?}"),
        };
        assert_eq!(
            usize::from(word(udp + 4)),
            bytes.len() - udp,
            "UDP's length"
        );
        if !(from.is_ipv4() && word(udp + 6) == 0) {
            assert_ne!(word(udp + 6), 0, "UDP over IPv6 has a sum");
            assert_eq!(
                udp_sum(&octets(from), &octets(to), &bytes[udp..]),
                0xffff,
                "UDP's sum"
            );
        }
        Frame {
            to_mac: mac(0),
            from_mac: mac(6),
            tags,
            from: SocketAddr::new(from, word(udp)),
            to: SocketAddr::new(to, word(udp + 2)),
            payload: bytes[udp + 8..].to_vec(),
        }
    }
}

/// What a network card does with an untagged datagram whose sum the stack left to it: it sums from UDP's header on, over what
/// the stack wrote into the sum's place (the pseudo header's sum), and writes the complement there.
pub(crate) fn finish_sum(bytes: &[u8]) -> Vec<u8> {
    let udp = if bytes[12..14] == [0x08, 0x00] {
        34
    } else {
        54
    };
    let finished = match !sum(&bytes[udp..]) {
        0 => 0xffff,
        sum => sum,
    };
    let mut bytes = bytes.to_vec();
    bytes[udp + 6..udp + 8].copy_from_slice(&finished.to_be_bytes());
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The Internet checksum before its complement (RFC 1071).
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn udp_sum(from: &[u8], to: &[u8], udp: &[u8]) -> u16 {
    let length = u32::try_from(udp.len()).unwrap();
    let pseudo = [from, to, &length.to_be_bytes(), &[0, 0, 0, 17]].concat();
    sum(&[&pseudo, udp].concat())
}

#[test]
fn frames_are_taken_apart_as_they_were_built() {
    for (from, to) in [
        ("10.0.0.1:7000", "10.0.0.2:7001"),
        ("[fd00::1]:7000", "[fd00::2]:7001"),
    ] {
        for tags in 0..3 {
            let frame = Frame {
                to_mac: [2, 0, 0, 0, 0, 1],
                from_mac: [2, 0, 0, 0, 0, 2],
                tags: [(TAG_8021AD, 5), (TAG_8021Q, 6)][..tags].to_vec(),
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                payload: b"seven b".to_vec(),
            };
            assert_eq!(Frame::parse(&frame.bytes()), frame);
        }
    }
    // The example of RFC 1071, section 3.
    assert_eq!(
        sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
        0xddf2
    );
}
