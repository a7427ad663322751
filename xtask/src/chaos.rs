//! `cargo xtask chaos`: real replicas under chaos; its arguments are its own (`cargo xtask chaos --help`).

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{CargoFailed, cargo, root};

/// Builds the replicas' binary and what torments them, and runs that with these arguments.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    // With assertions and overflow checks, which find more than they cost; and in one build, so that both share their parts.
    let built = cargo()
        .args(["build", "--quiet", "--profile", "ci"])
        .args(["--features", "bpf-asm/cli", "--target-dir"])
        .arg(root().join("target"))
        .args(["--package", "electrode", "--package", "electrode-chaos"])
        .status()
        .context("starting cargo build")?;
    if !built.success() {
        return Err(CargoFailed::new("build").into());
    }
    // It finds the replicas' binary beside itself.
    let status = Command::new(root().join("target/ci/electrode-chaos"))
        .args(arguments)
        .status()
        .context("starting electrode-chaos")?;
    if !status.success() {
        return Err(CargoFailed::new("xtask chaos").into());
    }
    Ok(())
}
