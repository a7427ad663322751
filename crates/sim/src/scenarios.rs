//! Behaviours that one can name, each in a group of its own: real programs, a good network but for what the test does to it.

mod replacement;
mod transfer;

use std::rc::Rc;

use electrode_vr::Status;

use crate::nic::Programs;
use crate::plan::{Acceleration, MS, Plan};
use crate::world::World;

/// A group without faults, normal in view 0.
fn quiet(seed: u64, acceleration: Acceleration) -> World {
    quiet_as(
        Plan::of(seed, 100_000, acceleration)
            .without_faults()
            .in_memory(),
    )
}

fn quiet_as(plan: Plan) -> World {
    let mut plan = plan;
    if plan.replicas == 1 {
        let programs = plan.programs[0];
        plan.replicas = 3;
        plan.programs = vec![programs; 3];
    }
    let programs = Rc::new(Programs::new().expect("the programs that ship load"));
    let mut world = World::new(plan, programs, false);
    world.set_calm(true);
    world.run_until(300 * MS);
    assert!(world.works(), "{}", world.describe());
    world
}

fn held(world: &World) {
    assert_eq!(world.violation(), None);
}

fn both() -> [Acceleration; 2] {
    [Acceleration::None, Acceleration::All]
}

#[test]
fn a_primary_that_can_speak_but_not_hear_is_replaced() {
    for acceleration in both() {
        let mut world = quiet(5, acceleration);
        for other in 1..world.plan.replicas {
            world.cut_one_way(other, 0);
        }
        let commit = world.checks.committed().last();
        world.run_until(world.now + 2000 * MS);
        held(&world);
        assert!(
            world.checks.committed().last() > commit,
            "the others go on without it"
        );
        assert_ne!(world.leader(), Some(0));
    }
}

#[test]
fn an_isolated_backup_that_comes_back_deposes_nobody() {
    for acceleration in both() {
        let mut world = quiet(6, acceleration);
        world.isolate(world.plan.replicas - 1);
        world.run_until(world.now + 1500 * MS);
        world.join_network();
        world.run_until(world.now + 500 * MS);
        held(&world);
        assert_eq!(world.checks.views.len(), 1, "view 0 is the only one");
        assert!(world.works(), "{}", world.describe());
    }
}

#[test]
fn a_dead_primary_is_replaced_in_a_few_time_outs() {
    for acceleration in both() {
        let mut world = quiet(7, acceleration);
        let patience = 3 * world.plan.timing.view_change;
        world.crash(0, None);
        let commit = world.checks.committed().last();
        world.run_until(world.now + patience);
        held(&world);
        assert!(
            world.checks.committed().last() > commit,
            "view 1 works: {}",
            world.describe()
        );
    }
}

#[test]
fn a_stopped_backup_acknowledges_by_its_kernel_until_its_ring_is_full_and_catches_up_afterwards() {
    let mut world = quiet(8, Acceleration::All);
    let backup = world.plan.replicas - 1;
    world.pause(backup, world.now + 30 * MS);
    let before = world.counts.kernel_answers;
    world.run_until(world.now + 30 * MS);
    held(&world);
    assert!(world.counts.kernel_answers > before);
    world.run_until(world.now + 500 * MS);
    held(&world);
    assert!(world.works(), "{}", world.describe());
    let behind = world.checks.committed().last().0;
    let op = world
        .process(backup)
        .map_or(0, |process| process.core().snapshot().op.0);
    assert!(op + 64 > behind, "it has caught up: {op} of {behind}");
}

#[test]
fn r10_what_is_longer_than_a_packet_goes_through_user_space_and_the_fast_path_stays() {
    let mut plan = Plan::of(9, 100_000, Acceleration::All).without_faults();
    plan.large = 3000;
    let mut world = quiet_as(plan);
    world.run_until(world.now + 1500 * MS);
    held(&world);
    assert!(world.works(), "{}", world.describe());
    assert_eq!(world.checks.views.len(), 1);
    assert!(world.checks.stored_by_kernels > 0);
}

#[test]
fn a_group_that_loses_more_than_f_memories_at_once_says_so_and_answers_nobody() {
    for acceleration in both() {
        let mut world = quiet(10, acceleration);
        let lost = world.plan.replicas / 2 + 1;
        for node in 0..lost {
            world.crash(node, Some(MS));
        }
        let done: u64 = world.clients.iter().map(|client| client.done).sum();
        world.run_until(world.now + 3000 * MS);
        held(&world);
        let answered: u64 = world.clients.iter().map(|client| client.done).sum();
        // Replies that were on their way may still have come.
        assert!(answered <= done + 32, "{answered} after {done}");
        for node in 0..lost {
            let now = world
                .process(node)
                .expect("it is up again")
                .core()
                .snapshot();
            assert_eq!(now.status, Status::Recovering);
            let reason = now.reason.unwrap_or_default();
            assert!(
                reason.contains("more than f replicas are recovering"),
                "{reason}"
            );
        }
        assert!(world.trace.warnings > 0);
    }
}

