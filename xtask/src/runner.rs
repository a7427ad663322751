//! Runs a test program for cargo: one test at a time where tests make namespaces, attach programs or measure time. Cargo
//! can be told of such a runner, but not of packages that want different arguments.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

/// The task's name on our command line; cargo puts the test program and its arguments behind it.
pub(crate) const TASK: &str = "run-test";

/// Packages whose tests are run one at a time.
const SERIAL: &[&str] = &[
    "electrode",
    "electrode-dataplane",
    "electrode-lab",
    "electrode-replica",
];

/// What has cargo run its tests by us, as a value of its `--config`.
pub(crate) fn configuration() -> Result<String> {
    let own = env::current_exe().context("our own path")?;
    // Both are strings of TOML, and a path may have quotes.
    let own = serde_json::to_string(&own.to_string_lossy())?;
    Ok(format!("target.'cfg(all())'.runner = [{own}, \"{TASK}\"]"))
}

/// Becomes the test program.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let program = arguments.next().context("the test program is missing")?;
    let mut command = Command::new(&program);
    command.args(arguments);
    if serial(&env::var("CARGO_PKG_NAME").unwrap_or_default()) {
        command.arg("--test-threads=1");
    }
    let error = command.exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}

fn serial(package: &str) -> bool {
    SERIAL.contains(&package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_touch_the_kernel_are_run_one_test_at_a_time() {
        assert!(serial("electrode-dataplane") && serial("electrode"));
        assert!(!serial("electrode-vr") && !serial(""));
    }

    #[test]
    fn cargo_takes_the_configuration() {
        let configuration = configuration().unwrap();
        let output = crate::cargo::cargo()
            .args(["--config", &configuration, "locate-project"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
