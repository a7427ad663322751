//! Every check that the builder writes is needed: without any of them, the kernel refuses the program.
//!
//! Needs root, and says so loudly without it.

#![allow(clippy::duplicate_mod)] // each example brings its headers

#[path = "../../examples/echo.rs"]
mod echo;
#[path = "../../examples/load_balancer.rs"]
mod load_balancer;
#[path = "../../examples/lpm_firewall.rs"]
mod lpm_firewall;
#[path = "../../examples/packet_counter.rs"]
mod packet_counter;
#[path = "../../examples/syn_flood.rs"]
mod syn_flood;

mod checks;

use std::os::unix::fs::MetadataExt;

#[test]
fn an_example_without_any_of_its_checks_is_refused() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        let note = b"SKIPPED: loading programs needs root\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), note);
        return;
    }
    let programs = [
        echo::program(),
        load_balancer::program(),
        lpm_firewall::program(),
        packet_counter::program(),
        syn_flood::program(),
    ];
    let (mut ends, mut nulls) = (0, 0);
    for program in programs {
        let taken = checks::take_out(&program.unwrap(), 1);
        assert!(taken.needless.is_empty(), "{:?}", taken.needless);
        (ends, nulls) = (ends + taken.ends, nulls + taken.nulls);
    }
    // Each looks into the packet at least once, and all but the echo into a map.
    assert!(ends >= 5 && nulls >= 4, "{ends} and {nulls} checks");
}
