//! SipHash-2-4 over 64-bit words, as the authenticator computes it (`electrode_wire::check`; Aumasson & Bernstein, 2012).
//!
//! Every message that the kernel checks has a length that is a multiple of 8, so there is never a partial word.

use bpf_asm::builder::{Function, IntoVal, Kind, Val, Var};

/// The state of one hash: four words in registers.
pub(super) struct SipHash<'f> {
    v: [Var<'f, u64>; 4],
}

impl<'f> SipHash<'f> {
    /// Starts a hash with a key.
    pub(super) fn new<K: Kind>(f: Function<'f, K>, key: [Val<'f, u64>; 2]) -> SipHash<'f> {
        SipHash {
            v: [
                f.var(key[0] ^ 0x736f_6d65_7073_6575u64),
                f.var(key[1] ^ 0x646f_7261_6e64_6f6du64),
                f.var(key[0] ^ 0x6c79_6765_6e65_7261u64),
                f.var(key[1] ^ 0x7465_6462_7974_6573u64),
            ],
        }
    }

    /// Takes one word.
    pub(super) fn word(&self, word: impl IntoVal<'f, u64> + Copy) {
        let [v0, _, _, v3] = self.v;
        v3.set(v3.get() ^ word);
        self.round();
        self.round();
        v0.set(v0.get() ^ word);
    }

    /// Ends the hash of `bytes` bytes.
    pub(super) fn finish(&self, bytes: Val<'f, u64>) -> Val<'f, u64> {
        self.word(bytes << 56u64);
        let [v0, v1, v2, v3] = self.v;
        v2.set(v2.get() ^ 0xffu64);
        for _ in 0..4 {
            self.round();
        }
        v0.get() ^ v1.get() ^ v2.get() ^ v3.get()
    }

    fn round(&self) {
        let [v0, v1, v2, v3] = self.v;
        v0.set(v0.get() + v1.get());
        v1.set(v1.get().rotate_left(13) ^ v0.get());
        v0.set(v0.get().rotate_left(32));
        v2.set(v2.get() + v3.get());
        v3.set(v3.get().rotate_left(16) ^ v2.get());
        v0.set(v0.get() + v3.get());
        v3.set(v3.get().rotate_left(21) ^ v0.get());
        v2.set(v2.get() + v1.get());
        v1.set(v1.get().rotate_left(17) ^ v2.get());
        v2.set(v2.get().rotate_left(32));
    }
}
