//! The thread that writes, on a real directory and on a disk that is full.

use electrode_journal::author::Author;
use electrode_journal::forgetful::Forgetful;
use electrode_vr::{ReplicaId, View};

use super::{DiskError, DiskLog, Identity, Journal};

const IDENTITY: Identity = Identity {
    index: ReplicaId(1),
    replicas: 3,
};

#[test]
fn the_thread_makes_appends_durable_in_order_and_few_syncs_serve_many() {
    let directory = tempfile::tempdir().unwrap();
    let mut author = Author::new();
    {
        let (mut journal, found) = Journal::open(directory.path(), IDENTITY).unwrap();
        assert!(found.is_none());
        journal.write(author.enter(|limit| limit / 2)).unwrap();
        let (_, before) = journal.counts();
        for _ in 0..500 {
            journal.write(author.append(|limit| limit / 2)).unwrap();
        }
        journal.barrier().unwrap();
        let news = journal.persisted().unwrap();
        assert_eq!(news, Some((View(1), author.stored.op())));
        assert_eq!(journal.persisted().unwrap(), None, "told once");
        let (writes, syncs) = journal.counts();
        assert_eq!(writes, 501);
        assert!(syncs - before <= 500, "{syncs} syncs");
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
fn a_full_disk_is_told_and_nothing_is_durable_after_it() {
    let files = Forgetful::default();
    let (log, _) = DiskLog::open(files.clone(), IDENTITY).unwrap();
    let mut journal = Journal::start(log).unwrap();
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
