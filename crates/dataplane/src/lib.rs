//! Loading and attaching the fast path: aya, memory-mapped maps, ring buffer, neighbours.
//!
//! The protocol between kernel and user space is `electrode_fastpath::host`; this crate gives it real memory.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use electrode_vr::{GroupId, OpNumber, ReplicaId, Time, View};

/// Which programs to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    /// TC egress on the primary: one Prepare in, a copy per backup out.
    pub broadcast: bool,
    /// XDP on the backups: store a Prepare and answer it.
    pub prepare: bool,
    /// XDP on the primary: count PrepareOks.
    pub prepare_ok: bool,
}

/// What [`Dataplane::attach`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interface that the replicas' addresses are reached through, by name.
    pub interface: String,
    /// Which programs.
    pub programs: Programs,
    /// Whether generic XDP will do where the driver has no native XDP.
    pub allow_generic: bool,
    /// This replica.
    pub index: ReplicaId,
    /// Every replica's address, in the order of the configuration.
    pub replicas: Vec<SocketAddr>,
    /// The authenticator's key.
    pub key: [u8; 16],
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP in the driver.
    Native,
    /// XDP in the stack.
    Generic,
    /// A TCX link.
    Tcx,
    /// A filter on the clsact qdisc.
    Clsact,
    /// Not attached.
    Off,
}

/// How the programs are attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface.
    pub interface: String,
    /// The XDP programs.
    pub xdp: Hook,
    /// The TC program.
    pub tc: Hook,
}

/// One counter of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// `dispatch`, `prepare`, `prepare_ok` or `broadcast`.
    pub program: &'static str,
    /// What was counted, for example `acked`.
    pub name: &'static str,
    /// How often, since the programs were attached.
    pub value: u64,
}

/// Why the fast path can't be used here; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No such interface.
    #[error("interface {0}: there is no such interface; `ip link` lists them")]
    NoInterface(String),
}

/// The attached fast path of one replica. Everything is detached when it is dropped or the process dies.
#[derive(Debug)]
pub struct Dataplane {}

impl Dataplane {
    /// Loads and attaches the programs, fenced (nothing is taken by the kernel until [`Dataplane::arm`]).
    ///
    /// # Errors
    /// Kernel, capabilities or interface can't do it; the error says which and what to do.
    pub fn attach(options: &Options) -> Result<Dataplane, AttachError> {
        Err(AttachError::NoInterface(options.interface.clone()))
    }

    /// How it is attached.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        unreachable!()
    }

    /// Readable (level-triggered) when the kernel has something that shouldn't wait; then [`Dataplane::drain`].
    #[must_use]
    pub fn ring(&self) -> BorrowedFd<'_> {
        unreachable!()
    }

    /// Readable when routes or neighbours changed; then [`Dataplane::on_netlink`].
    #[must_use]
    pub fn netlink(&self) -> BorrowedFd<'_> {
        unreachable!()
    }

    /// Takes the changes of routes and neighbours.
    pub fn on_netlink(&mut self) {}

    /// Call about once a second: keeps the neighbours' entries fresh.
    pub fn refresh_neighbours(&mut self) {}

    /// The group's name, once it is known; takes effect with the next [`Dataplane::arm`].
    pub fn set_group(&mut self, group: GroupId) {
        let _ = group;
    }

    /// Stops the kernel's part at once; returns the last op that it accepted. The records up to there have to be drained next.
    pub fn fence(&mut self) -> OpNumber {
        unreachable!()
    }

    /// Starts the kernel's part.
    pub fn arm(&mut self, view: View, primary: bool, last_op: OpNumber) {
        let _ = (view, primary, last_op);
    }

    /// A backup wants to append `after + 1 ..= last` itself; false when the kernel was first.
    pub fn claim(&mut self, after: OpNumber, last: OpNumber) -> bool {
        let _ = (after, last);
        unreachable!()
    }

    /// The primary's last op is `op`, and its Prepare is about to leave: opens its quorum slot.
    pub fn open_slot(&mut self, op: OpNumber) {
        let _ = op;
    }

    /// Takes one stored Prepare (the whole message, header first) from the ring; None when there is none just now.
    /// Appends the bytes to `message` after clearing it.
    pub fn take_stored(&mut self, message: &mut Vec<u8>) -> bool {
        let _ = message;
        unreachable!()
    }

    /// The open slots above `commit` that have any ack, newest first: `(op, acks)`.
    pub fn acks(&mut self, commit: OpNumber, out: &mut Vec<(OpNumber, u16)>) {
        let _ = (commit, out);
    }

    /// Whom the kernel heard (surplus acks that it dropped) since the last call, per backup.
    pub fn heard(&mut self, out: &mut Vec<(ReplicaId, Time, OpNumber)>) {
        let _ = out;
    }

    /// Call right before sleeping in epoll: from now a completed quorum wakes (an ack that is already there is reported by `true`: don't sleep).
    /// `wake_on_store`: whether the very first stored Prepare shall wake too (an idle backup), or only a ring that fills up.
    pub fn before_sleep(&mut self, wake_on_store: bool) -> bool {
        let _ = wake_on_store;
        unreachable!()
    }

    /// Call right after epoll returned: a completed quorum needs no notice while user space is awake.
    pub fn after_sleep(&mut self) {}

    /// The backup to whom one packet with `FLAG_BROADCAST` may be sent so that the kernel copies it to every backup whose
    /// neighbour is known; those in `plain` (appended) must be sent to one by one. None: send to all plainly.
    pub fn carrier(&mut self, plain: &mut Vec<ReplicaId>) -> Option<ReplicaId> {
        let _ = plain;
        None
    }

    /// All counters.
    #[must_use]
    pub fn counters(&self) -> Vec<Counter> {
        Vec::new()
    }
}
