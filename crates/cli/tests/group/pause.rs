//! Processes that stand still while their programs go on.

use std::thread;
use std::time::{Duration, Instant};

use crate::counter::Counter;
use crate::group::{Group, kernel};
use crate::load::{Load, Shape};

/// Many times what backups wait for their primary.
const LONG: Duration = Duration::from_secs(1);

/// Values that fill a backup's ring (1 MiB) soon.
const FILLING: Shape = Shape {
    writers: 4,
    depth: 4,
    bytes: 1200,
    pause: Duration::ZERO,
};

/// Acknowledged appends of [`FILLING`] that don't fit a ring: each has a record of its own or fills a part of one.
const MORE_THAN_A_RING: u64 = 2 * (1 << 20) / 1200;

#[test]
fn a_full_ring_acknowledges_nothing_and_is_emptied_when_its_replica_wakes() {
    let Some(group) = Group::accelerated(3) else {
        return;
    };
    let paused = group.backups()[0];
    let before = group.expect_status(paused);
    let load = Load::start(&group, FILLING);
    load.wait_for(&group, 50);
    group.pause(paused);
    load.wait_for(&group, MORE_THAN_A_RING);
    group.resume(paused);
    // What its kernel refused is counted there; so this was indeed a full ring.
    let after = group.expect_status(paused);
    let refused = kernel(&after, "prepare", "passed_ring_full")
        - kernel(&before, "prepare", "passed_ring_full");
    let stored = kernel(&after, "prepare", "stored") - kernel(&before, "prepare", "stored");
    let proved = load.prove(&group);
    println!(
        "full ring: {} writes; the paused backup's kernel stored {stored} and refused {refused} for want of room; slowest {:?}",
        proved.acknowledged, proved.slowest
    );
    assert!(refused > 0, "{}", group.describe());
    let reports = group.wait_equal();
    assert_eq!(
        reports[0].view, before.view,
        "a paused backup changes no view"
    );
    group.expect_kernel_commits(100);
}

#[test]
fn what_only_a_paused_backups_kernel_acknowledged_survives_its_primary() {
    let Some(mut group) = Group::accelerated(3) else {
        return;
    };
    let primary = group.primary();
    let [paused, away] = group.backups()[..] else {
        panic!("two backups")
    };
    // With one backup unreachable and the other's process paused, every ack is one that the kernel gave.
    group.hosts[away].link_down().unwrap();
    group.pause(paused);
    let load = Load::start(&group, Shape::default());
    load.wait_for(&group, 100);
    group.kill(primary);
    // R2: what the paused one finds in its ring is part of what it tells the next view.
    group.hosts[away].link_up().unwrap();
    group.resume(paused);
    let acknowledged = load.acknowledged();
    assert!(acknowledged >= 100, "{acknowledged}");
    load.wait_for(&group, 100);
    let reports = group.wait_ready();
    assert!(reports[0].view > 0);
    let proved = load.prove(&group);
    println!(
        "acknowledged by a paused process's kernel: {acknowledged} writes, {} in all",
        proved.acknowledged
    );
    group.spawn(primary);
    group.wait_equal();
    group.expect_kernel_commits(100);
}

#[test]
fn a_primary_that_slept_through_its_deposition_splits_nothing() {
    let Some(group) = Group::accelerated(3) else {
        return;
    };
    let load = Load::start(&group, Shape::default());
    let counter = Counter::start(&group, 4);
    load.wait_for(&group, 200);
    let paused = group.primary();
    let view = group.expect_status(paused).view;
    let at = Instant::now();
    group.pause(paused);
    thread::sleep(LONG);
    // The others are at work without it.
    load.wait_for(&group, 200);
    group.resume(paused);
    load.wait_for(&group, 200);
    let reports = group.wait_ready();
    assert!(reports[0].view > view);
    let primaries = reports.iter().filter(|report| report.role == "primary");
    assert_eq!(primaries.count(), 1);
    assert_eq!(reports[paused].role, "backup", "{}", group.describe());
    let raised = counter.prove(&group);
    let proved = load.prove(&group);
    println!(
        "paused primary: {} writes, counter raised {raised} times, commits resumed after {:?}",
        proved.acknowledged,
        proved.longest_silence(at)
    );
    group.wait_equal();
    group.expect_kernel_commits(100);
}

/// How long a replica runs and stands still in turns while it starts.
const STUTTER: [Duration; 2] = [Duration::from_millis(7), Duration::from_millis(3)];

#[test]
fn a_replica_that_is_stopped_and_continued_again_and_again_while_it_starts_comes_up() {
    let Some(mut group) = Group::accelerated(3) else {
        return;
    };
    let backup = group.backups()[0];
    group.kill(backup);
    group.spawn(backup);
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        let [running, standing] = STUTTER;
        thread::sleep(running);
        group.pause(backup);
        thread::sleep(standing);
        group.resume(backup);
    }
    group.wait_ready();
    group.expect_kernel_commits(100);
}
