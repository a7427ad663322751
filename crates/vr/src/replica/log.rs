//! The log: entries above a base, each with the digest of everything up to it (protocol.md, rule 13).
//!
//! Two logs with the same digest at an op are the same up to there, whichever views ordered them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::ids::{Digest, OpNumber};
use crate::message::Entry;

/// The digests' key: fixed, since all replicas have to agree and the wire's authenticator keeps strangers out.
const KEY: (u64, u64) = (0x656c_6563_7472_6f64, 0x652d_6c6f_672d_7631);

/// What an entry costs on the wire besides its op.
const ENTRY_HEADER: usize = 24;

/// The digest of any bytes.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    let mut hasher = SipHasher24::new_with_keys(KEY.0, KEY.1);
    hasher.write(bytes);
    Digest(hasher.finish())
}

/// The digest of a log that had `previous` and got `entry` at `op`.
pub(super) fn chain(previous: Digest, op: OpNumber, entry: &Entry) -> Digest {
    let mut hasher = SipHasher24::new_with_keys(KEY.0, KEY.1);
    hasher.write(&previous.0.to_le_bytes());
    hasher.write(&op.0.to_le_bytes());
    hasher.write(&entry.client.0.to_le_bytes());
    hasher.write(&entry.request.0.to_le_bytes());
    hasher.write(&(entry.op.len() as u64).to_le_bytes());
    hasher.write(&entry.op);
    Digest(hasher.finish())
}

/// What `entry` takes of a Prepare's or a chunk's byte limit.
pub(super) fn wire_bytes(entry: &Entry) -> usize {
    entry_bytes(&entry.op)
}

/// What an entry with this op takes.
pub(super) fn entry_bytes(op: &[u8]) -> usize {
    ENTRY_HEADER + op.len().next_multiple_of(8)
}

/// The log above `base`.
#[derive(Clone, Debug, Hash)]
pub(super) struct Log {
    base: OpNumber,
    base_digest: Digest,
    slots: VecDeque<(Entry, Digest)>,
    /// What all entries take.
    bytes: usize,
}

impl Log {
    /// An empty log that begins after `base`.
    pub(super) fn starting_after(base: OpNumber, base_digest: Digest) -> Log {
        Log {
            base,
            base_digest,
            slots: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The op before the first entry that is kept.
    pub(super) fn base(&self) -> OpNumber {
        self.base
    }

    /// The last op.
    pub(super) fn op(&self) -> OpNumber {
        OpNumber(self.base.0 + self.slots.len() as u64)
    }

    /// How many entries are kept.
    pub(super) fn entries(&self) -> usize {
        self.slots.len()
    }

    /// How many bytes the kept entries take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many bytes the entries after `op` take.
    pub(super) fn bytes_after(&self, op: OpNumber) -> usize {
        let count = usize::try_from(self.op().0.saturating_sub(op.0)).unwrap_or(usize::MAX);
        let newest = self.slots.iter().rev().take(count);
        newest.map(|slot| wire_bytes(&slot.0)).sum()
    }

    /// The digest at the last op.
    pub(super) fn digest(&self) -> Digest {
        self.slots.back().map_or(self.base_digest, |slot| slot.1)
    }

    /// The digest at `op`; None when `op` is trimmed or not there yet.
    pub(super) fn digest_at(&self, op: OpNumber) -> Option<Digest> {
        if op == self.base {
            return Some(self.base_digest);
        }
        self.slot(op).map(|slot| slot.1)
    }

    /// The entry at `op`.
    pub(super) fn entry(&self, op: OpNumber) -> Option<&Entry> {
        self.slot(op).map(|slot| &slot.0)
    }

    fn slot(&self, op: OpNumber) -> Option<&(Entry, Digest)> {
        let index = op.0.checked_sub(self.base.0)?.checked_sub(1)?;
        self.slots.get(usize::try_from(index).ok()?)
    }

    /// Appends one entry.
    pub(super) fn append(&mut self, entry: Entry) {
        let digest = chain(self.digest(), self.op().next(), &entry);
        self.bytes += wire_bytes(&entry);
        self.slots.push_back((entry, digest));
    }

    /// Drops everything past `op`.
    pub(super) fn truncate(&mut self, op: OpNumber) {
        assert!(op >= self.base, "the log is cut below its base");
        self.bytes -= self.bytes_after(op);
        self.slots
            .truncate(usize::try_from(op.0 - self.base.0).expect("fits the log"));
    }

    /// Drops everything up to `op`.
    pub(super) fn trim(&mut self, op: OpNumber) {
        while self.base < op {
            let Some((entry, digest)) = self.slots.pop_front() else {
                return;
            };
            self.bytes -= wire_bytes(&entry);
            self.base = self.base.next();
            self.base_digest = digest;
        }
    }

    /// All entries after `after`.
    pub(super) fn after(&self, after: OpNumber) -> Vec<Entry> {
        self.batch(after, usize::MAX, usize::MAX)
    }

    /// The entries after `after`: at most `ops` of them and `bytes` bytes, but always one if there is one.
    pub(super) fn batch(&self, after: OpNumber, bytes: usize, ops: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut left = bytes;
        let mut op = after.next();
        while let Some(entry) = self.entry(op) {
            let size = wire_bytes(entry);
            if !entries.is_empty() && (size > left || entries.len() >= ops) {
                break;
            }
            left = left.saturating_sub(size);
            entries.push(entry.clone());
            op = op.next();
        }
        entries
    }
}
