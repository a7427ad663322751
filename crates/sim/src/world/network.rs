//! The network: what leaves a machine is lost, doubled, delayed, damaged, cut off, held back, or comes again long after.

use std::net::SocketAddr;

use electrode_driver::Armed;
use electrode_vr::{OpNumber, View};
use electrode_wire::header::VERSION;
use electrode_wire::{Header, Key, Kind, Packet, check, decode, encode, peek};
use zerocopy::FromBytes;

use super::{Happening, World};
use crate::checks::Rule;
use crate::frame::{Host, parse};
use crate::plan::MS;
use crate::process::{Outgoing, Process};
use crate::trace::{Arrow, summary};

const FRAMES: Rule = Rule {
    name: "programs build frames that stacks can read",
    source: "docs/fast-path.md, \"Broadcast\"; RFC 791, 768, 8200",
};

/// Old packets that are kept to come again.
const STALE: usize = 64;
/// Answers that are kept for each replica, to reach it again at a bad moment.
const ECHOES: usize = 6;
/// The same of acks that are kept back.
const KEPT_BACK: usize = 24;
/// Packets that clogged links and queues hold; what is more is lost, as in a switch.
const CLOGGED: usize = 2048;

impl World {
    /// What a machine sent goes its way.
    pub(super) fn leave(&mut self, node: usize, sent: Vec<Outgoing>, by_kernel: bool) {
        for outgoing in sent {
            match outgoing {
                Outgoing::Frame(frame) => {
                    let Ok(datagram) = parse(&frame) else {
                        let text = format!("a frame of replica {node} is damaged before it leaves");
                        self.checks.require(FRAMES, Err(text));
                        continue;
                    };
                    let Some(to) = self.plan.layout.host(datagram.destination) else {
                        continue;
                    };
                    let from = Host::Replica(node);
                    self.note_prepare(node, to, datagram.payload);
                    self.travel(from, to, vec![frame], None, by_kernel);
                }
                Outgoing::Fragments {
                    to,
                    frames,
                    payload,
                } => {
                    let source = self.plan.layout.address(Host::Replica(node));
                    if let Some(to) = self.plan.layout.host(to) {
                        self.note_prepare(node, to, &payload);
                        self.travel(
                            Host::Replica(node),
                            to,
                            frames,
                            Some((payload, source)),
                            by_kernel,
                        );
                    }
                }
            }
        }
    }

    fn note_prepare(&mut self, node: usize, to: Host, payload: &[u8]) {
        let prepare = peek(payload)
            .ok()
            .filter(|header| header.kind == Kind::Prepare as u8);
        if let (Some(header), Host::Replica(to)) = (prepare, to) {
            let (view, op) = (View(header.view.get()), OpNumber(header.op.get()));
            self.checks.prepare_left(node, view, op, to);
        }
    }

    pub(super) fn send_request(&mut self, client: usize, to: usize, bytes: &[u8]) {
        let (from, to) = (Host::Client(client), Host::Replica(to));
        let address = self.plan.layout.address(to);
        let id = u16::try_from(self.number & 0xffff).expect("16 bits");
        let frames = self.plan.layout.frames(from, address, bytes, id);
        let whole = (frames.len() > 1).then(|| (bytes.to_vec(), self.plan.layout.address(from)));
        self.travel(from, to, frames, whole, false);
    }

    fn travel(
        &mut self,
        from: Host,
        to: Host,
        frames: Vec<Vec<u8>>,
        whole: Option<(Vec<u8>, SocketAddr)>,
        by_kernel: bool,
    ) {
        self.counts.packets += 1;
        if self.keep_acks && whole.is_none() && self.kept_back(to, &frames[0]) {
            self.counts.lost += 1;
            return;
        }
        let cut = self.is_cut(from, to);
        if cut && whole.is_none() {
            self.keep_late(to, &frames[0]);
        }
        let lost = cut || !self.calm && self.random.chance(self.plan.loss);
        let arrives = self.arrival();
        if self.trace.is_on() {
            self.draw(from, to, &frames, &whole, arrives, by_kernel, lost);
        }
        if lost {
            self.counts.lost += 1;
            return;
        }
        let clogged_until = self.clogged_until(from, to);
        if !self.calm && self.random.chance(self.plan.duplication) {
            let at = self.arrival();
            let (frames, whole) = (frames.clone(), whole.clone());
            let copy = Happening::Arrival {
                to,
                frames,
                whole,
                intact: true,
            };
            self.put_or_hold(clogged_until, at, copy);
        }
        if !self.calm && whole.is_none() {
            self.keep_for_later(to, &frames);
            if self.random.chance(self.plan.corruption)
                && let Some(damaged) = self.damaged(from, &frames[0])
            {
                let at = self.arrival();
                let (intact, frames, whole) = (damaged.1, vec![damaged.0], None);
                let copy = Happening::Arrival {
                    to,
                    frames,
                    whole,
                    intact,
                };
                self.put_or_hold(clogged_until, at, copy);
                // Half of the time instead of the original.
                if self.random.chance(500) {
                    return;
                }
            }
        }
        let packet = Happening::Arrival {
            to,
            frames,
            whole,
            intact: true,
        };
        self.put_or_hold(clogged_until, arrives, packet);
    }

