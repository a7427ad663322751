//! The command line, made fit for argh.
//!
//! argh knows neither `--option=value` nor `-h` nor `--version`, and takes `-` and `-5` for options. Its own help tells
//! which options of a command take values; with that the arguments are put into the one order that it understands:
//! options, `--`, positionals.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use argh::{EarlyExit, FromArgs};

/// The exit code of a command line that can't be understood.
pub(crate) const USAGE: u8 = 2;

/// Parses the command line; on help, version or a mistake everything has been printed and the exit code is the error.
pub(crate) fn parse<T: FromArgs>(
    mut arguments: impl Iterator<Item = OsString>,
) -> Result<T, ExitCode> {
    let program = arguments.next().unwrap_or_else(|| "electrode".into());
    let program = Path::new(&program).file_name().map_or_else(
        || "electrode".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    let refuse = |output: &str| {
        let output = output.trim_end();
        let _ = writeln!(
            std::io::stderr(),
            "{output}\n\nRun `{program} --help` for more."
        );
        Err(ExitCode::from(USAGE))
    };
    let mut given = Vec::new();
    for argument in arguments {
        match argument.into_string() {
            Ok(argument) => given.push(argument),
            Err(argument) => {
                let shown = argument.to_string_lossy();
                return refuse(&format!(
                    "argument `{shown}` isn't UTF-8; give bytes by --hex or -"
                ));
            }
        }
    }
    match understand::<T>(&program, &given) {
        Ok(parsed) => Ok(parsed),
        Err(EarlyExit {
            output,
            status: Ok(()),
        }) => {
            let _ = writeln!(std::io::stdout(), "{}", output.trim_end());
            Err(ExitCode::SUCCESS)
        }
        Err(EarlyExit {
            output,
            status: Err(()),
        }) => refuse(&output),
    }
}

/// The configuration file: as given, or `$ELECTRODE_CONFIG`, or `./config.txt`.
pub(crate) fn config_path(given: Option<PathBuf>) -> PathBuf {
    let from_environment = || std::env::var_os("ELECTRODE_CONFIG").map(PathBuf::from);
    given
        .or_else(from_environment)
        .unwrap_or_else(|| "config.txt".into())
}

/// A length of time on the command line: `5`, `0.5`, `5s`, `200ms`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Time(pub(crate) Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Time, String> {
        let (number, unit) = match text.strip_suffix("ms") {
            Some(number) => (number, 1e-3),
            None => (text.strip_suffix('s').unwrap_or(text), 1.0),
        };
        let seconds = number.parse::<f64>().ok().map(|number| number * unit);
        seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .filter(|time| *time <= Duration::from_secs(1_000_000))
            .map(Time)
            .ok_or_else(|| "expected a time such as 5, 0.5, 5s or 200ms".to_owned())
    }
}

fn understand<T: FromArgs>(program: &str, given: &[String]) -> Result<T, EarlyExit> {
    let command = given.iter().position(|argument| !argument.starts_with('-'));
    let (before, command, after) = match command {
        Some(at) => (&given[..at], &given[at..=at], &given[at + 1..]),
        None => (given, &given[..0], &given[..0]),
    };
    let help = |arguments: &[String]| {
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        arguments.push("--help");
        T::from_args(&[program], &arguments)
    };
    let mut order = Order::default();
    order.take(before);
    if order.help && command.is_empty() {
        return help(&[]);
    }
    if order.version {
        return Err(version());
    }
    if let [name] = command {
        if let Err(EarlyExit {
            output,
            status: Ok(()),
        }) = help(command)
        {
            order.learn(&output);
        }
        order.take(after);
        if order.help || name == "help" {
            return help(if name == "help" {
                after.get(..1).unwrap_or_default()
            } else {
                command
            });
        }
        if order.version {
            return Err(version());
        }
    }
    let arguments: Vec<&str> = command
        .iter()
        .chain(&order.options)
        .map(String::as_str)
        .chain((!order.positionals.is_empty()).then_some("--"))
        .chain(order.positionals.iter().map(String::as_str))
        .collect();
    T::from_args(&[program], &arguments)
}

fn version() -> EarlyExit {
    EarlyExit {
        output: format!("electrode {}", env!("CARGO_PKG_VERSION")),
        status: Ok(()),
    }
}

/// Arguments, sorted.
#[derive(Default)]
struct Order {
    /// The command's options that take a value.
    with_value: Vec<String>,
    options: Vec<String>,
    positionals: Vec<String>,
    help: bool,
    version: bool,
}

impl Order {
    /// Reads from the help which options take a value: in the usage line they stand as `--name <value>`, or as
    /// `-n <value>` when the list below has a line `-n, --name`.
    fn learn(&mut self, help: &str) {
        let (usage, list) = help.split_once("\n\n").unwrap_or((help, ""));
        let words: Vec<&str> = usage.split_whitespace().collect();
        for pair in words.windows(2) {
            let name = pair[0].trim_start_matches('[');
            if name.starts_with('-') && pair[1].starts_with('<') {
                let line = format!("{name}, --");
                let long = list
                    .lines()
                    .find_map(|text| text.trim_start().strip_prefix(&line));
                let long = long.and_then(|rest| rest.split_whitespace().next());
                self.with_value.extend(long.map(|long| format!("--{long}")));
                self.with_value.push(name.to_owned());
            }
        }
    }

