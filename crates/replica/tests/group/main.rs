//! Whole replicas: over loopback, without the kernel's help, what a group does, what a start refuses, what hostile or
//! mistaken datagrams can't do; on hosts of their own, with the kernel's help.

mod disk;
mod failures;
mod harness;
mod hostility;
mod kernel;
mod service;
mod starts;

use electrode_replica::{App, Options, run};
use electrode_vr::{Durability, Limits, ReplicaId, Timing};

/// Not a test of its own: other tests start this binary again to get replicas that they can kill and measure.
#[test]
#[ignore = "run by other tests as their child process"]
fn replica_in_a_process_of_its_own() {
    let arguments = std::env::var(harness::CHILD).expect("started by Group::spawn");
    let mut words = arguments.split(' ');
    let mut word = || {
        words
            .next()
            .expect("index, state directory, addresses, programs, on disk, checkpoint")
    };
    let index = ReplicaId(word().parse().unwrap());
    let state_dir = word().into();
    let replicas = word()
        .split(',')
        .map(|address| address.parse().unwrap())
        .collect();
    let accelerate = word().parse().unwrap();
    let durability = if word() == "true" {
        Durability::Disk
    } else {
        Durability::Memory
    };
    let limits = Limits {
        checkpoint_ops: word().parse().unwrap(),
        ..Limits::default()
    };
    let options = Options {
        app: App::Null,
        accelerate,
        durability,
        limits,
        handle_signals: true,
        timing: Timing::default().slower(harness::slowness()),
        ..Options::new(replicas, index, state_dir)
    };
    run(options).unwrap();
}
