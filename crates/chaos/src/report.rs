//! What a run amounted to.

use std::collections::BTreeMap;
use std::fmt;

use electrode_replica::StatusReport;
use serde::Serialize;

use crate::network::Frames;

/// What the replicas' programs in the kernel did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Prepares that came to a replica with the program `prepare`.
    pub prepares: u64,
    /// Of those, new ones that it stored.
    pub stored: u64,
    /// Of those, the ones that it answered itself.
    pub acked: u64,
    /// PrepareOks that `prepare_ok` counted or found surplus.
    pub counted: u64,
    /// Prepares that `broadcast` copied.
    pub broadcast: u64,
}

impl Kernel {
    /// What a replica says of its own.
    pub(crate) fn of(report: &StatusReport) -> Kernel {
        let count = |program: &str, names: &[&str]| {
            let counters = report.counters.get(program);
            let count = |name: &&str| counters.and_then(|all| all.get(*name)).copied();
            names.iter().filter_map(count).sum()
        };
        let counted = ["counted", "completed", "completed_noticed", "surplus"];
        Kernel {
            prepares: count("dispatch", &["prepare"]),
            stored: count("prepare", &["stored"]),
            acked: count("prepare", &["acked"]),
            counted: count("prepare_ok", &counted),
            broadcast: count("broadcast", &["handled"]),
        }
    }

    pub(crate) fn add(&mut self, other: &Kernel) {
        self.prepares += other.prepares;
        self.stored += other.stored;
        self.acked += other.acked;
        self.counted += other.counted;
        self.broadcast += other.broadcast;
    }

    /// The share of Prepares that the kernel answered, of 1; None when there were none.
    #[must_use]
    pub fn acked_share(&self) -> Option<f64> {
        (self.prepares > 0).then(|| self.acked as f64 / self.prepares as f64)
    }
}

/// A run's outcome.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Replicas of each group.
    pub replicas: usize,
    /// How long it took.
    pub seconds: f64,
    /// Groups, one after the other.
    pub groups: u64,
    /// How often a group was broken and healed.
    pub rounds: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests of which nobody knows whether they were executed.
    pub unknown: u64,
    /// Requests that were certainly not executed.
    pub refused: u64,
    /// Calls whose order was checked.
    pub checked: u64,
    /// What was done to processes and to who reaches whom, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What was done to frames.
    pub frames: Frames,
    /// How often the highest view of a normal replica rose.
    pub view_changes: u64,
    /// How often a replica that was started again became normal.
    pub recoveries: u64,
    /// The longest time without any answer to any client while things broke, in milliseconds.
    pub longest_stall_ms: u64,
    /// The longest time from the last fault to a group that is well, with its programs at work, in milliseconds.
    pub longest_healing_ms: u64,
    /// What the programs did.
    pub kernel: Kernel,
    /// What was violated; None: everything held.
    pub violation: Option<String>,
    /// Kinds of faults that never happened; a run that is long enough for them has failed.
    pub never_happened: Vec<String>,
    /// Where history and logs of a violation are.
    pub kept: Option<String>,
    /// Whether everything held, and all faults happened that had to.
    pub held: bool,
}

impl Report {
    /// The kinds that didn't happen.
    pub(crate) fn missing(&self) -> Vec<String> {
        let Frames {
            seen: _,
            cut,
            lost,
            corrupted,
            duplicated,
            reordered,
            delayed,
            late,
            ring_full: _,
        } = self.frames;
        let frames = [
            ("frames cut", cut),
            ("frames lost", lost),
            ("frames corrupted", corrupted),
            ("frames duplicated", duplicated),
            ("frames reordered", reordered),
            ("frames delayed", delayed),
            ("frames sent again late", late),
        ];
        let faults = self.faults.iter().map(|(kind, count)| (*kind, *count));
        let all = faults.chain(frames);
        let missing = all.filter(|(_, count)| *count == 0);
        missing.map(|(kind, _)| kind.to_owned()).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Frames {
            seen,
            cut,
            lost,
            corrupted,
            duplicated,
            reordered,
            delayed,
            late,
            ring_full,
        } = self.frames;
        writeln!(
            f,
            "seed {}: {} replicas, {:.0} s, {} groups, {} rounds of breaking and healing",
            self.seed, self.replicas, self.seconds, self.groups, self.rounds
        )?;
        writeln!(
            f,
            "  requests: {} answered, {} unknown, {} not executed; {} calls checked for linearizability",
            self.answered, self.unknown, self.refused, self.checked
        )?;
        let faults = self.faults.iter();
        let faults: Vec<String> = faults
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        writeln!(f, "  faults: {}", faults.join(", "))?;
        writeln!(
            f,
            "  frames: {seen} seen; {cut} cut, {lost} lost, {corrupted} corrupted, {duplicated} duplicated, {reordered} reordered, \
             {delayed} delayed, {late} sent again late, {ring_full} not held for want of room"
        )?;
        writeln!(
            f,
            "  {} view changes, {} recoveries; longest stall {} ms, longest healing {} ms",
            self.view_changes, self.recoveries, self.longest_stall_ms, self.longest_healing_ms
        )?;
        let Kernel {
            prepares,
            stored,
            acked,
            counted,
            broadcast,
        } = self.kernel;
        writeln!(
            f,
            "  kernel: of {prepares} Prepares {stored} stored and {acked} ({:.1} %) acked; {counted} PrepareOks counted, \
             {broadcast} Prepares broadcast",
            100.0 * self.kernel.acked_share().unwrap_or(0.0)
        )?;
        if !self.never_happened.is_empty() {
            writeln!(f, "  never happened: {}", self.never_happened.join(", "))?;
        }
        match (&self.violation, self.held) {
            (Some(violation), _) => write!(f, "VIOLATED: {violation}"),
            (None, true) => write!(
                f,
                "held: linearizable, agreed, healed, and the kernel took part again"
            ),
            (None, false) => write!(
                f,
                "FAILED: not all kinds of faults happened, so it proves nothing about them"
            ),
        }
    }
}
