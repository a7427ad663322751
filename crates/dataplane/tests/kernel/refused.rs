//! R8: what `prepare` must not believe changes no map but counters, and is dropped or passed on as it came. Fault 10.

use electrode_lab::root_or_skip;
use electrode_vr::{GroupId, Message, OpNumber, Prepare, View};
use electrode_wire::Key;

use crate::group::{
    GROUP, Group, KEY, V4, V6, V6_TAGGED, VIEW, XDP_DROP, XDP_PASS, XDP_TX, decodes, encoded_with,
    entry, prepare, sign,
};

/// Every bit of the message, also those that make it another view's, another sender's or another kind of message.
#[test]
fn any_single_bit_flip_of_a_prepare_is_never_acknowledged() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::backup(net);
        assert_eq!(group.receive(0, &prepare(VIEW, 1, &[3])).0, XDP_TX);
        group.drain();
        let before = group.dataplane.image();
        // New ones, and one that would be answered as a duplicate.
        for message in [
            prepare(VIEW, 2, &[21]),
            prepare(VIEW, 2, &[13, 6]),
            prepare(VIEW, 1, &[3]),
        ] {
            for bit in 0..8 * message.len() {
                let mut damaged = message.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                // UDP's sum is right: it is the check that finds this.
                let frame = net.frame(0, 1, &damaged).bytes();
                let (verdict, after) = group.run(&frame);
                assert!([XDP_DROP, XDP_PASS].contains(&verdict), "bit {bit}");
                assert_eq!(after, frame, "bit {bit}");
                let image = group.dataplane.image();
                assert!(image == before, "bit {bit} changed a map");
            }
            assert!(group.drain().is_empty());
        }
        let bits: usize = [104 + 24, 80 + 48 + 16 + 8, 80 + 24 + 8]
            .map(|b| 8 * b)
            .iter()
            .sum();
        let moved = group.moved();
        let of = |name| {
            moved
                .iter()
                .find(|(key, _)| *key == name)
                .map_or(0, |(_, by)| *by) as usize
        };
        // All but the few that another rule catches fail the check.
        assert!(of(("prepare", "dropped_bad_check")) > bits / 2, "{moved:?}");
        assert_eq!(of(("prepare", "stored")), 1, "the one before");
    }
}

#[test]
fn wrong_source_is_dropped() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::backup(net);
        let right = net.frame(0, 1, &prepare(VIEW, 1, &[3]));
        let mut port = right.clone();
        port.from.set_port(7002);
        let mut address = right.clone();
        address.from.set_ip(net.address(2).ip());
        let mut other = right.clone();
        other.from = net.address(2);
        for frame in [port, address, other] {
            group.refuses(
                &frame.bytes(),
                XDP_DROP,
                ("prepare", "dropped_wrong_source"),
            );
        }
        // Behind the group's three are empty places; an address of zeros isn't theirs.
        for sender in [3, 15] {
            let mut message = right.payload.clone();
            message[6] = sender;
            sign(&mut message);
            let mut frame = net.frame(0, 1, &message);
            let zero = if net.v6 { "[::]:0" } else { "0.0.0.0:0" };
            for from in [net.address(0), zero.parse().unwrap()] {
                frame.from = from;
                group.refuses(
                    &frame.bytes(),
                    XDP_DROP,
                    ("prepare", "dropped_wrong_source"),
                );
            }
        }
        assert_eq!(group.run(&right.bytes()).0, XDP_TX);
    }
}

#[test]
fn wrong_index_is_dropped() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    let mut message = prepare(VIEW, 1, &[3]);
    // Not the view's primary, this replica itself, nobody.
    for (sender, from) in [(2, 2), (1, 1), (16, 0), (0xff, 0)] {
        message[6] = sender;
        sign(&mut message);
        let frame = V4.frame(from, 1, &message).bytes();
        group.refuses(&frame, XDP_DROP, ("prepare", "dropped_bad_index"));
    }
}

