//! A replica's log on disk: what was synced stays, of the rest a crash leaves some.

use std::collections::VecDeque;

use electrode_vr::{OpNumber, Stored, View, Write};

use crate::random::Random;

#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// None before the first view was entered.
    durable: Option<Stored>,
    /// A checkpoint without a log: a state that was fetched, whose view isn't entered yet.
    orphan: Option<Write>,
    /// Written, not yet synced; and when it will be.
    pending: VecDeque<Write>,
    synced_at: Option<u64>,
}

impl Disk {
    /// What a process that starts finds.
    pub(crate) fn stored(&self) -> Option<Stored> {
        self.durable.clone()
    }

    pub(crate) fn exists(&self) -> bool {
        self.durable.is_some()
    }

    pub(crate) fn durable_op(&self) -> OpNumber {
        let stored = self.durable.as_ref();
        stored.map_or(OpNumber(0), |stored| {
            stored.op().max(stored.checkpoint().unwrap_or_default())
        })
    }

    pub(crate) fn durable_at(&self) -> u64 {
        self.synced_at.unwrap_or(u64::MAX)
    }

    pub(crate) fn write(&mut self, write: Write, at: u64) {
        self.pending.push_back(write);
        self.synced_at.get_or_insert(at);
    }

    pub(crate) fn enter(&mut self, write: Write) {
        self.sync();
        let stored = self.durable.get_or_insert_with(Stored::empty);
        for write in self.orphan.take().into_iter().chain([write]) {
            stored.apply(write).expect("it follows what is stored");
        }
    }

    /// All that was written is durable; the last append of it.
    pub(crate) fn sync(&mut self) -> Option<(View, OpNumber)> {
        self.synced_at = None;
        let mut last = None;
        while let Some(write) = self.pending.pop_front() {
            last = self.take(write).or(last);
        }
        last
    }

    /// The power goes: a part of what wasn't synced is there, the rest isn't. A checkpoint is a file of its own.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        self.synced_at = None;
        let survive = random.index(self.pending.len() + 1);
        for (position, write) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            let own_file = matches!(write, Write::Checkpoint { .. });
            if position < survive || own_file && random.chance(500) {
                self.take(write);
            }
        }
    }

    fn take(&mut self, write: Write) -> Option<(View, OpNumber)> {
        let last = match &write {
            Write::Append {
                view,
                after,
                entries,
                ..
            } => Some((*view, OpNumber(after.0 + entries.len() as u64))),
            _ => None,
        };
        match &mut self.durable {
            Some(stored) => stored.apply(write).expect("it follows what is stored"),
            None => self.orphan = Some(write),
        }
        last
    }
}
