//! What the driver asks of whatever it runs on, and what it lets those see who watch.

use std::net::SocketAddr;

use electrode_fastpath::host::{Host, Memory};
use electrode_vr::{
    ClientId, Effect, Input, Message, Nonce, Note, OpNumber, Prepare, Promise, ReplicaId, Reply,
    RequestNumber, Time, View, Write,
};
use electrode_wire::admission::Refusal;

use crate::{Door, Driver, Received};

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;
/// How long a record that the kernel promised may take to come out of the ring, in nanoseconds.
const FENCE_PATIENCE: u64 = 1000 * MS;
/// The same after a lost claim, where the core asks again anyway.
const CLAIM_PATIENCE: u64 = 10 * MS;

/// A clock, a socket, a disk, and the kernel's part: what differs between a replica on Linux and one that is simulated.
///
/// Those that have bytes pass them through the [`Door`] that they are given; those that have none needn't. The last three methods
/// are for who watches, and do nothing by themselves.
pub trait System<S> {
    /// Why a driver on this system ends.
    type Error: From<crate::Stopped>;
    /// The memory that the fast path's programs share with user space.
    type Memory: Memory;

    /// The clock: it goes on while the machine is suspended, and never back.
    fn now(&mut self) -> Time;
    /// Fresh randomness, for jitter and nonces.
    fn entropy(&mut self) -> Nonce;

    /// Receives up to [`BATCH`](crate::BATCH) datagrams, and says how many; fewer than that means that no more are there.
    ///
    /// # Errors
    /// The system refuses what it never should.
    fn receive(&mut self) -> Result<usize, Self::Error>;
    /// The `index`-th datagram of the last batch, let in by `door`.
    ///
    /// # Errors
    /// It goes no further; [`System::refused`] is told.
    fn received(&mut self, door: &mut Door, index: usize) -> Result<Received, Refusal>;
    /// The `index`-th datagram of the last batch went no further.
    fn refused(&mut self, _index: usize, _refusal: Refusal) {}
    /// Writes a message that is to be sent; [`System::send_to`] then says to whom.
    fn compose(&mut self, door: &Door, flags: u8, message: &Message);
    /// The message that was composed last goes to this replica; it leaves with [`System::flush`] at the latest.
    fn send_to(&mut self, to: ReplicaId);
    /// A reply goes to a client; it leaves with [`System::flush`] at the latest.
    fn reply(&mut self, door: &Door, to: SocketAddr, reply: ReplyTo<'_>);
    /// Sends everything that is waiting, in order. Returns how many datagrams left.
    fn flush(&mut self) -> usize;
    /// Answers who asks how this replica is.
    ///
    /// # Errors
    /// It doesn't answer.
    fn answer_status(
        &mut self,
        driver: &Driver<S>,
        nonce: Nonce,
        source: SocketAddr,
    ) -> Result<(), Refusal>;

    /// Makes the promise durable: when this returns, it survives a crash.
    ///
    /// # Errors
    /// It can't be written: the replica ends.
    fn store(&mut self, promise: Promise) -> Result<(), Self::Error>;
    /// Takes a write to the log, in disk mode; an Enter is durable, and all before it, when this returns.
    ///
    /// # Errors
    /// The log can't be written: the replica ends.
    fn write(&mut self, write: Write) -> Result<(), Self::Error>;
    /// Waits until every write is durable; nothing to do in memory mode.
    ///
    /// # Errors
    /// As for [`System::write`].
    fn barrier(&mut self) -> Result<(), Self::Error>;
    /// The last append that is durable, if there is a new one.
    ///
    /// # Errors
    /// As for [`System::write`].
    fn persisted(&mut self) -> Result<Option<(View, OpNumber)>, Self::Error>;

    /// User space's half of the fast path, if there is one. That doesn't change while the driver lives.
    fn host(&mut self) -> Option<&mut Host<Self::Memory>>;
    /// The next Prepare in the ring.
    ///
    /// # Errors
    /// It can't be read: [`Stopped::BadRecord`](crate::Stopped::BadRecord).
    fn take_stored(&mut self, door: &Door) -> Result<Option<Prepare>, Self::Error>;
    /// To whom one packet of `bytes` bytes may be sent so that the kernel copies it to every other replica but those in
    /// `plain` (appended). None: send to all plainly.
    fn carrier(&mut self, bytes: usize, plain: &mut Vec<ReplicaId>) -> Option<ReplicaId>;
    /// A time on the programs' clock, on the clock of [`System::now`].
    fn on_own_clock(&mut self, at: Time) -> Time;
    /// Lets a program go on that hasn't submitted its record; false when it has had time enough.
    fn pause(&mut self, waiting: &Waiting) -> bool;

    /// Something that a person should know.
    fn note(&mut self, note: Note);

    /// Whether what was let in reaches the core: for who watches, and wants it to be lost on its last inch.
    fn reaches(&mut self, _driver: &Driver<S>, _received: &Received) -> bool {
        true
    }
    /// Right before an effect takes place.
    ///
    /// # Errors
    /// The replica dies here.
    fn before(&mut self, _driver: &Driver<S>, _effect: &Effect) -> Result<(), Self::Error> {
        Ok(())
    }
    /// Something happened that is no effect.
    fn saw(&mut self, _driver: &Driver<S>, _what: Happened<'_>) {}
}

/// A reply, and to what.
#[derive(Clone, Copy, Debug)]
pub struct ReplyTo<'a> {
    /// The session.
    pub client: ClientId,
    /// The request that is answered.
    pub request: RequestNumber,
    /// The replica's view.
    pub view: View,
    /// The answer.
    pub reply: &'a Reply,
}

/// What those see who watch.
#[derive(Clone, Copy, Debug)]
pub enum Happened<'a> {
    /// The core is about to be given this.
    Given(&'a Input),
    /// The core has taken it.
    Stepped,
    /// Acks of this op are about to be given to the core, from its quorum slot.
    Counted {
        /// The op.
        op: OpNumber,
        /// Bit `i` is replica `i`.
        acks: u16,
    },
    /// The kernel's part has begun.
    Armed {
        /// For this view.
        view: View,
        /// As the primary's or as a backup's.
        primary: bool,
    },
    /// The kernel's part has ended; what it accepted isn't taken yet.
    Fenced {
        /// The last op that it accepted.
        last_op: OpNumber,
    },
    /// User space was first to append these ops.
    Claimed {
        /// The log's end so far.
        after: OpNumber,
        /// The last of them.
        last: OpNumber,
    },
    /// The quorum slot of this op is open.
    SlotOpened {
        /// The op.
        op: OpNumber,
    },
    /// The group has a name now.
    Joined,
}

/// What a record is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The kernel's part has ended, and this is of what it had accepted.
    Fence,
    /// The kernel was first to append.
    Claim,
}

/// A record that the kernel promised and that isn't out of the ring yet.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// What for.
    pub wait: Wait,
    /// When patience ends.
    pub until: Time,
    /// How often the ring was looked at in vain.
    pub looks: usize,
}

impl Waiting {
    pub(crate) fn begin(wait: Wait, now: Time) -> Waiting {
        let patience = match wait {
            Wait::Fence => FENCE_PATIENCE,
            Wait::Claim => CLAIM_PATIENCE,
        };
        Waiting {
            wait,
            until: now.plus(patience),
            looks: 0,
        }
    }

    /// Lets a program go on; false when patience has ended.
    pub(crate) fn pause<S, Y: System<S>>(&mut self, system: &mut Y) -> bool {
        self.looks += 1;
        system.pause(self)
    }
}
