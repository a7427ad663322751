//! `cargo xtask sim`: the simulator, optimised; its arguments are its own (`cargo xtask sim --help`).

use std::ffi::OsString;

use anyhow::{Context, Result};

use crate::cargo::{CargoFailed, Part, cargo};

/// Runs the simulator with these arguments; `--mutations` runs the test that takes out one rule after the other.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    if arguments.iter().any(|argument| argument == "--mutations") {
        let test = ["test", "--profile", "ci", "--package", "electrode-sim"];
        let mutations = [
            "--features",
            "mutations",
            "--test",
            "exhaustive_mutations",
            "--test",
            "mutations",
        ];
        return Part::new("mutations")
            .cargo(&[&test[..], &mutations, &["--", "--nocapture"]].concat());
    }
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--package", "electrode-sim"]);
    command
        .args(["--bin", "electrode-sim", "--"])
        .args(arguments);
    let status = command.status().context("starting the simulator")?;
    if !status.success() {
        return Err(CargoFailed::new("run electrode-sim").into());
    }
    Ok(())
}
