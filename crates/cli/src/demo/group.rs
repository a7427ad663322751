//! One group of replicas as processes, from its start to its end.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use electrode_lab::Child;
use electrode_replica::StatusReport;

use super::ask::ask;
use super::cpu;
use super::place::Place;
use super::report::{Attach, Bench, Counters, Run, add, difference};

/// How long a new group may take until it is ready.
const STARTING: Duration = Duration::from_secs(15);

/// How long the replicas may take to agree after a load; backups learn the last commit from the next heartbeat.
const SETTLING: Duration = Duration::from_secs(10);

/// How the group runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// User space alone.
    Plain,
    /// All programs in the kernel.
    Accelerated,
    /// One server, the same state machine, no group.
    Unreplicated,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Plain => "plain",
            Mode::Accelerated => "accelerated",
            Mode::Unreplicated => "unreplicated",
        })
    }
}

/// A running group. Dropping it kills the replicas.
pub(super) struct Group<'a> {
    place: &'a Place,
    mode: Mode,
    configuration: PathBuf,
    addresses: Vec<SocketAddr>,
    replicas: Vec<Replica>,
}

struct Replica {
    child: Child,
    log: PathBuf,
}

/// Seconds of processor time so far.
struct Cpu {
    replicas: Vec<f64>,
    system: f64,
}

