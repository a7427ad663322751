//! A layout says where its fields lie, and the compiler agrees or it isn't one.

bpf_asm::layout! {
    struct Padded: 8 bytes {
        0 => kind: u8,
        4 => length: u32,
    }
}

fn main() {
    let _ = Padded { kind: 1, length: 2 };
}
