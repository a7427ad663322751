//! A firewall: drops IPv4 packets whose source lies in a blocked network, and counts them by network.
//!
//! `cargo run -p bpf-asm --example lpm_firewall firewall.o && ip link set dev eth0 xdp obj firewall.o sec xdp`

#[path = "headers/layouts.rs"]
mod layouts;

use bpf_asm::builder::{Be, BuildError, LpmKey, LpmTrie, XDP_DROP, XDP_PASS, xdp};
use bpf_asm::field;
use bpf_asm::program::Program;
use layouts::{ETHERTYPE_IPV4, Ethernet, IP, Ipv4};

/// Blocked networks, and how many packets came from each.
pub(crate) const BLOCKED: LpmTrie<u32, u64> = LpmTrie::new("blocked", 1024);

/// The program.
///
/// # Errors
/// None: it is the same program each time.
pub(crate) fn program() -> Result<Program, BuildError> {
    xdp("lpm_firewall", |f| {
        let pass = || f.ret(XDP_PASS);
        let packet = f.packet();
        let ethernet = packet.view::<Ethernet>(0, pass);
        let ethertype = ethernet.load(field!(Ethernet, ethertype));
        f.require(ethertype.eq(Be::new(ETHERTYPE_IPV4)), pass);
        let ip = packet.view::<Ipv4>(IP, pass);
        let key = f.stack::<LpmKey<u32>>();
        key.store(field!(LpmKey<u32>, prefix_len), 32u32);
        key.store(field!(LpmKey<u32>, data), ip.load(field!(Ipv4, source)));
        let packets = BLOCKED.lookup(f, key, pass);
        packets.atomic_add(bpf_asm::builder::Field::<u64, u64>::whole(), 1u64);
        f.ret(XDP_DROP);
    })
}

#[allow(dead_code)] // when a test includes this file
fn main() -> Result<(), Box<dyn std::error::Error>> {
    layouts::write_or_print(program()?, (file!(), include_str!("lpm_firewall.rs")))
}
