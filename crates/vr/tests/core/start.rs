//! The first start (protocol.md, rule 4).

use electrode_vr::{Effect, GroupId, Message, Nonce, Promise, Start, Status, View};

use crate::support::*;

fn hello(nonce: u64) -> Message {
    Message::Hello {
        nonce: Nonce(nonce),
        group: GroupId(0),
    }
}

fn hello_ok(nonce: Nonce, group: u64) -> Message {
    Message::HelloOk {
        nonce,
        group: GroupId(group),
    }
}

/// A new replica that has asked, and its nonce.
fn asking(index: u8) -> (Bench, Nonce) {
    let mut bench = Bench::unstarted(config(3, index), Start::New);
    let effects = bench.tick();
    let [
        Effect::Broadcast(Message::Hello {
            nonce,
            group: GroupId(0),
        }),
    ] = effects[..]
    else {
        panic!("{effects:?}")
    };
    (bench, nonce)
}

/// Replica 0, after it named the group, and the group.
fn named() -> (Bench, GroupId) {
    let (mut bench, nonce) = asking(0);
    bench.hear(1, hello(11));
    bench.hear(2, hello(22));
    assert_eq!(bench.hear(1, hello_ok(nonce, 0)), []);
    let effects = bench.hear(2, hello_ok(nonce, 0));
    let Effect::Persist(Promise {
        group,
        view: View(0),
    }) = effects[0]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(
        effects[1..],
        [
            entered("normal", 0, true),
            Effect::Broadcast(start_view(0, 0, &[])),
            send(
                1,
                Message::Bootstrap {
                    nonce: Nonce(11),
                    group
                }
            ),
            send(
                2,
                Message::Bootstrap {
                    nonce: Nonce(22),
                    group
                }
            ),
        ]
    );
    (bench, group)
}

#[test]
fn rule_4_a_quorum_of_new_replicas_is_not_enough() {
    let (mut bench, nonce) = asking(0);
    bench.hear(1, hello(11));
    assert_eq!(bench.hear(1, hello_ok(nonce, 0)), []);
    assert_eq!(
        bench.hear(2, hello_ok(Nonce(3), 0)),
        [],
        "to another question"
    );
    assert_eq!(bench.shows().status, Status::Starting);
}

#[test]
fn rule_4_all_new_and_replica_0_names_the_group() {
    let (bench, group) = named();
    assert_ne!(group, GroupId(0));
    assert_eq!(bench.shows().group, group);
}

#[test]
fn a_lost_bootstrap_is_repeated_to_the_same_life_only() {
    let (mut bench, group) = named();
    let again = Message::Bootstrap {
        nonce: Nonce(22),
        group,
    };
    assert_eq!(bench.hear(2, hello(22)), [send(2, again)]);
    assert_eq!(
        bench.hear(2, hello(23)),
        [send(2, hello_ok(Nonce(23), group.0))]
    );
}

#[test]
fn bootstrap_is_taken_once_and_for_the_own_nonce() {
    let (mut bench, nonce) = asking(1);
    let bootstrap = |nonce, group| Message::Bootstrap { nonce, group };
    assert_eq!(bench.hear(0, bootstrap(Nonce(4), GROUP)), []);
    assert_eq!(
        bench.hear(0, bootstrap(nonce, GROUP)),
        [persist(0), entered("normal", 0, false)]
    );
    assert_eq!(bench.hear(0, bootstrap(nonce, GroupId(8))), []);
}

#[test]
fn an_explicit_bootstrap_of_any_replica_takes_the_others_in_once() {
    let mut bench = Bench::normal(config(3, 2));
    let bootstrap = |nonce| Message::Bootstrap {
        nonce: Nonce(nonce),
        group: GROUP,
    };
    // Again for the same life, in case the first was lost; never for another: that one has lost what it knew.
    assert_eq!(bench.hear(0, hello(5)), [send(0, bootstrap(5))]);
    assert_eq!(bench.hear(1, hello(6)), [send(1, bootstrap(6))]);
    assert_eq!(bench.hear(0, hello(5)), [send(0, bootstrap(5))]);
    assert_eq!(bench.hear(0, hello(8)), [send(0, hello_ok(Nonce(8), 7))]);
    // Who belongs to a group already isn't at its first start.
    let member = Message::Hello {
        nonce: Nonce(9),
        group: GroupId(1),
    };
    let mut bench = Bench::normal(config(3, 2));
    assert_eq!(bench.hear(0, member), [send(0, hello_ok(Nonce(9), 7))]);

    let (mut new, nonce) = asking(0);
    assert_eq!(
        new.hear(
            2,
            Message::Bootstrap {
                nonce,
                group: GROUP
            }
        )[..2],
        [persist(0), entered("normal", 0, true)]
    );
}

#[test]
fn rule_4_an_empty_disk_in_a_living_group_leads_to_recovery() {
    let (mut bench, nonce) = asking(2);
    assert_eq!(bench.hear(0, hello_ok(nonce, 7)), [persist(0)]);
    assert_eq!(bench.shows().status, Status::Recovering);
    assert!(matches!(
        bench.tick()[1],
        Effect::Broadcast(Message::Recovery {
            promised: View(0),
            ..
        })
    ));
}

#[test]
fn another_replicas_word_counts_when_replica_0_stays_silent() {
    let (mut bench, nonce) = asking(2);
    assert_eq!(bench.hear(1, hello_ok(nonce, 7)), []);
    assert_eq!(bench.shows().status, Status::Starting);
    let effects: Vec<_> = (0..12).flat_map(|_| bench.tick_after(70)).collect();
    assert!(effects.contains(&persist(0)));
    assert_eq!(bench.shows().status, Status::Recovering);
}

#[test]
fn everybody_answers_hello() {
    let (mut new, _) = asking(1);
    assert_eq!(new.hear(2, hello(5)), [send(2, hello_ok(Nonce(5), 0))]);
    let (mut normal, group) = named();
    assert_eq!(
        normal.hear(2, hello(5)),
        [send(2, hello_ok(Nonce(5), group.0))]
    );
}

#[test]
fn a_group_of_one_names_itself() {
    let mut bench = Bench::unstarted(config(1, 0), Start::New);
    let effects = bench.tick();
    assert!(matches!(effects[..], [Effect::Persist(_), Effect::Note(_)]));
    assert_eq!(bench.shows().status, Status::Normal);
}
