//! The core's side of the fast path: its rules, and the traps that the prototype fell into.

use electrode_vr::{
    Config, Effect, FastPathCommand, FastPathEvent, Message, Nonce, OpNumber, Promise, ReplicaId,
    Start, View,
};

use crate::support::*;

fn with_kernel(replicas: usize, index: u8) -> Config {
    Config {
        fast_path: true,
        ..config(replicas, index)
    }
}

fn arm(view: u64, primary: bool, last_op: u64) -> Effect {
    fast(FastPathCommand::Arm {
        view: View(view),
        primary,
        last_op: OpNumber(last_op),
    })
}

fn fence() -> Effect {
    fast(FastPathCommand::Fence)
}

fn claim(after: u64, last: u64) -> Effect {
    fast(FastPathCommand::Claim {
        after: OpNumber(after),
        last: OpNumber(last),
    })
}

fn open_slot(op: u64) -> Effect {
    fast(FastPathCommand::OpenSlot { op: OpNumber(op) })
}

fn stored(view: u64, first: u64, commit: u64, ops: &[&str]) -> FastPathEvent {
    let entries = ops
        .iter()
        .zip(first..)
        .map(|(op, number)| entry(1, number, op))
        .collect();
    FastPathEvent::Stored(prepare(view, first, commit, entries))
}

fn fenced(last_op: u64) -> FastPathEvent {
    FastPathEvent::Fenced {
        last_op: OpNumber(last_op),
    }
}

fn by_socket(view: u64, first: u64, commit: u64, ops: &[&str]) -> Message {
    let FastPathEvent::Stored(prepare) = stored(view, first, commit, ops) else {
        unreachable!()
    };
    Message::Prepare(prepare)
}

#[test]
fn the_kernel_is_armed_after_the_promise() {
    let mut bench = Bench::unstarted(with_kernel(3, 1), Start::Bootstrap(GROUP));
    assert_eq!(
        bench.tick(),
        [persist(0), entered("normal", 0, false), arm(0, false, 0)]
    );
    assert!(bench.shows().armed);
}

#[test]
fn without_a_fast_path_there_is_no_command() {
    let mut bench = Bench::normal(config(3, 1));
    let effects = [bench.hear(0, by_socket(0, 1, 0, &["a"])), bench.vote(2, 1)].concat();
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::FastPath(_)))
    );
}

#[test]
fn the_slot_is_open_before_the_prepare_leaves_and_before_each_resend() {
    let mut bench = Bench::normal(with_kernel(3, 0));
    bench.request(1, 1, "a");
    bench.request(1, 2, "b");
    let sent = [
        open_slot(2),
        Effect::Broadcast(by_socket(0, 1, 0, &["a", "b"])),
    ];
    assert_eq!(bench.flush(), sent);
    assert_eq!(bench.tick_after(10), sent);
}

#[test]
fn r4_slot_acks_commit_when_f_distinct_backups_are_in_them() {
    let mut bench = Bench::normal(with_kernel(5, 0));
    bench.request(1, 1, "a");
    bench.flush();
    let acks = |acks| FastPathEvent::SlotAcks {
        op: OpNumber(1),
        acks,
    };
    assert_eq!(bench.kernel(acks(0b00010)), []);
    assert_eq!(
        bench.kernel(acks(0b00011)),
        [],
        "its own bit counts for nothing"
    );
    assert_eq!(bench.kernel(acks(0b10010)), [done(1, 1, 0, b"\x01a")]);
}

#[test]
fn r9_dropped_acks_are_progress_and_life_signs() {
    let mut bench = Bench::normal(with_kernel(3, 0));
    bench.request(1, 1, "a");
    bench.flush();
    let at = bench.now;
    let heard = |op| FastPathEvent::Heard {
        from: ReplicaId(2),
        at,
        op: OpNumber(op),
    };
    assert_eq!(bench.kernel(heard(9)), [], "beyond the log");
    assert_eq!(bench.kernel(heard(1)), [done(1, 1, 0, b"\x01a")]);
    assert_eq!(bench.shows().peers[2], (at, OpNumber(1)));
}

