//! Replicas whose clocks are not the machine's, which the programs read.

use std::io::Write;
use std::time::Duration;

use electrode_apps::KvOp;
use electrode_lab::has_time_namespaces;

use crate::group::Group;

/// Requests one after the other, for many times as long as a primary waits for signs of life.
const REQUESTS: u64 = 8000;

/// A machine that stands still makes any primary step down; that it does so each time would be strange.
const ATTEMPTS: u32 = 5;

/// How often the primary of now has stepped down, and its view.
fn support(group: &Group) -> (usize, u64) {
    let primary = group.primary();
    let stepped_down = group.logged(primary, "stepped down");
    (stepped_down, group.expect_status(primary).view)
}

#[test]
fn a_primary_in_a_time_namespace_hears_its_backups_through_the_kernel() {
    let Some(mut group) = Group::accelerated(3) else {
        return;
    };
    if !has_time_namespaces() {
        let line = "SKIPPED: clocks of one's own need time namespaces (Linux 5.6, util-linux)\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
        return;
    }
    // Whoever is the primary in the end.
    for index in 0..3 {
        group.kill(index);
        group.spawn_with_clocks_ahead(index, 5000);
        group.wait_ready();
    }
    let client = group.connect(Duration::from_secs(30));
    // One that takes its backups' signs of life for 5000 seconds old steps down several times a second.
    let stays = (0..ATTEMPTS).any(|_| {
        group.wait_ready();
        let before = support(&group);
        for number in 0..REQUESTS {
            let value = number.to_string();
            let op = KvOp::Put {
                key: b"clock",
                value: value.as_bytes(),
            };
            smol::block_on(client.request(op.encode())).unwrap();
        }
        group.wait_ready();
        support(&group) == before
    });
    assert!(stays, "{}", group.describe());
    group.expect_kernel_commits(100);
    group.wait_equal();
}
