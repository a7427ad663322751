//! What the core's effects do; the counterpart of `crates/replica/src/driver/effects.rs`.

use electrode_fastpath::abi::MESSAGE_BYTES;
use electrode_vr::{
    ClientId, Effect, FastPathCommand, FastPathEvent, Input, Message, Note, OpNumber, Promise,
    ReplicaId, Reply, RequestNumber, View, Write,
};
use electrode_wire::{FLAG_BROADCAST, encode_message, encode_reply};

use super::{Armed, End, Process, Surroundings};

/// How often the ring is looked at for a record that the kernel promised: each time programs go on. The driver waits a
/// second; a program that is stopped for longer than that stops the process there too.
const FENCE_PATIENCE: usize = 100_000;
/// The same after a lost claim, where the core asks again anyway.
const CLAIM_PATIENCE: usize = 64;

impl Process {
    /// Carries out one effect.
    pub(super) fn execute(
        &mut self,
        around: &mut Surroundings<'_>,
        effect: Effect,
    ) -> Result<(), End> {
        around.trace.effect(around.at, self.index.index(), &effect);
        match effect {
            Effect::Persist(promise) => self.persist(around, promise)?,
            Effect::Write(write) => self.write(around, write)?,
            Effect::Send { to, message } => self.send(around, to, &message),
            Effect::Broadcast(message) => self.broadcast(around, &message),
            Effect::Reply {
                client,
                request,
                view,
                reply,
            } => self.reply(around, client, request, view, &reply),
            Effect::FastPath(FastPathCommand::Fence) => self.fence(around)?,
            Effect::FastPath(FastPathCommand::Arm {
                view,
                primary,
                last_op,
            }) => {
                around.checks.arming(self, view, around.disk.promise);
                self.armed = Some(if primary {
                    Armed::Primary
                } else {
                    Armed::Backup
                });
                self.arms += 1;
                self.last_stored = around.now;
                if let Some(host) = &mut self.fast_path {
                    host.arm(view, primary, last_op);
                    around
                        .checks
                        .armed(self.index.index(), host.generation(), view, primary);
                }
            }
            Effect::FastPath(FastPathCommand::Claim { after, last }) => {
                self.claim(around, after, last)?
            }
            Effect::FastPath(FastPathCommand::OpenSlot { op }) => self.open_slot(around, op),
            Effect::Note(Note::Warning(text)) => {
                around.trace.warning(around.at, self.index.index(), &text)
            }
            Effect::Note(Note::Entered { .. }) => {}
        }
        Ok(())
    }

    fn persist(&mut self, around: &mut Surroundings<'_>, promise: Promise) -> Result<(), End> {
        self.flush(around);
        self.watch(around);
        if let Some(journal) = &mut self.journal {
            journal
                .barrier(&mut around.disk.book)
                .map_err(super::disk_failed)?;
        }
        around
            .checks
            .persisted(self.index.index(), around.disk.promise, promise);
        around.disk.promise = Some(promise);
        if promise.group != self.group {
            self.group = promise.group;
            if let Some(host) = &mut self.fast_path {
                host.set_group(promise.group.0);
            }
        }
        if around.may_die && around.random.chance(around.promise_death) {
            return Err(End::Killed);
        }
        Ok(())
    }

    fn write(&mut self, around: &mut Surroundings<'_>, write: Write) -> Result<(), End> {
        around.checks.written(self.index.index(), &write);
        if matches!(write, Write::Enter { .. }) {
            // As above: this one is waited for.
            self.flush(around);
        }
        let journal = self.journal.as_mut();
        journal
            .expect("the core writes in disk mode only")
            .write(write, &mut around.disk.book, around.at, around.random)
            .map_err(super::disk_failed)
    }

    fn send(&mut self, around: &mut Surroundings<'_>, to: ReplicaId, message: &Message) {
        around.checks.sent(self, around.disk, message);
        let mut out = Vec::new();
        encode_message(&self.envelope(0), &self.key, message, &mut out);
        self.outbox.push((self.addresses[to.index()], out));
    }

