//! Machines, clients, time, and a network that does what networks do. One seed decides everything that happens here.

mod disks;
mod faults;
mod network;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use electrode_driver::{Armed, Ready, Rest};
use electrode_vr::{Nonce, OpNumber, Status, Time, View};

use crate::card::{Card, Interleaving};
use crate::checks::{Checks, Rule, Violation};
use crate::client::{Client, Known};
use crate::disk::Disk;
use crate::frame::Host;
use crate::nic::Programs as Loaded;
use crate::plan::{MS, Plan, US};
use crate::process::{End, Outgoing, Process, Surroundings};
use crate::random::Random;
use crate::trace::{Kind, Trace};

/// A process that has been in turns for so long without sleeping spins: a defect of the order of things.
const TURNS: usize = 64;

const DRIVER: Rule = Rule {
    name: "the driver never has to stop",
    source: "docs/fast-path.md R1; house rule: a broken invariant stops the process",
};
const SPINS: Rule = Rule {
    name: "a replica with nothing to do sleeps",
    source: "crates/driver/src/driver/rest.rs",
};
const CLIENT: Rule = Rule {
    name: "clients hear what they asked for, in real-time order",
    source: "VR Revisited 4.1; Herlihy & Wing 1990",
};

/// A machine's clock, as a function of the simulated time.
#[derive(Clone, Copy, Debug)]
struct Clock {
    offset: u64,
    /// Parts per million that it runs fast; negative: slow.
    drift: i64,
}

impl Clock {
    /// Where the clock of a machine stands that was just switched on: high enough that nothing is before its zero.
    fn begin(random: &mut Random) -> u64 {
        (1 << 41) + random.below(1 << 40)
    }

    fn at(self, world: u64) -> u64 {
        let drifted = i128::from(world) * i128::from(self.drift) / 1_000_000;
        u64::try_from(i128::from(self.offset) + i128::from(world) + drifted)
            .expect("clocks begin high")
    }

