//! Where inputs come from: the ring, the socket, the quorum slots; the counterpart of `crates/replica/src/driver/intake.rs`.

use std::mem;
use std::net::SocketAddr;

use electrode_vr::{ClientId, FastPathEvent, Input, Message, Prepare, ReplicaId, RequestNumber};
use electrode_wire::admission::admit;
use electrode_wire::{Packet, decode};

use super::{Armed, End, Process, Surroundings};

/// Records taken from the ring before the socket gets its turn.
const RECORDS: usize = 1024;

impl Process {
    /// Gives the core the Prepares that the kernel stored; true when there may be more than one round's worth.
    pub(super) fn drain_ring(&mut self, around: &mut Surroundings<'_>) -> Result<bool, End> {
        for _ in 0..RECORDS {
            let Some(prepare) = self.take_stored(around)? else {
                return Ok(false);
            };
            self.step(around, Input::FastPath(FastPathEvent::Stored(prepare)))?;
        }
        Ok(self.fast_path.is_some())
    }

    /// The next Prepare in the ring. The kernel checked and acknowledged it: if it can't be read, stop.
    pub(super) fn take_stored(
        &mut self,
        around: &mut Surroundings<'_>,
    ) -> Result<Option<Prepare>, End> {
        let Some(host) = &self.fast_path else {
            return Ok(None);
        };
        let message = loop {
            let Some(record) = self.card.take_record() else {
                return Ok(None);
            };
            if let Some(message) = host.message(&record) {
                break message.to_vec();
            }
        };
        self.last_stored = around.now;
        match decode(&message, &self.key) {
            Ok((_, Packet::Message(Message::Prepare(prepare)))) => Ok(Some(prepare)),
            Ok(_) => Err(End::Stopped(
                "the ring holds another kind of message".into(),
            )),
            Err(error) => Err(End::Stopped(format!(
                "the ring holds what can't be read: {error}"
            ))),
        }
    }

    /// Gives the core a batch that the socket received.
    pub(super) fn take_datagrams(
        &mut self,
        around: &mut Surroundings<'_>,
        received: &[(Vec<u8>, SocketAddr)],
    ) -> Result<(), End> {
        for (bytes, source) in received {
            self.take_datagram(around, bytes, *source)?;
        }
        Ok(())
    }

    fn take_datagram(
        &mut self,
        around: &mut Surroundings<'_>,
        bytes: &[u8],
        source: SocketAddr,
    ) -> Result<(), End> {
        let Ok((envelope, packet)) = decode(bytes, &self.key) else {
            return Ok(());
        };
        if admit(
            &envelope,
            &packet,
            source,
            self.index,
            self.group,
            &self.addresses,
        )
        .is_err()
        {
            return Ok(());
        }
        match packet {
            Packet::Message(message) => {
                let from = ReplicaId(envelope.sender);
                around
                    .trace
                    .received(around.at, self.index.index(), from.index(), &message);
                self.step(around, Input::Message { from, message })
            }
            Packet::Request {
                client,
                request,
                op,
            } => {
                if self.outlived(client, request) {
                    return Ok(());
                }
                self.clients.insert(client, source);
                self.step(
                    around,
                    Input::Request {
                        client,
                        request,
                        op,
                    },
                )
            }
            Packet::StatusRequest { .. } | Packet::Reply { .. } | Packet::StatusReply { .. } => {
                Ok(())
            }
        }
    }

    /// Whether it is a session's first request that was executed, and whose session has expired since. Protocol.md, rule 7, takes
    /// such a copy to be lost on the network, where sessions are many; here, where they are few, it is lost for that reason.
    fn outlived(&self, client: ClientId, request: RequestNumber) -> bool {
        request == RequestNumber(1)
            && self.replica.session(client).is_none()
            && self.replica.machine().has((request.0, client.0))
    }

    /// Gives the core the new acks in the quorum slots; true when there were any.
    pub(super) fn give_acks(&mut self, around: &mut Surroundings<'_>) -> Result<bool, End> {
        if self.armed != Some(Armed::Primary) {
            return Ok(false);
        }
        self.read_slots();
        if self.slots.is_empty() {
            return Ok(false);
        }
        let arms = self.arms;
        let mut slots = mem::take(&mut self.slots);
        for (op, acks) in slots.drain(..) {
            // A step may end in another view, and then the rest is history.
            if self.arms == arms && self.armed.is_some() {
                around.checks.counted(self, op, acks);
                self.step(
                    around,
                    Input::FastPath(FastPathEvent::SlotAcks { op, acks }),
                )?;
            }
        }
        if self.slots.is_empty() {
            self.slots = slots;
        }
        Ok(true)
    }

    /// Collects new acks, and lets go of slots whose ops are committed.
    pub(super) fn read_slots(&mut self) {
        if let Some(host) = &mut self.fast_path {
            host.acks(self.commit, &mut self.slots);
        }
    }

    /// Tells the core which backups the kernel heard (R9): life signs and progress of those whose acks it dropped.
    pub(super) fn give_heard(&mut self, around: &mut Surroundings<'_>) -> Result<(), End> {
        let Some(host) = &mut self.fast_path else {
            return Ok(());
        };
        if self.armed != Some(Armed::Primary) {
            return Ok(());
        }
        let mut heard = Vec::new();
        host.heard(&mut heard);
        for (from, at, op) in heard {
            self.step(
                around,
                Input::FastPath(FastPathEvent::Heard { from, at, op }),
            )?;
        }
        Ok(())
    }
}
