//! `prepare` (XDP, backup): stores a Prepare in the ring and answers it. The numbered steps are those of docs/fast-path.md.

use bpf_asm::builder::{
    BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, Be, BuildError, Function, Packet,
    Ptr, Record, Val, Var, XDP_DROP, XDP_PASS, XDP_TX, Xdp, xdp,
};
use bpf_asm::field;
use bpf_asm::program::Program;
use electrode_vr::mutations::{Mutation, active};
use electrode_wire::header::{
    ENTRY_HEADER_BYTES, EntryHeader, HEADER_BYTES, Header, Kind as Message,
};
use zerocopy::byteorder::little_endian::U64;

use super::frames::{Ethernet, IP_MAX, Ipv4, Ipv6, Parsed, UDP_MAX, Udp, folded, is_peer, parse};
use super::header::{CHECK_WORD, HEADER_MAX, Words, number, set};
use super::siphash::SipHash;
use super::{RING, header, leave, ordered_tail, shared};
use crate::abi::{
    BATCH_OPS, Block, FLAG_ANSWER, FLAG_STORE, MESSAGE_BYTES, OP_BITS, OP_MASK, PEERS,
    Record as RingRecord, RecordHeader, SMALL_MESSAGE_BYTES, STALE_INTERVAL_NS, Shared,
    WAKE_ON_STORE,
};
use crate::counters::Counters;

/// A quarter of the ring unread wakes user space.
const WAKE_BYTES: u64 = crate::abi::RING_BYTES as u64 / 4;

/// What was copied of a block.
struct Copied<'f> {
    view: Val<'f, u64>,
    key: [Val<'f, u64>; 2],
    primary: Val<'f, u64>,
    index: Val<'f, u32>,
    answers: bpf_asm::builder::Cond<'f>,
}

