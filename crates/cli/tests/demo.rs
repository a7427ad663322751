//! The demo as a user runs it, only shorter.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs the demo and returns its output and its JSON; the figures of so short a run decide nothing here.
fn demo(name: &str, arguments: &[&str]) -> (String, Value) {
    let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    let output = Command::new(env!("CARGO_BIN_EXE_electrode"))
        .args(["demo", "--rounds", "1", "--seconds", "0.3", "--json"])
        .arg(&json)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    // 1 is also the exit code where CPU time isn't below plain's, which chance can bring about in 0.3 s.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{complained}");
    assert!(said.contains("floor:"), "{said}{complained}");
    let text = std::fs::read_to_string(&json).unwrap();
    (said, serde_json::from_str(&text).unwrap())
}

fn check(name: &str, replicas: u64) {
    let root = electrode_lab::root_or_skip("the accelerated half of the demo");
    let (said, json) = demo(
        name,
        &["--clients", "1,4", "--replicas", &replicas.to_string()],
    );
    let runs = json["runs"].as_array().unwrap();
    let of = |mode: &str| -> Vec<&Value> {
        let runs = runs.iter();
        runs.filter(|run| run["mode"] == mode).collect()
    };
    assert_eq!(of("plain").len(), 2);
    assert_eq!(of("unreplicated").len(), 2);
    assert_eq!(of("accelerated").len(), if root { 2 } else { 0 });
    for run in runs {
        let expected = if run["mode"] == "unreplicated" {
            1
        } else {
            replicas
        };
        assert_eq!(run["replicas"], expected);
        assert_eq!(run["digests_equal"], true, "{run}");
        assert!(run["requests"].as_u64().unwrap() > 0, "{run}");
        assert_eq!(run["replies_verified"], run["requests"]);
        for figure in [
            "requests_per_s",
            "p50_us",
            "p99_us",
            "replica_cpu_s_per_10k",
            "primary_cpu_s_per_10k",
            "system_cpu_s_per_10k",
            "primary_syscalls_per_request",
        ] {
            assert!(run[figure].as_f64().unwrap() > 0.0, "{figure}: {run}");
        }
    }
    for run in of("accelerated") {
        assert_eq!(run["attach"]["xdp"], "native");
        assert!(
            run["kernel"]["prepare"]["acked"].as_u64().unwrap() > 0,
            "{run}"
        );
    }
    assert!(!said.contains("were handled"), "{said}");
    assert!(json["floor"]["udp_blocking_us"].as_f64().unwrap() > 0.0);
    assert!(json["floor"]["udp_polling_us"].as_f64().unwrap() > 0.0);
    assert_eq!(json["floor"]["xdp_echo_us"].is_null(), !root);
}

#[test]
fn the_demo_measures_three_replicas() {
    check("three", 3);
}

#[test]
fn the_demo_measures_five_replicas() {
    check("five", 5);
}

#[test]
fn a_demo_that_makes_no_sense_is_a_usage_error() {
    for arguments in [
        ["--replicas", "2"],
        ["--clients", "none"],
        ["--seconds", "-1"],
    ] {
        let status = Command::new(env!("CARGO_BIN_EXE_electrode"))
            .arg("demo")
            .args(arguments)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(2), "{arguments:?}");
    }
}
