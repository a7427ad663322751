//! What is known about the fate of datagrams, for an error that claims neither too much nor too little.

use electrode_vr::{GroupId, ReplicaId};

use crate::RequestError;

/// What was sent to whom, and what came of it.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Per replica: datagrams that left and didn't come back as undeliverable.
    outstanding: Vec<u64>,
    /// The last reply came from this other group; none if it came from ours.
    foreign: Option<GroupId>,
}

impl Evidence {
    pub(super) fn new(replicas: usize) -> Evidence {
        Evidence {
            outstanding: vec![0; replicas],
            foreign: None,
        }
    }

    pub(super) fn sent(&mut self, to: ReplicaId) {
        self.outstanding[to.index()] += 1;
    }

    /// A datagram didn't leave, or came back. Which one isn't known, so only "none has arrived, ever" is ever concluded.
    pub(super) fn undelivered(&mut self, to: ReplicaId) {
        if let Some(outstanding) = self.outstanding.get_mut(to.index()) {
            *outstanding = outstanding.saturating_sub(1);
        }
    }

    pub(super) fn heard(&mut self, foreign: Option<GroupId>) {
        self.foreign = foreign;
    }

    /// The error of a request that was in flight until its deadline.
    pub(super) fn judge(&self, expected: GroupId, waited_ms: u64) -> RequestError {
        if self.outstanding.iter().all(|outstanding| *outstanding == 0) {
            RequestError::Unavailable { waited_ms }
        } else if let Some(found) = self.foreign {
            RequestError::WrongGroup { expected, found }
        } else {
            RequestError::DeadlineUnknown { waited_ms }
        }
    }
}
