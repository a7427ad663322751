//! The thread that writes, on a real directory, on a disk that is full, and on one whose syncs wait for the test.

mod held;

use std::time::{Duration, Instant};

use electrode_journal::author::Author;
use electrode_journal::forgetful::Forgetful;
use electrode_vr::{ReplicaId, View};

use super::{DiskError, DiskLog, Identity, Journal};
use held::Held;

const IDENTITY: Identity = Identity {
    index: ReplicaId(1),
    replicas: 3,
};
/// No mark is made but at start and stop.
const NEVER: Duration = Duration::MAX;

#[test]
fn the_thread_makes_appends_durable_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut author = Author::new();
    {
        let (mut journal, found) = Journal::open(directory.path(), IDENTITY).unwrap();
        assert!(found.is_none());
        journal.write(author.enter(|limit| limit / 2)).unwrap();
        for _ in 0..500 {
            journal.write(author.append(|limit| limit / 2)).unwrap();
        }
        journal.barrier().unwrap();
        let news = journal.persisted().unwrap();
        assert_eq!(news, Some((View(1), author.stored.op())));
        assert_eq!(journal.persisted().unwrap(), None, "told once");
        assert_eq!(journal.counts().0, 501);
        let (_, checkpoint) = author.checkpoint();
        journal.write(checkpoint).unwrap();
        // Not waited for by anybody but the drop.
        journal.write(author.append(|limit| limit / 2)).unwrap();
    }
    let (_, found) = Journal::open(directory.path(), IDENTITY).unwrap();
    let stored = found.unwrap().stored;
    assert_eq!(
        (stored.op(), stored.digest()),
        (author.stored.op(), author.stored.digest())
    );
    assert_eq!(stored.checkpoint(), author.stored.checkpoint());
}

#[test]
fn one_sync_serves_everything_that_queued_up_during_the_one_before() {
    let files = Held::default();
    let (log, _) = DiskLog::open(files.clone(), IDENTITY).unwrap();
    let mut journal = Journal::start(log, NEVER).unwrap();
    let mut author = Author::new();
    journal.write(author.enter(|limit| limit / 2)).unwrap();
    let (_, before) = journal.counts();
    files.hold();
    journal.write(author.append(|limit| limit / 2)).unwrap();
    files.wait_for_a_sync();
    for _ in 0..500 {
        journal.write(author.append(|limit| limit / 2)).unwrap();
    }
    // Nothing is told of before it is durable.
    assert_eq!(journal.persisted().unwrap(), None);
    let held = files.log_syncs();
    files.release();
    journal.barrier().unwrap();
    let (writes, syncs) = journal.counts();
    assert_eq!((writes, syncs - before), (502, 2));
    assert_eq!(files.log_syncs() - held, 2, "counted where it is done, too");
    let news = journal.persisted().unwrap();
    assert_eq!(news, Some((View(1), author.stored.op())));
}

#[test]
fn a_group_has_a_limit_so_that_nobody_waits_for_ever() {
    let files = Held::default();
    let (log, _) = DiskLog::open(files.clone(), IDENTITY).unwrap();
    let mut journal = Journal::start(log, NEVER).unwrap();
    let mut author = Author::new();
    journal.write(author.enter(|_| 0)).unwrap();
    let (_, before) = journal.counts();
    files.hold();
    journal.write(author.append(|_| 0)).unwrap();
    files.wait_for_a_sync();
    let writes = 2 * super::writer::GROUP;
    for _ in 0..writes {
        journal.write(author.append(|_| 0)).unwrap();
    }
    files.release();
    journal.barrier().unwrap();
    // Two full groups, and the barrier by itself, which finds nothing to sync.
    assert_eq!(journal.counts().1 - before, 3);
}

#[test]
fn the_last_write_is_told_from_a_torn_one_after_a_moment_without_work_after_a_stop_and_after_a_start()
 {
    for (idle, stop) in [(Duration::from_millis(1), false), (NEVER, true)] {
        let files = Forgetful::default();
        let (log, _) = DiskLog::open(files.clone(), IDENTITY).unwrap();
        let mut journal = Journal::start(log, idle).unwrap();
        let mut author = Author::new();
        journal.write(author.enter(|limit| limit / 2)).unwrap();
        journal.write(author.append(|limit| limit / 2)).unwrap();
        journal.barrier().unwrap();
        if stop {
            assert!(
                !last_is_missed(&files),
                "nobody has said that it is durable"
            );
            // What is there after a process was killed, and started again.
            let killed = files.copy();
            let (log, _) = DiskLog::open(killed.clone(), IDENTITY).unwrap();
            let started = Journal::start(log, NEVER).unwrap();
            wait_until(|| last_is_missed(&killed));
            drop(started);
            drop(journal);
            assert!(last_is_missed(&files));
        } else {
            wait_until(|| last_is_missed(&files));
            let (_, found) = DiskLog::open(files.copy(), IDENTITY).unwrap();
            assert_eq!(found.unwrap().stored.op(), author.stored.op());
        }
    }
}

/// Whether a start would notice that the last byte isn't what was written.
fn last_is_missed(files: &Forgetful) -> bool {
    let files = files.copy();
    let name = files.last_log().unwrap();
    *files
        .disk()
        .seen
        .get_mut(&name)
        .unwrap()
        .last_mut()
        .unwrap() ^= 1;
    let opened = DiskLog::open(files, IDENTITY);
    matches!(opened, Err(DiskError::Damaged { .. }))
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_durable_after_it() {
    let files = Forgetful::default();
    let (log, _) = DiskLog::open(files.clone(), IDENTITY).unwrap();
    let mut journal = Journal::start(log, NEVER).unwrap();
    let mut author = Author::new();
    journal.write(author.enter(|limit| limit / 2)).unwrap();
    files.disk().left = Some(1);
    journal.write(author.append(|limit| limit / 2)).unwrap();
    let error = journal.barrier().unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("syncing /disk/log-") && text.contains("no room left"),
        "{text}"
    );
    assert_eq!(journal.persisted().unwrap_or(None), None);
    assert!(matches!(journal.barrier(), Err(DiskError::Gone)));
}

#[test]
fn a_replica_in_memory_does_not_ignore_a_log() {
    let directory = tempfile::tempdir().unwrap();
    super::refuse_leftover(directory.path(), IDENTITY).unwrap();
    {
        let (mut journal, _) = Journal::open(directory.path(), IDENTITY).unwrap();
        super::refuse_leftover(directory.path(), IDENTITY).unwrap();
        journal.write(Author::new().enter(|_| 1)).unwrap();
    }
    let error = super::refuse_leftover(directory.path(), IDENTITY).unwrap_err();
    assert!(error.to_string().contains("--durability disk"), "{error}");
    let aside = super::set_aside(directory.path()).unwrap();
    assert!(aside.ends_with("log.damaged-1") && aside.exists());
    super::refuse_leftover(directory.path(), IDENTITY).unwrap();
}
