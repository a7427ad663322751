//! A view ends where the packet is moved.

use bpf_asm::builder::{XDP_DROP, XDP_PASS, xdp};

fn main() {
    let _ = xdp("moved", |f| {
        let packet = f.packet();
        let view = packet.view::<u64>(0, || f.ret(XDP_DROP));
        let _ = f.adjust_head(packet, -8i64);
        view.write(1u64);
        f.ret(XDP_PASS);
    });
}
