//! The command line as people type it.

use std::process::{Command, Output};

fn electrode(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_electrode"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn help_goes_to_standard_output_and_is_no_mistake() {
    for arguments in [&["--help"][..], &["-h"], &["help"]] {
        let (code, out, err) = electrode(arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(out.contains("bench") && out.contains("client"), "{out}");
    }
    let (code, out, _) = electrode(&["bench", "--clients=3", "-h"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("--value-size"), "{out}");
}

#[test]
fn the_version_is_told() {
    for arguments in [&["--version"][..], &["-V"], &["client", "--version"]] {
        let expected = format!("electrode {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(electrode(arguments), (Some(0), expected, String::new()));
    }
}

#[test]
fn what_is_not_known_exits_with_2_and_says_so() {
    for (arguments, words) in [
        (&[][..], "subcommand"),
        (&["dance"], "dance"),
        (&["check", "--colour"], "--colour"),
        (&["check", "extra"], "extra"),
        (&["bench", "--clients", "many"], "many"),
        (&["bench", "--op=dance"], "expected auto, echo or put"),
        (
            &["replica", "--index=0", "--durability=tape"],
            "expected memory or disk",
        ),
        (&["client", "--deadline=-1", "get", "k"], "expected a time"),
    ] {
        let (code, out, err) = electrode(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(
            err.contains(words) && err.contains("--help"),
            "{arguments:?}: {err}"
        );
    }
}

#[test]
fn numbers_out_of_range_exit_with_2() {
    for option in [
        "--clients=0",
        "--clients=5000",
        "--requests=0",
        "--value-size=32769",
    ] {
        let (code, _, err) = electrode(&["bench", option]);
        assert_eq!(code, Some(2), "{option}");
        assert!(
            err.contains(option.split('=').next().unwrap()),
            "{option}: {err}"
        );
    }
}

#[cfg(unix)]
#[test]
fn arguments_that_are_no_text_are_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let argument = OsStr::from_bytes(b"k\xff");
    let output = Command::new(env!("CARGO_BIN_EXE_electrode"))
        .args([OsStr::new("client"), OsStr::new("get"), argument])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("isn't UTF-8"));
}
