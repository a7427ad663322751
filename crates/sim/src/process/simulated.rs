//! A simulated machine as the driver sees it, and as those see it who watch.

use std::collections::VecDeque;
use std::net::SocketAddr;

use electrode_driver::{BATCH, Door, Driver, Happened, Received, ReplyTo, System, Wait, Waiting};
use electrode_fastpath::abi::MESSAGE_BYTES;
use electrode_fastpath::host::Host as FastPath;
use electrode_vr::{
    Effect, FastPathCommand, Input, Message, Nonce, Note, OpNumber, Prepare, Promise, ReplicaId,
    RequestNumber, Time, View, Write,
};
use electrode_wire::admission::Refusal;

use super::{End, Outgoing, Place, Seen, Surroundings, disk_failed};
use crate::card::CardMemory;
use crate::checks::Checks;
use crate::disk::Disk;
use crate::frame::Host;
use crate::machine::Ledger;
use crate::trace::Trace;

/// How often the ring is looked at for a record that the kernel promised: each time programs go on. A replica on Linux waits a
/// second; a program that is stopped for longer than that stops the process there too.
const FENCE_LOOKS: usize = 100_000;
/// The same after a lost claim, where the core asks again anyway.
const CLAIM_LOOKS: usize = 64;

/// Datagrams that leave at the next flush, the oldest first.
#[derive(Default)]
pub(super) struct Outbox {
    composed: Vec<u8>,
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
}

/// A process's place, and what is around it.
pub(super) struct Simulated<'a, 'w> {
    pub(super) around: &'a mut Surroundings<'w>,
    pub(super) place: &'a mut Place,
}

/// What those have who watch.
struct Watching<'a> {
    at: u64,
    trace: &'a mut Trace,
    checks: &'a mut Checks,
    disk: &'a Disk,
    /// The replica as it is just now.
    seen: Seen<'a>,
}

impl Simulated<'_, '_> {
    fn watching<'a>(&'a mut self, driver: &'a Driver<Ledger>) -> Watching<'a> {
        let place = &*self.place;
        Watching {
            at: self.around.at,
            trace: self.around.trace,
            checks: self.around.checks,
            disk: self.around.disk,
            seen: Seen { driver, place },
        }
    }

    /// What happened in the card since the last look is judged by what the replica was then.
    pub(super) fn watch(&mut self, driver: &Driver<Ledger>) {
        let Watching {
            at,
            trace,
            checks,
            disk,
            seen,
        } = self.watching(driver);
        for event in seen.card().take_events() {
            trace.card(at, seen.id(), &event);
            checks.card_event(seen, disk.promise, event);
        }
    }

    /// The longest message that fits one packet.
    fn payload(&self) -> usize {
        if self.place.layout.ipv6 {
            MESSAGE_BYTES - 20
        } else {
            MESSAGE_BYTES
        }
    }

    fn send(&mut self, to: SocketAddr) {
        let message = self.place.outbox.composed.clone();
        self.place.outbox.waiting.push_back((to, message));
    }
}

impl System<Ledger> for Simulated<'_, '_> {
    type Error = End;
    type Memory = CardMemory;

    fn now(&mut self) -> Time {
        self.around.now
    }

    fn entropy(&mut self) -> Nonce {
        Nonce(self.around.random.next())
    }

    fn receive(&mut self) -> Result<usize, End> {
        self.place.received = self.place.card.receive(BATCH);
        Ok(self.place.received.len())
    }

    fn received(&mut self, door: &mut Door, index: usize) -> Result<Received, Refusal> {
        let (bytes, source) = &self.place.received[index];
        door.open(bytes, Some(*source))
    }

    fn compose(&mut self, door: &Door, flags: u8, message: &Message) {
        door.encode_message(flags, message, &mut self.place.outbox.composed);
    }

    fn send_to(&mut self, to: ReplicaId) {
        self.send(self.place.addresses[to.index()]);
    }

    fn reply(&mut self, door: &Door, to: SocketAddr, reply: ReplyTo<'_>) {
        door.encode_reply(reply, &mut self.place.outbox.composed);
        self.send(to);
    }

    fn flush(&mut self) -> usize {
        let place = &mut *self.place;
        let count = place.outbox.waiting.len();
        for (to, payload) in place.outbox.waiting.drain(..) {
            place.packets = place.packets.wrapping_add(1);
            let from = Host::Replica(place.index);
            let mut frames = place.layout.frames(from, to, &payload, place.packets);
            if frames.len() == 1 {
                let left = place.card.egress(frames.remove(0));
                let sent = &mut self.around.sent;
                sent.extend(left.into_iter().map(Outgoing::Frame));
            } else {
                self.around.sent.push(Outgoing::Fragments {
                    to,
                    frames,
                    payload,
                });
            }
        }
        count
    }

    fn answer_status(
        &mut self,
        _driver: &Driver<Ledger>,
        _nonce: Nonce,
        _source: SocketAddr,
    ) -> Result<(), Refusal> {
        // Nobody asks here but who damages frames.
        Err(Refusal::TooOften)
    }

    fn store(&mut self, promise: Promise) -> Result<(), End> {
        let disk = &mut self.around.disk;
        self.around
            .checks
            .persisted(self.place.index, disk.promise, promise);
        disk.promise = Some(promise);
        if self.around.may_die && self.around.random.chance(self.around.promise_death) {
            return Err(End::Killed);
        }
        Ok(())
    }

