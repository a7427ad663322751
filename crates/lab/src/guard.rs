//! Tests that need root, run without it.

use std::io::Write;
use std::process::{Command, Stdio};

/// Whether this process may make namespaces and load programs.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether processes can be given clocks of their own: the kernel has time namespaces, `unshare` knows them, and this is root.
#[must_use]
pub fn has_time_namespaces() -> bool {
    let tried = Command::new("unshare")
        .args(["--time", "--monotonic", "1", "--boottime", "1", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// True for root; else prints a `SKIPPED:` line that names `what`, past the test harness's capture.
///
/// ```no_run
/// if !electrode_lab::root_or_skip("a group in namespaces") {
///     return;
/// }
/// ```
#[must_use]
pub fn root_or_skip(what: &str) -> bool {
    if is_root() {
        return true;
    }
    // `eprintln!` would be captured, and a skipped test would look like a passed one.
    let line = format!("SKIPPED: {what} needs root\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    false
}
