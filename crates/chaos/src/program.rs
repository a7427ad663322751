//! The program that makes links bad: a classifier on the egress of every port of the switch, which sees every frame between
//! two hosts once, whoever sent it (also what an XDP program sent back).
//!
//! ```text
//!   a frame ── marked: sent by us ───────────────────────────────────────▶ on its way
//!      │
//!      ├─ not UDP of replicas or clients, or not between two hosts ──────▶ on its way
//!      │
//!      └─ what becomes of it is drawn from (seed, pair, number of the frame in its pair):
//!           the pair is cut? lost?                                       ─▶ gone
//!           one bit flipped?  sent twice?  a copy for much later?
//!           held back until the next has passed it, or for a time?       ─▶ into the ring
//!           else                                                         ─▶ on its way
//! ```
//! A program can't keep a frame. What is held back goes to user space as bytes, and comes back by [`sender`].

mod layouts;
#[cfg(test)]
mod tests;

use bpf_asm::builder::{
    Array, Be, BuildError, Function, Ptr, RingBuf, TC_ACT_OK, TC_ACT_SHOT, Tc, Val, classifier,
};
use bpf_asm::field;
use bpf_asm::program::Program;

pub(crate) use layouts::{BLOCK, BLOCKS, Fate, Front, Held, Tally};
use layouts::{Ethernet, Ipv4, Ports};

/// Hosts are told apart by the last byte of their Ethernet address; numbers are below this.
pub(crate) const HOSTS: usize = 16;
/// The first bytes of the address of every host in a lab.
const LAB: u32 = u32::from_ne_bytes([0x02, 0xe1, 0xec, 0x00]);

/// Kinds of records: a frame that waits until another has passed it; one that comes later; a copy that comes much later; and
/// the news that a frame has passed those that wait.
pub(crate) const REORDER: u32 = 0;
pub(crate) const DELAY: u32 = 1;
pub(crate) const LATE: u32 = 2;
pub(crate) const OVERTAKEN: u32 = 3;

/// The map of [`Fate`]s, by [`HOSTS`] * source + destination.
pub(crate) const FATES: &str = "fates";
/// The map of [`Tally`]s.
pub(crate) const TALLIES: &str = "tallies";
/// The ring of what is held back.
pub(crate) const RING: &str = "held";
/// Where [`sender`] sends to.
pub(crate) const TARGET: &str = "target";

const FATE: Array<Fate> = Array::new(FATES, (HOSTS * HOSTS) as u32);
const TALLY: Array<Tally> = Array::new(TALLIES, (HOSTS * HOSTS) as u32);
/// Room for some 900 frames that user space hasn't fetched.
const HELD: RingBuf = RingBuf::new(RING, 2 << 20);
const PORT: Array<u64> = Array::new(TARGET, 1);

/// The mark of what we send ourselves.
const OURS: u32 = 0x00c4_a050;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ETHERNET_BYTES: u32 = 14;