    /// The simulated time at which the clock shows at least `local`.
    fn when(self, local: u64) -> u64 {
        let ahead = i128::from(local) - i128::from(self.offset);
        let world = ahead.max(0) * 1_000_000 / (1_000_000 + i128::from(self.drift));
        u64::try_from(world).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// A replica's machine. The disk stays when the process dies, and so does the clock.
struct Machine {
    process: Option<Process>,
    disk: Disk,
    clock: Clock,
    /// User space stands still until then; the kernel doesn't.
    paused_until: u64,
    /// Nanoseconds that user space is late, at most.
    slowness: u64,
    /// Nothing comes out of its queue until then.
    clogged_until: u64,
    /// When user space goes on, if the event with this number is the latest.
    wake: Option<(u64, u64)>,
    asleep: bool,
    /// Answers that reached it in earlier times; the network may bring them again.
    echoes: VecDeque<Vec<u8>>,
    /// The same of answers to its recoveries: acks, which are many, don't push them out.
    answers: VecDeque<Vec<u8>>,
    /// The first Prepare that didn't get through to it: its op and its frame.
    late: Option<(OpNumber, Vec<u8>)>,
    /// The latest view that it led with its kernel's help.
    led: Option<View>,
    /// Counts lives, so that events of an earlier one are known.
    life: u64,
    programs_scheduled: bool,
    disk_scheduled: bool,
}

enum Happening {
    Arrival {
        to: Host,
        frames: Vec<Vec<u8>>,
        /// A datagram in pieces, put together.
        whole: Option<(Vec<u8>, std::net::SocketAddr)>,
        intact: bool,
    },
    /// A packet that a clog held: its arrival.
    Held(Box<Happening>),
    Wake {
        node: usize,
        number: u64,
    },
    /// Suspended programs go on.
    Programs {
        node: usize,
        life: u64,
    },
    /// Whoever writes the log goes on.
    Disk {
        node: usize,
        life: u64,
    },
    Start {
        node: usize,
        life: u64,
    },
    Client {
        index: usize,
        number: u64,
    },
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    random: Random,
    pub(crate) now: u64,
    happenings: BTreeMap<(u64, u64), Happening>,
    number: u64,
    machines: Vec<Machine>,
    pub(crate) clients: Vec<Client>,
    /// When each client goes on, and the number of that event: others are out of date.
    client_wakes: Vec<(u64, u64)>,
    pub(crate) known: Known,
    /// `cut[a][b]`: nothing gets from a to b.
    cut: Vec<Vec<bool>>,
    /// `clogged[a][b]`: until when what a sends to b waits.
    clogged: Vec<Vec<u64>>,
    /// Packets that wait so, there or in front of a machine.
    held: usize,
    /// Chance for faults that came later than others, so that those of older ones stay where they are.
    whims: Random,
    /// No faults any more.
    calm: bool,
    /// Everybody's log was on disk once: from then on all may go at once, in disk mode.
    formed: bool,
    pub(crate) checks: Checks,
    pub(crate) trace: Trace,
    loaded: Rc<Loaded>,
    /// PrepareOks are kept back, to reach who they are for at a worse moment.
    keep_acks: bool,
    /// Who, when it leads next, hears the acks of its earlier reigns before anything of the present one.
    reign: Option<usize>,
    /// Old packets, that come again.
    stale: VecDeque<(Host, Vec<u8>)>,
    pub(crate) events: u64,
    pub(crate) counts: Counts,
}

/// What a run amounted to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) crashes: u64,
    pub(crate) packets: u64,
    pub(crate) lost: u64,
    pub(crate) kernel_answers: u64,
    pub(crate) power_cuts: u64,
    pub(crate) disk_failures: u64,
    pub(crate) damaged_logs: u64,
    /// Links and queues that were clogged.
    pub(crate) clogs: u64,
    /// Copies of packets in the name of another group, or of another version.
    pub(crate) foreign: u64,
}

impl World {
    pub(crate) fn new(plan: Plan, loaded: Rc<Loaded>, trace: bool) -> World {
        let mut random = Random::new(plan.seed);
        let n = plan.replicas;
        let drift = i64::try_from(plan.drift).expect("small");
        let machines = (0..n)
            .map(|_| Machine {
                process: None,
                disk: Disk::default(),
                clock: Clock {
                    offset: Clock::begin(&mut random),
                    drift: drift - i64::try_from(random.below(2 * plan.drift + 1)).expect("small"),
                },
                paused_until: 0,
                slowness: 0,
                clogged_until: 0,
                wake: None,
                asleep: false,
                echoes: VecDeque::new(),
                answers: VecDeque::new(),
                late: None,
                led: None,
                life: 0,
                programs_scheduled: false,
                disk_scheduled: false,
            })
            .collect();
        let clients: Vec<Client> = (0..plan.clients)
            .map(|index| {
                let more = u64::from((index as u64) < plan.requests % plan.clients as u64);
                let share = plan.requests / plan.clients as u64 + more;
                Client::new(&plan, index, share, random.fork())
            })
            .collect();
        let mut world = World {
            random,
            now: 0,
            happenings: BTreeMap::new(),
            number: 0,
            machines,
            client_wakes: vec![(u64::MAX, 0); clients.len()],
            clients,
            known: Known::default(),
            cut: vec![vec![false; n]; n],
            clogged: vec![vec![0; n]; n],
            held: 0,
            whims: Random::new(plan.seed ^ 0xc109),
            calm: false,
            formed: false,
            checks: Checks::new(&plan),
            trace: Trace::new(trace),
            loaded,
            keep_acks: false,
            reign: None,
            stale: VecDeque::new(),
            events: 0,
            counts: Counts::default(),
            plan,
        };
        for node in 0..n {
            world.start(node);
        }
        for client in 0..world.clients.len() {
            world.schedule_client(client);
        }
        world
    }

    pub(crate) fn process(&self, node: usize) -> Option<&Process> {
        self.machines[node].process.as_ref()
    }

    /// What broke, if anything did.
    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.checks.violation()
    }

    fn fault(&mut self, node: Option<usize>, text: impl FnOnce() -> String) {
        self.trace.line(self.now, node, Kind::Fault, text);
    }

    fn put(&mut self, at: u64, happening: Happening) -> u64 {
        self.number += 1;
        self.happenings
            .insert((at.max(self.now), self.number), happening);
        self.number
    }

