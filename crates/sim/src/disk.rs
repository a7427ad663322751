//! A machine's disk: the promise, the log's files, and, for the checkers, what was really written and synced.
//!
//! The files are those of `electrode_journal::forgetful`: a process that is killed leaves them as it saw them, a power cut
//! only what was synced, and of the rest a part, perhaps with wrong bytes.

mod damage;

use electrode_journal::forgetful::Forgetful;
use electrode_vr::{Digest, OpNumber, Promise, Stored, View, Write};

use crate::random::Random;
pub(crate) use damage::{Damage, Notice};

/// The file that says how much is durable, as `electrode-journal` names it.
const MARK: &str = "durable";

/// Where a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The last normal view.
    pub(crate) view: View,
    pub(crate) op: OpNumber,
    pub(crate) digest: Digest,
}

/// What was written to the files, whatever they say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// Where the log stood when it was synced last; None while there is none.
    durable: Option<Place>,
    /// Where it stood after each write since.
    since: Vec<Place>,
    /// Whether the power was cut since the last sync: then some of `since` may be missing.
    cut: bool,
    /// The file of the log whose mark is on disk, and how much of it had been confirmed as durable by then.
    marked: Option<(String, usize)>,
}

/// One machine's.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Written and synced before the process goes on.
    pub(crate) promise: Option<Promise>,
    pub(crate) files: Forgetful,
    pub(crate) book: Book,
    /// Operations will fail, or have: a process that stops for it is right to.
    pub(crate) broken: bool,
    /// Something that was durable was changed: the log is to be refused.
    pub(crate) damaged: bool,
}

impl Book {
    /// Whether any view was ever entered, on disk.
    pub(crate) fn exists(&self) -> bool {
        self.durable.is_some()
    }

    /// The last op that survives a power cut.
    pub(crate) fn durable_op(&self) -> OpNumber {
        self.durable.map_or(OpNumber(0), |place| place.op)
    }

    /// A record was written behind the others.
    pub(crate) fn wrote(&mut self, write: &Write) {
        let before = self.since.last().copied().or(self.durable);
        let (view, after, count, digest) = match write {
            Write::Append {
                after,
                entries,
                digest,
                ..
            } => {
                let view = before.map_or(View(0), |place| place.view);
                (view, after, entries.len(), digest)
            }
            Write::Enter {
                view,
                after,
                entries,
                digest,
                ..
            } => (*view, after, entries.len(), digest),
            Write::Checkpoint { .. } => return,
        };
        self.since.push(Place {
            view,
            op: OpNumber(after.0 + count as u64),
            digest: *digest,
        });
    }

    /// Everything that was written is durable.
    pub(crate) fn synced(&mut self) {
        if let Some(last) = self.since.last().copied() {
            self.durable = Some(last);
        }
        self.since.clear();
        self.cut = false;
    }

    /// The mark is about to be written anew, or isn't what was written any more.
    pub(crate) fn unmarked(&mut self) {
        self.marked = None;
    }

    /// The mark is on disk, and says of everything durable that it is.
    pub(crate) fn marked(&mut self, files: &Forgetful) {
        self.marked = files.last_log().map(|name| {
            let confirmed = files.disk().confirmed(&name);
            (name, confirmed.length)
        });
    }

    /// How much of this file the mark speaks for.
    fn marked_in(&self, name: &str) -> usize {
        let marked = self.marked.as_ref().filter(|(of, _)| of == name);
        marked.map_or(0, |(_, length)| *length)
    }

    /// What a start found: an error if it isn't what was written, or less than what was durable. From then on it is what
    /// there is, synced by whoever read it.
    pub(crate) fn found(&mut self, stored: Option<&Stored>) -> Result<(), String> {
        let there = stored.map(|stored| Place {
            view: stored.last_normal(),
            op: stored.op(),
            digest: stored.digest(),
        });
        let newest = self.since.last().copied().or(self.durable);
        let possible = there == newest
            || self.cut
                && (there == self.durable || there.is_some_and(|it| self.since.contains(&it)));
        if !possible {
            return Err(format!(
                "{there:?} was read back; {:?} was durable, and then {:?} written",
                self.durable, self.since
            ));
        }
        *self = Book {
            durable: there,
            marked: self.marked.take().filter(|_| there.is_some()),
            ..Book::default()
        };
        Ok(())
    }
}

impl Disk {
    /// What isn't synced is lost, or a part of it.
    pub(crate) fn lose_power(&mut self, random: &mut Random) {
        self.files.disk().lose_power(|below| random.index(below));
        self.book.cut = true;
        self.broken = false;
    }

    /// Operations fail after this many more: the disk is full, or the system says that it can't write.
    pub(crate) fn fail_after(&mut self, operations: usize) {
        self.files.disk().left = Some(operations);
        self.broken = true;
    }

    /// Somebody made room.
    pub(crate) fn repair(&mut self) {
        self.files.disk().left = None;
        self.broken = false;
    }

    /// The log is moved aside, with what was known of it.
    pub(crate) fn set_aside(&mut self) {
        self.files = Forgetful::default();
        self.book = Book::default();
        self.damaged = false;
    }
}
