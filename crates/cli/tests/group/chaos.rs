//! Links that lose, double, reorder and damage.

use std::time::Duration;

use electrode_lab::{FaultCounts, Faults};

use crate::counter::Counter;
use crate::group::{Group, kernel};
use crate::load::{Load, Shape};

/// Of 1024 packets: about 5 % lost, 1 % damaged, 5 % doubled, 10 % overtaken.
const BAD: Faults = Faults {
    drop: 51,
    corrupt: 10,
    duplicate: 51,
    reorder: 102,
};

/// How long the links are bad.
const STORM: Duration = Duration::from_secs(8);

fn set_everywhere(group: &Group, faults: Faults) {
    for host in group.hosts.iter().chain([&group.client]) {
        host.set_faults(faults).unwrap();
    }
}

fn counts(group: &Group) -> FaultCounts {
    let mut sum = FaultCounts::default();
    for host in group.hosts.iter().chain([&group.client]) {
        let counts = host.fault_counts().unwrap();
        sum.dropped += counts.dropped;
        sum.corrupted += counts.corrupted;
        sum.duplicated += counts.duplicated;
        sum.reordered += counts.reordered;
    }
    sum
}

/// A storm over a group under load; nothing acknowledged is lost, and afterwards everything is as it was.
fn storm(n: usize, ipv6: bool) {
    let Some(group) = Group::start(&vec!["all"; n], ipv6) else {
        return;
    };
    let shape = Shape {
        writers: 6,
        ..Shape::default()
    };
    let load = Load::start(&group, shape);
    let counter = Counter::start(&group, 3);
    load.wait_for(&group, 200);
    set_everywhere(&group, BAD);
    let before = load.acknowledged();
    std::thread::sleep(STORM);
    let during = load.acknowledged() - before;
    set_everywhere(&group, Faults::default());
    let counts = counts(&group);
    load.wait_for(&group, 200);
    let raised = counter.prove(&group);
    let proved = load.prove(&group);
    println!(
        "storm over {n} replicas: {during} writes meanwhile, {} in all, counter raised {raised} times, slowest {:?}, {counts:?}",
        proved.acknowledged, proved.slowest
    );
    for happened in [
        counts.dropped,
        counts.corrupted,
        counts.duplicated,
        counts.reordered,
    ] {
        assert!(happened > 0, "{counts:?}");
    }
    assert!(during > 50, "only {during} writes in {STORM:?}");
    let reports = group.wait_equal();
    // R8: what was damaged was noticed by the programs, not stored.
    let noticed: u64 = reports
        .iter()
        .map(|report| {
            kernel(report, "prepare", "dropped_bad_check")
                + kernel(report, "prepare_ok", "dropped_bad_check")
        })
        .sum();
    assert!(noticed > 0, "{counts:?}\n{}", group.describe());
    // R6: it comes back by itself.
    group.expect_kernel_commits(200);
}

#[test]
fn bad_links_lose_no_acknowledged_write_and_the_kernel_is_back_afterwards() {
    storm(3, false);
}

#[test]
fn bad_links_between_five_replicas_over_ipv6() {
    storm(5, true);
}
