//! `electrode demo`: the whole thing on this machine.

use std::process::ExitCode;

use argh::FromArgs;

/// the whole thing on this machine
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "demo")]
pub(crate) struct Demo {}

pub(crate) fn run(arguments: Demo) -> ExitCode {
    let _ = arguments;
    ExitCode::from(2)
}
