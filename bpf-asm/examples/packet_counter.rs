//! Counts packets and bytes by IP protocol, per CPU, and passes everything.
//!
//! `cargo run -p bpf-asm --example packet_counter counter.o && ip link set dev eth0 xdp obj counter.o sec xdp`

#[path = "headers/layouts.rs"]
mod layouts;

use bpf_asm::builder::{Array, Be, BuildError, XDP_PASS, xdp};
use bpf_asm::field;
use bpf_asm::program::Program;
use layouts::{ETHERTYPE_IPV4, Ethernet, IP, Ipv4};

bpf_asm::layout! {
    /// What is counted of a protocol.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Count: 16 bytes {
        0 => packets: u64,
        8 => bytes: u64,
    }
}

/// By protocol number; what isn't IPv4 counts as 0.
pub(crate) const COUNTS: Array<Count> = Array::per_cpu("counts", 256);

/// The program.
///
/// # Errors
/// None: it is the same program each time.
pub(crate) fn program() -> Result<Program, BuildError> {
    xdp("packet_counter", |f| {
        let pass = || f.ret(XDP_PASS);
        let packet = f.packet();
        let ethernet = packet.view::<Ethernet>(0, pass);
        let protocol = f.var(0u32);
        let is_ipv4 = ethernet
            .load(field!(Ethernet, ethertype))
            .eq(Be::new(ETHERTYPE_IPV4));
        f.if_(is_ipv4, || {
            let ip = packet.view::<Ipv4>(IP, pass);
            protocol.set(ip.load(field!(Ipv4, protocol)).cast::<u32>());
        });
        let count = COUNTS.lookup(f, protocol.get(), pass);
        let packets = count.load(field!(Count, packets));
        count.store(field!(Count, packets), packets + 1u64);
        let bytes = count.load(field!(Count, bytes));
        count.store(field!(Count, bytes), bytes + packet.length());
        f.ret(XDP_PASS);
    })
}

#[allow(dead_code)] // when a test includes this file
fn main() -> Result<(), Box<dyn std::error::Error>> {
    layouts::write_or_print(program()?, (file!(), include_str!("packet_counter.rs")))
}
