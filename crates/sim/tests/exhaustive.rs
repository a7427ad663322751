//! All states of small groups, each within bounds that a test can afford. Larger ones: `cargo xtask sim --exhaustive`.

use electrode_sim::{Bounds, Explored, explore};

/// Nothing that costs: no request, no fault.
const QUIET: Bounds = Bounds {
    replicas: 3,
    clients: 1,
    ops: 1,
    view_changes: 0,
    crashes: 0,
    standing: 0,
    around: 0,
    resends: 0,
    window: 1,
    checkpoint_ops: 1 << 20,
    most_states: u64::MAX,
};

#[track_caller]
fn all_hold(bounds: Bounds) -> Explored {
    let explored = explore(&bounds, |_| {}).unwrap_or_else(|found| {
        let steps = found.steps.join("\n");
        panic!("{found}\n{steps}")
    });
    println!("{bounds:?}\n  {explored:?}");
    assert!(explored.complete, "all states were reached");
    explored
}

#[test]
fn two_requests_at_once_in_one_view() {
    let explored = all_hold(Bounds {
        clients: 2,
        window: 2,
        ..QUIET
    });
    assert_eq!(explored.highest, (2, 0));
    assert!(explored.states > 5_000, "{explored:?}");
}

#[test]
fn two_requests_and_a_view_change_at_any_moment() {
    let explored = all_hold(Bounds {
        clients: 2,
        view_changes: 1,
        ..QUIET
    });
    assert_eq!(explored.highest, (2, 1));
    assert!(explored.states > 10_000, "{explored:?}");
}

#[test]
fn a_crash_and_two_view_changes_at_any_moment() {
    let explored = all_hold(Bounds {
        view_changes: 2,
        crashes: 1,
        ..QUIET
    });
    assert_eq!(explored.highest, (1, 2));
    assert!(explored.states > 50_000, "{explored:?}");
}

#[test]
fn packets_around_the_programs_and_retries_with_a_crash_and_a_view_change() {
    let explored = all_hold(Bounds {
        view_changes: 1,
        crashes: 1,
        around: 1,
        resends: 1,
        ..QUIET
    });
    assert_eq!(explored.highest, (1, 1));
    assert!(explored.states > 8_000, "{explored:?}");
}

#[test]
fn a_program_that_stands_still_and_a_view_change_at_any_moment() {
    let explored = all_hold(Bounds {
        view_changes: 1,
        standing: 1,
        ..QUIET
    });
    assert_eq!(explored.highest, (1, 1));
    assert!(explored.states > 30_000, "{explored:?}");
}
