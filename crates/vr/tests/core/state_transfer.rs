//! State transfer: chunks, checkpoints, digests (protocol.md, rules 9, 12 to 14).

use electrode_vr::{Effect, Message, Nonce, OpNumber, View};

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
    for op in 1..=ops {
        bench.request(op, 1, "payload");
        bench.flush();
        bench.hear(1, prepare_ok(0, op, op));
    }
    bench
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

/// How many entries the answer to a question about the log after this op has.
fn shown_after(primary: &mut Bench, after: u64) -> usize {
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