/// A group on disk without faults, normal in view 0.
fn quiet_on_disk(seed: u64, acceleration: Acceleration) -> World {
    quiet_as(
        Plan::of(seed, 100_000, acceleration)
            .without_faults()
            .on_disk(),
    )
}

/// Everybody has every op that a client was told of, and the group goes on.
fn nothing_lost_and_works(world: &mut World) {
    let known = world.known.acknowledged.clone();
    let patience = world.now + 3000 * MS;
    world.run_until(world.now + 200 * MS);
    while !world.works() && world.now < patience {
        world.run_until(world.now + 20 * MS);
    }
    // A heartbeat tells everybody what is committed.
    world.run_until(world.now + 100 * MS);
    held(world);
    assert!(world.works(), "{}", world.describe());
    for node in 0..world.plan.replicas {
        let process = world.process(node).expect("it is up");
        for key in &known {
            assert!(
                process.core().machine().has(*key),
                "{key:?} at replica {node}"
            );
        }
    }
    assert!(
        world.known.acknowledged.len() > known.len(),
        "requests are answered again"
    );
}

#[test]
fn after_a_power_cut_of_all_at_once_every_acknowledged_op_is_there() {
    for acceleration in both() {
        let mut world = quiet_on_disk(11, acceleration);
        world.run_until(world.now + 500 * MS);
        let acknowledged = world.known.acknowledged.len();
        assert!(acknowledged > 50, "{acknowledged} were acknowledged");
        world.power_cut();
        assert!((0..world.plan.replicas).all(|node| world.process(node).is_none()));
        nothing_lost_and_works(&mut world);
    }
}

#[test]
fn in_disk_mode_kernels_store_and_never_answer() {
    let mut world = quiet_on_disk(13, Acceleration::All);
    world.run_until(world.now + 500 * MS);
    held(&world);
    let (stored, ops) = (
        world.checks.stored_by_kernels,
        world.checks.committed().last().0,
    );
    assert!(stored > 20, "{stored} of {ops} ops were stored");
    assert_eq!(world.counts.kernel_answers, 0);
}

#[test]
fn a_full_disk_stops_its_replica_which_says_why_and_comes_back() {
    for acceleration in both() {
        let mut world = quiet_on_disk(13, acceleration);
        for node in [world.plan.replicas - 1, 0] {
            world.break_disk(node);
            let mut stopped = false;
            for _ in 0..200 {
                world.run_until(world.now + MS);
                stopped |= world.process(node).is_none();
            }
            assert!(stopped, "replica {node}: {}", world.describe());
            nothing_lost_and_works(&mut world);
        }
        assert_eq!(world.counts.disk_failures, 2);
    }
}

#[test]
fn a_damaged_log_is_moved_aside_and_got_from_the_others() {
    for acceleration in both() {
        let mut world = quiet_on_disk(14, acceleration);
        // Not every damage is to something durable, and what was synced last, unmarked, isn't damaged at all.
        while world.counts.damaged_logs < 2 {
            world.damage_log(1);
            nothing_lost_and_works(&mut world);
        }
    }
}

#[test]
fn reads_take_no_place_in_the_log_while_the_lease_holds_and_none_when_it_does_not() {
    for leases in [false, true] {
        let mut plan = Plan::of(15, 100_000, Acceleration::All)
            .without_faults()
            .in_memory();
        (plan.reads, plan.lease_reads) = (true, leases);
        let mut world = quiet_as(plan);
        world.run_until(world.now + 500 * MS);
        held(&world);
        let reads: u64 = world.clients.iter().map(|client| client.reads_done).sum();
        let done: u64 = world.clients.iter().map(|client| client.done).sum();
        let ops = world.checks.committed().last().0;
        assert!(reads > 50, "{reads} reads");
        if leases {
            assert!(ops < done - reads / 2, "{ops} ops for {done} requests");
        } else {
            assert!(ops >= done, "{ops} ops for {done} requests");
        }
    }
}

#[test]
fn a_primary_that_was_cut_off_from_the_others_answers_no_stale_read() {
    for seed in 16..19 {
        let mut plan = Plan::of(seed, 100_000, Acceleration::Seeded)
            .without_faults()
            .in_memory();
        (plan.reads, plan.lease_reads, plan.drift) = (true, true, 60_000);
        plan.timing.lease = 90 * MS;
        let mut world = quiet_as(plan);
        for _ in 0..3 {
            let Some(leader) = world.leader() else {
                continue;
            };
            world.isolate(leader);
            world.run_until(world.now + 400 * MS);
            assert_ne!(world.leader(), Some(leader), "{}", world.describe());
            world.join_network();
            world.run_until(world.now + 300 * MS);
        }
        held(&world);
    }
}
