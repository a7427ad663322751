//! The replicated state machine: the key-value store that ships, inside a ledger that notices a second execution and whose
//! replies tell the order.
//!
//! ```text
//! op:     number of the client's op (8 bytes) | the client (8 bytes) | the key-value store's op
//! reply:  place in the order (8 bytes) | number and client (16 bytes) | the store's result
//! ```

use std::collections::BTreeMap;

use electrode_apps::Kv;
use electrode_vr::{Digest, RestoreError, StateMachine};

/// Bytes in front of the store's op.
pub(crate) const OP_FRONT: usize = 16;
/// Bytes in front of the store's result.
pub(crate) const REPLY_FRONT: usize = 24;

/// What identifies an op: its number among the client's, and the client.
pub(crate) type OpKey = (u64, u64);

/// Executes each client's ops exactly once and in the order of their numbers, or panics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    store: Kv,
    executed: u64,
    /// Per client the number of its latest op.
    latest: BTreeMap<u64, u64>,
}

/// The first words of an op or of a reply's second part.
pub(crate) fn key_of(bytes: &[u8]) -> OpKey {
    (word(bytes, 0), word(bytes, 8))
}

/// The place in the order, from a reply.
pub(crate) fn place_of(reply: &[u8]) -> u64 {
    word(reply, 0)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes
        .get(at..at + 8)
        .expect("ops and replies here have a front");
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

impl Ledger {
    /// Whether the op was executed.
    pub(crate) fn has(&self, (number, client): OpKey) -> bool {
        self.latest
            .get(&client)
            .is_some_and(|latest| *latest >= number)
    }
}

impl StateMachine for Ledger {
    fn apply(&mut self, op: &[u8]) -> Vec<u8> {
        let (number, client) = key_of(op);
        let latest = self.latest.entry(client).or_default();
        assert!(
            number > *latest,
            "op {number} of client {client:x} was executed after its op {latest}: twice, or out of order"
        );
        *latest = number;
        self.executed += 1;
        let mut reply = self.executed.to_le_bytes().to_vec();
        reply.extend(&op[..OP_FRONT]);
        reply.extend(self.store.apply(&op[OP_FRONT..]));
        reply
    }

    /// A read's reply has the place of the op that was executed last.
    fn read(&self, op: &[u8]) -> Option<Vec<u8>> {
        let mut reply = self.executed.to_le_bytes().to_vec();
        reply.extend(op.get(..OP_FRONT)?);
        reply.extend(self.store.read(&op[OP_FRONT..])?);
        Some(reply)
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = self.executed.to_le_bytes().to_vec();
        bytes.extend((self.latest.len() as u64).to_le_bytes());
        for (client, number) in &self.latest {
            bytes.extend(client.to_le_bytes());
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.store.snapshot());
        bytes
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let short = || RestoreError("cut short".into());
        let at = |at: usize| {
            let bytes = snapshot.get(at..at + 8).ok_or_else(short)?;
            Ok(u64::from_le_bytes(bytes.try_into().expect("8 bytes")))
        };
        let (executed, clients) = (at(0)?, usize::try_from(at(8)?).map_err(|_| short())?);
        let mut latest = BTreeMap::new();
        for client in 0..clients.min(snapshot.len()) {
            latest.insert(at(16 + 16 * client)?, at(24 + 16 * client)?);
        }
        let rest = snapshot.get(16 + 16 * latest.len()..).ok_or_else(short)?;
        let mut store = Kv::default();
        store.restore(rest)?;
        *self = Ledger {
            store,
            executed,
            latest,
        };
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest(self.store.digest().0 ^ self.executed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use electrode_apps::KvOp;

    fn op(number: u64, client: u64) -> Vec<u8> {
        let mut op = number.to_le_bytes().to_vec();
        op.extend(client.to_le_bytes());
        op.extend(
            KvOp::Put {
                key: b"k",
                value: &[1, 2],
            }
            .encode(),
        );
        op
    }

    #[test]
    fn a_snapshot_holds_everything() {
        let mut ledger = Ledger::default();
        for (number, client) in [(1, 5), (1, 6), (2, 5)] {
            let reply = ledger.apply(&op(number, client));
            assert_eq!(key_of(&reply[8..]), (number, client));
        }
        let mut other = Ledger::default();
        other.restore(&ledger.snapshot()).unwrap();
        assert_eq!(other.digest(), ledger.digest());
        assert_eq!(place_of(&other.apply(&op(2, 6))), 4);
        assert!(other.has((2, 6)) && !other.has((3, 5)));
    }

    #[test]
    #[should_panic(expected = "twice")]
    fn a_second_execution_is_noticed() {
        let mut ledger = Ledger::default();
        ledger.apply(&op(1, 5));
        ledger.apply(&op(1, 5));
    }
}
