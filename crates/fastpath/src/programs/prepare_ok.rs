//! `prepare_ok` (XDP, primary): marks a backup's ack in the op's quorum slot. Only the ack that completes a quorum reaches
//! user space, as a small notice, and only if user space sleeps.

use bpf_asm::builder::Field;
use bpf_asm::builder::{
    BPF_RB_FORCE_WAKEUP, BuildError, Function, Ptr, Val, XDP_DROP, XDP_PASS, Xdp, xdp,
};
use bpf_asm::field;
use bpf_asm::program::Program;
use electrode_vr::mutations::{Mutation, active};
use electrode_wire::header::{HEADER_BYTES, Header};

use super::frames::{UDP_MAX, is_peer, parse};
use super::header::{Words, number};
use super::{HEARD, RING, SLOT_WORDS, header, leave, ordered_tail, shared};
use crate::abi::{
    Block, FLAG_COUNT, Heard, OP_BITS, OP_MASK, PEERS, RECORD_NOTICE, RecordHeader, SLOTS, Shared,
    WAKE_ON_QUORUM,
};
use crate::counters::Counters;

/// Tries for a slot's word before the ack is passed up.
const TRIES: u64 = 4;

pub(super) fn build() -> Result<Program, BuildError> {
    xdp("prepare_ok", |f| {
        let foreign = || leave(f, field!(Counters, dispatch_foreign), XDP_PASS);
        let malformed = || leave(f, field!(Counters, prepare_ok_malformed), XDP_DROP);
        let bad_index = || leave(f, field!(Counters, prepare_ok_index), XDP_DROP);
        let packet = f.packet();
        let parsed = parse(f, &packet, foreign);
        let header = header::view(&packet, parsed.udp, foreign);
        f.require(parsed.payload.eq(HEADER_BYTES as u64), malformed);

        let shared = shared(f);
        let tail = ordered_tail(shared);
        let generation = tail >> u64::from(OP_BITS);
        let newest = tail & OP_MASK;
        let block = shared.at(field!(Shared, blocks)).index_masked(generation);
        let current_view = block.load(field!(Block, view));
        let key = [0, 1].map(|at| block.at(field!(Block, key)).element(at).read());
        let quorum = block.load(field!(Block, quorum)).cast::<u64>();
        let fenced = block.load(field!(Block, generation)).ne(generation)
            | (block.load(field!(Block, flags)) & FLAG_COUNT).eq(0u64);
        f.if_rare(fenced, || {
            leave(f, field!(Counters, prepare_ok_fenced), XDP_PASS)
        });
        f.if_rare(
            number(header, field!(Header, group)).ne(block.load(field!(Block, group))),
            || {
                leave(f, field!(Counters, prepare_ok_group), XDP_PASS);
            },
        );
        let sender = header.load(field!(Header, sender)).cast::<u64>();
        let replicas = block.load(field!(Block, replicas)).cast::<u64>();
        let index = block.load(field!(Block, index)).cast::<u64>();
        f.if_rare(sender.ge(replicas) | sender.eq(index), bad_index);
        let peer = block.at(field!(Block, peers)).index(sender, bad_index);
        f.if_rare(!is_peer(peer, parsed.family, parsed.source), || {
            leave(f, field!(Counters, prepare_ok_source), XDP_DROP);
        });

        let words = packet.view_with::<Words>(parsed.udp, UDP_MAX, 8, malformed);
        let check = header::check(f, words, key);
        f.if_rare(number(header, field!(Header, check)).ne(check), || {
            leave(f, field!(Counters, prepare_ok_check), XDP_DROP);
        });
        let view = number(header, field!(Header, view));
        if !active(Mutation::KernelCountsOtherViews) {
            f.if_rare(view.gt(current_view), || {
                leave(f, field!(Counters, prepare_ok_newer), XDP_PASS)
            });
            f.if_rare(view.lt(current_view), || {
                leave(f, field!(Counters, prepare_ok_older), XDP_DROP)
            });
        }
        let op = number(header, field!(Header, op));
        let progress = number(header, field!(Header, first));
        // Op 0 is how a backup of an empty log answers an idle primary: no slot has it, and it is passed up as a life sign.
        f.if_rare(op.gt(progress) | progress.gt(newest), malformed);
        let no_slot = || leave(f, field!(Counters, prepare_ok_no_slot), XDP_PASS);
        f.if_rare((newest - op).ge(u64::from(SLOTS)), no_slot);

        heard(f, sender, generation, progress);

        let slots = SLOT_WORDS.lookup(f, (op & u64::from(SLOTS - 1)).cast::<u32>(), no_slot);
        let opened = ((generation << 32u64) | (op & 0xffff_ffffu64)) << 16u64;
        let bit = f.value(1u64) << sender;
        f.loop_up_to(TRIES, |_, _| {
            let word = slots.read();
            f.if_rare((word & !0xffffu64).ne(opened), no_slot);
            f.if_((word & bit).ne(0u64), || {
                leave(f, field!(Counters, prepare_ok_surplus), XDP_DROP)
            });
            let marked = word | bit;
            if active(Mutation::SlotByPlainOr) {
                // It marks the word whatever has become of it.
                slots.fetch_or(Field::whole(), bit);
                leave(f, field!(Counters, prepare_ok_counted), XDP_DROP);
            }
            f.if_(slots.compare_exchange_whole(word, marked).eq(word), || {
                let acks = f.count_ones(marked & 0xffffu64);
                f.if_(acks.lt(quorum), || {
                    leave(f, field!(Counters, prepare_ok_counted), XDP_DROP)
                });
                f.if_(acks.gt(quorum), || {
                    leave(f, field!(Counters, prepare_ok_surplus), XDP_DROP)
                });
                completed(f, shared, op);
            });
        });
        leave(f, field!(Counters, prepare_ok_race), XDP_PASS);
    })
}

