//! `electrode client`, against a group in threads.

#[path = "../../client/tests/group/fake.rs"]
mod fake;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use electrode_apps::{Kv, Null};
use electrode_vr::StateMachine;
use fake::{FakeGroup, Trouble};
use tempfile::TempDir;

/// A group, its configuration file, and the command that asks it.
struct Setup {
    group: Option<FakeGroup>,
    directory: TempDir,
}

impl Setup {
    fn new(trouble: Trouble, machine: impl StateMachine + Send + 'static) -> Setup {
        let group = FakeGroup::start(3, trouble, machine);
        let directory = tempfile::tempdir().unwrap();
        let replicas: Vec<String> = group
            .addresses
            .iter()
            .map(|address| format!("replica {address}\n"))
            .collect();
        let text = format!("f 1\n{}", replicas.concat());
        std::fs::write(directory.path().join("config.txt"), text).unwrap();
        Setup {
            group: Some(group),
            directory,
        }
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("config.txt")
    }

    fn run(&self, line: &str) -> (i32, String, String) {
        self.run_with(line, b"")
    }

    fn run_with(&self, line: &str, input: &[u8]) -> (i32, String, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_electrode"))
            .arg("client")
            .args(line.split(' '))
            .env("ELECTRODE_CONFIG", self.config())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that doesn't read its input may have ended.
        let _ = child.stdin.take().unwrap().write_all(input);
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    #[track_caller]
    fn expect(&self, line: &str, code: i32, out: &str) {
        let (actual, stdout, stderr) = self.run(line);
        assert_eq!((actual, stdout.as_str()), (code, out), "{line}: {stderr}");
    }
}

fn kv() -> Setup {
    Setup::new(Trouble::default(), Kv::default())
}

#[test]
fn a_key_lives_from_put_to_delete() {
    let setup = kv();
    setup.expect("get k", 1, "");
    setup.expect("put k v", 0, "ok\n");
    setup.expect("get k", 0, "v\n");
    setup.expect("append k w", 0, "2\n");
    setup.expect("cas k v x", 1, "");
    setup.expect("cas k vw x", 0, "ok\n");
    setup.expect("cas --absent k y", 1, "");
    setup.expect("cas n y --absent", 0, "ok\n");
    setup.expect("scan", 0, "k\tx\nn\ty\n");
    setup.expect("count", 0, "2\n");
    setup.expect("count n", 0, "1\n");
    setup.expect("delete k", 0, "ok\n");
    setup.expect("delete k", 1, "");
}

#[test]
fn negative_numbers_and_options_may_stand_anywhere() {
    let setup = kv();
    setup.expect("put -5 -7.5", 0, "ok\n");
    setup.expect("get -5 --deadline=2", 0, "-7.5\n");
    setup.expect("--deadline 2s get -5", 0, "-7.5\n");
    setup.expect("put -- --key --value", 0, "ok\n");
    setup.expect("get -- --key", 0, "--value\n");
}

#[test]
fn values_come_from_standard_input_as_they_are() {
    let setup = kv();
    assert_eq!(setup.run_with("put k -", b"two\nlines\n").0, 0);
    setup.expect("get k", 0, "two\nlines\n\n");
    assert_eq!(setup.run_with("get -", b"k").1, "two\nlines\n\n");
    assert_eq!(setup.run_with("put big -", &[b'x'; 40_000]).0, 2);
}

#[test]
fn json_says_the_same() {
    let setup = kv();
    setup.expect("get k --json", 1, "{\"found\":false}\n");
    setup.expect("put k v --json", 0, "{\"ok\":true}\n");
    setup.expect("get k --json", 0, "{\"found\":true,\"value\":\"v\"}\n");
    setup.expect(
        "cas k a b --json",
        1,
        "{\"actual\":\"v\",\"swapped\":false}\n",
    );
    setup.expect(
        "cas j a b --json",
        1,
        "{\"actual\":null,\"swapped\":false}\n",
    );
    setup.expect("append k w --json", 0, "{\"length\":2}\n");
    setup.expect("count k --json", 0, "{\"count\":1}\n");
    setup.expect(
        "scan --json",
        0,
        "{\"entries\":[{\"key\":\"k\",\"value\":\"vw\"}],\"more\":false}\n",
    );
    setup.expect("delete k --json", 0, "{\"deleted\":true}\n");
    setup.expect("delete k --json", 1, "{\"deleted\":false}\n");
}

#[test]
fn bytes_that_are_no_text_go_in_hexadecimal() {
    let setup = kv();
    setup.expect("put 00ff fe01 --hex", 0, "ok\n");
    setup.expect("get 00ff --hex", 0, "fe01\n");
    setup.expect("scan --hex", 0, "00ff\tfe01\n");
    setup.expect(
        "scan --json",
        0,
        "{\"entries\":[{\"key_hex\":\"00ff\",\"value_hex\":\"fe01\"}],\"more\":false}\n",
    );
}

#[test]
fn a_scan_takes_as_many_pages_as_it_needs() {
    let setup = kv();
    let value = vec![b'v'; 20_000];
    for key in ["a", "b", "c", "d", "e"] {
        assert_eq!(setup.run_with(&format!("put {key} -"), &value).0, 0);
    }
    let (code, out, _) = setup.run("scan");
    assert_eq!(code, 0);
    let keys: String = out
        .lines()
        .map(|line| line.split('\t').next().unwrap())
        .collect();
    assert_eq!(keys, "abcde");
    assert_eq!(setup.run("scan --limit 3").1.lines().count(), 3);
    assert_eq!(setup.run("scan --limit 0").1, "");
}

#[test]
fn a_mistake_exits_with_2() {
    let setup = kv();
    for line in [
        "put k",
        "fetch k",
        "get k --absent",
        "get xyz --hex",
        "put - -",
        "get k --config=/nowhere",
    ] {
        let (code, out, err) = setup.run(line);
        assert_eq!((code, out.as_str()), (2, ""), "{line}");
        assert!(err.starts_with("electrode client: "), "{line}: {err}");
    }
}

#[test]
fn where_nobody_listens_it_exits_with_3() {
    let mut setup = kv();
    setup.group = None;
    let (code, _, err) = setup.run("put k v --deadline=300ms");
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains("no replica can be reached") && err.contains("not executed"),
        "{err}"
    );
}

