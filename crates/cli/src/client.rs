//! `electrode client`: ask a group.

mod answer;
mod question;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;
use electrode_apps::{KvOp, KvResult};
use electrode_client::{Client as Session, Options, RequestError};
use electrode_config::Config;

use crate::arguments::{Time, USAGE, config_path};
use answer::{Answer, Printer};
use question::Question;

/// Ask a group that runs the key-value store.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "client",
    example = "{command_name} put KEY VALUE\n{command_name} get KEY\n{command_name} delete KEY\n\
               {command_name} append KEY VALUE\n{command_name} cas KEY OLD NEW\n\
               {command_name} cas --absent KEY NEW\n{command_name} scan PREFIX\n{command_name} count PREFIX",
    note = "A key or value may be - : standard input, byte by byte.",
    error_code(1, "not found, or the compare failed"),
    error_code(2, "the command line or the configuration is wrong"),
    error_code(3, "unavailable, or a read wasn't answered in time"),
    error_code(4, "a write wasn't answered in time: its outcome is unknown")
)]
pub(crate) struct Client {
    /// the configuration file (default: $ELECTRODE_CONFIG, then ./config.txt)
    #[argh(option)]
    config: Option<PathBuf>,

    /// how long to try, in seconds or as 200ms (default: 5)
    #[argh(option, default = "Time(Duration::from_secs(5))")]
    deadline: Time,

    /// print JSON
    #[argh(switch)]
    json: bool,

    /// keys and values are given and printed in hexadecimal
    #[argh(switch)]
    hex: bool,

    /// cas: the key is expected not to be there
    #[argh(switch)]
    absent: bool,

    /// scan: stop after this many entries (default: all)
    #[argh(option)]
    limit: Option<u64>,

    /// what to do
    #[argh(positional)]
    words: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Configuration(String),
    #[error("{0}")]
    Request(RequestError),
    #[error("the group doesn't run the key-value store: {0}")]
    Application(&'static str),
}

impl Problem {
    fn of(error: RequestError) -> Problem {
        match error {
            RequestError::NotRead => Problem::Application("to it a get isn't a read"),
            error => Problem::Request(error),
        }
    }
}

pub(crate) fn run(arguments: Client) -> ExitCode {
    let printer = Printer {
        json: arguments.json,
        hex: arguments.hex,
    };
    match ask(&arguments, &printer) {
        Ok(code) => code,
        Err((problem, writes)) => {
            let unknown = matches!(&problem, Problem::Request(error) if error.outcome_unknown());
            let words = match &problem {
                // What only reads has no outcome that could be unknown.
                Problem::Request(RequestError::DeadlineUnknown { waited_ms }) if !writes => {
                    format!("no answer within {waited_ms} ms")
                }
                problem => problem.to_string(),
            };
            printer.problem(&words, unknown && writes);
            ExitCode::from(match problem {
                Problem::Usage(_) | Problem::Configuration(_) => USAGE,
                Problem::Request(RequestError::TooLarge { .. }) => USAGE,
                Problem::Request(_) if unknown && writes => 4,
                Problem::Request(_) | Problem::Application(_) => 3,
            })
        }
    }
}

/// The error says, too, whether the question writes.
fn ask(arguments: &Client, printer: &Printer) -> Result<ExitCode, (Problem, bool)> {
    let question = Question::read(
        &arguments.words,
        arguments.absent,
        arguments.hex,
        standard_input,
    )
    .map_err(|words| (Problem::Usage(words), false))?;
    let writes = question.writes();
    let client = connect(arguments).map_err(|problem| (problem, writes))?;
    smol::block_on(async {
        match &question {
            Question::One(op) => {
                let asked = op.encode();
                let result = if writes {
                    client.request(asked).await
                } else {
                    client.read(asked).await
                };
                let result = result.map_err(|error| (Problem::of(error), writes))?;
                let answer =
                    Answer::read(&result).map_err(|words| (Problem::Application(words), writes))?;
                Ok(printer.answer(&answer))
            }
            Question::Scan(prefix) => {
                let limit = arguments.limit.unwrap_or(u64::MAX);
                scan(&client, prefix, limit, printer)
                    .await
                    .map_err(|problem| (problem, writes))
            }
        }
    })
}

fn connect(arguments: &Client) -> Result<Session, Problem> {
    let configuration = |error: &dyn std::fmt::Display| Problem::Configuration(error.to_string());
    let config = Config::load(config_path(arguments.config.clone()))
        .map_err(|error| configuration(&error))?;
    let replicas = config.resolve().map_err(|error| configuration(&error))?;
    let options = Options {
        deadline: arguments.deadline.0,
        ..Options::new(replicas)
    };
    Session::connect(options).map_err(|error| configuration(&error))
}

/// Scans page by page, since one answer holds only so much; each page is one request of its own.
async fn scan(
    client: &Session,
    prefix: &[u8],
    limit: u64,
    printer: &Printer,
) -> Result<ExitCode, Problem> {
    let mut after: Option<Vec<u8>> = None;
    let mut left = limit;
    let mut entries = Vec::new();
    loop {
        let page = u32::try_from(left).unwrap_or(u32::MAX);
        let op = KvOp::Scan {
            prefix,
            after: after.as_deref(),
            limit: page,
        };
        let result = client.read(op.encode()).await.map_err(Problem::of)?;
        let Ok(KvResult::Entries {
            entries: found,
            more,
        }) = KvResult::decode(&result)
        else {
            return Err(Problem::Application("no answer to a scan"));
        };
        left -= found.len() as u64;
        let last = found.last().map(|(key, _)| key.to_vec());
        entries.extend(
            found
                .iter()
                .map(|(key, value)| (key.to_vec(), value.to_vec())),
        );
        // A page without progress would come again and again.
        if !more || left == 0 || last.is_none() {
            return Ok(printer.entries(&entries, more));
        }
        after = last;
    }
}

fn standard_input() -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // One more than the longest value, so that what is too long is refused rather than cut.
    let most = electrode_apps::kv::MAX_VALUE_BYTES as u64 + 1;
    let read = std::io::stdin().lock().take(most).read_to_end(&mut bytes);
    read.map(|_| bytes)
        .map_err(|error| format!("standard input: {error}"))
}
