//! Groups on hosts of their own, with the programs in the real kernel.

use std::thread;

use electrode_lab::{Host, Lab, root_or_skip};
use electrode_vr::Durability;

use crate::harness::{Client, Group, wait_until};

/// Runs `test` on a host that reaches a group of `n`, all of whose kernels take part.
fn with_group(n: usize, ipv6: bool, test: impl FnOnce(&mut Group) + Send) {
    with_durable_group(n, ipv6, Durability::Memory, test);
}

fn with_durable_group(
    n: usize,
    ipv6: bool,
    durability: Durability,
    test: impl FnOnce(&mut Group) + Send,
) {
    if !root_or_skip("a group with programs in the kernel") {
        return;
    }
    let lab = Lab::new("replica").unwrap();
    let hosts: Vec<Host> = (0..n)
        .map(|index| lab.host(&format!("r{index}")).unwrap())
        .collect();
    let client = lab.host("client").unwrap();
    let mut group = Group::on_hosts(hosts, ipv6, "all", durability);
    client
        .in_namespace(|| {
            wait_armed(&group);
            test(&mut group);
        })
        .unwrap();
}

fn wait_armed(group: &Group) {
    wait_until("all normal and armed", || {
        (0..group.addresses.len()).all(|index| {
            group
                .status(index)
                .is_some_and(|report| report.status == "normal" && report.accelerated.armed)
        })
    });
}

/// Prepares taken from the rings of all replicas so far.
fn stored(group: &Group) -> u64 {
    let reports = (0..group.addresses.len()).filter_map(|index| group.status(index));
    reports.map(|report| report.driver.stored).sum()
}

#[test]
fn an_idle_new_group_keeps_its_view() {
    with_group(3, false, |group| {
        // Several times the view-change time-out: what backups answer before the first op are life signs, too.
        thread::sleep(std::time::Duration::from_millis(1500));
        let views: Vec<u64> = (0..3)
            .map(|index| group.status(index).unwrap().view)
            .collect();
        assert_eq!(views, [0, 0, 0]);
    });
}

#[test]
fn the_kernel_stores_and_counts_and_the_primary_makes_few_calls() {
    with_group(3, false, |group| {
        let mut client = Client::new(group, 1);
        client.call(b"warm");
        let before = group.status(0).unwrap().driver;
        for _ in 0..300 {
            client.call(b"x");
        }
        let after = group.status(0).unwrap();
        group.wait_equal(301);
        assert_eq!(after.accelerated.xdp, "native");
        assert!(
            stored(group) >= 2 * 290,
            "{} Prepares came by the ring",
            stored(group)
        );
        let (requests, calls) = (
            after.driver.requests - before.requests,
            after.driver.syscalls - before.syscalls,
        );
        // wait, receive, send the Prepare, send the reply; heartbeats and the status request are in the rest.
        assert!(
            calls <= requests * 5,
            "{calls} system calls for {requests} requests"
        );
        let copied = after.driver.broadcasts - before.broadcasts;
        assert!(
            copied >= 290,
            "{copied} of {requests} Prepares were copied by the kernel"
        );
    });
}

#[test]
fn a_killed_primary_takes_nothing_along_and_the_kernel_helps_again_afterwards() {
    with_group(3, false, |group| {
        let mut client = Client::new(group, 1);
        for _ in 0..100 {
            client.call(b"before");
        }
        group.kill(0);
        for _ in 0..100 {
            client.call(b"after");
        }
        group.spawn(0);
        wait_armed(group);
        group.wait_equal(200);
        let before = stored(group);
        for _ in 0..100 {
            client.call(b"again");
        }
        group.wait_equal(300);
        assert!(
            stored(group) >= before + 2 * 90,
            "{} Prepares came by the ring",
            stored(group) - before
        );
    });
}

#[test]
fn a_backup_that_was_away_is_helped_by_its_kernel_again() {
    with_group(3, false, |group| {
        let mut client = Client::new(group, 1);
        client.call(b"all");
        group.kill(2);
        for _ in 0..50 {
            client.call(b"two");
        }
        group.spawn(2);
        wait_armed(group);
        for _ in 0..50 {
            client.call(b"three");
        }
        group.wait_equal(101);
        assert!(group.status(2).unwrap().driver.stored >= 45);
    });
}

#[test]
fn what_is_longer_than_a_packet_goes_around_the_kernel_and_the_rest_through_it() {
    with_group(3, false, |group| {
        let mut client = Client::new(group, 1);
        for round in 0..20 {
            let op = vec![round; if round % 2 == 0 { 4000 } else { 40 }];
            assert_eq!(client.call(&op), op);
        }
        group.wait_equal(20);
        let primary = group.status(0).unwrap();
        assert!(
            primary.driver.broadcasts_plain >= 10 && primary.driver.broadcasts >= 10,
            "{:?}",
            primary.driver
        );
        assert!(stored(group) > 0);
    });
}

#[test]
fn five_replicas_over_ipv6_commit_in_the_kernel() {
    with_group(5, true, |group| {
        let mut client = Client::new(group, 1);
        for _ in 0..50 {
            client.call(b"x");
        }
        group.wait_equal(50);
        assert!(
            stored(group) >= 4 * 40,
            "{} Prepares came by the ring",
            stored(group)
        );
    });
}

#[test]
fn clients_at_the_same_time_are_served_once_each_by_the_kernel() {
    with_group(3, false, |group| {
        // Threads are on the host of the thread that makes them.
        thread::scope(|scope| {
            for session in 1..=8 {
                let mut client = Client::new(group, session);
                scope.spawn(move || {
                    for number in 0..25_u64 {
                        let op = (session * 1000 + number).to_le_bytes();
                        assert_eq!(client.call(&op), op);
                    }
                });
            }
        });
        group.wait_equal(8 * 25);
    });
}

/// The kernel copies and counts in disk mode too; it stores, but what is stored isn't durable, so user space answers.
#[test]
fn in_disk_mode_the_kernel_stores_and_user_space_answers() {
    with_durable_group(3, false, Durability::Disk, |group| {
        let mut client = Client::new(group, 1);
        for _ in 0..200 {
            client.call(b"durable");
        }
        let reports: Vec<_> = (0..3).map(|index| group.status(index).unwrap()).collect();
        let count = |program: &str, name: &str| -> u64 {
            let of = |report: &electrode_replica::StatusReport| {
                let program = report.counters.get(program)?;
                program.get(name).copied()
            };
            reports.iter().filter_map(of).sum()
        };
        assert!(count("prepare", "stored") > 100, "{reports:?}");
        assert_eq!(count("prepare", "acked"), 0, "{reports:?}");
        assert!(reports[0].driver.broadcasts > 100, "{reports:?}");
        for index in 0..3 {
            group.kill(index);
        }
        for index in 0..3 {
            group.spawn(index);
        }
        client.call(b"after the power cut");
        group.wait_equal(201);
    });
}
