//! The simulator looks: each rule that is taken out of core, programs or user space's half is noticed within a stated
//! number of seeds. Run by `cargo xtask sim --mutations`; needs the feature `mutations`.
//!
//! One process, one test: the switch is the process's.

use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use electrode_sim::{Acceleration, Failure, Plan, Programs, run};
use electrode_vr::mutations::{Mutation, activate};

/// Each rule is noticed within so many seeds of 500 requests, unless [`patience`] says otherwise.
const SEEDS: u64 = 100;

/// Seeds in which nothing is taken out: with the feature there are so few quorum slots that they come round within a run.
const UNMUTATED: u64 = 150;

/// Rules whose absence shows rarely: it takes a chain of events.
fn patience(mutation: Mutation) -> u64 {
    if let Some(seeds) = std::env::var("SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
    {
        return seeds;
    }
    match mutation {
        Mutation::RecoveryWithoutNonce
        | Mutation::RecoveryBelowPromise
        | Mutation::HeardOfOlderGenerations
        | Mutation::ClientTableNotRolledBack
        | Mutation::OlderAcksCounted
        | Mutation::ViewReadAgain
        | Mutation::SlotByPlainOr
        | Mutation::LeaseNotWaitedFor
        | Mutation::LeaseFromAckTime
        | Mutation::DamageTakenForTorn
        | Mutation::MarkIgnored => 5 * SEEDS,
        _ => SEEDS,
    }
}

/// The first seed; `FROM` asks for others than those that are known.
fn first() -> u64 {
    let from = std::env::var("FROM").ok();
    from.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Runs seeds on every CPU until one fails: the failure, and how many seeds it took.
fn search(seeds: u64) -> (Option<Failure>, u64) {
    let next = AtomicU64::new(first());
    let found: Mutex<Option<Failure>> = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let programs = Rc::new(Programs::new().expect("a mutated program still loads"));
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first() + seeds || found.lock().expect("no panic with it").is_some()
                    {
                        return;
                    }
                    if let Err(failure) = run(&Plan::of(seed, 500, Acceleration::Seeded), &programs)
                    {
                        let mut found = found.lock().expect("no panic with it");
                        if found.as_ref().is_none_or(|other| failure.seed < other.seed) {
                            *found = Some(failure);
                        }
                    }
                }
            });
        }
    });
    let found = found.into_inner().expect("no panic with it");
    let took = found
        .as_ref()
        .map_or(seeds, |failure| failure.seed - first() + 1);
    (found, took)
}

#[test]
fn every_rule_that_is_taken_out_is_noticed() {
    let wanted = std::env::var("MUTATION").ok();
    let mut missed = Vec::new();
    for mutation in Mutation::ALL.iter().copied() {
        let name = format!("{mutation:?}");
        if wanted
            .as_ref()
            .is_some_and(|wanted| !wanted.split(',').any(|one| one == name))
        {
            continue;
        }
        activate(Some(mutation));
        let begun = Instant::now();
        let (found, took) = search(patience(mutation));
        let seconds = begun.elapsed().as_secs_f64();
        match found {
            Some(failure) => {
                let text: String = failure.violation.to_string().chars().take(160).collect();
                println!(
                    "{name:<32} noticed at seed {:>4} ({seconds:.1} s): {text}",
                    took - 1
                );
            }
            None => {
                println!("{name:<32} NOT NOTICED in {took} seeds ({seconds:.1} s)");
                missed.push(name);
            }
        }
    }
    activate(None);
    assert!(missed.is_empty(), "not noticed: {missed:?}");
    let begun = Instant::now();
    let (found, _) = search(UNMUTATED);
    let seconds = begun.elapsed().as_secs_f64();
    assert!(found.is_none(), "without a mutation all holds: {found:?}");
    println!("without a mutation {UNMUTATED} seeds hold ({seconds:.1} s)");
}
