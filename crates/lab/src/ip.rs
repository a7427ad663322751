//! The `ip` tool.

use std::io::{ErrorKind, Write};
use std::process::{Command, Output, Stdio};

use crate::LabError;

/// Runs `ip` with these arguments and returns what it printed.
pub(crate) fn run(arguments: &[&str]) -> Result<String, LabError> {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(arguments, error))?;
    checked(arguments, output)
}

/// Runs many `ip` commands in one namespace by one process; stops at the first that fails.
pub(crate) fn batch(namespace: &str, commands: &[String]) -> Result<(), LabError> {
    let arguments = ["-n", namespace, "-batch", "-"];
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(&arguments, error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have stopped reading at a failure; its own message is the better error then.
        let _ = stdin.write_all(commands.join("\n").as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(LabError::io("waiting for ip"))?;
    let described = commands.join("; ");
    checked(&["-n", namespace, &described], output).map(drop)
}

fn not_started(arguments: &[&str], error: std::io::Error) -> LabError {
    match error.kind() {
        ErrorKind::NotFound => LabError::NoIpTool,
        _ => LabError::Io {
            doing: format!("ip {}", arguments.join(" ")),
            source: error,
        },
    }
}

fn checked(arguments: &[&str], output: Output) -> Result<String, LabError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(LabError::Ip {
        arguments: arguments.join(" "),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
