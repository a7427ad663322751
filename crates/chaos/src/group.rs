//! The replicas of a group: the shipped binary, a process on a host of its own for each.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result};
use electrode_lab::{Child, Host, Lab};

use crate::plan::Segment;

/// The replicas' port.
pub(crate) const PORT: u16 = 7077;

/// Lines of each replica's log that are told when something is wrong.
const LOG_LINES: usize = 10;

/// How a replica is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The value of `--accelerate`.
    pub(crate) programs: &'static str,
    /// By how many seconds its clocks are ahead of the machine's.
    pub(crate) clock_ahead_s: u32,
}

impl Start {
    /// All programs, and the machine's time.
    pub(crate) const PLAIN: Start = Start {
        programs: "all",
        clock_ahead_s: 0,
    };
}

/// What a replica's process does.
#[derive(Debug)]
enum Process {
    Running(Child),
    Paused(Child),
    Killed,
}

#[derive(Debug)]
struct Replica {
    host: Host,
    process: Process,
    start: Start,
}

/// The processes. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Group {
    replicas: Vec<Replica>,
    pub(crate) addresses: Vec<SocketAddr>,
    binary: PathBuf,
    scratch: PathBuf,
    segment: Segment,
}

impl Group {
    /// Starts a new group, one replica on each host.
    pub(crate) fn start(
        lab: &Arc<Lab>,
        hosts: &[Host],
        binary: &Path,
        segment: Segment,
    ) -> Result<Group> {
        let address = |host: &Host| -> IpAddr {
            if segment.ipv6 {
                host.ipv6().into()
            } else {
                host.ipv4().into()
            }
        };
        let addresses: Vec<SocketAddr> = hosts
            .iter()
            .map(|host| SocketAddr::new(address(host), PORT))
            .collect();
        let lines: String = addresses
            .iter()
            .map(|address| format!("replica {address}\n"))
            .collect();
        let scratch = lab.scratch().to_owned();
        let config = format!("f {}\n{lines}", (hosts.len() - 1) / 2);
        std::fs::write(scratch.join("config.txt"), config).context("writing the configuration")?;
        let replicas = hosts.iter().map(|host| Replica {
            host: host.clone(),
            process: Process::Killed,
            start: Start::PLAIN,
        });
        let mut group = Group {
            replicas: replicas.collect(),
            addresses,
            binary: binary.to_owned(),
            scratch,
            segment,
        };
        for index in 0..hosts.len() {
            group.spawn(index, Start::PLAIN)?;
        }
        Ok(group)
    }

    /// How many replicas there are.
    pub(crate) fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Starts a replica that doesn't run, with the state directory of its earlier lives.
    pub(crate) fn spawn(&mut self, index: usize, start: Start) -> Result<()> {
        let log = self.log(index);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let replica = &mut self.replicas[index];
        let mut command = match start.clock_ahead_s {
            0 => replica.host.command(&self.binary),
            seconds => replica
                .host
                .command_with_clocks_ahead(&self.binary, seconds),
        };
        command
            .args(["replica", "--app", "kv", "--index", &index.to_string()])
            .args(["--accelerate", start.programs])
            .args(["--interface", replica.host.interface()])
            .args(["--durability", self.segment.durability.as_str()])
            .arg("--config")
            .arg(self.scratch.join("config.txt"))
            .arg("--state-dir")
            .arg(self.scratch.join(format!("r{index}")))
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if self.segment.read_leases {
            command.arg("--read-leases");
        }
        replica.process = Process::Running(replica.host.spawn(command)?);
        replica.start = start;
        Ok(())
    }

    /// SIGKILL; its memory and its programs are gone when this returns.
    pub(crate) fn kill(&mut self, index: usize) -> Result<()> {
        match std::mem::replace(&mut self.replicas[index].process, Process::Killed) {
            Process::Running(mut child) | Process::Paused(mut child) => {
                child.kill().context("killing a replica")
            }
            Process::Killed => Ok(()),
        }
    }

    /// SIGSTOP: its process stands still, and its programs go on.
    pub(crate) fn pause(&mut self, index: usize) -> Result<()> {
        let process = &mut self.replicas[index].process;
        *process = match std::mem::replace(process, Process::Killed) {
            Process::Running(child) => {
                child.pause().context("pausing a replica")?;
                Process::Paused(child)
            }
            other => other,
        };
        Ok(())
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, index: usize) -> Result<()> {
        let process = &mut self.replicas[index].process;
        *process = match std::mem::replace(process, Process::Killed) {
            Process::Paused(child) => {
                child.resume().context("resuming a replica")?;
                Process::Running(child)
            }
            other => other,
        };
        Ok(())
    }

    /// How it was started last.
    pub(crate) fn how_started(&self, index: usize) -> Start {
        self.replicas[index].start
    }

    /// Whether its process is there and not paused.
    pub(crate) fn runs(&self, index: usize) -> bool {
        matches!(self.replicas[index].process, Process::Running(_))
    }

    /// Whether it was killed and not started again.
    pub(crate) fn is_killed(&self, index: usize) -> bool {
        matches!(self.replicas[index].process, Process::Killed)
    }

    /// The process that it is, if it is one.
    pub(crate) fn pid(&self, index: usize) -> Option<u32> {
        match &self.replicas[index].process {
            Process::Running(child) | Process::Paused(child) => Some(child.pid()),
            Process::Killed => None,
        }
    }

    /// Processes that ended though nobody ended them, and how.
    pub(crate) fn ended(&mut self) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        for index in 0..self.replicas.len() {
            if let Process::Running(child) = &mut self.replicas[index].process
                && let Some(status) = child.try_wait()?
            {
                let log = self.log_end(index);
                ended.push(format!("replica {index} ended by itself, {status}\n{log}"));
            }
        }
        Ok(ended)
    }

    /// Where a replica writes what it has to say.
    pub(crate) fn log(&self, index: usize) -> PathBuf {
        self.scratch.join(format!("r{index}.log"))
    }

    /// The last lines of that.
    pub(crate) fn log_end(&self, index: usize) -> String {
        let log = std::fs::read_to_string(self.log(index)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].iter();
        last.map(|line| format!("    {line}\n")).collect()
    }
}
