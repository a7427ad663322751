//! `electrode bench`: measure a group.

use std::process::ExitCode;

use argh::FromArgs;

/// measure a group
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "bench")]
pub(crate) struct Bench {}

pub(crate) fn run(arguments: Bench) -> ExitCode {
    let _ = arguments;
    ExitCode::from(2)
}
