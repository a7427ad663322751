use electrode_vr::Message;

use super::super::locals::Menu;
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

/// Everything that was reached within the bounds.
fn explored(bounds: Bounds) -> Search<3> {
    let mut search = Search::<3>::new(bounds);
    let explored = search.explore(|_| {}).expect("everything holds");
    assert!(explored.complete);
    search
}

/// In each state of a replica each message that is forgotten there is offered to it once more: nothing else can happen with it
/// than without.
#[track_caller]
fn what_is_forgotten_has_no_effect(bounds: Bounds) {
    let mut search = explored(bounds);
    let (messages, _) = search.letters.counts();
    let mut offered = 0;
    for local in (0..).take(search.locals.len()) {
        let (gate, promised) = (
            search.locals.local(local).gate,
            search.locals.local(local).promised,
        );
        for letter in (0..).take(messages) {
            if !search.letters.is_forgotten(gate, letter) {
                continue;
            }
            let (to, message) = (
                search.letters.letter(letter).to,
                &search.letters.letter(letter).message,
            );
            let beside = match **message {
                // What the primary knows of its backup changes, but not what it makes of it.
                Message::PrepareOk { view, .. } if promised == view => continue,
                // Its sender said this before.
                Message::DoViewChange { view, .. } => {
                    let from = search.letters.letter(letter).from;
                    let before = Message::StartViewChange { view };
                    vec![search.letters.number(from, to, before)]
                }
                _ => Vec::new(),
            };
            let mut menu = |set: Vec<u32>| {
                let set = search.letters.set(set);
                let (letters, pasts) = (&mut search.letters, &mut search.pasts);
                search.locals.menu((local, set), to, letters, pasts)
            };
            let without = menu(beside.clone());
            let with = menu([&beside[..], &[letter]].concat());
            let can = |menu: &Menu| (menu.changes.clone(), menu.free.clone(), menu.acks);
            let message = &search.letters.letter(letter).message;
            assert_eq!(can(&with), can(&without), "{message:?} to replica {to}");
            offered += 1;
        }
    }
    assert!(offered > 2_000, "{offered} messages were offered");
}

#[test]
fn what_is_forgotten_has_no_effect_with_two_requests_and_a_view_change() {
    what_is_forgotten_has_no_effect(Bounds {
        clients: 2,
        view_changes: 1,
        ..QUIET
    });
}

#[test]
fn what_is_forgotten_has_no_effect_with_a_view_change_and_a_crash() {
    what_is_forgotten_has_no_effect(Bounds {
        view_changes: 1,
        crashes: 1,
        ..QUIET
    });
}
