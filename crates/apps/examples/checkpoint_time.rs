//! How long a replica stands still while it takes a checkpoint, and while it restores one (docs/operations.md, "The size of
//! the state"): a group of one fills the key-value store, through the core's door.
//!
//! `cargo run --release -p electrode-apps --example checkpoint_time -- 100` for 100 MB in values of 1 KiB.

use std::time::{Duration, Instant};

use electrode_apps::{Kv, KvOp};
use electrode_vr::{
    ClientId, Config, Durability, GroupId, Input, Limits, Nonce, OpNumber, Replica, ReplicaId,
    RequestNumber, Start, StateMachine, Time, Timing,
};

const VALUE: [u8; 1024] = [7; 1024];

fn main() {
    let megabytes = std::env::args().nth(1).map_or(Ok(100), |word| word.parse());
    let Ok(megabytes) = megabytes else {
        eprintln!("usage: checkpoint_time MEGABYTES");
        std::process::exit(2);
    };
    let config = Config {
        replicas: 1,
        index: ReplicaId(0),
        timing: Timing::default(),
        limits: Limits::default(),
        fast_path: false,
        lease_reads: false,
        durability: Durability::Memory,
    };
    let start = Start::Bootstrap(GroupId(1));
    let mut replica = Replica::new(config, start, Kv::default(), Time(0), Nonce(1));
    let mut effects = Vec::new();
    let mut step = |replica: &mut Replica<Kv>, input| {
        effects.clear();
        let begun = Instant::now();
        replica.step(Time(1), input, &mut effects);
        begun.elapsed()
    };
    step(&mut replica, Input::Tick { entropy: Nonce(2) });
    let (mut usual, mut longest, mut checkpoints) = (Duration::ZERO, Duration::ZERO, 0);
    let values: u64 = megabytes * 1_000_000 / VALUE.len() as u64;
    let every = Limits::default().checkpoint_ops;
    // Up to a checkpoint, so that the last one is of the whole.
    for number in 1..=values.next_multiple_of(every) {
        let key = number.to_be_bytes();
        let op = KvOp::Put {
            key: &key,
            value: &VALUE,
        };
        let before = replica.snapshot().checkpoint;
        step(
            &mut replica,
            Input::Request {
                client: ClientId(1),
                request: RequestNumber(number),
                op: op.encode().into(),
            },
        );
        let took = step(&mut replica, Input::Flush);
        if replica.snapshot().checkpoint == before {
            usual = usual.max(took);
        } else {
            (longest, checkpoints) = (longest.max(took), checkpoints + 1);
        }
    }
    assert!(checkpoints > 0 && replica.snapshot().checkpoint > OpNumber(0));
    let state = replica.machine().snapshot();
    let begun = Instant::now();
    let mut other = Kv::default();
    other.restore(&state).expect("it is a state of the same");
    let restored = begun.elapsed();
    println!(
        "{:.0} MB of state: {:.3} s for a checkpoint ({checkpoints} taken), {:.3} s to restore; any other step: {:.3} s at most",
        state.len() as f64 / 1e6,
        longest.as_secs_f64(),
        restored.as_secs_f64(),
        usual.as_secs_f64(),
    );
}