#[test]
fn wrong_group_is_passed() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    for other in [GroupId(0), GroupId(GROUP.0 ^ 1 << 63)] {
        let frame = V4.frame(0, 1, &with(other, &KEY)).bytes();
        group.refuses(&frame, XDP_PASS, ("prepare", "passed_group"));
    }
}

#[test]
fn other_key_is_refused() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    let mut close = KEY;
    close.0[15] ^= 0x80;
    for key in [Key::UNKEYED, close] {
        let frame = V4.frame(0, 1, &with(GROUP, &key)).bytes();
        group.refuses(&frame, XDP_DROP, ("prepare", "dropped_bad_check"));
    }
    let frame = V4.frame(0, 1, &with(GROUP, &KEY)).bytes();
    assert_eq!(group.run(&frame).0, XDP_TX);
}

fn with(group: GroupId, key: &Key) -> Vec<u8> {
    let message = Message::Prepare(Prepare {
        view: View(VIEW),
        first: OpNumber(1),
        commit: OpNumber(0),
        entries: vec![entry(1, 3)],
    });
    encoded_with(0, group, key, &message)
}

#[test]
fn another_destination_is_foreign() {
    if !root_or_skip("dispatch in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::backup(net);
        let right = net.frame(0, 1, &prepare(VIEW, 1, &[3]));
        let mut port = right.clone();
        port.to.set_port(7000);
        let mut address = right.clone();
        address.to.set_ip(net.address(2).ip());
        for frame in [port, address] {
            group.refuses(&frame.bytes(), XDP_PASS, ("dispatch", "passed_foreign"));
        }
    }
}

/// Cut anywhere: in the Ethernet header, in a tag, in the message.
#[test]
fn truncated_is_never_acknowledged() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in [V4, V6_TAGGED] {
        let group = Group::backup(net);
        let before = group.dataplane.image();
        let frame = net.frame(0, 1, &prepare(VIEW, 1, &[30, 9])).bytes();
        // The kernel runs nothing on less than an Ethernet header.
        for length in 14..frame.len() {
            let (verdict, after) = group.run(&frame[..length]);
            assert!([XDP_DROP, XDP_PASS].contains(&verdict), "{length} bytes");
            assert_eq!(after, frame[..length]);
        }
        assert!(group.dataplane.image() == before);
        assert_eq!(group.run(&frame).0, XDP_TX);
    }
}

/// What IP or UDP say doesn't fit: foreign, and passed as it came (R10: user space gets what the stack makes of it).
#[test]
fn fragments_options_and_wrong_lengths_are_passed() {
    if !root_or_skip("dispatch in the kernel") {
        return;
    }
    let foreign = ("dispatch", "passed_foreign");
    let message = prepare(VIEW, 1, &[3]);
    for net in [V4, V6] {
        let mut group = Group::backup(net);
        let frame = net.frame(0, 1, &message);
        let (ip, udp, payload) = (
            frame.ip_offset(),
            frame.udp_offset(),
            frame.payload_offset(),
        );
        let mut patch = |at: usize, bytes: &[u8]| {
            let mut frame = frame.bytes();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            group.refuses(&frame, XDP_PASS, foreign);
        };
        let length = u16::try_from(8 + message.len()).unwrap();
        // UDP's length and IP's don't agree, or UDP's is less than its own header's.
        for wrong in [
            0,
            7,
            8,
            length - 8,
            length - 1,
            length + 1,
            length + 8,
            0xffff,
        ] {
            patch(udp + 4, &wrong.to_be_bytes());
        }
        // Our own length isn't the datagram's.
        for wrong in [0, 24, 31, 33, u32::MAX - 79, u32::MAX] {
            patch(payload + 72, &u32::to_le_bytes(wrong));
        }
        // Not our magic or version.
        patch(payload, b"ELCS");
        patch(payload + 4, &[0]);
        patch(payload + 4, &[2]);
        // Of an epoch that isn't known here.
        patch(payload + 76, &[1]);
        patch(payload + 79, &[1]);
        // Neither of the two EtherTypes, and each with the other's header.
        patch(12, &[0x08, 0x06]);
        patch(12, if net.v6 { &[0x08, 0x00] } else { &[0x86, 0xdd] });
        if net.v6 {
            patch(ip, &[0x50]);
            // Hop-by-hop options, TCP, a fragment.
            for next in [0, 6, 44] {
                patch(ip + 6, &[next]);
            }
            patch(ip + 4, &(length + 1).to_be_bytes());
        } else {
            patch(ip, &[0x46]);
            patch(ip, &[0x44]);
            patch(ip, &[0x65]);
            patch(ip + 9, &[6]);
            // More fragments; an offset; both.
            for flags in [0x2000u16, 0x0001, 0x1fff, 0x3fff] {
                patch(ip + 6, &flags.to_be_bytes());
            }
            for wrong in [0, 19, 20 + length - 1, 20 + length + 1] {
                patch(ip + 2, &wrong.to_be_bytes());
            }
        }
        assert_eq!(group.run(&frame.bytes()).0, XDP_TX, "unpatched");
    }
}

