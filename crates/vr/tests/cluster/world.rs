//! Replicas, their kernels and disks, clients, and a network that does what networks do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use electrode_vr::{
    ClientId, Config, Durability, Effect, FastPathCommand, FastPathEvent, GroupId, Input, Limits,
    Message, Nonce, Note, OpNumber, Promise, Replica, ReplicaId, Reply, RequestNumber, Start,
    Status, Time, Timing, View, Write,
};

use crate::checks::Checks;
use crate::client::Client;
use crate::disk::Disk;
use crate::kernel::{Kernel, Verdict};
use crate::machine::Ledger;
use crate::random::Random;

pub(crate) const MS: u64 = 1_000_000;

/// What a run looks like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) replicas: usize,
    pub(crate) fast_path: bool,
    /// The log is on disk, and nothing that was acknowledged may be lost whoever crashes.
    pub(crate) disk: bool,
    pub(crate) clients: usize,
    /// Clients read, too, and primaries answer by their lease.
    pub(crate) reads: bool,
    /// Nanoseconds; the longer ones make view changes wait for them.
    pub(crate) lease: u64,
    pub(crate) limits: Limits,
    /// Per mille of packets.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// Nanoseconds: each packet takes up to this much longer.
    pub(crate) delay: u64,
    /// Crash in the middle of an effect list, per 10 million effects.
    pub(crate) sudden_death: u64,
    /// Nanoseconds: at most this from one fault to the next.
    pub(crate) fault_gap: u64,
    pub(crate) explicit_bootstrap: bool,
    /// A replica whose machine has no kernel programs.
    pub(crate) plain: Option<usize>,
}

impl Plan {
    pub(crate) fn has_kernel(&self, node: usize) -> bool {
        self.fast_path && self.plain != Some(node)
    }

    /// As few slots as the core's promise allows: in-flight ops lie within one window of full Prepares.
    fn slots(&self) -> u64 {
        (self.limits.window * self.limits.batch_ops) as u64
    }
}

pub(crate) struct Node {
    pub(crate) replica: Option<Replica<Ledger>>,
    pub(crate) disk: Option<Promise>,
    pub(crate) log: Disk,
    pub(crate) kernel: Kernel,
    /// User space stands still until then; the kernel doesn't.
    pub(crate) paused_until: u64,
    restart_at: Option<u64>,
    clock_offset: u64,
    drain_at: u64,
    socket: VecDeque<Arrived>,
}

enum Arrived {
    Message(ReplicaId, Message),
    Request(ClientId, RequestNumber, Arc<[u8]>),
}

enum Packet {
    Replica {
        from: ReplicaId,
        to: ReplicaId,
        message: Message,
    },
    Request {
        to: ReplicaId,
        client: ClientId,
        request: RequestNumber,
        op: Arc<[u8]>,
    },
    Reply {
        client: ClientId,
        request: RequestNumber,
        view: View,
        reply: Reply,
    },
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    packets: BTreeMap<(u64, u64), Packet>,
    packet_number: u64,
    /// `cut[a][b]`: nothing gets from a to b.
    pub(crate) cut: Vec<Vec<bool>>,
    pub(crate) calm: bool,
    /// Everybody's log was on disk once: from now all may crash at once.
    pub(crate) formed: bool,
    pub(crate) checks: Checks,
    pub(crate) warnings: Vec<String>,
    pub(crate) trace: bool,
}

fn index(replica: ReplicaId) -> usize {
    usize::from(replica.0)
}

fn id(index: usize) -> ReplicaId {
    ReplicaId(u8::try_from(index).unwrap())
}

impl World {
    pub(crate) fn new(plan: Plan) -> World {
        let mut random = Random::new(plan.seed);
        let n = plan.replicas;
        let slots = plan.slots();
        let nodes = (0..n)
            .map(|_| Node {
                replica: None,
                disk: None,
                log: Disk::default(),
                kernel: Kernel::new(n, slots, 16, !plan.disk),
                paused_until: 0,
                restart_at: None,
                clock_offset: random.below(1 << 40),
                drain_at: 0,
                socket: VecDeque::new(),
            })
            .collect();
        let clients = (0..plan.clients)
            .map(|i| Client::new(i, n, plan.reads, &mut random))
            .collect();
        let mut world = World {
            random,
            now: 0,
            nodes,
            clients,
            packets: BTreeMap::new(),
            packet_number: 0,
            cut: vec![vec![false; n]; n],
            calm: false,
            formed: false,
            checks: Checks::default(),
            warnings: Vec::new(),
            trace: std::env::var_os("TRACE").is_some(),
            plan,
        };
        for node in 0..n {
            world.start(node);
        }
        world
    }

