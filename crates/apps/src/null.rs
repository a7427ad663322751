//! The state machine that does nothing: what a group costs without an application.

use electrode_vr::{Digest, RestoreError, StateMachine};

/// Answers every op with its own bytes. Its state is the number of ops, so that an op executed twice shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Null {
    ops: u64,
}

impl Null {
    /// How many ops were executed.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.ops
    }
}

impl StateMachine for Null {
    fn apply(&mut self, op: &[u8]) -> Vec<u8> {
        self.ops += 1;
        op.to_vec()
    }

    fn snapshot(&self) -> Vec<u8> {
        self.ops.to_le_bytes().to_vec()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let bytes = snapshot
            .try_into()
            .map_err(|_| RestoreError(format!("{} bytes instead of 8", snapshot.len())))?;
        self.ops = u64::from_le_bytes(bytes);
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest(self.ops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_and_counts() {
        let mut null = Null::default();
        assert_eq!(null.apply(b"hello"), b"hello");
        assert_eq!(null.apply(b""), b"");
        assert_eq!((null.ops(), null.digest()), (2, Digest(2)));
    }

    #[test]
    fn a_snapshot_restores_and_anything_else_changes_nothing() {
        let mut null = Null { ops: 7 };
        let mut other = Null::default();
        other.restore(&null.snapshot()).unwrap();
        assert_eq!(other, null);
        assert_eq!(
            null.restore(b"short").unwrap_err().0,
            "5 bytes instead of 8"
        );
        assert_eq!(null, Null { ops: 7 });
    }
}