/// IPv4 options, IPv6 extension headers and a third tag, each in a frame that is right in itself.
#[test]
fn headers_that_the_programs_do_not_know_are_passed() {
    if !root_or_skip("dispatch in the kernel") {
        return;
    }
    let message = prepare(VIEW, 1, &[3]);
    for net in [V4, V6] {
        let mut group = Group::backup(net);
        let frame = net.frame(0, 1, &message);
        let (ip, udp) = (frame.ip_offset(), frame.udp_offset());
        let mut bytes = frame.bytes();
        let length = u16::try_from(8 + message.len()).unwrap();
        if net.v6 {
            bytes.splice(udp..udp, [17, 0, 1, 4, 0, 0, 0, 0]);
            bytes[ip + 6] = 0;
            bytes[ip + 4..ip + 6].copy_from_slice(&(length + 8).to_be_bytes());
        } else {
            bytes.splice(udp..udp, [1, 1, 1, 0]);
            bytes[ip] = 0x46;
            bytes[ip + 2..ip + 4].copy_from_slice(&(length + 24).to_be_bytes());
            bytes[ip + 10..ip + 12].fill(0);
            let sum = !crate::frame::sum(&bytes[ip..ip + 24]);
            bytes[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
        }
        group.refuses(&bytes, XDP_PASS, ("dispatch", "passed_foreign"));

        let mut frame = frame;
        frame.tags = vec![(0x88a8, 1), (0x8100, 2), (0x8100, 3)];
        group.refuses(&frame.bytes(), XDP_PASS, ("dispatch", "passed_foreign"));
        // A MACsec or MPLS tag isn't a VLAN's.
        frame.tags = vec![(0x8847, 1)];
        group.refuses(&frame.bytes(), XDP_PASS, ("dispatch", "passed_foreign"));
    }
}

/// Signed by the primary itself, and still not to be believed: counts and lengths that don't match the body.
#[test]
fn counts_and_lengths_that_do_not_match_the_body_are_dropped() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    let right = prepare(VIEW, 1, &[5, 16]);
    let (op, first, entry_0, entry_1) = (32, 40, 80 + 16, 80 + 24 + 8 + 16);
    let max = 1 << 48;
    // Each writes numbers: where, what, of how many bytes.
    type Patch = (usize, u64, usize);
    let cases: &[(&str, &[Patch])] = &[
        ("fewer ops than entries", &[(op, 1, 8)]),
        ("more ops than entries", &[(op, 3, 8)]),
        ("first 0", &[(first, 0, 8)]),
        ("first 0 and last 1", &[(first, 0, 8), (op, 1, 8)]),
        ("first 0 and last 0", &[(first, 0, 8), (op, 0, 8)]),
        ("last before first", &[(first, 3, 8)]),
        ("last far before first", &[(first, u64::MAX, 8)]),
        ("last 2^48", &[(first, max - 1, 8), (op, max, 8)]),
        ("first 2^48", &[(first, max, 8), (op, max + 1, 8)]),
        (
            "last 2^64 - 1",
            &[(first, u64::MAX - 1, 8), (op, u64::MAX, 8)],
        ),
        ("65 ops", &[(op, 65, 8)]),
        ("2^48 - 1 ops", &[(op, max - 1, 8)]),
        ("a longer op", &[(entry_0, 9, 4)]),
        ("an op that reaches the end", &[(entry_0, 48, 4)]),
        ("an op that reaches over the end", &[(entry_0, 49, 4)]),
        (
            "an op of 2^32 - 1 bytes",
            &[(entry_0, u64::from(u32::MAX), 4)],
        ),
        (
            "an op of 2^32 - 8 bytes",
            &[(entry_0, u64::from(u32::MAX) - 7, 4)],
        ),
        ("a shorter last op", &[(entry_1, 8, 4)]),
        ("a longer last op", &[(entry_1, 17, 4)]),
        ("the largest last op", &[(entry_1, 1472, 4)]),
    ];
    for (what, patches) in cases {
        let mut message = right.clone();
        for (at, value, bytes) in *patches {
            message[*at..at + bytes].copy_from_slice(&value.to_le_bytes()[..*bytes]);
        }
        sign(&mut message);
        assert!(!decodes(&message), "{what}: user space wouldn't refuse it");
        let frame = V4.frame(0, 1, &message).bytes();
        // Shown when this fails.
        println!("{what}");
        group.refuses(&frame, XDP_DROP, ("prepare", "dropped_malformed"));
    }
    // 65 entries are more than the kernel takes at once, and more than a frame of 1500 bytes holds.
    let frame = V4.frame(0, 1, &prepare(VIEW, 1, &[0; 65])).bytes();
    group.refuses(&frame, XDP_DROP, ("prepare", "dropped_malformed"));
    // A body that isn't a multiple of 8 bytes.
    let mut odd = right.clone();
    odd.push(0);
    odd[72..76].copy_from_slice(&(right.len() as u32 - 79).to_le_bytes());
    sign(&mut odd);
    group.refuses(
        &V4.frame(0, 1, &odd).bytes(),
        XDP_DROP,
        ("prepare", "dropped_malformed"),
    );
    assert_eq!(group.receive(0, &right).0, XDP_TX);
}