    fn broadcast(&mut self, around: &mut Surroundings<'_>, message: &Message) {
        around.checks.sent(self, around.disk, message);
        let commit = match message {
            Message::Prepare(prepare) => Some(prepare.commit),
            Message::Commit { commit, .. } => Some(*commit),
            _ => None,
        };
        self.commit = self.commit.max(commit.unwrap_or_default());
        let mut out = Vec::new();
        // Every neighbour is known here, so there is nobody to be sent to plainly.
        if self.broadcasts && self.armed == Some(Armed::Primary) && commit.is_some() {
            encode_message(&self.envelope(FLAG_BROADCAST), &self.key, message, &mut out);
            if out.len() <= self.payload() {
                let carrier = usize::from(self.index.index() == 0);
                self.outbox.push((self.addresses[carrier], out));
                return;
            }
            out.clear();
        }
        encode_message(&self.envelope(0), &self.key, message, &mut out);
        for (index, address) in self.addresses.iter().enumerate() {
            if index != self.index.index() {
                self.outbox.push((*address, out.clone()));
            }
        }
    }

    /// The longest message that fits one packet.
    fn payload(&self) -> usize {
        if self.layout.ipv6 {
            MESSAGE_BYTES - 20
        } else {
            MESSAGE_BYTES
        }
    }

    fn reply(
        &mut self,
        around: &mut Surroundings<'_>,
        client: ClientId,
        request: RequestNumber,
        view: View,
        reply: &Reply,
    ) {
        around
            .checks
            .replied(self, around.disk, client, request, reply);
        let Some(address) = self.clients.get(&client).copied() else {
            return;
        };
        let mut out = Vec::new();
        encode_reply(&self.envelope(0), view, client, request, reply, &mut out);
        self.outbox.push((address, out));
    }

    fn open_slot(&mut self, around: &mut Surroundings<'_>, op: OpNumber) {
        // The Prepare that the slot is for says what is committed: those slots are free, and this op may need one of them.
        if let Some(Effect::Broadcast(Message::Prepare(prepare))) = self.effects.front() {
            self.commit = self.commit.max(prepare.commit);
        }
        self.read_slots();
        if let Some(host) = &mut self.fast_path {
            host.open_slot(op);
            let generation = host.generation();
            around.checks.slot_opened(self, generation, op);
        }
    }

    /// Stops the kernel's part and gives the core everything that it accepted before it answers.
    fn fence(&mut self, around: &mut Surroundings<'_>) -> Result<(), End> {
        self.slots.clear();
        let armed = self.armed.take();
        let host = self.fast_path.as_mut().filter(|_| armed.is_some());
        let Some(host) = host else {
            let last_op = self.replica.snapshot().op;
            self.give(around, Input::FastPath(FastPathEvent::Fenced { last_op }));
            return Ok(());
        };
        let last_op = host.fence();
        self.watch(around);
        around.checks.fenced(self.index.index(), last_op);
        let mut looks = 0;
        loop {
            self.give_stored(around)?;
            let op = self.replica.snapshot().op;
            if op >= last_op {
                break;
            }
            looks += 1;
            if looks > FENCE_PATIENCE {
                return Err(End::Stopped(format!(
                    "the kernel accepted up to op {last_op}, but the ring ends at {op}"
                )));
            }
            self.card.run_held();
        }
        self.give(around, Input::FastPath(FastPathEvent::Fenced { last_op }));
        Ok(())
    }

    fn claim(
        &mut self,
        around: &mut Surroundings<'_>,
        after: OpNumber,
        last: OpNumber,
    ) -> Result<(), End> {
        let claimed = self
            .fast_path
            .as_mut()
            .is_none_or(|host| host.claim(after, last));
        if claimed {
            let (claims, ops) = &mut around.checks.claims;
            (*claims, *ops) = (*claims + 1, *ops + last.0 - after.0);
            self.give(around, Input::FastPath(FastPathEvent::Claimed));
            return Ok(());
        }
        let mut looks = 0;
        while !self.give_stored(around)? && looks < CLAIM_PATIENCE {
            looks += 1;
            self.card.run_held();
        }
        self.give(around, Input::FastPath(FastPathEvent::Lost));
        Ok(())
    }

    /// Gives the core the ring's records, and nothing else; whether there were any. Their effects wait for their turn.
    fn give_stored(&mut self, around: &mut Surroundings<'_>) -> Result<bool, End> {
        let mut any = false;
        while let Some(prepare) = self.take_stored(around)? {
            any = true;
            self.give(around, Input::FastPath(FastPathEvent::Stored(prepare)));
        }
        Ok(any)
    }
}
