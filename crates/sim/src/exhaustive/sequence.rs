//! The smallest state machine that tells whether everything was executed once and in order: it remembers what it executed.

use electrode_vr::{Digest, RestoreError, StateMachine};

/// What was executed, in order: client and number of each op.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sequence(Vec<(u8, u8)>);

/// The op that a client's request is.
pub(super) fn op(client: u8, number: u8) -> [u8; 2] {
    [client, number]
}

impl StateMachine for Sequence {
    fn apply(&mut self, op: &[u8]) -> Vec<u8> {
        let &[client, number] = op else {
            unreachable!("no other ops are sent: {op:?}")
        };
        let before = self.0.iter().filter(|one| one.0 == client).count();
        assert!(
            before + 1 == usize::from(number),
            "op {number} of client {client} is executed after {before} others of its: twice, or out of order"
        );
        self.0.push((client, number));
        vec![u8::try_from(self.0.len()).expect("few ops")]
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.iter().flat_map(|one| [one.0, one.1]).collect()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        self.0 = snapshot
            .chunks_exact(2)
            .map(|one| (one[0], one[1]))
            .collect();
        Ok(())
    }

    fn digest(&self) -> Digest {
        let fold = |sum: u64, one: &(u8, u8)| sum << 8 | u64::from(one.0 << 4 | one.1);
        Digest(self.0.iter().fold(0, fold))
    }
}
