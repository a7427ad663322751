//! A port in network order is no native number until it is converted.

use bpf_asm::builder::{XDP_DROP, XDP_PASS, xdp};
use zerocopy::byteorder::{BE, U16};

fn main() {
    let _ = xdp("mixed", |f| {
        let packet = f.packet();
        let port = packet.view::<U16<BE>>(0, || f.ret(XDP_DROP)).read();
        f.if_(port.eq(4040u16), || f.ret(XDP_DROP));
        f.ret(XDP_PASS);
    });
}
