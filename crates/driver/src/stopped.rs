//! Why a driver can't go on, whatever it runs on.

use electrode_vr::OpNumber;

/// What the kernel's part has accepted can't be had: going on could lose what it acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// What the kernel stored is no Prepare.
    #[error("the ring buffer holds a record that isn't a Prepare ({0}); stopping, as in a crash")]
    BadRecord(String),
    /// The kernel accepted an op that never came out of the ring.
    #[error(
        "the kernel accepted op {last_op}, but the log ends at {op} a second after the fence; stopping, as in a crash"
    )]
    FenceIncomplete {
        /// The last op that the kernel accepted.
        last_op: OpNumber,
        /// The last op of the log.
        op: OpNumber,
    },
}
