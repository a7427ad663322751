//! View changes (protocol.md, rules 1 to 3, 7 to 12).

use electrode_vr::{Effect, Message, Nonce, OpNumber, Reply, Role, Status, View};

use crate::support::*;

fn pre_vote(view: u64) -> Message {
    Message::PreVote { view: View(view) }
}

fn pre_vote_ok(view: u64) -> Message {
    Message::PreVoteOk { view: View(view) }
}

fn start_view_change(view: u64) -> Message {
    Message::StartViewChange { view: View(view) }
}

/// A backup of view 0 with this log, committed up to `commit`.
fn backup(index: u8, log: &[&str], committed: u64) -> Bench {
    let mut bench = Bench::normal(config(3, index));
    bench.hear(0, Message::Prepare(prepare(0, 1, committed, entries(log))));
    bench
}

#[test]
fn rule_11_a_backup_asks_before_it_votes() {
    let mut bench = Bench::normal(config(3, 1));
    assert_eq!(bench.tick_after(149), []);
    assert_eq!(bench.tick_after(60), [Effect::Broadcast(pre_vote(1))]);
    assert_eq!(bench.shows().status, Status::Normal);
    assert_eq!(bench.hear(2, pre_vote_ok(2)), [], "not what was asked");
    assert_eq!(
        bench.hear(2, pre_vote_ok(1)),
        [
            persist(1),
            entered("view change", 1, true),
            Effect::Broadcast(start_view_change(1)),
        ]
    );
}

#[test]
fn rule_11_a_working_primary_is_not_voted_against() {
    let mut bench = Bench::normal(config(3, 1));
    bench.now = bench.now.plus(100 * MS);
    bench.hear(0, commit(0, 0));
    bench.now = bench.now.plus(100 * MS);
    assert_eq!(bench.hear(2, pre_vote(1)), []);
    bench.now = bench.now.plus(60 * MS);
    assert_eq!(bench.hear(2, pre_vote(1)), [send(2, pre_vote_ok(1))]);
    assert_eq!(bench.shows().view, View(0), "support changes nothing");
}

#[test]
fn rule_11_a_primary_that_hears_a_quorum_is_loyal_to_itself() {
    let mut bench = Bench::normal(config(3, 0));
    bench.hear(1, prepare_ok(0, 0, 0));
    bench.now = bench.now.plus(100 * MS);
    assert_eq!(bench.hear(2, pre_vote(1)), []);
    bench.now = bench.now.plus(200 * MS);
    assert_eq!(
        bench.hear(2, pre_vote(1)),
        [],
        "it just heard replica 2, which makes f"
    );
    let mut five = Bench::normal(config(5, 0));
    assert_eq!(five.hear(2, pre_vote(1)), [send(2, pre_vote_ok(1))]);
}

#[test]
fn a_primary_is_not_followed_by_who_asks_for_a_view_beyond_the_next_or_recovers() {
    let recovery = || Message::Recovery {
        nonce: Nonce(7),
        promised: View(0),
    };
    let mut bench = Bench::normal(config(3, 0));
    bench.hear(1, recovery());
    assert_eq!(bench.hear(2, pre_vote(2)), [send(2, pre_vote_ok(2))]);
    // Nor does one that asks count for another that asks.
    let mut five = Bench::normal(config(5, 0));
    five.hear(1, recovery());
    five.hear(3, prepare_ok(0, 0, 0));
    five.hear(2, pre_vote(2));
    assert_eq!(five.hear(4, pre_vote(2)), [send(4, pre_vote_ok(2))]);
}

#[test]
fn a_primary_steps_down_when_others_only_recover_or_ask_for_a_view_beyond_the_next() {
    let mut bench = Bench::normal(config(3, 0));
    bench.hear(1, prepare_ok(0, 0, 0));
    for _ in 0..10 {
        bench.hear(2, pre_vote(2));
        bench.tick_after(40);
    }
    let reason = bench.shows().reason.expect("it decides nothing any more");
    assert!(reason.starts_with("stepped down"), "{reason}");
}

