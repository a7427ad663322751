//! Clients' requests: once each, in the order of the session's numbers (protocol.md, rule 7).

use electrode_vr::{Message, OpNumber, Reply};

use crate::support::*;

/// Commits what is in flight.
fn decide(bench: &mut Bench) -> Vec<electrode_vr::Effect> {
    bench.flush();
    let op = bench.shows().op.0;
    bench.hear(1, prepare_ok(0, op, op))
}

#[test]
fn who_cannot_take_a_request_says_so() {
    let mut backup = Bench::normal(config(3, 1));
    assert_eq!(
        backup.request(1, 1, "a"),
        [answer(1, 1, 0, Reply::NotPrimary)]
    );
    backup.vote(2, 4);
    assert_eq!(
        backup.request(1, 1, "a"),
        [answer(1, 1, 4, Reply::Unavailable)]
    );
    let mut primary = Bench::normal(config(3, 0));
    let long = "l".repeat((32 << 10) + 1);
    let too_large = Reply::TooLarge { limit: 32 << 10 };
    assert_eq!(primary.request(1, 1, &long), [answer(1, 1, 0, too_large)]);
}

#[test]
fn rule_7_a_retry_gets_the_same_bytes_and_is_not_executed_again() {
    let mut bench = Bench::normal(config(3, 0));
    bench.request(1, 1, "a");
    let first = decide(&mut bench);
    assert_eq!(first, [done(1, 1, 0, b"\x01a")]);
    assert_eq!(bench.request(1, 1, "a"), first);
    assert_eq!(bench.flush(), []);
    assert_eq!(bench.shows().op, OpNumber(1));
}

#[test]
fn a_request_in_flight_is_not_logged_twice() {
    let mut bench = Bench::normal(config(3, 0));
    bench.request(1, 1, "a");
    assert_eq!(bench.request(1, 1, "a"), []);
    bench.flush();
    assert_eq!(bench.request(1, 1, "a"), []);
    assert_eq!(decide(&mut bench), [done(1, 1, 0, b"\x01a")]);
    assert_eq!(bench.shows().op, OpNumber(1));
}

#[test]
fn a_session_that_is_not_known_begins_with_1() {
    let mut bench = Bench::normal(config(3, 0));
    assert_eq!(
        bench.request(1, 2, "b"),
        [answer(1, 2, 0, Reply::NoSession)]
    );
    assert_eq!(
        bench.request(1, 0, "b"),
        [answer(1, 0, 0, Reply::NoSession)]
    );
}

#[test]
fn early_numbers_wait_for_their_predecessor() {
    let mut bench = Bench::normal(config(3, 0));
    bench.request(1, 1, "a");
    assert_eq!(bench.request(1, 3, "c"), []);
    assert_eq!(bench.request(1, 4, "d"), []);
    let busy = answer(1, 5, 0, Reply::Busy { retry_after_ms: 10 });
    assert_eq!(bench.request(1, 5, "e"), [busy], "4 may be in flight");
    assert_eq!(bench.request(1, 2, "b"), []);
    let all = prepare(0, 1, 0, entries(&["a", "b", "c", "d"]));
    assert_eq!(
        bench.flush(),
        [electrode_vr::Effect::Broadcast(Message::Prepare(all))]
    );
}

#[test]
fn a_full_queue_makes_clients_come_again() {
    let mut bench = Bench::normal(config(3, 0));
    for client in 1..=8 {
        assert_eq!(bench.request(client, 1, "x"), []);
    }
    let busy = answer(9, 1, 0, Reply::Busy { retry_after_ms: 10 });
    assert_eq!(bench.request(9, 1, "x"), [busy]);
}

#[test]
fn a_reply_that_is_not_kept_any_more_is_no_reply() {
    let mut bench = Bench::normal(config(3, 0));
    for number in 1..=5 {
        bench.request(1, number, "x");
        decide(&mut bench);
    }
    assert_eq!(
        bench.request(1, 1, "x"),
        [answer(1, 1, 0, Reply::NoSession)]
    );
    assert_eq!(bench.request(1, 2, "x"), [done(1, 2, 0, b"\x02x")]);
}

