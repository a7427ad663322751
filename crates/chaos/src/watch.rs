//! Looks at the replicas all the time, from a host whose links are always good, and compares what they say of themselves.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use electrode_lab::Host;
use electrode_replica::StatusReport;
use electrode_vr::{GroupId, Nonce};
use electrode_wire::{CLIENT, Envelope, Key, MAX_DATAGRAM, Packet, decode, encode};

use crate::report::Kernel;

/// How often the replicas are asked.
const EVERY: Duration = Duration::from_millis(150);

/// How long their answers are waited for.
const ANSWERING: Duration = Duration::from_millis(100);

/// An answer that is older says nothing of how a replica is.
const FRESH: Duration = Duration::from_millis(1500);

/// Digests that are remembered; what is compared was seen within seconds.
const MAX_DIGESTS: usize = 65_536;

/// What was seen of the replicas.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    replicas: Vec<Replica>,
    /// Per commit number the digests of log and state, and who reported them first.
    digests: BTreeMap<u64, (String, String, u8)>,
    highest_view: u64,
    /// How often the highest view of a normal replica rose.
    pub(crate) view_changes: u64,
    /// How often a replica was normal in a new life.
    pub(crate) recoveries: u64,
    /// What contradicts itself.
    pub(crate) violations: Vec<String>,
    /// What the programs did in lives that are over.
    kernel_before: Kernel,
}

#[derive(Clone, Debug, Default)]
struct Replica {
    latest: Option<(Instant, StatusReport)>,
    /// The highest view in which it was normal.
    view: u64,
    /// The process that was normal last.
    normal_pid: Option<u32>,
}

impl Seen {
    fn new(replicas: usize) -> Seen {
        Seen {
            replicas: vec![Replica::default(); replicas],
            ..Seen::default()
        }
    }

    /// What a replica says, if it said it just now.
    pub(crate) fn fresh(&self, index: usize) -> Option<&StatusReport> {
        let (at, report) = self.replicas.get(index)?.latest.as_ref()?;
        (at.elapsed() < FRESH).then_some(report)
    }

    /// Whether this process of a replica has been normal.
    pub(crate) fn was_normal(&self, index: usize, pid: u32) -> bool {
        self.replicas[index].normal_pid == Some(pid)
    }

    /// The primary of the highest view that is normal.
    pub(crate) fn primary(&self) -> Option<usize> {
        let reports = (0..self.replicas.len()).filter_map(|index| self.fresh(index));
        let normal = reports.filter(|report| report.status == "normal" && report.role == "primary");
        let primary = normal.max_by_key(|report| report.view)?;
        Some(usize::from(primary.index))
    }

    /// What the programs did, in all lives.
    pub(crate) fn kernel(&self) -> Kernel {
        let mut sum = self.kernel_before;
        for (_, report) in self.replicas.iter().filter_map(|one| one.latest.as_ref()) {
            sum.add(&Kernel::of(report));
        }
        sum
    }

    /// Everybody in one line each.
    pub(crate) fn describe(&self) -> String {
        let line = |(index, replica): (usize, &Replica)| match &replica.latest {
            None => format!("  replica {index}: never answered\n"),
            Some((at, report)) => format!(
                "  replica {index}: {:.1} s ago {} {} of view {}, op {}, commit {}, {}{}\n",
                at.elapsed().as_secs_f64(),
                report.status,
                report.role,
                report.view,
                report.op,
                report.commit,
                match (report.accelerated.mode(), report.accelerated.armed) {
                    ("off", _) => "not accelerated",
                    (_, true) => "armed",
                    (_, false) => "not armed",
                },
                match &report.reason {
                    Some(reason) => format!(" ({reason})"),
                    None => String::new(),
                }
            ),
        };
        self.replicas.iter().enumerate().map(line).collect()
    }

