//! `prepare` on a backup: what is stored, answered, passed on and dropped.

use std::time::{Duration, Instant};

use electrode_lab::root_or_skip;
use electrode_vr::{Message, OpNumber, View};

use crate::group::{
    Group, INGRESS, NETS, V4, V6, V6_TAGGED, VIEW, XDP_DROP, XDP_PASS, XDP_TX, assert_answer,
    decoded, entry, prepare, sign,
};
use crate::waking::Sleeper;

#[test]
fn stores_and_answers() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in NETS {
        let mut group = Group::backup(net);
        let mut expected = Vec::new();
        let mut op = 0;
        // One op in a small record, an empty one, one that needs the large record, a batch, the largest batch.
        for sizes in [&[5][..], &[0], &[1200], &[8, 0, 31, 256], &[0; 50]] {
            let message = prepare(VIEW, op + 1, sizes);
            op += sizes.len() as u64;
            let asked = net.frame(0, 1, &message);
            let (verdict, answer) = group.run(&asked.bytes());
            assert_eq!(verdict, XDP_TX, "{net:?}: {:?}", group.moved());
            assert_answer(&answer, &asked, 1, VIEW, op, op);
            assert_eq!(group.tail(), (1, op));
            expected.push(message);
            group.counted(&[
                ("dispatch", "prepare", 1),
                ("prepare", "stored", 1),
                ("prepare", "acked", 1),
            ]);
        }
        assert_eq!(group.drain(), expected);
        assert_eq!(group.dataplane.fence(), OpNumber(op));
        assert!(group.drain().is_empty());
    }
}

/// In disk mode stored isn't durable: user space is woken by the packet itself, and answers.
#[test]
fn in_disk_mode_prepares_are_stored_and_passed_and_never_answered() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::backup_on_disk(net);
        let message = prepare(VIEW, 1, &[5, 900]);
        let frame = net.frame(0, 1, &message).bytes();
        let (verdict, passed) = group.run(&frame);
        assert_eq!((verdict, passed), (XDP_PASS, frame.clone()));
        group.counted(&[("dispatch", "prepare", 1), ("prepare", "stored", 1)]);
        assert_eq!(group.tail(), (1, 2));
        let before = group.dataplane.image();
        let (verdict, passed) = group.run(&frame);
        assert_eq!((verdict, passed), (XDP_PASS, frame));
        assert_eq!(
            group.dataplane.image(),
            before,
            "a duplicate changes nothing"
        );
        assert_eq!(group.drain(), [message]);
        assert_eq!(group.dataplane.fence(), OpNumber(2));
    }
}

#[test]
fn padding_behind_the_datagram_is_neither_stored_nor_sent_back() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::backup(net);
        let message = prepare(VIEW, 1, &[1]);
        let asked = net.frame(0, 1, &message);
        let mut bytes = asked.bytes();
        bytes.extend([0xee; 46]);
        let (verdict, answer) = group.run(&bytes);
        assert_eq!(verdict, XDP_TX);
        assert_answer(&answer, &asked, 1, VIEW, 1, 1);
        assert_eq!(group.drain(), [message]);
    }
}

#[test]
fn duplicate_is_answered_with_its_own_op() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::backup(net);
        for op in 1..=5 {
            assert_eq!(group.receive(0, &prepare(VIEW, op, &[9])).0, XDP_TX);
        }
        assert_eq!(group.drain().len(), 5);
        group.moved();
        let before = group.dataplane.image();
        // Also one that begins and ends elsewhere than when it was stored.
        for (first, sizes) in [(3, &[9][..]), (5, &[9]), (1, &[9, 9, 9, 9]), (1, &[9])] {
            let last = first + sizes.len() as u64 - 1;
            let asked = net.frame(0, 1, &prepare(VIEW, first, sizes));
            let (verdict, answer) = group.run(&asked.bytes());
            assert_eq!(verdict, XDP_TX);
            assert_answer(&answer, &asked, 1, VIEW, last, 5);
            group.counted(&[
                ("dispatch", "prepare", 1),
                ("prepare", "duplicate", 1),
                ("prepare", "acked", 1),
            ]);
        }
        assert_eq!(group.dataplane.image(), before);
    }
}

/// Faults 6 and 7: a gap is passed on as it came, and once it is repaired the kernel takes the next Prepare.
#[test]
fn gap_is_passed_intact() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in [V4, V6_TAGGED] {
        let mut group = Group::backup(net);
        assert_eq!(group.receive(0, &prepare(VIEW, 1, &[3])).0, XDP_TX);
        group.moved();
        for first in [3, 64, (1 << 48) - 1] {
            let frame = net.frame(0, 1, &prepare(VIEW, first, &[3])).bytes();
            group.refuses(&frame, XDP_PASS, ("prepare", "passed_gap"));
        }
        // User space takes what the ring has and appends the missing op itself.
        assert_eq!(group.drain().len(), 1);
        assert!(group.dataplane.claim(OpNumber(1), OpNumber(3)));
        assert_eq!(group.receive(0, &prepare(VIEW, 4, &[3])).0, XDP_TX);
        assert_eq!(group.tail(), (1, 4));
    }
}

