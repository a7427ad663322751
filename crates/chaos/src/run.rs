//! A run: groups one after the other, each broken and healed in rounds, and looked at all the time.

use std::time::{Duration, Instant};

use anyhow::Result;
use electrode_lab::has_time_namespaces;
use electrode_replica::StatusReport;

use crate::chaos::Chaos;
use crate::clients::KEYS;
use crate::deck::Deck;
use crate::place::{CLIENTS, PROGRESS, Place, Violation, look, no_ends, tell};
use crate::plan::{ALL_KINDS, Plan};
use crate::report::Report;

/// How long things break before they are healed and checked.
const BREAKING: Duration = Duration::from_secs(20);

/// What healing and checking take, about: no round is begun that has less time than this and [`SHORTEST`].
const CHECKING: Duration = Duration::from_secs(6);

/// The shortest time in which things break.
const SHORTEST: Duration = Duration::from_secs(3);

/// How often it is looked what is due.
pub(crate) const TURN: Duration = Duration::from_millis(10);

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
    let clocks = has_time_namespaces();
    if !clocks {
        eprintln!(
            "No time namespaces here (Linux 5.6, util-linux): no replica's clocks will be ahead."
        );
    }
    let mut deck = Deck::new(plan.seed, clocks);
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

impl Place<'_> {
    /// Rounds, until the time is over.
    fn live(&mut self, deck: &mut Deck, report: &mut Report) -> Result<()> {
        self.note(&format!("{:?}", self.segment));
        self.wait("the new group isn't ready", self.plan.healing, |place| {
            place.ready().is_some()
        })?;
        // Counted from here, so that a busy machine, on which a group starts slowly, takes nothing from the faults.
        let until = Instant::now() + self.segment.length;
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
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
