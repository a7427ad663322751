//! Disk mode: what waits for the disk, and how a replica comes up from it.

use electrode_vr::{
    Config, Digest, Durability, Effect, FastPathCommand, FastPathEvent, Input, Message, Nonce,
    OpNumber, Promise, Replica, Stored, View, Write,
};

use crate::support::*;

fn on_disk(replicas: usize, index: u8) -> Config {
    Config {
        durability: Durability::Disk,
        ..config(replicas, index)
    }
}

fn persisted(bench: &mut Bench, view: u64, op: u64) -> Vec<Effect> {
    bench.step(Input::Persisted {
        view: View(view),
        op: OpNumber(op),
    })
}

fn append(view: u64, after: u64, log: &[electrode_vr::Entry]) -> Effect {
    let split = usize::try_from(after).unwrap();
    Effect::Write(Write::Append {
        view: View(view),
        after: OpNumber(after),
        entries: log[split..].to_vec(),
        digest: digest_of(log),
    })
}

fn enter(view: u64, after: u64, log: &[electrode_vr::Entry]) -> Effect {
    let split = usize::try_from(after).unwrap();
    Effect::Write(Write::Enter {
        group: GROUP,
        view: View(view),
        after: OpNumber(after),
        digest_after: digest_of(&log[..split]),
        entries: log[split..].to_vec(),
        digest: digest_of(log),
    })
}

/// What a disk has that took these writes.
fn stored(writes: impl IntoIterator<Item = Effect>) -> Stored {
    let mut stored = Stored::empty();
    for effect in writes {
        if let Effect::Write(write) = effect {
            stored.apply(write).unwrap();
        }
    }
    stored
}

/// A replica that starts with this on its disk, before its first tick.
fn restored(config: Config, promised: u64, stored: Stored) -> Bench {
    let mut bench = Bench::normal(config.clone());
    let promise = Promise {
        group: GROUP,
        view: View(promised),
    };
    let machine = Tape::default();
    bench.replica =
        Replica::restore(config, promise, stored, machine, bench.now, Nonce(5)).unwrap();
    bench
}

#[test]
fn the_log_is_begun_before_the_first_promise() {
    let mut bench = Bench::unstarted(on_disk(3, 1), electrode_vr::Start::Bootstrap(GROUP));
    assert_eq!(
        bench.tick(),
        [enter(0, 0, &[]), persist(0), entered("normal", 0, false)]
    );
}

#[test]
fn a_backup_acknowledges_what_is_durable_and_nothing_before() {
    let log = entries(&["a", "b"]);
    let mut backup = Bench::normal(on_disk(3, 1));
    let message = Message::Prepare(prepare(0, 1, 0, log.clone()));
    assert_eq!(backup.hear(0, message.clone()), [append(0, 0, &log)]);
    assert_eq!(backup.hear(0, message), [], "again, and not durable yet");
    assert_eq!(
        backup.hear(0, commit(0, 0)),
        [send(0, prepare_ok(0, 0, 0))],
        "a life sign, for nothing"
    );
    assert_eq!(persisted(&mut backup, 0, 2), [send(0, prepare_ok(0, 2, 2))]);
    assert_eq!(persisted(&mut backup, 0, 2), []);
    let again = Message::Prepare(prepare(0, 1, 0, log));
    assert_eq!(backup.hear(0, again), [send(0, prepare_ok(0, 2, 2))]);
}

#[test]
fn a_primary_counts_itself_when_its_own_disk_has_the_op() {
    let log = entries(&["a"]);
    let mut primary = Bench::normal(on_disk(3, 0));
    primary.request(1, 1, "a");
    let effects = primary.flush();
    assert_eq!(effects[0], append(0, 0, &log));
    assert_eq!(
        effects[1],
        Effect::Broadcast(Message::Prepare(prepare(0, 1, 0, log)))
    );
    assert_eq!(primary.hear(1, prepare_ok(0, 1, 1)), []);
    assert_eq!(primary.hear(2, prepare_ok(0, 1, 1)), []);
    assert_eq!(primary.shows().commit, OpNumber(0));
    assert_eq!(persisted(&mut primary, 0, 1), [done(1, 1, 0, b"\x01a")]);
}

#[test]
fn a_group_of_one_answers_when_it_is_durable() {
    let mut alone = Bench::normal(on_disk(1, 0));
    alone.request(1, 1, "a");
    assert_eq!(alone.flush(), [append(0, 0, &entries(&["a"]))]);
    assert_eq!(persisted(&mut alone, 0, 1), [done(1, 1, 0, b"\x01a")]);
}