#[test]
fn an_evicted_session_hears_so_even_when_its_next_request_was_logged() {
    let mut one_session = config(3, 0);
    one_session.limits.sessions = 1;
    let mut bench = Bench::normal(one_session);
    bench.request(1, 1, "a");
    decide(&mut bench);
    bench.request(2, 1, "b");
    bench.request(1, 2, "c");
    assert_eq!(
        decide(&mut bench),
        [done(2, 1, 0, b"\x02b"), answer(1, 2, 0, Reply::NoSession)]
    );
    assert_eq!(
        bench.request(1, 3, "d"),
        [answer(1, 3, 0, Reply::NoSession)]
    );
    assert_eq!(bench.request(1, 1, "a"), [], "it may begin anew");
}

#[test]
fn rule_7_a_new_primary_knows_the_requests_that_it_inherited() {
    let mut bench = Bench::normal(config(3, 1));
    bench.hear(0, Message::Prepare(prepare(0, 1, 1, entries(&["a", "b"]))));
    bench.vote(2, 1);
    bench.hear(2, do_view_change(1, 0, 1, &entries(&["a", "b"])));
    assert_eq!(bench.request(1, 1, "a"), [done(1, 1, 1, b"\x01a")]);
    assert_eq!(
        bench.request(1, 2, "b"),
        [],
        "in the log already: its reply will come"
    );
    assert_eq!(bench.request(1, 3, "c"), []);
    let effects = bench.hear(2, prepare_ok(1, 2, 2));
    assert_eq!(effects, [done(1, 2, 1, b"\x02b")]);
}

#[test]
fn rule_7_a_request_of_a_suffix_that_lost_may_come_again() {
    // Replica 1 logged "b" in view 0; view 1 begins without it; later replica 1 leads view 4.
    let mut bench = Bench::normal(config(3, 1));
    bench.hear(0, Message::Prepare(prepare(0, 1, 0, entries(&["a", "b"]))));
    bench.hear(2, start_view(2, 1, &entries(&["a"])));
    assert_eq!(bench.shows().op, OpNumber(1));
    bench.vote(2, 4);
    bench.hear(2, do_view_change(4, 2, 1, &entries(&["a"])));
    assert_eq!(bench.request(1, 2, "b"), []);
    let again = prepare(4, 2, 1, vec![entry(1, 2, "b")]);
    assert_eq!(
        bench.flush(),
        [electrode_vr::Effect::Broadcast(Message::Prepare(again))]
    );
}

/// Rule 11: a primary that is cut off says so, rather than letting its clients wait.
#[test]
fn a_primary_without_a_quorum_of_life_signs_steps_down_and_turns_its_clients_away() {
    let mut primary = Bench::normal(config(3, 0));
    primary.hear(1, prepare_ok(0, 0, 0));
    primary.request(1, 1, "in the log");
    primary.flush();
    primary.request(2, 2, "unknown");
    for number in 2..=4 {
        primary.request(1, number, "in the log or queued");
    }
    primary.flush();
    primary.request(3, 1, "queued");
    primary.request(3, 3, "early");
    // Twice the view-change time-out without a backup's word.
    primary.now = primary.now.plus(301 * MS);
    let effects = primary.tick();
    let away = |client, number| answer(client, number, 0, Reply::Unavailable);
    for (client, number) in [(1, 1), (1, 2), (1, 3), (1, 4), (3, 1), (3, 3)] {
        let told = effects
            .iter()
            .filter(|effect| **effect == away(client, number));
        assert_eq!(
            told.count(),
            1,
            "client {client} request {number}: {effects:?}"
        );
    }
    assert!(primary.shows().reason.unwrap().contains("stepped down"));
    assert_eq!(primary.request(3, 1, "queued"), [away(3, 1)]);
    assert_eq!(primary.request(1, 1, "in the log"), [away(1, 1)]);
    // It hears backups again, and nobody else leads: it goes on where it was.
    primary.hear(1, prepare_ok(0, 4, 4));
    let effects = primary.tick_after(25);
    assert!(effects.contains(&entered("normal", 0, true)), "{effects:?}");
    assert_eq!(primary.shows().reason, None);
    primary.request(3, 1, "queued");
    let effects = primary.flush();
    assert!(
        matches!(&effects[..], [electrode_vr::Effect::Broadcast(Message::Prepare(prepare))]
            if prepare.entries == [entry(3, 1, "queued")]),
        "{effects:?}"
    );
}

