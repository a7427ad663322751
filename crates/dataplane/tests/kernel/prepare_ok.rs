//! `prepare_ok` on the primary: which acks count, and what wakes user space.

use electrode_lab::root_or_skip;
use electrode_vr::{GroupId, Message, OpNumber, ReplicaId, Time, View};
use electrode_wire::Key;

use crate::group::{
    GROUP, Group, KEY, V4, V6, V6_TAGGED, VIEW, XDP_DROP, XDP_PASS, encoded_with, prepare_ok, sign,
};
use crate::waking::Sleeper;

/// The acks that user space sees in the open slots above `commit`, as far as they are new to it.
fn acks(group: &mut Group, commit: u64) -> Vec<(u64, u16)> {
    let mut out = Vec::new();
    group.dataplane.acks(OpNumber(commit), &mut out);
    out.into_iter().map(|(op, acks)| (op.0, acks)).collect()
}

/// An ack for `op` from a backup that has nothing newer; demands the verdict, the frame as it was, and the counter.
#[track_caller]
fn ack(group: &mut Group, sender: u8, op: u64, verdict: u32, counter: &str) {
    let frame = group
        .net
        .frame(sender, 0, &prepare_ok(sender, VIEW, op, op));
    let frame = frame.bytes();
    assert_eq!(group.run(&frame), (verdict, frame));
    group.counted(&[("dispatch", "prepare_ok", 1), ("prepare_ok", counter, 1)]);
}

/// Fault 4: with 5 replicas it takes two others, not one twice.
#[test]
fn counts_distinct_backups_once() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    for net in [V4, V6_TAGGED] {
        let mut group = Group::primary(net, 5);
        group.dataplane.open_slot(OpNumber(1));
        assert_eq!(acks(&mut group, 0), []);
        ack(&mut group, 3, 1, XDP_DROP, "counted");
        for _ in 0..3 {
            ack(&mut group, 3, 1, XDP_DROP, "surplus");
        }
        assert_eq!(acks(&mut group, 0), [(1, 0b1000)]);
        assert_eq!(acks(&mut group, 0), [], "reported once");
        ack(&mut group, 1, 1, XDP_DROP, "completed");
        assert_eq!(acks(&mut group, 0), [(1, 0b1010)]);
    }
}

#[test]
fn one_of_three_needs_one_other() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::primary(V4, 3);
    group.dataplane.open_slot(OpNumber(1));
    ack(&mut group, 2, 1, XDP_DROP, "completed");
    assert_eq!(acks(&mut group, 0), [(1, 0b100)]);
}

#[test]
fn surplus_is_dropped_but_user_space_may_still_see_it() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::primary(V6, 5);
    group.dataplane.open_slot(OpNumber(1));
    ack(&mut group, 1, 1, XDP_DROP, "counted");
    ack(&mut group, 2, 1, XDP_DROP, "completed");
    ack(&mut group, 3, 1, XDP_DROP, "surplus");
    ack(&mut group, 4, 1, XDP_DROP, "surplus");
    assert_eq!(acks(&mut group, 0), [(1, 0b11110)]);
    assert_eq!(acks(&mut group, 1), []);
}

/// Each op has a slot of its own, up to 1024 at once.
#[test]
fn acks_of_a_whole_window_are_told_apart() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::primary(V4, 5);
    for op in 1..=1024 {
        group.dataplane.open_slot(OpNumber(op));
    }
    for op in (1..=1024).rev() {
        let sender = 1 + (op % 4) as u8;
        let frame = V4.frame(sender, 0, &prepare_ok(sender, VIEW, op, 1024));
        assert_eq!(group.run(&frame.bytes()).0, XDP_DROP);
    }
    let newest_first: Vec<(u64, u16)> = (1..=1024).rev().map(|op| (op, 2 << (op % 4))).collect();
    assert_eq!(acks(&mut group, 0), newest_first);
    group.counted(&[
        ("dispatch", "prepare_ok", 1024),
        ("prepare_ok", "counted", 1024),
    ]);
}

