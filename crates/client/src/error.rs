//! How a request fails.

use electrode_vr::GroupId;

/// Why there is no result. [`RequestError::outcome_unknown`] tells whether the operation may have been executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Sent, but not answered in time.
    #[error("no answer within {waited_ms} ms: whether the operation was executed isn't known")]
    DeadlineUnknown {
        /// How long it waited, in milliseconds.
        waited_ms: u64,
    },
    /// The session has expired: the group keeps the sessions that were used last, and has forgotten this one, and with it what
    /// became of the request. The next request begins a new session.
    #[error(
        "the session has expired: the group has forgotten it, and whether the operation was executed isn't known"
    )]
    SessionLost,
    /// Nothing that this client sent has reached a replica in all the time: the operation was not executed.
    #[error("no replica can be reached (tried for {waited_ms} ms): the operation was not executed")]
    Unavailable {
        /// How long it tried, in milliseconds.
        waited_ms: u64,
    },
    /// The operation is longer than a request may be; it was not executed.
    #[error(
        "the operation has {length} bytes, more than the limit of {limit}: it was not executed"
    )]
    TooLarge {
        /// The operation's length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Too many requests wait already; this one was not sent.
    #[error("{waiting} requests wait already: the operation was not executed")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// In all the time only replicas of another group answered.
    #[error(
        "only group {found:016x} answers here, expected group {expected:016x}: whether the operation was executed isn't \
         known",
        expected = expected.0,
        found = found.0
    )]
    WrongGroup {
        /// The group that this client talked to before.
        expected: GroupId,
        /// The group that answers.
        found: GroupId,
    },
    /// Asked as a read, but the operation may change the state; it was not executed.
    #[error("the operation isn't one that only reads: it was not executed")]
    NotRead,
    /// The client is being dropped.
    #[error("the client was closed: whether the operation was executed isn't known")]
    Closed,
}

impl RequestError {
    /// Whether the operation may have been executed, or may still be. If not, it never will be.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match self {
            RequestError::DeadlineUnknown { .. }
            | RequestError::SessionLost
            | RequestError::WrongGroup { .. }
            | RequestError::Closed => true,
            RequestError::Unavailable { .. }
            | RequestError::TooLarge { .. }
            | RequestError::QueueFull { .. }
            | RequestError::NotRead => false,
        }
    }
}
