//! What must hold after every step, whatever happens (protocol.md, "Invariants"; fast-path.md, R1 to R3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use electrode_vr::{
    ClientId, Digest, Message, OpNumber, Promise, Replica, Reply, RequestNumber, Status, View,
};

use crate::kernel::Kernel;
use crate::machine::{Ledger, key_of};

#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The one log: its digest at each op that anybody committed.
    pub(crate) committed: BTreeMap<OpNumber, Digest>,
    /// The one state at each op that anybody stopped at.
    states: BTreeMap<OpNumber, Digest>,
    replies: BTreeMap<(ClientId, RequestNumber), Arc<[u8]>>,
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Per replica, since its start: commit and last normal view.
    floors: BTreeMap<usize, (OpNumber, View)>,
    /// The highest place in the order that a client was told.
    pub(crate) latest: u64,
    pub(crate) view_changes: BTreeSet<View>,
}

impl Checks {
    pub(crate) fn crashed(&mut self, node: usize) {
        self.floors.remove(&node);
    }

    pub(crate) fn stepped(
        &mut self,
        node: usize,
        replica: &Replica<Ledger>,
        disk: Option<Promise>,
    ) {
        let now = replica.snapshot();
        let floor = self.floors.entry(node).or_default();
        assert!(now.commit >= floor.0, "the commit number fell");
        assert!(
            replica.last_normal() >= floor.1,
            "the last normal view fell"
        );
        let mut op = floor.0.next();
        *floor = (now.commit, replica.last_normal());
        while op <= now.commit {
            if let Some(digest) = replica.log_digest_at(op) {
                let agreed = *self.committed.entry(op).or_insert(digest);
                assert_eq!(
                    agreed, digest,
                    "two values were committed at op {op} (replica {node})"
                );
            }
            op = op.next();
        }
        let state = *self.states.entry(now.commit).or_insert(now.state_digest);
        assert_eq!(
            state, now.state_digest,
            "the state at op {} differs",
            now.commit
        );
        if now.status == Status::Normal {
            self.view_changes.insert(now.view);
            let promised = disk.expect("normal without a promise on disk").view;
            assert!(
                promised <= now.view,
                "normal in a view below the promised one"
            );
        }
    }

    /// Checked when a message leaves, by user space or kernel.
    pub(crate) fn sent(
        &self,
        replica: &Replica<Ledger>,
        kernel: &Kernel,
        disk: Option<View>,
        message: &Message,
        by_kernel: bool,
    ) {
        match message {
            Message::PrepareOk { view, op, last_op } => {
                assert!(op <= last_op, "an ack for more than there is");
                assert_eq!(
                    Some(*view),
                    disk,
                    "an ack for a view below the promised one"
                );
                let now = replica.snapshot();
                let stored: usize = kernel.ring.iter().map(|record| record.entries.len()).sum();
                // R1: all of it is in the log or in the ring.
                assert!(
                    last_op.0 <= now.op.0 + stored as u64,
                    "an ack for what isn't there"
                );
                assert!(
                    by_kernel || now.status == Status::Normal,
                    "an ack by a replica not normal"
                );
            }
            Message::StartViewChange { view }
            | Message::DoViewChange { view, .. }
            | Message::StartView { view, .. } => {
                assert_eq!(
                    Some(*view),
                    disk,
                    "a view was spoken of before it was persisted"
                );
            }
            Message::Prepare(prepare) => assert_eq!(Some(prepare.view), disk),
            _ => {}
        }
    }

    /// A retry gets the same bytes.
    pub(crate) fn replied(&mut self, client: ClientId, request: RequestNumber, reply: &Reply) {
        if let Reply::Done(bytes) = reply
            && !request.is_read()
        {
            let first = self
                .replies
                .entry((client, request))
                .or_insert_with(|| Arc::clone(bytes));
            assert_eq!(first, bytes, "two replies to {client} {request}");
        }
    }

    /// The state machine numbers what it executes, so real-time order (linearizability) is that of the numbers.
    pub(crate) fn acknowledged(&mut self, op: &[u8], reply: &[u8], after: u64) {
        let place = key_of(reply);
        assert!(
            place > after,
            "{place} was done after {after}, but is ordered before it"
        );
        self.latest = self.latest.max(place);
        assert_eq!(op[..8], reply[8..16], "the reply to another request");
        self.acknowledged.insert(key_of(op));
    }

    /// A read sees what was done before it was asked, whoever answers it, and nothing after it is before it.
    pub(crate) fn read(&mut self, reply: &[u8], after: u64) {
        let place = key_of(reply);
        assert!(place >= after, "a read saw {place} when {after} was done");
        self.latest = self.latest.max(place);
    }

    /// At the end: what a client was told is in every replica's state.
    pub(crate) fn nothing_lost(&self, machine: &Ledger) {
        for key in &self.acknowledged {
            assert!(
                machine.executed.contains(key),
                "acknowledged request {key:x} is lost"
            );
        }
    }
}
