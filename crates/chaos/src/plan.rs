//! What a run is to be, decided before it begins.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use electrode_sim::Random;

/// The shortest run: less has no time for faults.
const SHORTEST: Duration = Duration::from_secs(20);

/// The longest: a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A group lives this long at most; then another one takes its place, of another kind.
const SEGMENT: Duration = Duration::from_secs(150);

/// From this length on every kind of fault has to happen, or the run counts as failed.
pub(crate) const ALL_KINDS: Duration = Duration::from_secs(75);

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides faults, frames' fates, workload, and what the groups are. Threads and processes run as they will, so a seed
    /// makes a run of the same kind, not the same run.
    pub seed: u64,
    /// How long it lasts, without the starts of its groups.
    pub length: Duration,
    /// 3, 5 or 7.
    pub replicas: usize,
    /// Requests per second of all clients together, at most.
    pub rate: u32,
    /// How long the group may take to be well again after the last fault.
    pub healing: Duration,
    /// The `electrode` binary.
    pub binary: PathBuf,
    /// Where a violation's history and logs go.
    pub keep: PathBuf,
    /// Print each fault.
    pub trace: bool,
}

impl Plan {
    /// A run of 3 replicas for 90 seconds.
    #[must_use]
    pub fn new(seed: u64, binary: PathBuf) -> Plan {
        Plan {
            seed,
            length: Duration::from_secs(90),
            replicas: 3,
            rate: 200,
            healing: Duration::from_secs(60),
            binary,
            keep: format!("chaos-{seed}").into(),
            trace: false,
        }
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// A number is out of its range, or the binary isn't there; the words are those of the command's options.
    pub fn check(&self) -> Result<()> {
        if ![3, 5, 7].contains(&self.replicas) {
            bail!("--replicas {}: 3, 5 or 7", self.replicas);
        }
        if !(SHORTEST..=LONGEST).contains(&self.length) {
            bail!(
                "--minutes {:.2}: from {:.2} to {}",
                self.length.as_secs_f64() / 60.0,
                SHORTEST.as_secs_f64() / 60.0,
                LONGEST.as_secs() / 60
            );
        }
        if !(1..=20_000).contains(&self.rate) {
            bail!("--rate {}: from 1 to 20000 requests per second", self.rate);
        }
        if !(1..=3600).contains(&self.healing.as_secs()) {
            bail!(
                "--healing {}: from 1 to 3600 seconds",
                self.healing.as_secs()
            );
        }
        if !self.binary.is_file() {
            bail!(
                "{}: there is no such binary; build it with `cargo build -p electrode`, or name it by --binary",
                self.binary.display()
            );
        }
        Ok(())
    }

    /// The groups of the run, one after the other; at least two, so that there is one of each durability.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        let count = self.length.as_secs().div_ceil(SEGMENT.as_secs()).max(2);
        let length = self.length / u32::try_from(count).unwrap_or(u32::MAX);
        let mut random = Random::new(self.seed);
        (0..count)
            .map(|number| Segment {
                number,
                seed: random.next(),
                length,
                durability: if number % 2 == 0 {
                    Durability::Memory
                } else {
                    Durability::Disk
                },
                ipv6: number % 4 >= 2,
                read_leases: random.chance(400),
            })
            .collect()
    }
}

/// What survives a replica's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Memory,
    Disk,
}

impl Durability {
    /// The value of `--durability`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Disk => "disk",
        }
    }
}

/// The life of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) seed: u64,
    pub(crate) length: Duration,
    pub(crate) durability: Durability,
    pub(crate) ipv6: bool,
    pub(crate) read_leases: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(7, std::env::current_exe().unwrap())
    }

    #[test]
    fn what_makes_no_run_is_refused_by_the_name_of_its_option() {
        plan().check().unwrap();
        let refused = |change: fn(&mut Plan)| {
            let mut plan = plan();
            change(&mut plan);
            plan.check().unwrap_err().to_string()
        };
        for (change, option) in [
            ((|plan| plan.replicas = 4) as fn(&mut Plan), "--replicas 4"),
            (|plan| plan.length = Duration::ZERO, "--minutes 0.00"),
            (|plan| plan.rate = 0, "--rate 0"),
            (|plan| plan.healing = Duration::ZERO, "--healing 0"),
            (|plan| plan.binary = "/nowhere/electrode".into(), "--binary"),
        ] {
            let said = refused(change);
            assert!(said.contains(option), "{said}");
        }
    }

    #[test]
    fn a_seed_decides_the_groups_and_both_durabilities_have_their_turn() {
        let segments = plan().segments();
        assert_eq!(segments, plan().segments());
        let durabilities: Vec<_> = segments.iter().map(|one| one.durability).collect();
        assert_eq!(durabilities, [Durability::Memory, Durability::Disk]);
        let long = Plan {
            length: Duration::from_secs(1800),
            ..plan()
        };
        assert_eq!(long.segments().len(), 12);
        assert!(long.segments().iter().any(|segment| segment.ipv6));
    }
}
