//! R7: replicas with and without programs make one group, and one history.

use std::collections::BTreeSet;
use std::time::Instant;

use electrode_replica::StatusReport;

use crate::group::{Group, kernel};
use crate::load::{Load, Shape};

/// In so many views everybody has been the primary, or something prevents somebody.
const MAX_TURNS: usize = 20;

#[test]
fn replicas_accelerated_each_in_its_own_way_agree() {
    let ways = ["all", "none", "broadcast", "prepare", "prepare-ok"];
    let Some(mut group) = Group::start(&ways, false) else {
        return;
    };
    let load = Load::start(&group, Shape::default());
    let mut primaries = BTreeSet::new();
    // Each gets its turn as the primary, since that is where broadcast and prepare-ok are at work. Views can be skipped.
    for _ in 0..MAX_TURNS {
        let primary = group.primary();
        primaries.insert(primary);
        load.wait_for(&group, 200);
        expect_only_what_was_asked_for(&group, &ways);
        group.kill(primary);
        load.wait_for(&group, 100);
        group.spawn(primary);
        group.wait_ready();
        if primaries.len() == ways.len() {
            break;
        }
    }
    let proved = load.prove(&group);
    println!(
        "mixed: {} writes under primaries {primaries:?}",
        proved.acknowledged
    );
    group.wait_equal();
    assert_eq!(primaries.len(), ways.len(), "{primaries:?}");
}

/// Waits until the programs that were asked for do their work; the others never do any.
fn expect_only_what_was_asked_for(group: &Group, ways: &[&str]) {
    let since = Instant::now();
    let reports = group.wait("at work as asked for", |reports| {
        reports.iter().all(|report| {
            let all = did(report).into_iter();
            let mut asked = all.filter(|(program, _)| asked(ways, report, program));
            asked.all(|(program, count)| !has_its_turn(program, report) || count > 0)
        })
    });
    println!("  all are at work after {:?}", since.elapsed());
    for report in reports {
        for (program, count) in did(&report) {
            assert!(
                asked(ways, &report, program) || count == 0,
                "{program} of {}\n{}",
                report.index,
                group.describe()
            );
        }
    }
}

fn asked(ways: &[&str], report: &StatusReport, program: &str) -> bool {
    let way = ways[usize::from(report.index)];
    way == "all" || way == program
}

/// What each program has done on a replica.
fn did(report: &StatusReport) -> [(&'static str, u64); 3] {
    let completed = kernel(report, "prepare_ok", "completed")
        + kernel(report, "prepare_ok", "completed_noticed");
    [
        ("broadcast", kernel(report, "broadcast", "handled")),
        ("prepare", kernel(report, "prepare", "stored")),
        ("prepare-ok", completed),
    ]
}

/// Whether the program is at work in the role that the replica has.
fn has_its_turn(program: &str, report: &StatusReport) -> bool {
    (program == "prepare") == (report.role == "backup")
}
