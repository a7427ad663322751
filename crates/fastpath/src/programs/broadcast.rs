//! `broadcast` (TC egress, primary): user space sends one Prepare with `FLAG_BROADCAST` to one backup; a copy for each other
//! backup whose next hop is known leaves first, the original last.

use bpf_asm::builder::{BuildError, Function, TC_ACT_OK, Tc, Val, Var, View, classifier};
use bpf_asm::field;
use bpf_asm::program::Program;
use electrode_wire::header::{FLAG_BROADCAST, Header};

use super::frames::{Ethernet, IP_MAX, Ipv4, Ipv6, UDP_MAX, Udp, is_peer, parse};
use super::{TARGETS, add, count, header, ordered_tail};
use crate::abi::{Block, CLONE_MARK, OP_BITS, PEERS, Peer, Shared, TARGET_RESOLVED, Target};
use crate::counters::Counters;

/// `BPF_F_PSEUDO_HDR`: the change is in the pseudo-header too.
const PSEUDO: u64 = 1 << 4;
/// `BPF_F_MARK_MANGLED_0`: a UDP checksum of 0 means "none" and stays.
const MANGLED_0: u64 = 1 << 5;

pub(super) fn build() -> Result<Program, BuildError> {
    classifier("broadcast", |f| {
        let ok = || f.ret(TC_ACT_OK);
        // Copies come through here again.
        f.if_(f.mark().eq(CLONE_MARK), ok);
        let unfit = || {
            count(f, field!(Counters, broadcast_unfit));
            f.ret(TC_ACT_OK);
        };
        let original_mac = f.var(0u64);
        let (udp, ip, family) = (f.var(0u64), f.var(0u64), f.var(0u32));
        let (index, replicas) = (f.var(0u64), f.var(0u64));
        let destination = [f.var(0u64), f.var(0u64)];
        let port = f.var(0u32);
        {
            let packet = f.packet();
            let parsed = parse(f, &packet, ok);
            let header = header::view(&packet, parsed.udp, ok);
            f.require(header::is_ours(header), ok);
            f.require(
                (header.load(field!(Header, flags)) & FLAG_BROADCAST).ne(0u8),
                ok,
            );
            let shared = super::SHARED.lookup(f, 0u32, ok);
            let generation = ordered_tail(shared) >> u64::from(OP_BITS);
            // Index, size and addresses are the same in every block.
            let block = shared.at(field!(Shared, blocks)).index_masked(generation);
            index.set(block.load(field!(Block, index)).cast::<u64>());
            replicas.set(block.load(field!(Block, replicas)).cast::<u64>());
            let own = block
                .at(field!(Block, peers))
                .index(index.get() & (PEERS as u64 - 1), ok);
            f.require(is_peer(own, parsed.family, parsed.source), ok);
            f.if_rare(f.gso_segs().gt(1u32), unfit);
            let ethernet = packet.view::<Ethernet>(0, ok);
            let high = ethernet
                .at(field!(Ethernet, destination_high))
                .reinterpret::<u32>()
                .read()
                .cast::<u64>();
            let low = ethernet
                .at(field!(Ethernet, destination_low))
                .reinterpret::<u16>()
                .read()
                .cast::<u64>();
            original_mac.set(high | (low << 32u64));
            udp.set(parsed.udp);
            ip.set(parsed.ip);
            family.set(parsed.family);
            destination[0].set(parsed.destination.words[0]);
            destination[1].set(parsed.destination.words[1]);
            port.set(parsed.destination.port);
        }
        count(f, field!(Counters, broadcast_handled));
        let mark = f.mark();
        f.set_mark(CLONE_MARK);
        f.loop_up_to(PEERS as u64, |at, lp| {
            f.if_(at.ge(replicas.get()), || lp.break_());
            f.if_(at.eq(index.get()), || lp.continue_());
            let target = TARGETS.lookup(f, at.cast::<u32>(), || lp.break_());
            let peer = target.at(field!(Target, peer));
            let words = peer.at(field!(Peer, address));
            let same = destination[0].get().eq(words.element(0).read())
                & destination[1].get().eq(words.element(1).read())
                & port.get().eq(peer.load(field!(Peer, port)));
            // The original's.
            f.if_(same, || lp.continue_());
            f.if_rare(
                (target.load(field!(Target, mac)) & TARGET_RESOLVED).eq(0u64),
                || {
                    count(f, field!(Counters, broadcast_unresolved));
                    lp.continue_();
                },
            );
            f.if_rare(family.get().ne(peer.load(field!(Peer, family))), || {
                lp.continue_()
            });
            let to = Destination {
                mac: target.load(field!(Target, mac)),
                words: [words.element(0).read(), words.element(1).read()],
                port: peer.load(field!(Peer, port)),
            };
            rewrite(f, ip.get(), udp.get(), family.get(), to, || lp.break_());
            let sent = f.clone_redirect(f.packet(), f.ifindex(), 0);
            f.if_else(
                sent.is_negative(),
                || count(f, field!(Counters, broadcast_clone_failed)),
                || add(f, field!(Counters, broadcast_cloned), 1),
            );
        });
        // The original goes where it was sent to.
        f.set_mark(mark);
        let to = Destination {
            mac: original_mac.get(),
            words: destination.map(Var::get),
            port: port.get(),
        };
        rewrite(f, ip.get(), udp.get(), family.get(), to, ok);
        f.ret(TC_ACT_OK);
    })
}