#[test]
fn the_completing_ack_wakes_only_a_sleeper() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::primary(V4, 5);
    let sleeper = Sleeper::new(group.dataplane.ring());
    let image = group.dataplane.image();
    group.dataplane.open_slot(OpNumber(1));
    ack(&mut group, 1, 1, XDP_DROP, "counted");
    ack(&mut group, 2, 1, XDP_DROP, "completed");
    assert!(!sleeper.woken(), "user space is awake");
    assert_eq!(group.dataplane.image().ring, image.ring);
    // And so it hears of it when it wants to sleep.
    assert!(group.dataplane.before_sleep(false));
    group.dataplane.after_sleep();
    assert_eq!(acks(&mut group, 0), [(1, 0b110)]);
    assert!(!group.dataplane.before_sleep(false), "it has been told");
    group.dataplane.after_sleep();

    group.dataplane.open_slot(OpNumber(2));
    assert!(!group.dataplane.before_sleep(false));
    ack(&mut group, 1, 2, XDP_DROP, "counted");
    assert!(!sleeper.woken(), "no quorum yet");
    ack(&mut group, 4, 2, XDP_DROP, "completed_noticed");
    assert!(sleeper.woken());
    ack(&mut group, 3, 2, XDP_DROP, "surplus");
    assert!(!sleeper.woken(), "once is enough");
    group.dataplane.after_sleep();
    assert!(group.dataplane.ring_has_record());
    assert!(group.drain().is_empty(), "a notice is no Prepare");
    assert!(!group.dataplane.ring_has_record());
    assert_eq!(acks(&mut group, 1), [(2, 0b11010)]);
}

/// R5: where there is no room for a notice the packet itself wakes user space. The ack counts all the same.
#[test]
fn a_full_ring_passes_the_completing_ack() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::primary(V4, 3);
    assert!(!group.dataplane.before_sleep(false));
    let mut op = 0;
    loop {
        op += 1;
        group.dataplane.open_slot(OpNumber(op));
        let frame = V4.frame(1, 0, &prepare_ok(1, VIEW, op, op)).bytes();
        let (verdict, after) = group.run(&frame);
        assert_eq!(acks(&mut group, op - 1), [(op, 0b10)], "passed or not");
        if verdict == XDP_PASS {
            assert_eq!(after, frame);
            break;
        }
        assert_eq!(verdict, XDP_DROP);
        assert!(op < 100_000, "a ring of 1 MiB is full at last");
    }
    group.counted(&[
        ("dispatch", "prepare_ok", op),
        ("prepare_ok", "completed_noticed", op - 1),
        ("prepare_ok", "passed_ring_full", 1),
    ]);
    assert!(group.drain().is_empty());
    group.dataplane.open_slot(OpNumber(op + 1));
    ack(&mut group, 2, op + 1, XDP_DROP, "completed_noticed");
}

/// Fault 3: the completing ack may be lost between kernel and user space; sent again, everything counts again.
#[test]
fn a_resent_op_is_counted_again() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::primary(V4, 5);
    let sleeper = Sleeper::new(group.dataplane.ring());
    for _ in 0..3 {
        group.dataplane.open_slot(OpNumber(1));
        assert_eq!(acks(&mut group, 0), []);
        assert!(!group.dataplane.before_sleep(false));
        ack(&mut group, 1, 1, XDP_DROP, "counted");
        ack(&mut group, 2, 1, XDP_DROP, "completed_noticed");
        assert!(sleeper.woken());
        group.dataplane.after_sleep();
        group.drain();
        // As if the notice had been lost: user space doesn't look at the slots.
    }
    assert_eq!(acks(&mut group, 0), [(1, 0b110)]);
    // Reported before it was sent again: a new ack is news, also from the same backup.
    group.dataplane.open_slot(OpNumber(1));
    ack(&mut group, 1, 1, XDP_DROP, "counted");
    assert_eq!(acks(&mut group, 0), [(1, 0b10)]);
}

