//! Replicas that lose their process.

use std::thread;
use std::time::{Duration, Instant};

use crate::group::Group;
use crate::load::{Load, Shape};

/// A group of whom somebody died commits again within this, whatever else the machine does; printed is what it took.
const FAILOVER: Duration = Duration::from_secs(5);

#[test]
fn kill_9_of_the_primary_under_load_loses_no_acknowledged_write() {
    let Some(mut group) = Group::accelerated(3) else {
        return;
    };
    let load = Load::start(&group, Shape::default());
    load.wait_for(&group, 500);
    let killed = group.primary();
    let at = Instant::now();
    group.kill(killed);
    load.wait_for(&group, 500);
    // R6: the two that are left are armed in the new view, and their kernels do the work.
    group.wait_ready();
    assert_ne!(group.primary(), killed);
    group.expect_kernel_commits(100);
    group.spawn(killed);
    group.wait_ready();
    assert!(
        group.backups().contains(&killed),
        "it comes back as a backup"
    );
    load.wait_for(&group, 500);
    let proved = load.prove(&group);
    let silence = proved.longest_silence(at);
    println!(
        "killed primary: {} writes, commits resumed after {silence:?}",
        proved.acknowledged
    );
    assert!(silence < FAILOVER, "{silence:?}");
    group.wait_equal();
    group.expect_kernel_commits(100);
}

#[test]
fn a_killed_backup_costs_no_commit_and_recovers_into_an_armed_one() {
    let Some(mut group) = Group::accelerated(3) else {
        return;
    };
    let load = Load::start(&group, Shape::default());
    load.wait_for(&group, 300);
    let killed = group.backups()[0];
    let view = group.expect_status(killed).view;
    let at = Instant::now();
    group.kill(killed);
    load.wait_for(&group, 500);
    group.spawn(killed);
    let reports = group.wait_ready();
    load.wait_for(&group, 300);
    let proved = load.prove(&group);
    let silence = proved.longest_silence(at);
    println!(
        "killed backup: {} writes, the longest silence was {silence:?}",
        proved.acknowledged
    );
    assert!(silence < FAILOVER, "{silence:?}");
    assert_eq!(reports[0].view, view, "a backup's death changes no view");
    group.wait_equal();
    group.expect_kernel_commits(100);
}

#[test]
fn one_after_the_other_is_killed_and_recovers() {
    let Some(mut group) = Group::accelerated(3) else {
        return;
    };
    let load = Load::start(&group, Shape::default());
    load.wait_for(&group, 200);
    // Each time the primary, so that the last one to have been it holds nothing from before its own recovery.
    for _ in 0..3 {
        let killed = group.primary();
        group.kill(killed);
        load.wait_for(&group, 200);
        group.spawn(killed);
        group.wait_ready();
    }
    let proved = load.prove(&group);
    println!("three kills in a row: {} writes", proved.acknowledged);
    group.wait_equal();
    group.expect_kernel_commits(100);
}

#[test]
fn five_replicas_commit_with_two_dead() {
    let Some(mut group) = Group::accelerated(5) else {
        return;
    };
    let load = Load::start(&group, Shape::default());
    load.wait_for(&group, 200);
    let (primary, backup) = (group.primary(), group.backups()[1]);
    let at = Instant::now();
    group.kill(primary);
    group.kill(backup);
    load.wait_for(&group, 300);
    group.wait_ready();
    group.expect_kernel_commits(100);
    group.spawn(primary);
    group.spawn(backup);
    group.wait_ready();
    load.wait_for(&group, 200);
    let proved = load.prove(&group);
    let silence = proved.longest_silence(at);
    println!(
        "two of five killed: {} writes, commits resumed after {silence:?}",
        proved.acknowledged
    );
    assert!(silence < FAILOVER, "{silence:?}");
    group.wait_equal();
    group.expect_kernel_commits(100);
}

#[test]
fn no_program_outlives_its_process() {
    let Some(mut group) = Group::accelerated(3) else {
        return;
    };
    for index in [group.primary(), group.backups()[0]] {
        let (xdp, tc) = attached(&group, index);
        assert!(xdp && tc, "XDP {xdp}, TC {tc}");
        group.kill(index);
        // The kernel lets go of a dead process's links a moment after the process was waited for.
        let give_up = Instant::now() + Duration::from_secs(2);
        while attached(&group, index) != (false, false) && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(attached(&group, index), (false, false));
        group.spawn(index);
        group.wait_ready();
    }
    group.expect_kernel_commits(50);
}

/// Whether an XDP program and a classifier are attached to a replica's interface, by the system's own account.
fn attached(group: &Group, index: usize) -> (bool, bool) {
    let host = &group.hosts[index];
    let output = |program: &str, arguments: &[&str]| {
        let output = host.command(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let link = output("ip", &["-d", "link", "show", "dev", "eth0"]);
    // Before Linux 6.6 there are no TCX links, but filters.
    let filters = output("tc", &["filter", "show", "dev", "eth0", "egress"]);
    let links = host.egress_links().unwrap_or_default();
    (
        link.contains("prog/xdp"),
        filters.contains("bpf") || !links.is_empty(),
    )
}