/// The program, for replicas that listen on this port.
pub(crate) fn chaos(port: u16) -> Result<Program, BuildError> {
    classifier("chaos", |f| {
        let pass = || f.ret(TC_ACT_OK);
        f.if_(f.mark().eq(OURS), || {
            // The host shall not see it.
            f.set_mark(0u32);
            f.ret(TC_ACT_OK);
        });
        let pair = f.var(0u32);
        {
            let packet = f.packet();
            let ethernet = packet.view::<Ethernet>(0, pass);
            let word = |field| ethernet.at(field).reinterpret::<u32>().read();
            f.require(word(field!(Ethernet, destination_high)).eq(LAB), pass);
            f.require(word(field!(Ethernet, source_high)).eq(LAB), pass);
            let number = |field| {
                let low = ethernet.at(field).element(1).read();
                low.cast::<u32>() & (HOSTS as u32 - 1)
            };
            let from = number(field!(Ethernet, source_low));
            let to = number(field!(Ethernet, destination_low));
            pair.set(from * HOSTS as u32 + to);
            let ethertype = ethernet.load(field!(Ethernet, ethertype));
            f.if_else(
                ethertype.eq(Be::new(ETHERTYPE_IPV4)),
                || {
                    let ip = packet.view::<Ipv4>(14, pass);
                    f.require(ip.load(field!(Ipv4, version_length)).eq(0x45u8), pass);
                    f.require(ip.load(field!(Ipv4, protocol)).eq(UDP), pass);
                    let offset = ip.load(field!(Ipv4, fragment)) & Be::new(0x1fffu16);
                    // Only a first fragment has ports; the others are of a datagram that only replicas and clients send.
                    f.if_(offset.eq(Be::new(0u16)), || {
                        spare_other_ports(f, packet.view::<Ports>(34, pass).load_both(), port);
                    });
                },
                || {
                    f.require(ethertype.eq(Be::new(ETHERTYPE_IPV6)), pass);
                    let next = packet.view::<u8>(20, pass).read();
                    f.if_(next.ne(FRAGMENT), || {
                        f.require(next.eq(UDP), pass);
                        spare_other_ports(f, packet.view::<Ports>(54, pass).load_both(), port);
                    });
                },
            );
        }
        let fate = FATE.lookup(f, pair.get(), pass);
        let tally = TALLY.lookup(f, pair.get(), pass);
        let number = tally.fetch_add(field!(Tally, seen), 1u64);
        let count = |field| tally.atomic_add(field, 1u64);
        f.if_(fate.load(field!(Fate, cut)).ne(0u64), || {
            count(field!(Tally, cut));
            f.ret(TC_ACT_SHOT);
        });
        let seed = fate.load(field!(Fate, seed)) ^ (pair.get().cast::<u64>() << 48u64);
        let first = f.var(mixed(seed ^ (number << 1u64)));
        let second = f.var(mixed(first.get() ^ seed));
        f.if_rare(
            drawn(first.get(), 0).lt(fate.load(field!(Fate, lose))),
            || {
                count(field!(Tally, lost));
                f.ret(TC_ACT_SHOT);
            },
        );
        // Who waits for being overtaken has been, whatever else happens to this one.
        f.if_rare(tally.load(field!(Tally, waiting)).ne(0u64), || {
            tally.exchange(field!(Tally, waiting), 0u64);
            let front = f.stack::<Front>();
            write_front(f, front, OVERTAKEN, pair.get(), 0u64);
            HELD.output(f, front, 0u64);
        });
        f.if_rare(
            drawn(first.get(), 1).lt(fate.load(field!(Fate, corrupt))),
            || {
                flip_a_bit(f, second.get(), pass);
                count(field!(Tally, corrupted));
            },
        );
        f.if_rare(
            drawn(first.get(), 2).lt(fate.load(field!(Fate, duplicate))),
            || {
                f.set_mark(OURS);
                f.clone_redirect(f.packet(), f.ifindex(), 0);
                f.set_mark(0u32);
                count(field!(Tally, duplicated));
            },
        );
        let full = || count(field!(Tally, ring_full));
        let draw = second.get() >> 32u64;
        // A copy for later; this one goes on.
        f.if_rare(
            drawn(second.get(), 0).lt(fate.load(field!(Fate, late))),
            || {
                let done = hold(f, LATE, pair.get(), draw);
                f.if_else(done.ne(0u64), || count(field!(Tally, late)), full);
            },
        );
        f.if_rare(
            drawn(first.get(), 3).lt(fate.load(field!(Fate, reorder))),
            || {
                let done = hold(f, REORDER, pair.get(), draw);
                f.if_else(
                    done.ne(0u64),
                    || {
                        tally.atomic_add(field!(Tally, waiting), 1u64);
                        f.ret(TC_ACT_SHOT);
                    },
                    full,
                );
            },
        );
        f.if_rare(
            drawn(second.get(), 1).lt(fate.load(field!(Fate, delay))),
            || {
                let done = hold(f, DELAY, pair.get(), draw);
                f.if_else(
                    done.ne(0u64),
                    || {
                        count(field!(Tally, delayed));
                        f.ret(TC_ACT_SHOT);
                    },
                    full,
                );
            },
        );
        f.ret(TC_ACT_OK);
    })
}

