//! Without any of the checks in them, the kernel refuses our programs, but for some that are known to be there for the reader.

use electrode_fastpath::programs::build;
use electrode_lab::root_or_skip;

#[path = "../../../../bpf-asm/tests/mutation/checks.rs"]
mod checks;

/// For each program: one check of so many is taken out (`MUTATE_ALL=1`: each), and of how many the verifier would know
/// without them. These look again at what was looked at, behind an offset that was computed anew, or ask for a part before
/// the whole: the builder doesn't see that, and the verifier does.
const PROGRAMS: [(&str, usize, usize); 4] = [
    ("dispatch", 1, 0),
    // It takes the verifier longest, above all where it finds nothing to refuse.
    ("prepare", 8, 8),
    ("prepare_ok", 2, 1),
    ("broadcast", 2, 4),
];

#[test]
fn a_program_without_any_of_its_checks_is_refused() {
    if !root_or_skip("loading programs") {
        return;
    }
    let all = std::env::var_os("MUTATE_ALL").is_some();
    for (name, every, needless) in PROGRAMS {
        let program = build(name).unwrap().unwrap();
        let taken = checks::take_out(&program, if all { 1 } else { every });
        let (ends, nulls) = (taken.ends, taken.nulls);
        println!(
            "{name}: {ends} checks of the packet's end, {nulls} of null; needless: {:?}",
            taken.needless
        );
        assert!(ends + nulls > 0, "{name}");
        assert!(
            taken.needless.len() <= needless,
            "{name}: {:?}",
            taken.needless
        );
    }
}