    /// When the link between two replicas goes on, if it stands still.
    fn clogged_until(&self, from: Host, to: Host) -> Option<u64> {
        let until = match (from, to) {
            (Host::Replica(from), Host::Replica(to)) => self.clogged[from][to],
            _ => 0,
        };
        (until > self.now).then_some(until)
    }

    fn put_or_hold(&mut self, clogged_until: Option<u64>, at: u64, packet: Happening) {
        match clogged_until {
            None => {
                self.put(at, packet);
            }
            Some(until) => self.hold_until(until, packet),
        }
    }

    /// What is held comes when the clog ends, all at once and in order.
    pub(super) fn hold_until(&mut self, until: u64, packet: Happening) {
        if self.held >= CLOGGED {
            self.counts.lost += 1;
            return;
        }
        self.held += 1;
        self.put(until, Happening::Held(Box::new(packet)));
    }

    fn is_cut(&self, from: Host, to: Host) -> bool {
        match (from, to) {
            (Host::Replica(from), Host::Replica(to)) => self.cut[from][to],
            _ => false,
        }
    }

    /// Now and then an old packet comes again, however old, whatever was restarted meanwhile.
    fn keep_for_later(&mut self, to: Host, frames: &[Vec<u8>]) {
        if self.plan.staleness == 0 || !self.random.chance(self.plan.staleness) {
            return;
        }
        if self.stale.len() >= STALE
            && let Some((to, frame)) = self.stale.pop_front()
        {
            let at = self.arrival();
            let frames = vec![frame];
            self.put(
                at,
                Happening::Arrival {
                    to,
                    frames,
                    whole: None,
                    intact: true,
                },
            );
        }
        self.stale.push_back((to, frames[0].clone()));
        if self.random.chance(500) {
            let which = self.random.index(self.stale.len());
            let (to, frame) = self.stale[which].clone();
            let at = self.arrival() + self.random.below(300 * MS);
            let frames = vec![frame];
            self.put(
                at,
                Happening::Arrival {
                    to,
                    frames,
                    whole: None,
                    intact: true,
                },
            );
        }
    }