/// The program that sends what was held back: run once for each frame, it sends a copy out of the port that [`TARGET`] names.
pub(crate) fn sender() -> Result<Program, BuildError> {
    classifier("chaos_send", |f| {
        let port = PORT.lookup(f, 0u32, || f.ret(TC_ACT_SHOT)).read();
        f.set_mark(OURS);
        f.clone_redirect(f.packet(), port.cast::<u32>(), 0);
        f.ret(TC_ACT_SHOT);
    })
}

/// Source and destination port.
trait BothPorts<'f> {
    fn load_both(self) -> [Val<'f, Be<u16>>; 2];
}

impl<'f> BothPorts<'f> for bpf_asm::builder::View<'_, 'f, Ports> {
    fn load_both(self) -> [Val<'f, Be<u16>>; 2] {
        [
            self.load(field!(Ports, source)),
            self.load(field!(Ports, destination)),
        ]
    }
}

fn spare_other_ports<'f>(f: Function<'f, Tc>, ports: [Val<'f, Be<u16>>; 2], port: u16) {
    let port = Be::new(port);
    f.require(ports[0].eq(port) | ports[1].eq(port), || f.ret(TC_ACT_OK));
}

/// 16 of the drawn bits, to be compared with a share.
fn drawn(bits: Val<'_, u64>, at: u64) -> Val<'_, u64> {
    (bits >> (16 * at)) & 0xffffu64
}

/// SplitMix64's mixing (Steele et al., OOPSLA 2014).
fn mixed(word: Val<'_, u64>) -> Val<'_, u64> {
    let mut word = word + 0x9e37_79b9_7f4a_7c15u64;
    for (shift, by) in [
        (30u64, 0xbf58_476d_1ce4_e5b9u64),
        (27, 0x94d0_49bb_1331_11eb),
    ] {
        word = (word ^ (word >> shift)) * by;
    }
    word ^ (word >> 31u64)
}

/// Flips a bit behind the Ethernet header, whose damage a wire's own check would notice.
fn flip_a_bit<'f>(f: Function<'f, Tc>, draw: Val<'f, u64>, unfit: impl Fn() + Copy) {
    let length = f.len();
    f.require(length.gt(ETHERNET_BYTES), unfit);
    let at = f.var(ETHERNET_BYTES + (draw.cast::<u32>() >> 3u32) % (length - ETHERNET_BYTES));
    let byte = f.stack::<u8>();
    byte.write(0u8);
    f.if_(f.load_bytes(at.get(), byte).is_negative(), unfit);
    let bit = f.value(1u64) << (draw & 7u64);
    byte.write((byte.read().cast::<u64>() ^ bit).cast::<u8>());
    f.store_bytes(f.packet(), at.get(), byte, 0);
}

fn write_front<'f>(
    f: Function<'f, Tc>,
    front: Ptr<'f, Front>,
    kind: u32,
    pair: Val<'f, u32>,
    draw: impl bpf_asm::builder::IntoVal<'f, u64>,
) {
    front.store(field!(Front, kind), kind);
    front.store(field!(Front, pair), pair);
    front.store(field!(Front, port), f.ifindex());
    front.store(field!(Front, length), f.len());
    front.store(field!(Front, draw), draw);
}

/// Copies the frame into the ring; 0 when it doesn't fit.
fn hold<'f>(
    f: Function<'f, Tc>,
    kind: u32,
    pair: Val<'f, u32>,
    draw: Val<'f, u64>,
) -> Val<'f, u64> {
    let done = f.var(0u64);
    let length = f.len();
    let fits = length.ge(BLOCK as u32) & length.le((BLOCK * BLOCKS) as u32);
    f.if_(fits, || {
        f.loop_up_to(1, |_, once| {
            let record = HELD.reserve::<Held, _>(f, || once.break_());
            let held = record.ptr();
            write_front(f, held.at(field!(Held, front)), kind, pair, draw);
            let blocks = held.at(field!(Held, blocks));
            f.loop_up_to(BLOCKS as u64, |at, blocks_done| {
                let from = at.cast::<u32>() * BLOCK as u32;
                f.if_((from + BLOCK as u32).gt(length), || blocks_done.break_());
                f.load_bytes(from, blocks.index_masked(at));
            });
            f.load_bytes(length - BLOCK as u32, held.at(field!(Held, tail)));
            record.submit(0u64);
            done.set(1u64);
        });
    });
    done.get()
}
