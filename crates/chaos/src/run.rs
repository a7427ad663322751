//! A run: groups one after the other, each broken and healed in rounds, and looked at all the time.

use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use electrode_lab::{Host, Lab};
use electrode_replica::StatusReport;

use crate::clients::{Clients, KEYS};
use crate::deck::{Chaos, Deck};
use crate::group::{Group, PORT};
use crate::history;
use crate::network::Network;
use crate::plan::{ALL_KINDS, Plan, Segment};
use crate::report::{Kernel, Report};
use crate::watch::Watch;

/// How long things break before they are healed and checked.
const BREAKING: Duration = Duration::from_secs(20);

/// What healing and checking take, about: no round is begun that has less time than this and [`SHORTEST`].
const CHECKING: Duration = Duration::from_secs(6);

/// The shortest time in which things break.
const SHORTEST: Duration = Duration::from_secs(3);

/// How often it is looked what is due.
const TURN: Duration = Duration::from_millis(10);

/// How often a line says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// After so long without what is waited for, the timeline says how the replicas are.
const STRANGE: Duration = Duration::from_secs(4);

/// Hosts with clients.
const CLIENTS: usize = 2;

/// Something that must not be.
#[derive(Debug)]
struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// Runs it, and says what it amounted to: a violation is an outcome.
///
/// # Errors
/// The plan can't be run: bad numbers, no root, no binary, or something of the machine's that fails.
pub fn run(plan: &Plan) -> Result<Report> {
    plan.check()?;
    let begun = Instant::now();
    let mut report = Report {
        seed: plan.seed,
        replicas: plan.replicas,
        ..Report::default()
    };
    let mut deck = Deck::new(plan.seed);
    for segment in plan.segments() {
        let mut place = Place::new(plan, segment, begun)?;
        deck.shuffle();
        let outcome = place.live(&mut deck, &mut report);
        report.groups += 1;
        place.add_to(&mut report)?;
        if let Err(error) = outcome {
            let violation = error.downcast::<Violation>()?;
            place.keep(&plan.keep, &violation)?;
            report.kept = Some(plan.keep.display().to_string());
            report.violation = Some(violation.0);
            break;
        }
    }
    report.faults = deck.happened;
    report.seconds = begun.elapsed().as_secs_f64();
    report.never_happened = report.missing();
    let complete = report.never_happened.is_empty() || plan.length < ALL_KINDS;
    report.held = report.violation.is_none() && complete;
    Ok(report)
}

/// A group in its lab, with everything around it. Fields are dropped in this order.
struct Place<'a> {
    plan: &'a Plan,
    segment: Segment,
    begun: Instant,
    told: Instant,
    timeline: String,
    clients: Clients,
    watch: Watch,
    group: Group,
    network: Network,
    _lab: Arc<Lab>,
}

