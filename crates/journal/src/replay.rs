//! Opening the log: what it amounts to, and what of it can't be trusted.
//!
//! A write that was under way when the power went leaves a torn tail: nobody was told of it, and it is cut. Damage to
//! what was durable is another matter. Two witnesses tell them apart: the mark, and every later record, which says how much
//! was durable when it was written. (What was synced last, before a mark was made, has neither, and damage to it looks like
//! a torn write.)

use electrode_vr::mutations::{Mutation, active};
use electrode_vr::{GroupId, OpNumber, Stored, Write};

use crate::disk_log::{
    Current, DiskLog, FORMAT, Header, Identity, checkpoint_name, failed, log_name, parse_name,
};
use crate::error::DiskError;
use crate::files::Files;
use crate::mark::{MARK, read_mark};
use crate::record::{ALIGNMENT, Kind, decode};

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// The group that it is of.
    pub group: GroupId,
    /// The log and the latest checkpoint.
    pub stored: Stored,
    /// How many bytes of a torn write were cut off.
    pub torn_bytes: u64,
}

impl<F: Files> DiskLog<F> {
    /// Opens the log in this directory; `None` where none was ever completed.
    ///
    /// # Errors
    /// [`DiskError::Damaged`] when something that was durable isn't there; files can't be read; the log is another's.
    pub fn open(
        mut files: F,
        identity: Identity,
    ) -> Result<(DiskLog<F>, Option<Found>), DiskError> {
        let names = files.list().map_err(failed(&files, "listing", ""))?;
        let numbered = |prefix: &str| {
            let mut numbers: Vec<u64> = names
                .iter()
                .filter_map(|name| parse_name(name, prefix))
                .collect();
            numbers.sort_unstable();
            numbers
        };
        let mut numbers = numbered("log-");
        // Older files may survive their removal, when the power goes; what counts is what hangs together with the last.
        let gap = numbers.windows(2).rposition(|pair| pair[0] + 1 != pair[1]);
        numbers.drain(..gap.map_or(0, |at| at + 1));
        let checkpoint = match numbered("checkpoint-").last() {
            Some(op) => Some(read_checkpoint(&mut files, OpNumber(*op))?),
            None => None,
        };

        let mark = read_mark(&mut files, &names)?;

        let mut log = DiskLog::empty(files, identity);
        log.mark = mark;
        if let Some(mark) =
            mark.filter(|mark| numbers.last().is_none_or(|last| *last < mark.number))
        {
            return Err(DiskError::Damaged {
                path: log.files.path(&log_name(mark.number)),
                offset: 0,
                what: "it was durable, and isn't there".into(),
            });
        }
        let mut stored = None;
        let mut torn_bytes = 0;
        for (at, number) in numbers.iter().enumerate() {
            let last = at + 1 == numbers.len();
            torn_bytes = log.replay(*number, last, &mut stored)?;
        }
        let found = stored.filter(|_| log.now.entered);
        let Some(mut stored) = found else {
            return Ok((log.discard(&names)?, None));
        };
        let base = log.starts[0].1;
        let covered = checkpoint.as_ref().map_or(OpNumber(0), |known| known.0);
        if base > covered {
            return Err(DiskError::Damaged {
                path: log.files.path(&log_name(log.starts[0].0)),
                offset: 0,
                what: format!(
                    "the log begins after op {base}, and the checkpoint or the file before it is missing"
                ),
            });
        }
        if let Some((op, write)) = checkpoint {
            let what = |error| DiskError::Damaged {
                path: log.files.path(&checkpoint_name(op)),
                offset: 0,
                what: format!("{error}"),
            };
            stored.apply(write).map_err(what)?;
            log.trim(op)?;
        }
        let found = Found {
            group: log.now.group,
            stored,
            torn_bytes,
        };
        Ok((log, Some(found)))
    }

