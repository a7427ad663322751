//! `electrode doctor`: what this machine can do.

use std::process::ExitCode;

use argh::FromArgs;

/// what this machine can do
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "doctor")]
pub(crate) struct Doctor {}

pub(crate) fn run(arguments: Doctor) -> ExitCode {
    let _ = arguments;
    ExitCode::from(2)
}