    fn timing(&self) -> Timing {
        Timing {
            heartbeat: 5 * MS,
            view_change: 40 * MS,
            resend: 5 * MS,
            retry: 10 * MS,
            lease: self.plan.lease,
        }
    }

    /// A process starts: with a promise on its disk it recovers.
    pub(crate) fn start(&mut self, node: usize) {
        let start = match self.nodes[node].disk {
            Some(promise) => Start::Recover(promise),
            None if self.plan.explicit_bootstrap => Start::Bootstrap(GroupId(7)),
            None => Start::New,
        };
        let config = Config {
            replicas: self.plan.replicas,
            index: id(node),
            timing: self.timing(),
            limits: self.plan.limits.clone(),
            fast_path: self.plan.has_kernel(node),
            lease_reads: self.plan.reads,
            durability: if self.plan.disk {
                Durability::Disk
            } else {
                Durability::Memory
            },
        };
        let entropy = Nonce(self.random.next());
        let time = self.node_time(node);
        let slots = self.plan.slots();
        self.nodes[node].kernel = self.kernel(slots);
        self.nodes[node].restart_at = None;
        self.nodes[node].socket.clear();
        self.nodes[node].paused_until = 0;
        let state = &mut self.nodes[node];
        let ledger = Ledger::default();
        state.replica = Some(match (start, state.log.stored()) {
            (Start::Recover(promise), Some(stored)) => {
                Replica::restore(config, promise, stored, ledger, time, entropy).unwrap()
            }
            _ => {
                state.log = Disk::default();
                Replica::new(config, start, ledger, time, entropy)
            }
        });
        self.log(format_args!("{node} starts: {start:?}"));
    }

    /// The process dies: log, kernel programs and ring are gone; the disk stays.
    pub(crate) fn crash(&mut self, node: usize, restart_after: u64) {
        self.log(format_args!("{node} crashes"));
        self.nodes[node].replica = None;
        self.nodes[node].restart_at = Some(self.now + restart_after);
        let slots = self.plan.slots();
        self.nodes[node].kernel = self.kernel(slots);
        self.nodes[node].socket.clear();
        self.nodes[node].log.crash(&mut self.random);
        self.checks.crashed(node);
    }

    fn kernel(&self, slots: u64) -> Kernel {
        Kernel::new(self.plan.replicas, slots, 16, !self.plan.disk)
    }

    /// Whether one more replica may lose its memory without the group losing its state.
    pub(crate) fn may_crash(&self) -> bool {
        if self.formed {
            return true;
        }
        let without_state = |node: &Node| {
            node.replica.as_ref().is_none_or(|replica| {
                matches!(
                    replica.snapshot().status,
                    Status::Recovering | Status::Starting
                )
            })
        };
        let gone = self.nodes.iter().filter(|node| without_state(node)).count();
        gone < self.plan.replicas / 2
    }

    /// Whether one more log may be found damaged: as a lost memory, that is more than a crash.
    pub(crate) fn may_lose_log(&self) -> bool {
        let lost = self.nodes.iter().filter(|node| !node.log.exists());
        lost.count() < self.plan.replicas / 2
    }

    fn node_time(&self, node: usize) -> Time {
        Time(self.now + self.nodes[node].clock_offset)
    }

    pub(crate) fn log(&self, what: std::fmt::Arguments<'_>) {
        if self.trace {
            eprintln!("{:>12.3} {what}", self.now as f64 / 1e6);
        }
    }

