//! What isn't ours, or is too much for the kernel, is passed as it came; and a good deal of noise.

use electrode_lab::root_or_skip;
use electrode_vr::{Message, View};

use crate::frame::Frame;
use crate::group::{
    Group, NETS, V4, V6, VIEW, XDP_DROP, XDP_PASS, XDP_TX, assert_answer, encoded, prepare,
    prepare_ok, sign,
};

/// The longest frame that BPF_PROG_TEST_RUN takes, roughly: a page without its head and tail room.
const LONGEST_PAYLOAD: usize = 3300;

/// A small generator, so that a failure comes again (Marsaglia's xorshift64).
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Datagrams to our port that aren't our messages, of every size.
#[test]
fn garbage_of_every_size_is_passed() {
    if !root_or_skip("dispatch in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::backup(net);
        let before = group.dataplane.image();
        let mut noise = Noise(0x5eed);
        let sizes = (0..=1472).chain((1473..LONGEST_PAYLOAD).step_by(61));
        let mut count = 0;
        for size in sizes {
            let frame = net.frame(0, 1, &noise.bytes(size)).bytes();
            let (verdict, after) = group.run(&frame);
            assert_eq!((verdict, after == frame), (XDP_PASS, true), "{size} bytes");
            count += 1;
        }
        group.counted(&[("dispatch", "passed_foreign", count)]);
        assert!(group.dataplane.image() == before);
    }
}

/// The front of a Prepare, with noise behind it, of every size: only the check can tell.
#[test]
fn noise_in_the_shape_of_a_prepare_is_never_acknowledged() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::backup(net);
        let before = group.dataplane.image();
        let mut noise = Noise(0xface);
        let front = prepare(VIEW, 1, &[3]);
        for size in (80..=1472).chain((1473..LONGEST_PAYLOAD).step_by(61)) {
            let mut message = front.clone();
            message.resize(80, 0);
            message.extend(noise.bytes(size - 80));
            message[72..76].copy_from_slice(&(size as u32 - 80).to_le_bytes());
            if size % 3 == 0 {
                // And now and then with the check right: the entries are still noise.
                sign(&mut message);
            }
            let frame = net.frame(0, 1, &message).bytes();
            let (verdict, after) = group.run(&frame);
            let expected = if size > 1472 { XDP_PASS } else { XDP_DROP };
            assert_eq!((verdict, after == frame), (expected, true), "{size} bytes");
        }
        assert!(group.dataplane.image() == before);
        assert!(group.drain().is_empty());
        let moved = group.moved();
        let names: Vec<&str> = moved.iter().map(|((_, name), _)| *name).collect();
        assert_eq!(
            names,
            [
                "prepare",
                "passed_too_large",
                "dropped_bad_check",
                "dropped_malformed",
            ],
        );
    }
}

/// R10 and fault 2: whatever fits is stored whole, byte for byte; whatever doesn't goes to user space.
#[test]
fn prepares_of_every_size_up_to_one_mtu_go_the_fast_way() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::backup(net);
        let mut op = 0;
        // Header and entry header take 104 bytes.
        for size in (104..=1472).step_by(8) {
            op += 1;
            // Ops that need 0 to 7 bytes of padding.
            let bytes = (size - 104usize).saturating_sub(op as usize % 8);
            let message = prepare(VIEW, op, &[bytes]);
            assert!(message.len() <= size);
            let asked = net.frame(0, 1, &message);
            let (verdict, answer) = group.run(&asked.bytes());
            assert_eq!(verdict, XDP_TX, "{bytes} bytes: {:?}", group.moved());
            assert_answer(&answer, &asked, 1, VIEW, op, op);
            assert_eq!(group.drain(), [message]);
        }
        // The largest of all, as one op and as many.
        for sizes in [&[1368][..], &[0; 58], &[672, 672]] {
            let message = prepare(VIEW, op + 1, sizes);
            assert_eq!(message.len(), 1472);
            op += sizes.len() as u64;
            assert_eq!(group.receive(0, &message).0, XDP_TX);
            assert_eq!(group.drain(), [message]);
        }
        group.moved();
        for bytes in (1369..LONGEST_PAYLOAD - 104).step_by(97) {
            let frame = net.frame(0, 1, &prepare(VIEW, op + 1, &[bytes])).bytes();
            group.refuses(&frame, XDP_PASS, ("prepare", "passed_too_large"));
        }
        assert_eq!(group.tail(), (1, op));
        // User space appends one of those itself, and the kernel goes on (R6).
        assert!(
            group
                .dataplane
                .claim(electrode_vr::OpNumber(op), electrode_vr::OpNumber(op + 1))
        );
        assert_eq!(group.receive(0, &prepare(VIEW, op + 2, &[1])).0, XDP_TX);
    }
}

/// TCP, ICMP, ARP and more, on our own addresses and port, with our message in them.
#[test]
fn other_protocols_are_untouched() {
    if !root_or_skip("dispatch in the kernel") {
        return;
    }
    let foreign = ("dispatch", "passed_foreign");
    for net in NETS {
        let mut group = Group::backup(net);
        let ours = net.frame(0, 1, &prepare(VIEW, 1, &[3]));
        let protocol = ours.ip_offset() + if net.v6 { 6 } else { 9 };
        for number in (0..=255).filter(|number| *number != 17) {
            let mut frame = ours.bytes();
            frame[protocol] = number;
            group.refuses(&frame, XDP_PASS, foreign);
        }
        let ethertype = ours.ip_offset() - 2;
        for kind in [
            0x0000u16, 0x0001, 0x05dc, 0x0806, 0x8035, 0x8847, 0x8863, 0x88cc, 0x88e5, 0xffff,
        ] {
            let mut frame = ours.bytes();
            frame[ethertype..ethertype + 2].copy_from_slice(&kind.to_be_bytes());
            group.refuses(&frame, XDP_PASS, foreign);
        }
        assert_eq!(group.run(&ours.bytes()).0, XDP_TX);
    }
}

