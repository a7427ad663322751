//! Every damage to a small log of several groups, each synced once: told from a torn write exactly where a witness is
//! left, as a model says that knows offsets only.

use super::{IDENTITY, Place, open, place};
use crate::author::Author;
use crate::disk_log::{log_name, parse_name};
use crate::forgetful::Forgetful;
use crate::mark::MARK;
use crate::{DiskError, DiskLog, Files as _, write_checkpoint};

/// A record, as whoever wrote it saw the file grow.
struct Written {
    start: usize,
    end: usize,
    /// What was durable when it was written.
    durable: usize,
    /// Where the log stands with it.
    place: Option<Place>,
}

/// One file of log.
struct Sample {
    files: Forgetful,
    name: String,
    good: Vec<u8>,
    records: Vec<Written>,
    /// Bytes that were synced.
    durable: usize,
    /// Bytes that the mark says are durable.
    marked: usize,
}

/// How many writes are synced together; the last ones never are.
const GROUPS: [usize; 5] = [1, 3, 4, 1, 3];
const UNSYNCED: usize = 3;

impl Sample {
    /// Marks after so many groups; 0: only as each file is begun.
    fn new(marks_after: usize) -> Sample {
        let files = Forgetful::default();
        let mut author = Author::new();
        let (mut log, _) = open(&files).unwrap();
        let length = |files: &Forgetful| files.disk().seen[&log_name(0)].len();
        let mut records: Vec<Written> = Vec::new();
        let (mut durable, mut marked) = (0, 0);
        for (group, count) in GROUPS.iter().chain([&UNSYNCED]).enumerate() {
            for _ in 0..*count {
                let write = match group {
                    0 => author.enter(|_| 0),
                    _ => author.append(|_| 0),
                };
                log.write(&write).unwrap();
                if group == 0 {
                    let end =
                        32 + usize::from(files.disk().seen[&log_name(0)][8]).next_multiple_of(8);
                    let header = Written {
                        start: 0,
                        end,
                        durable: 0,
                        place: None,
                    };
                    records.push(header);
                    (durable, marked) = (end, end);
                }
                records.push(Written {
                    start: records.last().unwrap().end,
                    end: length(&files),
                    durable,
                    place: Some(place(&author.stored)),
                });
            }
            if group < GROUPS.len() {
                log.sync().unwrap();
                durable = length(&files);
            }
            if group + 1 == marks_after {
                log.mark().unwrap();
                marked = durable;
            }
        }
        let good = files.disk().seen[&log_name(0)].clone();
        assert_eq!(good.len(), records.last().unwrap().end);
        Sample {
            name: log_name(0),
            files,
            good,
            records,
            durable,
            marked,
        }
    }

    /// What a start makes of these bytes is what it should.
    fn judge(&self, bad: &[u8], what: &str) {
        let intact =
            |it: &&Written| bad.get(it.start..it.end) == Some(&self.good[it.start..it.end]);
        let whole = self.records.iter().take_while(intact).count();
        let Some(first) = self.records.get(whole).map(|record| record.start) else {
            return;
        };
        let mut witnesses = self.records[whole..].iter().filter(intact);
        let witnessed = self.marked > first || witnesses.any(|it| it.durable > first);
        assert!(!witnessed || first < self.durable, "{what}: the model lies");
        let files = self.files.copy();
        files.disk().seen.insert(self.name.clone(), bad.to_vec());
        match open(&files) {
            Err(DiskError::Damaged { path, offset, .. }) => {
                assert!(witnessed, "{what}: refused, and was only torn");
                assert!(path.ends_with(&self.name), "{path:?}");
                assert_eq!(offset, first as u64, "{what}");
                assert_eq!(
                    files.disk().seen[&self.name],
                    bad,
                    "{what}: nothing is changed"
                );
            }
            Err(error) => panic!("{what}: {error}"),
            Ok((_, found)) => {
                assert!(!witnessed, "{what}: passed over");
                let there = found.as_ref().map(|found| place(&found.stored));
                assert_eq!(there, self.records[whole - 1].place, "{what}");
                // Where nothing but the header is left, nothing was begun.
                if let Some(found) = found {
                    assert_eq!(found.torn_bytes, (bad.len() - first) as u64, "{what}");
                    let left = &files.disk().seen[&self.name];
                    assert_eq!(left, &self.good[..first], "{what}");
                }
            }
        }
    }

    fn refused(&self, tamper: impl FnOnce(&mut Vec<u8>)) -> bool {
        let files = self.files.copy();
        tamper(files.disk().seen.get_mut(&self.name).unwrap());
        matches!(open(&files), Err(DiskError::Damaged { .. }))
    }
}

/// Without a mark, with one that is behind, and with one that says all.
fn samples() -> impl Iterator<Item = Sample> {
    [0, 2, GROUPS.len()].into_iter().map(Sample::new)
}

#[test]
fn every_flipped_bit_is_damage_where_a_witness_is_left_and_torn_elsewhere() {
    for sample in samples() {
        for bit in 0..8 * sample.good.len() {
            let mut bad = sample.good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            sample.judge(&bad, &format!("mark {}, bit {bit}", sample.marked));
        }
    }
}

