//! A load balancer: packets to a service's address go to one of its servers, by a hash of the flow, inside an IPv4 packet to
//! that server (IP in IP, RFC 2003).
//!
//! `cargo run -p bpf-asm --example load_balancer balancer.o && ip link set dev eth0 xdp obj balancer.o sec xdp`

#[path = "headers/layouts.rs"]
mod layouts;

use bpf_asm::builder::{Array, Be, BuildError, Hash, Val, XDP_DROP, XDP_PASS, XDP_TX, xdp};
use bpf_asm::program::Program;
use bpf_asm::{field, layout};
use layouts::{ETHERTYPE_IPV4, Ethernet, IP, Ipv4, PROTOCOL_IPIP, PROTOCOL_TCP, PROTOCOL_UDP};
use layouts::{TRANSPORT, Udp};

layout! {
    /// A service: an address and a port as they lie in a packet.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Service: 8 bytes {
        0 => address: u32,
        4 => port: u16,
        6 => protocol: u16,
    }

    /// A server: where the outer packet goes, and from.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Server: 16 bytes {
        0 => address: u32,
        4 => own_address: u32,
        8 => mac: [u8; 6],
        14 => unused: u16,
    }
}

/// Services, and the number of each.
pub(crate) const SERVICES: Hash<Service, u32> = Hash::new("services", 64);
/// The servers of service n, from n times [`SERVERS_EACH`] on.
pub(crate) const SERVERS: Array<Server> = Array::new("servers", 64 * SERVERS_EACH);
/// Places for servers of a service: a power of two. A server may have several.
pub(crate) const SERVERS_EACH: u32 = 16;

const OUTER: u64 = 20;

/// The program.
///
/// # Errors
/// None: it is the same program each time.
pub(crate) fn program() -> Result<Program, BuildError> {
    xdp("load_balancer", |f| {
        let pass = || f.ret(XDP_PASS);
        let drop = || f.ret(XDP_DROP);
        let packet = f.packet();
        let ethernet = packet.view::<Ethernet>(0, pass);
        let ethertype = ethernet.load(field!(Ethernet, ethertype));
        f.require(ethertype.eq(Be::new(ETHERTYPE_IPV4)), pass);
        let ip = packet.view::<Ipv4>(IP, pass);
        f.require(ip.load(field!(Ipv4, version_length)).eq(0x45u8), pass);
        let protocol = ip.load(field!(Ipv4, protocol));
        f.require(protocol.eq(PROTOCOL_TCP) | protocol.eq(PROTOCOL_UDP), pass);
        // TCP begins with the same two ports.
        let ports = packet.view::<Udp>(TRANSPORT, pass);
        let (source, destination) = (
            ip.load(field!(Ipv4, source)),
            ip.load(field!(Ipv4, destination)),
        );
        let key = f.stack::<Service>();
        key.store(field!(Service, address), destination);
        key.store(field!(Service, port), ports.load(field!(Udp, destination)));
        key.store(field!(Service, protocol), protocol.cast::<u16>());
        let length = ip.load(field!(Ipv4, length)).to_native();
        let flow = source ^ (ports.load(field!(Udp, source)).cast::<u32>() << 16u32);
        let service = SERVICES.lookup(f, key, pass).read();
        let index = (service * SERVERS_EACH) + (mixed(flow) & (SERVERS_EACH - 1));
        let server = SERVERS.lookup(f, index, drop);

        let moved = f.adjust_head(packet, -(OUTER as i64));
        f.if_rare(moved.ne(0i64), drop);
        let packet = f.packet();
        let ethernet = packet.view::<Ethernet>(0, drop);
        let before = packet.view::<Ethernet>(OUTER, drop);
        let outer = packet.view::<Ipv4>(IP, drop);
        // Answers the switch from the address that the packet was sent to.
        let own = before.at(field!(Ethernet, destination));
        ethernet.at(field!(Ethernet, source)).copy_from(own);
        let mac = server.at(field!(Server, mac));
        ethernet.at(field!(Ethernet, destination)).copy_from(mac);
        ethernet.store(field!(Ethernet, ethertype), Be::new(ETHERTYPE_IPV4));

        let own = server.load(field!(Server, own_address));
        let address = server.load(field!(Server, address));
        let length = (length + OUTER as u16).to_be();
        outer.store(field!(Ipv4, version_length), 0x45u8);
        outer.store(field!(Ipv4, tos), 0u8);
        outer.store(field!(Ipv4, length), length);
        outer.store(field!(Ipv4, identification), Be::new(0u16));
        outer.store(field!(Ipv4, fragment), Be::new(0u16));
        outer.store(field!(Ipv4, ttl), 64u8);
        outer.store(field!(Ipv4, protocol), PROTOCOL_IPIP);
        outer.store(field!(Ipv4, source), own);
        outer.store(field!(Ipv4, destination), address);
        // The constant words, as they lie in memory, and those that vary.
        let constant = u64::from(u16::from_ne_bytes([0x45, 0]))
            + u64::from(u16::from_ne_bytes([64, PROTOCOL_IPIP]));
        let sum = length.raw().cast::<u64>() + own.cast::<u64>() + address.cast::<u64>() + constant;
        let checksum = folded(sum) ^ 0xffffu64;
        outer.store(field!(Ipv4, checksum), checksum.cast::<u16>());
        f.ret(XDP_TX);
    })
}

/// Bits that depend on all bits of `flow` (the finalizer of MurmurHash3).
fn mixed<'f>(flow: Val<'f, u32>) -> Val<'f, u32> {
    let flow = (flow ^ (flow >> 16u32)) * 0x85eb_ca6bu32;
    let flow = (flow ^ (flow >> 13u32)) * 0xc2b2_ae35u32;
    flow ^ (flow >> 16u32)
}

/// The Internet checksum's folding (RFC 1071): 16 bits from a sum of 32-bit words.
fn folded<'f>(sum: Val<'f, u64>) -> Val<'f, u64> {
    let sum = (sum & 0xffff_ffffu64) + (sum >> 32u64);
    let sum = (sum & 0xffffu64) + (sum >> 16u64);
    let sum = (sum & 0xffffu64) + (sum >> 16u64);
    (sum & 0xffffu64) + (sum >> 16u64)
}

#[allow(dead_code)] // when a test includes this file
fn main() -> Result<(), Box<dyn std::error::Error>> {
    layouts::write_or_print(program()?, (file!(), include_str!("load_balancer.rs")))
}
