//! Where inputs come from: the ring, the socket, the quorum slots.

use std::mem;

use electrode_vr::{FastPathEvent, Input, Message, Prepare, ReplicaId, StateMachine, Time};
use electrode_wire::admission::{Refusal, admit};
use electrode_wire::{Packet, decode};

use super::Driver;
use crate::clock;
use crate::error::RunError;
use crate::fast_path::Armed;

/// Records taken from the ring before the socket gets its turn.
const RECORDS: usize = 1024;

impl<S: StateMachine> Driver<S> {
    /// Gives the core the Prepares that the kernel stored; true when there may be more than one round's worth.
    pub(super) fn drain_ring(&mut self) -> Result<bool, RunError> {
        for _ in 0..RECORDS {
            let Some(prepare) = self.take_stored()? else {
                return Ok(false);
            };
            self.step(Input::FastPath(FastPathEvent::Stored(prepare)))?;
        }
        Ok(self.fast_path.dataplane.is_some())
    }

    /// The next Prepare in the ring. The kernel checked and acknowledged it: if it can't be read, stop.
    pub(super) fn take_stored(&mut self) -> Result<Option<Prepare>, RunError> {
        let Some(dataplane) = &mut self.fast_path.dataplane else {
            return Ok(None);
        };
        if !dataplane.take_stored(&mut self.record) {
            return Ok(None);
        }
        self.counts.stored += 1;
        // Read after the record: from now, not from before it was acknowledged, this replica is bound (rule 15).
        self.now = clock::now();
        self.fast_path.last_stored = self.now;
        match decode(&self.record, &self.key) {
            Ok((_, Packet::Message(Message::Prepare(prepare)))) => Ok(Some(prepare)),
            Ok(_) => Err(RunError::BadRecord("another kind of message".to_owned())),
            Err(error) => Err(RunError::BadRecord(error.to_string())),
        }
    }

    /// Gives the core the batch that the socket received last.
    pub(super) fn take_datagrams(&mut self, received: usize) -> Result<(), RunError> {
        for index in 0..received {
            if let Err(refusal) = self.take_datagram(index)? {
                let (_, source) = self.socket.datagram(index);
                if self.refusals.count(refusal, source) && refusal.is_alarming() {
                    let (name, why) = (refusal.name(), refusal.describe(source));
                    tracing::warn!(
                        "refused a datagram ({name}; later ones are only counted): {why}"
                    );
                }
            }
        }
        Ok(())
    }

    fn take_datagram(&mut self, index: usize) -> Result<Result<(), Refusal>, RunError> {
        let (bytes, source) = self.socket.datagram(index);
        let Some(source) = source else {
            return Ok(Err(Refusal::NoSource));
        };
        let (envelope, packet) = match decode(bytes, &self.key) {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Err(Refusal::Undecodable(error))),
        };
        if let Err(refusal) = admit(
            &envelope,
            &packet,
            source,
            self.index,
            self.group,
            &self.addresses,
        ) {
            return Ok(Err(refusal));
        }
        match packet {
            Packet::Message(message) => {
                self.step(Input::Message {
                    from: ReplicaId(envelope.sender),
                    message,
                })?;
            }
            Packet::Request {
                client,
                request,
                op,
            } => {
                self.counts.requests += 1;
                self.clients.heard(client, source);
                self.step(Input::Request {
                    client,
                    request,
                    op,
                })?;
            }
            Packet::StatusRequest { nonce } => return Ok(self.answer_status(nonce, source)),
            Packet::Reply { .. } | Packet::StatusReply { .. } => {
                return Ok(Err(Refusal::NotForReplicas));
            }
        }
        Ok(Ok(()))
    }

    /// Gives the core the new acks in the quorum slots; true when there were any.
    pub(super) fn give_acks(&mut self) -> Result<bool, RunError> {
        if self.fast_path.armed != Some(Armed::Primary) {
            return Ok(false);
        }
        self.read_slots();
        if self.slots.is_empty() {
            return Ok(false);
        }
        let arms = self.fast_path.arms;
        let mut slots = mem::take(&mut self.slots);
        for (op, acks) in slots.drain(..) {
            // A step may end in another view, and then the rest is history.
            if self.fast_path.arms == arms && self.fast_path.armed.is_some() {
                self.step(Input::FastPath(FastPathEvent::SlotAcks { op, acks }))?;
            }
        }
        if self.slots.is_empty() {
            self.slots = slots;
        }
        Ok(true)
    }

    /// Collects new acks, and lets go of slots whose ops are committed.
    pub(super) fn read_slots(&mut self) {
        if let Some(dataplane) = &mut self.fast_path.dataplane {
            dataplane.acks(self.commit, &mut self.slots);
        }
    }

    /// Tells the core which backups the kernel heard (R9): life signs and progress of those whose acks it dropped.
    pub(super) fn give_heard(&mut self) -> Result<(), RunError> {
        let Some(dataplane) = &mut self.fast_path.dataplane else {
            return Ok(());
        };
        if self.fast_path.armed != Some(Armed::Primary) {
            return Ok(());
        }
        let mut heard = Vec::new();
        dataplane.heard(&mut heard);
        let to_boot = clock::programs_to_boot();
        for (from, at, op) in heard {
            let at = Time(at.0.saturating_add_signed(to_boot));
            self.step(Input::FastPath(FastPathEvent::Heard { from, at, op }))?;
        }
        Ok(())
    }
}