#[test]
fn what_the_kernel_stored_is_written_and_acknowledged_later() {
    let log = entries(&["a"]);
    let mut settings = on_disk(3, 1);
    settings.fast_path = true;
    let mut backup = Bench::normal(settings);
    let record = FastPathEvent::Stored(prepare(0, 1, 0, log.clone()));
    assert_eq!(backup.kernel(record), [append(0, 0, &log)]);
    assert_eq!(persisted(&mut backup, 0, 1), [send(0, prepare_ok(0, 1, 1))]);
}

#[test]
fn a_view_change_waits_for_the_disk_by_its_promise() {
    let log = entries(&["a"]);
    let mut backup = Bench::normal(on_disk(3, 2));
    backup.hear(0, Message::Prepare(prepare(0, 1, 0, log.clone())));
    // The promise is durable with everything before it, so what is announced is.
    let effects = backup.vote(0, 1);
    assert_eq!(effects[0], persist(1));
    assert_eq!(
        effects.last(),
        Some(&send(1, do_view_change(1, 0, 0, &log)))
    );
    // News of the disk that come late say nothing of the new view.
    assert_eq!(persisted(&mut backup, 0, 1), []);
    let effects = backup.hear(1, start_view(1, 0, &log));
    assert_eq!(
        effects,
        [
            enter(1, 1, &log),
            entered("normal", 1, false),
            send(1, prepare_ok(1, 1, 1))
        ]
    );
}

#[test]
fn a_suffix_that_lost_goes_with_the_view_that_is_entered() {
    let (old, new) = (entries(&["a", "b", "c"]), entries(&["a", "x"]));
    let mut backup = Bench::normal(on_disk(3, 2));
    backup.hear(0, Message::Prepare(prepare(0, 1, 1, old.clone())));
    persisted(&mut backup, 0, 3);
    backup.vote(0, 1);
    let effects = backup.hear(1, start_view(1, 1, &new));
    let (nonce, after) = asked_state(&effects);
    assert_eq!(after, OpNumber(1), "below the commit number all are equal");
    let effects = backup.hear(1, new_state(1, nonce, 1, &new, 1));
    assert_eq!(effects[0], enter(1, 1, &new));
    // All or nothing: a disk that has the write has the new log, one that hasn't has the old one.
    let writes = [enter(0, 0, &[]), append(0, 0, &old)];
    let before = stored(writes.clone());
    assert_eq!((before.op(), before.last_normal()), (OpNumber(3), View(0)));
    let after = stored(writes.into_iter().chain([effects[0].clone()]));
    assert_eq!((after.op(), after.last_normal()), (OpNumber(2), View(1)));
    assert_eq!(after.digest(), digest_of(&new));
}

#[test]
fn a_backup_comes_back_into_its_view_with_what_its_disk_has() {
    let log = entries(&["a", "b"]);
    let disk = stored([enter(0, 0, &[]), append(0, 0, &log)]);
    let mut backup = restored(on_disk(3, 1), 0, disk);
    let more = Message::Prepare(prepare(0, 3, 2, vec![entry(1, 3, "c")]));
    assert_eq!(backup.hear(0, more.clone()), [], "before its first tick");
    assert_eq!(
        backup.tick(),
        [entered("normal", 0, false), send(0, prepare_ok(0, 2, 2))]
    );
    backup.hear(0, more);
    assert_eq!(backup.shows().commit, OpNumber(2));
}

/// It may have sent ops under numbers that its disk doesn't have.
#[test]
fn a_primary_that_comes_back_ends_its_view() {
    let log = entries(&["a"]);
    let disk = stored([enter(0, 0, &[]), append(0, 0, &log)]);
    let mut primary = restored(on_disk(3, 0), 0, disk);
    assert_eq!(
        primary.tick(),
        [
            persist(1),
            entered("view change", 1, false),
            Effect::Broadcast(Message::StartViewChange { view: View(1) })
        ]
    );
    let effects = primary.hear(1, Message::StartViewChange { view: View(1) });
    assert_eq!(effects, [send(1, do_view_change(1, 0, 0, &log))]);
}

#[test]
fn a_group_of_one_goes_on_in_the_next_view() {
    let log = entries(&["a"]);
    let disk = stored([enter(0, 0, &[]), append(0, 0, &log)]);
    let mut alone = restored(on_disk(1, 0), 0, disk);
    let effects = alone.tick();
    assert_eq!(effects[0], persist(1));
    assert_eq!(alone.shows().commit, OpNumber(1));
    assert_eq!(alone.request(1, 1, "a"), [done(1, 1, 1, b"\x01a")]);
}