#[test]
fn an_unanswered_write_exits_with_4_and_an_unanswered_read_with_3() {
    let setup = Setup::new(
        Trouble {
            mute: true,
            ..Trouble::default()
        },
        Kv::default(),
    );
    let (code, _, err) = setup.run("put k v --deadline=300ms");
    assert_eq!(code, 4, "{err}");
    assert!(
        err.contains("whether the operation was executed isn't known"),
        "{err}"
    );
    let (code, _, err) = setup.run("get k --deadline=300ms");
    assert_eq!(code, 3);
    assert!(
        err.starts_with("electrode client: no answer within 30") && err.ends_with(" ms\n"),
        "{err}"
    );
    let (code, out, _) = setup.run("put k v --deadline=300ms --json");
    assert_eq!(code, 4);
    assert!(out.ends_with("\"outcome_unknown\":true}\n"), "{out}");
}

#[test]
fn a_group_that_runs_something_else_is_noticed() {
    let setup = Setup::new(Trouble::default(), Null::default());
    let (code, _, err) = setup.run("get k");
    assert_eq!(code, 3);
    assert!(err.contains("doesn't run the key-value store"), "{err}");
}

#[test]
fn loss_is_ridden_out() {
    let setup = Setup::new(
        Trouble {
            lost: 30,
            busy: 20,
            ..Trouble::default()
        },
        Kv::default(),
    );
    for number in 0..5 {
        setup.expect(
            &format!("append k {number}"),
            0,
            &format!("{}\n", number + 1),
        );
    }
    assert_eq!(setup.group.as_ref().unwrap().executed(), 5);
}
