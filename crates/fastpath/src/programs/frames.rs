//! What is in front of our messages: Ethernet, VLAN tags, IPv4 or IPv6, UDP (IEEE 802.3, 802.1Q; RFC 791, 8200, 768).

use bpf_asm::builder::{Be, Function, Kind, Packet, Val, Var};
use bpf_asm::field;
use zerocopy::byteorder::big_endian::U16;

use crate::abi::{PEERS, Peer};

/// An Ethernet header, the addresses in pieces that one instruction takes.
#[repr(C)]
pub(super) struct Ethernet {
    pub(super) destination_high: [u8; 4],
    pub(super) destination_low: [u8; 2],
    pub(super) source_high: [u8; 4],
    pub(super) source_low: [u8; 2],
    pub(super) ethertype: U16,
}

/// A VLAN tag: what follows the EtherType that announces it.
#[repr(C)]
pub(super) struct Vlan {
    pub(super) tci: U16,
    pub(super) ethertype: U16,
}

/// An IPv4 header without options, in 32-bit words as they lie in memory (for sums) where nothing else is needed.
#[repr(C)]
pub(super) struct Ipv4 {
    pub(super) version_length: u8,
    pub(super) tos: u8,
    pub(super) length: U16,
    pub(super) identification: u16,
    pub(super) fragment: U16,
    pub(super) ttl: u8,
    pub(super) protocol: u8,
    pub(super) checksum: u16,
    pub(super) source: Wide32,
    pub(super) destination: Wide32,
}

/// An IPv6 header.
#[repr(C)]
pub(super) struct Ipv6 {
    pub(super) version: u8,
    pub(super) class_flow: [u8; 3],
    pub(super) length: U16,
    pub(super) next_header: u8,
    pub(super) hop_limit: u8,
    pub(super) source: [Wide64; 2],
    pub(super) destination: [Wide64; 2],
}

/// A UDP header.
#[repr(C)]
pub(super) struct Udp {
    pub(super) source: RawPort,
    pub(super) destination: RawPort,
    pub(super) length: U16,
    pub(super) checksum: u16,
}

/// Bytes of an address, unaligned in a packet, compared and copied as one word. The programs only do that.
pub(super) type Wide32 = u32;
/// As [`Wide32`], 8 bytes.
pub(super) type Wide64 = u64;
/// A port as it lies in memory.
pub(super) type RawPort = u16;

const _: () = assert!(size_of::<Ethernet>() == 14 && size_of::<Vlan>() == 4);
const _: () = assert!(size_of::<Ipv4>() == 20 && size_of::<Ipv6>() == 40 && size_of::<Udp>() == 8);

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const IPPROTO_UDP: u8 = 17;

/// The farthest that an IP header can begin: two tags.
pub(super) const IP_MAX: u64 = 14 + 2 * 4;
/// The farthest that a UDP header can begin.
pub(super) const UDP_MAX: u64 = IP_MAX + 40;

/// Where things are in a packet that is UDP over IP without options or fragments.
#[derive(Clone, Copy)]
pub(super) struct Parsed<'f> {
    /// Offset of the IP header, at most [`IP_MAX`].
    pub(super) ip: Val<'f, u64>,
    /// Offset of the UDP header, at most [`UDP_MAX`].
    pub(super) udp: Val<'f, u64>,
    /// 4 or 6.
    pub(super) family: Val<'f, u32>,
    /// Bytes of the UDP payload, as UDP and IP agree on it.
    pub(super) payload: Val<'f, u64>,
    /// Source address and port.
    pub(super) source: Address<'f>,
    /// Destination address and port.
    pub(super) destination: Address<'f>,
}

/// An address and a port as [`Peer`] has them.
#[derive(Clone, Copy)]
pub(super) struct Address<'f> {
    pub(super) words: [Var<'f, u64>; 2],
    pub(super) port: Val<'f, u32>,
}