#[test]
fn what_was_durable_before_the_last_sync_or_the_mark_is_never_passed_over() {
    for sample in samples() {
        // The unsynced writes are gone, as after most power cuts.
        let before = sample
            .records
            .iter()
            .rfind(|it| it.end == sample.durable)
            .unwrap()
            .durable;
        for at in 0..sample.good.len() {
            let flipped = sample.refused(|bytes| {
                bytes.truncate(sample.durable.max(at + 1));
                bytes[at] ^= 0x10;
            });
            let expected = match at {
                _ if at < before.max(sample.marked) => Some(true),
                _ if at >= sample.durable => Some(false),
                // Synced last, and not marked: what is torn looks the same.
                _ => None,
            };
            assert!(expected.is_none_or(|it| it == flipped), "byte {at}");
            let short = sample.refused(|bytes| bytes.truncate(at));
            assert_eq!(short, at < sample.marked, "cut at {at}");
        }
    }
}

#[test]
fn every_range_of_zeros_and_every_cut_is_judged_by_the_witnesses_that_it_leaves() {
    for sample in samples() {
        let length = sample.good.len();
        for from in (0..length).step_by(8) {
            sample.judge(&sample.good[..from], &format!("cut at {from}"));
            sample.judge(&sample.good[..from + 3], &format!("cut at {from} and 3"));
            for to in (from + 8..=length).step_by(8) {
                let mut bad = sample.good.clone();
                bad[from..to].fill(0);
                sample.judge(&bad, &format!("mark {}, zeros {from}..{to}", sample.marked));
            }
        }
    }
}

#[test]
fn two_damaged_places_are_judged_by_the_witnesses_that_they_leave() {
    for sample in samples() {
        for one in &sample.records {
            for other in &sample.records {
                let mut bad = sample.good.clone();
                // The length of one, and the content of the other.
                bad[one.start + 8] ^= 0x40;
                bad[other.end - 9] ^= 1;
                sample.judge(&bad, &format!("{} and {}", one.start, other.start));
            }
        }
    }
}

#[test]
fn a_damaged_or_torn_mark_harms_nothing_and_is_made_anew() {
    let sample = Sample::new(GROUPS.len());
    let good = sample.files.disk().seen[MARK].clone();
    for at in 0..good.len() {
        for cut in [false, true] {
            let files = sample.files.copy();
            let mut bad = good.clone();
            bad[at] ^= 4;
            if cut {
                bad.truncate(at);
            }
            files.disk().seen.insert(MARK.to_owned(), bad);
            let (mut log, found) = open(&files).unwrap();
            assert_eq!(
                Some(place(&found.unwrap().stored)),
                sample.records.last().unwrap().place
            );
            assert!(!log.marked());
            log.mark().unwrap();
            assert!(log.marked());
        }
    }
}

#[test]
fn the_mark_is_written_only_when_there_is_news() {
    let files = Forgetful::default();
    let mut author = Author::new();
    let (mut log, _) = open(&files).unwrap();
    log.mark().unwrap();
    assert!(
        log.marked() && files.disk().seen.is_empty(),
        "no log, no mark"
    );
    log.write(&author.enter(|_| 1)).unwrap();
    assert!(log.marked(), "what isn't synced isn't durable");
    log.sync().unwrap();
    assert!(!log.marked());
    let length = files.disk().seen[&log_name(0)].len();
    log.mark().unwrap();
    assert_eq!(
        files.disk().seen[&log_name(0)].len(),
        length,
        "it is in no file of the log"
    );
    files.disk().left = Some(0);
    log.mark().unwrap();
    files.disk().left = None;
    let (mut log, _) = open(&files).unwrap();
    assert!(log.marked(), "a start reads it");
    files.disk().left = Some(0);
    log.mark().unwrap();
}

#[test]
fn a_log_whose_last_file_or_its_header_is_gone_is_refused() {
    let files = Forgetful::default();
    let mut author = Author::new();
    let (mut log, _) = open(&files).unwrap();
    log.write(&author.enter(|_| 3)).unwrap();
    let (op, write) = author.checkpoint();
    log.rotate().unwrap();
    write_checkpoint(&mut files.clone(), op, &write).unwrap();
    log.trim(op).unwrap();
    // A header and nothing else: the only one who knows that there was a log is the mark.
    let good = files.disk().seen.clone();
    let name = files.last_log().unwrap();
    assert_eq!(parse_name(&name, "log-"), Some(1));
    for at in 0..good[&name].len() {
        files.disk().seen.get_mut(&name).unwrap()[at] ^= 1;
        let error = open(&files).map(|(_, found)| found.is_some());
        assert!(
            matches!(error, Err(DiskError::Damaged { offset: 0, .. })),
            "byte {at}: {error:?}"
        );
        files.disk().seen = good.clone();
    }
    files.disk().seen.remove(&name);
    let error = open(&files).map(|(_, found)| found.is_some()).unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    assert_eq!(
        files.disk().seen.len(),
        good.len() - 1,
        "nothing else is removed"
    );
}

#[test]
fn a_log_that_was_only_begun_is_given_up_with_its_mark() {
    let files = Forgetful::default();
    let (mut log, _) = open(&files).unwrap();
    // The header is durable, and the power goes before the first view is.
    log.write(&Author::new().enter(|_| 3)).unwrap();
    files
        .disk()
        .lose_power(|below| below.saturating_sub(1).min(1));
    let (log, found) = DiskLog::open(files.clone(), IDENTITY).unwrap();
    assert!(found.is_none() && log.marked());
    assert!(files.clone().list().unwrap().is_empty());
}
