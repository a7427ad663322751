//! Normal operation (protocol.md, rules 9, 13, 14, 17).

use electrode_vr::{Effect, Message, OpNumber, Status};

use crate::support::*;

fn broadcast(message: Message) -> Effect {
    Effect::Broadcast(message)
}

#[test]
fn bootstrapped_primary_promises_before_it_speaks() {
    let mut bench = Bench::unstarted(config(3, 0), electrode_vr::Start::Bootstrap(GROUP));
    assert_eq!(bench.replica.deadline(), Some(bench.now));
    assert_eq!(
        bench.tick(),
        [
            persist(0),
            entered("normal", 0, true),
            broadcast(start_view(0, 0, &[]))
        ]
    );
}

#[test]
fn queued_requests_leave_as_one_prepare_at_the_flush() {
    let mut bench = Bench::normal(config(3, 0));
    assert_eq!(bench.request(1, 1, "a"), []);
    assert_eq!(bench.request(1, 2, "b"), []);
    let all = prepare(0, 1, 0, entries(&["a", "b"]));
    assert_eq!(bench.flush(), [broadcast(Message::Prepare(all))]);
    assert_eq!(bench.flush(), []);
}

#[test]
fn a_full_window_gathers_requests_for_the_next_prepare() {
    let mut bench = Bench::normal(config(3, 0));
    for client in 1..=6 {
        bench.request(client, 1, "x");
        bench.flush();
    }
    assert_eq!(bench.shows().op, OpNumber(2), "the window is 2");
    let effects = bench.hear(1, prepare_ok(0, 1, 1));
    assert_eq!(effects, [done(1, 1, 0, b"\x01x")]);
    let gathered = (3..=6).map(|client| entry(client, 1, "x")).collect();
    assert_eq!(
        bench.flush(),
        [broadcast(Message::Prepare(prepare(0, 3, 1, gathered)))]
    );
}

#[test]
fn a_prepare_keeps_to_its_byte_limit_but_takes_one_entry_always() {
    let mut limits = config(3, 0);
    limits.limits.batch_bytes = 24 + 8 + 24 + 8;
    limits.limits.window = 3;
    let mut bench = Bench::normal(limits);
    let long = "l".repeat(100);
    for (number, op) in [(1, "a"), (2, "b"), (3, "c"), (4, long.as_str())] {
        bench.request(1, number, op);
    }
    let all = entries(&["a", "b", "c", &long]);
    assert_eq!(
        bench.flush(),
        [
            broadcast(Message::Prepare(prepare(0, 1, 0, all[..2].to_vec()))),
            broadcast(Message::Prepare(prepare(0, 3, 0, all[2..3].to_vec()))),
            broadcast(Message::Prepare(prepare(0, 4, 0, all[3..].to_vec()))),
        ]
    );
}

#[test]
fn primary_commits_on_f_distinct_backups() {
    let mut bench = Bench::normal(config(5, 0));
    bench.request(1, 1, "a");
    bench.flush();
    assert_eq!(bench.hear(1, prepare_ok(0, 1, 1)), []);
    assert_eq!(
        bench.hear(1, prepare_ok(0, 1, 1)),
        [],
        "the same backup counts once"
    );
    assert_eq!(bench.hear(2, prepare_ok(1, 1, 1)), [], "of another view");
    assert_eq!(bench.hear(3, prepare_ok(0, 1, 9)), [], "beyond the log");
    assert_eq!(
        bench.hear(2, prepare_ok(0, 1, 1)),
        [done(1, 1, 0, b"\x01a")]
    );
    assert_eq!(bench.hear(4, prepare_ok(0, 1, 1)), []);
}

#[test]
fn replies_that_come_out_together_are_in_the_order_of_the_log() {
    let mut bench = Bench::normal(config(3, 0));
    for (number, op) in [(1, "a"), (2, "b"), (3, "c")] {
        bench.request(1, number, op);
        bench.flush();
    }
    let effects = bench.hear(2, prepare_ok(0, 2, 2));
    assert_eq!(effects, [done(1, 1, 0, b"\x01a"), done(1, 2, 0, b"\x02b")]);
}