#[test]
fn partial_overlap_is_stored_whole() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    for (first, sizes) in [(1, &[4, 4, 4][..]), (2, &[4, 4, 4]), (4, &[4, 4])] {
        let message = prepare(VIEW, first, sizes);
        let last = first + sizes.len() as u64 - 1;
        let asked = V4.frame(0, 1, &message);
        let (verdict, answer) = group.run(&asked.bytes());
        assert_eq!(verdict, XDP_TX);
        assert_answer(&answer, &asked, 1, VIEW, last, last);
        assert_eq!(group.drain(), [message]);
        assert_eq!(group.tail(), (1, last));
    }
}

/// Fault 1: what a deposed primary sends is never acknowledged; but now and then user space hears of it, and tells it.
#[test]
fn older_view_is_dropped_but_one_per_interval_passes() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::backup(net);
        assert_eq!(group.receive(0, &prepare(VIEW, 1, &[3])).0, XDP_TX);
        assert_eq!(group.dataplane.fence(), OpNumber(1));
        assert_eq!(group.drain().len(), 1);
        // Three views on: the primary is replica 0 again, but its old messages are old.
        group.dataplane.arm(View(VIEW + 3), false, OpNumber(1));
        group.moved();
        // A machine that is busy with other things may take longer than an interval for what should fit into one.
        let mut intervals = 0;
        for attempt in 0.. {
            assert!(attempt < 50, "this machine is too slow to say anything");
            std::thread::sleep(Duration::from_millis(55));
            let stale = |op| net.frame(0, 1, &prepare(VIEW, op, &[3])).bytes();
            let began = Instant::now();
            let verdicts = [1, 1, 2, 3].map(|op| {
                let (verdict, after) = group.run(&stale(op));
                assert_eq!(after, stale(op));
                verdict
            });
            let moved = group.moved();
            if began.elapsed() >= Duration::from_millis(50) {
                continue;
            }
            assert_eq!(verdicts, [XDP_PASS, XDP_DROP, XDP_DROP, XDP_DROP]);
            assert_eq!(
                moved,
                [
                    (("dispatch", "prepare"), 4),
                    (("prepare", "passed_older_view"), 1),
                    (("prepare", "dropped_older_view"), 3),
                ]
            );
            intervals += 1;
            if intervals == 2 {
                break;
            }
        }
        assert_eq!(group.tail(), (3, 1));
        assert!(group.drain().is_empty());
        // A duplicate of the new view's is answered in the new view.
        let asked = net.frame(0, 1, &prepare(VIEW + 3, 1, &[3]));
        let (verdict, answer) = group.run(&asked.bytes());
        assert_eq!(verdict, XDP_TX);
        assert_answer(&answer, &asked, 1, VIEW + 3, 1, 1);
    }
}

/// Fault 8: user space learns of a newer view, from whomever.
#[test]
fn newer_view_is_passed() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    for (sender, view) in [(0, VIEW + 3), (2, VIEW + 2), (0, u64::MAX)] {
        let mut message = prepare(view, 1, &[3]);
        message[6] = sender;
        sign(&mut message);
        let frame = V4.frame(sender, 1, &message).bytes();
        group.refuses(&frame, XDP_PASS, ("prepare", "passed_newer_view"));
    }
}

/// Fault 2: what there is no room for is not acknowledged, and the op isn't lost.
#[test]
fn ring_full_passes_and_leaves_the_tail_alone() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    let mut op = 0;
    loop {
        let (verdict, _) = group.receive(0, &prepare(VIEW, op + 1, &[1300]));
        if verdict != XDP_TX {
            assert_eq!(verdict, XDP_PASS);
            break;
        }
        op += 1;
        assert!(op < 2000, "a ring of 1 MiB is full at last");
    }
    // A record's front and its message, rounded up: about 1.5 KiB each.
    assert!((600..=720).contains(&op), "{op} records in 1 MiB");
    assert_eq!(group.tail(), (1, op));
    group.moved();
    let frame = V4.frame(0, 1, &prepare(VIEW, op + 1, &[1300])).bytes();
    group.refuses(&frame, XDP_PASS, ("prepare", "passed_ring_full"));
    // A duplicate needs no room.
    assert_eq!(group.receive(0, &prepare(VIEW, op, &[1300])).0, XDP_TX);

    let stored = group.drain();
    let ops: Vec<Message> = stored.iter().map(|message| decoded(message).1).collect();
    assert_eq!(ops.len() as u64, op);
    for (at, message) in (1..).zip(ops) {
        let Message::Prepare(prepare) = message else {
            panic!("{message:?}")
        };
        assert_eq!(
            (prepare.first, prepare.last()),
            (OpNumber(at), OpNumber(at))
        );
        assert_eq!(prepare.entries, [entry(at, 1300)]);
    }
    assert_eq!(group.receive(0, &prepare(VIEW, op + 1, &[1300])).0, XDP_TX);
    assert_eq!(group.tail(), (1, op + 1));
}

