//! The command line, made fit for argh.

use std::ffi::OsString;
use std::process::ExitCode;

use argh::FromArgs;

/// Parses the command line; on help, version or a mistake everything has been printed and the exit code is the error.
pub(crate) fn parse<T: FromArgs>(arguments: impl Iterator<Item = OsString>) -> Result<T, ExitCode> {
    let strings: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let strings: Vec<&str> = strings.iter().map(String::as_str).collect();
    T::from_args(&strings[..1], &strings[1..]).map_err(|_| ExitCode::from(2))
}