#[test]
fn undecided_prepares_are_sent_again_as_they_were() {
    let mut bench = Bench::normal(config(3, 0));
    bench.request(1, 1, "a");
    bench.request(1, 2, "b");
    let sent = bench.flush();
    bench.request(1, 3, "c");
    let sent_later = bench.flush();
    assert_eq!(bench.tick_after(5), [], "not yet");
    assert_eq!(bench.tick_after(5), [sent, sent_later].concat());
    bench.hear(1, prepare_ok(0, 2, 2));
    let left = prepare(0, 3, 2, vec![entry(1, 3, "c")]);
    assert_eq!(bench.tick_after(10), [broadcast(Message::Prepare(left))]);
}

#[test]
fn a_primary_that_hears_no_quorum_falls_silent_until_it_does() {
    let mut bench = Bench::normal(config(3, 0));
    bench.request(1, 1, "a");
    let sent = bench.flush();
    bench.tick_after(290);
    // For twice the time-out nobody was heard: no word to the backups, only to the clients.
    let effects = bench.tick_after(10);
    assert!(
        matches!(&effects[..], [Effect::Note(_), Effect::Reply { .. }]),
        "{effects:?}"
    );
    bench.request(1, 2, "b");
    assert_eq!(bench.flush(), []);
    assert_eq!(bench.tick_after(30), []);
    bench.hear(
        2,
        Message::PreVote {
            view: electrode_vr::View(1),
        },
    );
    assert_eq!(
        bench.tick_after(20)[..2],
        [entered("normal", 0, true), sent[0].clone()]
    );
}

#[test]
fn rule_17_commit_goes_alone_only_when_idle() {
    let mut bench = Bench::normal(config(3, 0));
    for backup in [1, 2] {
        bench.hear(backup, prepare_ok(0, 0, 0));
    }
    bench.now = bench.now.plus(20 * MS);
    bench.request(1, 1, "a");
    bench.flush();
    bench.hear(1, prepare_ok(0, 1, 1));
    assert_eq!(bench.tick_after(10), [], "a Prepare left 10 ms ago");
    assert_eq!(bench.tick_after(15), [broadcast(commit(0, 1))]);
}

#[test]
fn single_replica_commits_at_once() {
    let mut bench = Bench::normal(config(1, 0));
    bench.request(1, 1, "a");
    bench.request(1, 2, "b");
    assert_eq!(
        bench.flush(),
        [done(1, 1, 0, b"\x01a"), done(1, 2, 0, b"\x02b")]
    );
    assert_eq!(bench.replica.deadline(), None);
}

#[test]
fn backup_appends_acknowledges_and_executes_what_is_committed() {
    let mut bench = Bench::normal(config(3, 1));
    let log = entries(&["a", "b", "c"]);
    let first = Message::Prepare(prepare(0, 1, 0, log[..2].to_vec()));
    assert_eq!(bench.hear(0, first.clone()), [send(0, prepare_ok(0, 2, 2))]);
    let second = Message::Prepare(prepare(0, 3, 2, log[2..].to_vec()));
    assert_eq!(bench.hear(0, second), [send(0, prepare_ok(0, 3, 3))]);
    assert_eq!(
        (bench.shows().op, bench.shows().commit),
        (OpNumber(3), OpNumber(2))
    );
    // A duplicate is answered for itself, and says how far the log reaches.
    assert_eq!(bench.hear(0, first), [send(0, prepare_ok(0, 2, 3))]);
    // The idle primary learns how far this backup is.
    assert_eq!(bench.hear(0, commit(0, 3)), [send(0, prepare_ok(0, 3, 3))]);
    assert_eq!(bench.shows().commit, OpNumber(3));
}

