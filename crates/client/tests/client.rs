//! The client over real sockets, against a group that misbehaves as told.

#[path = "group/fake.rs"]
mod fake;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use electrode_client::{Client, ConnectError, Options, RequestError};
use electrode_vr::{Digest, RestoreError, StateMachine};
use fake::{FakeGroup, Trouble};
use smol::future::FutureExt;

/// Echoes.
struct Echo;

impl StateMachine for Echo {
    fn apply(&mut self, op: &[u8]) -> Vec<u8> {
        op.to_vec()
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest(0)
    }
}

fn group(trouble: Trouble) -> FakeGroup {
    FakeGroup::start(3, trouble, Echo)
}

fn client(addresses: &[SocketAddr], deadline_ms: u64) -> Client {
    let deadline = Duration::from_millis(deadline_ms);
    Client::connect(Options {
        deadline,
        ..Options::new(addresses.to_vec())
    })
    .unwrap()
}

/// Makes the requests at once, each in a task of its own, and gives back the answers in order.
fn ask_all(client: &Client, count: u32) -> Vec<Result<Vec<u8>, RequestError>> {
    let tasks: Vec<_> = (0..count)
        .map(|number| smol::spawn(client.request(number.to_le_bytes().to_vec())))
        .collect();
    smol::block_on(async {
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await);
        }
        answers
    })
}

fn expected(count: u32) -> Vec<Result<Vec<u8>, RequestError>> {
    (0..count)
        .map(|number| Ok(number.to_le_bytes().to_vec()))
        .collect()
}

#[test]
fn many_requests_at_once_are_each_answered_and_executed_once() {
    let group = group(Trouble::default());
    let client = client(&group.addresses, 5000);
    assert_eq!(ask_all(&client, 300), expected(300));
    assert_eq!(group.executed(), 300);
}

#[test]
fn loss_and_busy_replicas_cost_time_and_nothing_else() {
    let group = group(Trouble {
        lost: 10,
        busy: 10,
        ..Trouble::default()
    });
    let client = client(&group.addresses, 20_000);
    assert_eq!(ask_all(&client, 100), expected(100));
    assert_eq!(group.executed(), 100);
}

#[test]
fn the_client_follows_the_primary() {
    let group = group(Trouble::default());
    let client = client(&group.addresses, 5000);
    for view in [0, 1, 5, 6] {
        group.enter_view(view);
        let begun = Instant::now();
        assert_eq!(
            smol::block_on(client.request(b"x".to_vec())),
            Ok(b"x".to_vec())
        );
        // The former primary tells; no timer has to run out.
        assert!(
            begun.elapsed() < Duration::from_millis(45),
            "view {view}: {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn where_nobody_listens_a_request_ends_as_not_executed() {
    let addresses = group(Trouble::default()).addresses.clone();
    let client = client(&addresses, 300);
    let begun = Instant::now();
    let error = smol::block_on(client.request(b"x".to_vec())).unwrap_err();
    assert!(matches!(error, RequestError::Unavailable { .. }), "{error}");
    assert!(
        (300..400).contains(&begun.elapsed().as_millis()),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn where_somebody_listens_but_nobody_answers_the_outcome_is_unknown() {
    let group = group(Trouble {
        mute: true,
        ..Trouble::default()
    });
    let client = client(&group.addresses, 300);
    let begun = Instant::now();
    let error = smol::block_on(client.request(b"x".to_vec())).unwrap_err();
    assert!(
        matches!(error, RequestError::DeadlineUnknown { .. }),
        "{error}"
    );
    assert!(
        (300..400).contains(&begun.elapsed().as_millis()),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_forgotten_session_is_reported_and_the_next_request_begins_anew() {
    let group = group(Trouble::default());
    let client = client(&group.addresses, 2000);
    let ask = || smol::block_on(client.request(b"x".to_vec()));
    assert_eq!(ask(), Ok(b"x".to_vec()));
    group.forget_sessions();
    assert_eq!(ask(), Err(RequestError::SessionLost));
    assert_eq!(ask(), Ok(b"x".to_vec()));
}

#[test]
fn a_group_that_was_replaced_by_another_gets_nothing_executed() {
    let group = group(Trouble::default());
    let client = client(&group.addresses, 200);
    assert_eq!(
        smol::block_on(client.request(b"x".to_vec())),
        Ok(b"x".to_vec())
    );
    group.become_group(5);
    let error = smol::block_on(client.request(b"x".to_vec())).unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    assert_eq!(group.executed(), 1);
    let fresh = self::client(&group.addresses, 200);
    assert_eq!(
        smol::block_on(fresh.request(b"x".to_vec())),
        Ok(b"x".to_vec())
    );
}

#[test]
fn a_request_beyond_the_limit_is_refused_at_once() {
    let group = group(Trouble::default());
    let client = client(&group.addresses, 2000);
    let error = smol::block_on(client.request(vec![0; 32769])).unwrap_err();
    assert_eq!(
        error,
        RequestError::TooLarge {
            length: 32769,
            limit: 32768
        }
    );
    assert_eq!(
        smol::block_on(client.request(vec![7; 32768])),
        Ok(vec![7; 32768])
    );
}

#[test]
fn a_dropped_request_doesnt_stop_the_others() {
    let group = group(Trouble {
        lost: 20,
        ..Trouble::default()
    });
    let client = client(&group.addresses, 10_000);
    smol::block_on(async {
        for number in 0..20u8 {
            let request = client.request(vec![number]);
            let impatient = async {
                smol::Timer::after(Duration::from_micros(50)).await;
                Ok(vec![])
            };
            request.or(impatient).await.unwrap();
        }
    });
    assert_eq!(ask_all(&client, 10), expected(10));
}

#[test]
fn dropping_the_client_ends_what_waits() {
    let group = group(Trouble {
        mute: true,
        ..Trouble::default()
    });
    let client = client(&group.addresses, 60_000);
    let request = client.request(b"x".to_vec());
    drop(client);
    assert_eq!(smol::block_on(request), Err(RequestError::Closed));
}

#[test]
fn a_group_has_one_to_fifteen_replicas() {
    let connect =
        |count| Client::connect(Options::new(vec!["127.0.0.1:9".parse().unwrap(); count]));
    assert!(matches!(connect(0), Err(ConnectError::Replicas(0))));
    assert!(matches!(connect(16), Err(ConnectError::Replicas(16))));
    assert!(connect(15).is_ok());
}
