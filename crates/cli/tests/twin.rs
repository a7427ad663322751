//! The simulator's twin on the real kernel, for 90 seconds: real replicas, bad links, dying processes, and histories that have
//! to be linearizable. `cargo xtask chaos` runs it for longer, on more replicas.

use std::io::Write;
use std::path::PathBuf;

use electrode_chaos::{Plan, run};
use electrode_lab::root_or_skip;

#[test]
fn ninety_seconds_of_chaos_break_nothing_that_was_promised() {
    if !root_or_skip("90 seconds of chaos on real replicas") {
        return;
    }
    // Another seed, to look for more: CHAOS_SEED=7 cargo test ...
    let seed = std::env::var("CHAOS_SEED").ok();
    let seed = seed.map_or(1, |seed| seed.parse().expect("CHAOS_SEED is a number"));
    let mut plan = Plan::new(seed, env!("CARGO_BIN_EXE_electrode").into());
    plan.keep = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
    let report = run(&plan).unwrap();
    // Past the harness's capture: what happened is worth a look also when all held.
    let _ = writeln!(std::io::stderr(), "{report}");
    assert!(report.held, "history, timeline and logs: {:?}", report.kept);
}
