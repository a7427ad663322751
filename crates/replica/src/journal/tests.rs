//! The log on a file system that forgets what wasn't synced: nothing that was durable is ever missing, nothing is ever
//! made up, and damage is never taken for a torn write.

mod forgetful;

use std::sync::Arc;

use electrode_vr::{
    ClientId, Digest, Entry, GroupId, OpNumber, ReplicaId, RequestNumber, Stored, View, Write,
};

use super::disk_log::{DiskLog, Identity, write_checkpoint};
use super::files::Files as _;
use super::{DiskError, Journal};
use forgetful::{Forgetful, Random};

const IDENTITY: Identity = Identity {
    index: ReplicaId(1),
    replicas: 3,
};
const GROUP: GroupId = GroupId(7);

fn open(files: &Forgetful) -> Result<(DiskLog<Forgetful>, Option<super::Found>), DiskError> {
    DiskLog::open(files.clone(), IDENTITY)
}

/// Makes writes that follow each other, as a replica does. `Stored` computes the digests, on a copy.
struct Author {
    stored: Stored,
    next: u64,
    view: u64,
}

impl Author {
    fn new() -> Author {
        Author {
            stored: Stored::empty(),
            next: 1,
            view: 0,
        }
    }

    fn entries(&mut self, random: &mut Random) -> Vec<Entry> {
        let count = 1 + random.below(4);
        let entry = |number| Entry {
            client: ClientId(1),
            request: RequestNumber(number),
            op: vec![7; random.below(200)].into(),
        };
        let entries: Vec<Entry> = (self.next..).take(count).map(entry).collect();
        self.next += count as u64;
        entries
    }

    /// The digest that a log gets by `write`, found by trying.
    fn sealed(&self, mut write: Write) -> Write {
        let mut trial = self.stored.clone();
        let _ = trial.apply(write.clone());
        let (Write::Append { digest, .. } | Write::Enter { digest, .. }) = &mut write else {
            return write;
        };
        *digest = trial.digest();
        write
    }

    fn append(&mut self, random: &mut Random) -> Write {
        let entries = self.entries(random);
        let write = self.sealed(Write::Append {
            view: View(self.view),
            after: self.stored.op(),
            entries,
            digest: Digest(0),
        });
        self.stored.apply(write.clone()).unwrap();
        write
    }

    fn enter(&mut self, random: &mut Random) -> Write {
        self.view += 1;
        let entries = self.entries(random);
        let write = self.sealed(Write::Enter {
            group: GROUP,
            view: View(self.view),
            after: self.stored.op(),
            digest_after: self.stored.digest(),
            entries,
            digest: Digest(0),
        });
        self.stored.apply(write.clone()).unwrap();
        write
    }

    fn checkpoint(&mut self) -> (OpNumber, Write) {
        let op = self.stored.op();
        let write = Write::Checkpoint {
            op,
            log_digest: self.stored.digest(),
            bytes: Arc::new(vec![1; 300]),
        };
        self.stored.apply(write.clone()).unwrap();
        (op, write)
    }
}

/// Where a log stands: last normal view, last op, its digest.
type Place = (View, OpNumber, Digest);

fn place(stored: &Stored) -> Place {
    (stored.last_normal(), stored.op(), stored.digest())
}

/// Writes, syncs and checkpoints at random; then the power goes, in the middle of a failing operation or not.
fn life(files: &Forgetful, author: &mut Author, random: &mut Random) -> (Vec<Place>, Place) {
    let (mut log, found) = open(files).expect("a torn tail is no damage");
    if let Some(found) = found {
        author.stored = found.stored;
        author.view = author.stored.last_normal().0;
    } else {
        *author = Author::new();
    }
    let mut written = vec![place(&author.stored)];
    let mut durable = place(&author.stored);
    if random.below(3) == 0 {
        files.disk().left = Some(random.below(60));
    }
    let mut steps = 0;
    while steps < 3 + random.below(40) {
        steps += 1;
        let result = match random.below(8) {
            _ if author.view == 0 => {
                let write = author.enter(random);
                log.write(&write).and_then(|()| log.sync())
            }
            0 => {
                let write = author.enter(random);
                log.write(&write).and_then(|()| log.sync())
            }
            1 => {
                let (op, write) = author.checkpoint();
                let mut beside = log.files.another();
                log.rotate()
                    .and_then(|()| write_checkpoint(&mut beside, op, &write))
                    .and_then(|()| log.trim(op))
            }
            2 => log.sync(),
            _ => {
                let write = author.append(random);
                log.write(&write)
            }
        };
        written.push(place(&author.stored));
        if result.is_err() {
            break;
        }
        if !log.dirty() {
            durable = place(&author.stored);
        }
    }
    files.disk().lose_power(random);
    (written, durable)
}

#[test]
fn what_was_synced_survives_every_power_cut_and_nothing_is_made_up() {
    for seed in 0..400 {
        let mut random = Random(seed);
        let files = Forgetful::default();
        let mut author = Author::new();
        for _ in 0..6 {
            let (written, durable) = life(&files, &mut author, &mut random);
            let (_, found) = open(&files).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let Some(found) = found else {
                assert_eq!(durable.1, OpNumber(0), "seed {seed}: the log is gone");
                continue;
            };
            let there = place(&found.stored);
            let covered = found.stored.checkpoint().unwrap_or_default();
            assert!(
                there.1.max(covered) >= durable.1 && there.0 >= durable.0,
                "seed {seed}: {durable:?} was durable, {there:?} is there"
            );
            assert!(written.contains(&there), "seed {seed}: {there:?} never was");
            assert_eq!(found.group, GROUP);
        }
    }
}