#[test]
fn a_stored_prepare_is_appended_executed_and_not_acknowledged_again() {
    let mut bench = Bench::normal(with_kernel(3, 1));
    assert_eq!(bench.kernel(stored(0, 1, 0, &["a", "b"])), []);
    assert_eq!(
        bench.kernel(stored(0, 2, 2, &["b", "c"])),
        [],
        "b is there already"
    );
    assert_eq!(
        (bench.shows().op, bench.shows().commit),
        (OpNumber(3), OpNumber(2))
    );
}

#[test]
fn r9_stored_prepares_are_life_signs() {
    let mut bench = Bench::normal(with_kernel(3, 1));
    for op in 1..=4 {
        bench.now = bench.now.plus(100 * MS);
        bench.kernel(stored(0, op, 0, &["x"]));
        assert_eq!(bench.tick(), []);
    }
}

#[test]
fn a_prepare_by_the_socket_is_claimed_first() {
    let mut bench = Bench::normal(with_kernel(3, 1));
    assert_eq!(
        bench.hear(0, by_socket(0, 1, 0, &["a", "b"])),
        [claim(0, 2)]
    );
    assert_eq!(bench.shows().op, OpNumber(0));
    assert_eq!(
        bench.kernel(FastPathEvent::Claimed),
        [send(0, prepare_ok(0, 2, 2))]
    );
    assert_eq!(
        bench.hear(0, by_socket(0, 1, 0, &["a", "b"])),
        [send(0, prepare_ok(0, 2, 2))]
    );
}

#[test]
fn a_lost_claim_is_looked_at_again() {
    let mut bench = Bench::normal(with_kernel(3, 1));
    bench.hear(0, by_socket(0, 1, 0, &["a", "b"]));
    assert_eq!(bench.kernel(stored(0, 1, 0, &["a"])), []);
    assert_eq!(
        bench.kernel(FastPathEvent::Lost),
        [claim(1, 2)],
        "the rest is still missing"
    );
    assert_eq!(bench.kernel(stored(0, 2, 0, &["b"])), []);
    assert_eq!(
        bench.kernel(FastPathEvent::Lost),
        [send(0, prepare_ok(0, 2, 2))]
    );
}

#[test]
fn a_gap_is_repaired_by_claims_without_a_fence() {
    let mut bench = Bench::normal(with_kernel(3, 1));
    let (nonce, _) = asked_state(&bench.hear(0, by_socket(0, 3, 0, &["c"])));
    let answer = new_state(0, nonce, 0, &entries(&["a", "b"]), 0);
    assert_eq!(bench.hear(0, answer), [claim(0, 2)]);
    assert_eq!(
        bench.kernel(FastPathEvent::Claimed),
        [send(0, prepare_ok(0, 2, 2)), claim(2, 3)]
    );
    assert_eq!(
        bench.kernel(FastPathEvent::Claimed),
        [send(0, prepare_ok(0, 3, 3))]
    );
    assert!(bench.shows().armed, "R6: it never stopped");
}

#[test]
fn r2_fence_then_promise_then_speak_and_the_announced_log_has_all_that_was_acknowledged() {
    let mut bench = Bench::normal(with_kernel(3, 2));
    assert_eq!(bench.vote(0, 1), [fence()]);
    assert_eq!(bench.kernel(stored(0, 1, 0, &["a"])), []);
    assert_eq!(bench.kernel(stored(0, 2, 0, &["b"])), []);
    assert_eq!(
        bench.kernel(fenced(2)),
        [
            persist(1),
            entered("view change", 1, false),
            Effect::Broadcast(Message::StartViewChange { view: View(1) }),
            send(1, do_view_change(1, 0, 0, &entries(&["a", "b"]))),
        ]
    );
    assert!(!bench.shows().armed);
}