/// Fault 5: a Prepare that was lost the first time is stored when it is sent again, in whatever batch.
#[test]
fn a_prepare_that_is_sent_again_is_stored() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    let lost = prepare(VIEW, 1, &[40]);
    assert_eq!(group.receive(0, &prepare(VIEW, 2, &[40])).0, XDP_PASS);
    assert_eq!(group.receive(0, &lost).0, XDP_TX);
    assert_eq!(group.receive(0, &prepare(VIEW, 2, &[40, 41])).0, XDP_TX);
    assert_eq!(group.drain(), [lost, prepare(VIEW, 2, &[40, 41])]);
}

/// R2, R3: a fenced replica is nobody's backup, for new ops and for old ones.
#[test]
fn fenced_never_stores_nor_answers() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    for net in [V4, V6] {
        let mut group = Group::new(net, 1, 3, INGRESS);
        let frame = |op| net.frame(0, 1, &prepare(VIEW, op, &[3])).bytes();
        // Before the first arm, with a block of zeros; the view is that block's too.
        group.refuses(&frame(1), XDP_PASS, ("prepare", "passed_fenced"));
        let view_0 = net.frame(0, 1, &prepare(0, 1, &[3])).bytes();
        group.refuses(&view_0, XDP_PASS, ("prepare", "passed_fenced"));

        group.dataplane.arm(View(VIEW), false, OpNumber(0));
        assert_eq!(group.run(&frame(1)).0, XDP_TX);
        assert_eq!(group.dataplane.fence(), OpNumber(1));
        group.moved();
        for op in [1, 2, 3] {
            group.refuses(&frame(op), XDP_PASS, ("prepare", "passed_fenced"));
        }
        // What was stored before is still there to be taken.
        assert_eq!(group.drain(), [prepare(VIEW, 1, &[3])]);
    }
}

/// R3: a primary stores nothing, whatever claims to be its own Prepare.
#[test]
fn not_acked_when_role_is_primary() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::new(V4, 0, 3, INGRESS);
    group.dataplane.arm(View(VIEW), true, OpNumber(0));
    for (sender, first) in [(0, 1), (1, 1), (2, 1), (0, 2)] {
        let mut message = prepare(VIEW, first, &[3]);
        message[6] = sender;
        sign(&mut message);
        let frame = V4.frame(sender, 0, &message).bytes();
        group.refuses(&frame, XDP_PASS, ("prepare", "passed_fenced"));
    }
}

/// The generation has 16 bits: nothing goes wrong when it begins again.
#[test]
fn generations_wrap() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    for _ in 0..(1 << 15) - 1 {
        group.dataplane.fence();
        group.dataplane.arm(View(VIEW), false, OpNumber(0));
    }
    assert_eq!(group.tail(), (0xffff, 0));
    assert_eq!(group.receive(0, &prepare(VIEW, 1, &[3])).0, XDP_TX);
    assert_eq!(group.drain().len(), 1);
    assert_eq!(group.dataplane.fence(), OpNumber(1));
    assert_eq!(group.tail(), (0, 1));
    assert_eq!(group.receive(0, &prepare(VIEW, 2, &[3])).0, XDP_PASS);
    group.dataplane.arm(View(VIEW), false, OpNumber(1));
    assert_eq!(group.receive(0, &prepare(VIEW, 2, &[3])).0, XDP_TX);
    assert_eq!(group.tail(), (1, 2));
    assert_eq!(group.drain().len(), 1);
}

/// Fault 9: stored Prepares wake a backup that asked for it, and a ring that fills up wakes it anyway.
#[test]
fn a_stored_prepare_wakes_whom_it_should() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::backup(V4);
    let mut op = 0;
    let mut store = |group: &Group, bytes| {
        op += 1;
        assert_eq!(group.receive(0, &prepare(VIEW, op, &[bytes])).0, XDP_TX);
    };
    let sleeper = Sleeper::new(group.dataplane.ring());
    assert!(!group.dataplane.before_sleep(false));
    store(&group, 10);
    assert!(!sleeper.woken(), "a stored Prepare wakes nobody");
    assert!(group.dataplane.ring_has_record());
    group.dataplane.after_sleep();
    assert!(
        group.dataplane.before_sleep(true),
        "it would be slept through"
    );
    group.drain();
    assert!(!group.dataplane.before_sleep(true));
    store(&group, 10);
    assert!(sleeper.woken(), "user space asked to be woken by the next");
    group.dataplane.after_sleep();
    group.drain();

    // Not asked for: a quarter of the ring may be unread, no more.
    assert!(!group.dataplane.before_sleep(false));
    let mut records = 0;
    while !sleeper.woken() {
        store(&group, 1300);
        records += 1;
        assert!(records < 400, "a ring that fills up wakes");
    }
    let bytes = records * (16 + 1472 + 8);
    assert!((250_000..=270_000).contains(&bytes), "{bytes} bytes unread");
}
