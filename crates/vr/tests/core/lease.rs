//! Reads, and the lease (protocol.md, rule 15).

use electrode_vr::{
    Config, Effect, FastPathCommand, FastPathEvent, Message, OpNumber, Promise, Reply,
    RequestNumber, Start, Status, View,
};

use crate::support::*;

const READ: u64 = RequestNumber::READS;

/// With leases of 100 ms, of which a primary uses seven eighths.
fn leased(index: u8) -> Config {
    let mut settings = config(3, index);
    settings.timing.lease = 100 * MS;
    settings.lease_reads = true;
    settings
}

/// A primary that decided one op, first sent at the time that its clock still shows.
fn holding() -> Bench {
    let mut primary = Bench::normal(leased(0));
    primary.request(1, 1, "a");
    primary.flush();
    primary.hear(1, prepare_ok(0, 1, 1));
    primary
}

/// What the bench's state machine answers to a read after `ops` ops.
fn read_of(client: u64, number: u64, view: u64, ops: u8) -> Effect {
    done(client, READ + number, view, &[ops])
}

#[test]
fn rule_15_a_read_is_answered_at_once_while_the_lease_holds() {
    let mut primary = holding();
    assert_eq!(primary.request(7, READ, "?"), [read_of(7, 0, 0, 1)]);
    assert_eq!(
        primary.request(7, READ, "?"),
        [read_of(7, 0, 0, 1)],
        "again"
    );
    primary.now = primary.now.plus(87 * MS);
    assert_eq!(primary.request(7, READ + 1, "?"), [read_of(7, 1, 0, 1)]);
    assert_eq!(primary.flush(), [], "nothing of it is in the log");
}

#[test]
fn rule_15_without_the_lease_a_read_goes_through_the_log_and_renews_it() {
    let mut primary = holding();
    primary.now = primary.now.plus(88 * MS);
    assert_eq!(primary.request(7, READ, "?"), []);
    let sent = primary.flush();
    let expected = prepare(0, 2, 1, vec![entry(7, READ, "?")]);
    assert_eq!(sent, [Effect::Broadcast(Message::Prepare(expected))]);
    assert_eq!(primary.hear(2, prepare_ok(0, 2, 2)), [read_of(7, 0, 0, 1)]);
    assert_eq!(primary.request(7, READ + 1, "?"), [read_of(7, 1, 0, 1)]);
    assert_eq!(primary.shows().sessions, 1, "a read has no session");
}

#[test]
fn rule_15_the_lease_begins_when_the_op_was_sent_first_not_again() {
    let mut primary = Bench::normal(leased(0));
    primary.request(1, 1, "a");
    primary.flush();
    // It is sent again at 50 ms, and that is what is answered; the backup may have had it since the first time.
    assert!(!primary.tick_after(50).is_empty());
    primary.now = primary.now.plus(30 * MS);
    primary.hear(1, prepare_ok(0, 1, 1));
    assert_eq!(primary.request(7, READ, "?"), [read_of(7, 0, 0, 1)]);
    primary.now = primary.now.plus(8 * MS);
    assert_eq!(primary.request(7, READ + 1, "?"), [], "88 ms have passed");
}

#[test]
fn rule_15_acks_that_the_kernel_counted_extend_the_lease() {
    let mut settings = leased(0);
    settings.fast_path = true;
    let mut primary = Bench::normal(settings);
    primary.request(1, 1, "a");
    primary.flush();
    let (op, acks) = (OpNumber(1), 0b010);
    primary.kernel(FastPathEvent::SlotAcks { op, acks });
    assert_eq!(primary.request(7, READ, "?"), [read_of(7, 0, 0, 1)]);
}

/// Found by seed 4025 of the groups on disk.
#[test]
fn rule_15_a_new_primary_has_no_lease_before_it_executed_all_that_it_inherited() {
    let log = entries(&["a", "b", "c", "d", "e", "f"]);
    let mut primary = Bench::normal(leased(1));
    primary.hear(0, Message::Prepare(prepare(0, 1, 0, log.clone())));
    primary.now = primary.now.plus(200 * MS);
    primary.vote(2, 1);
    primary.hear(2, do_view_change(1, 0, 0, &log));
    assert_eq!(primary.shows().status, Status::Normal);
    // The first of two Prepares that it sends again is decided.
    primary.hear(2, prepare_ok(1, 4, 4));
    assert_eq!(primary.shows().commit, OpNumber(4));
    assert_eq!(primary.request(7, READ, "?"), []);
    primary.hear(2, prepare_ok(1, 6, 6));
    assert_eq!(primary.request(7, READ + 1, "?"), [read_of(7, 1, 1, 6)]);
}