    /// A damaged copy: one to three bits flip anywhere behind the Ethernet header, or it is cut short; or a copy of another
    /// group or version, otherwise whole. And whether our message in it is still what it was: what is in front of it has its own sums,
    /// and not all of it changes what the message says.
    fn damaged(&mut self, from: Host, frame: &[u8]) -> Option<(Vec<u8>, bool)> {
        let payload = parse(frame).ok()?.payload;
        let begin = frame.len() - payload.len();
        let mut damaged = frame.to_vec();
        match self.random.below(8) {
            0 => damaged.truncate(14 + self.random.index(frame.len() - 14)),
            1 => {
                let foreign = if self.whims.chance(500) {
                    self.of_another_version(from, frame)?
                } else {
                    self.of_another_group(from, frame)?
                };
                self.counts.foreign += 1;
                return Some((foreign, false));
            }
            _ => {
                for _ in 0..=self.random.below(3) {
                    let bit = 14 * 8 + self.random.index((frame.len() - 14) * 8);
                    damaged[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
        let intact = damaged.get(begin..) == Some(payload);
        Some((damaged, intact))
    }

    /// The same message in the name of another group, with a check that is right.
    fn of_another_group(&mut self, from: Host, frame: &[u8]) -> Option<Vec<u8>> {
        let datagram = parse(frame).ok()?;
        let key = Key(self.plan.key);
        let (mut envelope, packet) = decode(datagram.payload, &key).ok()?;
        envelope.group.0 ^= 1 << self.random.below(64);
        let mut bytes = Vec::new();
        encode(&envelope, &key, &packet, &mut bytes);
        self.plan
            .layout
            .frames(from, datagram.destination, &bytes, 7)
            .pop()
    }

    /// The same message as another version would write it if all else had stayed the same, with a check that is right.
    fn of_another_version(&mut self, from: Host, frame: &[u8]) -> Option<Vec<u8>> {
        let datagram = parse(frame).ok()?;
        let key = Key(self.plan.key);
        let (_, packet) = decode(datagram.payload, &key).ok()?;
        let key = match packet {
            Packet::Message(_) => key,
            _ => Key::UNKEYED,
        };
        let mut bytes = datagram.payload.to_vec();
        let (header, _) = Header::mut_from_prefix(&mut bytes).ok()?;
        header.version = self.whims.pick(&[VERSION - 1, VERSION + 1, u8::MAX]);
        let right = check(&key, &bytes);
        let (header, _) = Header::mut_from_prefix(&mut bytes).ok()?;
        header.check = right.into();
        self.plan
            .layout
            .frames(from, datagram.destination, &bytes, 7)
            .pop()
    }

    /// Acks don't arrive for now; the latest of each replica's are kept.
    fn kept_back(&mut self, to: Host, frame: &[u8]) -> bool {
        let header = parse(frame).ok().and_then(|it| peek(it.payload).ok());
        let ack = header.is_some_and(|header| header.kind == Kind::PrepareOk as u8);
        if let (true, Host::Replica(node)) = (ack, to) {
            let echoes = &mut self.machines[node].echoes;
            echoes.push_back(frame.to_vec());
            if echoes.len() > KEPT_BACK {
                echoes.pop_front();
            }
        }
        ack
    }

    /// Keeps the first Prepare that a replica doesn't get: the one that it could still store.
    fn keep_late(&mut self, to: Host, frame: &[u8]) {
        let Host::Replica(node) = to else {
            return;
        };
        let header = parse(frame).ok().and_then(|it| peek(it.payload).ok());
        let Some(header) = header.filter(|header| header.kind == Kind::Prepare as u8) else {
            return;
        };
        let machine = &mut self.machines[node];
        let op = machine.process.as_ref().map(|it| it.core().snapshot().op);
        let stored = |(late, _): &(OpNumber, Vec<u8>)| op.is_none_or(|op| *late <= op);
        if machine.late.as_ref().is_none_or(stored) {
            machine.late = Some((OpNumber(header.op.get()), frame.to_vec()));
        }
    }

    /// It may be on its way still when user space stops its programs.
    pub(super) fn bring_late(&mut self, node: usize, process: &Process) {
        let backup = process.armed() == Some(Armed::Backup);
        if backup && !self.calm && self.plan.suspension > 0 && self.random.chance(500) {
            let late = self.machines[node].late.clone();
            process.place.card.arrive_late(late.map(|(_, frame)| frame));
        }
    }

    /// Keeps some of the answers that a replica gets: acks, and answers to its recovery.
    fn keep_echo(&mut self, node: usize, frame: &[u8]) {
        let datagram = parse(frame).ok();
        let header = datagram.and_then(|datagram| peek(datagram.payload).ok());
        let kind = header.map(|header| header.kind);
        let machine = &mut self.machines[node];
        let echoes = if kind == Some(Kind::RecoveryResponse as u8) {
            &mut machine.answers
        } else if kind == Some(Kind::PrepareOk as u8) && self.random.chance(100) {
            &mut machine.echoes
        } else {
            return;
        };
        echoes.push_back(frame.to_vec());
        while echoes.len() > ECHOES {
            echoes.pop_front();
        }
    }

    /// Answers of earlier times reach a replica again: who leads anew must not count the acks, and who recovers anew must not
    /// take the answers to another question.
    pub(crate) fn echo(&mut self, node: usize) {
        let machine = &self.machines[node];
        let frames: Vec<Vec<u8>> = machine
            .echoes
            .iter()
            .chain(&machine.answers)
            .cloned()
            .collect();
        for frame in frames {
            let at = self.now + self.random.below(MS / 5);
            let to = Host::Replica(node);
            let frames = vec![frame];
            self.put(
                at,
                Happening::Arrival {
                    to,
                    frames,
                    whole: None,
                    intact: true,
                },
            );
        }
    }

    pub(super) fn arrival(&mut self) -> u64 {
        let slow = !self.calm && self.random.chance(20);
        let delay = if self.calm { MS / 10 } else { self.plan.delay };
        let extra = if slow { self.random.below(100 * MS) } else { 0 };
        self.now + 20_000 + self.random.below(delay) + extra
    }

    /// A packet reaches a machine: its programs first.
    pub(super) fn arrive(
        &mut self,
        node: usize,
        frames: Vec<Vec<u8>>,
        whole: Option<(Vec<u8>, SocketAddr)>,
        intact: bool,
    ) {
        if self.machines[node].process.is_none() {
            return;
        }
        if !self.calm && self.plan.staleness > 0 {
            self.keep_echo(node, &frames[0]);
        }
        let Some(process) = &self.machines[node].process else {
            return;
        };
        match whole {
            Some((payload, source)) => process
                .place
                .card
                .arrive_fragments(&frames, payload, source),
            None => frames
                .into_iter()
                .for_each(|frame| process.place.card.arrive(frame, intact)),
        }
        self.run_programs(node);
    }

    pub(super) fn arrive_at_client(
        &mut self,
        index: usize,
        frames: &[Vec<u8>],
        whole: Option<(Vec<u8>, SocketAddr)>,
    ) {
        if let Some((payload, _)) = whole {
            return self.client_heard(index, &payload);
        }
        let own = self.plan.layout.address(Host::Client(index));
        if let Some(Ok(datagram)) = frames.first().map(|frame| parse(frame))
            && datagram.destination == own
        {
            let payload = datagram.payload.to_vec();
            self.client_heard(index, &payload);
        }
    }

    /// Packets that are on their way get to the card right before user space runs, so that programs run between its steps.
    pub(super) fn bring_racing(&mut self, node: usize, process: &Process) {
        let clogged = self.machines[node].clogged_until > self.now;
        if clogged || !self.random.chance(self.plan.interleaving) {
            return;
        }
        let racing: Vec<(u64, u64)> = self
            .happenings
            .iter()
            .take(64)
            .filter(|(_, happening)| {
                matches!(happening, Happening::Arrival { to: Host::Replica(to), whole: None, .. } if *to == node)
            })
            .map(|(key, _)| *key)
            .take(1 + self.random.index(4))
            .collect();
        for key in racing {
            if let Some(Happening::Arrival {
                frames,
                intact: true,
                ..
            }) = self.happenings.remove(&key)
            {
                frames
                    .into_iter()
                    .for_each(|frame| process.place.card.arrive(frame, true));
            }
        }
    }

    /// A frame that a program made from what came in: read by another hand, and checked.
    pub(super) fn check_answer(&mut self, node: usize, frame: &[u8]) {
        let Some(process) = &self.machines[node].process else {
            return;
        };
        let decoded = parse(frame).ok().and_then(|datagram| {
            let own = self.plan.layout.address(Host::Replica(node));
            let (envelope, packet) = decode(datagram.payload, &process.seen().key()).ok()?;
            let right = datagram.source == own && usize::from(envelope.sender) == node;
            right.then_some(packet)
        });
        match decoded {
            Some(Packet::Message(message)) => {
                self.checks
                    .kernel_sent(process.seen(), &self.machines[node].disk, &message)
            }
            other => {
                let text =
                    format!("the kernel of replica {node} sends what can't be read: {other:?}");
                self.checks.require(FRAMES, Err(text));
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "everything that an arrow shows")]
    fn draw(
        &mut self,
        from: Host,
        to: Host,
        frames: &[Vec<u8>],
        whole: &Option<(Vec<u8>, SocketAddr)>,
        arrives: u64,
        by_kernel: bool,
        lost: bool,
    ) {
        let (Host::Replica(from), Host::Replica(to)) = (from, to) else {
            return;
        };
        let key = Key(self.plan.key);
        let payload = match whole {
            Some((payload, _)) => Some(&payload[..]),
            None => parse(&frames[0]).ok().map(|datagram| datagram.payload),
        };
        let label = match payload.map(|payload| decode(payload, &key)) {
            Some(Ok((_, Packet::Message(message)))) => summary(&message),
            other => format!("{other:?}"),
        };
        let sent = self.now;
        let fate = if lost { "lost" } else { "on its way" };
        let who = if by_kernel { "kernel sends" } else { "sends" };
        self.trace
            .line(sent, Some(from), crate::trace::Kind::Plain, || {
                format!("{who} to {to} ({fate}): {label}")
            });
        self.trace.arrow(|| Arrow {
            sent,
            arrives,
            from,
            to,
            label,
            by_kernel,
            lost,
        });
    }
}
