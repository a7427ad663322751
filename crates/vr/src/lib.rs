//! Viewstamped Replication (Liskov & Cowling, "Viewstamped Replication Revisited", 2012) as a state machine without I/O,
//! clock or randomness: one door in, [`Replica::step`], and ordered [`Effect`]s out.
//!
//! The driver owns sockets, disk and time; the kernel's fast path is reached through [`FastPathCommand`] and
//! [`FastPathEvent`] alone. A broken invariant panics (the process stops: a crash, which the protocol is made for);
//! bad input never does.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod config;
pub mod effect;
pub mod ids;
pub mod message;
pub mod mutations;
pub mod replica;
pub mod state_machine;
pub mod status;

pub use config::{Config, Durability, Limits, Start, Timing};
pub use effect::{Effect, FastPathCommand, FastPathEvent, Input, Note, Promise, Write};
pub use ids::{
    ClientId, Digest, GroupId, MAX_REPLICAS, Nonce, OpNumber, ReplicaId, RequestNumber, Time, View,
};
pub use message::{Entry, Message, Prepare, Reply};
pub use replica::Replica;
pub use replica::stored::{Stored, StoredError};
pub use state_machine::{RestoreError, StateMachine};
pub use status::{Role, Snapshot, Status};
