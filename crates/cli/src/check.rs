//! `electrode check`: check a configuration file.

use std::process::ExitCode;

use argh::FromArgs;

/// check a configuration file
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check")]
pub(crate) struct Check {}

pub(crate) fn run(arguments: Check) -> ExitCode {
    let _ = arguments;
    ExitCode::from(2)
}