    /// Lets everything happen up to `until`, or to the first violation.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.violation().is_none() {
            let Some(entry) = self.happenings.first_entry() else {
                break;
            };
            if entry.key().0 > until {
                break;
            }
            self.now = entry.key().0;
            self.checks.at = self.now;
            let happening = entry.remove();
            self.events += 1;
            self.happen(happening);
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Held(packet) => {
                self.held -= 1;
                self.happen(*packet);
            }
            Happening::Arrival {
                to: Host::Replica(node),
                ..
            } if self.machines[node].clogged_until > self.now => {
                self.hold_until(self.machines[node].clogged_until, happening);
            }
            Happening::Arrival {
                to: Host::Replica(node),
                frames,
                whole,
                intact,
            } => self.arrive(node, frames, whole, intact),
            Happening::Arrival {
                to: Host::Client(index),
                frames,
                whole,
                ..
            } => self.arrive_at_client(index, &frames, whole),
            Happening::Wake { node, number } => {
                if self.machines[node]
                    .wake
                    .is_some_and(|(_, latest)| latest == number)
                {
                    self.machines[node].wake = None;
                    self.wake(node);
                }
            }
            Happening::Programs { node, life } => {
                self.machines[node].programs_scheduled = false;
                if self.machines[node].life == life {
                    self.run_programs(node);
                }
            }
            Happening::Disk { node, life } => {
                if self.machines[node].life == life {
                    self.machines[node].disk_scheduled = false;
                    self.write_log(node);
                }
            }
            Happening::Start { node, life } => {
                if self.machines[node].life == life {
                    self.start(node);
                }
            }
            Happening::Client { index, number } => {
                if self.client_wakes[index].1 == number {
                    self.run_client(index);
                }
            }
        }
    }

    /// A process starts: with a promise on its disk it recovers.
    pub(crate) fn start(&mut self, node: usize) {
        if self.machines[node].process.is_some() {
            return;
        }
        let programs = self.plan.programs[node];
        let engine = programs.any().then(|| self.loaded.engine(&self.plan, node));
        let own = self.plan.layout.address(Host::Replica(node));
        let card = Card::new(own, engine, self.random.fork(), self.interleaving());
        let local = self.machines[node].clock.at(self.now);
        card.set_time(local);
        let entropy = Nonce(self.random.next());
        let start = Process::start(&self.plan, self.machines[node].disk.promise);
        let Some(log) = self.open_log(node, start) else {
            return;
        };
        let process = Process::new(&self.plan, node, start, log, card, Time(local), entropy);
        let machine = &mut self.machines[node];
        machine.process = Some(process);
        machine.life += 1;
        machine.paused_until = 0;
        machine.asleep = false;
        machine.wake = None;
        machine.programs_scheduled = false;
        machine.disk_scheduled = false;
        self.checks.started(node);
        self.fault(Some(node), || format!("starts: {start:?}"));
        self.schedule_wake(node, self.now);
        if !self.calm && self.random.chance(500) {
            self.echo(node);
        }
    }

    fn interleaving(&self) -> Interleaving {
        Interleaving {
            accesses: self.plan.interleaving,
            suspensions: if self.calm { 0 } else { self.plan.suspension },
            socket_loss: if self.calm { 0 } else { self.plan.socket_loss },
        }
    }

    /// The process dies: what it had in memory, kernel programs, ring and socket are gone. Files stay as it saw them.
    pub(crate) fn crash(&mut self, node: usize, restart_after: Option<u64>) {
        self.fault(Some(node), || "crashes".to_owned());
        self.counts.crashes += 1;
        let machine = &mut self.machines[node];
        machine.process = None;
        machine.wake = None;
        if self.plan.replacement {
            machine.disk = Disk::default();
        }
        let life = machine.life;
        if let Some(after) = restart_after {
            self.put(self.now + after, Happening::Start { node, life });
        }
    }

    /// Whether one more replica may lose its memory without the group losing its state.
    pub(crate) fn may_crash(&self) -> bool {
        if self.plan.disk && self.formed {
            return true;
        }
        let without_state = |machine: &&Machine| {
            machine.process.as_ref().is_none_or(|process| {
                matches!(
                    process.core().snapshot().status,
                    Status::Recovering | Status::Starting
                )
            })
        };
        self.machines.iter().filter(without_state).count() < self.plan.faults()
    }

    /// User space goes on at `at`, or earlier if that is planned already.
    fn schedule_wake(&mut self, node: usize, at: u64) {
        let at = at.max(self.now).max(self.machines[node].paused_until);
        if self.machines[node]
            .wake
            .is_some_and(|(planned, _)| planned <= at)
        {
            return;
        }
        let number = self.put(
            at,
            Happening::Wake {
                node,
                number: self.number + 1,
            },
        );
        self.machines[node].wake = Some((at, number));
    }

    /// How long the system takes to run a process that has something to do.
    fn latency(&mut self, node: usize) -> u64 {
        let slowness = self.machines[node].slowness;
        2 * US + self.random.below(20 * US) + self.random.below(slowness)
    }

    /// User space of one replica runs until it sleeps.
    fn wake(&mut self, node: usize) {
        if self.machines[node].paused_until > self.now {
            let until = self.machines[node].paused_until;
            return self.schedule_wake(node, until);
        }
        let Some(mut process) = self.machines[node].process.take() else {
            return;
        };
        let local = self.machines[node].clock.at(self.now);
        process.place.card.set_time(local);
        self.bring_racing(node, &process);
        self.bring_late(node, &process);
        let deadly = self.plan.sudden_death > 0 || self.plan.promise_death > 0;
        let may_die = !self.calm && deadly && self.machines_allow_death(node);
        let mut sent = Vec::new();
        let slept = std::mem::take(&mut self.machines[node].asleep);
        let mut ended = None;
        let mut rest = Rest::Again;
        for turn in 0..=TURNS {
            if turn == TURNS {
                let text = format!("replica {node} took {TURNS} turns without sleeping");
                self.checks.require(SPINS, Err(text));
                break;
            }
            let mut around = Surroundings {
                at: self.now,
                now: Time(local),
                random: &mut self.random,
                disk: &mut self.machines[node].disk,
                checks: &mut self.checks,
                trace: &mut self.trace,
                sent: &mut sent,
                may_die,
                sudden_death: self.plan.sudden_death,
                promise_death: self.plan.promise_death,
            };
            if turn == 0 && slept {
                process.woke(&mut around);
            }
            let ready = match turn {
                0 => process.ready(),
                _ => Ready::default(),
            };
            let turned = process.turn(&mut around, ready);
            process.watch(&mut around);
            if let Err(end) = turned {
                ended = Some(end);
                break;
            }
            rest = process.rest(&mut around);
            if rest != Rest::Again || self.checks.violation().is_some() {
                break;
            }
        }
        process.place.card.arrive_late(None);
        let answers = process.place.card.take_sent();
        self.machines[node].process = Some(process);
        self.leave(node, sent, false);
        self.answers_leave(node, answers);
        // Who dies amid its effects isn't what it was about to be.
        if ended.is_none() {
            self.look_at(node);
        }
        self.echo_to_new_leader(node);
        match ended {
            Some(End::Killed) => {
                let after = MS + self.random.below(60 * MS);
                return self.fail(node, after);
            }
            Some(End::DiskFailed(why)) => return self.disk_failed(node, &why),
            Some(End::Stopped(why)) => {
                return self
                    .checks
                    .require(DRIVER, Err(format!("replica {node} stops: {why}")));
            }
            None => {}
        }
        self.schedule_disk(node);
        self.go_to_rest(node, rest);
    }

    fn go_to_rest(&mut self, node: usize, rest: Rest) {
        let latency = self.latency(node);
        let Some(process) = &self.machines[node].process else {
            return;
        };
        // A notice that came while it was awake is still there when it asks the system, if the ring isn't empty.
        let noticed = process.place.card.take_woken() && process.place.card.ring_used() > 0;
        if process.ready() != Ready::default() || noticed || rest == Rest::Restless {
            self.machines[node].asleep = true;
            return self.schedule_wake(node, self.now + latency);
        }
        self.machines[node].asleep = true;
        if let Rest::Until(Some(until)) = rest {
            let at = self.machines[node].clock.when(until.0);
            let late = self.random.below(self.machines[node].slowness.max(50 * US));
            self.schedule_wake(node, at.max(self.now + 1) + late);
        }
        self.run_programs(node);
    }

    /// Whether this replica may be killed amid its effects: counted as if it weren't here.
    fn machines_allow_death(&mut self, node: usize) -> bool {
        if self.plan.disk && self.formed {
            return true;
        }
        // Its process is being looked after elsewhere, so it counts as gone already.
        let gone = |(index, machine): (usize, &Machine)| {
            index != node
                && machine.process.as_ref().is_none_or(|process| {
                    matches!(
                        process.core().snapshot().status,
                        Status::Recovering | Status::Starting
                    )
                })
        };
        let count = self
            .machines
            .iter()
            .enumerate()
            .filter(|pair| gone((pair.0, pair.1)))
            .count();
        count < self.plan.faults()
    }

    /// Lets the programs of a machine go on, and takes what they did.
    fn run_programs(&mut self, node: usize) {
        let local = self.machines[node].clock.at(self.now);
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else {
            return;
        };
        process.place.card.set_time(local);
        let more = process.place.card.run();
        let answers = process.place.card.take_sent();
        let readable = process.place.card.readable();
        let woken = process.place.card.take_woken();
        let mut around = Surroundings {
            at: self.now,
            now: Time(local),
            random: &mut self.random,
            disk: &mut machine.disk,
            checks: &mut self.checks,
            trace: &mut self.trace,
            sent: &mut Vec::new(),
            may_die: false,
            sudden_death: 0,
            promise_death: 0,
        };
        process.watch(&mut around);
        self.answers_leave(node, answers);
        self.look_at(node);
        let noticed = woken && (self.calm || !self.random.chance(self.plan.notice_loss));
        if readable || noticed {
            let latency = self.latency(node);
            self.schedule_wake(node, self.now + latency);
        }
        if let Some(next) = more
            && !self.machines[node].programs_scheduled
        {
            let wait = next.saturating_sub(local) + 1 + self.random.below(20 * US);
            let life = self.machines[node].life;
            self.machines[node].programs_scheduled = true;
            self.put(self.now + wait, Happening::Programs { node, life });
        }
    }

    /// Frames that programs built leave; what they say is checked.
    fn answers_leave(&mut self, node: usize, answers: Vec<Vec<u8>>) {
        for frame in &answers {
            self.check_answer(node, frame);
        }
        self.counts.kernel_answers += answers.len() as u64;
        self.leave(
            node,
            answers.into_iter().map(Outgoing::Frame).collect(),
            true,
        );
    }

    fn look_at(&mut self, node: usize) {
        let machines = &self.machines;
        self.checks.look_at_all(node, |index| {
            machines[index].process.as_ref().map(Process::seen)
        });
    }

    /// Who begins to lead hears acks of the views before.
    fn echo_to_new_leader(&mut self, node: usize) {
        let armed = self
            .process(node)
            .filter(|process| process.armed() == Some(Armed::Primary));
        let view = armed.map(|process| process.core().snapshot().view);
        if view.is_some() && view != self.machines[node].led {
            self.machines[node].led = view;
            if self.reign.take_if(|of| *of == node).is_some() {
                return self.begin_late_reign(node);
            }
            if !self.calm && self.random.chance(500) {
                self.echo(node);
            }
        }
    }

    fn schedule_client(&mut self, index: usize) {
        let at = self.clients[index].next_at();
        if at < self.client_wakes[index].0 {
            let number = self.number + 1;
            self.client_wakes[index] = (at, number);
            self.put(at, Happening::Client { index, number });
        }
    }

    fn run_client(&mut self, index: usize) {
        self.client_wakes[index] = (u64::MAX, 0);
        let sent = self.clients[index].due(self.now, &self.known);
        for (to, bytes) in sent {
            self.send_request(index, to, &bytes);
        }
        self.schedule_client(index);
    }

    fn client_heard(&mut self, index: usize, bytes: &[u8]) {
        let heard = self.clients[index].on_datagram(bytes, self.now, &mut self.known);
        self.checks.require(CLIENT, heard);
        self.schedule_client(index);
    }

    /// Whether all replicas are normal in one view, with the kernels that they should have.
    pub(crate) fn works(&self) -> bool {
        let mut views = BTreeSet::new();
        self.machines.iter().enumerate().all(|(node, machine)| {
            machine.process.as_ref().is_some_and(|process| {
                let now = process.core().snapshot();
                views.insert(now.view);
                // A primary that has stepped down says why; it is silent until a backup asks for another view.
                now.status == Status::Normal
                    && now.reason.is_none()
                    && now.armed == self.plan.programs[node].any()
            })
        }) && views.len() == 1
    }

    /// What the programs of each replica that is up counted, by reason.
    pub(crate) fn counters(&self) -> Vec<(usize, Vec<(String, u64)>)> {
        let up = (0..self.plan.replicas).filter_map(|node| Some((node, self.process(node)?)));
        up.filter(|(_, process)| process.seen().accelerated())
            .map(|(node, process)| (node, process.place.card.counters()))
            .collect()
    }

    /// The same of one reason, by all that are up.
    pub(crate) fn counted(&self, reason: &str) -> u64 {
        let counters = self.counters().into_iter().flat_map(|(_, it)| it);
        counters
            .filter(|(name, _)| name == reason)
            .map(|(_, count)| count)
            .sum()
    }

    /// How each replica is, for a report.
    pub(crate) fn describe(&self) -> String {
        let each = self
            .machines
            .iter()
            .enumerate()
            .map(|(node, machine)| match &machine.process {
                None => format!("{node}: down"),
                Some(process) => {
                    let now = process.core().snapshot();
                    let (armed, reason) = (
                        if now.armed { ", armed" } else { "" },
                        now.reason.unwrap_or_default(),
                    );
                    format!(
                        "{node}: {:?} view {} op {} commit {}{armed} {reason}",
                        now.status, now.view, now.op, now.commit
                    )
                }
            });
        each.collect::<Vec<_>>().join("; ")
    }
}