#[test]
fn a_primary_that_another_view_ends_turns_its_clients_away() {
    let mut primary = Bench::normal(config(3, 0));
    primary.request(1, 1, "in the log");
    primary.flush();
    primary.request(2, 1, "queued");
    primary.request(3, 2, "unknown session");
    let effects = primary.vote(1, 1);
    let away = |client| answer(client, 1, 1, Reply::Unavailable);
    assert!(effects.contains(&away(1)), "{effects:?}");
    assert!(effects.contains(&away(2)), "{effects:?}");
    // Backups have nobody to turn away.
    let mut backup = Bench::normal(config(3, 2));
    backup.hear(0, Message::Prepare(prepare(0, 1, 0, entries(&["a"]))));
    let effects = backup.vote(1, 1);
    let replies =
        |effect: &electrode_vr::Effect| matches!(effect, electrode_vr::Effect::Reply { .. });
    assert!(!effects.iter().any(replies), "{effects:?}");
}

#[test]
fn when_too_many_wait_for_a_predecessor_one_is_told_to_come_again() {
    let mut primary = Bench::normal(config(3, 0));
    // The limit is 8.
    for client in 1..=8 {
        assert_eq!(primary.request(client, 1, "x"), []);
    }
    primary.flush();
    for client in 1..=8 {
        assert_eq!(primary.request(client, 3, "early"), []);
        assert_eq!(primary.request(client, 3, "early"), [], "once");
    }
    for client in 9..=10 {
        primary.hear(1, prepare_ok(0, 8, 8));
        primary.request(client, 1, "x");
        primary.flush();
        let effects = primary.request(client, 3, "early");
        let Reply::Busy { retry_after_ms } = (match &effects[..] {
            [electrode_vr::Effect::Reply { reply, .. }] => reply.clone(),
            other => panic!("{other:?}"),
        }) else {
            panic!("{effects:?}");
        };
        assert!(retry_after_ms > 0);
    }
}

#[test]
fn a_queue_that_has_too_many_bytes_is_busy_and_takes_one_of_any_length() {
    let mut limited = config(3, 0);
    limited.limits.queue_bytes = 1030;
    let mut bench = Bench::normal(limited);
    let busy = Reply::Busy { retry_after_ms: 10 };
    assert_eq!(bench.request(1, 1, &"l".repeat(5000)), []);
    assert_eq!(
        bench.request(2, 1, "a"),
        [answer(2, 1, 0, busy.clone())],
        "no room beside it"
    );
    bench.flush();
    for client in 2..5 {
        assert_eq!(bench.request(client, 1, &"l".repeat(300)), []);
    }
    assert_eq!(
        bench.request(5, 1, &"l".repeat(300)),
        [answer(5, 1, 0, busy.clone())]
    );
    // A read waits in the same queue.
    assert_eq!(
        bench.request(6, electrode_vr::RequestNumber::READS, "?"),
        [],
        "a short one has room"
    );
    for _ in 0..4 {
        decide(&mut bench);
    }
    assert_eq!(bench.request(5, 1, &"l".repeat(300)), []);
}

#[test]
fn requests_that_wait_for_predecessors_have_a_bound_in_bytes() {
    let mut limited = config(3, 0);
    limited.limits.queue_bytes = 1000;
    let mut bench = Bench::normal(limited);
    for client in 1..=4 {
        bench.request(client, 1, "a");
        bench.flush();
        decide(&mut bench);
    }
    for client in 1..=3 {
        assert_eq!(bench.request(client, 3, &"l".repeat(300)), []);
    }
    let busy = Reply::Busy { retry_after_ms: 10 };
    assert_eq!(
        bench.request(4, 3, &"l".repeat(300)),
        [answer(1, 3, 0, busy)],
        "one of them has to come again"
    );
    // The same one again takes no more room.
    assert_eq!(bench.request(4, 3, &"l".repeat(300)), []);
}