#[test]
fn r6_the_kernel_is_armed_again_in_the_new_view() {
    let mut bench = Bench::normal(with_kernel(3, 2));
    bench.vote(0, 1);
    bench.kernel(fenced(0));
    assert_eq!(
        bench.hear(1, start_view(1, 0, &[])),
        [
            entered("normal", 1, false),
            arm(1, false, 0),
            send(1, prepare_ok(1, 0, 0))
        ]
    );
}

#[test]
fn a_start_view_out_of_the_blue_is_fenced_too() {
    let mut bench = Bench::normal(with_kernel(3, 1));
    bench.kernel(stored(0, 1, 0, &["stale"]));
    let log = entries(&["a"]);
    assert_eq!(bench.hear(2, start_view(2, 0, &log)), [fence()]);
    let effects = bench.kernel(fenced(1));
    assert_eq!(effects[..2], [persist(2), entered("view change", 2, false)]);
    let (nonce, _) = asked_state(&effects);
    assert_eq!(
        bench.hear(2, new_state(2, nonce, 0, &log, 0)),
        [
            entered("normal", 2, false),
            arm(2, false, 1),
            send(2, prepare_ok(2, 1, 1))
        ]
    );
}

#[test]
fn a_deposed_primary_fences_its_counting() {
    let mut bench = Bench::normal(with_kernel(3, 0));
    bench.request(1, 1, "a");
    bench.flush();
    assert_eq!(bench.hear(1, commit(1, 0)), [fence()]);
    let effects = bench.kernel(fenced(0));
    assert_eq!(effects[0], persist(1));
    let late = FastPathEvent::SlotAcks {
        op: OpNumber(1),
        acks: 0b110,
    };
    assert_eq!(bench.kernel(late), [], "acks of a generation that is over");
    assert_eq!(bench.shows().commit, OpNumber(0));
}

#[test]
fn a_new_primary_arms_before_start_view_and_opens_slots() {
    let mut bench = Bench::normal(with_kernel(3, 1));
    bench.kernel(stored(0, 1, 0, &["a"]));
    assert_eq!(
        bench.hear(2, do_view_change(1, 0, 0, &entries(&["a"]))),
        [fence()]
    );
    assert_eq!(
        bench.kernel(fenced(1)),
        [
            persist(1),
            entered("view change", 1, true),
            Effect::Broadcast(Message::StartViewChange { view: View(1) }),
            entered("normal", 1, true),
            arm(1, true, 1),
            Effect::Broadcast(start_view(1, 0, &entries(&["a"]))),
            open_slot(1),
            Effect::Broadcast(by_socket(1, 1, 0, &["a"])),
        ]
    );
}

#[test]
fn r3_the_kernel_does_nothing_for_a_recovering_replica() {
    let promise = Promise {
        group: GROUP,
        view: View(0),
    };
    let mut bench = Bench::unstarted(with_kernel(3, 2), Start::Recover(promise));
    let Effect::Broadcast(Message::Recovery { nonce, .. }) = bench.tick()[1] else {
        panic!()
    };
    assert!(!bench.shows().armed);
    let primary = Some((OpNumber(0), OpNumber(0), digest_of(&[])));
    bench.hear(
        1,
        Message::RecoveryResponse {
            nonce,
            view: View(0),
            primary: None,
        },
    );
    let effects = bench.hear(
        0,
        Message::RecoveryResponse {
            nonce,
            view: View(0),
            primary,
        },
    );
    let (question, _) = asked_state(&effects);
    assert_eq!(
        bench.hear(0, new_state(0, question, 0, &[], 0)),
        [
            persist(0),
            entered("normal", 0, false),
            arm(0, false, 0),
            send(0, prepare_ok(0, 0, 0)),
        ]
    );
}