    fn take(&mut self, index: usize, report: StatusReport) {
        let replica = &mut self.replicas[index];
        if let Some((_, before)) = &replica.latest {
            if before.pid != report.pid {
                self.kernel_before.add(&Kernel::of(before));
            } else if report.commit < before.commit {
                self.violations.push(format!(
                    "replica {index} had committed op {}, and now says {}",
                    before.commit, report.commit
                ));
            }
        }
        if report.status == "normal" {
            if report.view < replica.view {
                self.violations.push(format!(
                    "replica {index} was normal in view {}, and is normal in view {} now",
                    replica.view, report.view
                ));
            }
            replica.view = report.view;
            if replica
                .normal_pid
                .replace(report.pid)
                .is_some_and(|before| before != report.pid)
            {
                self.recoveries += 1;
            }
            if report.view > self.highest_view {
                self.highest_view = report.view;
                self.view_changes += 1;
            }
            let digests = (&report.log_digest, &report.state_digest);
            let first = self
                .digests
                .entry(report.commit)
                .or_insert_with(|| (digests.0.clone(), digests.1.clone(), report.index));
            if (&first.0, &first.1) != digests {
                self.violations.push(format!(
                    "at commit {} replica {index} has log {} and state {}, replica {} had log {} and state {}",
                    report.commit, digests.0, digests.1, first.2, first.0, first.1
                ));
            }
            while self.digests.len() > MAX_DIGESTS {
                self.digests.pop_first();
            }
        }
        replica.latest = Some((Instant::now(), report));
    }
}

/// The thread that looks. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Watch {
    /// Looks at these replicas from this host.
    pub(crate) fn start(host: Host, replicas: Vec<SocketAddr>) -> Result<Watch> {
        let seen = Arc::new(Mutex::new(Seen::new(replicas.len())));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("watch".to_owned());
        let thread = thread.spawn(move || {
            host.enter()?;
            drop(host);
            let ipv6 = replicas.iter().any(SocketAddr::is_ipv6);
            let any = if ipv6 {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
            let mut nonce = 0;
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                nonce += 1;
                ask(&socket, &replicas, Nonce(nonce), |index, report| {
                    lock(&shared).take(index, report);
                })?;
                std::thread::sleep(EVERY.saturating_sub(begun.elapsed()));
            }
            Ok(())
        })?;
        Ok(Watch {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Whether it still looks, or why not.
    pub(crate) fn check(&mut self) -> Result<()> {
        match &self.thread {
            Some(thread) if thread.is_finished() => self.end(),
            _ => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(done)) => done,
            Some(Err(_)) => Err(anyhow!("the thread that looks at the replicas panicked")),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("electrode-chaos: {error:#}");
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks all replicas, and hands on what they answer in time.
fn ask(
    socket: &UdpSocket,
    replicas: &[SocketAddr],
    nonce: Nonce,
    mut answered: impl FnMut(usize, StatusReport),
) -> std::io::Result<()> {
    let envelope = Envelope {
        group: GroupId(0),
        epoch: 0,
        sender: CLIENT,
        flags: 0,
    };
    let mut question = Vec::new();
    let packet = Packet::StatusRequest { nonce };
    encode(&envelope, &Key::UNKEYED, &packet, &mut question);
    for replica in replicas {
        // Who isn't there refuses it.
        let _ = socket.send_to(&question, replica);
    }
    let mut buffer = vec![0; MAX_DATAGRAM];
    let until = Instant::now() + ANSWERING;
    let mut missing = replicas.len();
    while missing > 0 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let Ok((length, source)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Some(index) = replicas.iter().position(|replica| *replica == source) else {
            continue;
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        // An answer to an earlier question, from who was paused meanwhile, is of the past.
        if let Ok((_, Packet::StatusReply { nonce: to, body })) = decode(bytes, &Key::UNKEYED)
            && to == nonce
            && let Ok(report) = serde_json::from_slice(&body)
        {
            missing -= 1;
            answered(index, report);
        }
    }
    Ok(())
}
