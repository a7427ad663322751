//! Fourteen bytes were checked; a field of something longer is not in them.

use bpf_asm::field;
use bpf_asm::builder::{XDP_DROP, XDP_PASS, xdp};
use zerocopy::byteorder::{BE, U16};

#[repr(C)]
struct Ethernet {
    addresses: [u8; 12],
    ether_type: U16<BE>,
}

#[repr(C)]
struct Tagged {
    ethernet: Ethernet,
    tag: U16<BE>,
}

fn main() {
    let _ = xdp("past", |f| {
        let packet = f.packet();
        let view = packet.view::<Ethernet>(0, || f.ret(XDP_DROP));
        let tag = field!(Tagged, tag);
        let _ = view.load(tag);
        f.ret(XDP_PASS);
    });
}
