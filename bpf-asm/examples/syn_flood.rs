//! Counts TCP connection attempts by source; a source that makes too many is reported once through a ring buffer and dropped
//! from then on.
//!
//! `cargo run -p bpf-asm --example syn_flood syn_flood.o && ip link set dev eth0 xdp obj syn_flood.o sec xdp`

#[path = "headers/layouts.rs"]
mod layouts;

use bpf_asm::builder::{BPF_ANY, Be, BuildError, Constant, Hash, RingBuf, XDP_DROP, XDP_PASS, xdp};
use bpf_asm::program::Program;
use bpf_asm::{field, layout};
use layouts::{ETHERTYPE_IPV4, Ethernet, IP, Ipv4, PROTOCOL_TCP, TRANSPORT, Tcp};

layout! {
    /// A report.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Event: 16 bytes {
        0 => source: u32,
        4 => unused: u32,
        8 => attempts: u64,
    }
}

/// Attempts by source address; sources not heard of for long make room for others.
pub(crate) const ATTEMPTS: Hash<u32, u64> = Hash::lru("attempts", 65536);
/// Reports for user space.
pub(crate) const EVENTS: RingBuf = RingBuf::new("events", 1 << 16);
/// How many attempts are too many; user space may set another number before it loads the program.
pub(crate) const LIMIT: Constant<u64> = Constant::new("limit", 100);

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The program.
///
/// # Errors
/// None: it is the same program each time.
pub(crate) fn program() -> Result<Program, BuildError> {
    xdp("syn_flood", |f| {
        let pass = || f.ret(XDP_PASS);
        let packet = f.packet();
        let ethernet = packet.view::<Ethernet>(0, pass);
        let ethertype = ethernet.load(field!(Ethernet, ethertype));
        f.require(ethertype.eq(Be::new(ETHERTYPE_IPV4)), pass);
        let ip = packet.view::<Ipv4>(IP, pass);
        let is_tcp = ip.load(field!(Ipv4, version_length)).eq(0x45u8)
            & ip.load(field!(Ipv4, protocol)).eq(PROTOCOL_TCP);
        f.require(is_tcp, pass);
        let tcp = packet.view::<Tcp>(TRANSPORT, pass);
        let flags = tcp.load(field!(Tcp, flags));
        f.require((flags & (SYN | ACK)).eq(SYN), pass);

        let source = ip.load(field!(Ipv4, source));
        let attempts = ATTEMPTS.lookup(f, source, || {
            ATTEMPTS.update(f, source, 1u64, BPF_ANY);
            f.ret(XDP_PASS);
        });
        let before = attempts.fetch_add(bpf_asm::builder::Field::<u64, u64>::whole(), 1u64);
        let limit = LIMIT.read(f);
        f.if_(before.lt(limit), pass);
        f.if_(before.eq(limit), || {
            let event = EVENTS.reserve::<Event, _>(f, || f.ret(XDP_DROP));
            event.ptr().store(field!(Event, source), source);
            event.ptr().store(field!(Event, unused), 0u32);
            event.ptr().store(field!(Event, attempts), before);
            event.submit(0u64);
        });
        f.ret(XDP_DROP);
    })
}

#[allow(dead_code)] // when a test includes this file
fn main() -> Result<(), Box<dyn std::error::Error>> {
    layouts::write_or_print(program()?, (file!(), include_str!("syn_flood.rs")))
}
