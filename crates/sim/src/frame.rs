//! Ethernet frames with UDP over IPv4 or IPv6, as network stacks build and read them.
//!
//! Built and parsed here in plain code, independently of what the programs do, so that their frames are checked by another
//! hand: IP header sums, UDP's sum over IPv6, lengths.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest IP packet of a link.
pub(crate) const MTU: usize = 1500;

/// Who is on the simulated network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// A replica's machine.
    Replica(usize),
    /// A client's machine.
    Client(usize),
}

/// How the network is laid out: addresses and tags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// IPv6 instead of IPv4.
    pub(crate) ipv6: bool,
    /// Frames carry this VLAN tag.
    pub(crate) vlan: Option<u16>,
}

const ETH_P_8021Q: [u8; 2] = [0x81, 0x00];
const ETH_P_IP: [u8; 2] = [0x08, 0x00];
const ETH_P_IPV6: [u8; 2] = [0x86, 0xdd];
const UDP: u8 = 17;

/// The UDP datagram in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) payload: &'a [u8],
}

/// Why a stack drops a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Not UDP, cut short, or lengths that don't agree.
    Malformed,
    /// A sum is wrong.
    Sum,
}

impl Layout {
    pub(crate) fn address(self, host: Host) -> SocketAddr {
        let (net, index, port) = match host {
            Host::Replica(index) => (0, index, 7000 + index),
            Host::Client(index) => (1, index, 9000),
        };
        let last = u8::try_from(index + 1).expect("few hosts");
        let port = u16::try_from(port).expect("a port");
        let ip = if self.ipv6 {
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, net, 0, 0, 0, u16::from(last)))
        } else {
            IpAddr::V4(Ipv4Addr::new(
                10,
                0,
                u8::try_from(net).expect("0 or 1"),
                last,
            ))
        };
        SocketAddr::new(ip, port)
    }

    /// The host that has this address (the port aside).
    pub(crate) fn host(self, address: SocketAddr) -> Option<Host> {
        let (net, last) = match address.ip() {
            IpAddr::V4(ip) => (u16::from(ip.octets()[2]), u16::from(ip.octets()[3])),
            IpAddr::V6(ip) => (ip.segments()[3], ip.segments()[7]),
        };
        let index = usize::from(last.checked_sub(1)?);
        let host = match net {
            0 => Host::Replica(index),
            1 => Host::Client(index),
            _ => return None,
        };
        (self.address(host).ip() == address.ip()).then_some(host)
    }

    /// A host's MAC address.
    pub(crate) fn mac(host: Host) -> [u8; 6] {
        match host {
            Host::Replica(index) => [2, 0, 0, 0, 0, u8::try_from(index).expect("few hosts")],
            Host::Client(index) => [2, 0, 0, 0, 1, u8::try_from(index).expect("few hosts")],
        }
    }

    /// The frames of one datagram: one, or fragments when it is longer than a packet.
    pub(crate) fn frames(
        self,
        from: Host,
        to: SocketAddr,
        payload: &[u8],
        id: u16,
    ) -> Vec<Vec<u8>> {
        let source = self.address(from);
        let mut udp = Vec::with_capacity(8 + payload.len());
        udp.extend(source.port().to_be_bytes());
        udp.extend(to.port().to_be_bytes());
        let length = u16::try_from(8 + payload.len()).expect("a datagram is at most 64 KiB");
        udp.extend(length.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend_from_slice(payload);
        if self.ipv6 {
            let sum = udp_sum(source, to, &udp);
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        let room = MTU - if self.ipv6 { 40 } else { 20 };
        if udp.len() <= room {
            return vec![self.packet(from, source, to, &udp, id, None)];
        }
        let room = room - if self.ipv6 { 8 } else { 0 };
        let piece = room / 8 * 8;
        let last = (udp.len() - 1) / piece;
        let pieces = udp.chunks(piece).enumerate();
        pieces
            .map(|(index, bytes)| {
                let offset = u16::try_from(index * piece / 8).expect("fits the offset's bits");
                self.packet(from, source, to, bytes, id, Some((offset, index != last)))
            })
            .collect()
    }

    /// One frame; `fragment` is its offset in units of 8 bytes, and whether more follow.
    fn packet(
        self,
        from: Host,
        source: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
        id: u16,
        fragment: Option<(u16, bool)>,
    ) -> Vec<u8> {
        let mut frame = Vec::with_capacity(14 + 4 + 48 + bytes.len());
        let target = self.host(to).map_or([2, 0, 0, 0, 9, 9], Layout::mac);
        frame.extend(target);
        frame.extend(Layout::mac(from));
        if let Some(vlan) = self.vlan {
            frame.extend(ETH_P_8021Q);
            frame.extend(vlan.to_be_bytes());
        }
        match (source.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(to)) => {
                frame.extend(ETH_P_IP);
                let mut header = [0_u8; 20];
                header[0] = 0x45;
                let length = u16::try_from(20 + bytes.len()).expect("within the MTU");
                header[2..4].copy_from_slice(&length.to_be_bytes());
                header[4..6].copy_from_slice(&id.to_be_bytes());
                let (offset, more) = fragment.unwrap_or((0, false));
                let bits = offset | if more { 0x2000 } else { 0 };
                header[6..8].copy_from_slice(&bits.to_be_bytes());
                header[8] = 64;
                header[9] = UDP;
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&to.octets());
                let sum = !folded(words(&header));
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(header);
            }
            (IpAddr::V6(source), IpAddr::V6(to)) => {
                frame.extend(ETH_P_IPV6);
                let extension = if fragment.is_some() { 8 } else { 0 };
                let length = u16::try_from(extension + bytes.len()).expect("within the MTU");
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.push(if fragment.is_some() { 44 } else { UDP });
                frame.push(64);
                frame.extend(source.octets());
                frame.extend(to.octets());
                if let Some((offset, more)) = fragment {
                    let bits = offset << 3 | u16::from(more);
                    frame.extend([UDP, 0]);
                    frame.extend(bits.to_be_bytes());
                    frame.extend([0, 0]);
                    frame.extend(id.to_be_bytes());
                }
            }
            _ => unreachable!("one network has one family"),
        }
        frame.extend_from_slice(bytes);
        frame
    }
}