/// Parses up to UDP; `foreign` for everything that isn't plain UDP over IP, and must end the program.
pub(super) fn parse<'f, K: Kind>(
    f: Function<'f, K>,
    packet: &Packet<'f>,
    foreign: impl Fn() + Copy,
) -> Parsed<'f> {
    let ethernet = packet.view::<Ethernet>(0, foreign);
    let ethertype = f.var(ethernet.load(field!(Ethernet, ethertype)));
    let ip = f.var(14u64);
    for tag in 0..2u64 {
        let is_tag =
            ethertype.get().eq(Be::new(ETH_P_8021Q)) | ethertype.get().eq(Be::new(ETH_P_8021AD));
        f.if_rare(is_tag, || {
            let vlan = packet.view_at::<Vlan>(ip.get(), 14 + 4 * tag, foreign);
            ethertype.set(vlan.load(field!(Vlan, ethertype)));
            ip.set(ip.get() + 4u64);
        });
    }
    let udp = f.var(0u64);
    let family = f.var(0u32);
    // Bytes that IP says follow its header.
    let carried = f.var(0u64);
    let (source, destination) = ([f.var(0u64), f.var(0u64)], [f.var(0u64), f.var(0u64)]);
    let v4 = ethertype.get().eq(Be::new(ETH_P_IP));
    f.if_else(
        v4,
        || {
            let header = packet.view_at::<Ipv4>(ip.get(), IP_MAX, foreign);
            f.require(
                header.load(field!(Ipv4, version_length)).eq(0x45u8),
                foreign,
            );
            f.require(header.load(field!(Ipv4, protocol)).eq(IPPROTO_UDP), foreign);
            // Neither "more fragments" nor an offset.
            f.require(
                (header.load(field!(Ipv4, fragment)) & Be::new(0x3fffu16)).eq(Be::new(0u16)),
                foreign,
            );
            source[0].set(header.load(field!(Ipv4, source)).cast::<u64>());
            destination[0].set(header.load(field!(Ipv4, destination)).cast::<u64>());
            carried.set(header.load(field!(Ipv4, length)).to_native().cast::<u64>() - 20u64);
            udp.set(ip.get() + 20u64);
            family.set(4u32);
        },
        || {
            f.require(ethertype.get().eq(Be::new(ETH_P_IPV6)), foreign);
            let header = packet.view_at::<Ipv6>(ip.get(), IP_MAX, foreign);
            f.require(
                (header.load(field!(Ipv6, version)) & 0xf0u8).eq(0x60u8),
                foreign,
            );
            f.require(
                header.load(field!(Ipv6, next_header)).eq(IPPROTO_UDP),
                foreign,
            );
            for (at, (from, to)) in source.into_iter().zip(destination).enumerate() {
                from.set(header.at(field!(Ipv6, source)).element(at).read());
                to.set(header.at(field!(Ipv6, destination)).element(at).read());
            }
            carried.set(header.load(field!(Ipv6, length)).to_native().cast::<u64>());
            udp.set(ip.get() + 40u64);
            family.set(6u32);
        },
    );
    let header = packet.view_at::<Udp>(udp.get(), UDP_MAX, foreign);
    let length = header.load(field!(Udp, length)).to_native().cast::<u64>();
    f.require(length.eq(carried.get()), foreign);
    Parsed {
        ip: ip.get(),
        udp: udp.get(),
        family: family.get(),
        payload: length - 8u64,
        source: Address {
            words: source,
            port: header.load(field!(Udp, source)).cast(),
        },
        destination: Address {
            words: destination,
            port: header.load(field!(Udp, destination)).cast(),
        },
    }
}

/// Whether an address is a peer's.
pub(super) fn is_peer<'f>(
    peer: bpf_asm::builder::Ptr<'f, Peer>,
    family: Val<'f, u32>,
    address: Address<'f>,
) -> bpf_asm::builder::Cond<'f> {
    let words = peer.at(field!(Peer, address));
    address.words[0].get().eq(words.element(0).read())
        & address.port.eq(peer.load(field!(Peer, port)))
        & address.words[1].get().eq(words.element(1).read())
        & family.eq(peer.load(field!(Peer, family)))
}

/// The Internet checksum's folding (RFC 1071): 16 bits from a sum of 32-bit words.
pub(super) fn folded<'f>(sum: Val<'f, u64>) -> Val<'f, u64> {
    let mut sum = (sum & 0xffff_ffffu64) + (sum >> 32u64);
    for _ in 0..3 {
        sum = (sum & 0xffffu64) + (sum >> 16u64);
    }
    sum
}

const _: () = assert!(PEERS == 16);
