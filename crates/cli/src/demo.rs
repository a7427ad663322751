//! `electrode demo`: the whole thing on this machine.
//!
//! It makes a switch, the replicas and a client as network namespaces, runs the same group plainly and with its programs
//! in the kernel, in turns, and says what the difference is. The replicas and the load are this same binary, started
//! again on the hosts of a lab; the demo itself only looks: at `/proc`, and at what the replicas say of themselves.

mod ask;
mod cpu;
mod echo;
mod floor;
mod group;
mod place;
mod report;
mod table;
mod verdict;

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use argh::FromArgs;

use group::{Group, Mode};
use place::Place;
use report::{Report, Run};

/// run a whole group on this machine, plainly and accelerated in turns, and show what the kernel buys
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "demo")]
pub(crate) struct Demo {
    /// how many replicas: 3, 5 or 7 (default 3)
    #[argh(option, default = "3")]
    replicas: usize,

    /// how many clients, a list (default 1,8,32)
    #[argh(option, default = "String::from(\"1,8,32\")")]
    clients: String,

    /// seconds of load per number of clients, mode and round (default 1.5)
    #[argh(option, default = "1.5")]
    seconds: f64,

    /// rounds, each of which runs both modes (default 3)
    #[argh(option, default = "3")]
    rounds: u32,

    /// write all runs to this file, as JSON
    #[argh(option)]
    json: Option<String>,
}

/// What was asked for, checked.
struct Plan {
    replicas: usize,
    clients: Vec<usize>,
    seconds: f64,
    rounds: u32,
}

pub(crate) fn run(arguments: Demo) -> ExitCode {
    let plan = match plan(&arguments) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("electrode demo: {error:#}");
            return ExitCode::from(2);
        }
    };
    match demonstrate(&plan, arguments.json.as_deref()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("electrode demo: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn plan(arguments: &Demo) -> Result<Plan> {
    if ![3, 5, 7].contains(&arguments.replicas) {
        bail!("--replicas {}: 3, 5 or 7", arguments.replicas);
    }
    if !(0.1..=3600.0).contains(&arguments.seconds) {
        bail!("--seconds {}: from 0.1 to 3600", arguments.seconds);
    }
    if !(1..=1000).contains(&arguments.rounds) {
        bail!("--rounds {}: from 1 to 1000", arguments.rounds);
    }
    let mut clients = Vec::new();
    for word in arguments.clients.split(',') {
        match word.trim().parse() {
            Ok(number) if (1..=1024).contains(&number) => clients.push(number),
            _ => bail!("--clients {word}: a list of numbers from 1 to 1024"),
        }
    }
    clients.sort_unstable();
    clients.dedup();
    Ok(Plan {
        replicas: arguments.replicas,
        clients,
        seconds: arguments.seconds,
        rounds: arguments.rounds,
    })
}

/// Runs it all and prints it; whether the kernel did what it is there for.
fn demonstrate(plan: &Plan, json: Option<&str>) -> Result<bool> {
    // Before any other thread, so that an interrupt finds the handler.
    electrode_lab::clean_on_signals().context("handling signals")?;
    // Before anything is measured, so that a path that can't be written costs nobody a minute.
    let json = json
        .map(|path| File::create(path).with_context(|| format!("writing {path}")))
        .transpose()?;
    let place = Place::new(plan.replicas)?;
    let others = cpu::used_by_others()?;
    if others > 0.2 {
        eprintln!(
            "This machine is busy with other work ({others:.1} CPUs): the figures of the whole machine include that, \
             and may mislead."
        );
    }
    let floor = floor::measure(&place).context("measuring the floor")?;
    let mut runs = Vec::new();
    for round in 0..plan.rounds {
        for mode in modes(&place, round) {
            measure(&place, plan, mode, round, &mut runs)?;
        }
    }
    measure(&place, plan, Mode::Unreplicated, 0, &mut runs)?;
    let report = Report { floor, runs };
    if let Some(mut file) = json {
        let text = serde_json::to_string_pretty(&report).context("writing JSON")?;
        writeln!(file, "{text}").context("writing JSON")?;
    }
    drop(place);
    table::print(plan, &report);
    Ok(verdict::print(plan, &report))
}

/// Both modes, the other one first in each round, so that a machine that gets slower favours neither.
fn modes(place: &Place, round: u32) -> Vec<Mode> {
    match (place.accelerates(), round % 2) {
        (false, _) => vec![Mode::Plain],
        (true, 0) => vec![Mode::Plain, Mode::Accelerated],
        (true, _) => vec![Mode::Accelerated, Mode::Plain],
    }
}

/// One new group, under the load of each number of clients in turn.
fn measure(place: &Place, plan: &Plan, mode: Mode, round: u32, runs: &mut Vec<Run>) -> Result<()> {
    let replicas = match mode {
        Mode::Unreplicated => 1,
        Mode::Plain | Mode::Accelerated => plan.replicas,
    };
    let group = Group::start(place, mode, replicas, round)
        .with_context(|| format!("starting {replicas} replicas, {mode}"))?;
    // Caches, neighbours and sessions; nobody's first millisecond is measured.
    group.load(8, Duration::from_millis(200))?;
    for &clients in &plan.clients {
        let run = group
            .measure(clients, Duration::from_secs_f64(plan.seconds), round)
            .with_context(|| format!("{clients} clients, {mode}"))?;
        eprintln!(
            "round {}/{}  {:<12} {clients:>4} clients  {:>8.0} requests/s",
            round + 1,
            plan.rounds,
            mode.to_string(),
            run.requests_per_s
        );
        runs.push(run);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(arguments: &[&str]) -> Demo {
        Demo::from_args(&["demo"], arguments).unwrap()
    }

    #[test]
    fn the_plan_sorts_the_clients_and_refuses_what_makes_no_group() {
        let plan_of = |arguments: &[&str]| plan(&demo(arguments));
        assert_eq!(plan_of(&[]).unwrap().clients, [1, 8, 32]);
        assert_eq!(plan_of(&["--clients", "4, 1,4"]).unwrap().clients, [1, 4]);
        for wrong in [
            ["--replicas", "4"],
            ["--clients", "0"],
            ["--clients", "1,"],
            ["--seconds", "0"],
            ["--seconds", "NaN"],
            ["--rounds", "0"],
        ] {
            assert!(plan_of(&wrong).is_err(), "{wrong:?}");
        }
    }
}