/// Where a packet goes.
struct Destination<'f> {
    mac: Val<'f, u64>,
    words: [Val<'f, u64>; 2],
    port: Val<'f, u32>,
}

/// Addresses the packet: MAC, IP, port, and the sums that cover them.
fn rewrite<'f>(
    f: Function<'f, Tc>,
    ip: Val<'f, u64>,
    udp: Val<'f, u64>,
    family: Val<'f, u32>,
    to: Destination<'f>,
    failed: impl Fn() + Copy,
) {
    let Destination { mac, words, port } = to;
    let packet = f.packet();
    let ethernet = packet.view::<Ethernet>(0, failed);
    ethernet
        .at(field!(Ethernet, destination_high))
        .reinterpret::<u32>()
        .write(mac.cast::<u32>());
    ethernet
        .at(field!(Ethernet, destination_low))
        .reinterpret::<u16>()
        .write((mac >> 32u64).cast::<u16>());
    let ports: View<'_, 'f, Udp> = packet.view_at(udp, UDP_MAX, failed);
    let old_port = ports.load(field!(Udp, destination));
    let new_port = port.cast::<u16>();
    ports.store(field!(Udp, destination), new_port);
    // The sum of 16-bit words of old and new address, for the checksums: in memory order, as the kernel's helpers take them.
    let (from, to): (Var<'f, u64>, Var<'f, u64>) = (f.var(0u64), f.var(0u64));
    f.if_else(
        family.eq(4u32),
        || {
            let header = packet.view_at::<Ipv4>(ip, IP_MAX, failed);
            let old = header.load(field!(Ipv4, destination)).cast::<u64>();
            let new = words[0] & 0xffff_ffffu64;
            header.store(field!(Ipv4, destination), new.cast::<u32>());
            // RFC 1624: HC' = ~(~HC + ~m + m').
            let sum =
                (!header.load(field!(Ipv4, checksum))).cast::<u64>() + (old ^ 0xffff_ffffu64) + new;
            header.store(
                field!(Ipv4, checksum),
                (super::frames::folded(sum) ^ 0xffffu64).cast::<u16>(),
            );
            from.set(old);
            to.set(new);
        },
        || {
            let header = packet.view_at::<Ipv6>(ip, IP_MAX, failed);
            // The helper takes 32 bits before and after; the folded sums of 16 bytes differ as the bytes do.
            let (mut old, mut new) = (f.value(0u64), f.value(0u64));
            for (at, is) in words.into_iter().enumerate() {
                let place = header.at(field!(Ipv6, destination)).element(at);
                let was = place.read();
                place.write(is);
                old = old + (was & 0xffff_ffffu64) + (was >> 32u64);
                new = new + (is & 0xffff_ffffu64) + (is >> 32u64);
            }
            from.set(super::frames::folded(old));
            to.set(super::frames::folded(new));
        },
    );
    let checksum = udp + core::mem::offset_of!(Udp, checksum) as u64;
    let moved = f.l4_csum_replace(
        packet,
        checksum,
        from.get(),
        to.get(),
        PSEUDO | MANGLED_0 | 4,
    );
    f.if_rare(moved.is_negative(), || {
        count(f, field!(Counters, broadcast_unfit))
    });
    let (from, to) = (old_port.cast::<u64>(), new_port.cast::<u64>());
    let moved = f.l4_csum_replace(f.packet(), checksum, from, to, MANGLED_0 | 2);
    f.if_rare(moved.is_negative(), || {
        count(f, field!(Counters, broadcast_unfit))
    });
}
