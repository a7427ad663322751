//! A state that takes longer to fetch than the group takes from one checkpoint to the next.

use electrode_vr::Status;

use super::{both, held, quiet_as};
use crate::plan::{MS, Plan};

#[test]
fn who_lost_a_large_state_has_it_back_in_bounded_time_while_the_group_works() {
    for acceleration in both() {
        let mut plan = Plan::of(21, 1_000_000, acceleration)
            .without_faults()
            .in_memory();
        (plan.replicas, plan.programs) = (3, vec![plan.programs[0]; 3]);
        (plan.clients, plan.pipeline, plan.think) = (4, 2, 2 * MS);
        (plan.keys, plan.large, plan.delay) = (300, 3000, MS / 10);
        (plan.limits.checkpoint_ops, plan.limits.chunk_bytes) = (8, 64);
        let mut world = quiet_as(plan);
        world.run_until(world.now + 2000 * MS);
        let last = world.plan.replicas - 1;
        let (before, began) = (world.checks.committed().last(), world.now);
        world.crash(last, Some(MS));
        let status = |world: &crate::world::World| {
            let process = world.process(last);
            process.map(|process| process.core().snapshot().status)
        };
        while status(&world) != Some(Status::Normal) && world.now < began + 1500 * MS {
            world.run_until(world.now + 10 * MS);
        }
        held(&world);
        let ops = world.checks.committed().last().0 - before.0;
        assert!(world.works(), "{ops} ops later: {}", world.describe());
        assert!(ops > 3 * world.plan.limits.checkpoint_ops, "{ops} ops");
        // It catches up with what was ordered meanwhile.
        let behind = |world: &crate::world::World| {
            let process = world.process(last).expect("it is up");
            world.checks.committed().last().0 - process.core().snapshot().commit.0
        };
        while behind(&world) > 64 && world.now < began + 6000 * MS {
            world.run_until(world.now + 10 * MS);
        }
        held(&world);
        assert!(
            world.works() && behind(&world) <= 64,
            "{}",
            world.describe()
        );
    }
}
