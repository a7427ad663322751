//! The driver: the order of things around the protocol core. What comes in when (ring, socket, disk, quorum slots, tick),
//! what becomes of each effect, and what is looked at before anybody sleeps.
//!
//! It has no socket, no disk, no clock and no programs: those are a [`System`]'s. The replica gives it Linux; the simulator
//! gives it cards, disks and clocks of its own, and watches through the same trait. So what is simulated is what ships. It is
//! generic over the system: in the shipped replica nothing is dispatched at run time, and hooks that do nothing cost nothing.
//!
//! Where the cut is:
//!
//! | the driver's | its system's |
//! | --- | --- |
//! | the turn, its rounds, and which input comes before which | whether socket or disk have something, and the batch |
//! | every effect, step by step: what leaves before a promise, what a fence waits for, which slots are free | encoded datagrams on their way; the promise's file and the log; programs that go on meanwhile |
//! | when to read the clock, and every deadline but those of what isn't a replica's | the clock |
//! | decoding, admission, clients' addresses, the envelope ([`Door`]) | bytes; one without bytes gives messages |
//! | when fence, arm, claim, slots and wake word are touched (`fastpath::host`) | the memory, the ring, and who carries a broadcast |
//! | whether to sleep, and until when | sleeping |
//!
//! It never decides what the core decides, and never reorders the core's effects.

#![forbid(unsafe_code)]

mod clients;
mod door;
mod driver;
mod stopped;
mod system;

pub use door::{Door, Received};
pub use driver::{Armed, BATCH, Counts, DISK_RESEND, Driver, Ready, Rest, Setup};
pub use stopped::Stopped;
pub use system::{Happened, ReplyTo, System, Wait, Waiting};