#[test]
fn prepares_of_strangers_and_of_old_views_are_ignored() {
    let mut bench = Bench::normal(config(3, 1));
    let one = entries(&["a"]);
    assert_eq!(
        bench.hear(2, Message::Prepare(prepare(0, 1, 0, one.clone()))),
        []
    );
    assert_eq!(
        bench.hear(0, Message::Prepare(prepare(0, 1, 0, vec![]))),
        []
    );
    bench.vote(2, 4);
    assert_eq!(bench.hear(0, Message::Prepare(prepare(0, 1, 0, one))), []);
    assert_eq!(bench.shows().op, OpNumber(0));
}

#[test]
fn rule_9_backup_with_a_gap_asks_for_state_transfer_and_uses_the_early_prepare() {
    let mut bench = Bench::normal(config(3, 1));
    let log = entries(&["a", "b", "c"]);
    let effects = bench.hear(0, Message::Prepare(prepare(0, 3, 0, log[2..].to_vec())));
    assert_eq!(effects.len(), 1);
    let (nonce, after) = asked_state(&effects);
    assert_eq!(after, OpNumber(0));
    let effects = bench.hear(0, new_state(0, nonce, 0, &log[..2], 1));
    assert_eq!(
        effects,
        [send(0, prepare_ok(0, 2, 2)), send(0, prepare_ok(0, 3, 3))]
    );
    assert_eq!(
        (bench.shows().op, bench.shows().commit),
        (OpNumber(3), OpNumber(1))
    );
}

#[test]
fn a_commit_number_beyond_the_log_is_a_gap_too() {
    let mut bench = Bench::normal(config(3, 1));
    let effects = bench.hear(0, commit(0, 2));
    assert_eq!(asked_state(&effects).1, OpNumber(0));
    let again = bench.hear(0, commit(0, 2));
    assert_eq!(
        again,
        [send(0, prepare_ok(0, 0, 0))],
        "asked once, again only after a while"
    );
    assert_eq!(asked_state(&bench.tick_after(80)).1, OpNumber(0));
}

#[test]
fn no_more_early_prepares_are_kept_than_the_window_has() {
    let mut bench = Bench::normal(config(3, 1));
    for first in [40, 30, 20, 10, 50] {
        bench.hear(0, Message::Prepare(prepare(0, first, 0, entries(&["x"]))));
    }
    assert_eq!(
        bench.shows().op,
        OpNumber(0),
        "the step's own assertion checks the bound"
    );
    assert_eq!(bench.shows().status, Status::Normal);
}

#[test]
fn rule_14_the_log_stays_bounded_and_checkpoints_are_equal() {
    let mut small = config(3, 1);
    small.limits.checkpoint_ops = 4;
    let mut bench = Bench::normal(small);
    for op in 1..=50 {
        let one = prepare(0, op, op - 1, vec![entry(op, 1, "x")]);
        bench.hear(0, Message::Prepare(one));
        assert!(bench.shows().log_entries <= 9);
    }
    assert_eq!(bench.shows().checkpoint, OpNumber(48));
    assert_eq!(bench.replica.log_digest_at(OpNumber(43)), None);
    assert!(bench.replica.log_digest_at(OpNumber(44)).is_some());
}

#[test]
fn rule_13_the_digest_covers_all_before_it() {
    let same = digest_of(&entries(&["a", "b"]));
    assert_eq!(same, digest_of(&entries(&["a", "b"])));
    assert_ne!(same, digest_of(&entries(&["x", "b"])));
    assert_ne!(same, digest_of(&[entry(1, 1, "a"), entry(2, 2, "b")]));
    assert_ne!(same, digest_of(&[entry(1, 1, "a"), entry(1, 3, "b")]));
    assert_ne!(
        digest_of(&entries(&["ab", "c"])),
        digest_of(&entries(&["a", "bc"]))
    );
}
