//! The builder's programs answer as clang's do, in not many more instructions. Needs clang and root, and says so without.

#![allow(clippy::duplicate_mod)] // each example brings its headers

use std::os::unix::fs::MetadataExt;

#[path = "clang/compare.rs"]
mod compare;
#[path = "clang/compiler.rs"]
mod compiler;
#[path = "../examples/echo.rs"]
mod echo;
#[path = "examples/frames.rs"]
mod frames;
#[path = "../examples/load_balancer.rs"]
mod load_balancer;
#[path = "../examples/lpm_firewall.rs"]
mod lpm_firewall;
#[path = "../examples/packet_counter.rs"]
mod packet_counter;
#[path = "clang/pairs.rs"]
mod pairs;
#[path = "../examples/syn_flood.rs"]
mod syn_flood;

/// Instructions beside clang's, in hundredths.
const MOST_INSTRUCTIONS: u32 = 110;

#[test]
fn programs_answer_as_clang_s_do_in_at_most_a_tenth_more_instructions() {
    let skipped = if !compiler::has_clang() {
        Some("SKIPPED: there is no clang that compiles for BPF\n")
    } else if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        Some("SKIPPED: loading programs needs root\n")
    } else {
        None
    };
    if let Some(why) = skipped {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), why.as_bytes());
        return;
    }
    for pair in pairs::pairs() {
        let (name, ours, theirs) = pair.compare(&frames::mixed(), 1);
        assert!(
            ours.native_bytes > 0 && ours.time <= std::time::Duration::from_secs(1),
            "{name}: {ours:?}"
        );
        assert!(
            ours.instructions * 100 <= theirs.instructions * MOST_INSTRUCTIONS,
            "{name}: {ours:?}, clang's: {theirs:?}"
        );
    }
}
