//! The command line, made fit for argh, which knows neither `--option=value` nor `-h` nor `--version`, and takes `-` for an
//! option: options first, then `--`, then positionals.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use argh::{EarlyExit, FromArgs};

/// The exit code of a command line that can't be understood.
pub(crate) const USAGE: u8 = 2;

/// Options that are followed by a value; the others are switches.
const WITH_VALUE: &[&str] = &[
    "--hex",
    "--mem",
    "--engine",
    "--kind",
    "--license",
    "-o",
    "--output",
];

/// Commands whose `--hex` is a switch.
const HEX_IS_A_SWITCH: &str = "asm";

/// Parses the command line; on help, version or a mistake everything has been printed and the exit code is the error.
pub(crate) fn parse<T: FromArgs>(arguments: impl Iterator<Item = OsString>) -> Result<T, ExitCode> {
    let mut given = Vec::new();
    for argument in arguments.skip(1) {
        match argument.into_string() {
            Ok(argument) => given.push(argument),
            Err(argument) => {
                let shown = argument.to_string_lossy();
                return Err(refuse(&format!("argument `{shown}` isn't UTF-8")));
            }
        }
    }
    match understand::<T>(given) {
        Ok(parsed) => Ok(parsed),
        Err(EarlyExit {
            output,
            status: Ok(()),
        }) => {
            let _ = writeln!(std::io::stdout(), "{}", output.trim_end());
            Err(ExitCode::SUCCESS)
        }
        Err(EarlyExit { output, .. }) => Err(refuse(&output)),
    }
}

fn refuse(output: &str) -> ExitCode {
    let output = output.trim_end();
    let _ = writeln!(
        std::io::stderr(),
        "{output}\n\nRun `bpf-asm --help` for more."
    );
    ExitCode::from(USAGE)
}

fn understand<T: FromArgs>(mut given: Vec<String>) -> Result<T, EarlyExit> {
    memory_behind_plugin(&mut given);
    let command = given.iter().position(|argument| !is_option(argument));
    let command = command.map(|at| given.remove(at));
    let takes_value = |name: &str| {
        let is_switch = name == "--hex" && command.as_deref() == Some(HEX_IS_A_SWITCH);
        WITH_VALUE.contains(&name) && !is_switch
    };
    let mut options: Vec<&str> = Vec::new();
    let mut positionals: Vec<&str> = Vec::new();
    let mut help = false;
    let mut rest = given.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        match argument {
            "--" => {
                positionals.extend(rest);
                break;
            }
            "-h" | "--help" => help = true,
            "-V" | "--version" => {
                return Err(EarlyExit {
                    output: format!("bpf-asm {}", env!("CARGO_PKG_VERSION")),
                    status: Ok(()),
                });
            }
            argument if !is_option(argument) => positionals.push(argument),
            argument if takes_value(argument) => {
                options.push(argument);
                options.extend(rest.next());
            }
            argument => match argument.split_once('=') {
                Some((name, value)) => options.extend([name, value]),
                None => options.push(argument),
            },
        }
    }
    let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
    if help {
        arguments.push("--help");
    } else if arguments == ["help"] {
        arguments = positionals.into_iter().take(1).chain(["--help"]).collect();
    } else {
        arguments.extend(options);
        if !positionals.is_empty() {
            arguments.push("--");
            arguments.extend(positionals);
        }
    }
    T::from_args(&["bpf-asm"], &arguments)
}

/// The conformance suite's runner puts the memory before the command that it was told to pass.
fn memory_behind_plugin(given: &mut [String]) {
    let is_memory = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit() || c == ' ');
    if let [memory, command, ..] = given
        && command == "plugin"
        && is_memory(memory)
    {
        given.swap(0, 1);
    }
}

/// `-` (standard input) and negative numbers are none.
fn is_option(argument: &str) -> bool {
    let rest = argument.strip_prefix('-');
    rest.is_some_and(|rest| rest.starts_with(|first: char| !first.is_ascii_digit()))
}
