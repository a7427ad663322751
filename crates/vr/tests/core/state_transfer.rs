//! State transfer: chunks, checkpoints, digests (protocol.md, rules 9, 12 to 14).

use electrode_vr::{Effect, Message, Nonce, OpNumber, Promise, Start, Status, View};

use crate::support::*;

fn small(index: u8) -> electrode_vr::Config {
    let mut config = config(3, index);
    config.limits.checkpoint_ops = 4;
    config.limits.chunk_bytes = 64;
    config
}

/// Carries questions and answers between two replicas until there are no more; returns how many there were.
fn carry(asker: &mut Bench, answerer: &mut Bench, mut effects: Vec<Effect>) -> usize {
    let mut messages = 0;
    while let Some(Effect::Send { message, .. }) = effects.pop() {
        if !matches!(
            message,
            Message::GetState { .. } | Message::GetCheckpoint { .. }
        ) {
            continue;
        }
        let [
            Effect::Send {
                message: answer, ..
            },
        ] = &answerer.hear(2, message)[..]
        else {
            panic!("no answer")
        };
        effects = asker.hear(0, answer.clone());
        messages += 1;
        assert!(messages < 1000, "it ends");
    }
    messages
}

/// A primary with `ops` committed ops, and small limits.
fn primary_with(ops: u64) -> Bench {
    let mut bench = Bench::normal(small(0));
    commit_more(&mut bench, ops);
    bench
}

/// Commits `ops` more, and returns the Prepares that this took.
fn commit_more(primary: &mut Bench, ops: u64) -> Vec<Effect> {
    let before = primary.shows().op.0;
    let mut sent = Vec::new();
    for op in before + 1..=before + ops {
        primary.request(op, 1, "payload");
        sent.extend(primary.flush());
        primary.hear(1, prepare_ok(0, op, op));
    }
    sent
}

/// What `replica`, whose process begins anew without its log, asks the others.
fn recovering(config: electrode_vr::Config, promised: u64) -> (Bench, Message) {
    let promise = Promise {
        group: GROUP,
        view: View(promised),
    };
    let mut bench = Bench::unstarted(config, Start::Recover(promise));
    let asked = asked_all(&bench.tick()).expect("it asks at once");
    (bench, asked)
}

/// The Recovery message among these effects.
fn asked_all(effects: &[Effect]) -> Option<Message> {
    effects.iter().find_map(|effect| match effect {
        Effect::Broadcast(message @ Message::Recovery { .. }) => Some(message.clone()),
        _ => None,
    })
}

/// The message to a single replica that these effects end with.
fn sent(effects: &[Effect]) -> Message {
    let Some(Effect::Send { message, .. }) = effects.last() else {
        panic!("no message: {effects:?}")
    };
    message.clone()
}

/// Answers the Recovery message as `primary` (replica `leads`) does, and as the other one would; returns what is asked then.
fn answered(asker: &mut Bench, recovery: Message, leads: u8, primary: &mut Bench) -> Message {
    let Message::Recovery { nonce, .. } = recovery else {
        panic!("no Recovery")
    };
    let view = primary.shows().view;
    let backup = Message::RecoveryResponse {
        nonce,
        view,
        primary: None,
    };
    assert_eq!(asker.hear(1 - leads, backup), []);
    let answer = sent(&primary.hear(2, recovery));
    sent(&asker.hear(leads, answer))
}

#[test]
fn rule_12_the_log_comes_in_chunks() {
    let mut primary = primary_with(7);
    let mut backup = Bench::normal(small(2));
    let effects = backup.hear(0, commit(0, 7));
    assert_eq!(carry(&mut backup, &mut primary, effects), 4);
    assert_eq!(backup.shows().log_digest, primary.shows().log_digest);
    assert_eq!(backup.shows().commit, OpNumber(7));
}

