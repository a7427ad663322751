//! A group in its lab, with everything around it: what it is looked at for, and what is kept when something is wrong.

use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use electrode_lab::{Host, Lab};
use electrode_replica::StatusReport;

use crate::clients::Clients;
use crate::group::{Group, PORT};
use crate::history;
use crate::network::Network;
use crate::plan::{Plan, Segment};
use crate::report::{Kernel, Report};
use crate::run::TURN;
use crate::watch::Watch;

/// How often a line says how far it is.
pub(crate) const PROGRESS: Duration = Duration::from_secs(10);

/// After so long without what is waited for, the timeline says how the replicas are.
const STRANGE: Duration = Duration::from_secs(4);

/// Hosts with clients.
pub(crate) const CLIENTS: usize = 2;

/// Something that must not be.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// A group in its lab, with everything around it. Fields are dropped in this order.
pub(crate) struct Place<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) segment: Segment,
    pub(crate) begun: Instant,
    pub(crate) told: Instant,
    pub(crate) timeline: String,
    pub(crate) clients: Clients,
    pub(crate) watch: Watch,
    pub(crate) group: Group,
    pub(crate) network: Network,
    _lab: Arc<Lab>,
}

impl<'a> Place<'a> {
    pub(crate) fn new(plan: &'a Plan, segment: Segment, begun: Instant) -> Result<Place<'a>> {
        let lab = Arc::new(Lab::new("chaos").context("making network namespaces")?);
        let host = |name: String| lab.host(&name);
        let replicas: Vec<Host> = (0..plan.replicas)
            .map(|index| host(format!("r{index}")))
            .collect::<Result<_, _>>()?;
        let clients: Vec<Host> = (0..CLIENTS)
            .map(|index| host(format!("c{index}")))
            .collect::<Result<_, _>>()?;
        let observer = lab.host("observer")?;
        let all: Vec<Host> = replicas.iter().chain(&clients).cloned().collect();
        let network = Network::new(&lab, &all, PORT, segment.seed)?;
        let group = Group::start(&lab, &replicas, &plan.binary, segment)?;
        let watch = Watch::start(observer, group.addresses.clone())?;
        let clients = Clients::connect(&clients, &group.addresses, plan.rate, segment.seed)?;
        Ok(Place {
            plan,
            segment,
            begun,
            told: Instant::now(),
            timeline: String::new(),
            clients,
            watch,
            group,
            network,
            _lab: lab,
        })
    }

    /// What the replicas say, if all of them are normal in one view, and armed where they have programs.
    pub(crate) fn ready(&self) -> Option<Vec<StatusReport>> {
        let seen = self.watch.seen();
        let reports = (0..self.group.len()).map(|index| seen.fresh(index).cloned());
        let reports: Vec<StatusReport> = reports.collect::<Option<_>>()?;
        let first = reports.first()?;
        let well = |report: &StatusReport| {
            let programs = self.group.how_started(report.index.into()).programs;
            self.group.pid(report.index.into()) == Some(report.pid)
                && report.status == "normal"
                && report.view == first.view
                && (report.accelerated.armed || programs == "none")
        };
        reports.iter().all(well).then_some(reports)
    }

    /// Whether every program did something between two reports.
    pub(crate) fn kernel_works(&self, before: &[StatusReport], after: &[StatusReport]) -> bool {
        before.iter().zip(after).all(|(before, after)| {
            let programs = self.group.how_started(after.index.into()).programs;
            let has = |program| programs == "all" || programs.split(',').any(|one| one == program);
            let (was, is) = (Kernel::of(before), Kernel::of(after));
            match after.role.as_str() {
                "primary" => {
                    (!has("prepare-ok") || is.counted > was.counted)
                        && (!has("broadcast") || is.broadcast > was.broadcast)
                }
                _ => !has("prepare") || is.stored > was.stored,
            }
        })
    }

    /// Whether all replicas have committed all ops, and have the same log and state.
    pub(crate) fn agree(&self) -> bool {
        let Some(reports) = self.ready() else {
            return false;
        };
        let what = |report: &StatusReport| {
            (
                report.op,
                report.commit,
                report.log_digest.clone(),
                report.state_digest.clone(),
            )
        };
        let first = what(&reports[0]);
        first.0 == first.1 && reports.iter().all(|report| what(report) == first)
    }

    pub(crate) fn check_history(&self, keys: std::ops::Range<usize>) -> Result<u64> {
        let history = self.clients.history(keys);
        let calls = history.len() as u64;
        history::check(history).map_err(|error| Violation(error.to_string()))?;
        Ok(calls)
    }

    pub(crate) fn wait(
        &mut self,
        what: &str,
        within: Duration,
        mut done: impl FnMut(&Place<'_>) -> bool,
    ) -> Result<()> {
        let begun = Instant::now();
        let mut strange = begun + STRANGE;
        while !done(self) {
            self.look()?;
            if Instant::now() > strange {
                strange += STRANGE;
                let seen = self.watch.seen().describe();
                self.note(&format!("{what}: still waiting\n{seen}"));
            }
            if begun.elapsed() > within {
                let seen = self.watch.seen().describe();
                return Err(Violation(format!("{what}, not within {within:?}\n{seen}")).into());
            }
            if self.told.elapsed() >= PROGRESS {
                self.told = Instant::now();
                tell(self.begun, self.segment, &self.clients, &self.watch);
            }
            std::thread::sleep(2 * TURN);
        }
        self.look()
    }

    pub(crate) fn look(&mut self) -> Result<()> {
        look(&self.watch.seen().violations, &self.clients)?;
        no_ends(&mut self.group)?;
        self.network.check()?;
        self.watch.check()
    }

    pub(crate) fn note(&mut self, what: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        if self.plan.trace {
            eprintln!("{at:>9.3} s  {what}");
        }
        let _ = writeln!(self.timeline, "{at:.3} {what}");
    }

    pub(crate) fn add_to(&mut self, report: &mut Report) -> Result<()> {
        let [answered, unknown, refused] = self.clients.counts();
        report.answered += answered;
        report.unknown += unknown;
        report.refused += refused;
        report.frames.add(&self.network.frames()?);
        let seen = self.watch.seen();
        report.view_changes += seen.view_changes;
        report.recoveries += seen.recoveries;
        report.kernel.add(&seen.kernel());
        Ok(())
    }

    /// Writes down what is needed to understand a violation.
    pub(crate) fn keep(&self, folder: &Path, violation: &Violation) -> Result<()> {
        let shown = folder.display();
        std::fs::create_dir_all(folder).with_context(|| format!("making {shown}"))?;
        let write = |name: &str, text: String| {
            std::fs::write(folder.join(name), text)
                .with_context(|| format!("writing {shown}/{name}"))
        };
        write("violation.txt", format!("{violation}\n{:?}\n", self.plan))?;
        write("timeline.txt", self.timeline.clone())?;
        write("replicas.txt", self.watch.seen().describe())?;
        let mut history = String::new();
        for call in self.clients.history(0..usize::MAX) {
            let _ = writeln!(history, "{call:?}");
        }
        write("history.txt", history)?;
        for index in 0..self.group.len() {
            let name = format!("r{index}.log");
            std::fs::copy(self.group.log(index), folder.join(&name))
                .with_context(|| format!("copying to {shown}/{name}"))?;
        }
        Ok(())
    }
}

/// What replicas and clients have noticed.
pub(crate) fn look(violations: &[String], clients: &Clients) -> Result<()> {
    let clients = clients.violations();
    match violations.first().or(clients.first()) {
        None => Ok(()),
        Some(first) => Err(Violation(first.clone()).into()),
    }
}

/// A replica that ends by itself has found an invariant broken.
pub(crate) fn no_ends(group: &mut Group) -> Result<()> {
    match group.ended()?.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(Violation(first).into()),
    }
}

pub(crate) fn tell(begun: Instant, segment: Segment, clients: &Clients, watch: &Watch) {
    let [answered, unknown, _] = clients.counts();
    let seen = watch.seen();
    eprintln!(
        "{:>6.0} s  group {} ({}{}): {answered} requests, {unknown} unknown, {} view changes, {} recoveries",
        begun.elapsed().as_secs_f64(),
        segment.number,
        segment.durability.as_str(),
        if segment.ipv6 { ", IPv6" } else { "" },
        seen.view_changes,
        seen.recoveries,
    );
}
