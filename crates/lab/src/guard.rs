//! Tests that need root, run without it.

use std::io::Write;

/// Whether this process may make namespaces and load programs.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
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
