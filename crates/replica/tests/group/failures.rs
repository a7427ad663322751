//! Replicas that die and come back.

use crate::harness::{Client, Group, wait_until};

#[test]
fn killing_the_primary_loses_nothing_that_was_acknowledged() {
    let mut group = Group::idle(3, false);
    for index in 0..3 {
        group.spawn(index);
    }
    group.wait_normal();
    let mut client = Client::new(&group, 1);
    for _ in 0..20 {
        client.call(b"before");
    }
    group.kill(0);
    for _ in 0..20 {
        client.call(b"after");
    }
    let view = group.status(1).unwrap().view;
    assert!(view >= 1);
    group.spawn(0);
    group.wait_equal(40);
    assert!(group.status(0).unwrap().view >= view);
}

#[test]
fn each_replica_can_be_restarted_in_turn() {
    let mut group = Group::start();
    let mut client = Client::new(&group, 1);
    for (round, index) in [1, 2, 0, 1].into_iter().enumerate() {
        group.kill(index);
        client.call(b"while one is away");
        group.start_all();
        group.wait_equal(round as u64 + 1);
    }
}

#[test]
fn a_promise_outlives_the_process() {
    let mut group = Group::start();
    group.kill(0);
    wait_until("a view without replica 0", || {
        (1..3).all(|index| {
            group
                .status(index)
                .is_some_and(|report| report.status == "normal" && report.view >= 1)
        })
    });
    let view = group.status(1).unwrap().view;
    group.kill(1);
    let promise = std::fs::read_to_string(group.state_dir(1).join("promise")).unwrap();
    assert!(
        promise.lines().any(|line| line == format!("view {view}")),
        "{promise}"
    );
}

#[test]
fn two_of_five_may_die() {
    let mut group = Group::idle(5, false);
    group.start_all();
    let mut client = Client::new(&group, 1);
    client.call(b"all");
    group.kill(0);
    group.kill(3);
    for _ in 0..5 {
        client.call(b"three of five");
    }
    group.start_all();
    group.wait_equal(6);
}
