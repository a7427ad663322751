//! `electrode client`: ask a group.

use std::process::ExitCode;

use argh::FromArgs;

/// ask a group
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "client")]
pub(crate) struct Client {}

pub(crate) fn run(arguments: Client) -> ExitCode {
    let _ = arguments;
    ExitCode::from(2)
}
