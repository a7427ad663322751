//! The numbers of the protocol, each a type of its own so that none is taken for another.

use core::fmt;
use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// A view number. The primary of view `v` in a group of `n` is replica `v mod n` (VR Revisited, section 4).
    View(u64)
}
number! {
    /// A position in the log; the first op is 1, 0 stands for "before the first". Always below [`OpNumber::LIMIT`].
    OpNumber(u64)
}
number! {
    /// A replica's index in the configuration, from 0.
    ReplicaId(u8)
}
number! {
    /// A client session, chosen at random by the client.
    ClientId(u64)
}
number! {
    /// A client's request number: 1 for the first of a session, then exactly one more each time.
    RequestNumber(u64)
}
number! {
    /// The random name that a group got at its bootstrap; 0 means "not known yet".
    GroupId(u64)
}
number! {
    /// Tells an answer to this question from an answer to an older one (VR Revisited, section 4.3).
    Nonce(u64)
}
number! {
    /// A 64-bit digest: of the log up to an op (each covers its predecessor's), of a state, of a checkpoint.
    Digest(u64)
}
number! {
    /// Nanoseconds on the driver's monotonic clock.
    Time(u64)
}

/// The largest group: the kernel's ack bitmap has 16 bits and 2f+1 is odd.
pub const MAX_REPLICAS: usize = 15;

impl View {
    /// The replica that is primary of this view in a group of `n`.
    #[must_use]
    pub fn primary(self, n: usize) -> ReplicaId {
        ReplicaId(u8::try_from(self.0 % n as u64).expect("n is at most MAX_REPLICAS"))
    }

    /// The next view.
    #[must_use]
    pub fn next(self) -> View {
        View(self.0 + 1)
    }
}

impl OpNumber {
    /// Op numbers are below this: the kernel's tail word keeps 48 bits of them.
    pub const LIMIT: u64 = 1 << 48;

    /// The op after this one.
    #[must_use]
    pub fn next(self) -> OpNumber {
        OpNumber(self.0 + 1)
    }
}

impl RequestNumber {
    /// Numbers from here on aren't of a session: they are reads, which change nothing, so that nobody needs to remember
    /// them. The client tells them apart by the lower bits.
    pub const READS: u64 = 1 << 63;

    /// Whether it is the number of a read.
    #[must_use]
    pub fn is_read(self) -> bool {
        self.0 >= RequestNumber::READS
    }
}

impl ReplicaId {
    /// The index as a `usize`.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Time {
    /// This time plus `nanoseconds`, never wrapping.
    #[must_use]
    pub fn plus(self, nanoseconds: u64) -> Time {
        Time(self.0.saturating_add(nanoseconds))
    }
}
