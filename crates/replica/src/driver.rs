//! The loop around the core: sleep, drain, give the core its inputs, carry out its effects, send.
//!
//! Inputs come in the order ring, socket, acks, tick, and the ring always before a tick; effects take place in the core's order. What is to be sent is
//! gathered and leaves in one system call per turn, at the latest before sleeping.

mod effects;
mod intake;
mod opening;
mod report;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use electrode_vr::{
    Config, Durability, Effect, GroupId, Input, OpNumber, Promise, Replica, ReplicaId, Start,
    StateMachine, Time,
};
use electrode_wire::admission::Refusals;
use electrode_wire::{Envelope, Key};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::SockaddrStorage;
use smol::channel::Receiver;

use crate::background::Background;
use crate::clients::Clients;
use crate::clock::{self, Entropy, MS};
use crate::error::RunError;
use crate::fast_path::{Armed, FastPath};
use crate::journal::{self, Journal};
use crate::metrics;
use crate::options::{App, Options};
use crate::reactor::{Reactor, Ready, Source};
use crate::socket::{BATCH, Socket};
use crate::state::StateDir;
use crate::stop::Stop;
use crate::supervisor::{Supervisor, stop_signals};

/// A backup whose kernel stores for it executes at the latest this long after, in nanoseconds.
const EXECUTION_LAG: u64 = 5 * MS;
/// A ring that was empty for this long belongs to an idle group: the next record may wake at once. In nanoseconds.
const RING_IDLE: u64 = 100 * MS;
/// How often the neighbours' entries are kept fresh and surplus acks are looked up, in nanoseconds.
const NEIGHBOURS: u64 = 1000 * MS;
const HEARD: u64 = 10 * MS;
/// In disk mode an unanswered Prepare is sent again after this, since its answer waits for a disk. In nanoseconds.
const DISK_RESEND: u64 = 50 * MS;
/// Rounds of one turn (acks that bring Prepares that bring acks) before the socket is looked at again.
const ROUNDS: usize = 32;

/// One running replica.
pub(crate) struct Driver<S> {
    replica: Replica<S>,
    index: ReplicaId,
    addresses: Vec<SocketAddr>,
    peers: Vec<SockaddrStorage>,
    key: Key,
    app: App,
    busy_poll: bool,
    read_leases: bool,

    group: GroupId,
    state: StateDir,
    /// The log on disk, in disk mode.
    journal: Option<Journal>,
    fast_path: FastPath,
    socket: Socket,
    reactor: Reactor,
    background: Background,
    questions: Receiver<metrics::Ask>,
    supervisor: Supervisor,
    // Watched by the reactor as long as it lives.
    _signals: Option<SignalFd>,
    _stop: Option<Stop>,

    entropy: Entropy,
    clients: Clients,
    refusals: Refusals,
    counts: Counts,
    started: Time,
    now: Time,
    /// The core's effects that haven't taken place yet, oldest first.
    effects: VecDeque<Effect>,
    /// Where the core writes; empty between steps.
    fresh: Vec<Effect>,
    /// One record of the ring.
    record: Vec<u8>,
    /// Acks read from the quorum slots that the core hasn't been given yet.
    slots: Vec<(OpNumber, u16)>,
    /// Whom the kernel doesn't copy for, while a broadcast is being sent.
    plain: Vec<ReplicaId>,
    /// A lower bound of the commit number: slots at or below it are of no interest.
    commit: OpNumber,
    next_neighbours: Time,
    next_heard: Time,
    /// The ring has more than a turn could take.
    ring_left: bool,
    /// Whether the last sleep was left out because an ack was there already.
    skipped_sleep: bool,
}

#[derive(Debug, Default)]
struct Counts {
    stored: u64,
    broadcasts: u64,
    broadcasts_plain: u64,
    requests: u64,
    replies: u64,
    turns: u64,
    /// Status requests answered in the second that began at `.0`.
    status: (Time, u32),
}