/// R9: a life sign of the backup and its progress, before the ack is dropped.
fn heard<'f>(
    f: Function<'f, Xdp>,
    sender: Val<'f, u64>,
    generation: Val<'f, u64>,
    progress: Val<'f, u64>,
) {
    let index = (sender & (PEERS as u64 - 1)).cast::<u32>();
    let heard = HEARD.lookup(f, index, || f.ret(XDP_PASS));
    let word = (generation << u64::from(OP_BITS)) | progress;
    let old = heard.load(field!(Heard, op));
    // Never backwards within a generation; two CPUs at once may lose the later one, which the next ack mends.
    f.if_(
        (old >> u64::from(OP_BITS)).ne(generation) | word.gt(old),
        || heard.store(field!(Heard, op), word),
    );
    heard.store(field!(Heard, at), f.ktime_ns());
}

/// The quorum is complete: wake user space if it sleeps. If it doesn't, it reads the slots before it does.
fn completed<'f>(f: Function<'f, Xdp>, shared: Ptr<'f, Shared>, op: Val<'f, u64>) {
    // Ordered behind the exchange of the slot, as user space's store of this word is before its reads of the slots.
    let asleep = (shared.fetch_add(field!(Shared, wake), 0u64) & WAKE_ON_QUORUM).ne(0u64);
    f.if_(!asleep, || {
        leave(f, field!(Counters, prepare_ok_completed), XDP_DROP)
    });
    let notice = f.stack::<RecordHeader>();
    notice.store(field!(RecordHeader, generation), RECORD_NOTICE);
    notice.store(field!(RecordHeader, length), op);
    let sent = RING.output(f, notice, BPF_RB_FORCE_WAKEUP);
    f.if_rare(sent.is_negative(), || {
        leave(f, field!(Counters, prepare_ok_full), XDP_PASS)
    });
    leave(f, field!(Counters, prepare_ok_noticed), XDP_DROP);
}
