//! Tasks of the repository: `cargo xtask test` is everything, `verify` what needs no test run, `fix` what a machine can
//! mend.

#![forbid(unsafe_code)]

mod cargo;
mod chaos;
mod deb;
mod edges;
mod nix;
mod reproduce;
mod runner;
mod sim;
mod tidy;
mod tools;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use argh::FromArgs;

use cargo::{CargoFailed, Part};

/// tasks of the repository
#[derive(FromArgs, Debug)]
struct Xtask {
    #[argh(subcommand)]
    task: Task,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Task {
    Test(Test),
    Verify(Verify),
    Fix(Fix),
    Tidy(Tidy),
    Vm(vm::Vm),
    Nix(nix::Nix),
    Deb(deb::Deb),
    Reproduce(reproduce::Reproduce),
    Sim(Sim),
    Chaos(Chaos),
}

/// install what is missing, verify, build and run every test
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "test")]
struct Test {}

/// check format, edges, words and lints; writes nothing
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "verify")]
struct Verify {}

/// format, and apply the lints' own suggestions
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "fix")]
struct Fix {}

/// check who imports whom and what must not be in the sources; writes nothing
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "tidy")]
struct Tidy {}

/// run the simulator: --seeds N, --seed S --trace, --hours N, --mutations, --speed (more: cargo xtask sim --help)
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "sim")]
struct Sim {}

/// run real replicas under chaos: --minutes N, --seed S, --replicas N (more: cargo xtask chaos --help)
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "chaos")]
struct Chaos {}

fn main() -> ExitCode {
    // The simulator and the chaos read their own arguments.
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    let arguments: Vec<_> = arguments.collect();
    match first.as_ref().and_then(|first| first.to_str()) {
        Some("sim") => return exit(sim::run(&arguments)),
        Some("chaos") => return exit(chaos::run(&arguments)),
        _ => {}
    }
    // So does a test.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == runner::TASK) {
        return exit(runner::run(arguments));
    }
    let Xtask { task } = argh::from_env();
    exit(match task {
        Task::Test(_) => test(),
        Task::Verify(_) => verify(),
        Task::Fix(_) => fix(),
        Task::Tidy(_) => tidy::check(),
        Task::Vm(arguments) => vm::run(&arguments),
        Task::Nix(_) => nix::run(),
        Task::Deb(arguments) => deb::run(&arguments),
        Task::Reproduce(_) => reproduce::run(),
        Task::Sim(_) => sim::run(&[]),
        Task::Chaos(_) => chaos::run(&[]),
    })
}

fn exit(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Cargo's own words stay the last ones.
        Err(error) if error.is::<CargoFailed>() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The features that no default has: commands whose dependencies their libraries do without.
const FEATURES: &[&str] = &["--features", "bpf-asm/cli"];

fn verify() -> Result<()> {
    Part::new("format").cargo(&["fmt", "--all", "--check"])?;
    Part::new("tidy").run(tidy::check)?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--profile", "ci"];
    Part::new("lints").cargo(&[&clippy[..], FEATURES, &["--", "-D", "warnings"]].concat())
}

fn test() -> Result<()> {
    Part::new("tools").run(tools::provide)?;
    verify()?;
    // One selection of packages for all, since another one has other features, and is built again.
    let test = ["test", "--profile", "ci", "--no-fail-fast", "--workspace"];
    let test = [&test[..], FEATURES].concat();
    Part::new("build").cargo(&[&test[..], &["--no-run"]].concat())?;
    Part::new("tests in the documentation").cargo(&[&test[..], &["--doc"]].concat())?;
    // Each rule that is taken out has to be noticed; the simulator is built once more for it.
    sim::run(&["--mutations".into()])?;
    Part::new("nix").run(nix::run)?;
    Part::new("virtual machines").run(vm::run_all)?;
    // Last, so that what stands at the end is cargo's own summary; its seconds are in there.
    let runner = runner::configuration()?;
    let tests = [&test[..], &["--tests", "--config", &runner]].concat();
    Part::new("tests").last(&tests)
}

fn fix() -> Result<()> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--fix"];
    Part::new("lints").cargo(&[&clippy[..], &["--allow-dirty", "--allow-staged"]].concat())?;
    Part::new("format").cargo(&["fmt", "--all"])
}