pub(super) fn build() -> Result<Program, BuildError> {
    xdp("prepare", |f| {
        let pass_foreign = || leave(f, field!(Counters, dispatch_foreign), XDP_PASS);
        let malformed = || leave(f, field!(Counters, prepare_malformed), XDP_DROP);
        let shared = shared(f);
        // The newest op that the answer tells.
        let newest = f.var(0u64);
        let done = f.var(0u32);
        let udp = f.var(0u64);
        let ip = f.var(0u64);
        let family = f.var(0u32);
        let index = f.var(0u32);
        let key = [f.var(0u64), f.var(0u64)];
        // Step 1, again at most once after a lost race.
        f.loop_up_to(2, |_, retry| {
            let packet = f.packet();
            let parsed = parse(f, &packet, pass_foreign);
            let header = header::view(&packet, parsed.udp, pass_foreign);

            let tail = ordered_tail(shared);
            let generation = tail >> u64::from(OP_BITS);
            let last_op = tail & OP_MASK;
            let block = shared.at(field!(Shared, blocks)).index_masked(generation);
            let copied = Copied {
                view: block.load(field!(Block, view)),
                key: [0, 1].map(|at| block.at(field!(Block, key)).element(at).read()),
                primary: block.load(field!(Block, primary)).cast::<u64>(),
                index: block.load(field!(Block, index)),
                answers: (block.load(field!(Block, flags)) & FLAG_ANSWER).ne(0u64),
            };
            let fenced = if active(Mutation::KernelTakesFenced) {
                block.load(field!(Block, replicas)).eq(0u32)
            } else {
                block.load(field!(Block, generation)).ne(generation)
                    | (block.load(field!(Block, flags)) & FLAG_STORE).eq(0u64)
            };
            f.if_rare(fenced, || {
                leave(f, field!(Counters, prepare_fenced), XDP_PASS)
            });
            let group = block.load(field!(Block, group));
            f.if_rare(number(header, field!(Header, group)).ne(group), || {
                leave(f, field!(Counters, prepare_group), XDP_PASS);
            });
            let sender = header.load(field!(Header, sender)).cast::<u64>();
            let bad_index = || leave(f, field!(Counters, prepare_index), XDP_DROP);
            let peer = block.at(field!(Block, peers)).index(sender, bad_index);
            f.if_rare(!is_peer(peer, parsed.family, parsed.source), || {
                leave(f, field!(Counters, prepare_source), XDP_DROP);
            });

            // Step 2.
            let view = number(header, field!(Header, view));
            if !active(Mutation::KernelTakesNewerView) {
                f.if_rare(view.gt(copied.view), || {
                    leave(f, field!(Counters, prepare_newer), XDP_PASS)
                });
            }

            let first = number(header, field!(Header, first));
            let last = number(header, field!(Header, op));
            let commit = number(header, field!(Header, commit));
            let range = first.eq(0u64)
                | first.gt(last)
                | last.gt(OP_MASK)
                | (last - first).ge(BATCH_OPS)
                | commit.gt(OP_MASK);
            f.if_rare(range, malformed);
            f.if_rare(parsed.payload.gt(MESSAGE_BYTES as u64), || {
                leave(f, field!(Counters, prepare_large), XDP_PASS);
            });
            f.if_rare((parsed.payload & 7u64).ne(0u64), malformed);

            let claimed = number(header, field!(Header, check));
            let check = check_of(f, &parsed, copied.key);
            if !active(Mutation::KernelTakesDamaged) {
                f.if_rare(claimed.ne(check), || {
                    leave(f, field!(Counters, prepare_check), XDP_DROP)
                });
            }
            walk_entries(f, &parsed, last - first + 1u64);
            // The rest of step 2: what of it changes memory waits for the check.
            let packet = f.packet();
            let header = header::view(&packet, parsed.udp, malformed);
            let view = number(header, field!(Header, view));
            if !active(Mutation::KernelTakesOlderView) {
                f.if_rare(view.lt(copied.view), || older_view(f, shared));
            }
            // The primary of another view is another replica: who takes those can't ask for this one.
            if !active(Mutation::KernelTakesNewerView) && !active(Mutation::KernelTakesOlderView) {
                let sender = header.load(field!(Header, sender)).cast::<u64>();
                f.if_rare(sender.ne(copied.primary), bad_index);
            }

            // What the answer needs, now that the packet is known to be the primary's.
            udp.set(parsed.udp);
            ip.set(parsed.ip);
            family.set(parsed.family);
            index.set(copied.index);
            key[0].set(copied.key[0]);
            key[1].set(copied.key[1]);

            // Step 3.
            f.if_(last.le(last_op), || {
                super::count(f, field!(Counters, prepare_duplicate));
                let same = (ordered_tail(shared) >> u64::from(OP_BITS)).eq(generation);
                f.if_rare(!(same & copied.answers), || {
                    leave(f, field!(Counters, prepare_fenced), XDP_PASS)
                });
                newest.set(last_op);
                done.set(1u32);
                retry.break_();
            });
            // Step 4.
            if !active(Mutation::KernelTakesGap) {
                f.if_rare(first.gt(last_op + 1u64), || {
                    leave(f, field!(Counters, prepare_gap), XDP_PASS)
                });
            }

            // Steps 5 and 6, by the size of the message.
            let new_tail = (generation << u64::from(OP_BITS)) | last;
            let stored = f.var(0u32);
            f.if_else(
                parsed.payload.le(SMALL_MESSAGE_BYTES as u64),
                || store::<{ SMALL_MESSAGE_BYTES / 8 }>(f, &parsed, shared, tail, new_tail, stored),
                || store::<{ MESSAGE_BYTES / 8 }>(f, &parsed, shared, tail, new_tail, stored),
            );
            f.if_(stored.get().ne(0u32), || {
                super::count(f, field!(Counters, prepare_stored));
                // In disk mode stored is not yet durable: user space answers, and is woken by the packet itself.
                f.if_rare(!copied.answers, || f.ret(XDP_PASS));
                newest.set(last);
                done.set(1u32);
                retry.break_();
            });
        });
        f.if_rare(done.get().eq(0u32), || {
            leave(f, field!(Counters, prepare_race), XDP_PASS)
        });
        answer(
            f,
            ip.get(),
            udp.get(),
            family.get(),
            index.get(),
            [key[0].get(), key[1].get()],
            newest.get(),
        );
    })
}

