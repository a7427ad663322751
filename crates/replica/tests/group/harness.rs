//! A group on loopback, as threads or as processes, and a client that speaks the wire directly.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::thread::JoinHandleExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use electrode_lab::Host;
use electrode_replica::{Accelerate, App, Options, RunError, StatusReport, Stop, run};
use electrode_vr::{
    ClientId, Durability, GroupId, Limits, Message, Nonce, ReplicaId, Reply, RequestNumber,
};
use electrode_wire::{CLIENT, Envelope, Key, MAX_DATAGRAM, Packet, decode, encode};
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// What makes the test binary, started again, a replica: see [`Group::spawn`].
pub(crate) const CHILD: &str = "ELECTRODE_TEST_REPLICA";

/// The longest that anything in these tests may take: a debug build assembles and loads the programs in seconds.
fn patience() -> Duration {
    Duration::from_secs(60) * slowness()
}

/// How much slower than a real machine this one is: an emulated one says so in its environment.
pub(crate) fn slowness() -> u32 {
    let told = std::env::var("ELECTRODE_TEST_SLOWNESS");
    told.map_or(1, |factor| factor.parse().expect("a number"))
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + patience();
    while !condition() {
        assert!(
            Instant::now() < give_up,
            "{what}: not within {:?}",
            patience()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

enum Running {
    Hosted(electrode_lab::Child),
    Thread(Stop, JoinHandle<Result<(), RunError>>),
    Process(Child),
}

/// A group whose members can come and go.
pub(crate) struct Group {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) key: Key,
    /// Where the replicas run, when not on loopback.
    hosts: Vec<Host>,
    /// For replicas in processes.
    accelerate: &'static str,
    pub(crate) durability: Durability,
    pub(crate) checkpoint_ops: u64,
    directory: TempDir,
    running: Vec<Option<Running>>,
}

impl Group {
    /// Addresses for `n` replicas, none of which runs yet.
    pub(crate) fn idle(n: usize, ipv6: bool) -> Group {
        let any = || {
            if ipv6 {
                UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))
            } else {
                UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            }
        };
        let reserved: Vec<UdpSocket> = (0..n).map(|_| any().unwrap()).collect();
        let addresses = reserved
            .iter()
            .map(|socket| socket.local_addr().unwrap())
            .collect();
        let directory = tempfile::tempdir().unwrap();
        Group {
            addresses,
            key: Key::UNKEYED,
            hosts: Vec::new(),
            accelerate: "none",
            durability: Durability::Memory,
            checkpoint_ops: Limits::default().checkpoint_ops,
            directory,
            running: (0..n).map(|_| None).collect(),
        }
    }

    /// A replica per host, as processes; normal when this returns. Its clients have to be on a host of the same lab.
    pub(crate) fn on_hosts(
        hosts: Vec<Host>,
        ipv6: bool,
        accelerate: &'static str,
        durability: Durability,
    ) -> Group {
        let address = |host: &Host| if ipv6 { host.ipv6().into() } else { host.ip() };
        let mut group = Group::idle(hosts.len(), false);
        group.addresses = hosts
            .iter()
            .map(|host| SocketAddr::new(address(host), 7000))
            .collect();
        (group.hosts, group.accelerate) = (hosts, accelerate);
        group.durability = durability;
        for index in 0..group.addresses.len() {
            group.spawn(index);
        }
        group
    }

    /// Three replicas in threads, normal.
    pub(crate) fn start() -> Group {
        let mut group = Group::idle(3, false);
        group.start_all();
        group
    }

    /// Starts whoever doesn't run, and waits for all to be normal.
    pub(crate) fn start_all(&mut self) {
        for index in 0..self.addresses.len() {
            if self.running[index].is_none() {
                self.thread(self.options(index));
            }
        }
        self.wait_normal();
    }

    pub(crate) fn wait_normal(&self) {
        let all: Vec<usize> = (0..self.addresses.len()).collect();
        wait_until("all replicas normal", || {
            all.iter().all(|index| {
                self.status(*index)
                    .is_some_and(|report| report.status == "normal")
            })
        });
    }

    pub(crate) fn state_dir(&self, index: usize) -> PathBuf {
        self.directory.path().join(index.to_string())
    }

    pub(crate) fn options(&self, index: usize) -> Options {
        let index_id = ReplicaId(u8::try_from(index).unwrap());
        Options {
            key: self.key,
            app: App::Null,
            accelerate: Accelerate::None,
            durability: self.durability,
            limits: Limits {
                checkpoint_ops: self.checkpoint_ops,
                ..Limits::default()
            },
            stop: Some(Stop::new().unwrap()),
            ..Options::new(self.addresses.clone(), index_id, self.state_dir(index))
        }
    }

    /// Runs a replica in a thread.
    pub(crate) fn thread(&mut self, options: Options) {
        let index = options.index.index();
        let stop = options
            .stop
            .clone()
            .expect("threads are stopped by their handle");
        let thread = thread::Builder::new()
            .name(format!("replica {index}"))
            .spawn(move || run(options));
        self.running[index] = Some(Running::Thread(stop, thread.unwrap()));
    }

    /// Runs a replica in a process of its own, which is this test binary again.
    pub(crate) fn spawn(&mut self, index: usize) -> u32 {
        self.spawn_with(index, &[])
    }

    /// As [`Group::spawn`], with more in its environment.
    pub(crate) fn spawn_with(&mut self, index: usize, environment: &[(&str, &str)]) -> u32 {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let binary = std::env::current_exe().unwrap();
        let host = self.hosts.get(index);
        let mut command = host.map_or_else(|| Command::new(&binary), |host| host.command(&binary));
        let replica = format!(
            "{index} {} {} {} {} {}",
            self.state_dir(index).display(),
            addresses.join(","),
            self.accelerate,
            matches!(self.durability, Durability::Disk),
            self.checkpoint_ops
        );
        command
            .args([
                "--exact",
                "replica_in_a_process_of_its_own",
                "--ignored",
                "--test-threads=1",
            ])
            .env(CHILD, replica)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(host) = host {
            let child = host.spawn(command).unwrap();
            let pid = child.pid();
            self.running[index] = Some(Running::Hosted(child));
            return pid;
        }
        let child = command.spawn().unwrap();
        let pid = child.id();
        self.running[index] = Some(Running::Process(child));
        pid
    }

    /// Ends a replica: a process by SIGKILL; a thread by its handle, which says goodbye to nobody either.
    pub(crate) fn kill(&mut self, index: usize) {
        match self.running[index].take().expect("it runs") {
            Running::Thread(stop, thread) => {
                stop.stop();
                thread.join().unwrap().unwrap();
            }
            Running::Process(mut child) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Running::Hosted(mut child) => child.kill().unwrap(),
        }
    }

    /// Sends SIGTERM to a replica's thread; true when it returned as one that was told to stop.
    pub(crate) fn terminate(&mut self, index: usize) -> bool {
        let Some(Running::Thread(_, thread)) = self.running[index].take() else {
            panic!("replica {index} isn't a thread");
        };
        pthread_kill(thread.as_pthread_t(), Signal::SIGTERM).unwrap();
        thread.join().unwrap().is_ok()
    }

    pub(crate) fn status(&self, index: usize) -> Option<StatusReport> {
        let socket = UdpSocket::bind(any(self.addresses[index])).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut bytes = Vec::new();
        encode(
            &client_envelope(),
            &Key::UNKEYED,
            &Packet::StatusRequest { nonce: Nonce(7) },
            &mut bytes,
        );
        socket.send_to(&bytes, self.addresses[index]).unwrap();
        let mut buffer = vec![0; MAX_DATAGRAM];
        let (length, _) = socket.recv_from(&mut buffer).ok()?;
        match decode(&buffer[..length], &Key::UNKEYED) {
            Ok((
                _,
                Packet::StatusReply {
                    nonce: Nonce(7),
                    body,
                },
            )) => Some(serde_json::from_slice(&body).unwrap()),
            other => panic!("not a status: {other:?}"),
        }
    }

    /// Waits until everybody runs the same, with `ops` ops executed, each once.
    pub(crate) fn wait_equal(&self, ops: u64) {
        wait_until("the same state everywhere", || {
            (0..self.addresses.len()).all(|index| {
                self.status(index).is_some_and(|report| {
                    report.status == "normal"
                        && report.commit == report.op
                        && report.state_digest == format!("{ops:016x}")
                })
            })
        });
        let digests: Vec<String> = (0..self.addresses.len())
            .map(|index| self.status(index).unwrap().log_digest)
            .collect();
        assert!(
            digests.iter().all(|digest| *digest == digests[0]),
            "{digests:?}"
        );
    }

    /// How often replica `index` refused a datagram for this reason.
    pub(crate) fn refused(&self, index: usize, reason: &str) -> u64 {
        self.status(index)
            .and_then(|report| report.driver.dropped.get(reason).copied())
            .unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for running in self.running.iter_mut().filter_map(Option::take) {
            match running {
                Running::Thread(stop, thread) => {
                    stop.stop();
                    let _ = thread.join();
                }
                Running::Process(mut child) => {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                Running::Hosted(mut child) => {
                    let _ = child.kill();
                }
            }
        }
    }
}

/// Any free port, to talk to `peer`.
fn any(peer: SocketAddr) -> SocketAddr {
    let any: IpAddr = if peer.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    SocketAddr::new(any, 0)
}

pub(crate) fn client_envelope() -> Envelope {
    Envelope {
        group: GroupId(0),
        epoch: 0,
        sender: CLIENT,
        flags: 0,
    }
}

/// A message between replicas as bytes.
pub(crate) fn message(group: u64, sender: u8, message: Message, key: &Key) -> Vec<u8> {
    let envelope = Envelope {
        group: GroupId(group),
        epoch: 0,
        sender,
        flags: 0,
    };
    let mut bytes = Vec::new();
    encode(&envelope, key, &Packet::Message(message), &mut bytes);
    bytes
}

/// One session, one request at a time, with retries.
pub(crate) struct Client {
    socket: UdpSocket,
    replicas: Vec<SocketAddr>,
    session: ClientId,
    request: u64,
    reads: u64,
    primary: usize,
}

impl Client {
    pub(crate) fn new(group: &Group, session: u64) -> Client {
        let socket = UdpSocket::bind(any(group.addresses[0])).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        Client {
            socket,
            replicas: group.addresses.clone(),
            session: ClientId(session),
            request: 0,
            reads: 0,
            primary: 0,
        }
    }

    /// Asks this replica first.
    pub(crate) fn at(mut self, index: usize) -> Client {
        self.primary = index;
        self
    }

    /// Asks until the group has done it; returns the result.
    #[track_caller]
    pub(crate) fn call(&mut self, op: &[u8]) -> Vec<u8> {
        self.request += 1;
        let give_up = Instant::now() + patience();
        while Instant::now() < give_up {
            match self.attempt(op) {
                Ok(Reply::Done(result)) => return result.to_vec(),
                Ok(Reply::NotPrimary) => {}
                Ok(_) => thread::sleep(Duration::from_millis(5)),
                Err(_) => self.primary = (self.primary + 1) % self.replicas.len(),
            }
        }
        panic!(
            "request {} wasn't done within {:?}",
            self.request,
            patience()
        );
    }

    /// Reads until the group has answered; returns the result.
    #[track_caller]
    pub(crate) fn read(&mut self, op: &[u8]) -> Vec<u8> {
        let session = self.request;
        self.request = RequestNumber::READS + self.reads;
        self.reads += 1;
        let give_up = Instant::now() + patience();
        while Instant::now() < give_up {
            match self.attempt(op) {
                Ok(Reply::Done(result)) => {
                    self.request = session;
                    return result.to_vec();
                }
                Ok(Reply::NotPrimary) => {}
                Ok(_) => thread::sleep(Duration::from_millis(5)),
                Err(_) => self.primary = (self.primary + 1) % self.replicas.len(),
            }
        }
        panic!("a read wasn't answered within {:?}", patience());
    }

    /// The next attempt is a read with this number.
    pub(crate) fn as_read(&mut self, number: u64) {
        self.request = RequestNumber::READS + number;
    }

    /// Asks this replica until it answers anything; the answer.
    pub(crate) fn answer(&mut self, op: &[u8]) -> Reply {
        let give_up = Instant::now() + patience();
        loop {
            match self.attempt(op) {
                Ok(reply) => return reply,
                Err(error) => assert!(Instant::now() < give_up, "no answer: {error}"),
            }
        }
    }

    /// Asks once; the reply, whatever it is.
    pub(crate) fn attempt(&mut self, op: &[u8]) -> io::Result<Reply> {
        let request = RequestNumber(self.request);
        let mut bytes = Vec::new();
        let packet = Packet::Request {
            client: self.session,
            request,
            op: op.into(),
        };
        encode(&client_envelope(), &Key::UNKEYED, &packet, &mut bytes);
        self.socket.send_to(&bytes, self.replicas[self.primary])?;
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let (length, _) = self.socket.recv_from(&mut buffer)?;
            if let Ok((
                _,
                Packet::Reply {
                    view,
                    client,
                    request: answered,
                    reply,
                },
            )) = decode(&buffer[..length], &Key::UNKEYED)
                && (client, answered) == (self.session, request)
            {
                self.primary = view.primary(self.replicas.len()).index();
                return Ok(reply);
            }
        }
    }
}