#[test]
fn an_op_without_an_open_slot_is_passed() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::primary(V4, 3);
    let slots = |group: &Group| group.dataplane.image().slots;
    group.dataplane.open_slot(OpNumber(2000));
    let opened = slots(&group);
    assert_eq!(opened.iter().filter(|word| **word != 0).count(), 1);
    // Never opened, and the op whose slot op 2000 has taken.
    for op in [1999, 1500, 977, 976, 1] {
        let frame = V4.frame(1, 0, &prepare_ok(1, VIEW, op, 2000)).bytes();
        assert_eq!(group.run(&frame), (XDP_PASS, frame), "op {op}");
        group.counted(&[
            ("dispatch", "prepare_ok", 1),
            ("prepare_ok", "passed_no_slot", 1),
        ]);
    }
    assert_eq!(slots(&group), opened);
    ack(&mut group, 1, 2000, XDP_DROP, "completed");
}

/// The slot holds an op's low 32 bits: one 2^32 further is out of reach of the window, in either direction.
#[test]
fn ops_that_share_their_low_bits_are_told_apart() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let far = 1 << 32;
    let mut group = Group::primary(V4, 3);
    group.dataplane.open_slot(OpNumber(far + 5));
    for (op, newest) in [(5, 5), (5, far + 5)] {
        let frame = V4.frame(1, 0, &prepare_ok(1, VIEW, op, newest)).bytes();
        assert_eq!(group.run(&frame), (XDP_PASS, frame));
    }
    assert_eq!(acks(&mut group, 0), []);
    ack_far(&group, 2 * far + 5, XDP_DROP);
    assert_eq!(acks(&mut group, 0), []);
    ack_far(&group, far + 5, XDP_DROP);
    assert_eq!(acks(&mut group, 0), [(far + 5, 0b10)]);
}

#[track_caller]
fn ack_far(group: &Group, op: u64, verdict: u32) {
    let frame = V4.frame(1, 0, &prepare_ok(1, VIEW, op, op)).bytes();
    assert_eq!(group.run(&frame), (verdict, frame));
}

/// R4: an ack for the same op of another view, before a fence or after it, is none.
#[test]
fn acks_of_another_generation_do_not_count() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::primary(V4, 3);
    group.dataplane.open_slot(OpNumber(1));
    ack(&mut group, 1, 1, XDP_DROP, "completed");
    assert_eq!(group.dataplane.fence(), OpNumber(1));
    // Fenced: user space's business, and what the slot still says isn't reported.
    let fenced = V4.frame(2, 0, &prepare_ok(2, VIEW, 1, 1)).bytes();
    group.refuses(&fenced, XDP_PASS, ("prepare_ok", "passed_fenced"));
    assert_eq!(acks(&mut group, 0), []);

    // Primary again three views on, with the same log, and before it has sent op 1 again.
    group.dataplane.arm(View(VIEW + 3), true, OpNumber(1));
    group.refuses(&fenced, XDP_DROP, ("prepare_ok", "dropped_older_view"));
    let frame = V4.frame(2, 0, &prepare_ok(2, VIEW + 3, 1, 1)).bytes();
    assert_eq!(group.run(&frame).0, XDP_PASS);
    group.counted(&[
        ("dispatch", "prepare_ok", 1),
        ("prepare_ok", "passed_no_slot", 1),
    ]);
    assert!(group.dataplane.image().slots.iter().all(|word| *word == 0));
    group.dataplane.open_slot(OpNumber(1));
    assert_eq!(acks(&mut group, 0), []);
    assert_eq!(group.run(&frame).0, XDP_DROP);
    assert_eq!(acks(&mut group, 0), [(1, 0b100)]);
}