#[test]
fn rule_14_a_replica_behind_the_trimmed_log_gets_the_checkpoint() {
    let mut primary = primary_with(50);
    assert_eq!(primary.replica.log_digest_at(OpNumber(0)), None);
    let mut backup = Bench::normal(small(2));
    let effects = backup.hear(0, commit(0, 50));
    assert!(carry(&mut backup, &mut primary, effects) > 5);
    let (got, has) = (backup.shows(), primary.shows());
    assert_eq!(
        (got.op, got.commit, got.checkpoint),
        (has.op, has.commit, has.checkpoint)
    );
    assert_eq!(
        (got.log_digest, got.state_digest),
        (has.log_digest, has.state_digest)
    );
    assert_eq!(
        got.sessions, has.sessions,
        "rule 7: the client table is part of it"
    );
}

#[test]
fn a_spoiled_checkpoint_is_not_installed() {
    let mut primary = primary_with(50);
    let mut backup = Bench::normal(small(2));
    let mut effects = backup.hear(0, commit(0, 50));
    for _ in 0..100 {
        let Some(Effect::Send { message, .. }) = effects.last().cloned() else {
            break;
        };
        let Effect::Send {
            message: mut answer,
            ..
        } = primary.hear(2, message)[0].clone()
        else {
            panic!("no answer")
        };
        if let Message::CheckpointChunk {
            bytes, offset: 0, ..
        } = &mut answer
        {
            bytes[20] ^= 1;
        }
        effects = backup.hear(0, answer);
    }
    assert!(matches!(
        effects[..],
        [Effect::Note(electrode_vr::Note::Warning(_))]
    ));
    assert_eq!(backup.shows().commit, OpNumber(0));
    // It is fetched again, and this time it is whole.
    let effects = backup.tick_after(70);
    carry(&mut backup, &mut primary, effects);
    assert_eq!(backup.shows().commit, OpNumber(50));
}

#[test]
fn a_lost_chunk_is_asked_for_again() {
    let mut primary = primary_with(50);
    let mut backup = Bench::normal(small(2));
    let mut effects = backup.hear(0, commit(0, 50));
    for _ in 0..3 {
        let Effect::Send { message, .. } = effects.last().unwrap().clone() else {
            panic!()
        };
        let Effect::Send { message, .. } = primary.hear(2, message)[0].clone() else {
            panic!()
        };
        effects = backup.hear(0, message);
    }
    assert!(matches!(
        &effects[..],
        [Effect::Send {
            message: Message::GetCheckpoint { offset: 192, .. },
            ..
        }]
    ));
    assert_eq!(backup.tick_after(70), effects, "resumed, not begun anew");
}

#[test]
fn answers_to_other_questions_are_ignored() {
    let mut backup = Bench::normal(config(3, 2));
    let log = entries(&["a"]);
    assert_eq!(backup.hear(0, new_state(0, Nonce(4), 0, &log, 1)), []);
    let (nonce, _) = asked_state(&backup.hear(0, commit(0, 1)));
    assert_eq!(
        backup.hear(1, new_state(0, nonce, 0, &log, 1)),
        [],
        "not whom it asked"
    );
    assert_eq!(
        backup.hear(0, new_state(3, nonce, 0, &log, 1)),
        [],
        "of another view"
    );
    assert_eq!(backup.hear(0, new_state(0, nonce, 0, &log, 1)).len(), 1);
}

#[test]
#[should_panic(expected = "divergence")]
fn rule_13_divergence_stops_the_process() {
    let mut backup = Bench::normal(config(3, 2));
    backup.hear(0, Message::Prepare(prepare(0, 1, 1, entries(&["a"]))));
    let (nonce, after) = asked_state(&backup.hear(0, commit(0, 2)));
    assert_eq!(after, OpNumber(1));
    backup.hear(0, new_state(0, nonce, 1, &entries(&["x", "b"]), 2));
}

#[test]
fn a_log_that_is_not_what_was_announced_is_not_installed() {
    let mut backup = Bench::normal(config(3, 2));
    let announced = entries(&["a", "b"]);
    let (nonce, _) = asked_state(&backup.hear(1, start_view(1, 0, &announced)));
    let effects = backup.hear(1, new_state(1, nonce, 0, &entries(&["a", "x"]), 0));
    assert!(matches!(
        effects[..],
        [Effect::Note(electrode_vr::Note::Warning(_))]
    ));
    assert_eq!(
        (backup.shows().op, backup.shows().view),
        (OpNumber(0), View(0))
    );
}

