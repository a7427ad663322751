//! A look-up that finds nothing has to be dealt with.

use bpf_asm::builder::{Array, XDP_PASS, xdp};

const COUNTERS: Array<u64> = Array::new("counters", 1);

fn main() {
    let _ = xdp("unhandled", |f| {
        COUNTERS.lookup(f, 0u32).write(1u64);
        f.ret(XDP_PASS);
    });
}