#[test]
fn a_replica_that_crashed_between_views_votes_again() {
    let log = entries(&["a"]);
    let disk = stored([enter(0, 0, &[]), append(0, 0, &log)]);
    let mut voter = restored(on_disk(3, 0), 1, disk);
    assert_eq!(
        voter.tick(),
        [
            entered("view change", 1, false),
            Effect::Broadcast(Message::StartViewChange { view: View(1) })
        ]
    );
    assert_eq!(
        voter.hear(2, Message::StartViewChange { view: View(1) }),
        [send(1, do_view_change(1, 0, 0, &log))]
    );
}

/// The checkpoint is a file of its own, and may be on disk when the ops before it aren't.
#[test]
fn a_checkpoint_beyond_the_log_begins_it_anew() {
    let mut settings = on_disk(3, 1);
    settings.limits.checkpoint_ops = 3;
    let log = entries(&["a", "b", "c"]);
    let mut backup = Bench::normal(settings.clone());
    let effects = backup.hear(0, Message::Prepare(prepare(0, 1, 3, log.clone())));
    let Some(Effect::Write(checkpoint)) = effects.last() else {
        panic!("no checkpoint in {effects:?}");
    };
    let disk = stored([
        enter(0, 0, &[]),
        append(0, 0, &log[..2]),
        Effect::Write(checkpoint.clone()),
    ]);
    let mut back = restored(settings, 0, disk);
    assert_eq!(
        back.tick(),
        [
            enter(0, 3, &log),
            entered("normal", 0, false),
            send(0, prepare_ok(0, 3, 3))
        ]
    );
    assert_eq!(back.shows().commit, OpNumber(3));
    assert_eq!(back.shows().state_digest, Digest(3));
}

#[test]
fn what_no_replica_can_have_written_is_refused() {
    let log = entries(&["a"]);
    let promise = Promise {
        group: GROUP,
        view: View(0),
    };
    let restore = |stored| {
        let (tape, now) = (Tape::default(), electrode_vr::Time(1));
        Replica::restore(on_disk(3, 1), promise, stored, tape, now, Nonce(1))
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let beyond = stored([enter(0, 0, &[]), enter(2, 0, &log)]);
    assert!(restore(beyond).contains("only view 0 was promised"));
    let trimmed = Stored::starting_after(View(0), OpNumber(5), Digest(9));
    assert!(restore(trimmed).contains("begins after op 5"));
    let mut gap = Stored::empty();
    let Effect::Write(write) = append(0, 1, &entries(&["a", "b"])) else {
        unreachable!("it is a write")
    };
    assert!(gap.apply(write).is_err());
}

#[test]
fn a_memory_replica_writes_nothing() {
    let mut backup = Bench::normal(config(3, 1));
    let effects = backup.hear(0, Message::Prepare(prepare(0, 1, 0, entries(&["a"]))));
    assert_eq!(effects, [send(0, prepare_ok(0, 1, 1))]);
    assert_eq!(backup.shows().durable, None);
}

#[test]
fn a_jump_to_a_checkpoint_is_on_disk_before_it_is_acknowledged() {
    let mut settings = on_disk(3, 1);
    settings.fast_path = true;
    settings.limits.checkpoint_ops = 2;
    let mut primary = Bench::normal({
        let mut settings = config(3, 0);
        settings.limits.checkpoint_ops = 2;
        settings
    });
    for number in 1..=6 {
        primary.request(1, number, "x");
        primary.flush();
        primary.hear(2, prepare_ok(0, number, number));
    }
    let mut backup = Bench::normal(settings);
    let asked = backup.hear(0, commit(0, 6));
    let (nonce, after) = asked_state(&asked);
    let view = View(0);
    let question = Message::GetState { view, nonce, after };
    let answer = primary.hear(1, question);
    let Some(Effect::Send { message, .. }) = answer.last() else {
        panic!("no answer");
    };
    assert!(
        matches!(message, Message::CheckpointChunk { .. }),
        "{message:?}"
    );
    let effects = backup.hear(0, message.clone());
    assert_eq!(effects, [fast(FastPathCommand::Fence)]);
    let last_op = OpNumber(0);
    let effects = backup.kernel(FastPathEvent::Fenced { last_op });
    let kinds: Vec<bool> = effects
        .iter()
        .take(3)
        .map(|effect| {
            matches!(
                effect,
                Effect::Write(Write::Checkpoint { .. } | Write::Enter { .. })
                    | Effect::FastPath(FastPathCommand::Arm { .. })
            )
        })
        .collect();
    assert_eq!(kinds, [true, true, true], "{effects:?}");
    assert_eq!(backup.shows().durable, Some(OpNumber(6)));
}
