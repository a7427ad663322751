//! `electrode bench`: measure a group.

mod load;
mod plot;
mod recorder;
mod report;
mod socket;
mod workload;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;
use electrode_client::{Client, ConnectError, Options, RequestError};
use electrode_config::{Config, ConfigError, ResolveError};

use crate::arguments::{Time, USAGE, config_path};
use load::{Load, Plan};
use workload::Application;

pub(crate) use report::BenchReport;

/// The most clients of one run.
const MAX_CLIENTS: usize = 4096;

/// The largest payload that fits into an operation besides its key and lengths, in bytes.
const MAX_VALUE_SIZE: usize = 32 << 10;

/// Measure a group: closed-loop clients in one thread, each asking again when it is answered. Every reply is verified.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "bench",
    error_code(1, "a reply was wrong or missing"),
    error_code(2, "the command line or the configuration is wrong"),
    error_code(3, "the group is unavailable")
)]
pub(crate) struct Bench {
    /// the configuration file (default: $ELECTRODE_CONFIG, then ./config.txt)
    #[argh(option)]
    config: Option<PathBuf>,

    /// how many clients ask at once (default: 1)
    #[argh(option, default = "1")]
    clients: usize,

    /// how many requests to measure, of all clients together
    #[argh(option)]
    requests: Option<u64>,

    /// how long to measure, in seconds or as 200ms (default: 10, unless --requests is given)
    #[argh(option)]
    seconds: Option<Time>,

    /// how long to run before measuring (default: 0)
    #[argh(option, default = "Time(Duration::ZERO)")]
    warmup: Time,

    /// bytes of payload in each request (default: 64)
    #[argh(option, default = "64")]
    value_size: usize,

    /// echo (for null), put (for kv: puts and gets in turn) or auto: find out which the group runs (default: auto)
    #[argh(option, default = "Operation::Auto")]
    op: Operation,

    /// a request that isn't answered within this time counts as an error (default: 5)
    #[argh(option, default = "Time(Duration::from_secs(5))")]
    deadline: Time,

    /// draw latencies and throughput into this SVG file
    #[argh(option)]
    plot: Option<PathBuf>,

    /// print the report as JSON
    #[argh(switch)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Auto,
    Echo,
    Put,
}

impl std::str::FromStr for Operation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Operation, Self::Err> {
        match text {
            "auto" => Ok(Operation::Auto),
            "echo" => Ok(Operation::Echo),
            "put" => Ok(Operation::Put),
            _ => Err("expected auto, echo or put"),
        }
    }
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no request was answered: {0}")]
    Unavailable(#[from] RequestError),
    #[error("the group runs neither null nor kv: its answer can't be understood")]
    Application,
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
    #[error("{path}: {error}")]
    Plot { path: String, error: String },
}

pub(crate) fn run(arguments: Bench) -> ExitCode {
    match measure(&arguments) {
        Ok(report) => {
            report.print(arguments.json);
            if report.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("electrode bench: {error}");
            ExitCode::from(match error {
                BenchError::Usage(_) | BenchError::Config(_) | BenchError::Resolve(_) => USAGE,
                BenchError::Unavailable(_) | BenchError::Connect(_) => 3,
                BenchError::Application | BenchError::Socket(_) | BenchError::Plot { .. } => 1,
            })
        }
    }
}

fn measure(arguments: &Bench) -> Result<BenchReport, BenchError> {
    check(arguments)?;
    let replicas = Config::load(config_path(arguments.config.clone()))?.resolve()?;
    let application = match arguments.op {
        Operation::Echo => Application::Null,
        Operation::Put => Application::Kv,
        Operation::Auto => detect(&replicas, arguments.deadline.0)?,
    };
    let seconds = match (arguments.seconds, arguments.requests) {
        (None, None) => Some(Duration::from_secs(10)),
        (seconds, _) => seconds.map(|time| time.0),
    };
    let plan = Plan {
        replicas,
        application,
        clients: arguments.clients,
        value_size: arguments.value_size,
        warmup: arguments.warmup.0,
        seconds,
        requests: arguments.requests,
        deadline: arguments.deadline.0,
        progress: !arguments.json && std::io::stderr().is_terminal(),
    };
    let recorder = Load::new(plan)?.run()?;
    let report = BenchReport::new(arguments.clients, &recorder);
    if let Some(path) = &arguments.plot {
        plot::draw(path, &recorder).map_err(|error| BenchError::Plot {
            path: path.display().to_string(),
            error: error.to_string(),
        })?;
    }
    Ok(report)
}

fn check(arguments: &Bench) -> Result<(), BenchError> {
    let usage = |words: String| Err(BenchError::Usage(words));
    if !(1..=MAX_CLIENTS).contains(&arguments.clients) {
        return usage(format!("--clients: expected 1 to {MAX_CLIENTS}"));
    }
    if arguments.requests == Some(0) {
        return usage("--requests: expected at least 1".to_owned());
    }
    let overhead = workload::OVERHEAD;
    if arguments.value_size > MAX_VALUE_SIZE - overhead {
        return usage(format!(
            "--value-size: expected at most {}",
            MAX_VALUE_SIZE - overhead
        ));
    }
    Ok(())
}

/// Asks for a key: kv answers, null echoes.
fn detect(replicas: &[SocketAddr], deadline: Duration) -> Result<Application, BenchError> {
    let client = Client::connect(Options {
        deadline,
        ..Options::new(replicas.to_vec())
    })?;
    let probe = workload::probe();
    let answer = smol::block_on(client.request(probe.clone()))?;
    Application::by_answer(&probe, &answer).ok_or(BenchError::Application)
}
