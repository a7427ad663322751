//! `electrode status`: show the replicas of a group.

use std::process::ExitCode;

use argh::FromArgs;

/// show the replicas of a group
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status")]
pub(crate) struct Status {}

pub(crate) fn run(arguments: Status) -> ExitCode {
    let _ = arguments;
    ExitCode::from(2)
}
