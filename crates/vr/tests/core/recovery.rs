//! Recovery (protocol.md, rules 4 to 6).

use electrode_vr::{Effect, Message, Nonce, Note, OpNumber, Promise, Start, Status, View};

use crate::support::*;

fn recovering(replicas: usize, index: u8, promised: u64) -> (Bench, Nonce) {
    let promise = Promise {
        group: GROUP,
        view: View(promised),
    };
    let mut bench = Bench::unstarted(config(replicas, index), Start::Recover(promise));
    let effects = bench.tick();
    assert_eq!(
        effects[0],
        entered("recovering", promised, promised % 3 == u64::from(index))
    );
    let Effect::Broadcast(Message::Recovery {
        nonce,
        promised: said,
    }) = effects[1]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((said, effects.len()), (View(promised), 2));
    (bench, nonce)
}

fn response(nonce: Nonce, view: u64, log: Option<&[electrode_vr::Entry]>) -> Message {
    let primary = log.map(|log| (OpNumber(log.len() as u64), OpNumber(1), digest_of(log)));
    Message::RecoveryResponse {
        nonce,
        view: View(view),
        primary,
    }
}

#[test]
fn rule_6_recovery_needs_a_quorum_with_the_nonce_and_its_primary() {
    let (mut bench, nonce) = recovering(5, 4, 0);
    let log = entries(&["a", "b"]);
    assert_eq!(
        bench.hear(0, response(Nonce(77), 5, Some(&log))),
        [],
        "another nonce"
    );
    assert_eq!(bench.hear(0, response(nonce, 5, Some(&log))), []);
    assert_eq!(
        bench.hear(0, response(nonce, 5, Some(&log))),
        [],
        "the same one again"
    );
    assert_eq!(bench.hear(1, response(nonce, 5, None)), []);
    let effects = bench.hear(2, response(nonce, 4, None));
    let (question, after) = asked_state(&effects);
    assert_eq!(after, OpNumber(0), "everything");
    assert_eq!(
        bench.hear(0, new_state(5, question, 0, &log, 1)),
        [
            persist(5),
            entered("normal", 5, false),
            send(0, prepare_ok(5, 2, 2))
        ]
    );
    assert_eq!(
        (bench.shows().commit, bench.shows().view),
        (OpNumber(1), View(5))
    );
}

#[test]
fn rule_6_the_primary_of_the_highest_view_has_to_answer() {
    let (mut bench, nonce) = recovering(3, 0, 0);
    let log = entries(&["a"]);
    assert_eq!(bench.hear(1, response(nonce, 1, Some(&log))), []);
    assert_eq!(
        bench.hear(2, response(nonce, 2, None)),
        [],
        "replica 2 would lead view 2"
    );
    let effects = bench.hear(2, response(nonce, 2, Some(&log)));
    assert_eq!(asked_state(&effects).1, OpNumber(0));
}

#[test]
fn rule_4_a_recovering_replica_never_ends_up_below_its_promise() {
    let (mut bench, nonce) = recovering(3, 2, 4);
    let log = entries(&["a"]);
    assert_eq!(bench.hear(0, response(nonce, 3, Some(&log))), []);
    assert_eq!(bench.hear(1, response(nonce, 3, None)), []);
    assert_eq!(bench.hear(1, response(nonce, 4, Some(&log))).len(), 1);
}

#[test]
fn rule_4_normal_replicas_below_the_promise_move_up_past_the_recovering() {
    let mut bench = Bench::normal(config(3, 1));
    let ask = Message::Recovery {
        nonce: Nonce(5),
        promised: View(5),
    };
    assert_eq!(
        bench.hear(2, ask),
        [
            persist(6),
            entered("view change", 6, false),
            Effect::Broadcast(Message::StartViewChange { view: View(6) }),
        ]
    );
}

#[test]
fn a_normal_replica_answers_and_only_the_primary_names_its_log() {
    let ask = Message::Recovery {
        nonce: Nonce(5),
        promised: View(0),
    };
    let mut backup = Bench::normal(config(3, 1));
    assert_eq!(
        backup.hear(2, ask.clone()),
        [send(2, response(Nonce(5), 0, None))]
    );
    let mut primary = Bench::normal(config(3, 0));
    let primary_says = Message::RecoveryResponse {
        nonce: Nonce(5),
        view: View(0),
        primary: Some((OpNumber(0), OpNumber(0), digest_of(&[]))),
    };
    assert_eq!(primary.hear(2, ask.clone()), [send(2, primary_says)]);
    backup.vote(2, 4);
    assert_eq!(backup.hear(2, ask), [], "not between two views");
}

#[test]
fn rule_5_a_recovering_replica_takes_part_in_nothing() {
    let (mut bench, _) = recovering(3, 2, 0);
    let one = entries(&["a"]);
    for message in [
        Message::Prepare(prepare(0, 1, 0, one.clone())),
        commit(1, 1),
        Message::PreVote { view: View(9) },
        Message::StartViewChange { view: View(9) },
        do_view_change(2, 0, 0, &one),
        start_view(1, 0, &one),
        Message::GetState {
            view: View(0),
            nonce: Nonce(1),
            after: OpNumber(0),
        },
        Message::Recovery {
            nonce: Nonce(1),
            promised: View(0),
        },
    ] {
        assert_eq!(bench.hear(1, message), []);
    }
    assert_eq!(bench.shows().status, Status::Recovering);
    assert_eq!(bench.request(1, 1, "a").len(), 1);
}

#[test]
fn rule_6_more_than_f_in_recovery_is_said_by_name() {
    let (mut bench, _) = recovering(3, 2, 0);
    let mut warnings = Vec::new();
    for _ in 0..30 {
        bench.hear(
            1,
            Message::Recovery {
                nonce: Nonce(1),
                promised: View(0),
            },
        );
        for effect in bench.tick_after(70) {
            if let Effect::Note(Note::Warning(text)) = effect {
                warnings.push(text);
            }
        }
    }
    assert_eq!(warnings.len(), 1, "once");
    assert!(warnings[0].starts_with("more than f replicas are recovering"));
    assert!(
        bench
            .shows()
            .reason
            .unwrap()
            .starts_with("more than f replicas are recovering")
    );
}

#[test]
fn recovery_begins_anew_when_the_primary_goes_away_meanwhile() {
    let (mut bench, nonce) = recovering(3, 2, 0);
    let log = entries(&["a"]);
    bench.hear(1, response(nonce, 0, None));
    bench.hear(0, response(nonce, 0, Some(&log)));
    let again = (0..20)
        .flat_map(|_| bench.tick_after(70))
        .find_map(|effect| match effect {
            Effect::Broadcast(Message::Recovery { nonce, .. }) => Some(nonce),
            _ => None,
        });
    assert!(again.is_some_and(|again| again != nonce));
}
