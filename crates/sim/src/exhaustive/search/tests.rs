use super::*;

/// One request, and nothing that is bounded.
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

/// Every state of a replica, every message, and every past that is reached if each step is a state of its own is reached if silent
/// steps wait; with fewer states.
#[track_caller]
fn silent_steps_hide_nothing(bounds: Bounds) {
    let explore = |quiet| {
        let mut search = Search::<3>::new(bounds);
        search.quiet = quiet;
        search.explore(|_| {}).expect("everything holds")
    };
    let (every, fewer) = (explore(false), explore(true));
    println!("{every:?}\n{fewer:?}");
    let reached = |explored: &Explored| {
        (
            explored.replica_states,
            explored.messages,
            explored.pasts,
            explored.highest,
            explored.complete,
        )
    };
    assert_eq!(reached(&fewer), reached(&every));
    assert!(fewer.states < every.states);
}

#[test]
fn silent_steps_hide_nothing_of_two_requests() {
    silent_steps_hide_nothing(Bounds {
        clients: 2,
        window: 2,
        ..QUIET
    });
}

#[test]
fn silent_steps_hide_nothing_of_a_view_change_and_a_crash() {
    silent_steps_hide_nothing(Bounds {
        view_changes: 1,
        crashes: 1,
        ..QUIET
    });
}

#[test]
fn silent_steps_hide_nothing_of_programs_that_stand_still() {
    silent_steps_hide_nothing(Bounds {
        standing: 1,
        resends: 1,
        ..QUIET
    });
}

#[test]
fn silent_steps_hide_nothing_of_packets_around_the_programs() {
    silent_steps_hide_nothing(Bounds {
        view_changes: 1,
        around: 1,
        ..QUIET
    });
}
