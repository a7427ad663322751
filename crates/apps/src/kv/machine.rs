//! The map itself.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::ops::Bound;

use electrode_vr::{Digest, RestoreError, StateMachine};
use siphasher::sip::SipHasher13;

use super::{
    Compare, KvOp, KvResult, KvTxn, MAX_KEY_BYTES, MAX_RESULT_BYTES, MAX_VALUE_BYTES, Operation,
    SINGLE_RESULT, TXN_RESULT, put, take,
};

/// The key-value store.
///
/// Its digest is the wrapping sum of a hash of each (key, value): equal states have equal digests whatever way led to
/// them, and a write costs the hash of one entry. It finds accidents, not forgeries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kv {
    entries: BTreeMap<Vec<u8>, Stored>,
    digest: u64,
}

/// A value, and the hash of its entry, so that removing it needn't read it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    value: Vec<u8>,
    hash: u64,
}

impl StateMachine for Kv {
    fn apply(&mut self, op: &[u8]) -> Vec<u8> {
        match Operation::decode(op) {
            Some(Operation::Single(op)) => self.execute(&op, MAX_RESULT_BYTES, |result| {
                put(&result, vec![SINGLE_RESULT])
            }),
            Some(Operation::Txn(txn)) => self.execute_txn(&txn),
            None => put(&KvResult::BadOperation, vec![SINGLE_RESULT]),
        }
    }

    fn read(&self, op: &[u8]) -> Option<Vec<u8>> {
        let Some(Operation::Single(op)) = Operation::decode(op) else {
            return None;
        };
        let result = self.look(&op, MAX_RESULT_BYTES)?;
        Some(put(&result, vec![SINGLE_RESULT]))
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = put(&self.entries.len(), Vec::new());
        for (key, stored) in &self.entries {
            for part in [key, &stored.value] {
                bytes = put(&part.len(), bytes);
                bytes.extend_from_slice(part);
            }
        }
        bytes
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let wrong = |what: &str| RestoreError(what.to_owned());
        let (count, mut rest) = take::<usize>(snapshot).ok_or_else(|| wrong("no count"))?;
        let mut kv = Kv::default();
        for _ in 0..count {
            let ((key, value), after) =
                take::<(&[u8], &[u8])>(rest).ok_or_else(|| wrong("an entry is cut off"))?;
            if kv
                .entries
                .last_key_value()
                .is_some_and(|(last, _)| last.as_slice() >= key)
            {
                return Err(wrong("keys aren't ascending"));
            }
            if !kv.store(key, value.to_vec()) {
                return Err(wrong("an entry is too long"));
            }
            rest = after;
        }
        if !rest.is_empty() {
            return Err(wrong("bytes follow the last entry"));
        }
        *self = kv;
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest(self.digest)
    }
}

impl Kv {
    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key as of now.
    #[must_use]
    pub fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.get(key).map(|stored| stored.value.as_slice())
    }

    /// Executes one op and gives the result to `then`, which may look at it but not keep it. Keys and values of the
    /// result have at most `budget` bytes: a scan stops there; whether the others fit is the caller's business.
    fn execute<R>(
        &mut self,
        op: &KvOp<'_>,
        budget: usize,
        then: impl FnOnce(KvResult<'_>) -> R,
    ) -> R {
        if let Some(result) = self.look(op, budget) {
            return then(result);
        }
        match *op {
            KvOp::Put { key, value } => then(self.put(key, value.to_vec())),
            KvOp::Delete { key } => then(KvResult::Deleted {
                existed: self.remove(key),
            }),
            KvOp::CompareAndSwap { key, expected, new } => {
                if self.value(key) == expected {
                    then(self.put(key, new.to_vec()))
                } else {
                    then(KvResult::Mismatch {
                        actual: self.value(key),
                    })
                }
            }
            KvOp::Append { key, value } => {
                let longer = [self.value(key).unwrap_or_default(), value].concat();
                let length = longer.len() as u64;
                let stored = self.store(key, longer);
                then(if stored {
                    KvResult::Appended { length }
                } else {
                    KvResult::TooLarge
                })
            }
            KvOp::Get { .. } | KvOp::Scan { .. } | KvOp::Count { .. } => {
                unreachable!("what only looks was answered above")
            }
        }
    }

    /// The result of an op that only looks; `None` for one that may change something.
    fn look<'a>(&'a self, op: &KvOp<'a>, budget: usize) -> Option<KvResult<'a>> {
        match *op {
            KvOp::Get { key } => Some(KvResult::Value(self.value(key))),
            KvOp::Scan {
                prefix,
                after,
                limit,
            } => Some(self.scan(prefix, after, limit, budget)),
            KvOp::Count { prefix } => Some(KvResult::Count(
                self.with_prefix(prefix, None).count() as u64
            )),
            _ => None,
        }
    }

    fn execute_txn(&mut self, txn: &KvTxn<'_>) -> Vec<u8> {
        let holds = |compare: &Compare<'_>| self.value(compare.key) == compare.expected;
        let succeeded = txn.compares.iter().all(holds);
        let branch = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let mut bytes = put(&branch.len(), put(&succeeded, vec![TXN_RESULT]));
        let mut budget = MAX_RESULT_BYTES;
        for op in branch {
            let before = bytes.len();
            bytes = self.execute(op, budget, |result| {
                put(&result, std::mem::take(&mut bytes))
            });
            if bytes.len() - before > budget {
                bytes.truncate(before);
                bytes = put(&KvResult::Omitted, bytes);
            }
            // Saturating: the few bytes of `Omitted` itself are beyond the budget, MAX_TXN_STEPS times at most.
            budget = budget.saturating_sub(bytes.len() - before);
        }
        bytes
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
        limit: u32,
        budget: usize,
    ) -> KvResult<'a> {
        // What an entry's two lengths may take at most.
        const LENGTHS: usize = 6;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (key, value) in self.with_prefix(prefix, after) {
            bytes += key.len() + value.len() + LENGTHS;
            if bytes > budget.saturating_sub(LENGTHS) || entries.len() as u64 >= u64::from(limit) {
                return KvResult::Entries {
                    entries,
                    more: true,
                };
            }
            entries.push((key, value));
        }
        KvResult::Entries {
            entries,
            more: false,
        }
    }

    fn with_prefix<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.entries
            .range::<[u8], _>((start, Bound::Unbounded))
            .map(|(key, stored)| (key.as_slice(), stored.value.as_slice()))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    fn put<'a>(&mut self, key: &[u8], value: Vec<u8>) -> KvResult<'a> {
        if self.store(key, value) {
            KvResult::Stored
        } else {
            KvResult::TooLarge
        }
    }

    /// Sets a key, unless it or the value is too long.
    fn store(&mut self, key: &[u8], value: Vec<u8>) -> bool {
        if key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
            return false;
        }
        let hash = hash_entry(key, &value);
        self.digest = self.digest.wrapping_add(hash);
        let stored = Stored { value, hash };
        // Looked up by the borrowed key first: overwriting is common, and needs no copy of the key.
        let old = match self.entries.get_mut(key) {
            Some(place) => Some(std::mem::replace(place, stored)),
            None => self.entries.insert(key.to_vec(), stored),
        };
        self.digest = self.digest.wrapping_sub(old.map_or(0, |old| old.hash));
        true
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let old = self.entries.remove(key);
        self.digest = self
            .digest
            .wrapping_sub(old.as_ref().map_or(0, |old| old.hash));
        old.is_some()
    }
}

/// The key's length goes first, so that no two entries are the same bytes.
fn hash_entry(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(key.len() as u64);
    hasher.write(key);
    hasher.write(value);
    hasher.finish()
}