    fn write(&mut self, write: Write) -> Result<(), End> {
        let Surroundings {
            at,
            disk,
            random,
            checks,
            ..
        } = &mut *self.around;
        checks.written(self.place.index, &write);
        let journal = self.place.journal.as_mut();
        journal
            .expect("the core writes in disk mode only")
            .write(write, &mut disk.book, *at, random)
            .map_err(disk_failed)
    }

    fn barrier(&mut self) -> Result<(), End> {
        match &mut self.place.journal {
            Some(journal) => journal
                .barrier(&mut self.around.disk.book)
                .map_err(disk_failed),
            None => Ok(()),
        }
    }

    fn persisted(&mut self) -> Result<Option<(View, OpNumber)>, End> {
        match &mut self.place.journal {
            Some(journal) => journal.persisted().map_err(disk_failed),
            None => Ok(None),
        }
    }

    fn host(&mut self) -> Option<&mut FastPath<CardMemory>> {
        self.place.host.as_mut()
    }

    fn take_stored(&mut self, door: &Door) -> Result<Option<Prepare>, End> {
        let Some(host) = &self.place.host else {
            return Ok(None);
        };
        while let Some(record) = self.place.card.take_record() {
            if let Some(message) = host.message(&record) {
                return Ok(Some(door.stored(message)?));
            }
        }
        Ok(None)
    }

    /// Every neighbour is known here, so there is nobody to be sent to plainly.
    fn carrier(&mut self, bytes: usize, _plain: &mut Vec<ReplicaId>) -> Option<ReplicaId> {
        let copied = self.place.broadcasts && bytes <= self.payload();
        copied.then_some(ReplicaId(u8::from(self.place.index == 0)))
    }

    /// Programs and user space read one clock.
    fn on_own_clock(&mut self, at: Time) -> Time {
        at
    }

    fn pause(&mut self, waiting: &Waiting) -> bool {
        let most = match waiting.wait {
            Wait::Fence => FENCE_LOOKS,
            Wait::Claim => CLAIM_LOOKS,
        };
        let patient = waiting.looks <= most;
        if patient {
            self.place.card.run_held();
        }
        patient
    }

    fn note(&mut self, note: Note) {
        if let Note::Warning(text) = note {
            let Surroundings { at, trace, .. } = &mut *self.around;
            trace.warning(*at, self.place.index, &text);
        }
    }

    /// A session's first request that was executed, and whose session has expired since, doesn't reach the core. Protocol.md,
    /// rule 7, takes such a copy to be lost on the network, where sessions are many; here, where they are few, it is lost for
    /// that reason.
    fn reaches(&mut self, driver: &Driver<Ledger>, received: &Received) -> bool {
        let Received::Request {
            client, request, ..
        } = received
        else {
            return true;
        };
        let outlived = *request == RequestNumber(1)
            && driver.core().session(*client).is_none()
            && driver.core().machine().has((request.0, client.0));
        !outlived
    }

    fn before(&mut self, driver: &Driver<Ledger>, effect: &Effect) -> Result<(), End> {
        if self.around.may_die && self.around.random.rarely(self.around.sudden_death) {
            return Err(End::Killed);
        }
        if let Effect::Persist(_) = effect {
            self.watch(driver);
        }
        let Watching {
            at,
            trace,
            checks,
            disk,
            seen,
        } = self.watching(driver);
        trace.effect(at, seen.id(), effect);
        match effect {
            Effect::Send { message, .. } | Effect::Broadcast(message) => {
                checks.sent(seen, disk, message);
            }
            Effect::Reply {
                client,
                request,
                reply,
                ..
            } => checks.replied(seen, disk, *client, *request, reply),
            Effect::FastPath(FastPathCommand::Arm { view, .. }) => {
                checks.arming(seen, *view, disk.promise);
            }
            Effect::Persist(_) | Effect::Write(_) | Effect::FastPath(_) | Effect::Note(_) => {}
        }
        Ok(())
    }

    fn saw(&mut self, driver: &Driver<Ledger>, what: Happened<'_>) {
        if let Happened::Given(_) | Happened::Fenced { .. } = what {
            self.watch(driver);
        }
        let Watching {
            at,
            trace,
            checks,
            disk,
            seen,
        } = self.watching(driver);
        let generation = seen.place.host.as_ref().map_or(0, FastPath::generation);
        match what {
            Happened::Given(Input::Message { from, message }) => {
                trace.received(at, seen.id(), from.index(), message);
            }
            Happened::Given(input) => trace.input(at, seen.id(), input),
            Happened::Stepped => checks.stepped(seen, disk),
            Happened::Counted { op, acks } => checks.counted(seen, op, acks),
            Happened::Armed { view, primary } => {
                checks.armed(seen.id(), generation, view, primary);
            }
            Happened::Fenced { last_op } => checks.fenced(seen.id(), last_op),
            Happened::Claimed { after, last } => {
                let (claims, ops) = &mut checks.claims;
                (*claims, *ops) = (*claims + 1, *ops + last.0 - after.0);
            }
            Happened::SlotOpened { op } => checks.slot_opened(seen, generation, op),
            Happened::Joined => {}
        }
    }
}

impl From<electrode_driver::Stopped> for End {
    fn from(stopped: electrode_driver::Stopped) -> End {
        End::Stopped(stopped.to_string())
    }
}
