//! Our own header in a packet: its check, read and written.

use bpf_asm::builder::{Function, IntoVal, Kind, Le, Packet, Val, View};
use bpf_asm::field;
use electrode_wire::header::{HEADER_BYTES, Header};

use super::siphash::SipHash;

/// The header as words, for the check.
pub(super) type Words = [u64; HEADER_BYTES / 8];

/// Which word is the check itself.
pub(super) const CHECK_WORD: usize = core::mem::offset_of!(Header, check) / 8;

/// The farthest that our header can begin.
pub(super) const HEADER_MAX: u64 = super::frames::UDP_MAX + 8;

/// The header, given where UDP begins.
pub(super) fn view<'p, 'f>(
    packet: &'p Packet<'f>,
    udp: Val<'f, u64>,
    short: impl Fn(),
) -> View<'p, 'f, Header> {
    packet.view_with::<Header>(udp, super::frames::UDP_MAX, 8, short)
}

/// The check of a message that is a header alone.
pub(super) fn check<'f, K: Kind>(
    f: Function<'f, K>,
    words: View<'_, 'f, Words>,
    key: [Val<'f, u64>; 2],
) -> Val<'f, u64> {
    let hash = SipHash::new(f, key);
    for at in (0..HEADER_BYTES / 8).filter(|at| *at != CHECK_WORD) {
        hash.word(words.element(at).read());
    }
    hash.finish(f.value(HEADER_BYTES as u64 - 8))
}

/// A 64-bit field as a native number.
#[track_caller]
pub(super) fn number<'f>(
    header: View<'_, 'f, Header>,
    field: bpf_asm::builder::Field<Header, zerocopy::byteorder::little_endian::U64>,
) -> Val<'f, u64> {
    header.load(field).to_native()
}

/// Writes a 64-bit field from a native number.
#[track_caller]
pub(super) fn set<'f>(
    f: Function<'f, impl Kind>,
    header: View<'_, 'f, Header>,
    field: bpf_asm::builder::Field<Header, zerocopy::byteorder::little_endian::U64>,
    value: impl IntoVal<'f, u64>,
) {
    let value: Val<'f, u64> = f.var(value).get();
    header.store(field, value.to_le());
}

/// What `magic`, `version` and `epoch` have to be.
pub(super) fn is_ours<'f>(header: View<'_, 'f, Header>) -> bpf_asm::builder::Cond<'f> {
    header
        .load(field!(Header, magic))
        .eq(Le::new(electrode_wire::header::MAGIC))
        & header
            .load(field!(Header, version))
            .eq(electrode_wire::header::VERSION)
        & header
            .load(field!(Header, epoch))
            .eq(Le::new(electrode_wire::header::EPOCH))
}