/// A message of an older view is dropped, but now and then passed, so that user space tells a deposed primary.
fn older_view<'f>(f: Function<'f, Xdp>, shared: Ptr<'f, Shared>) {
    let now = f.ktime_ns();
    let passed = shared.load(field!(Shared, stale_passed));
    f.if_((now - passed).gt(STALE_INTERVAL_NS), || {
        shared.store(field!(Shared, stale_passed), now);
        leave(f, field!(Counters, prepare_older_passed), XDP_PASS);
    });
    leave(f, field!(Counters, prepare_older), XDP_DROP);
}

/// The check over the whole message, word by word.
fn check_of<'f>(f: Function<'f, Xdp>, parsed: &Parsed<'f>, key: [Val<'f, u64>; 2]) -> Val<'f, u64> {
    let packet = f.packet();
    let short = || leave(f, field!(Counters, prepare_malformed), XDP_DROP);
    let hash = SipHash::new(f, key);
    let words = packet.view_with::<Words>(parsed.udp, UDP_MAX, 8, short);
    for at in (0..HEADER_BYTES / 8).filter(|at| *at != CHECK_WORD) {
        hash.word(words.element(at).read());
    }
    let end = body_end(&packet, parsed, short);
    let at = f.var(parsed.udp + HEADER_BYTES as u64);
    f.loop_up_to((MESSAGE_BYTES - HEADER_BYTES) as u64 / 8, |_, lp| {
        f.if_(at.get().ge(end), || lp.break_());
        let word = packet.view_with::<u64>(at.get(), UDP_MAX + MESSAGE_BYTES as u64, 8, short);
        hash.word(word.read());
        at.set(at.get() + 8u64);
    });
    hash.finish(parsed.payload - 8u64)
}

/// Where the message ends, counted as the UDP header's offset is.
///
/// Read from the packet anew, and the packet itself asked for anew, by each loop over the message: the verifier learns an exact
/// length in each iteration, and would follow the rest of the program once for every length if that were used again.
fn body_end<'f>(packet: &Packet<'f>, parsed: &Parsed<'f>, short: impl Fn()) -> Val<'f, u64> {
    let header = header::view(packet, parsed.udp, short);
    header
        .load(field!(Header, length))
        .to_native()
        .cast::<u64>()
        + HEADER_BYTES as u64
        + parsed.udp
}

/// R8: as many entries as ops, their lengths add up to the body's, and the padding is zeros: user space refuses any other, and
/// it can't refuse what was acknowledged.
fn walk_entries<'f>(f: Function<'f, Xdp>, parsed: &Parsed<'f>, entries: Val<'f, u64>) {
    let packet = f.packet();
    let malformed = || leave(f, field!(Counters, prepare_malformed), XDP_DROP);
    let end = body_end(&packet, parsed, malformed);
    let at = f.var(parsed.udp + HEADER_BYTES as u64);
    f.loop_up_to(BATCH_OPS, |entry, lp| {
        f.if_(entry.ge(entries), || lp.break_());
        let header =
            packet.view_with::<EntryHeader>(at.get(), UDP_MAX + MESSAGE_BYTES as u64, 8, malformed);
        let length = header
            .load(field!(EntryHeader, length))
            .to_native()
            .cast::<u64>();
        f.require(length.le(MESSAGE_BYTES as u64), malformed);
        // The word that the entry ends with, and how many of its bytes are the op's: 8 where there is no padding (also of an
        // empty op, whose last word is its header's). Shifted twice, since a shift by 64 isn't one.
        let last = at.get() + (ENTRY_HEADER_BYTES as u64 - 8) + ((length + 7u64) & !7u64);
        let word = packet.view_with::<u64>(last, UDP_MAX + MESSAGE_BYTES as u64, 8, malformed);
        let but_one = ((length - 1u64) & 7u64) << 3u64;
        f.require(((word.read() >> but_one) >> 8u64).eq(0u64), malformed);
        at.set(last + 8u64);
    });
    f.require(at.get().eq(end), malformed);
}

