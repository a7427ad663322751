//! A table whose keys are addresses isn't asked by a port.

use bpf_asm::builder::{Hash, XDP_PASS, xdp};

const FLOWS: Hash<u32, u64> = Hash::new("flows", 16);

fn main() {
    let _ = xdp("wrong_key", |f| {
        let found = FLOWS.lookup(f, 4040u16, || f.ret(XDP_PASS));
        found.write(1u64);
        f.ret(XDP_PASS);
    });
}
