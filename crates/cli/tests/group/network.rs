//! Cut and selectively lossy links, and IPv6.

use std::thread;
use std::time::{Duration, Instant};

use electrode_apps::KvOp;
use electrode_lab::{Faults, Host};

use crate::counter::Counter;
use crate::group::{Group, PORT, connect, kernel};
use crate::load::{Load, Shape};

/// After a loss has ended no op waits longer; the resend timeout is 10 ms, the rest is the machine's other work.
const REPAIR: Duration = Duration::from_secs(1);

#[test]
fn lost_acks_stall_no_op() {
    let Some(group) = Group::accelerated(3) else {
        return;
    };
    let primary = group.primary();
    let view = group.expect_status(primary).view;
    let half_of_the_acks = Faults {
        drop: 512,
        ..Faults::default()
    };
    // Only what replicas send is lost, and clients' requests aren't: what is measured is the primary's own resending.
    group.hosts[primary]
        .set_faults_from(PORT, half_of_the_acks)
        .unwrap();
    let load = Load::start(&group, Shape::default());
    thread::sleep(Duration::from_secs(3));
    let dropped = group.hosts[primary].fault_counts().unwrap().dropped;
    let proved = load.prove(&group);
    group.hosts[primary].set_faults(Faults::default()).unwrap();
    println!(
        "half of the acks lost ({dropped}): {} writes, slowest {:?}",
        proved.acknowledged, proved.slowest
    );
    assert!(dropped > 100, "{dropped}");
    assert!(
        proved.slowest < REPAIR,
        "{:?}\n{}",
        proved.slowest,
        group.describe()
    );
    let reports = group.wait_equal();
    assert_eq!(reports[0].view, view);
    group.expect_kernel_commits(100);
}

#[test]
fn silence_of_all_backups_ends_with_the_loss() {
    let Some(group) = Group::accelerated(3) else {
        return;
    };
    let load = Load::start(&group, Shape::default());
    load.wait_for(&group, 200);
    let primary = group.primary();
    let silence = Faults {
        drop: 1024,
        ..Faults::default()
    };
    group.hosts[primary].set_faults_from(PORT, silence).unwrap();
    thread::sleep(Duration::from_millis(300));
    group.hosts[primary].set_faults(Faults::default()).unwrap();
    let ended = Instant::now();
    load.wait_for(&group, 100);
    let resumed = ended.elapsed();
    let proved = load.prove(&group);
    println!(
        "no ack for 300 ms: {} writes, 100 more took {resumed:?} after it, slowest {:?}",
        proved.acknowledged, proved.slowest
    );
    assert!(resumed < REPAIR, "{resumed:?}\n{}", group.describe());
    group.wait_equal();
    group.expect_kernel_commits(100);
}

#[test]
fn a_primary_that_is_cut_off_acknowledges_nothing_and_rejoins_as_a_backup() {
    let Some(group) = Group::accelerated(3) else {
        return;
    };
    let lonely = group.lab.host("lonely").unwrap();
    let load = Load::start(&group, Shape::default());
    let counter = Counter::start(&group, 4);
    load.wait_for(&group, 200);
    let old = group.primary();
    let view = group.expect_status(old).view;
    let (mut here, there): (Vec<&Host>, Vec<usize>) = (vec![&group.client], group.backups());
    here.extend(there.iter().map(|index| &group.hosts[*index]));
    let at = Instant::now();
    group
        .lab
        .partition(&[&[&group.hosts[old], &lonely], &here])
        .unwrap();
    load.wait_for(&group, 200);
    // On its side of the cut there is a client too: it hears nothing that it could take for an answer, not of a write
    // and not of a read.
    let client = connect(&lonely, &group.addresses, Duration::from_millis(700));
    let put = KvOp::Put {
        key: b"lonely",
        value: b"1",
    };
    let get = KvOp::Get { key: b"counter" };
    for op in [put.encode(), get.encode()] {
        let answer = smol::block_on(client.request(op));
        assert!(answer.is_err(), "the minority answered {answer:?}");
    }
    let in_new_view = load.acknowledged();
    group.lab.heal().unwrap();
    load.wait_for(&group, 200);
    let reports = group.wait_ready();
    assert!(reports[0].view > view);
    assert_eq!(reports[old].role, "backup", "{}", group.describe());
    let status = group.electrode(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success(), "{said}");
    assert!(said.contains("3 of 3 are normal in view"), "{said}");
    let raised = counter.prove(&group);
    let proved = load.prove(&group);
    println!(
        "primary cut off: {} writes ({in_new_view} before the heal), counter raised {raised} times, commits resumed after {:?}",
        proved.acknowledged,
        proved.longest_silence(at)
    );
    group.wait_equal();
    group.expect_kernel_commits(100);
}

#[test]
fn a_primary_whose_cable_is_pulled_is_replaced_and_its_programs_find_their_neighbours_again() {
    let Some(group) = Group::accelerated(3) else {
        return;
    };
    let load = Load::start(&group, Shape::default());
    load.wait_for(&group, 200);
    // Twice, so that the one that was cut off first is likely primary again or the other one's backup.
    for _ in 0..2 {
        let old = group.primary();
        let at = Instant::now();
        group.hosts[old].link_down().unwrap();
        load.wait_for(&group, 200);
        println!("cable pulled: 200 more writes took {:?}", at.elapsed());
        group.hosts[old].link_up().unwrap();
        group.wait_ready();
        assert_ne!(group.primary(), old);
    }
    load.prove(&group);
    group.wait_equal();
    group.expect_kernel_commits(100);
}

#[test]
fn a_group_on_ipv6_commits_in_the_kernel() {
    let Some(group) = Group::start(&["all"; 3], true) else {
        return;
    };
    assert!(group.addresses.iter().all(|address| address.is_ipv6()));
    group.expect_kernel_commits(300);
    let primary = group.expect_status(group.primary());
    assert!(
        kernel(&primary, "broadcast", "cloned") >= 270,
        "{}",
        group.describe()
    );
}