#[test]
fn rule_11_support_of_an_earlier_question_isnt_counted_with_that_of_a_later_one() {
    let mut bench = Bench::normal(config(5, 1));
    bench.tick_after(210);
    bench.hear(2, pre_vote_ok(1));
    assert_eq!(bench.tick_after(100), [Effect::Broadcast(pre_vote(1))]);
    assert_eq!(bench.hear(3, pre_vote_ok(1)), []);
    assert_eq!(bench.hear(3, pre_vote_ok(1)), [], "the same one");
    assert_eq!(bench.hear(2, pre_vote_ok(1)).len(), 3);
}

#[test]
fn rule_11_pre_votes_back_off() {
    let mut bench = Bench::normal(config(3, 1));
    bench.tick_after(210);
    let waits: Vec<u64> = (0..6)
        .map(|_| {
            let due = bench.replica.deadline().unwrap();
            let wait = due.0 - bench.now.0;
            bench.now = due;
            assert_eq!(bench.tick(), [Effect::Broadcast(pre_vote(1))]);
            wait / MS
        })
        .collect();
    for (wait, least) in waits.iter().zip([50, 100, 200, 400, 800, 800]) {
        assert!((least..=least * 4 / 3).contains(wait), "{waits:?}");
    }
}

#[test]
fn a_quorum_of_start_view_changes_gives_a_do_view_change() {
    let mut bench = backup(2, &["a"], 0);
    let votes = bench.vote(0, 1);
    assert_eq!(
        votes,
        [
            persist(1),
            entered("view change", 1, false),
            Effect::Broadcast(start_view_change(1)),
            send(1, do_view_change(1, 0, 0, &entries(&["a"]))),
        ]
    );
    assert_eq!(bench.vote(0, 1), [], "once is enough");
}

#[test]
fn rule_8_start_view_changes_count_per_distinct_replica() {
    let mut bench = Bench::normal(config(5, 3));
    assert_eq!(bench.vote(0, 1).len(), 3);
    assert_eq!(bench.vote(0, 1), []);
    assert_eq!(bench.vote(4, 1), [send(1, do_view_change(1, 0, 0, &[]))]);
}

#[test]
fn rule_8_do_view_change_may_come_before_any_start_view_change() {
    let mut bench = backup(1, &["a"], 0);
    let effects = bench.hear(2, do_view_change(1, 0, 0, &entries(&["a"])));
    assert_eq!(
        effects,
        [
            persist(1),
            entered("view change", 1, true),
            Effect::Broadcast(start_view_change(1)),
            entered("normal", 1, true),
            Effect::Broadcast(start_view(1, 0, &entries(&["a"]))),
            Effect::Broadcast(Message::Prepare(prepare(1, 1, 0, entries(&["a"])))),
        ]
    );
}

#[test]
fn rule_8_do_view_changes_count_per_distinct_replica() {
    let mut bench = Bench::normal(config(5, 1));
    bench.hear(2, do_view_change(1, 0, 0, &[]));
    assert_eq!(bench.hear(2, do_view_change(1, 0, 0, &[])), []);
    assert_eq!(bench.shows().status, Status::ViewChange);
    assert_eq!(bench.hear(3, do_view_change(1, 0, 0, &[])).len(), 2);
    assert_eq!(
        (bench.shows().status, bench.shows().role),
        (Status::Normal, Role::Primary)
    );
}

#[test]
fn rule_1_the_last_normal_view_chooses_the_log_not_its_length() {
    // R1 has a longer log of view 0; R2 was normal in view 2 with a shorter one.
    let mut bench = backup(1, &["b", "c"], 0);
    let effects = bench.hear(2, do_view_change(4, 2, 0, &entries(&["a"])));
    let (nonce, after) = asked_state(&effects);
    assert_eq!(after, OpNumber(0));
    assert_eq!(
        bench.shows().op,
        OpNumber(2),
        "rule 2: asking truncates nothing"
    );
    assert_eq!(
        bench.replica.last_normal(),
        View(0),
        "rule 2: nor does the last normal view rise"
    );
    bench.hear(2, new_state(4, nonce, 0, &entries(&["a"]), 0));
    assert_eq!(bench.shows().op, OpNumber(1));
    assert_eq!(
        bench.replica.log_digest_at(OpNumber(1)),
        Some(digest_of(&entries(&["a"])))
    );
    assert_eq!(bench.replica.last_normal(), View(4));
}

