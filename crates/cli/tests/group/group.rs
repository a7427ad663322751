//! A group of replicas on the hosts of a lab, each the shipped binary in a process of its own.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use electrode_apps::{KvOp, KvResult};
use electrode_client::{Client, Options};
use electrode_lab::{Child, Host, Lab, root_or_skip};
use electrode_replica::StatusReport;
use electrode_vr::{GroupId, Nonce};
use electrode_wire::{CLIENT, Envelope, Key, MAX_DATAGRAM, Packet, decode, encode};

/// The replicas' port.
pub(crate) const PORT: u16 = 7077;

/// The longest that a group may take to become what a test waits for; the machine may have other work.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one replica may take to say how it is.
const ANSWERING: Duration = Duration::from_millis(300);

/// Lines of each replica's log that a failed test prints.
const LOG_LINES: usize = 12;

/// A group. Dropping it kills the replicas and removes the lab.
pub(crate) struct Group {
    replicas: Vec<Replica>,
    pub(crate) addresses: Vec<SocketAddr>,
    /// One per replica.
    pub(crate) hosts: Vec<Host>,
    /// Where clients are.
    pub(crate) client: Host,
    pub(crate) lab: Lab,
    durability: &'static str,
    /// Held last: the next test starts when everything is gone.
    _turn: File,
}

struct Replica {
    accelerate: &'static str,
    child: Option<Child>,
    replaced: bool,
}

impl Group {
    /// `n` replicas with all programs in the kernel, ready; None without root.
    pub(crate) fn accelerated(n: usize) -> Option<Group> {
        Group::start(&vec!["all"; n], false)
    }

    /// The same in disk mode.
    pub(crate) fn durable(n: usize) -> Option<Group> {
        Group::start_with(&vec!["all"; n], false, "disk")
    }

    /// A replica for each value of `--accelerate`, ready; None without root.
    pub(crate) fn start(accelerate: &[&'static str], ipv6: bool) -> Option<Group> {
        Group::start_with(accelerate, ipv6, "memory")
    }

    fn start_with(
        accelerate: &[&'static str],
        ipv6: bool,
        durability: &'static str,
    ) -> Option<Group> {
        if !root_or_skip("a group with programs in the kernel") {
            return None;
        }
        // Test runners may give each test a process, so a mutex wouldn't do.
        let turn = File::create(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("group.lock"));
        let turn = turn.unwrap();
        turn.lock().unwrap();
        let lab = Lab::new("group").unwrap();
        let hosts: Vec<Host> = (0..accelerate.len())
            .map(|index| lab.host(&format!("r{index}")).unwrap())
            .collect();
        let client = lab.host("client").unwrap();
        let address = |host: &Host| if ipv6 { host.ipv6().into() } else { host.ip() };
        let replicas = accelerate.iter().map(|accelerate| Replica {
            accelerate,
            child: None,
            replaced: false,
        });
        let mut group = Group {
            replicas: replicas.collect(),
            addresses: hosts
                .iter()
                .map(|host| SocketAddr::new(address(host), PORT))
                .collect(),
            hosts,
            client,
            lab,
            durability,
            _turn: turn,
        };
        let lines = group.addresses.iter();
        let lines: String = lines
            .map(|address| format!("replica {address}\n"))
            .collect();
        let text = format!("f {}\n{lines}", (accelerate.len() - 1) / 2);
        std::fs::write(group.config(), text).unwrap();
        for index in 0..accelerate.len() {
            group.spawn(index);
        }
        group.wait_ready();
        Some(group)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.lab.scratch().join("config.txt")
    }

    fn log(&self, index: usize) -> PathBuf {
        self.lab.scratch().join(format!("r{index}.log"))
    }

    /// How many lines of a replica's log have these words.
    pub(crate) fn logged(&self, index: usize, words: &str) -> usize {
        let log = std::fs::read_to_string(self.log(index)).unwrap();
        log.lines().filter(|line| line.contains(words)).count()
    }

    fn state_dir(&self, index: usize) -> PathBuf {
        self.lab.scratch().join(format!("r{index}"))
    }

    /// A dead replica's machine is replaced: the next to start under its index finds an empty disk.
    pub(crate) fn lose_disk(&mut self, index: usize) {
        assert!(self.replicas[index].child.is_none(), "it is dead");
        std::fs::remove_dir_all(self.state_dir(index)).unwrap();
        self.replicas[index].replaced = true;
    }

    /// Whether its machine was ever replaced.
    pub(crate) fn was_replaced(&self, index: usize) -> bool {
        self.replicas[index].replaced
    }

    /// Starts a replica, for the first time or again with the same state directory.
    pub(crate) fn spawn(&mut self, index: usize) {
        let command = self.hosts[index].command(env!("CARGO_BIN_EXE_electrode"));
        self.spawn_as(index, command);
    }

    /// As [`Group::spawn`], in a time namespace whose clocks are so many seconds ahead.
    pub(crate) fn spawn_with_clocks_ahead(&mut self, index: usize, seconds: u32) {
        let binary = env!("CARGO_BIN_EXE_electrode");
        let command = self.hosts[index].command_with_clocks_ahead(binary, seconds);
        self.spawn_as(index, command);
    }

    fn spawn_as(&mut self, index: usize, mut command: Command) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(index));
        let log = log.unwrap();
        let host = &self.hosts[index];
        command
            .args(["replica", "--app", "kv", "--index", &index.to_string()])
            .args(["--accelerate", self.replicas[index].accelerate])
            .args(["--durability", self.durability])
            .args(["--interface", host.interface(), "--config"])
            .arg(self.config())
            .arg("--state-dir")
            .arg(self.state_dir(index))
            // A replica that panics says so in two lines, which the log's end then shows.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.replicas[index].child = Some(host.spawn(command).unwrap());
    }

