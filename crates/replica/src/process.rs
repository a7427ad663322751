//! One replica's process: what it takes from the system when it starts, and the loop that sleeps and lets the driver take its turns.
//!
//! What a turn does is the driver's (`electrode-driver`), on [`Linux`]; what has nothing to do with requests is looked at here.

mod opening;

use std::os::fd::{AsFd, BorrowedFd};

use electrode_driver::{Door, Driver, Rest, Setup};
use electrode_vr::{Config, GroupId, Promise, Start, StateMachine, Time};
use electrode_wire::admission::Refusals;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::SockaddrStorage;
use smol::channel::Receiver;

use crate::background::Background;
use crate::clock::{self, Entropy, MS};
use crate::error::RunError;
use crate::fast_path::FastPath;
use crate::journal;
use crate::linux::Linux;
use crate::metrics;
use crate::options::Options;
use crate::reactor::{Reactor, Ready, Source};
use crate::socket::Socket;
use crate::state::StateDir;
use crate::stop::Stop;
use crate::supervisor::{Supervisor, stop_signals};

/// How often the neighbours' entries are kept fresh and surplus acks are looked up, in nanoseconds.
const NEIGHBOURS: u64 = 1000 * MS;

/// One running replica.
pub(crate) struct Process<S> {
    driver: Driver<S>,
    linux: Linux,
    reactor: Reactor,
    background: Background,
    questions: Receiver<metrics::Ask>,
    // Watched by the reactor as long as it lives.
    _signals: Option<SignalFd>,
    _stop: Option<Stop>,
    next_neighbours: Time,
}

impl<S: StateMachine> Process<S> {
    /// Takes what the replica needs from the system, in the order in which a mistake does the least harm.
    pub(crate) fn new(options: Options, machine: S) -> Result<Process<S>, RunError> {
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
        let door = Door::new(index, options.key, &options.replicas, start);
        if let Some(dataplane) = &mut fast_path.dataplane {
            dataplane.host_mut().set_group(door.group().0);
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
        let config = Config {
            replicas,
            index,
            timing: options.timing,
            limits: options.limits,
            fast_path: fast_path.dataplane.is_some(),
            lease_reads: options.read_leases,
            durability: options.durability,
        };
        let setup = Setup {
            config,
            start,
            stored: found,
            machine,
            door,
            busy_poll: options.busy_poll,
        };
        let driver =
            Driver::new(setup, now, entropy.next()).map_err(|source| RunError::Restore {
                path: journal::directory(&options.state_dir),
                source,
            })?;
        let peers = options.replicas.into_iter().map(SockaddrStorage::from);
        Ok(Process {
            driver,
            linux: Linux {
                app: options.app,
                read_leases: options.read_leases,
                started: now,
                peers: peers.collect(),
                state,
                journal,
                fast_path,
                socket,
                supervisor: Supervisor::from_environment(now),
                entropy,
                refusals: Refusals::default(),
                status: (Time(0), 0),
                record: Vec::new(),
            },
            reactor,
            background,
            questions,
            _signals: signals,
            _stop: options.stop,
            next_neighbours: now,
        })
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) -> Result<(), RunError> {
        self.linux.supervisor.ready();
        self.background.poll();
        self.turn(Ready::default())?;
        loop {
            let ready = self.sleep()?;
            if ready.has(Source::Stop) || ready.has(Source::Signal) {
                tracing::info!("told to stop");
                self.linux.supervisor.stopping();
                return Ok(());
            }
            self.turn(ready)?;
        }
    }

    /// Waits for something to do, at most until the next deadline.
    fn sleep(&mut self) -> Result<Ready, RunError> {
        let now = clock::now();
        let timeout = match self.driver.rest(&mut self.linux, now) {
            Rest::Again => return Ok(Ready::default()),
            Rest::Restless => Some(0),
            Rest::Until(until) => {
                let dataplane = self.linux.fast_path.dataplane.as_ref();
                let neighbours = dataplane.map(|_| self.next_neighbours);
                let deadlines = [until, self.linux.supervisor.deadline(), neighbours];
                let first = deadlines.into_iter().flatten().min();
                first.map(|first| first.0.saturating_sub(now.0))
            }
        };
        let ready = self
            .reactor
            .wait(timeout)
            .map_err(RunError::system("waiting in epoll"))?;
        self.driver.woke(&mut self.linux);
        Ok(ready)
    }

    fn turn(&mut self, ready: Ready) -> Result<(), RunError> {
        let for_driver = electrode_driver::Ready {
            socket: ready.has(Source::Socket),
            disk: ready.has(Source::Disk),
        };
        self.driver.turn(&mut self.linux, for_driver)?;
        self.look_around(ready);
        Ok(())
    }

    /// What has nothing to do with requests.
    fn look_around(&mut self, ready: Ready) {
        let now = self.driver.now();
        if ready.has(Source::Background) {
            self.background.poll();
            let mut answered = false;
            while let Ok(ask) = self.questions.try_recv() {
                // The asker may be gone already.
                let _ = ask.try_send(metrics::render(&self.linux.report(&self.driver)));
                answered = true;
            }
            if answered {
                self.background.poll();
            }
        }
        self.linux.supervisor.feed(now);
        if let Some(dataplane) = &mut self.linux.fast_path.dataplane {
            if ready.has(Source::Netlink) {
                dataplane.on_netlink();
            }
            if now >= self.next_neighbours {
                self.next_neighbours = now.plus(NEIGHBOURS);
                dataplane.refresh_neighbours();
            }
        }
    }
}
