//! A value of the caller isn't there in a subprogram: it has to be an argument.

use bpf_asm::builder::{XDP_PASS, xdp};

fn main() {
    let mut kept = None;
    let _ = xdp("outer", |f| {
        let double = f.subprogram::<[u64; 1], u64>("double", |g, [a]| {
            kept = Some(a);
            g.return_value(a + a);
        });
        let _ = f.call(double, [f.value(1u64)]);
        f.ret(XDP_PASS);
    });
}