    fn take(&mut self, arguments: &[String]) {
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--" => return self.positionals.extend(rest.cloned()),
                "-h" | "--help" => self.help = true,
                "-V" | "--version" => self.version = true,
                argument if !is_option(argument) => self.positionals.push(argument.to_owned()),
                argument if self.with_value.iter().any(|name| name == argument) => {
                    self.options.push(argument.to_owned());
                    self.options.extend(rest.next().cloned());
                }
                argument => match argument.split_once('=') {
                    Some((name, value)) => self.options.extend([name.to_owned(), value.to_owned()]),
                    None => self.options.push(argument.to_owned()),
                },
            }
        }
    }
}

/// `-` (standard input) and negative numbers are none.
fn is_option(argument: &str) -> bool {
    argument
        .strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|first: char| !first.is_ascii_digit() && first != '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// a command
    #[derive(FromArgs, Debug, PartialEq)]
    struct Top {
        #[argh(subcommand)]
        command: Command,
    }

    #[derive(FromArgs, Debug, PartialEq)]
    #[argh(subcommand)]
    enum Command {
        Go(Go),
    }

    /// go somewhere
    #[derive(FromArgs, Debug, PartialEq, Default)]
    #[argh(subcommand, name = "go")]
    struct Go {
        /// how far
        #[argh(option, default = "0")]
        steps: i64,
        /// a name
        #[argh(option, short = 'n')]
        name: Option<String>,
        /// in a hurry
        #[argh(switch)]
        fast: bool,
        /// where
        #[argh(positional)]
        places: Vec<String>,
    }

    fn go(arguments: &[&str]) -> Result<Go, EarlyExit> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        understand::<Top>("test", &arguments).map(
            |Top {
                 command: Command::Go(go),
             }| go,
        )
    }

    fn places(places: &[&str]) -> Vec<String> {
        places.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn values_may_be_joined_by_an_equals_sign() {
        let expected = Go {
            steps: 3,
            name: Some("a=b".into()),
            ..Go::default()
        };
        assert_eq!(go(&["go", "--steps=3", "--name=a=b"]).unwrap(), expected);
        assert_eq!(go(&["go", "--steps", "3", "-n", "a=b"]).unwrap(), expected);
        let empty = Go {
            name: Some(String::new()),
            ..Go::default()
        };
        assert_eq!(go(&["go", "--name="]).unwrap(), empty);
    }

    #[test]
    fn options_may_precede_the_command() {
        let expected = Go {
            fast: true,
            steps: 2,
            ..Go::default()
        };
        assert_eq!(go(&["--fast", "--steps=2", "go"]).unwrap(), expected);
    }

    #[test]
    fn options_may_follow_positionals() {
        let expected = Go {
            fast: true,
            steps: 2,
            places: places(&["a", "b"]),
            ..Go::default()
        };
        assert_eq!(
            go(&["go", "a", "--fast", "b", "--steps", "2"]).unwrap(),
            expected
        );
    }

    #[test]
    fn negative_numbers_and_the_lone_dash_are_values() {
        let expected = Go {
            fast: true,
            steps: -2,
            places: places(&["-5", "-", "-.5"]),
            ..Go::default()
        };
        assert_eq!(
            go(&["go", "--fast", "-5", "-", "--steps", "-2", "-.5"]).unwrap(),
            expected
        );
        assert_eq!(
            go(&["go", "--fast", "-5", "-", "--steps=-2", "-.5"]).unwrap(),
            expected
        );
    }

    #[test]
    fn after_two_dashes_everything_is_a_value() {
        let expected = Go {
            places: places(&["--fast", "-h", "--", "help"]),
            ..Go::default()
        };
        assert_eq!(
            go(&["go", "--", "--fast", "-h", "--", "help"]).unwrap(),
            expected
        );
        assert_eq!(
            go(&["go", "put", "help"]).unwrap().places,
            places(&["put", "help"])
        );
    }

    #[test]
    fn an_options_value_may_look_like_an_option() {
        let expected = Go {
            name: Some("--fast".into()),
            ..Go::default()
        };
        assert_eq!(go(&["go", "--name", "--fast"]).unwrap(), expected);
    }

    #[test]
    fn help_and_version_are_found_anywhere_and_are_no_mistake() {
        for arguments in [
            &["go", "-h"][..],
            &["go", "x", "--fast", "--help"],
            &["-h", "go"],
            &["help", "go"],
        ] {
            let exit = go(arguments).unwrap_err();
            assert!(
                exit.status.is_ok() && exit.output.contains("go somewhere"),
                "{arguments:?}"
            );
        }
        for arguments in [&["-h"][..], &["--help"], &["help"]] {
            let exit = go(arguments).unwrap_err();
            assert!(
                exit.status.is_ok() && exit.output.contains("a command"),
                "{arguments:?}"
            );
        }
        for arguments in [&["-V"][..], &["--version"], &["go", "--version"]] {
            let exit = go(arguments).unwrap_err();
            assert_eq!(
                (exit.status, exit.output),
                (Ok(()), format!("electrode {}", env!("CARGO_PKG_VERSION")))
            );
        }
    }

    #[test]
    fn what_is_not_known_is_a_mistake() {
        for arguments in [
            &[][..],
            &["stay"],
            &["go", "--slow"],
            &["go", "--steps", "x"],
            &["go", "--steps"],
        ] {
            assert!(go(arguments).unwrap_err().status.is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn times_have_units() {
        let time = |text: &str| text.parse::<Time>().map(|time| time.0.as_millis());
        assert_eq!(time("5"), Ok(5000));
        assert_eq!(time("0.25s"), Ok(250));
        assert_eq!(time("20ms"), Ok(20));
        for wrong in ["", "-1", "x", "1m", "inf", "NaN", "1e300"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