impl<'a> Group<'a> {
    /// Starts a new group on the first `count` hosts; it takes requests when this returns.
    pub(super) fn start(
        place: &'a Place,
        mode: Mode,
        count: usize,
        round: u32,
    ) -> Result<Group<'a>> {
        let name = format!("{mode}-{round}");
        let mut group = Group {
            place,
            mode,
            configuration: place.configuration(&name, count)?,
            addresses: place.addresses(count),
            replicas: Vec::new(),
        };
        for index in 0..count {
            let replica = group.replica(&name, index)?;
            group.replicas.push(replica);
        }
        let started = Instant::now();
        loop {
            let reports = group.ask()?;
            if group.ready(&reports) {
                return Ok(group);
            }
            group.must_live()?;
            if started.elapsed() > STARTING {
                bail!(
                    "the group isn't ready after {} s: {}\n{}",
                    STARTING.as_secs(),
                    describe(&reports),
                    group.logs()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn replica(&self, name: &str, index: usize) -> Result<Replica> {
        let host = self.place.hosts.get(index).context("a host per replica")?;
        let state = self.place.file(&format!("{name}-r{index}"));
        let log = self.place.file(&format!("{name}-r{index}.log"));
        let configuration = self.configuration.display().to_string();
        let index = index.to_string();
        let state = state.display().to_string();
        let mut arguments = vec!["replica", "--config", &configuration, "--index", &index];
        arguments.extend(["--app", "null", "--state-dir", &state]);
        match self.mode {
            Mode::Accelerated => {
                arguments.extend(["--accelerate", "all", "--interface", host.interface()]);
            }
            Mode::Plain | Mode::Unreplicated => arguments.extend(["--accelerate", "none"]),
        }
        let output = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut command = self.place.electrode(host, &arguments);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        Ok(Replica {
            child: host.spawn(command)?,
            log,
        })
    }

    fn ask(&self) -> Result<Vec<Option<StatusReport>>> {
        ask(&self.place.client, &self.addresses)
    }

    /// All normal in one view, and armed where they should be.
    fn ready(&self, reports: &[Option<StatusReport>]) -> bool {
        let Some(Some(first)) = reports.first() else {
            return false;
        };
        reports.iter().flatten().count() == reports.len()
            && reports.iter().flatten().all(|report| {
                report.status == "normal"
                    && report.view == first.view
                    && (self.mode != Mode::Accelerated || report.accelerated.armed)
            })
    }

    fn must_live(&mut self) -> Result<()> {
        for index in 0..self.replicas.len() {
            if let Some(status) = self.replicas[index].child.try_wait()? {
                bail!("replica {index} ended, {status}\n{}", self.logs());
            }
        }
        Ok(())
    }

    /// The last lines that each replica wrote.
    fn logs(&self) -> String {
        let mut text = String::new();
        for (index, replica) in self.replicas.iter().enumerate() {
            let log = std::fs::read_to_string(&replica.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(5)..] {
                text.push_str(&format!("  replica {index}: {line}\n"));
            }
        }
        text
    }

    /// Puts the group under the load of so many clients, each of which waits for its reply before it sends again.
    pub(super) fn load(&self, clients: usize, duration: Duration) -> Result<Bench> {
        let host = &self.place.client;
        let configuration = self.configuration.display().to_string();
        let clients = clients.to_string();
        let seconds = duration.as_secs_f64().to_string();
        let mut arguments = vec!["bench", "--config", &configuration, "--clients", &clients];
        arguments.extend(["--seconds", &seconds, "--op", "echo", "--json"]);
        let mut command = self.place.electrode(host, &arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = host.spawn(command)?.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!(
                "the load ended with {}: {}{}\n{}",
                output.status,
                said,
                String::from_utf8_lossy(&output.stderr).trim(),
                self.logs()
            );
        }
        serde_json::from_str(said.trim()).with_context(|| format!("the load said {said:?}"))
    }

    /// Loads the group and measures it.
    pub(super) fn measure(&self, clients: usize, duration: Duration, round: u32) -> Result<Run> {
        let before = self.look()?;
        let before_cpu = self.cpu()?;
        let bench = self.load(clients, duration)?;
        let after_cpu = self.cpu()?;
        if bench.requests == 0 || bench.errors > 0 {
            bail!(
                "{} requests were answered and {} failed\n{}",
                bench.requests,
                bench.errors,
                self.logs()
            );
        }
        let (after, digests_equal) = self.settle()?;
        let primary = after
            .iter()
            .position(|report| report.role == "primary")
            .ok_or_else(|| anyhow!("no replica says that it is the primary"))?;
        let per_10k = 10_000.0 / bench.requests as f64;
        let cpu_s = |index: usize| after_cpu.replicas[index] - before_cpu.replicas[index];
        let mut kernel = Counters::new();
        for (after, before) in after.iter().zip(&before) {
            add(&mut kernel, &difference(&after.counters, &before.counters));
        }
        let syscalls = after[primary]
            .driver
            .syscalls
            .saturating_sub(before[primary].driver.syscalls);
        Ok(Run {
            mode: self.mode.to_string(),
            round: round + 1,
            replicas: self.addresses.len(),
            clients,
            requests: bench.requests,
            requests_per_s: bench.requests_per_s,
            p50_us: bench.p50_us,
            p99_us: bench.p99_us,
            replica_cpu_s_per_10k: (0..after.len()).map(cpu_s).sum::<f64>() * per_10k,
            primary_cpu_s_per_10k: cpu_s(primary) * per_10k,
            system_cpu_s_per_10k: (after_cpu.system - before_cpu.system) * per_10k,
            primary_syscalls_per_request: syscalls as f64 / bench.requests as f64,
            kernel,
            replies_verified: bench.replies_verified,
            digests_equal,
            attach: Attach {
                xdp: after[primary].accelerated.xdp.clone(),
                tc: after[primary].accelerated.tc.clone(),
            },
        })
    }

    fn cpu(&self) -> Result<Cpu> {
        let replicas = self.replicas.iter();
        Ok(Cpu {
            replicas: replicas
                .map(|replica| cpu::of_process(replica.child.pid()))
                .collect::<Result<_>>()?,
            system: cpu::of_system()?,
        })
    }

    /// Every replica's report.
    fn look(&self) -> Result<Vec<StatusReport>> {
        let reports = self.ask()?;
        let described = describe(&reports);
        reports
            .into_iter()
            .collect::<Option<_>>()
            .with_context(|| format!("a replica doesn't answer: {described}\n{}", self.logs()))
    }

    /// Waits until all have committed the same; whether their logs and states are the same too.
    fn settle(&self) -> Result<(Vec<StatusReport>, bool)> {
        let started = Instant::now();
        loop {
            let reports = self.look()?;
            let first = &reports[0];
            let settled = reports
                .iter()
                .all(|report| report.commit == first.commit && report.op == report.commit);
            if settled || started.elapsed() > SETTLING {
                let equal = settled
                    && reports.iter().all(|report| {
                        report.state_digest == first.state_digest
                            && report.log_digest == first.log_digest
                    });
                return Ok((reports, equal));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One word per replica, for people.
fn describe(reports: &[Option<StatusReport>]) -> String {
    let words = reports
        .iter()
        .enumerate()
        .map(|(index, report)| match report {
            None => format!("replica {index} is silent"),
            Some(report) => {
                let why = report.reason.as_ref().or(report.accelerated.why.as_ref());
                let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
                format!(
                    "replica {index} is {} in view {}, kernel {}{}{why}",
                    report.status,
                    report.view,
                    report.accelerated.mode(),
                    if report.accelerated.armed {
                        ", armed"
                    } else {
                        ""
                    },
                )
            }
        });
    words.collect::<Vec<_>>().join("; ")
}