#[test]
fn rule_1_a_view_change_in_vain_leaves_the_last_normal_view() {
    let mut bench = backup(2, &["a"], 0);
    bench.vote(0, 4);
    let effects = bench.vote(0, 7);
    assert_eq!(
        effects.last(),
        Some(&send(1, do_view_change(7, 0, 0, &entries(&["a"]))))
    );
    assert_eq!(bench.replica.last_normal(), View(0));
}

#[test]
fn rule_2_a_backup_keeps_its_suffix_until_the_new_state_is_there() {
    let mut bench = backup(1, &["a", "b"], 1);
    let new = entries(&["a", "x", "y"]);
    let effects = bench.hear(2, start_view(2, 1, &new));
    assert_eq!(effects[..2], [persist(2), entered("view change", 2, false)]);
    let (nonce, after) = asked_state(&effects);
    assert_eq!(after, OpNumber(1), "from the commit number on");
    let now = bench.shows();
    assert_eq!(
        (now.op, now.view, bench.replica.last_normal()),
        (OpNumber(2), View(0), View(0))
    );
    assert_eq!(
        bench.hear(2, new_state(2, nonce, 1, &new, 1)),
        [entered("normal", 2, false), send(2, prepare_ok(2, 3, 3))]
    );
    assert_eq!(
        (bench.shows().op, bench.shows().view),
        (OpNumber(3), View(2))
    );
}

#[test]
fn rule_3_a_longer_suffix_is_cut_before_anything_is_acknowledged() {
    let mut bench = backup(1, &["a", "b", "c"], 1);
    assert_eq!(
        bench.hear(2, start_view(2, 1, &entries(&["a"]))),
        [
            persist(2),
            entered("view change", 2, false),
            entered("normal", 2, false),
            send(2, prepare_ok(2, 1, 1)),
        ]
    );
    assert_eq!(bench.shows().op, OpNumber(1));
}

#[test]
fn rule_9_a_new_primary_that_lags_fetches_the_log() {
    let mut bench = backup(1, &["a"], 1);
    let log = entries(&["a", "b", "c"]);
    let effects = bench.hear(2, do_view_change(1, 0, 2, &log));
    let (nonce, after) = asked_state(&effects);
    assert_eq!(after, OpNumber(1));
    assert_eq!(
        bench.hear(2, new_state(1, nonce, 1, &log, 2)),
        [
            entered("normal", 1, true),
            done(1, 2, 1, b"\x02b"),
            Effect::Broadcast(start_view(1, 2, &log)),
            Effect::Broadcast(Message::Prepare(prepare(1, 3, 2, log[2..].to_vec()))),
        ]
    );
}

#[test]
fn rule_10_the_new_primary_sends_all_uncommitted_ops_again_in_windows() {
    let mut bench = Bench::normal(config(3, 1));
    let log: Vec<_> = (1..=10).map(|client| entry(client, 1, "x")).collect();
    bench.hear(0, Message::Prepare(prepare(0, 1, 1, log.clone())));
    let effects = bench.hear(2, do_view_change(1, 0, 1, &log));
    let resent = |first: usize, last: usize| {
        let some = log[first - 1..last].to_vec();
        Effect::Broadcast(Message::Prepare(prepare(1, first as u64, 1, some)))
    };
    assert_eq!(effects[effects.len() - 2..], [resent(2, 5), resent(6, 9)]);
    assert_eq!(bench.hear(2, prepare_ok(1, 5, 5)).len(), 4);
    let left = prepare(1, 10, 5, log[9..].to_vec());
    assert_eq!(bench.flush(), [Effect::Broadcast(Message::Prepare(left))]);
}

#[test]
fn rule_10_a_backup_acknowledges_all_uncommitted_ops_after_start_view() {
    let mut bench = backup(2, &["a", "b"], 0);
    bench.vote(1, 1);
    let effects = bench.hear(1, start_view(1, 0, &entries(&["a", "b"])));
    assert_eq!(
        effects,
        [entered("normal", 1, false), send(1, prepare_ok(1, 2, 2))]
    );
}

