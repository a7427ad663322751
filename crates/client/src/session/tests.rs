//! The session, event by event.

use electrode_wire::ReplyView;

use super::*;

const NOW: Time = Time(1_000 * MS);
const GROUP: GroupId = GroupId(77);

fn session(replicas: usize) -> Session {
    Session::new(
        Settings {
            retry_most: 400 * MS,
            ..Settings::new(replicas)
        },
        42,
    )
}

fn after(ms: u64) -> Time {
    NOW.plus(ms * MS)
}

fn submit(session: &mut Session, token: u64) {
    session
        .submit(NOW, token, vec![token as u8], after(1000))
        .unwrap();
}

/// A session whose number 1 was executed.
fn established(settings: Settings) -> Session {
    let mut session = Session::new(settings, 42);
    submit(&mut session, 99);
    sent(&mut session, NOW);
    answer(&mut session, 0, (0, 1), ReplyRef::Done(b"")).unwrap();
    session
}

/// What is due: (replica, number).
fn sent(session: &mut Session, now: Time) -> Vec<(u8, u64)> {
    let mut sent = Vec::new();
    session.transmit(now, |transmit| {
        sent.push((transmit.to.0, transmit.request.0))
    });
    sent
}

fn answer<'a>(
    session: &mut Session,
    from: u8,
    (view, request): (u64, u64),
    reply: ReplyRef<'a>,
) -> Option<Done<'a>> {
    answer_of(session, GROUP, from, (view, request), reply)
}

fn answer_of<'a>(
    session: &mut Session,
    group: GroupId,
    from: u8,
    (view, request): (u64, u64),
    reply: ReplyRef<'a>,
) -> Option<Done<'a>> {
    let envelope = Envelope {
        group,
        epoch: 0,
        sender: from,
        flags: 0,
    };
    let (client, request) = (session.client(), RequestNumber(request));
    let reply = ReplyView {
        envelope,
        view: View(view),
        client,
        request,
        reply,
    };
    session.on_reply(NOW, ReplicaId(from), &reply)
}

fn failures(session: &mut Session) -> Vec<(u64, RequestError)> {
    std::iter::from_fn(|| session.poll_failed())
        .map(|failed| (failed.token, failed.error))
        .collect()
}

#[test]
fn a_request_goes_to_the_primary_and_its_reply_ends_it() {
    let mut session = session(3);
    submit(&mut session, 9);
    assert_eq!(sent(&mut session, NOW), [(0, 1)]);
    assert_eq!(sent(&mut session, NOW), []);
    let done = answer(&mut session, 0, (0, 1), ReplyRef::Done(b"yes")).unwrap();
    assert_eq!(
        done,
        Done {
            token: 9,
            result: b"yes",
            op: vec![9]
        }
    );
    assert_eq!(
        answer(&mut session, 0, (0, 1), ReplyRef::Done(b"yes")),
        None
    );
    assert_eq!(session.deadline(), None);
    assert_eq!(session.group(), GROUP);
}

#[test]
fn numbers_have_no_gap_and_replies_come_in_any_order() {
    let mut session = established(Settings::new(3));
    (0..3).for_each(|token| submit(&mut session, token));
    assert_eq!(sent(&mut session, NOW), [(0, 2), (0, 3), (0, 4)]);
    assert_eq!(
        answer(&mut session, 0, (0, 3), ReplyRef::Done(b""))
            .unwrap()
            .token,
        1
    );
    assert_eq!(
        answer(&mut session, 0, (0, 2), ReplyRef::Done(b""))
            .unwrap()
            .token,
        0
    );
    assert_eq!(
        answer(&mut session, 0, (0, 4), ReplyRef::Done(b""))
            .unwrap()
            .token,
        2
    );
}

#[test]
fn nothing_overtakes_the_first_request_of_a_session() {
    let mut session = session(3);
    (0..3).for_each(|token| submit(&mut session, token));
    assert_eq!(sent(&mut session, NOW), [(0, 1)]);
    answer(&mut session, 0, (0, 1), ReplyRef::Done(b"")).unwrap();
    assert_eq!(sent(&mut session, NOW), [(0, 2), (0, 3)]);
}

