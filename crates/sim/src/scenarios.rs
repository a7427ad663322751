//! Behaviours that one can name, each in a group of its own: real programs, a good network but for what the test does to it.

mod replacement;

use std::rc::Rc;

use electrode_vr::Status;

use crate::nic::Programs;
use crate::plan::{Acceleration, MS, Plan};
use crate::world::World;

/// A group without faults, normal in view 0.
fn quiet(seed: u64, acceleration: Acceleration) -> World {
    quiet_as(Plan::of(seed, 100_000, acceleration).without_faults())
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
        .map_or(0, |process| process.replica.snapshot().op.0);
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
                .replica
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
