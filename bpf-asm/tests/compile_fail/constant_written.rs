//! What lies in `.rodata` can be read, and nothing else.

use bpf_asm::builder::{Constant, XDP_PASS, xdp};

const LIMIT: Constant<u32> = Constant::new("limit", 5);

fn main() {
    let _ = xdp("written", |f| {
        LIMIT.write(f, 6u32);
        f.ret(XDP_PASS);
    });
}