/// Reserves, copies, exchanges the tail, submits. Sets `stored` if the exchange succeeded; a lost race leaves it 0.
fn store<'f, const WORDS: usize>(
    f: Function<'f, Xdp>,
    parsed: &Parsed<'f>,
    shared: Ptr<'f, Shared>,
    tail: Val<'f, u64>,
    new_tail: Val<'f, u64>,
    stored: Var<'f, u32>,
) {
    let record: Record<'f, RingRecord<WORDS>> = RING.reserve(f, || {
        if active(Mutation::AckBeforeStore) {
            shared.compare_exchange(field!(Shared, tail), tail, new_tail);
        }
        leave(f, field!(Counters, prepare_full), XDP_PASS);
    });
    let front = record.ptr().at(field!(RingRecord<WORDS>, header));
    front.store(field!(RecordHeader, generation), tail >> u64::from(OP_BITS));
    front.store(field!(RecordHeader, length), parsed.payload);
    let short = || {
        record.discard(BPF_RB_NO_WAKEUP);
        leave(f, field!(Counters, prepare_malformed), XDP_DROP);
    };
    let words = record.ptr().at(field!(RingRecord<WORDS>, words));
    let packet = f.packet();
    let end = body_end(&packet, parsed, short);
    let at = f.var(parsed.udp);
    f.loop_up_to(WORDS as u64, |word, lp| {
        f.if_(at.get().ge(end), || lp.break_());
        let from = packet.view_with::<u64>(at.get(), UDP_MAX + 8 * WORDS as u64, 8, short);
        words.index(word, short).write(from.read());
        at.set(at.get() + 8u64);
    });
    let (tail, new_tail) = if active(Mutation::StaleGenerationAccepted) {
        let now = ordered_tail(shared);
        (now, (now & !OP_MASK) | (new_tail & OP_MASK))
    } else {
        (tail, new_tail)
    };
    let old = shared.compare_exchange(field!(Shared, tail), tail, new_tail);
    f.if_else(
        old.eq(tail),
        || {
            // Nothing that fails from here on may discard: the op counts as stored.
            let unread = RING.query(f, BPF_RB_AVAIL_DATA);
            let wake = (shared.load(field!(Shared, wake)) & WAKE_ON_STORE).ne(0u64)
                | unread.ge(WAKE_BYTES);
            let flags = f.choose(wake, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP);
            record.submit(flags);
            stored.set(1u32);
        },
        || {
            if active(Mutation::LostRaceSubmitted) {
                record.submit(BPF_RB_NO_WAKEUP);
            } else {
                record.discard(BPF_RB_NO_WAKEUP);
            }
        },
    );
}

