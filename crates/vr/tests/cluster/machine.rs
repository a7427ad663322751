//! A state machine that notices a second execution, and whose replies tell the order.

use std::collections::BTreeSet;

use electrode_vr::{Digest, RestoreError, StateMachine};

/// Remembers every op that it executed. The first 8 bytes of an op make it unique.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) executed: BTreeSet<u64>,
    hash: u64,
}

pub(crate) fn key_of(op: &[u8]) -> u64 {
    u64::from_le_bytes(op[..8].try_into().expect("ops here have 8 bytes or more"))
}

/// The op that asks how many were executed.
pub(crate) const READ: u64 = u64::MAX;

impl StateMachine for Ledger {
    fn apply(&mut self, op: &[u8]) -> Vec<u8> {
        let key = key_of(op);
        assert!(
            self.executed.insert(key),
            "request {key:x} was executed twice"
        );
        self.hash = (self.hash ^ key)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(17);
        let mut reply = (self.executed.len() as u64).to_le_bytes().to_vec();
        reply.extend(key.to_le_bytes());
        reply
    }

    fn read(&self, op: &[u8]) -> Option<Vec<u8>> {
        let executed = self.executed.len() as u64;
        (key_of(op) == READ).then(|| executed.to_le_bytes().to_vec())
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = self.hash.to_le_bytes().to_vec();
        self.executed
            .iter()
            .for_each(|key| bytes.extend(key.to_le_bytes()));
        bytes
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        if snapshot.is_empty() || !snapshot.len().is_multiple_of(8) {
            return Err(RestoreError("the length is wrong".into()));
        }
        let mut words = snapshot.chunks_exact(8).map(key_of);
        self.hash = words.next().expect("it isn't empty");
        self.executed = words.collect();
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest(self.hash)
    }
}
