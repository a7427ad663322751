//! Parts of a task, each with its name and its seconds.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// The cargo that started us, so that a toolchain chosen by hand stays chosen.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// A part of a task.
pub(crate) struct Part {
    name: &'static str,
    started: Instant,
}

impl Part {
    pub(crate) fn new(name: &'static str) -> Part {
        println!("== {name}");
        Part {
            name,
            started: Instant::now(),
        }
    }

    /// Does it and says how long it took.
    pub(crate) fn run(self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        work()?;
        println!("== {}: {} s", self.name, self.started.elapsed().as_secs());
        Ok(())
    }

    /// Runs cargo and says how long it took.
    pub(crate) fn cargo(self, arguments: &[&str]) -> Result<()> {
        self.run(|| run(arguments))
    }

    /// Runs cargo and says nothing after it.
    pub(crate) fn last(self, arguments: &[&str]) -> Result<()> {
        run(arguments)
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    let described = arguments.join(" ");
    let status = cargo()
        .args(arguments)
        .status()
        .with_context(|| format!("starting cargo {described}"))?;
    if !status.success() {
        return Err(CargoFailed(described).into());
    }
    Ok(())
}

/// A cargo command that failed, and has said why: nothing needs to be printed after it.
#[derive(Debug, thiserror::Error)]
#[error("cargo {0} failed")]
pub(crate) struct CargoFailed(String);

impl CargoFailed {
    /// What was run.
    pub(crate) fn new(described: &str) -> CargoFailed {
        CargoFailed(described.to_owned())
    }
}