#[test]
fn a_checkpoint_that_is_being_fetched_stays_while_later_ones_are_taken() {
    let mut primary = primary_with(100);
    let mut backup = Bench::normal(small(2));
    let mut effects = backup.hear(0, commit(0, 100));
    // One more checkpoint for each question, many of them until all of the first is there.
    let mut questions = 0;
    while backup.shows().commit == OpNumber(0) {
        let question = sent(&effects);
        commit_more(&mut primary, 4);
        effects = backup.hear(0, sent(&primary.hear(2, question)));
        questions += 1;
        assert!(questions < 100, "it begins anew with each checkpoint");
    }
    assert!(questions > 10, "{questions}");
    assert_eq!(backup.shows().checkpoint, OpNumber(104));
    // And the log from there is still there, too.
    carry(&mut backup, &mut primary, effects);
    assert_eq!(backup.shows().log_digest, primary.shows().log_digest);
    assert_eq!(backup.shows().checkpoint, primary.shows().checkpoint);
    let entries = primary.shows().log_entries as u64;
    assert!(entries > 8, "{entries}");
    // Once nobody gets on with it any more, it goes.
    primary.now = primary.now.plus(3000 * MS);
    commit_more(&mut primary, 4);
    assert!(primary.shows().log_entries <= 8);
}

#[test]
fn who_fetches_too_slowly_begins_anew_and_the_log_keeps_its_bound() {
    let mut primary = primary_with(100);
    let mut backup = Bench::normal(small(2));
    let mut effects = backup.hear(0, commit(0, 100));
    let bound = small(0).limits.executed_ops();
    let mut most = 0;
    for _ in 0..20 {
        let question = sent(&effects);
        commit_more(&mut primary, 50);
        most = most.max(primary.shows().log_entries as u64);
        effects = backup.hear(0, sent(&primary.hear(2, question)));
    }
    assert!(most > bound / 2 && most <= bound, "{most} of {bound}");
    assert!(primary.shows().log_entries as u64 <= bound);
    carry(&mut backup, &mut primary, effects);
    assert_eq!(backup.shows().log_digest, primary.shows().log_digest);
}

