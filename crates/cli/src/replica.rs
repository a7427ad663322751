//! `electrode replica`: run one replica of a group.

use std::process::ExitCode;

use argh::FromArgs;

/// run one replica of a group
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "replica")]
pub(crate) struct Replica {}

pub(crate) fn run(arguments: Replica) -> ExitCode {
    let _ = arguments;
    ExitCode::from(2)
}
