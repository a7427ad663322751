//! What the core's effects do.

use electrode_vr::{
    ClientId, Effect, FastPathCommand, FastPathEvent, Input, Message, Note, OpNumber, Prepare,
    Promise, ReplicaId, Reply, RequestNumber, StateMachine, View, Write,
};
use electrode_wire::{
    ENTRY_HEADER_BYTES, FLAG_BROADCAST, HEADER_BYTES, encode_message, encode_reply,
};
use nix::sys::socket::SockaddrStorage;

use super::Driver;
use crate::calls::counted;
use crate::clock::{self, MS};
use crate::error::RunError;
use crate::fast_path::Armed;

/// How long a record that the kernel promised may take to come out of the ring, in nanoseconds.
const FENCE_PATIENCE: u64 = 1000 * MS;
/// The same after a lost claim, where the core asks again anyway.
const CLAIM_PATIENCE: u64 = 10 * MS;

impl<S: StateMachine> Driver<S> {
    /// Carries out one effect.
    pub(super) fn execute(&mut self, effect: Effect) -> Result<(), RunError> {
        match effect {
            Effect::Persist(promise) => self.persist(promise)?,
            Effect::Write(write) => self.write(write)?,
            Effect::Send { to, message } => self.send(to, &message),
            Effect::Broadcast(message) => self.broadcast(&message),
            Effect::Reply {
                client,
                request,
                view,
                reply,
            } => self.reply(client, request, view, &reply),
            Effect::FastPath(FastPathCommand::Fence) => self.fence()?,
            Effect::FastPath(FastPathCommand::Arm {
                view,
                primary,
                last_op,
            }) => {
                self.fast_path.armed = Some(if primary {
                    Armed::Primary
                } else {
                    Armed::Backup
                });
                self.fast_path.arms += 1;
                self.fast_path.last_stored = self.now;
                if let Some(dataplane) = &mut self.fast_path.dataplane {
                    dataplane.arm(view, primary, last_op);
                }
            }
            Effect::FastPath(FastPathCommand::Claim { after, last }) => self.claim(after, last)?,
            Effect::FastPath(FastPathCommand::OpenSlot { op }) => self.open_slot(op),
            Effect::Note(note) => self.note(note),
        }
        Ok(())
    }

    fn persist(&mut self, promise: Promise) -> Result<(), RunError> {
        // The disk takes milliseconds; what is due already needn't wait for it.
        self.socket.flush();
        if let Some(journal) = &mut self.journal {
            journal.barrier()?;
        }
        self.state.store(promise)?;
        if promise.group != self.group {
            tracing::info!("this is group {:016x}", promise.group.0);
            self.group = promise.group;
            if let Some(dataplane) = &mut self.fast_path.dataplane {
                dataplane.set_group(promise.group);
            }
        }
        Ok(())
    }

    fn write(&mut self, write: Write) -> Result<(), RunError> {
        if matches!(write, Write::Enter { .. }) {
            // As above: this one is waited for.
            self.socket.flush();
        }
        let journal = self.journal.as_mut();
        journal
            .expect("the core writes in disk mode only")
            .write(write)?;
        Ok(())
    }

    fn send(&mut self, to: ReplicaId, message: &Message) {
        let envelope = self.envelope(0);
        self.socket
            .compose(|out| encode_message(&envelope, &self.key, message, out));
        self.socket.send_to(self.peers[to.index()]);
    }

    fn broadcast(&mut self, message: &Message) {
        let (commit, bytes) = match message {
            Message::Prepare(prepare) => (Some(prepare.commit), bytes_on_the_wire(prepare)),
            Message::Commit { commit, .. } => (Some(*commit), HEADER_BYTES),
            _ => (None, 0),
        };
        self.commit = self.commit.max(commit.unwrap_or_default());
        self.plain.clear();
        let mut carrier = None;
        if let Some(dataplane) = &mut self.fast_path.dataplane
            && self.fast_path.armed == Some(Armed::Primary)
            && commit.is_some()
        {
            if bytes <= self.fast_path.payload {
                carrier = dataplane.carrier(&mut self.plain);
            }
            let count = if carrier.is_some() {
                &mut self.counts.broadcasts
            } else {
                &mut self.counts.broadcasts_plain
            };
            *count += 1;
        }
        if let Some(carrier) = carrier {
            let envelope = self.envelope(FLAG_BROADCAST);
            self.socket
                .compose(|out| encode_message(&envelope, &self.key, message, out));
            self.socket.send_to(self.peers[carrier.index()]);
            if self.plain.is_empty() {
                return;
            }
        }
        let envelope = self.envelope(0);
        self.socket
            .compose(|out| encode_message(&envelope, &self.key, message, out));
        for (index, peer) in (0_u8..).zip(&self.peers) {
            let wanted = carrier.is_none() || self.plain.contains(&ReplicaId(index));
            if ReplicaId(index) != self.index && wanted {
                self.socket.send_to(*peer);
            }
        }
    }