#[test]
fn damage_to_what_was_durable_is_told_from_a_torn_write() {
    let mut random = Random(5);
    let files = Forgetful::default();
    let mut author = Author::new();
    let (mut log, _) = open(&files).unwrap();
    let mut ends = Vec::new();
    for round in 0..4 {
        let write = if round == 0 {
            author.enter(&mut random)
        } else {
            author.append(&mut random)
        };
        log.write(&write).unwrap();
        log.sync().unwrap();
        let name = files.last_log();
        ends.push(files.disk().seen[&name].len());
    }
    let name = files.last_log();
    let good = files.disk().seen[&name].clone();
    // Any byte of all but the last write: a later record says that it was durable.
    for at in 0..ends[2] {
        files.disk().seen.get_mut(&name).unwrap()[at] ^= 0x10;
        let error = open(&files).map(|(_, found)| found.is_some()).unwrap_err();
        match error {
            DiskError::Damaged { path, offset, .. } => {
                assert!(path.ends_with(&name), "{path:?}");
                assert!(offset <= at as u64);
            }
            error => panic!("byte {at}: {error}"),
        }
        assert_eq!(
            files.disk().seen[&name].len(),
            good.len(),
            "damage isn't cut away"
        );
        files.disk().seen.insert(name.clone(), good.clone());
    }
    // Any cut within the last write is a torn one, and the writes before it are all there.
    for length in ends[2]..ends[3] {
        files
            .disk()
            .seen
            .insert(name.clone(), good[..length].to_vec());
        let (_, found) = open(&files).unwrap();
        let torn = found.unwrap().torn_bytes;
        assert_eq!(torn, (length - ends[2]) as u64);
        assert_eq!(files.disk().seen[&name].len(), ends[2], "it is cut away");
    }
}

#[test]
fn a_missing_file_or_checkpoint_is_damage() {
    let mut random = Random(6);
    let files = Forgetful::default();
    let mut author = Author::new();
    let (mut log, _) = open(&files).unwrap();
    log.write(&author.enter(&mut random)).unwrap();
    let (op, write) = author.checkpoint();
    log.rotate().unwrap();
    write_checkpoint(&mut files.clone(), op, &write).unwrap();
    log.trim(op).unwrap();
    log.write(&author.append(&mut random)).unwrap();
    log.rotate().unwrap();
    let all = files.disk().seen.clone();
    assert_eq!(
        all.keys().collect::<Vec<_>>(),
        [
            &super::disk_log::checkpoint_name(op),
            &super::disk_log::log_name(1),
            &super::disk_log::log_name(2)
        ],
        "the file that the checkpoint covers is gone"
    );
    let refused = || matches!(open(&files), Err(DiskError::Damaged { .. }));
    assert!(!refused());
    for name in [
        super::disk_log::checkpoint_name(op),
        super::disk_log::log_name(1),
    ] {
        files.disk().seen.remove(&name);
        assert!(refused(), "{name} is missing");
        files.disk().seen = all.clone();
        let middle = all[&name].len() / 2;
        files.disk().seen.get_mut(&name).unwrap()[middle] ^= 1;
        assert!(refused(), "{name} is damaged");
        files.disk().seen = all.clone();
    }
}

#[test]
fn a_log_of_another_replica_is_refused_by_name() {
    let files = Forgetful::default();
    let (mut log, _) = open(&files).unwrap();
    log.write(&Author::new().enter(&mut Random(1))).unwrap();
    log.sync().unwrap();
    let other = Identity {
        index: ReplicaId(2),
        replicas: 3,
    };
    let error = DiskLog::open(files, other).map(|(_, found)| found.is_some());
    assert!(
        error.as_ref().is_err_and(|error| error
            .to_string()
            .contains("replica 1 of 3 in group 0000000000000007")),
        "{error:?}"
    );
}

#[test]
fn the_thread_makes_appends_durable_in_order_and_few_syncs_serve_many() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(3);
    let mut author = Author::new();
    {
        let (mut journal, found) = Journal::open(directory.path(), IDENTITY).unwrap();
        assert!(found.is_none());
        journal.write(author.enter(&mut random)).unwrap();
        let (_, before) = journal.counts();
        for _ in 0..500 {
            journal.write(author.append(&mut random)).unwrap();
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
        journal.write(author.append(&mut random)).unwrap();
    }
    let (_, found) = Journal::open(directory.path(), IDENTITY).unwrap();
    let stored = found.unwrap().stored;
    assert_eq!(place(&stored), place(&author.stored));
    assert_eq!(stored.checkpoint(), author.stored.checkpoint());
}

#[test]
fn a_full_disk_is_told_and_nothing_is_durable_after_it() {
    let files = Forgetful::default();
    let (log, _) = open(&files).unwrap();
    let mut journal = Journal::start(log).unwrap();
    let mut random = Random(4);
    let mut author = Author::new();
    journal.write(author.enter(&mut random)).unwrap();
    files.disk().left = Some(1);
    journal.write(author.append(&mut random)).unwrap();
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
        journal.write(Author::new().enter(&mut Random(1))).unwrap();
    }
    let error = super::refuse_leftover(directory.path(), IDENTITY).unwrap_err();
    assert!(error.to_string().contains("--durability disk"), "{error}");
    let aside = super::set_aside(directory.path()).unwrap();
    assert!(aside.ends_with("log.damaged-1") && aside.exists());
    super::refuse_leftover(directory.path(), IDENTITY).unwrap();
}