/// Backups acknowledge what a view inherits when they hear of the view, not when it is sent again.
#[test]
fn rule_15_the_lease_of_inherited_ops_begins_with_the_view() {
    let log: Vec<_> = (1..=12).map(|number| entry(1, number, "x")).collect();
    let mut primary = Bench::normal(leased(1));
    primary.hear(0, Message::Prepare(prepare(0, 1, 0, log.clone())));
    primary.now = primary.now.plus(200 * MS);
    primary.vote(2, 1);
    primary.hear(2, do_view_change(1, 0, 0, &log));
    // All of it was acknowledged when the view began; the last window leaves 80 ms later.
    primary.now = primary.now.plus(80 * MS);
    primary.hear(2, prepare_ok(1, 12, 12));
    primary.flush();
    primary.hear(2, prepare_ok(1, 12, 12));
    assert_eq!(primary.shows().commit, OpNumber(12));
    primary.now = primary.now.plus(8 * MS);
    assert_eq!(primary.request(7, READ, "?"), [], "88 ms have passed");
}

#[test]
fn rule_15_a_backup_that_acknowledged_joins_no_newer_view_for_a_lease() {
    let newer = || {
        [
            Message::StartViewChange { view: View(2) },
            start_view(2, 0, &[]),
            commit(2, 0),
            do_view_change(4, 0, 0, &[]),
        ]
    };
    let mut backup = Bench::normal(leased(1));
    backup.hear(0, Message::Prepare(prepare(0, 1, 0, entries(&["a"]))));
    backup.now = backup.now.plus(99 * MS);
    for message in newer() {
        assert_eq!(backup.hear(2, message.clone()), [], "{message:?}");
    }
    backup.now = backup.now.plus(MS);
    let [message, ..] = newer();
    assert_eq!(backup.hear(2, message)[0], persist(2));
}

#[test]
fn rule_15_what_the_kernel_acknowledged_binds_even_when_it_is_found_at_the_fence() {
    let mut settings = leased(1);
    settings.fast_path = true;
    let mut backup = Bench::normal(settings);
    backup.now = backup.now.plus(200 * MS);
    let effects = backup.vote(2, 2);
    assert_eq!(effects, [fast(FastPathCommand::Fence)]);
    let record = prepare(0, 1, 0, entries(&["a"]));
    backup.kernel(FastPathEvent::Stored(record));
    let last_op = OpNumber(1);
    assert_eq!(
        backup.kernel(FastPathEvent::Fenced { last_op }),
        [fast(FastPathCommand::Arm {
            view: View(0),
            primary: false,
            last_op,
        })],
        "it stays, and the kernel goes on"
    );
    backup.now = backup.now.plus(100 * MS);
    assert_eq!(backup.vote(2, 2), [fast(FastPathCommand::Fence)]);
}

#[test]
fn rule_15_a_replica_that_comes_back_is_bound_by_what_it_forgot() {
    let promise = Promise {
        group: GROUP,
        view: View(0),
    };
    let mut back = Bench::unstarted(leased(1), Start::Recover(promise));
    let effects = back.tick();
    let Some(Effect::Broadcast(Message::Recovery { nonce, .. })) = effects.last() else {
        panic!("{effects:?}");
    };
    let nonce = *nonce;
    let response = |primary| Message::RecoveryResponse {
        nonce,
        view: View(0),
        primary,
    };
    back.hear(2, response(None));
    let empty = (OpNumber(0), OpNumber(0), digest_of(&[]));
    let effects = back.hear(0, response(Some(empty)));
    let (nonce, after) = asked_state(&effects);
    back.hear(0, new_state(0, nonce, after.0, &[], 0));
    assert_eq!(back.shows().status, Status::Normal);
    assert_eq!(back.vote(2, 2), []);
    back.now = back.now.plus(100 * MS);
    assert_eq!(back.vote(2, 2)[0], persist(2));
}

#[test]
fn a_read_that_writes_is_refused_and_one_that_nobody_leads_is_sent_on() {
    let mut primary = holding();
    let refused = answer(7, READ, 0, Reply::NotRead);
    assert_eq!(primary.request(7, READ, "write"), [refused]);
    let mut backup = Bench::normal(leased(1));
    let elsewhere = answer(7, READ, 0, Reply::NotPrimary);
    assert_eq!(backup.request(7, READ, "?"), [elsewhere]);
}

#[test]
fn leases_are_off_unless_they_are_asked_for() {
    let mut settings = leased(0);
    settings.lease_reads = false;
    let mut primary = Bench::normal(settings);
    primary.request(1, 1, "a");
    primary.flush();
    primary.hear(1, prepare_ok(0, 1, 1));
    assert_eq!(primary.request(7, READ, "?"), []);
    primary.flush();
    assert_eq!(primary.hear(1, prepare_ok(0, 2, 2)), [read_of(7, 0, 0, 1)]);
}

#[test]
fn reads_beyond_the_queue_hear_busy() {
    let mut primary = Bench::normal(leased(0));
    for number in 0..8 {
        assert_eq!(primary.request(7, READ + number, "?"), []);
    }
    let effects = primary.request(7, READ + 8, "?");
    assert!(
        matches!(
            effects[..],
            [Effect::Reply {
                reply: Reply::Busy { .. },
                ..
            }]
        ),
        "{effects:?}"
    );
}