/// Messages of ours that only user space understands.
#[test]
fn other_kinds_of_messages_are_passed() {
    if !root_or_skip("dispatch in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    let mut message = encoded(0, &Message::PreVote { view: View(VIEW) });
    for kind in (0..=255).filter(|kind| ![3, 4].contains(kind)) {
        message[5] = kind;
        sign(&mut message);
        let frame = V4.frame(0, 1, &message).bytes();
        group.refuses(&frame, XDP_PASS, ("dispatch", "passed_other_kind"));
    }
}

/// Any frame at all: passed or dropped as it came and without a change to any map, unless all that counts of it is right.
#[test]
fn random_frames_change_nothing() {
    if !root_or_skip("the programs in the kernel") {
        return;
    }
    for (net, rounds) in NETS.into_iter().zip([6000, 6000, 2000, 2000, 2000, 2000]) {
        for primary in [false, true] {
            let mut group = if primary {
                Group::primary(net, 3)
            } else {
                Group::backup(net)
            };
            let (from, right) = if primary {
                (1, prepare_ok(1, VIEW, 1, 1))
            } else {
                (0, prepare(VIEW, 1, &[30, 4]))
            };
            let right = net.frame(from, group.me, &right);
            let mut noise = Noise(0xb0b + rounds);
            let before = group.dataplane.image();
            for round in 0..rounds / 2 {
                let frame = if round % 8 == 0 {
                    let length = 14 + noise.below(300);
                    noise.bytes(length)
                } else {
                    damaged(&right, &mut noise)
                };
                let (verdict, after) = group.run(&frame);
                if still_right(&frame, &right) {
                    continue;
                }
                assert!([XDP_DROP, XDP_PASS].contains(&verdict), "{frame:02x?}");
                assert_eq!(after, frame);
            }
            let image = group.dataplane.image();
            if primary {
                // No slot was open: nothing at all can have happened.
                assert!(group.dataplane.image() == before);
            } else if group.tail() == (1, 0) {
                assert!(image == before);
            } else {
                // Frames that differed where it doesn't matter (a MAC, the TTL) were taken, once.
                let stored = group.drain();
                assert_eq!(stored.concat(), right.payload);
                assert_eq!(image.shared[0], 1 << 48 | 2);
                assert_eq!(image.shared[1..], before.shared[1..]);
                assert_eq!((&image.slots, &image.heard), (&before.slots, &before.heard));
            }
        }
    }
}

/// The frame with one to three bytes changed, cut out or put in.
pub(crate) fn damaged(right: &Frame, noise: &mut Noise) -> Vec<u8> {
    let mut frame = right.bytes();
    for _ in 0..=noise.below(3) {
        // The front is where decisions are made.
        let reach = if noise.below(2) == 0 {
            right.payload_offset() + 80
        } else {
            frame.len()
        };
        let at = noise.below(reach.min(frame.len()));
        match noise.below(8) {
            0 => drop(frame.remove(at)),
            1 => frame.insert(at, noise.next() as u8),
            2 => frame.truncate(at.max(14)),
            3 => frame[at] ^= 1 << noise.below(8),
            4 => frame[at] = 0,
            5 => frame[at] = 0xff,
            _ => frame[at] = noise.next() as u8,
        }
        if frame.len() < 15 {
            break;
        }
    }
    frame
}

/// Whether all that the programs may rely on is still there, so that taking the frame is right.
fn still_right(frame: &[u8], right: &Frame) -> bool {
    let (ip, udp, payload) = (
        right.ip_offset(),
        right.udp_offset(),
        right.payload_offset(),
    );
    let original = right.bytes();
    // It may be longer than the datagram.
    if frame.len() < original.len() {
        return false;
    }
    let same = |range: std::ops::Range<usize>| frame.get(range.clone()) == Some(&original[range]);
    let ip_is_right = if right.from.is_ipv4() {
        // But for the type of service, identification, "don't fragment", TTL and sum.
        same(ip..ip + 1)
            && same(ip + 2..ip + 4)
            && frame[ip + 6] & 0x3f == 0
            && frame[ip + 7] == 0
            && same(ip + 9..ip + 10)
            && same(ip + 12..udp)
    } else {
        frame.get(ip).is_some_and(|byte| byte >> 4 == 6)
            && same(ip + 4..ip + 7)
            && same(ip + 8..udp)
    };
    let ethertypes = (12..ip)
        .step_by(4)
        .all(|at| same(at..at + 2) || tags_swapped(frame, &original, at));
    ethertypes && ip_is_right && same(udp..udp + 6) && same(payload..original.len())
}

/// One kind of VLAN tag is as good as the other.
fn tags_swapped(frame: &[u8], original: &[u8], at: usize) -> bool {
    let tag = |bytes: &[u8]| [[0x81, 0x00], [0x88, 0xa8]].contains(&[bytes[at], bytes[at + 1]]);
    tag(frame) && tag(original)
}
