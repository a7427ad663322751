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
fn two_clients_in_one_view() {
    let explored = all_hold(Bounds {
        clients: 2,
        ..QUIET
    });
    assert_eq!(explored.highest, (2, 0));
    assert!(explored.states > 900, "{explored:?}");
}

#[test]
fn a_view_change_at_any_moment() {
    let explored = all_hold(Bounds {
        view_changes: 1,
        ..QUIET
    });
    assert_eq!(explored.highest, (1, 1));
    assert!(explored.states > 1_000, "{explored:?}");
}

#[test]
fn a_crash_and_a_view_change_at_any_moment() {
    let explored = all_hold(Bounds {
        view_changes: 1,
        crashes: 1,
        ..QUIET
    });
    assert_eq!(explored.highest, (1, 1));
    assert!(explored.states > 7_500, "{explored:?}");
}