#[test]
fn the_window_is_one_of_numbers() {
    let mut session = established(Settings {
        window: 2,
        ..Settings::new(3)
    });
    (0..4).for_each(|token| submit(&mut session, token));
    assert_eq!(sent(&mut session, NOW), [(0, 2), (0, 3)]);
    answer(&mut session, 0, (0, 3), ReplyRef::Done(b"")).unwrap();
    assert_eq!(sent(&mut session, NOW), [], "2 is still open");
    answer(&mut session, 0, (0, 2), ReplyRef::Done(b"")).unwrap();
    assert_eq!(sent(&mut session, NOW), [(0, 4), (0, 5)]);
}

#[test]
fn an_unanswered_request_goes_to_the_primary_again_and_then_to_all() {
    let mut session = session(3);
    submit(&mut session, 0);
    sent(&mut session, NOW);
    let mut times = Vec::new();
    let mut receivers = Vec::new();
    for _ in 0..5 {
        let time = session.deadline().unwrap();
        times.push((time.0 - NOW.0) / MS);
        session.on_time(time);
        receivers.push(sent(&mut session, time).len());
    }
    assert_eq!(receivers, [1, 3, 3, 3, 0], "the last time is the deadline");
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    assert!(
        (50..63).contains(&times[0]) && times[4] == 1000,
        "{times:?}"
    );
}

#[test]
fn not_primary_leads_to_the_primary_of_its_view_at_once() {
    let mut session = established(Settings::new(3));
    submit(&mut session, 0);
    submit(&mut session, 1);
    sent(&mut session, NOW);
    answer(&mut session, 0, (4, 2), ReplyRef::NotPrimary);
    assert_eq!(sent(&mut session, NOW), [(1, 2), (1, 3)]);
    answer(&mut session, 0, (4, 3), ReplyRef::NotPrimary);
    assert_eq!(sent(&mut session, NOW), [], "nothing new");
    answer(&mut session, 2, (3, 2), ReplyRef::NotPrimary);
    assert_eq!(sent(&mut session, NOW), [], "an older view says nothing");
    assert_eq!(session.view(), View(4));
}

#[test]
fn busy_waits_as_long_as_it_was_told() {
    let mut session = session(3);
    submit(&mut session, 0);
    sent(&mut session, NOW);
    answer(
        &mut session,
        0,
        (0, 1),
        ReplyRef::Busy { retry_after_ms: 7 },
    );
    assert_eq!(session.deadline(), Some(after(7)));
    session.on_time(after(7));
    assert_eq!(sent(&mut session, after(7)), [(0, 1)]);
    answer(
        &mut session,
        0,
        (0, 1),
        ReplyRef::Busy {
            retry_after_ms: u32::MAX,
        },
    );
    assert_eq!(
        session.deadline(),
        Some(after(400)),
        "a hint can't put a request to sleep for ever"
    );
}

#[test]
fn after_unavailable_the_next_retry_goes_to_all() {
    let mut session = session(3);
    submit(&mut session, 0);
    sent(&mut session, NOW);
    answer(&mut session, 0, (0, 1), ReplyRef::Unavailable);
    session.on_time(after(70));
    assert_eq!(sent(&mut session, after(70)), [(0, 1), (1, 1), (2, 1)]);
}

#[test]
fn a_deadline_ends_a_request_with_an_unknown_outcome() {
    let mut session = session(3);
    submit(&mut session, 5);
    sent(&mut session, NOW);
    session.on_time(after(1000));
    let error = RequestError::DeadlineUnknown { waited_ms: 1000 };
    assert!(error.outcome_unknown());
    assert_eq!(failures(&mut session), [(5, error)]);
    assert_eq!(session.deadline(), None);
}

#[test]
fn a_reply_after_the_deadline_is_not_reported_twice() {
    let mut session = established(Settings::new(3));
    submit(&mut session, 0);
    session.submit(NOW, 1, vec![], after(5000)).unwrap();
    sent(&mut session, NOW);
    session.on_time(after(1000));
    assert_eq!(failures(&mut session).len(), 1);
    assert_eq!(
        answer(&mut session, 0, (0, 2), ReplyRef::Done(b"late")),
        None
    );
    assert_eq!(
        answer(&mut session, 0, (0, 3), ReplyRef::Done(b""))
            .unwrap()
            .token,
        1
    );
}

#[test]
fn an_expired_number_is_sent_as_long_as_later_ones_wait_behind_it() {
    let mut session = established(Settings::new(3));
    submit(&mut session, 0);
    session.submit(NOW, 1, vec![], after(5000)).unwrap();
    sent(&mut session, NOW);
    session.on_time(after(1000));
    assert_eq!(failures(&mut session).len(), 1);
    session.on_time(after(2000));
    assert!(sent(&mut session, after(2000)).contains(&(0, 2)));
}

