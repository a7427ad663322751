//! What the demo found, as `--json` writes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counters of the programs: program, then reason.
pub(super) type Counters = BTreeMap<String, BTreeMap<String, u64>>;

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// What the network itself takes.
    pub(super) floor: Floor,
    /// One per mode, round and number of clients.
    pub(super) runs: Vec<Run>,
}

/// Median round trips of 64 bytes between the same hosts, without any protocol.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Floor {
    /// Both ends block in the kernel.
    pub(super) udp_blocking_us: f64,
    /// Both ends poll.
    pub(super) udp_polling_us: f64,
    /// An XDP program on the far end sends it back; none without root.
    pub(super) xdp_echo_us: Option<f64>,
}

/// One load on one group.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Run {
    /// `plain`, `accelerated` or `unreplicated`.
    pub(super) mode: String,
    /// From 1.
    pub(super) round: u32,
    pub(super) replicas: usize,
    pub(super) clients: usize,
    pub(super) requests: u64,
    pub(super) requests_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Of all replicas' processes, user and system.
    pub(super) replica_cpu_s_per_10k: f64,
    pub(super) primary_cpu_s_per_10k: f64,
    /// Of the whole machine, the clients and interrupts included.
    pub(super) system_cpu_s_per_10k: f64,
    pub(super) primary_syscalls_per_request: f64,
    /// Of all replicas together, during this run.
    pub(super) kernel: Counters,
    /// Replies whose bytes were compared with what they had to be.
    pub(super) replies_verified: u64,
    /// Whether all replicas reached the same commit with the same log and state afterwards.
    pub(super) digests_equal: bool,
    pub(super) attach: Attach,
}

/// How the programs were attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Attach {
    /// `native`, `generic` or `off`.
    pub(super) xdp: String,
    /// `tcx`, `clsact` or `off`.
    pub(super) tc: String,
}

/// What `electrode bench --json` prints, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Bench {
    pub(super) requests: u64,
    pub(super) requests_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) replies_verified: u64,
    pub(super) errors: u64,
}

impl Run {
    /// A counter of a program; 0 where there is none.
    pub(super) fn counted(&self, program: &str, name: &str) -> u64 {
        let program = self.kernel.get(program);
        program
            .and_then(|names| names.get(name))
            .copied()
            .unwrap_or(0)
    }
}

/// What was counted between two looks; what didn't move is left out.
pub(super) fn difference(after: &Counters, before: &Counters) -> Counters {
    let mut difference = after.clone();
    for (program, names) in &mut difference {
        for (name, value) in names {
            let earlier = before.get(program).and_then(|names| names.get(name));
            *value = value.saturating_sub(earlier.copied().unwrap_or(0));
        }
    }
    for names in difference.values_mut() {
        names.retain(|_, value| *value > 0);
    }
    difference.retain(|_, names| !names.is_empty());
    difference
}

/// Adds one replica's counters.
pub(super) fn add(sum: &mut Counters, counters: &Counters) {
    for (program, names) in counters {
        for (name, value) in names {
            let program = sum.entry(program.clone()).or_default();
            *program.entry(name.clone()).or_default() += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(program: &str, name: &str, value: u64) -> Counters {
        let names = BTreeMap::from([(name.to_owned(), value)]);
        BTreeMap::from([(program.to_owned(), names)])
    }

    #[test]
    fn a_counter_that_was_not_there_before_counts_from_zero() {
        let mut after = counters("prepare", "stored", 10);
        add(&mut after, &counters("prepare", "acked", 4));
        add(&mut after, &counters("broadcast", "unfit", 5));
        let mut before = counters("prepare", "stored", 7);
        add(&mut before, &counters("broadcast", "unfit", 5));
        let difference = difference(&after, &before);
        assert_eq!(difference.len(), 1, "{difference:?}");
        assert_eq!(difference["prepare"]["stored"], 3);
        assert_eq!(difference["prepare"]["acked"], 4);
    }

    #[test]
    fn the_json_has_the_fields_that_are_promised() {
        let json = serde_json::to_value(Report {
            floor: Floor::default(),
            runs: vec![Run::default()],
        })
        .unwrap();
        for field in ["udp_blocking_us", "udp_polling_us", "xdp_echo_us"] {
            assert!(json["floor"].get(field).is_some(), "{field}");
        }
        for field in [
            "mode",
            "replicas",
            "clients",
            "requests",
            "requests_per_s",
            "p50_us",
            "p99_us",
            "replica_cpu_s_per_10k",
            "primary_cpu_s_per_10k",
            "system_cpu_s_per_10k",
            "primary_syscalls_per_request",
            "kernel",
            "replies_verified",
            "digests_equal",
            "attach",
        ] {
            assert!(json["runs"][0].get(field).is_some(), "{field}");
        }
    }
}
