//! What the core's effects do.

use electrode_vr::{
    Effect, FastPathCommand, FastPathEvent, Input, Message, OpNumber, Prepare, Promise, ReplicaId,
    StateMachine, View, Write,
};
use electrode_wire::{ENTRY_HEADER_BYTES, FLAG_BROADCAST, HEADER_BYTES};

use super::{Armed, Driver};
use crate::{Happened, ReplyTo, Stopped, System, Wait, Waiting};

impl<S: StateMachine> Driver<S> {
    /// Carries out one effect.
    pub(super) fn execute<Y: System<S>>(
        &mut self,
        system: &mut Y,
        effect: Effect,
    ) -> Result<(), Y::Error> {
        match effect {
            Effect::Persist(promise) => self.persist(system, promise)?,
            Effect::Write(write) => {
                if matches!(write, Write::Enter { .. }) {
                    // As for a promise: this one is waited for.
                    system.flush();
                }
                system.write(write)?;
            }
            Effect::Send { to, message } => {
                system.compose(&self.door, 0, &message);
                system.send_to(to);
            }
            Effect::Broadcast(message) => self.broadcast(system, &message),
            Effect::Reply {
                client,
                request,
                view,
                reply,
            } => self.reply(
                system,
                ReplyTo {
                    client,
                    request,
                    view,
                    reply: &reply,
                },
            ),
            Effect::FastPath(FastPathCommand::Fence) => self.fence(system)?,
            Effect::FastPath(FastPathCommand::Arm {
                view,
                primary,
                last_op,
            }) => self.arm(system, view, primary, last_op),
            Effect::FastPath(FastPathCommand::Claim { after, last }) => {
                self.claim(system, after, last)?;
            }
            Effect::FastPath(FastPathCommand::OpenSlot { op }) => self.open_slot(system, op),
            Effect::Note(note) => system.note(note),
        }
        Ok(())
    }

    fn persist<Y: System<S>>(&mut self, system: &mut Y, promise: Promise) -> Result<(), Y::Error> {
        // The disk takes milliseconds; what is due already needn't wait for it.
        system.flush();
        system.barrier()?;
        system.store(promise)?;
        if promise.group != self.door.group() {
            self.door.join(promise.group);
            system.saw(self, Happened::Joined);
            if let Some(host) = system.host() {
                host.set_group(promise.group.0);
            }
        }
        Ok(())
    }

    fn broadcast<Y: System<S>>(&mut self, system: &mut Y, message: &Message) {
        let (commit, bytes) = match message {
            Message::Prepare(prepare) => (Some(prepare.commit), bytes_on_the_wire(prepare)),
            Message::Commit { commit, .. } => (Some(*commit), HEADER_BYTES),
            _ => (None, 0),
        };
        self.commit = self.commit.max(commit.unwrap_or_default());
        self.plain.clear();
        let mut carrier = None;
        if self.armed == Some(Armed::Primary) && commit.is_some() && system.host().is_some() {
            carrier = system.carrier(bytes, &mut self.plain);
            let count = if carrier.is_some() {
                &mut self.counts.broadcasts
            } else {
                &mut self.counts.broadcasts_plain
            };
            *count += 1;
        }
        if let Some(carrier) = carrier {
            system.compose(&self.door, FLAG_BROADCAST, message);
            system.send_to(carrier);
            if self.plain.is_empty() {
                return;
            }
        }
        system.compose(&self.door, 0, message);
        for (to, _) in (0_u8..).map(ReplicaId).zip(self.door.addresses()) {
            let wanted = carrier.is_none() || self.plain.contains(&to);
            if to != self.door.index() && wanted {
                system.send_to(to);
            }
        }
    }

    fn reply<Y: System<S>>(&mut self, system: &mut Y, reply: ReplyTo<'_>) {
        // A client that was never heard here, or long ago, asks again.
        if let Some(address) = self.door.clients.address(reply.client) {
            self.counts.replies += 1;
            system.reply(&self.door, address, reply);
        }
    }

    fn arm<Y: System<S>>(&mut self, system: &mut Y, view: View, primary: bool, last_op: OpNumber) {
        self.armed = Some(if primary {
            Armed::Primary
        } else {
            Armed::Backup
        });
        self.arms += 1;
        self.last_stored = self.now;
        if let Some(host) = system.host() {
            host.arm(view, primary, last_op);
            system.saw(self, Happened::Armed { view, primary });
        }
    }

    fn open_slot<Y: System<S>>(&mut self, system: &mut Y, op: OpNumber) {
        // The Prepare that the slot is for says what is committed: those slots are free, and this op may need one of them.
        if let Some(Effect::Broadcast(Message::Prepare(prepare))) = self.effects.front() {
            self.commit = self.commit.max(prepare.commit);
        }
        self.read_slots(system);
        if let Some(host) = system.host() {
            host.open_slot(op);
            system.saw(self, Happened::SlotOpened { op });
        }
    }

    /// Stops the kernel's part and gives the core everything that it accepted before it answers. An empty ring isn't a drained
    /// one: a program on another CPU may have accepted an op whose record isn't submitted yet.
    fn fence<Y: System<S>>(&mut self, system: &mut Y) -> Result<(), Y::Error> {
        self.slots.clear();
        let armed = self.armed.take();
        let Some(host) = system.host().filter(|_| armed.is_some()) else {
            // Nothing was running, so nothing was accepted beyond the log.
            let last_op = self.core.snapshot().op;
            self.give(system, Input::FastPath(FastPathEvent::Fenced { last_op }));
            return Ok(());
        };
        let last_op = host.fence();
        system.saw(self, Happened::Fenced { last_op });
        let mut waiting = Waiting::begin(Wait::Fence, system.now());
        let mut patient = true;
        loop {
            self.give_stored(system)?;
            let op = self.core.snapshot().op;
            if op >= last_op {
                break;
            }
            if !patient {
                return Err(Stopped::FenceIncomplete { last_op, op }.into());
            }
            // This process may have been stopped for as long as that: the ring is looked at once more when time is over.
            patient = waiting.pause(system);
        }
        self.give(system, Input::FastPath(FastPathEvent::Fenced { last_op }));
        Ok(())
    }

    fn claim<Y: System<S>>(
        &mut self,
        system: &mut Y,
        after: OpNumber,
        last: OpNumber,
    ) -> Result<(), Y::Error> {
        if system.host().is_none_or(|host| host.claim(after, last)) {
            system.saw(self, Happened::Claimed { after, last });
            self.give(system, Input::FastPath(FastPathEvent::Claimed));
            return Ok(());
        }
        let mut waiting = Waiting::begin(Wait::Claim, system.now());
        while !self.give_stored(system)? && waiting.pause(system) {}
        self.give(system, Input::FastPath(FastPathEvent::Lost));
        Ok(())
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
    use electrode_vr::{ClientId, Entry, GroupId, RequestNumber};
    use electrode_wire::{Envelope, Key, encode_message};

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
