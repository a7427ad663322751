//! Starts that are refused, each with an error that says what to do.

use std::fs;

use electrode_replica::{Accelerate, InterfaceError, Options, RunError, StateError, run};
use electrode_vr::ReplicaId;

use crate::harness::{Client, Group};

fn refusal(options: Options) -> RunError {
    run(options).expect_err("it must not start")
}

#[test]
fn a_corrupt_promise_is_never_taken_for_a_first_start() {
    let mut group = Group::start();
    group.kill(1);
    let file = group.state_dir(1).join("promise");
    let text = fs::read_to_string(&file).unwrap();
    for damaged in [
        text.replace("view 0", "view 1"),
        text[..text.len() / 2].to_owned(),
        String::new(),
    ] {
        fs::write(&file, damaged).unwrap();
        let error = refusal(group.options(1));
        assert!(
            matches!(error, RunError::State(StateError::Corrupt { .. })),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("must not start as if it were new"),
            "{error}"
        );
    }
    fs::write(&file, text).unwrap();
    group.start_all();
}

#[test]
fn a_state_directory_in_use_is_refused() {
    let group = Group::start();
    let other = Group::idle(3, false);
    let error = refusal(Options {
        state_dir: group.state_dir(0),
        ..other.options(0)
    });
    assert!(
        matches!(error, RunError::State(StateError::Locked(_))),
        "{error}"
    );
}

#[test]
fn the_state_of_another_replica_is_refused() {
    let mut group = Group::start();
    group.kill(0);
    group.kill(1);
    let error = refusal(Options {
        state_dir: group.state_dir(0),
        ..group.options(1)
    });
    assert!(
        matches!(error, RunError::State(StateError::Mismatch { .. })),
        "{error}"
    );
}

#[test]
fn a_port_in_use_is_refused_with_a_hint() {
    let group = Group::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let error = refusal(Options {
        state_dir: elsewhere.path().to_owned(),
        ..group.options(0)
    });
    assert!(matches!(error, RunError::Bind { .. }), "{error}");
    assert!(
        error
            .to_string()
            .ends_with("is this replica running already?"),
        "{error}"
    );
}

#[test]
fn an_explicit_bootstrap_of_one_replica_takes_the_others_in() {
    let mut group = Group::idle(3, false);
    // Without a third that could say it is new, so that only the operator's word can begin the group.
    group.thread(Options {
        bootstrap: true,
        ..group.options(1)
    });
    let options = group.options(0);
    group.thread(options);
    let mut client = Client::new(&group, 1);
    client.call(b"two of three");
    let options = group.options(2);
    group.thread(options);
    client.call(b"all three");
    group.wait_equal(2);
}

#[test]
fn a_second_bootstrap_is_refused() {
    let mut group = Group::start();
    group.kill(0);
    let error = refusal(Options {
        bootstrap: true,
        ..group.options(0)
    });
    assert!(matches!(error, RunError::BootstrapTwice(_)), "{error}");
}

#[test]
fn groups_and_indices_that_cannot_be_are_refused() {
    let group = Group::idle(2, false);
    assert!(matches!(refusal(group.options(0)), RunError::GroupSize(2)));
    let group = Group::idle(3, false);
    let options = Options {
        index: ReplicaId(3),
        ..group.options(0)
    };
    assert!(matches!(refusal(options), RunError::NoSuchReplica { .. }));
}

#[test]
fn acceleration_that_was_demanded_and_is_impossible_is_an_error() {
    let group = Group::idle(3, false);
    let demanded = Accelerate::Only(Accelerate::ALL);
    let error = refusal(Options {
        accelerate: demanded,
        ..group.options(0)
    });
    assert!(
        matches!(error, RunError::Interface(InterfaceError::Local(_))),
        "{error}"
    );
    let interface = Some("no-such-link".to_owned());
    let error = refusal(Options {
        accelerate: demanded,
        interface,
        ..group.options(0)
    });
    assert!(error.to_string().contains("no-such-link"), "{error}");
}

#[test]
fn a_metrics_address_in_use_is_refused() {
    let group = Group::idle(3, false);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = refusal(Options {
        metrics: Some(taken.local_addr().unwrap()),
        ..group.options(0)
    });
    assert!(matches!(error, RunError::Metrics { .. }), "{error}");
}