    /// SIGKILL; gone when this returns.
    pub(crate) fn kill(&mut self, index: usize) {
        let mut child = self.replicas[index].child.take().expect("it runs");
        child.kill().unwrap();
    }

    /// SIGSTOP: its process stands still, its programs go on.
    pub(crate) fn pause(&self, index: usize) {
        let child = self.replicas[index].child.as_ref().expect("it runs");
        child.pause().unwrap();
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, index: usize) {
        let child = self.replicas[index].child.as_ref().expect("it runs");
        child.resume().unwrap();
    }

    /// The replicas that run, paused or not.
    pub(crate) fn live(&self) -> Vec<usize> {
        let live = |index: &usize| self.replicas[*index].child.is_some();
        (0..self.replicas.len()).filter(live).collect()
    }

    /// Whether a replica that should run is a process that has ended.
    fn has_ended(&self, index: usize) -> bool {
        let Some(child) = &self.replicas[index].child else {
            return false;
        };
        // Nobody has waited for it, so its entry stays, as a zombie's.
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid()));
        status.is_ok_and(|status| status.contains("State:\tZ"))
    }

    /// Runs the binary on the clients' host.
    pub(crate) fn electrode(&self, arguments: &[&str]) -> Output {
        let mut command = self.client.command(env!("CARGO_BIN_EXE_electrode"));
        command
            .args(arguments)
            .env("ELECTRODE_CONFIG", self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.client.spawn(command).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a replica says of itself; None when it doesn't answer.
    pub(crate) fn status(&self, index: usize) -> Option<StatusReport> {
        let address = self.addresses[index];
        let asked = self.client.in_namespace(|| ask(address)).unwrap();
        // Who isn't there can refuse the question.
        asked.ok().flatten()
    }

    /// As [`Group::status`], of one that has to answer.
    #[track_caller]
    pub(crate) fn expect_status(&self, index: usize) -> StatusReport {
        let answer = (0..10).find_map(|_| self.status(index));
        answer.unwrap_or_else(|| panic!("replica {index} doesn't answer\n{}", self.describe()))
    }

    /// The replica that the live ones agree is their primary; to be called when the group is ready.
    #[track_caller]
    pub(crate) fn primary(&self) -> usize {
        let mut live = self.live().into_iter();
        let primary = live.find(|index| self.expect_status(*index).role == "primary");
        primary.unwrap_or_else(|| panic!("no replica is the primary\n{}", self.describe()))
    }

    /// The live replicas but the primary.
    #[track_caller]
    pub(crate) fn backups(&self) -> Vec<usize> {
        let primary = self.primary();
        let live = self.live().into_iter();
        live.filter(|index| *index != primary).collect()
    }

    /// Waits until the live replicas are normal in one view, with their programs armed where they have any.
    #[track_caller]
    pub(crate) fn wait_ready(&self) -> Vec<StatusReport> {
        self.wait("normal in one view, and armed", |reports| {
            reports.iter().all(|report| {
                report.status == "normal"
                    && report.view == reports[0].view
                    && (report.accelerated.armed || report.accelerated.mode() == "off")
            })
        })
    }

    /// Waits until the live replicas have left the view of one that is dead, if it led it.
    pub(crate) fn wait_led_by_another(&self, dead: usize) {
        self.wait("led by another", |reports| {
            reports.iter().all(|report| {
                report.status == "normal" && report.view % self.replicas.len() as u64 != dead as u64
            })
        });
    }

    /// Waits until the live replicas are ready and have committed the same, and demands equal digests of log and state.
    #[track_caller]
    pub(crate) fn wait_equal(&self) -> Vec<StatusReport> {
        self.wait_ready();
        let reports = self.wait("committed alike", |reports| {
            let first = &reports[0];
            reports.iter().all(|report| {
                report.commit == first.commit && report.op == first.op && report.op == report.commit
            })
        });
        for report in &reports {
            assert_eq!(
                (&report.log_digest, &report.state_digest),
                (&reports[0].log_digest, &reports[0].state_digest),
                "replica {} diverged from {}\n{}",
                report.index,
                reports[0].index,
                self.describe()
            );
        }
        reports
    }

    /// Waits until all live replicas answer and what they say fits.
    #[track_caller]
    pub(crate) fn wait(
        &self,
        what: &str,
        fits: impl Fn(&[StatusReport]) -> bool,
    ) -> Vec<StatusReport> {
        let give_up = Instant::now() + PATIENCE;
        let live = self.live();
        loop {
            let answers = live.iter().map(|index| self.status(*index));
            let reports: Option<Vec<StatusReport>> = answers.collect();
            if let Some(reports) = reports.filter(|reports| fits(reports)) {
                return reports;
            }
            let ended: Vec<&usize> = live
                .iter()
                .filter(|index| self.has_ended(**index))
                .collect();
            assert!(
                ended.is_empty(),
                "{what}: replicas {ended:?} ended by themselves\n{}",
                self.describe()
            );
            assert!(
                Instant::now() < give_up,
                "{what}: not within {PATIENCE:?}\n{}",
                self.describe()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A client on the clients' host.
    pub(crate) fn connect(&self, deadline: Duration) -> Client {
        connect(&self.client, &self.addresses, deadline)
    }

    /// Commits so many small ops one after the other, and demands that the kernel did the work: every live backup stored
    /// nearly all, and the primary's program counted acks. Other load may go on meanwhile.
    #[track_caller]
    pub(crate) fn expect_kernel_commits(&self, ops: u64) {
        let before = self.wait_ready();
        let client = self.connect(PATIENCE);
        for number in 0..ops {
            let value = number.to_string();
            let op = KvOp::Put {
                key: b"kernel",
                value: value.as_bytes(),
            };
            let result = smol::block_on(client.request(op.encode())).unwrap();
            assert_eq!(KvResult::decode(&result), Ok(KvResult::Stored));
        }
        for (before, after) in before.iter().zip(self.wait_ready()) {
            assert_eq!(
                (after.view, after.pid),
                (before.view, before.pid),
                "the view or a process changed meanwhile"
            );
            let rose =
                |program, name| kernel(&after, program, name) - kernel(before, program, name);
            let did = match after.role.as_str() {
                "primary" => ["counted", "completed", "completed_noticed", "surplus"]
                    .map(|name| rose("prepare_ok", name))
                    .iter()
                    .sum(),
                _ => rose("prepare", "stored"),
            };
            assert!(
                did >= ops * 9 / 10,
                "of {ops} ops, replica {} ({}) handled {did} in the kernel\n{}",
                after.index,
                after.role,
                self.describe()
            );
        }
    }

    /// How everybody is, with the ends of their logs, for failed tests.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for index in 0..self.replicas.len() {
            let status = match self.status(index) {
                None => "silent".to_owned(),
                Some(report) => format!(
                    "{} {} of view {}, op {}, commit {}, armed {}, counters {:?}, dropped {:?}",
                    report.status,
                    report.role,
                    report.view,
                    report.op,
                    report.commit,
                    report.accelerated.armed,
                    report.counters,
                    report.driver.dropped
                ),
            };
            text.push_str(&format!("replica {index}: {status}\n"));
            let log = std::fs::read_to_string(self.log(index)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                text.push_str(&format!("    {line}\n"));
            }
        }
        text
    }
}

/// One of a replica's kernel counters.
pub(crate) fn kernel(report: &StatusReport, program: &str, name: &str) -> u64 {
    let counters = report.counters.get(program);
    counters
        .and_then(|counters| counters.get(name))
        .copied()
        .unwrap_or(0)
}

/// A client on `host`.
pub(crate) fn connect(host: &Host, replicas: &[SocketAddr], deadline: Duration) -> Client {
    let options = Options {
        deadline,
        ..Options::new(replicas.to_vec())
    };
    host.in_namespace(|| Client::connect(options))
        .unwrap()
        .unwrap()
}

fn ask(address: SocketAddr) -> std::io::Result<Option<StatusReport>> {
    let any: IpAddr = if address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(ANSWERING))?;
    let envelope = Envelope {
        group: GroupId(0),
        epoch: 0,
        sender: CLIENT,
        flags: 0,
    };
    let question = Packet::StatusRequest { nonce: Nonce(1) };
    let mut bytes = Vec::new();
    encode(&envelope, &Key::UNKEYED, &question, &mut bytes);
    socket.send(&bytes)?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    let length = socket.recv(&mut buffer)?;
    // An answer that was damaged on its way is none.
    let answer = decode(buffer.get(..length).unwrap_or_default(), &Key::UNKEYED);
    Ok(match answer {
        Ok((_, Packet::StatusReply { body, .. })) => serde_json::from_slice(&body).ok(),
        _ => None,
    })
}
