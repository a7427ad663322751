//! `cargo xtask chaos`: real replicas under chaos; its arguments are its own (`cargo xtask chaos --help`).

use std::ffi::OsString;

use anyhow::{Context, Result};

use crate::cargo::{CargoFailed, cargo};

/// Builds the replicas' binary and what torments them, and runs that with these arguments.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    // With assertions and overflow checks, which find more than they cost.
    let profile = ["--quiet", "--profile", "ci", "--features", "bpf-asm/cli"];
    let packages = ["--package", "electrode", "--package", "electrode-chaos"];
    let built = cargo()
        .arg("build")
        .args(profile)
        .args(packages)
        .status()
        .context("starting cargo build")?;
    if !built.success() {
        return Err(CargoFailed::new("build").into());
    }
    let status = cargo()
        .arg("run")
        .args(profile)
        .args(packages)
        .args(["--bin", "electrode-chaos", "--"])
        .args(arguments)
        .status()
        .context("starting the chaos")?;
    if !status.success() {
        return Err(CargoFailed::new("run electrode-chaos").into());
    }
    Ok(())
}
