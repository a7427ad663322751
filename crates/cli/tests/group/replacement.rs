//! Dead hosts, replaced under the same index: machine and disk are gone, and another one comes up with an empty directory.

use crate::group::Group;
use crate::load::{Load, Shape};

#[test]
fn a_replaced_host_recovers_under_its_index_and_never_begins_a_group() {
    let Some(mut group) = Group::accelerated(3) else {
        return;
    };
    let name = group.expect_status(0).group;
    let load = Load::start(&group, Shape::default());
    load.wait_for(&group, 200);
    // First a backup, then the primary: replica 0, which named the group and alone could name another.
    for victim in [group.backups()[0], group.primary()] {
        group.kill(victim);
        group.lose_disk(victim);
        load.wait_for(&group, 200);
        group.spawn(victim);
        let reports = group.wait_ready();
        assert!(reports.iter().all(|report| report.group == name));
        assert_ne!(group.primary(), victim);
        load.wait_for(&group, 200);
    }
    let proved = load.prove(&group);
    println!("two hosts replaced: {} writes", proved.acknowledged);
    group.wait_equal();
    // What the new hosts recovered carries the group when the only one that was never replaced is gone.
    let original = (0..3).find(|index| !group.was_replaced(*index));
    let original = original.expect("one of three");
    group.kill(original);
    group.wait_led_by_another(original);
    group.expect_kernel_commits(100);
}

#[test]
fn a_replaced_host_gets_the_log_on_its_disk_again_in_disk_mode() {
    let Some(mut group) = Group::durable(3) else {
        return;
    };
    let load = Load::start(&group, Shape::default());
    load.wait_for(&group, 100);
    let victim = group.primary();
    group.kill(victim);
    group.lose_disk(victim);
    load.wait_for(&group, 100);
    group.spawn(victim);
    group.wait_ready();
    let proved = load.prove(&group);
    println!(
        "a host and its disk replaced: {} writes",
        proved.acknowledged
    );
    let before = group.wait_equal();
    // A power cut: everybody comes up from disk alone, the new one among the f + 1 that have to.
    for index in group.live() {
        group.kill(index);
    }
    group.spawn(victim);
    group.spawn((victim + 1) % 3);
    let after = group.wait_equal();
    assert!(after[0].commit >= before[0].commit);
    assert_eq!(after[0].group, before[0].group);
}
