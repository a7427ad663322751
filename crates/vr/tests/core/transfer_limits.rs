//! What a wrong, or a much larger, peer's state can do to who fetches it (protocol.md, "Bounds").

use std::hash::Hasher;

use electrode_vr::{Digest, Effect, Message, Nonce, Note, OpNumber, Status, View};
use siphasher::sip::SipHasher24;

use crate::support::*;

fn warnings(effects: &[Effect]) -> Vec<&str> {
    let warnings = effects.iter().filter_map(|effect| match effect {
        Effect::Note(Note::Warning(text)) => Some(text.as_str()),
        _ => None,
    });
    warnings.collect()
}

/// A chunk that is all of a checkpoint at `op` which says `total`.
fn chunk(nonce: Nonce, op: u64, bytes: &[u8], total: u64) -> Message {
    // The digest of any bytes, as the core computes it.
    let mut hasher = SipHasher24::new_with_keys(0x656c_6563_7472_6f64, 0x652d_6c6f_672d_7631);
    hasher.write(bytes);
    Message::CheckpointChunk {
        view: View(0),
        nonce,
        op: OpNumber(op),
        log_digest: Digest(1),
        digest: Digest(hasher.finish()),
        total,
        offset: 0,
        bytes: bytes.to_vec(),
    }
}

/// The nonces of the questions that it asks within so many milliseconds.
fn questions_within(bench: &mut Bench, ms: u64) -> Vec<Nonce> {
    let mut nonces = Vec::new();
    for _ in 0..ms / 10 {
        for effect in bench.tick_after(10) {
            if let Effect::Send {
                message: Message::GetState { nonce, .. },
                ..
            } = effect
            {
                nonces.push(nonce);
            }
        }
        // It doesn't lose its primary meanwhile.
        bench.hear(0, commit(0, 100));
    }
    nonces
}

#[test]
fn a_state_that_is_too_long_is_named_once_and_in_status() {
    let mut limited = config(3, 2);
    limited.limits.state_bytes = 100;
    let mut backup = Bench::normal(limited);
    let (nonce, _) = asked_state(&backup.hear(0, commit(0, 100)));
    let effects = backup.hear(0, chunk(nonce, 90, b"x", 101));
    let [warning] = warnings(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert!(
        warning.contains("101 bytes, more than the 100"),
        "{warning}"
    );
    assert_eq!(backup.shows().reason.as_deref(), Some(warning));
    assert_eq!(backup.hear(0, chunk(nonce, 90, b"x", 101)), [], "once");
    assert_eq!(backup.shows().status, Status::Normal);
}

#[test]
fn a_replica_whose_state_outgrows_what_is_fetched_says_so_once() {
    let mut limited = config(3, 0);
    limited.limits.checkpoint_ops = 4;
    limited.limits.state_bytes = 300;
    let mut primary = Bench::normal(limited);
    let mut told = Vec::new();
    for op in 1..=100 {
        primary.request(op, 1, "payload");
        primary.flush();
        let effects = primary.hear(1, prepare_ok(0, op, op));
        told.extend(warnings(&effects).iter().map(ToString::to_string));
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("more than the 300"), "{}", told[0]);
}

#[test]
fn a_checkpoint_that_cannot_be_restored_is_asked_for_ever_more_rarely_and_status_says_why() {
    let mut backup = Bench::normal(config(3, 2));
    let (mut nonce, _) = asked_state(&backup.hear(0, commit(0, 100)));
    let mut waits = Vec::new();
    for _ in 0..6 {
        let effects = backup.hear(0, chunk(nonce, 90, b"rubbish", 7));
        let asked = |effect: &Effect| matches!(effect, Effect::Send { .. });
        assert!(!effects.iter().any(asked), "not at once: {effects:?}");
        let reason = backup.shows().reason.expect("it says why");
        assert!(reason.contains("can't be restored"), "{reason}");
        let before = backup.now;
        let mut asked = Vec::new();
        while asked.is_empty() {
            asked = questions_within(&mut backup, 10);
        }
        waits.push((backup.now.0 - before.0) / MS);
        nonce = asked[0];
    }
    assert!(waits[0] <= 70, "{waits:?}");
    assert!(
        waits
            .iter()
            .skip(1)
            .zip(&waits)
            .all(|(next, last)| next > last),
        "{waits:?}"
    );
    assert!(waits[5] >= 1600, "{waits:?}");
}

#[test]
fn a_log_that_no_replica_can_have_is_not_staged() {
    let mut backup = Bench::normal(config(3, 2));
    let announced = Message::StartView {
        view: View(1),
        op: OpNumber(OpNumber::LIMIT - 1),
        commit: OpNumber(0),
        digest: Digest(5),
    };
    let (nonce, after) = asked_state(&backup.hear(1, announced));
    let log = entries(&["a", "b"]);
    let answer = Message::NewState {
        view: View(1),
        nonce,
        after,
        digest_after: Digest(0),
        entries: log,
        op: OpNumber(OpNumber::LIMIT - 1),
        digest: Digest(5),
        commit: OpNumber(0),
    };
    let effects = backup.hear(1, answer);
    assert!(
        warnings(&effects)[..] == ["replica 1 shows a log that no replica can have"],
        "{effects:?}"
    );
    assert_eq!(effects.len(), 1, "and asks for no more now");
}

#[test]
fn who_shows_less_than_it_announced_is_not_asked_in_a_loop() {
    let mut backup = Bench::normal(config(3, 2));
    let announced = entries(&["a", "b", "c"]);
    let (nonce, _) = asked_state(&backup.hear(1, start_view(1, 0, &announced)));
    let effects = backup.hear(1, new_state(1, nonce, 0, &announced[..2], 0));
    assert_eq!((effects.len(), warnings(&effects).len()), (1, 1));
}

#[test]
fn a_chunk_after_an_op_beyond_all_ops_is_ignored() {
    let mut backup = Bench::normal(config(3, 2));
    let (nonce, _) = asked_state(&backup.hear(0, commit(0, 100)));
    for after in [OpNumber::LIMIT, u64::MAX] {
        let answer = Message::NewState {
            view: View(0),
            nonce,
            after: OpNumber(after),
            digest_after: Digest(0),
            entries: entries(&["a"]),
            op: OpNumber(100),
            digest: Digest(5),
            commit: OpNumber(0),
        };
        assert_eq!(backup.hear(0, answer), []);
    }
}
