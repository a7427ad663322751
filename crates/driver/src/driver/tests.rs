//! The order of things, on a system that writes down what it is asked.

mod paper;

use std::sync::Arc;

use electrode_vr::{ClientId, Entry, Message, OpNumber, Prepare, ReplicaId, RequestNumber, View};

use super::{Armed, BATCH, Driver, HEARD, MS, Ready, Rest};
use crate::{Received, Stopped};
use paper::{Paper, begin, started};

fn request(number: u64) -> Received {
    Received::Request {
        client: ClientId(7),
        request: RequestNumber(number),
        op: Arc::from(&b"op"[..]),
    }
}

fn prepare(op: u64) -> Prepare {
    Prepare {
        view: View(0),
        first: OpNumber(op),
        commit: OpNumber(0),
        entries: vec![Entry {
            client: ClientId(7),
            request: RequestNumber(op),
            op: Arc::from(&b"op"[..]),
        }],
    }
}

fn turn(driver: &mut Driver<electrode_apps::Null>, paper: &mut Paper) -> Result<(), Stopped> {
    driver.turn(
        paper,
        Ready {
            socket: true,
            disk: false,
        },
    )
}

#[test]
fn a_promise_is_on_disk_behind_what_was_said_and_before_the_kernel_is_armed() {
    let (driver, paper) = started(0, true);
    assert_eq!(driver.armed(), Some(Armed::Primary));
    let at = |what: &str| paper.lines.iter().position(|line| line.0 == what);
    let order = ["flush", "barrier", "store", "joined", "armed"].map(at);
    assert!(order[0].is_some() && order.is_sorted(), "{:?}", paper.lines);
}

#[test]
fn what_the_kernel_stored_is_taken_before_a_datagram_and_before_a_tick() {
    let (mut driver, mut paper) = begin(1, true);
    assert_eq!(driver.armed(), Some(Armed::Backup));
    paper.clock = driver.core().deadline().unwrap();
    paper.accept(prepare(1));
    paper.inbox.push(Received::Message {
        from: ReplicaId(0),
        message: Message::Commit {
            view: View(0),
            commit: OpNumber(1),
        },
    });
    turn(&mut driver, &mut paper).unwrap();
    let given = paper.lines("given");
    let kinds: Vec<&str> = given.iter().map(String::as_str).collect();
    assert!(
        matches!(kinds[..], ["stored", "message", .., "flush"]),
        "{kinds:?}"
    );
    assert_eq!(driver.core().snapshot().commit, OpNumber(1));
}

#[test]
fn one_copy_leaves_for_the_kernel_and_one_for_each_backup_that_it_does_not_reach() {
    let (mut driver, mut paper) = begin(0, true);
    paper.carrier = Some((ReplicaId(1), vec![ReplicaId(2)]));
    paper.inbox.push(request(1));
    turn(&mut driver, &mut paper).unwrap();
    let sent = paper.lines("send");
    assert_eq!(
        sent,
        ["Prepare with flags 1 to 1", "Prepare with flags 0 to 2"]
    );
    assert_eq!(driver.counts().broadcasts, 1);

    paper.carrier = None;
    paper.inbox.push(request(2));
    paper.mark(OpNumber(1), 0b110);
    turn(&mut driver, &mut paper).unwrap();
    let sent = paper.lines("send");
    assert_eq!(
        sent,
        ["Prepare with flags 0 to 1", "Prepare with flags 0 to 2"]
    );
    assert_eq!(driver.counts().broadcasts_plain, 1);
}

#[test]
fn a_group_without_a_fast_path_sends_plainly_and_counts_nothing() {
    let (mut driver, mut paper) = begin(0, false);
    paper.carrier = Some((ReplicaId(1), Vec::new()));
    paper.inbox.push(request(1));
    turn(&mut driver, &mut paper).unwrap();
    assert_eq!(paper.lines("send").len(), 2);
    assert_eq!(
        (driver.counts().broadcasts, driver.counts().broadcasts_plain),
        (0, 0)
    );
}

#[test]
fn a_record_that_comes_late_is_waited_for_and_one_that_never_comes_stops_the_replica() {
    let fenced = |comes: bool, pause: u64| {
        let (mut driver, mut paper) = begin(1, true);
        paper.pause = pause;
        paper.accept(prepare(1));
        let late = paper.ring.pop_front();
        paper.late = late.filter(|_| comes);
        // Another view fences.
        paper.inbox.push(Received::Message {
            from: ReplicaId(2),
            message: Message::StartViewChange { view: View(1) },
        });
        let ended = turn(&mut driver, &mut paper);
        (ended, driver.core().snapshot().op, paper)
    };
    let (ended, op, mut paper) = fenced(true, 300 * MS);
    assert_eq!((ended, op), (Ok(()), OpNumber(1)));
    let given = paper.lines("given");
    let at = |what: &str| given.iter().position(|line| line == what);
    assert!(at("stored") < at("fenced"), "{given:?}");

    // The process itself was stopped while the record came.
    let (ended, op, _) = fenced(true, 2000 * MS);
    assert_eq!((ended, op), (Ok(()), OpNumber(1)));

    let (ended, ..) = fenced(false, 300 * MS);
    let (last_op, op) = (OpNumber(1), OpNumber(0));
    assert_eq!(ended, Err(Stopped::FenceIncomplete { last_op, op }));
}

#[test]
fn a_quorum_that_is_there_already_puts_sleep_off_once_and_then_the_system_is_asked() {
    let (mut driver, mut paper) = begin(0, true);
    paper.inbox.push(request(1));
    turn(&mut driver, &mut paper).unwrap();
    let now = paper.clock;
    assert!(matches!(driver.rest(&mut paper, now), Rest::Until(Some(_))));
    driver.woke(&mut paper);
    paper.mark(OpNumber(1), 0b110);
    assert_eq!(driver.rest(&mut paper, now), Rest::Again);
    assert_eq!(driver.rest(&mut paper, now), Rest::Restless);
}

#[test]
fn a_backup_whose_kernel_stores_executes_soon_and_an_idle_one_sleeps() {
    let (mut driver, mut paper) = begin(1, true);
    paper.accept(prepare(1));
    turn(&mut driver, &mut paper).unwrap();
    let now = paper.clock;
    assert_eq!(
        driver.rest(&mut paper, now),
        Rest::Until(Some(now.plus(5 * MS)))
    );
    let idle = now.plus(200 * MS);
    assert_eq!(
        driver.rest(&mut paper, idle),
        Rest::Until(driver.core().deadline())
    );
}

#[test]
fn a_full_batch_is_followed_by_another_before_the_turn_ends() {
    let (mut driver, mut paper) = begin(0, false);
    for _ in 0..BATCH + 1 {
        paper.inbox.push(request(1));
    }
    turn(&mut driver, &mut paper).unwrap();
    assert_eq!(driver.counts().requests, BATCH as u64 + 1);
    assert_eq!(paper.lines("receive"), ["64", "1"]);
}

#[test]
fn a_primary_hears_whom_its_kernel_heard_every_ten_milliseconds() {
    let (mut driver, mut paper) = begin(0, true);
    let mut hear = |paper: &mut Paper| {
        paper.heard(1, OpNumber(0));
        driver.turn(paper, Ready::default()).unwrap();
        paper.lines("given").contains(&"heard".to_owned())
    };
    paper.clock = paper.clock.plus(HEARD);
    assert!(hear(&mut paper));
    assert!(!hear(&mut paper));
    paper.clock = paper.clock.plus(HEARD);
    assert!(hear(&mut paper));
}