    fn reply(&mut self, client: ClientId, request: RequestNumber, view: View, reply: &Reply) {
        // A client that was never heard here, or long ago, asks again.
        let Some(address) = self.clients.address(client) else {
            return;
        };
        self.counts.replies += 1;
        let envelope = self.envelope(0);
        self.socket
            .compose(|out| encode_reply(&envelope, view, client, request, reply, out));
        self.socket.send_to(SockaddrStorage::from(address));
    }

    fn open_slot(&mut self, op: OpNumber) {
        // The Prepare that the slot is for says what is committed: those slots are free, and this op may need one of them.
        if let Some(Effect::Broadcast(Message::Prepare(prepare))) = self.effects.front() {
            self.commit = self.commit.max(prepare.commit);
        }
        self.read_slots();
        if let Some(dataplane) = &mut self.fast_path.dataplane {
            dataplane.open_slot(op);
        }
    }

    /// Stops the kernel's part and gives the core everything that it accepted before it answers. An empty ring isn't a drained
    /// one: a program on another CPU may have accepted an op whose record isn't submitted yet.
    fn fence(&mut self) -> Result<(), RunError> {
        self.slots.clear();
        let armed = self.fast_path.armed.take();
        let dataplane = self
            .fast_path
            .dataplane
            .as_mut()
            .filter(|_| armed.is_some());
        let Some(dataplane) = dataplane else {
            // Nothing was running, so nothing was accepted beyond the log.
            let last_op = self.replica.snapshot().op;
            self.give(Input::FastPath(FastPathEvent::Fenced { last_op }));
            return Ok(());
        };
        let last_op = dataplane.fence();
        let give_up = clock::now().plus(FENCE_PATIENCE);
        loop {
            self.give_stored()?;
            let op = self.replica.snapshot().op;
            if op >= last_op {
                break;
            }
            if clock::now() >= give_up {
                return Err(RunError::FenceIncomplete { last_op, op });
            }
            counted(std::thread::yield_now);
        }
        self.give(Input::FastPath(FastPathEvent::Fenced { last_op }));
        Ok(())
    }

    fn claim(&mut self, after: OpNumber, last: OpNumber) -> Result<(), RunError> {
        let claimed = self
            .fast_path
            .dataplane
            .as_mut()
            .is_none_or(|dataplane| dataplane.claim(after, last));
        if claimed {
            self.give(Input::FastPath(FastPathEvent::Claimed));
            return Ok(());
        }
        let give_up = clock::now().plus(CLAIM_PATIENCE);
        while !self.give_stored()? && clock::now() < give_up {
            counted(std::thread::yield_now);
        }
        self.give(Input::FastPath(FastPathEvent::Lost));
        Ok(())
    }

    /// Gives the core the ring's records, and nothing else; whether there were any. Their effects wait for their turn.
    fn give_stored(&mut self) -> Result<bool, RunError> {
        let mut any = false;
        while let Some(prepare) = self.take_stored()? {
            any = true;
            self.give(Input::FastPath(FastPathEvent::Stored(prepare)));
        }
        Ok(any)
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Entered {
                status,
                view,
                primary,
            } => {
                let line = format!(
                    "{status} in view {view}{}",
                    if primary { ", primary" } else { "" }
                );
                tracing::info!("{line}");
                self.supervisor.status(&line);
            }
            Note::Warning(warning) => {
                tracing::warn!("{warning}");
                self.supervisor.status(&warning);
            }
        }
    }
}

/// How long the message will be, before it is encoded: what is too long for one packet has no flag to broadcast.
fn bytes_on_the_wire(prepare: &Prepare) -> usize {
    let entries = prepare.entries.iter();
    HEADER_BYTES
        + entries
            .map(|entry| ENTRY_HEADER_BYTES + entry.op.len().next_multiple_of(8))
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use electrode_vr::{Entry, GroupId};
    use electrode_wire::{Envelope, Key};

    #[test]
    fn the_length_is_known_before_encoding() {
        let entry = |length: usize| Entry {
            client: ClientId(1),
            request: RequestNumber(1),
            op: vec![7; length].into(),
        };
        for lengths in [vec![0], vec![1, 8, 9], vec![1300, 3]] {
            let entries = lengths.into_iter().map(entry).collect();
            let prepare = Prepare {
                view: View(1),
                first: OpNumber(3),
                commit: OpNumber(2),
                entries,
            };
            let expected = bytes_on_the_wire(&prepare);
            let envelope = Envelope {
                group: GroupId(1),
                epoch: 0,
                sender: 0,
                flags: 0,
            };
            let mut out = Vec::new();
            encode_message(
                &envelope,
                &Key::UNKEYED,
                &Message::Prepare(prepare),
                &mut out,
            );
            assert_eq!(out.len(), expected);
        }
    }
}
