//! The log on a file system that forgets what wasn't synced: nothing that was durable is ever missing, nothing is ever
//! made up, and damage is never taken for a torn write.

mod damage;

use electrode_vr::{Digest, GroupId, OpNumber, ReplicaId, Stored, View};

use crate::author::Author;
use crate::forgetful::Forgetful;
use crate::{DiskError, DiskLog, Files as _, Found, Identity, write_checkpoint};

const IDENTITY: Identity = Identity {
    index: ReplicaId(1),
    replicas: 3,
};
const GROUP: GroupId = GroupId(7);

/// Enough for tests.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

fn open(files: &Forgetful) -> Result<(DiskLog<Forgetful>, Option<Found>), DiskError> {
    DiskLog::open(files.clone(), IDENTITY)
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
                let write = author.enter(|limit| random.below(limit));
                log.write(&write).and_then(|()| log.sync())
            }
            0 => {
                let write = author.enter(|limit| random.below(limit));
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
            3 => log.mark(),
            _ => {
                let write = author.append(|limit| random.below(limit));
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
    files.disk().lose_power(|limit| random.below(limit));
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
fn a_missing_file_or_checkpoint_is_damage() {
    let mut random = Random(6);
    let files = Forgetful::default();
    let mut author = Author::new();
    let (mut log, _) = open(&files).unwrap();
    log.write(&author.enter(|limit| random.below(limit)))
        .unwrap();
    let (op, write) = author.checkpoint();
    log.rotate().unwrap();
    write_checkpoint(&mut files.clone(), op, &write).unwrap();
    log.trim(op).unwrap();
    log.write(&author.append(|limit| random.below(limit)))
        .unwrap();
    log.rotate().unwrap();
    let all = files.disk().seen.clone();
    assert_eq!(
        all.keys().collect::<Vec<_>>(),
        [
            &crate::disk_log::checkpoint_name(op),
            crate::mark::MARK,
            &crate::disk_log::log_name(1),
            &crate::disk_log::log_name(2)
        ],
        "the file that the checkpoint covers is gone"
    );
    let refused = || matches!(open(&files), Err(DiskError::Damaged { .. }));
    assert!(!refused());
    for name in [
        crate::disk_log::checkpoint_name(op),
        crate::disk_log::log_name(1),
        crate::disk_log::log_name(2),
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
    log.write(&Author::new().enter(|_| 1)).unwrap();
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
