//! What is in front of a payload: Ethernet (IEEE 802.3), IPv4 (RFC 791), TCP (RFC 9293), UDP (RFC 768).

#![allow(dead_code)] // each example needs some of it

use zerocopy::byteorder::big_endian::{U16, U32};

bpf_asm::layout! {
    /// An Ethernet header; the addresses in pieces that one instruction takes.
    pub(crate) struct Ethernet: 14 bytes {
        0 => destination: [u8; 6],
        6 => source: [u8; 6],
        12 => ethertype: U16,
    }

    /// An IPv4 header without options. The addresses are as they lie in memory: compared, hashed and copied, never computed with.
    pub(crate) struct Ipv4: 20 bytes {
        0 => version_length: u8,
        1 => tos: u8,
        2 => length: U16,
        4 => identification: U16,
        6 => fragment: U16,
        8 => ttl: u8,
        9 => protocol: u8,
        10 => checksum: u16,
        12 => source: u32,
        16 => destination: u32,
    }

    /// A UDP header; the ports as they lie in memory.
    pub(crate) struct Udp: 8 bytes {
        0 => source: u16,
        2 => destination: u16,
        4 => length: U16,
        6 => checksum: u16,
    }

    /// A TCP header without options.
    pub(crate) struct Tcp: 20 bytes {
        0 => source: u16,
        2 => destination: u16,
        4 => sequence: U32,
        8 => acknowledgement: U32,
        12 => offset: u8,
        13 => flags: u8,
        14 => window: U16,
        16 => checksum: u16,
        18 => urgent: U16,
    }
}

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const PROTOCOL_IPIP: u8 = 4;
pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_UDP: u8 = 17;

/// Where IP begins behind Ethernet without tags.
pub(crate) const IP: u64 = 14;
/// Where what IP carries begins if IP has no options.
pub(crate) const TRANSPORT: u64 = IP + 20;

/// Writes the object to the file that the command line names, or prints the listing.
pub(crate) fn write_or_print(
    program: bpf_asm::program::Program,
    source: (&str, &str),
) -> Result<(), Box<dyn std::error::Error>> {
    use bpf_asm::object::Object;
    match std::env::args_os().nth(1) {
        Some(path) => {
            let object = Object::new("GPL").sources(&[source]);
            std::fs::write(path, object.program(program).to_elf()?)?;
        }
        None => println!("{}", bpf_asm::disasm::listing(&program.main)),
    }
    Ok(())
}
