//! `electrode doctor`.

use std::process::{Command, Output};

use serde_json::Value;

/// A network namespace of two, joined by veth devices called `v0`, that goes when it is dropped.
struct Pair {
    names: [String; 2],
}

impl Pair {
    fn new(test: &str) -> Pair {
        let names = ["a", "b"].map(|end| format!("doctor-{}-{test}{end}", std::process::id()));
        let pair = Pair { names };
        let [a, b] = &pair.names;
        ip(&["netns", "add", a]);
        ip(&["netns", "add", b]);
        ip(&[
            "-n", a, "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", b,
        ]);
        for name in [a, b] {
            ip(&["-n", name, "link", "set", "v0", "up"]);
        }
        ip(&["-n", a, "link", "set", "lo", "up"]);
        pair
    }

    fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.names[0]], arguments].concat());
    }

    /// Runs the doctor at one end: its exit code and its report.
    fn doctor(&self, interface: &str) -> (Option<i32>, Value) {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.names[0],
            env!("CARGO_BIN_EXE_electrode"),
        ]);
        report(command.args(["doctor", "--json", "--interface", interface]))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {}", arguments.join(" "));
}

fn electrode() -> Command {
    Command::new(env!("CARGO_BIN_EXE_electrode"))
}

fn report(command: &mut Command) -> (Option<i32>, Value) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let report = serde_json::from_slice(&stdout);
    let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&stderr)));
    (status.code(), report)
}

/// The verdict and the detail about a subject.
fn about<'r>(report: &'r Value, subject: &str) -> (&'r str, &'r str) {
    let findings = report["findings"].as_array().unwrap();
    let finding = findings
        .iter()
        .find(|finding| finding["subject"] == subject);
    let finding = finding.unwrap_or_else(|| panic!("nothing about {subject} in {report:#}"));
    (
        finding["verdict"].as_str().unwrap(),
        finding["detail"].as_str().unwrap(),
    )
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"SKIPPED: needs root\n");
    }
    root
}

#[test]
fn exit_code_and_verdict_agree_with_the_findings() {
    let (code, report) = report(electrode().args(["doctor", "--json"]));
    let findings = report["findings"].as_array().unwrap();
    let able = findings
        .iter()
        .all(|finding| finding["verdict"] != "not ok");
    assert_eq!(report["fast_path"], able);
    assert_eq!(code, Some(if able { 0 } else { 1 }));
    assert_eq!(about(&report, "interface"), ("note", "not looked at"));
    assert!(about(&report, "kernel").1.starts_with("Linux "));
}

#[test]
fn a_veth_pair_carries_the_fast_path_and_keeps_nothing_of_the_probe() {
    if !is_root() {
        return;
    }
    let pair = Pair::new("v");
    pair.ip(&["address", "add", "10.0.0.1/24", "dev", "v0"]);
    pair.ip(&[
        "neigh",
        "add",
        "10.0.0.2",
        "lladdr",
        "02:00:00:00:00:02",
        "dev",
        "v0",
    ]);
    // Twice: what the first run left would be in the second one's way.
    for _ in 0..2 {
        let (code, report) = pair.doctor("v0");
        assert_eq!(code, Some(0), "{report:#}");
        assert_eq!(about(&report, "interface v0"), ("ok", "up"));
        assert_eq!(about(&report, "XDP"), ("ok", "native"));
        assert_eq!(about(&report, "MTU"), ("ok", "1500 bytes"));
        assert_eq!(about(&report, "programs broadcast"), ("ok", "loaded"));
        let (verdict, known) = about(&report, "neighbours");
        assert!(verdict == "ok" && known.contains("10.0.0.2"), "{known}");
        assert_eq!(about(&report, "veth").0, "note");
    }
    let link = Command::new("ip")
        .args(["-n", &pair.names[0], "-d", "link", "show", "v0"])
        .output();
    let link = String::from_utf8(link.unwrap().stdout).unwrap();
    assert!(!link.contains("xdp"), "{link}");
}

#[test]
fn an_interface_that_is_down_or_small_or_absent_is_said_with_what_to_do() {
    if !is_root() {
        return;
    }
    let pair = Pair::new("d");
    pair.ip(&["link", "set", "v0", "down", "mtu", "1400"]);
    let (code, report) = pair.doctor("v0");
    assert_eq!(
        (code, about(&report, "interface v0")),
        (Some(1), ("not ok", "down"))
    );
    assert_eq!(about(&report, "MTU"), ("note", "1400 bytes"));
    assert!(report.to_string().contains("ip link set dev v0 up"));
    let (code, report) = pair.doctor("v9");
    let expected = ("not ok", "there is none of that name");
    assert_eq!((code, about(&report, "interface v9")), (Some(1), expected));
}

#[test]
fn loopback_has_only_generic_xdp() {
    if !is_root() {
        return;
    }
    let (code, report) = Pair::new("l").doctor("lo");
    assert_eq!(code, Some(0), "{report:#}");
    let (verdict, detail) = about(&report, "XDP");
    assert!(
        verdict == "note" && detail.starts_with("generic only"),
        "{detail}"
    );
}

/// Another XDP program would be in a replica's way, so it is in the doctor's.
#[test]
fn an_interface_with_a_foreign_xdp_program_is_named_busy() {
    if !is_root() {
        return;
    }
    let pair = Pair::new("x");
    let directory = tempfile::tempdir().unwrap();
    let object = directory.path().join("prepare.o");
    let object = object.to_str().unwrap();
    let mut dump = electrode();
    dump.args([
        "dump",
        "--program=prepare",
        "--format=elf",
        "--output",
        object,
    ]);
    assert!(dump.status().unwrap().success());
    pair.ip(&[
        "link", "set", "dev", "v0", "xdp", "obj", object, "sec", "xdp",
    ]);
    let (code, report) = pair.doctor("v0");
    let (verdict, detail) = about(&report, "XDP");
    assert_eq!((code, verdict), (Some(1), "not ok"), "{detail}");
    assert_eq!(detail, "another program has the interface (prepare)");
    assert!(report.to_string().contains("ip link set dev v0 xdp off"));
}