    /// Lets everything happen up to `until`.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.now < until {
            let next = self.next_event().min(until);
            assert!(next >= self.now);
            self.now = next;
            self.deliver_due();
            self.run_nodes();
            self.run_clients();
        }
    }

    fn next_event(&self) -> u64 {
        let mut next = u64::MAX;
        if let Some(((at, _), _)) = self.packets.first_key_value() {
            next = next.min(*at);
        }
        for node in &self.nodes {
            if let Some(at) = node.restart_at {
                next = next.min(at.max(self.now + 1));
            }
            if let Some(replica) = &node.replica {
                let tick = replica
                    .deadline()
                    .map_or(u64::MAX, |at| at.0 - node.clock_offset);
                let ring = if node.kernel.ring.is_empty() {
                    u64::MAX
                } else {
                    node.drain_at
                };
                let wake = tick
                    .min(ring)
                    .min(node.log.durable_at())
                    .max(node.paused_until);
                next = next.min(wake.max(self.now + 1000));
            }
        }
        for client in &self.clients {
            next = next.min(client.next_at().max(self.now + 1000));
        }
        next
    }

    fn deliver_due(&mut self) {
        while let Some(entry) = self.packets.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            match entry.remove() {
                Packet::Replica { from, to, message } => self.ingress(from, to, message),
                Packet::Request {
                    to,
                    client,
                    request,
                    op,
                } => {
                    let node = &mut self.nodes[index(to)];
                    if node.replica.is_some() {
                        node.socket.push_back(Arrived::Request(client, request, op));
                    }
                }
                Packet::Reply {
                    client,
                    request,
                    view,
                    reply,
                } => {
                    let client = &mut self.clients[usize::try_from(client.0).unwrap()];
                    client.on_reply(request, view, reply, self.now, &mut self.checks);
                }
            }
        }
    }

    /// A packet reaches a machine: the kernel first.
    fn ingress(&mut self, from: ReplicaId, to: ReplicaId, message: Message) {
        let no_room = self.random.chance(30) && !self.calm;
        let pass_old = self.random.chance(200);
        let lost_on_the_way_up = self.random.chance(20) && !self.calm;
        let node = &mut self.nodes[index(to)];
        if node.replica.is_none() {
            return;
        }
        let idle = node.kernel.ring.is_empty();
        match node.kernel.ingress(from, message, no_room, pass_old) {
            Verdict::Pass(message) if !lost_on_the_way_up => {
                node.socket.push_back(Arrived::Message(from, message));
            }
            Verdict::Pass(_) => {}
            Verdict::Taken(answer) => {
                if idle {
                    node.drain_at = self.now + 5 * MS;
                }
                if let Some(answer) = answer {
                    self.check_sent(index(to), &answer, true);
                    self.send(to, from, answer);
                }
            }
        }
    }

    fn run_nodes(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].restart_at.is_some_and(|at| at <= self.now) {
                self.start(node);
            }
            self.wake(node);
        }
    }

    /// User space of one replica runs, if it has a reason to.
    fn wake(&mut self, node: usize) {
        let time = self.node_time(node);
        let state = &self.nodes[node];
        let Some(replica) = &state.replica else {
            return;
        };
        let due = replica.deadline().is_some_and(|deadline| deadline <= time);
        let drain = !state.kernel.ring.is_empty() && state.drain_at <= self.now;
        let persisted = state.log.durable_at() <= self.now;
        let reason = due || drain || persisted || !state.socket.is_empty();
        if state.paused_until > self.now || !reason {
            return;
        }
        if drain || due || self.random.chance(700) {
            self.drain(node);
        }
        self.report_acks(node);
        if persisted && let Some((view, op)) = self.nodes[node].log.sync() {
            self.step(node, Input::Persisted { view, op });
        }
        if due {
            let entropy = Nonce(self.random.next());
            self.step(node, Input::Tick { entropy });
            self.check_deadline_moves(node);
        }
        let mut batch = 0;
        while let Some(arrived) = self.nodes[node].socket.pop_front() {
            match arrived {
                Arrived::Message(from, message) => {
                    self.step(node, Input::Message { from, message });
                }
                Arrived::Request(client, request, op) => {
                    self.step(
                        node,
                        Input::Request {
                            client,
                            request,
                            op,
                        },
                    );
                }
            }
            batch += 1;
            if batch == 8 {
                self.step(node, Input::Flush);
                batch = 0;
            }
        }
        self.step(node, Input::Flush);
    }

    /// A tick that is due does something about it: a driver never spins.
    fn check_deadline_moves(&mut self, node: usize) {
        for _ in 0..3 {
            let time = self.node_time(node);
            let Some(replica) = &self.nodes[node].replica else {
                return;
            };
            if replica.deadline().is_none_or(|deadline| deadline > time) {
                return;
            }
            let entropy = Nonce(self.random.next());
            self.step(node, Input::Tick { entropy });
        }
        panic!("the deadline doesn't move");
    }

    fn drain(&mut self, node: usize) {
        while let Some(record) = self.nodes[node].kernel.ring.pop_front() {
            self.step(node, Input::FastPath(FastPathEvent::Stored(record)));
        }
    }

    fn report_acks(&mut self, node: usize) {
        let Some(replica) = &self.nodes[node].replica else {
            return;
        };
        let commit = replica.snapshot().commit;
        let at = self.node_time(node);
        for (op, acks) in self.nodes[node].kernel.acks(commit) {
            self.step(node, Input::FastPath(FastPathEvent::SlotAcks { op, acks }));
        }
        for (from, op) in self.nodes[node].kernel.take_heard() {
            self.step(node, Input::FastPath(FastPathEvent::Heard { from, at, op }));
        }
    }

    /// One step and everything that it asks for. Effects of nested steps take place before the rest of the list.
    fn step(&mut self, node: usize, input: Input) {
        let time = self.node_time(node);
        let Some(replica) = &mut self.nodes[node].replica else {
            return;
        };
        if self.trace {
            eprintln!("{:>12.3} {node} < {input:?}", self.now as f64 / 1e6);
        }
        let mut out = Vec::new();
        replica.step(time, input, &mut out);
        let last = out.len();
        for (position, effect) in out.into_iter().enumerate() {
            if self.nodes[node].replica.is_none() {
                return;
            }
            if self.random.below(10_000_000) < self.plan.sudden_death
                && !self.calm
                && self.may_crash()
            {
                let after = MS + self.random.below(60 * MS);
                return self.crash(node, after);
            }
            if self.trace {
                eprintln!("{:>12.3} {node} >   {effect:?}", self.now as f64 / 1e6);
            }
            self.take_place(node, effect, position + 1 == last);
        }
        self.formed = self.formed || self.nodes.iter().all(|node| node.log.exists());
        if let Some(replica) = &self.nodes[node].replica {
            self.checks.stepped(node, replica, self.nodes[node].disk);
            assert_eq!(replica.snapshot().armed, self.nodes[node].kernel.armed());
        }
    }

    fn take_place(&mut self, node: usize, effect: Effect, last: bool) {
        match effect {
            Effect::Persist(promise) => {
                let old = self.nodes[node].disk.unwrap_or_default();
                assert!(promise.view >= old.view, "the promise fell");
                self.nodes[node].log.sync();
                self.nodes[node].disk = Some(promise);
            }
            Effect::Write(write @ Write::Enter { .. }) => {
                self.nodes[node].log.enter(write);
            }
            Effect::Write(write) => {
                let at = self.now + 10_000 + self.random.below(3 * MS);
                self.nodes[node].log.write(write, at);
            }
            Effect::Send { to, message } => {
                self.check_sent(node, &message, false);
                self.send(id(node), to, message);
            }
            Effect::Broadcast(message) => {
                self.check_sent(node, &message, false);
                for to in (0..self.plan.replicas).filter(|to| *to != node) {
                    self.send(id(node), id(to), message.clone());
                }
            }
            Effect::Reply {
                client,
                request,
                view,
                reply,
            } => {
                self.checks.replied(client, request, &reply);
                if !self.lost() {
                    let at = self.arrival();
                    self.put(
                        at,
                        Packet::Reply {
                            client,
                            request,
                            view,
                            reply,
                        },
                    );
                }
            }
            Effect::FastPath(command) => self.obey(node, command, last),
            Effect::Note(Note::Warning(text)) => self.warnings.push(text),
            Effect::Note(Note::Entered { .. }) => {}
        }
    }

    fn obey(&mut self, node: usize, command: FastPathCommand, last: bool) {
        assert!(self.plan.fast_path, "a command without a fast path");
        match command {
            FastPathCommand::Arm {
                view,
                primary,
                last_op,
            } => {
                let disk = self.nodes[node].disk.expect("a promise before arming");
                assert!(disk.view >= view, "armed before the view was persisted");
                self.nodes[node].kernel.arm(view, primary, last_op);
            }
            FastPathCommand::OpenSlot { op } => {
                let commit = self.nodes[node].replica.as_ref().unwrap().snapshot().commit;
                self.nodes[node].kernel.open_slot(op, commit);
            }
            FastPathCommand::Fence => {
                assert!(last, "something follows a fence");
                self.race(node);
                let last_op = self.nodes[node].kernel.fence();
                self.drain(node);
                self.step(node, Input::FastPath(FastPathEvent::Fenced { last_op }));
            }
            FastPathCommand::Claim { after, last: end } => {
                assert!(last, "something follows a claim");
                self.race(node);
                let event = if self.nodes[node].kernel.claim(after, end) {
                    FastPathEvent::Claimed
                } else {
                    self.drain(node);
                    FastPathEvent::Lost
                };
                self.step(node, Input::FastPath(event));
            }
        }
    }

    /// A packet that was on its way gets to the kernel right between user space's decision and its atomic.
    fn race(&mut self, node: usize) {
        if !self.random.chance(500) {
            return;
        }
        let racing = self.packets.iter().find_map(|(key, packet)| match packet {
            Packet::Replica {
                to,
                message: Message::Prepare(_),
                ..
            } if index(*to) == node => Some(*key),
            _ => None,
        });
        if let Some(Packet::Replica { from, to, message }) =
            racing.and_then(|key| self.packets.remove(&key))
        {
            self.ingress(from, to, message);
        }
    }

    fn check_sent(&self, node: usize, message: &Message, by_kernel: bool) {
        let state = &self.nodes[node];
        let disk = state.disk.map(|promise| promise.view);
        let replica = state.replica.as_ref().expect("the dead don't speak");
        self.checks
            .sent(replica, &state.kernel, disk, message, by_kernel);
        if self.plan.disk
            && let Message::PrepareOk { last_op, .. } = message
        {
            assert!(!by_kernel, "the kernel answered what isn't durable");
            assert!(
                *last_op <= state.log.durable_op(),
                "an ack for what isn't on disk"
            );
        }
    }

    fn lost(&mut self) -> bool {
        !self.calm && self.random.chance(self.plan.loss)
    }

    fn arrival(&mut self) -> u64 {
        let slow = !self.calm && self.random.chance(20);
        let delay = if self.calm { MS / 10 } else { self.plan.delay };
        let extra = if slow { self.random.below(100 * MS) } else { 0 };
        self.now + 20_000 + self.random.below(delay.max(1)) + extra
    }

    fn send(&mut self, from: ReplicaId, to: ReplicaId, message: Message) {
        if self.cut[index(from)][index(to)] || self.lost() {
            return;
        }
        if !self.calm && self.random.chance(self.plan.duplication) {
            let at = self.arrival();
            self.put(
                at,
                Packet::Replica {
                    from,
                    to,
                    message: message.clone(),
                },
            );
        }
        let at = self.arrival();
        self.put(at, Packet::Replica { from, to, message });
    }

    fn put(&mut self, at: u64, packet: Packet) {
        self.packet_number += 1;
        self.packets.insert((at, self.packet_number), packet);
    }

    fn run_clients(&mut self) {
        for client in 0..self.clients.len() {
            let sent = self.clients[client].due(self.now, &mut self.random, &self.checks);
            for (to, request, op) in sent {
                if !self.lost() {
                    let at = self.arrival();
                    let client = ClientId(client as u64);
                    self.put(
                        at,
                        Packet::Request {
                            to,
                            client,
                            request,
                            op,
                        },
                    );
                }
            }
        }
    }

    /// Whether all replicas are normal in one view, with their kernels.
    pub(crate) fn works(&self) -> bool {
        let mut views = BTreeSet::new();
        self.nodes.iter().enumerate().all(|(index, node)| {
            node.replica.as_ref().is_some_and(|replica| {
                let now = replica.snapshot();
                views.insert(now.view);
                now.status == Status::Normal && now.armed == self.plan.has_kernel(index)
            })
        }) && views.len() == 1
    }

    pub(crate) fn commit(&self) -> OpNumber {
        let commits = self.nodes.iter().filter_map(|node| node.replica.as_ref());
        commits
            .map(|replica| replica.snapshot().commit)
            .max()
            .unwrap_or_default()
    }
}