impl<'a> Place<'a> {
    fn new(plan: &'a Plan, segment: Segment, begun: Instant) -> Result<Place<'a>> {
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

    /// Rounds, until the time is over.
    fn live(&mut self, deck: &mut Deck, report: &mut Report) -> Result<()> {
        let until = Instant::now() + self.segment.length;
        self.note(&format!("{:?}", self.segment));
        self.wait("the new group isn't ready", self.plan.healing, |place| {
            place.ready().is_some()
        })?;
        let mut first_key = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if first_key > 0 && left < SHORTEST + CHECKING {
                break;
            }
            let breaking = left.saturating_sub(CHECKING).clamp(SHORTEST, BREAKING);
            self.round(deck, report, first_key, breaking)?;
            report.rounds += 1;
            first_key += KEYS;
        }
        // What was written in earlier rounds is still there, or was written by somebody whose fate wasn't known.
        self.clients
            .read(0..first_key, self.plan.healing)
            .map_err(|error| Violation(format!("at the group's end: {error}")))?;
        report.checked += self.check_history(0..first_key)?;
        self.look()
    }

    /// Breaks things, heals them, and demands that all is well.
    fn round(
        &mut self,
        deck: &mut Deck,
        report: &mut Report,
        first_key: usize,
        breaking: Duration,
    ) -> Result<()> {
        self.clients.begin(first_key)?;
        let until = Instant::now() + breaking;
        self.break_things(deck, until)?;
        let stall = self.clients.take_longest_stall();
        report.longest_stall_ms = report.longest_stall_ms.max(milliseconds(stall));
        let healed = Instant::now();
        self.note("healed; now all has to be well");
        let mut before: Option<Vec<StatusReport>> = None;
        let within = self.plan.healing;
        self.wait("not well after the last fault", within, |place| {
            let Some(reports) = place.ready() else {
                before = None;
                return false;
            };
            let same = |before: &&Vec<StatusReport>| before[0].view == reports[0].view;
            let Some(before) = before.as_ref().filter(same) else {
                before = Some(reports);
                return false;
            };
            place.clients.all_answered_since(healed) && place.kernel_works(before, &reports)
        })?;
        let healing = milliseconds(healed.elapsed());
        report.longest_healing_ms = report.longest_healing_ms.max(healing);
        self.note(&format!("well after {healing} ms"));
        self.clients.stop();
        let keys = first_key..first_key + KEYS;
        self.clients
            .read(keys.clone(), within)
            .map_err(|error| Violation(format!("after healing: {error}")))?;
        self.wait("the replicas don't agree", within, |place| place.agree())?;
        let checked = self.check_history(keys)?;
        self.note(&format!("{checked} calls are linearizable"));
        self.clients.take_longest_stall();
        Ok(())
    }

    fn break_things(&mut self, deck: &mut Deck, until: Instant) -> Result<()> {
        // Borrowed apart, so that what happens can be noted while it goes on.
        let mut noted = Vec::new();
        let mut ended = Ok(());
        {
            let mut chaos = Chaos::new(
                deck,
                &mut self.group,
                &mut self.network,
                &self.watch,
                self.segment,
                CLIENTS,
            );
            while Instant::now() < until && ended.is_ok() {
                for what in chaos.turn()? {
                    let at = self.begun.elapsed().as_secs_f64();
                    if self.plan.trace {
                        eprintln!("{at:>9.3} s  {what}");
                    }
                    noted.push(format!("{at:.3} {what}\n"));
                }
                std::thread::sleep(TURN);
                ended = look(&chaos.watch.seen().violations, &self.clients)
                    .and_then(|()| no_ends(chaos.group));
                if self.told.elapsed() >= PROGRESS {
                    self.told = Instant::now();
                    tell(self.begun, self.segment, &self.clients, chaos.watch);
                }
            }
            if ended.is_ok() {
                chaos.heal()?;
            }
        }
        self.timeline.extend(noted);
        ended?;
        self.network.check()?;
        self.watch.check()
    }

    /// What the replicas say, if all of them are normal in one view, and armed where they have programs.
    fn ready(&self) -> Option<Vec<StatusReport>> {
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
    fn kernel_works(&self, before: &[StatusReport], after: &[StatusReport]) -> bool {
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
    fn agree(&self) -> bool {
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

    fn check_history(&self, keys: std::ops::Range<usize>) -> Result<u64> {
        let history = self.clients.history(keys);
        let calls = history.len() as u64;
        history::check(history).map_err(|error| Violation(error.to_string()))?;
        Ok(calls)
    }

    fn wait(
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

    fn look(&mut self) -> Result<()> {
        look(&self.watch.seen().violations, &self.clients)?;
        no_ends(&mut self.group)?;
        self.network.check()?;
        self.watch.check()
    }

    fn note(&mut self, what: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        if self.plan.trace {
            eprintln!("{at:>9.3} s  {what}");
        }
        let _ = writeln!(self.timeline, "{at:.3} {what}");
    }

    fn add_to(&mut self, report: &mut Report) -> Result<()> {
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
    fn keep(&self, folder: &Path, violation: &Violation) -> Result<()> {
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
fn look(violations: &[String], clients: &Clients) -> Result<()> {
    let clients = clients.violations();
    match violations.first().or(clients.first()) {
        None => Ok(()),
        Some(first) => Err(Violation(first.clone()).into()),
    }
}

/// A replica that ends by itself has found an invariant broken.
fn no_ends(group: &mut Group) -> Result<()> {
    match group.ended()?.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(Violation(first).into()),
    }
}

fn tell(begun: Instant, segment: Segment, clients: &Clients, watch: &Watch) {
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

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