#[test]
fn beyond_the_soft_limit_the_kernel_is_fenced_and_comes_back() {
    let mut bench = Bench::normal(with_kernel(3, 1));
    let limit = config(3, 1).limits.uncommitted();
    for op in 1..=limit + 1 {
        assert_eq!(bench.kernel(stored(0, op, 0, &["x"])), []);
    }
    let effects = bench.flush();
    assert_eq!(effects.last(), Some(&fence()));
    assert_eq!(
        bench.kernel(stored(0, limit + 2, 0, &["x"])),
        [],
        "what was acknowledged stays"
    );
    assert_eq!(bench.kernel(fenced(limit + 2)), []);
    let refused = bench.hear(0, by_socket(0, limit + 3, 0, &["x"]));
    assert_eq!(refused, [], "no more is taken");
    assert_eq!(bench.shows().op, OpNumber(limit + 2));
    bench.hear(0, commit(0, limit));
    assert_eq!(bench.flush(), [arm(0, false, limit + 2)]);
}

#[test]
fn a_checkpoint_is_installed_between_fence_and_arm() {
    let mut small = with_kernel(3, 0);
    small.limits.checkpoint_ops = 4;
    let mut primary = Bench::normal(small.clone());
    for op in 1..=20 {
        primary.request(op, 1, "x");
        primary.flush();
        primary.hear(1, prepare_ok(0, op, op));
    }
    let mut backup = Bench::normal(Config {
        index: ReplicaId(2),
        ..small
    });
    let (nonce, after) = asked_state(&backup.hear(0, commit(0, 20)));
    let ask = Message::GetState {
        view: View(0),
        nonce,
        after,
    };
    let Effect::Send { message, .. } = primary.hear(2, ask)[0].clone() else {
        panic!()
    };
    assert_eq!(backup.hear(0, message), [fence()]);
    let effects = backup.kernel(fenced(0));
    assert_eq!(effects[0], arm(0, false, 20));
    assert_eq!(asked_state(&effects), (nonce, OpNumber(20)));
    assert_eq!(backup.shows().commit, OpNumber(20));
}

#[test]
#[should_panic(expected = "came while the fast path was")]
fn nothing_comes_between_a_fence_and_its_answer() {
    let mut bench = Bench::normal(with_kernel(3, 2));
    bench.vote(0, 1);
    bench.tick();
}

#[test]
#[should_panic(expected = "the kernel accepted up to 3")]
fn a_fence_that_does_not_give_all_records_stops_the_process() {
    let mut bench = Bench::normal(with_kernel(3, 2));
    bench.vote(0, 1);
    bench.kernel(stored(0, 1, 0, &["a"]));
    bench.kernel(fenced(3));
}

#[test]
#[should_panic(expected = "beyond a gap")]
fn a_stored_gap_stops_the_process() {
    Bench::normal(with_kernel(3, 1)).kernel(stored(0, 2, 0, &["b"]));
}

#[test]
#[should_panic(expected = "of another view")]
fn a_stored_prepare_of_another_view_stops_the_process() {
    Bench::normal(with_kernel(3, 1)).kernel(stored(3, 1, 0, &["b"]));
}

#[test]
#[should_panic(expected = "wasn't armed")]
fn a_stored_prepare_without_arming_stops_the_process() {
    let mut bench = Bench::normal(with_kernel(3, 2));
    bench.vote(0, 1);
    bench.kernel(fenced(0));
    bench.kernel(stored(0, 1, 0, &["a"]));
}

#[test]
#[should_panic(expected = "what was there")]
fn a_stored_prepare_that_brings_nothing_stops_the_process() {
    let mut bench = Bench::normal(with_kernel(3, 1));
    bench.kernel(stored(0, 1, 0, &["a", "b"]));
    bench.kernel(stored(0, 2, 0, &["b"]));
}

#[test]
fn hello_is_answered_without_touching_the_kernel() {
    let mut bench = Bench::normal(with_kernel(3, 1));
    let hello = Message::Hello {
        nonce: Nonce(3),
        group: electrode_vr::GroupId(0),
    };
    let answer = Message::Bootstrap {
        nonce: Nonce(3),
        group: GROUP,
    };
    assert_eq!(bench.hear(2, hello), [send(2, answer)]);
}