impl<S: StateMachine> Driver<S> {
    /// Takes what the replica needs from the system, in the order in which a mistake does the least harm.
    pub(crate) fn new(options: Options, machine: S) -> Result<Driver<S>, RunError> {
        let replicas = options.replicas.len();
        if replicas.is_multiple_of(2) || replicas > electrode_vr::MAX_REPLICAS {
            return Err(RunError::GroupSize(replicas));
        }
        let index = options.index;
        let address = *options
            .replicas
            .get(index.index())
            .ok_or(RunError::NoSuchReplica { index, replicas })?;
        // Before any thread starts, so that none takes the signals.
        let signals = options.handle_signals.then(stop_signals).transpose();
        let signals = signals.map_err(RunError::system("blocking signals"))?;
        let mut entropy =
            Entropy::from_kernel().map_err(RunError::system("reading /dev/urandom"))?;

        let state = StateDir::open(&options.state_dir, index, replicas)?;
        let start = match state
            .load()?
            .filter(|promise| *promise != Promise::default())
        {
            Some(_) if options.bootstrap => {
                return Err(RunError::BootstrapTwice(state.file().to_owned()));
            }
            Some(promise) => Start::Recover(promise),
            None if options.bootstrap => Start::Bootstrap(GroupId(entropy.next().0)),
            None => Start::New,
        };
        let (journal, found) = opening::open_journal(&options, start)?;
        let socket = Socket::bind(address).map_err(|source| RunError::Bind {
            address,
            index,
            source,
        })?;
        let mut fast_path = FastPath::open(&options)?;
        let group = match start {
            Start::Recover(promise) => promise.group,
            Start::New | Start::Bootstrap(_) => GroupId(0),
        };
        if let Some(dataplane) = &mut fast_path.dataplane {
            dataplane.set_group(group);
        }

        let system = RunError::system::<std::io::Error>;
        let reactor = Reactor::new().map_err(system("making an epoll"))?;
        let background = Background::new().map_err(system("making an eventfd"))?;
        let watch = |fd: BorrowedFd<'_>, source| {
            reactor
                .watch(fd, source)
                .map_err(RunError::system("adding to the epoll"))
        };
        watch(socket.as_fd(), Source::Socket)?;
        watch(background.as_fd(), Source::Background)?;
        if let Some(dataplane) = &fast_path.dataplane {
            watch(dataplane.ring(), Source::Ring)?;
            watch(dataplane.netlink(), Source::Netlink)?;
        }
        if let Some(journal) = &journal {
            watch(journal.as_fd(), Source::Disk)?;
        }
        if let Some(signals) = &signals {
            watch(signals.as_fd(), Source::Signal)?;
        }
        if let Some(stop) = &options.stop {
            watch(stop.as_fd(), Source::Stop)?;
        }
        let (ask, questions) = metrics::questions();
        if let Some(address) = options.metrics {
            let listener = std::net::TcpListener::bind(address)
                .and_then(smol::Async::new)
                .map_err(|source| RunError::Metrics { address, source })?;
            background.spawn(metrics::serve(listener, background.executor(), ask));
        }