#[test]
fn after_expiry_the_next_request_begins_a_new_session() {
    let mut session = session(3);
    let first = session.client();
    submit(&mut session, 0);
    sent(&mut session, NOW);
    session.on_time(after(1000));
    session.submit(after(1000), 1, vec![], after(2000)).unwrap();
    assert_ne!(session.client(), first);
    assert_eq!(sent(&mut session, after(1000)), [(0, 1)]);
}

#[test]
fn a_lost_session_fails_what_is_in_flight_and_the_queue_goes_on_in_a_new_one() {
    let mut session = established(Settings {
        window: 2,
        ..Settings::new(3)
    });
    let first = session.client();
    (0..3).for_each(|token| submit(&mut session, token));
    sent(&mut session, NOW);
    answer(&mut session, 0, (0, 3), ReplyRef::NoSession);
    let lost = RequestError::SessionLost;
    assert_eq!(failures(&mut session), [(0, lost.clone()), (1, lost)]);
    assert_ne!(session.client(), first);
    assert_eq!(sent(&mut session, NOW), [(0, 1)]);
    assert_eq!(
        answer(&mut session, 0, (0, 1), ReplyRef::Done(b""))
            .unwrap()
            .token,
        2
    );
}

#[test]
fn a_primary_of_an_earlier_view_cant_say_that_the_session_is_lost() {
    let mut session = established(Settings::new(3));
    submit(&mut session, 1);
    sent(&mut session, NOW);
    answer(&mut session, 1, (4, 2), ReplyRef::NotPrimary);
    assert_eq!(sent(&mut session, NOW), [(1, 2)]);
    // Cut off since view 0, it never heard of the session.
    answer(&mut session, 0, (0, 2), ReplyRef::NoSession);
    assert_eq!(failures(&mut session), []);
    let done = answer(&mut session, 1, (4, 2), ReplyRef::Done(b"")).unwrap();
    assert_eq!(done.token, 1);
}

#[test]
fn a_limit_that_a_replica_tells_is_kept() {
    let mut session = session(3);
    session.submit(NOW, 0, vec![0; 100], after(1000)).unwrap();
    sent(&mut session, NOW);
    answer(&mut session, 0, (0, 1), ReplyRef::TooLarge { limit: 64 });
    let error = RequestError::TooLarge {
        length: 100,
        limit: 64,
    };
    assert_eq!(failures(&mut session), [(0, error)]);
    let error = RequestError::TooLarge {
        length: 65,
        limit: 64,
    };
    assert_eq!(session.submit(NOW, 1, vec![0; 65], after(1000)), Err(error));
    let before = session.client();
    session.submit(NOW, 2, vec![0; 64], after(1000)).unwrap();
    assert_ne!(
        session.client(),
        before,
        "number 1 was never executed, so 2 never would be"
    );
    assert_eq!(sent(&mut session, NOW), [(0, 1)]);
}

#[test]
fn what_came_back_undeliverable_was_not_executed() {
    let mut session = session(3);
    submit(&mut session, 0);
    sent(&mut session, NOW);
    session.on_refused(ReplicaId(0));
    session.on_time(after(70));
    sent(&mut session, after(70));
    session.on_send_failed(ReplicaId(0));
    session.on_time(after(1000));
    let error = RequestError::Unavailable { waited_ms: 1000 };
    assert!(!error.outcome_unknown());
    assert_eq!(failures(&mut session), [(0, error)]);
}

#[test]
fn what_never_left_the_queue_was_not_executed() {
    let mut session = Session::new(
        Settings {
            window: 1,
            ..Settings::new(3)
        },
        1,
    );
    submit(&mut session, 0);
    submit(&mut session, 1);
    sent(&mut session, NOW);
    session.on_time(after(1000));
    let waited_ms = 1000;
    let expected = [
        (1, RequestError::Unavailable { waited_ms }),
        (0, RequestError::DeadlineUnknown { waited_ms }),
    ];
    assert_eq!(failures(&mut session), expected);
}

