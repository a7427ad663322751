//! Answers UDP datagrams to port 7 with themselves (RFC 862), without the stack.
//!
//! `cargo run -p bpf-asm --example echo echo.o && ip link set dev eth0 xdp obj echo.o sec xdp`

#[path = "headers/layouts.rs"]
mod layouts;

use bpf_asm::builder::{Be, BuildError, View, XDP_PASS, XDP_TX, xdp};
use bpf_asm::field;
use bpf_asm::program::Program;
use layouts::{ETHERTYPE_IPV4, Ethernet, IP, Ipv4, PROTOCOL_UDP, TRANSPORT, Udp};

const ECHO_PORT: u16 = 7;

bpf_asm::layout! {
    /// Both addresses of an Ethernet header, in words.
    struct Addresses: 12 bytes {
        0 => words: [u32; 3],
    }
}

/// The program. Swapping addresses and ports changes no checksum.
///
/// # Errors
/// None: it is the same program each time.
pub(crate) fn program() -> Result<Program, BuildError> {
    xdp("echo", |f| {
        let pass = || f.ret(XDP_PASS);
        let packet = f.packet();
        let ethernet = packet.view::<Ethernet>(0, pass);
        let ethertype = ethernet.load(field!(Ethernet, ethertype));
        f.require(ethertype.eq(Be::new(ETHERTYPE_IPV4)), pass);
        let ip = packet.view::<Ipv4>(IP, pass);
        let is_udp = ip.load(field!(Ipv4, version_length)).eq(0x45u8)
            & ip.load(field!(Ipv4, protocol)).eq(PROTOCOL_UDP);
        f.require(is_udp, pass);
        let udp = packet.view::<Udp>(TRANSPORT, pass);
        let port = udp.load(field!(Udp, destination));
        f.require(port.eq(ECHO_PORT.to_be()), pass);

        let source = udp.load(field!(Udp, source));
        udp.store(field!(Udp, destination), source);
        udp.store(field!(Udp, source), port);
        let (from, to) = (
            ip.load(field!(Ipv4, source)),
            ip.load(field!(Ipv4, destination)),
        );
        ip.store(field!(Ipv4, source), to);
        ip.store(field!(Ipv4, destination), from);
        swap_addresses(packet.view::<Addresses>(0, pass));
        f.ret(XDP_TX);
    })
}

/// Destination and source are twelve bytes in a row: rotated by six, as three words.
fn swap_addresses(addresses: View<'_, '_, Addresses>) {
    let words = addresses.at(field!(Addresses, words));
    let [a, b, c] = [0, 1, 2].map(|at| words.element(at).read());
    words.element(0).write((b >> 16u32) | (c << 16u32));
    words.element(1).write((c >> 16u32) | (a << 16u32));
    words.element(2).write((a >> 16u32) | (b << 16u32));
}

#[allow(dead_code)] // when a test includes this file
fn main() -> Result<(), Box<dyn std::error::Error>> {
    layouts::write_or_print(program()?, (file!(), include_str!("echo.rs")))
}
