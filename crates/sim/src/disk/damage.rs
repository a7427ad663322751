//! Damage to files behind everybody's back, and whether a start has to notice it. That is judged by what was confirmed as
//! durable to whoever wrote, and never by what the files say of themselves: those are under test.

use std::ops::Range;

use electrode_journal::forgetful::Forgetful;

use super::{Disk, MARK};
use crate::random::Random;

/// What a start has to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Something durable is gone, and a witness is left: the log is to be refused.
    Due,
    /// Nothing that was ever confirmed is concerned: it must look like a torn write, or like nothing.
    Undue,
    /// What was synced last, not marked yet: damage to that looks like a torn write (docs/protocol.md says so). It isn't
    /// done: it would be a lost log that nobody can notice.
    Impossible,
}

/// What becomes of one file.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) name: String,
    /// What is there afterwards; None: the file is gone.
    after: Option<Vec<u8>>,
    pub(crate) notice: Notice,
}

impl Damage {
    /// Draws one; None where there is no log.
    pub(crate) fn draw(disk: &Disk, random: &mut Random) -> Option<Damage> {
        let last = disk.files.last_log()?;
        let name = match random.below(8) {
            0 => MARK.to_owned(),
            1 => other_file(&disk.files, &last, random),
            _ => last.clone(),
        };
        let before = disk.files.disk().seen.get(&name)?.clone();
        let confirmed = disk.files.disk().confirmed(&last);
        let (synced_before, marked) = (confirmed.before, disk.book.marked_in(&last));
        let whole = 0..before.len();
        // Where the next record knows nothing, since it was synced together with the damaged one.
        let amid = amid_a_sync(&disk.files, &last, marked..synced_before, random);
        let after = match (random.below(4), amid) {
            _ if name != last => flipped(&before, whole, random),
            (0, _) => changed(&before, random),
            (1..=3, Some(amid)) => flipped(&before, amid, random),
            // Where one witness alone speaks: records, or the mark.
            (1, _) if marked < synced_before => flipped(&before, marked..synced_before, random),
            (2 | 3, _) if synced_before < marked => flipped(&before, synced_before..marked, random),
            _ => flipped(&before, whole, random),
        };
        let notice = if name == MARK {
            Notice::Undue
        } else if name == last {
            disk.notice(&name, &before, after.as_deref())
        } else {
            // Whole, and synced before the last log was begun or the checkpoint got its name.
            Notice::Due
        };
        Some(Damage {
            name,
            after,
            notice,
        })
    }

    /// Does it, unless nobody could notice.
    pub(crate) fn inflict(self, disk: &mut Disk) {
        if self.notice == Notice::Impossible {
            return;
        }
        if self.name == MARK {
            disk.book.unmarked();
        }
        disk.damaged |= self.notice == Notice::Due;
        disk.files.tamper(&self.name, self.after);
    }
}

impl Disk {
    /// Whether a start has to notice a change in the last file of the log.
    fn notice(&self, name: &str, before: &[u8], after: Option<&[u8]>) -> Notice {
        let left = after.unwrap_or_default();
        let same = before.iter().zip(left).take_while(|(was, is)| was == is);
        let first = same.count();
        let kept = before.iter().rev().zip(left.iter().rev());
        let behind = kept.take_while(|(was, is)| was == is).count();
        let (confirmed, marked) = (self.files.disk().confirmed(name), self.book.marked_in(name));
        // Every record of the last sync says that all before it was durable: one that is whole suffices.
        let last_sync_is_whole =
            left.len() == before.len() && before.len() - behind <= confirmed.before;
        if first >= confirmed.length || first == before.len() {
            Notice::Undue
        } else if first < marked || first < confirmed.before && last_sync_is_whole {
            Notice::Due
        } else {
            Notice::Impossible
        }
    }
}

/// Some bytes between these that were synced together with a later append.
fn amid_a_sync(
    files: &Forgetful,
    name: &str,
    within: Range<usize>,
    random: &mut Random,
) -> Option<Range<usize>> {
    let disk = files.disk();
    let known = disk.synced_together(name).iter();
    let found: Vec<&Range<usize>> = known
        .filter(|range| within.contains(&range.start) && range.end <= within.end)
        .collect();
    let range = found.get(random.index(found.len()))?;
    Some((*range).clone())
}

/// The latest checkpoint, or an earlier file of the log; the last one where there is no other.
fn other_file(files: &Forgetful, last: &str, random: &mut Random) -> String {
    let disk = files.disk();
    let names = || disk.seen.keys();
    let earlier = names().filter(|name| name.starts_with("log-") && *name != last);
    let checkpoint = names().rfind(|name| name.starts_with("checkpoint-"));
    let others: Vec<&String> = earlier.chain(checkpoint).collect();
    let other = others.get(random.index(others.len())).copied();
    other.cloned().unwrap_or_else(|| last.to_owned())
}

fn flipped(bytes: &[u8], within: Range<usize>, random: &mut Random) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let (at, bit) = (within.start + random.index(within.len()), random.below(8));
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
    Some(bytes)
}

/// A row of zeros, a lost end, or all of it.
fn changed(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    match random.below(4) {
        0 => None,
        1 => Some(bytes[..random.index(bytes.len())].to_vec()),
        _ => {
            let from = random.index(bytes.len());
            let to = from + random.index(bytes.len() - from);
            let mut bytes = bytes.to_vec();
            bytes[from..to].fill(0);
            Some(bytes)
        }
    }
}