#[test]
fn another_groups_replies_are_ignored_and_named() {
    let mut session = session(3);
    submit(&mut session, 0);
    answer(&mut session, 0, (0, 1), ReplyRef::Done(b"")).unwrap();
    submit(&mut session, 1);
    sent(&mut session, NOW);
    assert_eq!(
        answer_of(&mut session, GroupId(5), 0, (0, 2), ReplyRef::Done(b"")),
        None
    );
    session.on_time(after(1000));
    let error = RequestError::WrongGroup {
        expected: GROUP,
        found: GroupId(5),
    };
    assert_eq!(
        error.to_string(),
        "only group 0000000000000005 answers here, expected group 000000000000004d: whether the operation was executed \
         isn't known"
    );
    assert_eq!(failures(&mut session), [(1, error)]);
}

#[test]
fn a_reply_under_anothers_name_or_for_another_session_is_ignored() {
    let mut session = session(3);
    submit(&mut session, 0);
    sent(&mut session, NOW);
    let envelope = Envelope {
        group: GROUP,
        epoch: 0,
        sender: 0,
        flags: 0,
    };
    let (view, client, request) = (View(0), session.client(), RequestNumber(1));
    let reply = ReplyView {
        envelope,
        view,
        client,
        request,
        reply: ReplyRef::Done(b""),
    };
    assert_eq!(session.on_reply(NOW, ReplicaId(1), &reply), None);
    let other = ReplyView {
        client: ClientId(client.0 ^ 1),
        ..reply
    };
    assert_eq!(session.on_reply(NOW, ReplicaId(0), &other), None);
    assert!(session.on_reply(NOW, ReplicaId(0), &reply).is_some());
}

#[test]
fn the_queue_is_bounded() {
    let mut session = Session::new(
        Settings {
            window: 1,
            queue: 2,
            ..Settings::new(3)
        },
        1,
    );
    (0..3).for_each(|token| submit(&mut session, token));
    let error = RequestError::QueueFull { waiting: 2 };
    assert_eq!(session.submit(NOW, 3, vec![], after(1)), Err(error));
}

fn submit_read(session: &mut Session, token: u64) {
    session
        .submit_read(NOW, token, vec![token as u8], after(1000))
        .unwrap();
}

#[test]
fn reads_have_numbers_of_their_own_and_take_no_place_in_the_window() {
    const READ: u64 = RequestNumber::READS;
    let mut session = session(3);
    submit(&mut session, 1);
    submit_read(&mut session, 2);
    submit_read(&mut session, 3);
    assert_eq!(sent(&mut session, NOW), [(0, 1), (0, READ), (0, READ + 1)]);
    let done = answer(&mut session, 0, (0, READ + 1), ReplyRef::Done(b"r")).unwrap();
    assert_eq!((done.token, done.result), (3, &b"r"[..]));
    assert_eq!(
        answer(&mut session, 0, (0, READ + 1), ReplyRef::Done(b"r")),
        None
    );
    // Another primary: what is open goes there at once, reads too.
    answer(&mut session, 0, (1, READ), ReplyRef::NotPrimary);
    assert_eq!(sent(&mut session, NOW), [(1, 1), (1, READ)]);
    answer(&mut session, 1, (1, READ), ReplyRef::NotRead);
    assert_eq!(failures(&mut session), [(2, RequestError::NotRead)]);
    let error = RequestError::NotRead;
    assert!(!error.outcome_unknown());
}

#[test]
fn an_unanswered_read_goes_to_all_and_ends_with_its_deadline() {
    let mut session = session(3);
    submit_read(&mut session, 1);
    assert_eq!(sent(&mut session, NOW).len(), 1);
    session.on_time(after(70));
    assert_eq!(sent(&mut session, after(70)).len(), 1);
    session.on_time(after(300));
    assert_eq!(sent(&mut session, after(300)).len(), 3);
    session.on_time(after(1000));
    assert!(matches!(
        failures(&mut session)[..],
        [(1, RequestError::DeadlineUnknown { .. })]
    ));
    assert_eq!(session.deadline(), None);
}

#[test]
fn reads_in_flight_are_bounded() {
    let settings = Settings {
        queue: 2,
        ..Settings::new(3)
    };
    let mut session = Session::new(settings, 42);
    submit_read(&mut session, 1);
    submit_read(&mut session, 2);
    let error = session
        .submit_read(NOW, 3, vec![], after(1000))
        .unwrap_err();
    assert_eq!(error, RequestError::QueueFull { waiting: 2 });
}
