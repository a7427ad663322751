//! Replicas whose clocks are not the machine's, which the programs read.

use crate::group::Group;

/// Requests one after the other: many times as long as a primary waits for a sign of life.
const REQUESTS: u64 = 3000;

#[test]
fn a_primary_in_a_time_namespace_hears_its_backups_through_the_kernel() {
    let Some(mut group) = Group::accelerated(3) else {
        return;
    };
    // Whoever is the primary in the end.
    for index in 0..3 {
        group.kill(index);
        group.spawn_with_clocks_ahead(index, 5000);
        group.wait_ready();
    }
    // It would step down and give its view away, if it took the signs of life for 5000 seconds old.
    group.expect_kernel_commits(REQUESTS);
    group.wait_equal();
}