#[test]
fn who_begins_while_a_checkpoint_is_kept_for_another_is_shown_the_same_one() {
    let mut config = small(0);
    config.replicas = 5;
    let mut primary = Bench::normal(config);
    for op in 1..=100 {
        primary.request(op, 1, "payload");
        primary.flush();
        primary.hear(3, prepare_ok(0, op, op));
        primary.hear(4, prepare_ok(0, op, op));
    }
    let ask = |primary: &mut Bench, from: u8| {
        let question = Message::GetState {
            view: View(0),
            nonce: Nonce(u64::from(from)),
            after: OpNumber(0),
        };
        match sent(&primary.hear(from, question)) {
            Message::CheckpointChunk { op, .. } => op,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(&mut primary, 1), OpNumber(100));
    for op in 101..=109 {
        primary.request(op, 1, "payload");
        primary.flush();
        primary.hear(3, prepare_ok(0, op, op));
        primary.hear(4, prepare_ok(0, op, op));
    }
    assert_eq!(ask(&mut primary, 2), OpNumber(100));
    primary.now = primary.now.plus(3000 * MS);
    assert_eq!(ask(&mut primary, 2), OpNumber(108));
}

#[test]
fn rule_12_what_is_here_of_a_checkpoint_outlives_its_source_and_its_view() {
    let mut first = Bench::normal(small(0));
    let mut second = Bench::normal(small(1));
    for effect in commit_more(&mut first, 50) {
        if let Effect::Broadcast(message) = effect {
            second.hear(0, message);
        }
    }
    second.hear(0, commit(0, 50));
    assert_eq!(second.shows().checkpoint, first.shows().checkpoint);

    let (mut asker, recovery) = recovering(small(2), 0);
    let mut question = answered(&mut asker, recovery, 0, &mut first);
    for _ in 0..3 {
        question = sent(&asker.hear(0, sent(&first.hear(2, question))));
    }
    assert!(matches!(
        question,
        Message::GetCheckpoint { offset: 192, .. }
    ));

    // Replica 0 goes, and replica 1 leads view 1.
    second.vote(2, 1);
    let shown = second.shows();
    second.hear(
        2,
        Message::DoViewChange {
            view: View(1),
            last_normal: View(0),
            op: shown.op,
            commit: shown.commit,
            digest: second.replica.log_digest_at(shown.op).unwrap(),
        },
    );
    assert_eq!(second.shows().status, Status::Normal);
    let again = (0..20).find_map(|_| asked_all(&asker.tick_after(70)));
    let question = answered(&mut asker, again.unwrap(), 1, &mut second);
    assert!(matches!(question, Message::GetState { .. }));
    // The answer is the checkpoint's begin, which is here.
    let question = sent(&asker.hear(1, sent(&second.hear(2, question))));
    assert!(
        matches!(question, Message::GetCheckpoint { offset: 192, .. }),
        "{question:?}"
    );
    let mut effects = vec![send(1, question)];
    while asker.shows().status != Status::Normal {
        let question = sent(&effects);
        effects = asker.hear(1, sent(&second.hear(2, question)));
    }
    assert_eq!(asker.shows().log_digest, second.shows().log_digest);
    assert_eq!(asker.shows().state_digest, second.shows().state_digest);
}

#[test]
fn rule_12_a_whole_checkpoint_is_not_fetched_again() {
    let mut primary = primary_with(51);
    let (mut asker, recovery) = recovering(small(2), 0);
    let mut question = answered(&mut asker, recovery, 0, &mut primary);
    while !matches!(question, Message::GetState { after, .. } if after == OpNumber(48)) {
        question = sent(&asker.hear(0, sent(&primary.hear(2, question))));
    }
    // The log's rest gets lost until it begins anew.
    let again = (0..20).find_map(|_| asked_all(&asker.tick_after(70)));
    let question = answered(&mut asker, again.unwrap(), 0, &mut primary);
    assert!(
        matches!(question, Message::GetState { after, .. } if after == OpNumber(48)),
        "{question:?}"
    );
    let mut effects = vec![send(0, question)];
    while asker.shows().status != Status::Normal {
        let question = sent(&effects);
        effects = asker.hear(0, sent(&primary.hear(2, question)));
    }
    assert_eq!(asker.shows().log_digest, primary.shows().log_digest);
}

#[test]
fn a_late_chunk_of_what_is_whole_begins_nothing_anew() {
    let mut primary = primary_with(51);
    let (mut asker, recovery) = recovering(small(2), 0);
    let mut question = answered(&mut asker, recovery, 0, &mut primary);
    let first = sent(&primary.hear(2, question.clone()));
    question = sent(&asker.hear(0, first.clone()));
    while !matches!(question, Message::GetState { after, .. } if after == OpNumber(48)) {
        assert_eq!(asker.hear(0, first.clone()), []);
        question = sent(&asker.hear(0, sent(&primary.hear(2, question))));
    }
    assert_eq!(asker.hear(0, first), []);
    assert_eq!(asker.tick_after(70).last(), Some(&send(0, question)));
}

#[test]
fn rule_12_a_question_that_was_duplicated_on_its_way_is_answered_once() {
    let mut primary = primary_with(50);
    let question = |after: u64, nonce: u64| Message::GetState {
        view: View(0),
        nonce: Nonce(nonce),
        after: OpNumber(after),
    };
    for after in [0, 47] {
        assert_eq!(primary.hear(2, question(after, 1)).len(), 1);
        assert_eq!(primary.hear(2, question(after, 1)), []);
        assert_eq!(primary.hear(2, question(after, 2)).len(), 1, "another one");
        assert_eq!(primary.hear(2, question(after, 2)), []);
        primary.now = primary.now.plus(50 * MS);
        assert_eq!(primary.hear(2, question(after, 2)).len(), 1, "a retry");
    }
}

/// How many entries the answer to a question about the log after this op has, a retry after the one before.
fn shown_after(primary: &mut Bench, after: u64) -> usize {
    primary.now = primary.now.plus(50 * MS);
    let question = Message::GetState {
        view: View(0),
        nonce: Nonce(1),
        after: OpNumber(after),
    };
    let [
        Effect::Send {
            message: Message::NewState { entries, .. },
            ..
        },
    ] = &primary.hear(2, question)[..]
    else {
        panic!("no entries")
    };
    entries.len()
}

/// Found by chaos on real replicas: over a link that loses fragments no long answer arrived, for a minute after it was mended too.
#[test]
fn a_question_that_is_asked_again_is_answered_in_one_packet_and_the_next_ones_in_more() {
    let mut config = config(3, 0);
    config.limits.chunk_bytes = 64 * 40;
    config.limits.batch_bytes = 64 * 3;
    let mut primary = Bench::normal(config);
    for op in 1..=200 {
        primary.request(op, 1, "payload");
        primary.flush();
        primary.hear(1, prepare_ok(0, op, op));
    }
    let whole = shown_after(&mut primary, 0);
    let packet = shown_after(&mut primary, 0);
    assert!(packet >= 1 && 8 * packet < whole, "{packet} and {whole}");
    assert_eq!(shown_after(&mut primary, 0), packet);
    let mut before = packet;
    for after in 1..8 {
        let next = shown_after(&mut primary, after);
        assert!(
            (before..=2 * before + 2).contains(&next),
            "{before}, then {next}"
        );
        before = next;
    }
    assert_eq!(before, whole);
}

/// Ops of one byte and of a hundred, without a pattern.
fn op_of(number: u64) -> String {
    let long = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 0;
    "o".repeat(if long { 100 } else { 1 })
}

#[test]
fn rule_14_checkpoints_by_bytes_are_at_the_same_ops_whether_one_came_by_log_or_by_checkpoint() {
    let limited = |index: u8| {
        let mut config = small(index);
        config.limits.checkpoint_ops = 16;
        config.limits.checkpoint_bytes = 500;
        config
    };
    let mut primary = Bench::normal(limited(0));
    let mut by_log = Bench::normal(limited(1));
    let mut by_checkpoint = Bench::normal(limited(2));
    let bytes = limited(0).limits.checkpoint_bytes + 132;
    let (mut ops, mut unaligned) = (0, 0);
    for round in 0..40 {
        for _ in 0..=round % 7 {
            ops += 1;
            primary.request(ops, 1, &op_of(ops));
            for effect in primary.flush() {
                if let Effect::Broadcast(message) = effect {
                    by_log.hear(0, message);
                }
            }
            primary.hear(1, prepare_ok(0, ops, ops));
            by_log.hear(0, commit(0, ops));
            assert_eq!(by_log.shows().checkpoint, primary.shows().checkpoint);
            assert!(primary.shows().log_bytes <= 2 * bytes);
            unaligned += u64::from(!primary.shows().checkpoint.0.is_multiple_of(16));
        }
        // The third comes now and then, by what is left of the log or by a checkpoint.
        if round % 5 == 4 {
            let effects = by_checkpoint.hear(0, commit(0, ops));
            carry(&mut by_checkpoint, &mut primary, effects);
            assert_eq!(by_checkpoint.shows().checkpoint, primary.shows().checkpoint);
            primary.now = primary.now.plus(3000 * MS);
            by_checkpoint.now = primary.now;
        }
    }
    assert!(unaligned > 50, "{unaligned}");
    assert_eq!(by_checkpoint.shows().log_digest, primary.shows().log_digest);
}

#[test]
fn the_log_that_is_kept_for_who_fetches_has_a_bound_in_bytes() {
    let mut limited = small(0);
    limited.limits.checkpoint_ops = 1000;
    limited.limits.checkpoint_bytes = 500;
    let most = limited.limits.executed_bytes();
    let mut primary = Bench::normal(limited);
    commit_more(&mut primary, 100);
    let mut longest = 0;
    for round in 0..200 {
        // Always a little more of the checkpoint: it gets on, but too slowly.
        let question = Message::GetCheckpoint {
            view: View(0),
            nonce: Nonce(1),
            op: primary.shows().checkpoint,
            offset: round % 100,
        };
        primary.hear(2, question);
        commit_more(&mut primary, 3);
        longest = longest.max(primary.shows().log_bytes);
    }
    assert!(longest <= most, "{longest} of {most}");
}