/// Turns the Prepare in the packet into its PrepareOk and sends it back. What fails here is dropped: the primary sends again.
fn answer<'f>(
    f: Function<'f, Xdp>,
    ip: Val<'f, u64>,
    udp: Val<'f, u64>,
    family: Val<'f, u32>,
    index: Val<'f, u32>,
    key: [Val<'f, u64>; 2],
    newest: Val<'f, u64>,
) {
    let failed = || leave(f, field!(Counters, prepare_unanswered), XDP_DROP);
    // The frame ends where the header ends, whatever padding or body there was.
    let packet = f.packet();
    let end = udp + (8 + HEADER_BYTES) as u64;
    let by = end - packet.length();
    let moved = f.adjust_tail(packet, by.cast::<i64>());
    f.if_rare(moved.is_negative(), failed);

    let packet = f.packet();
    let ethernet = packet.view::<Ethernet>(0, failed);
    let (high, low) = (field!(Ethernet, source_high), field!(Ethernet, source_low));
    let (to_high, to_low) = (
        field!(Ethernet, destination_high),
        field!(Ethernet, destination_low),
    );
    swap::<u32, [u8; 4]>(ethernet.at(high), ethernet.at(to_high));
    swap::<u16, [u8; 2]>(ethernet.at(low), ethernet.at(to_low));

    let header = packet.view_with::<Header>(udp, UDP_MAX, 8, failed);
    header.store(field!(Header, kind), Message::PrepareOk as u8);
    header.store(field!(Header, sender), index.cast::<u8>());
    header.store(field!(Header, flags), 0u8);
    set(f, header, field!(Header, first), newest);
    if active(Mutation::KernelAnswersNewestOnly) {
        set(f, header, field!(Header, op), newest);
    }
    if active(Mutation::ViewReadAgain) {
        let shared = shared(f);
        let now = ordered_tail(shared) >> u64::from(OP_BITS);
        let block = shared.at(field!(Shared, blocks)).index_masked(now);
        set(
            f,
            header,
            field!(Header, view),
            block.load(field!(Block, view)),
        );
    }
    set(f, header, field!(Header, commit), 0u64);
    set(f, header, field!(Header, client), 0u64);
    set(f, header, field!(Header, request), 0u64);
    header.store(field!(Header, length), f.value(0u32).to_le());
    let words = packet.view_with::<Words>(udp, UDP_MAX, 8, failed);
    let check = header::check(f, words, key);
    set(f, header, field!(Header, check), check);

    let ports = packet.view_at::<Udp>(udp, UDP_MAX, failed);
    let source = ports.load(field!(Udp, source));
    ports.store(field!(Udp, source), ports.load(field!(Udp, destination)));
    ports.store(field!(Udp, destination), source);
    ports.store(field!(Udp, length), Be::new((8 + HEADER_BYTES) as u16));
    ports.store(field!(Udp, checksum), 0u16);

    f.if_else(
        family.eq(4u32),
        || {
            let header = packet.view_at::<Ipv4>(ip, IP_MAX, failed);
            let source = header.load(field!(Ipv4, source));
            header.store(field!(Ipv4, source), header.load(field!(Ipv4, destination)));
            header.store(field!(Ipv4, destination), source);
            header.store(
                field!(Ipv4, length),
                Be::new((20 + 8 + HEADER_BYTES) as u16),
            );
            header.store(field!(Ipv4, ttl), 64u8);
            header.store(field!(Ipv4, checksum), 0u16);
            let words = packet.view_at::<[u32; 5]>(ip, IP_MAX, failed);
            let mut sum = f.value(0u64);
            for at in 0..5 {
                sum = sum + words.element(at).read().cast::<u64>();
            }
            header.store(
                field!(Ipv4, checksum),
                (folded(sum) ^ 0xffffu64).cast::<u16>(),
            );
        },
        || {
            let header = packet.view_at::<Ipv6>(ip, IP_MAX, failed);
            for at in 0..2 {
                let from = header.at(field!(Ipv6, source)).element(at);
                let to = header.at(field!(Ipv6, destination)).element(at);
                let (source, destination) = (from.read(), to.read());
                from.write(destination);
                to.write(source);
            }
            header.store(field!(Ipv6, length), Be::new((8 + HEADER_BYTES) as u16));
            header.store(field!(Ipv6, hop_limit), 64u8);
            // IPv6 wants a UDP checksum: addresses, length, next header, and everything from the UDP header on.
            let addresses = packet.view_with::<[u32; 8]>(ip, IP_MAX, 8, failed);
            let segment = packet.view_at::<[u32; (8 + HEADER_BYTES) / 4]>(udp, UDP_MAX, failed);
            let pseudo = ((8 + HEADER_BYTES) as u32).to_be() as u64 + 17u32.to_be() as u64;
            let mut sum = f.value(pseudo);
            for at in 0..8 {
                sum = sum + addresses.element(at).read().cast::<u64>();
            }
            for at in 0..(8 + HEADER_BYTES) / 4 {
                sum = sum + segment.element(at).read().cast::<u64>();
            }
            let checksum = f.var((folded(sum) ^ 0xffffu64).cast::<u16>());
            f.if_(checksum.get().eq(0u16), || checksum.set(0xffffu16));
            ports.store(field!(Udp, checksum), checksum);
        },
    );
    leave(f, field!(Counters, prepare_acked), XDP_TX);
}

/// Swaps two equal pieces of the packet, each read and written as one `T`.
fn swap<'f, T, P>(a: bpf_asm::builder::View<'_, 'f, P>, b: bpf_asm::builder::View<'_, 'f, P>)
where
    T: bpf_asm::builder::Cell,
{
    let (a, b) = (a.reinterpret::<T>(), b.reinterpret::<T>());
    let (left, right) = (a.read(), b.read());
    a.write(right);
    b.write(left);
}

const _: () =
    assert!(HEADER_MAX + (MESSAGE_BYTES as u64) < 1 << 16 && PEERS == 16 && size_of::<U64>() == 8);
