//! `electrode check`.

use std::path::Path;
use std::process::{Command, Output};

fn check(
    directory: &Path,
    arguments: &[&str],
    variable: Option<&str>,
) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_electrode"));
    command
        .current_dir(directory)
        .arg("check")
        .args(arguments)
        .env_remove("ELECTRODE_CONFIG");
    if let Some(value) = variable {
        command.env("ELECTRODE_CONFIG", value);
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_valid_file_is_said_to_be_valid_without_resolving_its_names() {
    let directory = tempfile::tempdir().unwrap();
    let text = "f 1\nreplica no-such-host.invalid:1\nreplica b:2\nreplica [::1]:3";
    std::fs::write(directory.path().join("group.txt"), text).unwrap();
    let expected = "group.txt: valid; 3 replicas, 1 may fail\n  0  no-such-host.invalid:1\n  1  b:2\n  2  [::1]:3\n";
    for arguments in [&["--config", "group.txt"][..], &["--config=group.txt"]] {
        let outcome = check(directory.path(), arguments, None);
        assert_eq!(outcome, (Some(0), expected.to_owned(), String::new()));
    }
}

#[test]
fn an_invalid_file_is_refused_by_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("config.txt"),
        "f 1\nreplica a:99999\n",
    )
    .unwrap();
    let expected = "config.txt:2:11: expected a port from 1 to 65535, found `99999`\n";
    assert_eq!(
        check(directory.path(), &[], None),
        (Some(1), String::new(), expected.to_owned())
    );
}

#[test]
fn the_file_is_the_option_then_the_variable_then_the_one_here() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["config.txt", "variable.txt", "option.txt"] {
        std::fs::write(directory.path().join(name), "f 0\nreplica a:1\n").unwrap();
    }
    let begins = |arguments: &[&str], variable, name: &str| {
        let (code, out, err) = check(directory.path(), arguments, variable);
        assert_eq!(code, Some(0));
        assert!(out.starts_with(&format!("{name}: valid")), "{out}");
        assert_eq!(
            err,
            format!("warning: {name}:1:3: f is 0: the group survives no failure\n")
        );
    };
    begins(&[], None, "config.txt");
    begins(&[], Some("variable.txt"), "variable.txt");
    begins(
        &["--config", "option.txt"],
        Some("variable.txt"),
        "option.txt",
    );
}

#[test]
fn a_missing_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (code, _, err) = check(directory.path(), &["--config", "nowhere.txt"], None);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("nowhere.txt: can't be read: "), "{err}");
}