/// R8, for every other way to be wrong: no slot, no sign of life.
#[test]
fn what_must_not_be_believed_changes_nothing() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::primary(net, 5);
        group.dataplane.open_slot(OpNumber(7));
        let right = prepare_ok(1, VIEW, 7, 7);
        let frame = |from, message: &[u8]| net.frame(from, 0, message).bytes();

        let newer = frame(1, &prepare_ok(1, VIEW + 1, 7, 7));
        group.refuses(&newer, XDP_PASS, ("prepare_ok", "passed_newer_view"));
        let older = frame(1, &prepare_ok(1, VIEW - 1, 7, 7));
        group.refuses(&older, XDP_DROP, ("prepare_ok", "dropped_older_view"));

        // An op beyond what the sender says it has, beyond what was sent, beyond what there can be.
        let max = 1 << 48;
        for (op, last_op) in [(7, 0), (7, 8), (8, 8), (max, max), (7, u64::MAX)] {
            let mut message = right.clone();
            message[32..40].copy_from_slice(&u64::to_le_bytes(op));
            message[40..48].copy_from_slice(&u64::to_le_bytes(last_op));
            sign(&mut message);
            let frame = frame(1, &message);
            group.refuses(&frame, XDP_DROP, ("prepare_ok", "dropped_malformed"));
        }
        let mut backwards = right.clone();
        backwards[40] = 6;
        sign(&mut backwards);
        let backwards = frame(1, &backwards);
        group.refuses(&backwards, XDP_DROP, ("prepare_ok", "dropped_malformed"));
        // A body, which a PrepareOk hasn't.
        let mut body = [right.clone(), vec![0; 8]].concat();
        body[72] = 8;
        sign(&mut body);
        let body = frame(1, &body);
        group.refuses(&body, XDP_DROP, ("prepare_ok", "dropped_malformed"));

        // This replica itself, one beyond the group, one beyond any.
        for (sender, from) in [(0, 0), (0, 1), (5, 5), (16, 1), (255, 1)] {
            let mut message = right.clone();
            message[6] = sender;
            sign(&mut message);
            let frame = frame(from, &message);
            group.refuses(&frame, XDP_DROP, ("prepare_ok", "dropped_bad_index"));
        }
        let other = frame(2, &right);
        group.refuses(&other, XDP_DROP, ("prepare_ok", "dropped_wrong_source"));
        let mut port = net.frame(1, 0, &right);
        port.from.set_port(7002);
        group.refuses(
            &port.bytes(),
            XDP_DROP,
            ("prepare_ok", "dropped_wrong_source"),
        );

        let message = Message::PrepareOk {
            view: View(VIEW),
            op: OpNumber(7),
            last_op: OpNumber(7),
        };
        let unkeyed = frame(1, &encoded_with(1, GROUP, &Key::UNKEYED, &message));
        group.refuses(&unkeyed, XDP_DROP, ("prepare_ok", "dropped_bad_check"));
        let foreign = frame(1, &encoded_with(1, GroupId(9), &KEY, &message));
        group.refuses(&foreign, XDP_PASS, ("prepare_ok", "passed_group"));

        assert_eq!(acks(&mut group, 0), []);
        assert_eq!(group.run(&frame(1, &right)).0, XDP_DROP);
        assert_eq!(acks(&mut group, 0), [(7, 0b10)]);
    }
}

#[test]
fn any_single_bit_flip_of_an_ack_counts_for_nothing() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::primary(net, 5);
        for op in 1..=8 {
            group.dataplane.open_slot(OpNumber(op));
        }
        let before = group.dataplane.image();
        let right = prepare_ok(2, VIEW, 5, 8);
        for bit in 0..8 * right.len() {
            let mut damaged = right.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let frame = net.frame(2, 0, &damaged).bytes();
            let (verdict, after) = group.run(&frame);
            assert!([XDP_DROP, XDP_PASS].contains(&verdict), "bit {bit}");
            assert_eq!(after, frame, "bit {bit}");
            assert!(group.dataplane.image() == before, "bit {bit} changed a map");
        }
    }
}