#[test]
fn start_view_is_repeated_to_those_who_have_not_answered() {
    let mut bench = Bench::normal(config(3, 1));
    bench.hear(2, do_view_change(1, 0, 0, &[]));
    bench.hear(2, prepare_ok(1, 0, 0));
    assert_eq!(
        bench.tick_after(50),
        [
            send(0, start_view(1, 0, &[])),
            Effect::Broadcast(commit(1, 0))
        ]
    );
    bench.hear(0, prepare_ok(1, 0, 0));
    assert_eq!(bench.tick_after(50), [Effect::Broadcast(commit(1, 0))]);
}

#[test]
fn a_repeated_start_view_is_answered_by_an_acknowledgement() {
    let mut bench = backup(2, &["a"], 0);
    bench.hear(1, start_view(1, 0, &entries(&["a"])));
    let again = bench.hear(1, start_view(1, 0, &entries(&["a"])));
    assert_eq!(again, [send(1, prepare_ok(1, 1, 1))]);
}

#[test]
fn rule_12_the_announced_log_is_shown_in_chunks_and_nothing_else_is() {
    let mut small = config(3, 2);
    small.limits.chunk_bytes = 40;
    let mut bench = Bench::normal(small);
    let log = entries(&["a", "b"]);
    bench.hear(0, Message::Prepare(prepare(0, 1, 0, log.clone())));
    let ask = |view| Message::GetState {
        view: View(view),
        nonce: electrode_vr::Nonce(5),
        after: OpNumber(0),
    };
    assert_eq!(bench.hear(1, ask(1)), [], "in another view");
    bench.vote(0, 1);
    let Message::NewState { digest, .. } = new_state(1, electrode_vr::Nonce(5), 0, &log, 0) else {
        unreachable!()
    };
    let chunk = Message::NewState {
        view: View(1),
        nonce: electrode_vr::Nonce(5),
        after: OpNumber(0),
        digest_after: digest_of(&[]),
        entries: log[..1].to_vec(),
        op: OpNumber(2),
        digest,
        commit: OpNumber(0),
    };
    assert_eq!(bench.hear(1, ask(1)), [send(1, chunk)]);
}

#[test]
fn a_view_change_in_vain_moves_on_by_a_pre_vote() {
    let mut bench = Bench::normal(config(3, 2));
    bench.vote(0, 1);
    let vote = Effect::Broadcast(start_view_change(1));
    let announced = send(1, do_view_change(1, 0, 0, &[]));
    assert_eq!(bench.tick_after(55), [vote.clone(), announced.clone()]);
    assert_eq!(
        bench.tick_after(200),
        [vote, announced, Effect::Broadcast(pre_vote(2))]
    );
    assert_eq!(
        bench.hear(0, pre_vote_ok(2)),
        [
            persist(2),
            entered("view change", 2, true),
            Effect::Broadcast(start_view_change(2))
        ]
    );
}

#[test]
fn a_deposed_primary_joins_by_the_new_primarys_commit() {
    let mut bench = Bench::normal(config(3, 0));
    bench.request(1, 1, "lost");
    bench.flush();
    let effects = bench.hear(1, commit(1, 1));
    assert_eq!(
        effects[..3],
        [
            persist(1),
            answer(1, 1, 1, Reply::Unavailable),
            entered("view change", 1, false)
        ]
    );
    let (nonce, after) = asked_state(&effects);
    assert_eq!(after, OpNumber(0));
    let log = [entry(2, 1, "kept")];
    assert_eq!(
        bench.hear(1, new_state(1, nonce, 0, &log, 1)),
        [entered("normal", 1, false), send(1, prepare_ok(1, 1, 1))]
    );
    assert_eq!(bench.shows().commit, OpNumber(1));
}

#[test]
fn a_prepare_that_overtakes_start_view_is_not_lost() {
    let mut bench = backup(2, &["a"], 0);
    bench.vote(0, 1);
    let log = entries(&["a", "b"]);
    let early = Message::Prepare(prepare(1, 2, 0, log[1..].to_vec()));
    assert_eq!(asked_state(&bench.hear(1, early)).1, OpNumber(0));
    assert_eq!(
        bench.hear(1, start_view(1, 0, &log[..1])),
        [
            entered("normal", 1, false),
            send(1, prepare_ok(1, 1, 1)),
            send(1, prepare_ok(1, 2, 2)),
        ]
    );
}