/// What the kernel acknowledges, user space must be able to read: it has nothing to say any more.
#[test]
fn what_user_space_cannot_decode_is_never_acknowledged() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    let right = prepare(VIEW, 1, &[5, 1, 8, 15]);
    let mut wrong = Vec::new();
    // Padding that isn't zeros: the last byte of each op that has some, and all of it.
    for (at, used) in [(80 + 24, 5), (80 + 56, 1), (80 + 128, 7)] {
        for byte in [at + used, at + 7] {
            let mut message = right.clone();
            message[byte] = 0x80;
            wrong.push(message);
        }
    }
    // A commit number that can't be one.
    for commit in [1u64 << 48, u64::MAX] {
        let mut message = right.clone();
        message[48..56].copy_from_slice(&commit.to_le_bytes());
        wrong.push(message);
    }
    for mut message in wrong {
        sign(&mut message);
        if message[48..56] == right[48..56] {
            let byte = (80..message.len()).find(|at| message[*at] != right[*at]);
            println!("padding in byte {byte:?}");
        }
        assert!(!decodes(&message));
        let frame = V4.frame(0, 1, &message).bytes();
        group.refuses(&frame, XDP_DROP, ("prepare", "dropped_malformed"));
    }
    assert_eq!(group.receive(0, &right).0, XDP_TX);
}
