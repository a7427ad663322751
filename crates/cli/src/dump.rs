//! `electrode dump`: print one of the eBPF programs.

use std::process::ExitCode;

use argh::FromArgs;

/// print one of the eBPF programs
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "dump")]
pub(crate) struct Dump {}

pub(crate) fn run(arguments: Dump) -> ExitCode {
    let _ = arguments;
    ExitCode::from(2)
}