    /// Takes one file's records; returns how many bytes of a torn write it ended with.
    fn replay(
        &mut self,
        number: u64,
        last: bool,
        stored: &mut Option<Stored>,
    ) -> Result<u64, DiskError> {
        let name = log_name(number);
        let bytes = self
            .files
            .read(&name)
            .map_err(failed(&self.files, "reading", &name))?;
        let path = self.files.path(&name);
        let damaged = |offset: usize, what: String| DiskError::Damaged {
            path: path.clone(),
            offset: offset as u64,
            what,
        };
        let mut at = 0;
        while let Some(record) = decode(&bytes, number, at) {
            if at == 0 {
                let header: Header = record
                    .read(Kind::Header)
                    .filter(|header: &Header| header.format == FORMAT)
                    .ok_or_else(|| {
                        damaged(0, format!("not a header of format {FORMAT}, the only one that this version reads"))
                    })?;
                self.check_owner(&header, &path)?;
                match stored {
                    None => {
                        *stored = Some(Stored::starting_after(
                            header.last_normal,
                            header.op,
                            header.digest,
                        ));
                    }
                    Some(before) => {
                        let said = (header.last_normal, header.op, header.digest);
                        if said != (before.last_normal(), before.op(), before.digest()) {
                            return Err(damaged(0, "it doesn't follow the file before it".into()));
                        }
                    }
                }
                self.now = header;
                self.starts.push_back((number, header.op));
            } else {
                let stored = stored.as_mut().expect("the header came first");
                let write: Write = record
                    .read(Kind::Write)
                    .ok_or_else(|| damaged(at, "a record of an unknown kind".into()))?;
                if let Write::Enter { group, .. } = &write {
                    self.now.entered = true;
                    self.now.group = *group;
                }
                stored
                    .apply(write)
                    .map_err(|error| damaged(at, error.to_string()))?;
                self.now.last_normal = stored.last_normal();
                self.now.op = stored.op();
                self.now.digest = stored.digest();
            }
            at = record.end;
        }
        let torn = (bytes.len() - at) as u64;
        let marked = self.mark.filter(|mark| mark.number == number);
        let durable = marked.map_or(0, |mark| mark.length);
        if durable > at as u64 || torn > 0 && (!last || vouched_for(&bytes, number, at)) {
            return Err(damaged(
                at,
                "it was durable, and isn't what was written".into(),
            ));
        }
        if at == 0 && !last {
            return Err(damaged(0, "the file is empty".into()));
        }
        if last {
            self.settle(&name, number, at as u64, torn)?;
        }
        Ok(torn)
    }

    /// Cuts a torn write off the last file, and makes durable what was read: it may have been in memory only.
    fn settle(&mut self, name: &str, number: u64, length: u64, torn: u64) -> Result<(), DiskError> {
        if length == 0 {
            // The file was just being begun; it goes, and the one before it is the last.
            self.files
                .remove(name)
                .map_err(failed(&self.files, "removing", name))?;
            let before = self.starts.back().map(|(number, _)| *number);
            return match before {
                None => Ok(()),
                Some(before) => {
                    let name = log_name(before);
                    let bytes =
                        self.files
                            .read(&name)
                            .map_err(failed(&self.files, "reading", &name))?;
                    self.settle(&name, before, bytes.len() as u64, 0)
                }
            };
        }
        if torn > 0 {
            self.files
                .truncate(name, length)
                .map_err(failed(&self.files, "cutting", name))?;
        }
        self.files
            .sync(name)
            .map_err(failed(&self.files, "syncing", name))?;
        self.current = Some(Current {
            number,
            length,
            synced: length,
        });
        Ok(())
    }

    fn check_owner(&self, header: &Header, path: &std::path::Path) -> Result<(), DiskError> {
        let Identity { index, replicas } = self.identity;
        if (header.index, header.replicas) == (index.0, replicas) {
            return Ok(());
        }
        Err(DiskError::Foreign {
            path: path.to_owned(),
            index: header.index,
            replicas: header.replicas,
            group: header.group,
        })
    }

    /// No view was ever entered: what is here is the beginning of a log that nobody was told of.
    fn discard(mut self, names: &[String]) -> Result<DiskLog<F>, DiskError> {
        // The mark first: by itself it would be of a log that is gone.
        if names.iter().any(|name| name == MARK) {
            self.files
                .remove(MARK)
                .map_err(failed(&self.files, "removing", MARK))?;
            self.files
                .sync_directory()
                .map_err(failed(&self.files, "syncing", ""))?;
        }
        for name in names {
            let ours = parse_name(name, "log-").is_some()
                || parse_name(name, "checkpoint-").is_some()
                || name == "checkpoint.new";
            let there = ours
                && self
                    .files
                    .list()
                    .map_err(failed(&self.files, "listing", ""))?
                    .contains(name);
            if there {
                self.files
                    .remove(name)
                    .map_err(failed(&self.files, "removing", name))?;
            }
        }
        self.files
            .sync_directory()
            .map_err(failed(&self.files, "syncing", ""))?;
        Ok(DiskLog::empty(self.files, self.identity))
    }
}

/// Whether any readable record behind `at` was written when what is at `at` was durable. The first one may well be silent
/// and a later one not: those that are synced together all say what was durable before them.
fn vouched_for(bytes: &[u8], number: u64, at: usize) -> bool {
    let mut later = at + ALIGNMENT;
    while later < bytes.len() {
        let Some(record) = decode(bytes, number, later) else {
            later += ALIGNMENT;
            continue;
        };
        if record.synced > at as u64 {
            return true;
        }
        if active(Mutation::DamageTakenForTorn) {
            return false;
        }
        later = record.end;
    }
    false
}

fn read_checkpoint<F: Files>(files: &mut F, op: OpNumber) -> Result<(OpNumber, Write), DiskError> {
    let name = checkpoint_name(op);
    let bytes = files.read(&name).map_err(failed(files, "reading", &name))?;
    let write = decode(&bytes, op.0, 0).and_then(|record| record.read(Kind::Write));
    match write {
        Some(write @ Write::Checkpoint { op: inside, .. }) if inside == op => Ok((op, write)),
        _ => Err(DiskError::Damaged {
            path: files.path(&name),
            offset: 0,
            what: "it isn't the checkpoint that was written".into(),
        }),
    }
}
