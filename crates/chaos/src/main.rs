//! `electrode-chaos`: real replicas under chaos. `cargo xtask chaos` builds it and the replicas' binary, and passes everything on.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use argh::FromArgs;
use electrode_chaos::{Plan, run};

/// Real replicas in network namespaces, with bad links and dying processes; what clients see has to be linearizable all the time.
#[derive(FromArgs, Debug)]
struct Options {
    /// how long (default 1.5)
    #[argh(option, default = "1.5")]
    minutes: f64,
    /// decides faults, workload and groups (default: from the clock)
    #[argh(option)]
    seed: Option<u64>,
    /// replicas of a group: 3 (default), 5 or 7
    #[argh(option, default = "3")]
    replicas: usize,
    /// requests per second of all clients together, at most (default 200)
    #[argh(option, default = "200")]
    rate: u32,
    /// seconds until a group has to be well again after the last fault (default 60)
    #[argh(option, default = "60")]
    healing: u64,
    /// the replicas' binary (default: `electrode` beside this one)
    #[argh(option)]
    binary: Option<PathBuf>,
    /// where history and logs go when something is violated (default chaos-SEED)
    #[argh(option)]
    keep: Option<PathBuf>,
    /// print each fault as it happens
    #[argh(switch)]
    trace: bool,
    /// print the outcome as JSON
    #[argh(switch)]
    json: bool,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(code) => return code,
    };
    let plan = match plan(&options) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("electrode-chaos: {error:#}");
            return ExitCode::from(2);
        }
    };
    match work(&plan, options.json) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("electrode-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line says; or, where that is a question or a mistake, the answer is printed.
fn options() -> Result<Options, ExitCode> {
    let arguments = std::env::args_os().skip(1);
    let arguments: Vec<String> = arguments
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Options::from_args(&["electrode-chaos"], &arguments).map_err(|early| match early.status {
        Ok(()) => {
            println!("{}", early.output);
            ExitCode::SUCCESS
        }
        Err(()) => {
            eprintln!("{}", early.output);
            ExitCode::from(2)
        }
    })
}

fn plan(options: &Options) -> Result<Plan> {
    let length = Duration::try_from_secs_f64(options.minutes * 60.0)
        .with_context(|| format!("--minutes {}: not a time", options.minutes))?;
    let seed = options.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| now.as_secs())
    });
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()
            .context("finding this binary")?
            .with_file_name("electrode"),
    };
    let mut plan = Plan::new(seed, binary);
    plan.length = length;
    plan.replicas = options.replicas;
    plan.rate = options.rate;
    plan.healing = Duration::from_secs(options.healing);
    plan.trace = options.trace;
    if let Some(keep) = &options.keep {
        plan.keep.clone_from(keep);
    }
    plan.check()?;
    if !electrode_lab::is_root() {
        bail!("network namespaces and programs in the kernel need root: run it with sudo");
    }
    Ok(plan)
}

/// Whether everything held.
fn work(plan: &Plan, json: bool) -> Result<bool> {
    // Before any other thread, so that an interrupt finds the handler.
    electrode_lab::clean_on_signals().context("handling signals")?;
    eprintln!(
        "seed {}: {} replicas for {:.1} minutes",
        plan.seed,
        plan.replicas,
        plan.length.as_secs_f64() / 60.0
    );
    let report = run(plan)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    if !report.held {
        let kept = report.kept.as_deref().unwrap_or("nowhere");
        eprintln!("history, timeline and logs: {kept}");
        eprintln!(
            "once more: cargo xtask chaos --seed {} --minutes {:.2} --replicas {} --rate {}",
            plan.seed,
            plan.length.as_secs_f64() / 60.0,
            plan.replicas,
            plan.rate
        );
    }
    Ok(report.held)
}
