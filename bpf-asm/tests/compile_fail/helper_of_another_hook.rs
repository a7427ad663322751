//! A socket buffer can't be cut by the helper that XDP has for it.

use bpf_asm::builder::{TC_ACT_OK, classifier};

fn main() {
    let _ = classifier("wrong_hook", |f| {
        let packet = f.packet();
        let _ = f.adjust_tail(packet, -8i64);
        f.ret(TC_ACT_OK);
    });
}
