//! The exhaustive search looks: rules that are taken out of core, programs or user space's half are noticed within stated
//! bounds. Needs the feature `mutations`; run by `cargo xtask sim --mutations`.
//!
//! One process, one test: the switch is the process's.

use std::time::Instant;

use electrode_sim::{Bounds, explore};
use electrode_vr::mutations::{Mutation, activate};

/// One request, one view change, and nothing else that is bounded.
const SMALL: Bounds = Bounds {
    replicas: 3,
    clients: 1,
    ops: 1,
    view_changes: 1,
    crashes: 0,
    standing: 0,
    around: 0,
    resends: 0,
    window: 2,
    checkpoint_ops: 1 << 20,
    most_states: 400_000,
};

const AROUND: Bounds = Bounds { around: 1, ..SMALL };
const CRASH: Bounds = Bounds {
    crashes: 1,
    ..SMALL
};
const TWO_REQUESTS: Bounds = Bounds {
    clients: 2,
    ..SMALL
};
/// The second request waits until the first one's Prepare is decided.
const IN_TURN: Bounds = Bounds {
    window: 1,
    ..TWO_REQUESTS
};
const STANDING: Bounds = Bounds {
    standing: 1,
    ..SMALL
};

const NOTICED: &[(Mutation, Bounds)] = &[
    (Mutation::ViewChangeQuorumOfF, SMALL),
    (Mutation::CommitQuorumOfF, SMALL),
    (Mutation::PromiseNotPersisted, CRASH),
    (Mutation::SpeechBeforePromise, SMALL),
    (Mutation::ArmBeforePromise, CRASH),
    (Mutation::RecoveryBelowPromise, CRASH),
    (Mutation::RecoveringTakesPart, CRASH),
    (Mutation::SecondExecution, SMALL),
    (Mutation::UncommittedExecuted, SMALL),
    (Mutation::AckAmidViewChange, SMALL),
    (Mutation::GapAppended, TWO_REQUESTS),
    (Mutation::AckBeforeStore, AROUND),
    (Mutation::KernelTakesGap, TWO_REQUESTS),
    (Mutation::KernelTakesNewerView, SMALL),
    (Mutation::SuffixNotReplaced, IN_TURN),
    (Mutation::LongerSuffixKept, IN_TURN),
    (Mutation::StaleGenerationAccepted, STANDING),
    (Mutation::LostRaceSubmitted, STANDING),
    (Mutation::KernelTakesFenced, STANDING),
    (Mutation::FenceLeavesTail, STANDING),
    (Mutation::ClaimFromTail, STANDING),
];

#[test]
fn rules_that_are_taken_out_are_noticed_within_small_bounds() {
    let wanted = std::env::var("MUTATION").ok();
    let mut missed = Vec::new();
    for (mutation, bounds) in NOTICED.iter().copied() {
        let name = format!("{mutation:?}");
        if wanted
            .as_ref()
            .is_some_and(|wanted| !wanted.split(',').any(|one| one == name))
        {
            continue;
        }
        activate(Some(mutation));
        let begun = Instant::now();
        let outcome = explore(&bounds, |_| {});
        activate(None);
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Err(found) => {
                let text: String = found.violation.to_string().chars().take(140).collect();
                println!(
                    "{name:<24} noticed after {} states, by {} steps ({seconds:.1} s): {text}",
                    found.explored.states,
                    found.steps.len()
                );
            }
            Ok(explored) => {
                println!(
                    "{name:<24} NOT NOTICED in {} states (all: {}) ({seconds:.1} s)",
                    explored.states, explored.complete
                );
                missed.push(name);
            }
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