/// Reads a frame as a stack does that checks every sum.
pub(crate) fn parse(frame: &[u8]) -> Result<Datagram<'_>, Unreadable> {
    let short = Unreadable::Malformed;
    let mut at = 12;
    let mut ethertype = frame.get(at..at + 2).ok_or(short)?;
    while ethertype == ETH_P_8021Q {
        at += 4;
        ethertype = frame.get(at..at + 2).ok_or(short)?;
    }
    let ip = at + 2;
    let (source, to, udp) = if ethertype == ETH_P_IP {
        let header = frame.get(ip..ip + 20).ok_or(short)?;
        if header[0] != 0x45 || header[9] != UDP {
            return Err(short);
        }
        if folded(words(header)) != 0xffff {
            return Err(Unreadable::Sum);
        }
        if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
            return Err(short);
        }
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let ip4 = |at: usize| {
            let bytes: [u8; 4] = header[at..at + 4].try_into().expect("4 bytes");
            IpAddr::V4(bytes.into())
        };
        let end = ip.checked_add(total).ok_or(short)?;
        (ip4(12), ip4(16), frame.get(ip + 20..end).ok_or(short)?)
    } else if ethertype == ETH_P_IPV6 {
        let header = frame.get(ip..ip + 40).ok_or(short)?;
        if header[0] >> 4 != 6 || header[6] != UDP {
            return Err(short);
        }
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let ip6 = |at: usize| {
            let bytes: [u8; 16] = header[at..at + 16].try_into().expect("16 bytes");
            IpAddr::V6(bytes.into())
        };
        (
            ip6(8),
            ip6(24),
            frame.get(ip + 40..ip + 40 + length).ok_or(short)?,
        )
    } else {
        return Err(short);
    };
    let field = |at: usize| {
        let bytes: [u8; 2] = udp
            .get(at..at + 2)
            .ok_or(short)?
            .try_into()
            .expect("2 bytes");
        Ok(u16::from_be_bytes(bytes))
    };
    let (source, destination) = (
        SocketAddr::new(source, field(0)?),
        SocketAddr::new(to, field(2)?),
    );
    let length = usize::from(field(4)?);
    if length < 8 || length > udp.len() {
        return Err(short);
    }
    let sum = field(6)?;
    let bad = match (sum, to) {
        // Over IPv4 no sum means that there is none; over IPv6 there has to be one (RFC 8200, section 8.1).
        (0, IpAddr::V4(_)) => false,
        (0, IpAddr::V6(_)) => true,
        _ => pseudo_sum(source, destination, &udp[..length]) != 0xffff,
    };
    if bad {
        return Err(Unreadable::Sum);
    }
    Ok(Datagram {
        source,
        destination,
        payload: &udp[8..length],
    })
}

/// UDP's sum over a datagram whose sum field is 0.
fn udp_sum(source: SocketAddr, to: SocketAddr, udp: &[u8]) -> u16 {
    match !pseudo_sum(source, to, udp) {
        0 => 0xffff,
        sum => sum,
    }
}

fn pseudo_sum(source: SocketAddr, to: SocketAddr, udp: &[u8]) -> u16 {
    let addresses = match (source.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(to)) => words(&source.octets()) + words(&to.octets()),
        (IpAddr::V6(source), IpAddr::V6(to)) => words(&source.octets()) + words(&to.octets()),
        _ => unreachable!("one network has one family"),
    };
    folded(addresses + u64::from(UDP) + udp.len() as u64 + words(udp))
}

/// The sum of big-endian 16-bit words; an odd byte is the high half of the last.
fn words(bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks(2);
    pairs
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        for (ipv6, vlan) in [
            (false, None),
            (false, Some(7)),
            (true, None),
            (true, Some(9)),
        ] {
            let layout = Layout { ipv6, vlan };
            let to = layout.address(Host::Replica(2));
            let payload = [7; 93];
            let frames = layout.frames(Host::Client(1), to, &payload, 5);
            assert_eq!(frames.len(), 1);
            let datagram = parse(&frames[0]).unwrap();
            assert_eq!((datagram.destination, datagram.payload), (to, &payload[..]));
            assert_eq!(layout.host(datagram.source), Some(Host::Client(1)));
        }
    }

    #[test]
    fn a_flipped_bit_in_an_ip_header_is_noticed() {
        let layout = Layout {
            ipv6: false,
            vlan: None,
        };
        let to = layout.address(Host::Replica(0));
        let frame = layout.frames(Host::Replica(1), to, &[1; 40], 5).remove(0);
        for bit in 14 * 8..34 * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_longer_than_a_packet_is_cut_into_fragments_that_are_no_datagrams() {
        for ipv6 in [false, true] {
            let layout = Layout { ipv6, vlan: None };
            let to = layout.address(Host::Replica(0));
            let frames = layout.frames(Host::Replica(1), to, &[3; 4000], 5);
            assert_eq!(frames.len(), 3);
            for frame in &frames {
                assert!(frame.len() <= 14 + MTU);
                assert_eq!(parse(frame), Err(Unreadable::Malformed));
            }
        }
    }
}