        tracing::info!(
            "replica {index} of {replicas} at {address}, app {}, {start:?}",
            options.app
        );
        let now = clock::now();
        let mut timing = options.timing;
        if options.durability == Durability::Disk {
            timing.resend = timing.resend.max(DISK_RESEND);
        }
        let config = Config {
            replicas,
            index,
            timing,
            limits: options.limits,
            fast_path: fast_path.dataplane.is_some(),
            lease_reads: options.read_leases,
            durability: options.durability,
        };
        let replica = match (start, found) {
            (Start::Recover(promise), Some(found)) => {
                Replica::restore(config, promise, found, machine, now, entropy.next()).map_err(
                    |source| RunError::Restore {
                        path: journal::directory(&options.state_dir),
                        source,
                    },
                )?
            }
            _ => Replica::new(config, start, machine, now, entropy.next()),
        };
        Ok(Driver {
            replica,
            index,
            peers: options
                .replicas
                .iter()
                .map(|address| SockaddrStorage::from(*address))
                .collect(),
            addresses: options.replicas,
            key: options.key,
            app: options.app,
            busy_poll: options.busy_poll,
            read_leases: options.read_leases,
            group,
            state,
            journal,
            fast_path,
            socket,
            reactor,
            background,
            questions,
            supervisor: Supervisor::from_environment(now),
            _signals: signals,
            _stop: options.stop,
            entropy,
            clients: Clients::default(),
            refusals: Refusals::default(),
            counts: Counts::default(),
            started: now,
            now,
            effects: VecDeque::new(),
            fresh: Vec::new(),
            record: Vec::new(),
            slots: Vec::new(),
            plain: Vec::new(),
            commit: OpNumber(0),
            next_neighbours: now,
            next_heard: now,
            ring_left: false,
            skipped_sleep: false,
        })
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) -> Result<(), RunError> {
        self.supervisor.ready();
        self.background.poll();
        self.turn(Ready::default())?;
        loop {
            let ready = self.sleep()?;
            if ready.has(Source::Stop) || ready.has(Source::Signal) {
                tracing::info!("told to stop");
                self.supervisor.stopping();
                return Ok(());
            }
            self.turn(ready)?;
        }
    }

    /// Waits for something to do, at most until the next deadline.
    fn sleep(&mut self) -> Result<Ready, RunError> {
        let now = clock::now();
        let mut until = [self.replica.deadline(), self.supervisor.deadline()]
            .into_iter()
            .flatten()
            .min();
        let mut restless = self.busy_poll || self.ring_left;
        if let Some(dataplane) = &mut self.fast_path.dataplane {
            let mut at_latest =
                |time: Time| until = Some(until.map_or(time, |until| until.min(time)));
            at_latest(self.next_neighbours);
            let flowing = now < self.fast_path.last_stored.plus(RING_IDLE);
            if self.fast_path.armed == Some(Armed::Backup) && flowing {
                at_latest(now.plus(EXECUTION_LAG));
            }
            if !self.busy_poll
                && dataplane.before_sleep(self.fast_path.armed == Some(Armed::Backup) && !flowing)
            {
                restless = true;
                // The first time there is nothing to ask the system; the second time the socket gets its turn.
                if !self.skipped_sleep {
                    self.skipped_sleep = true;
                    dataplane.after_sleep();
                    return Ok(Ready::default());
                }
            }
        }
        self.skipped_sleep = false;
        let timeout = if restless {
            Some(0)
        } else {
            until.map(|until| until.0.saturating_sub(now.0))
        };
        let ready = self
            .reactor
            .wait(timeout)
            .map_err(RunError::system("waiting in epoll"))?;
        if let Some(dataplane) = self
            .fast_path
            .dataplane
            .as_mut()
            .filter(|_| !self.busy_poll)
        {
            dataplane.after_sleep();
        }
        Ok(ready)
    }

    /// Does what there is to do until nothing is left but waiting.
    fn turn(&mut self, ready: Ready) -> Result<(), RunError> {
        self.now = clock::now();
        self.counts.turns += 1;
        let mut readable = ready.has(Source::Socket);
        for round in 0..ROUNDS {
            let received = if readable {
                self.socket.receive()
            } else {
                Ok(0)
            };
            let received = received.map_err(RunError::system("receiving"))?;
            readable = received == BATCH;
            // The clock is read after what came: a lease is judged by the time at which a read had arrived for sure.
            self.now = clock::now();
            // What the kernel stored before a datagram came up is in the log before the core sees the datagram.
            self.ring_left = self.drain_ring()?;
            self.take_datagrams(received)?;
            if ready.has(Source::Disk) && round == 0 {
                self.take_persisted()?;
            }
            let acked = self.give_acks()?;
            self.tick_when_due()?;
            self.step(Input::Flush)?;
            let sent = self.socket.flush() > 0;
            // On a fast network the backups' kernels have answered by the time the Prepare has left.
            let more_acks = self.fast_path.armed == Some(Armed::Primary) && (sent || acked);
            if !readable && !self.ring_left && !more_acks {
                break;
            }
            self.now = clock::now();
        }
        self.look_around(ready);
        Ok(())
    }

    /// Tells the core what of the log is on disk now; or why nothing ever will be, which ends this replica.
    fn take_persisted(&mut self) -> Result<(), RunError> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        if let Some((view, op)) = journal.persisted()? {
            self.step(Input::Persisted { view, op })?;
        }
        Ok(())
    }

    /// What has nothing to do with requests.
    fn look_around(&mut self, ready: Ready) {
        if ready.has(Source::Background) {
            self.background.poll();
            let mut answered = false;
            while let Ok(ask) = self.questions.try_recv() {
                // The asker may be gone already.
                let _ = ask.try_send(metrics::render(&self.report()));
                answered = true;
            }
            if answered {
                self.background.poll();
            }
        }
        self.supervisor.feed(self.now);
        if let Some(dataplane) = &mut self.fast_path.dataplane {
            if ready.has(Source::Netlink) {
                dataplane.on_netlink();
            }
            if self.now >= self.next_neighbours {
                self.next_neighbours = self.now.plus(NEIGHBOURS);
                dataplane.refresh_neighbours();
            }
        }
    }

    fn tick_when_due(&mut self) -> Result<(), RunError> {
        let due = |driver: &Driver<S>| {
            driver
                .replica
                .deadline()
                .is_some_and(|deadline| driver.now >= deadline)
        };
        if self.now >= self.next_heard || due(self) {
            self.next_heard = self.now.plus(HEARD);
            self.give_heard()?;
        }
        if due(self) {
            // What the kernel took meanwhile are life signs of the primary: they come before the verdict.
            self.drain_ring()?;
            if due(self) {
                let entropy = self.entropy.next();
                self.step(Input::Tick { entropy })?;
            }
        }
        Ok(())
    }

    /// Gives the core one input and carries out everything that follows from it.
    fn step(&mut self, input: Input) -> Result<(), RunError> {
        self.give(input);
        while let Some(effect) = self.effects.pop_front() {
            self.execute(effect)?;
        }
        Ok(())
    }

    /// Gives the core one input; its effects queue up behind those that are waiting.
    fn give(&mut self, input: Input) {
        self.replica.step(self.now, input, &mut self.fresh);
        self.effects.extend(self.fresh.drain(..));
    }

    fn envelope(&self, flags: u8) -> Envelope {
        Envelope {
            group: self.group,
            epoch: 0,
            sender: self.index.0,
            flags,
        }
    }
}
