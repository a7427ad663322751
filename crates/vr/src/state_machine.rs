//! What is replicated.

use alloc::string::String;
use alloc::vec::Vec;

use crate::ids::Digest;

/// A deterministic state machine: the same ops in the same order give the same results, state and digest everywhere.
pub trait StateMachine {
    /// Executes one op. Any bytes may come; what doesn't decode is answered as such, never by a panic.
    fn apply(&mut self, op: &[u8]) -> Vec<u8>;
    /// The answer to an op that changes nothing, the same that [`StateMachine::apply`] would give; `None` for any other op.
    fn read(&self, op: &[u8]) -> Option<Vec<u8>> {
        let _ = op;
        None
    }
    /// The whole state as bytes: equal states give equal bytes.
    fn snapshot(&self) -> Vec<u8>;
    /// Replaces the state by a snapshot. On an error the state is unchanged.
    ///
    /// # Errors
    /// The bytes are no snapshot of this kind of state machine.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError>;
    /// A digest of the state, cheap enough for status requests.
    fn digest(&self) -> Digest;
}

/// Bytes that are no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot of this state machine: {0}")]
pub struct RestoreError(pub String);