/// R3: a backup counts nothing.
#[test]
fn a_backup_passes_acks() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    let frame = V4.frame(2, 1, &prepare_ok(2, VIEW, 1, 1)).bytes();
    group.refuses(&frame, XDP_PASS, ("prepare_ok", "passed_fenced"));
}

/// R9 and fault 9: acks that the kernel keeps to itself are signs of life and of progress.
#[test]
fn acks_are_life_signs_and_progress() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::primary(V4, 5);
    for op in 1..=9 {
        group.dataplane.open_slot(OpNumber(op));
    }
    let heard = |group: &mut Group| {
        let mut out = Vec::new();
        group.dataplane.heard(&mut out);
        out
    };
    let say = |group: &Group, sender, op, last_op| {
        let frame = V4.frame(sender, 0, &prepare_ok(sender, VIEW, op, last_op));
        assert_eq!(group.run(&frame.bytes()).0, XDP_DROP);
    };
    assert_eq!(heard(&mut group), []);
    let began = monotonic();
    say(&group, 1, 4, 4);
    say(&group, 3, 2, 9);
    let first = heard(&mut group);
    let who: Vec<(ReplicaId, OpNumber)> = first.iter().map(|(id, _, op)| (*id, *op)).collect();
    assert_eq!(
        who,
        [(ReplicaId(1), OpNumber(4)), (ReplicaId(3), OpNumber(9))]
    );
    let now = monotonic();
    assert!(first.iter().all(|(_, at, _)| began <= *at && *at <= now));
    assert_eq!(heard(&mut group), [], "reported once");

    // A resent op's ack is a sign of life, but no step back; nor is a surplus one silence.
    say(&group, 3, 1, 8);
    say(&group, 3, 1, 8);
    let again = heard(&mut group);
    assert_eq!(
        (again.len(), again[0].0, again[0].2),
        (1, ReplicaId(3), OpNumber(9))
    );
    assert!(again[0].1 > first[1].1);

    // Another generation begins from what is heard in it.
    group.dataplane.fence();
    group.dataplane.arm(View(VIEW + 5), true, OpNumber(9));
    group.dataplane.open_slot(OpNumber(3));
    assert_eq!(heard(&mut group), []);
    let frame = V4.frame(3, 0, &prepare_ok(3, VIEW + 5, 3, 3));
    assert_eq!(group.run(&frame.bytes()).0, XDP_DROP);
    let after = heard(&mut group);
    assert_eq!((after.len(), after[0].2), (1, OpNumber(3)));
}

/// A backup whose log is empty answers an idle primary with op 0: a sign of life that user space hears of too, and no ack.
#[test]
fn op_0_is_a_life_sign_and_no_ack() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::primary(V4, 3);
    let frame = V4.frame(1, 0, &prepare_ok(1, VIEW, 0, 0)).bytes();
    // Also with ops 1 and 1024 open, the second in the slot that op 0 would have.
    for op in [0, 1, 1024] {
        if op > 0 {
            group.dataplane.open_slot(OpNumber(op));
        }
        let slots = group.dataplane.image().slots;
        assert_eq!(group.run(&frame), (XDP_PASS, frame.clone()));
        group.counted(&[
            ("dispatch", "prepare_ok", 1),
            ("prepare_ok", "passed_no_slot", 1),
        ]);
        assert_eq!(group.dataplane.image().slots, slots);
        assert_eq!(acks(&mut group, 0), []);
        let mut heard = Vec::new();
        group.dataplane.heard(&mut heard);
        let heard: Vec<(ReplicaId, OpNumber)> =
            heard.iter().map(|(id, _, op)| (*id, *op)).collect();
        assert_eq!(
            heard,
            if op < 1024 {
                vec![(ReplicaId(1), OpNumber(0))]
            } else {
                vec![]
            }
        );
    }
}

/// CLOCK_MONOTONIC, as the kernel tells times.
fn monotonic() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("time goes forward");
    Time(seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("below a second"))
}
