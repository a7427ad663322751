//! A dead host, replaced under its index: the disk is empty, and the group must not take it for a first start.

use electrode_vr::Status;

use super::{both, held, quiet_as};
use crate::plan::{MS, Plan};

#[test]
fn replaced_hosts_recover_one_after_the_other_and_begin_no_group() {
    for acceleration in both() {
        let mut plan = Plan::of(11, 100_000, acceleration).without_faults();
        (plan.explicit_bootstrap, plan.replacement) = (false, true);
        let mut world = quiet_as(plan);
        let group = |world: &crate::world::World, node: usize| {
            world
                .process(node)
                .map(|process| process.core().snapshot().group)
        };
        let name = group(&world, 0);
        // Everybody once, the one that named the group last.
        for node in (0..world.plan.replicas).rev() {
            let commit = world.checks.committed().last();
            world.crash(node, Some(MS));
            world.run_until(world.now + 3000 * MS);
            held(&world);
            assert!(world.works(), "{}", world.describe());
            assert_eq!(group(&world, node), name);
            assert!(world.checks.committed().last() > commit);
        }
    }
}

#[test]
fn a_replaced_host_waits_while_too_few_others_are_normal() {
    for acceleration in both() {
        let mut plan = Plan::of(12, 100_000, acceleration).without_faults();
        (plan.explicit_bootstrap, plan.replacement) = (false, true);
        let mut world = quiet_as(plan);
        let last = world.plan.replicas - 1;
        // As many as may fail are unreachable, so that with the new host one too many has no state.
        for node in 1..=world.plan.faults() {
            world.isolate(node);
        }
        world.crash(last, Some(MS));
        world.run_until(world.now + 2000 * MS);
        held(&world);
        let status = |world: &crate::world::World| {
            world
                .process(last)
                .map(|process| process.core().snapshot().status)
        };
        assert_ne!(status(&world), Some(Status::Normal));
        world.join_network();
        world.run_until(world.now + 4000 * MS);
        held(&world);
        assert!(world.works(), "{}", world.describe());
    }
}

#[test]
fn a_primary_of_an_earlier_view_denies_nobody_a_change_when_the_later_ones_host_is_replaced() {
    for acceleration in both() {
        let mut plan = Plan::of(11, 100_000, acceleration).without_faults();
        (plan.explicit_bootstrap, plan.replacement) = (false, true);
        (plan.replicas, plan.programs) = (3, vec![plan.programs[0]; 3]);
        let mut world = quiet_as(plan);
        world.isolate(0);
        world.run_until(world.now + 2000 * MS);
        held(&world);
        assert_eq!(world.leader(), Some(1));
        // Replica 1 forgets the view that it led; replica 0 doesn't know of it yet, and hears both others again.
        world.crash(1, Some(MS));
        world.join_network();
        world.run_until(world.now + 3000 * MS);
        held(&world);
        assert!(world.works(), "{}", world.describe());
    }
}
