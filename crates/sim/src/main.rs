//! `electrode-sim`: runs seeds, shows one, and looks for more. `cargo xtask sim` builds it optimised and passes everything on.

#![forbid(unsafe_code)]

mod all_states;

use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use argh::FromArgs;
use electrode_sim::{
    Acceleration, Bounds, Engine, Failure, Plan, Programs, Report, run, run_traced,
};

/// Simulated groups from seeds: the real core and the real programs under every fault, checked after every step.
#[derive(FromArgs, Debug)]
struct Options {
    /// how many seeds to run (default 100)
    #[argh(option)]
    seeds: Option<u64>,
    /// the first seed (default 0; with --hours: one that nobody ran yet, from the clock)
    #[argh(option)]
    from: Option<u64>,
    /// run this seed alone
    #[argh(option)]
    seed: Option<u64>,
    /// with --seed: print what happens, and write a space-time diagram
    #[argh(switch)]
    trace: bool,
    /// where the diagram goes (default sim-SEED.html)
    #[argh(option)]
    diagram: Option<std::path::PathBuf>,
    /// simulated milliseconds before the end that the diagram shows (default 150)
    #[argh(option, default = "150")]
    window: u64,
    /// requests of a seed, of all clients together (default 500)
    #[argh(option, default = "500")]
    requests: u64,
    /// run new seeds for so many hours
    #[argh(option)]
    hours: Option<f64>,
    /// threads (default: one per CPU)
    #[argh(option)]
    threads: Option<usize>,
    /// who is accelerated: seeded (default), none or all
    #[argh(option, default = "Acceleration::Seeded", from_str_fn(acceleration))]
    accelerate: Acceleration,
    /// what survives a crash: seeded (default), memory or disk
    #[argh(option, default = "Durability::Seeded", from_str_fn(durability))]
    durability: Durability,
    /// what runs the programs: interpreter (default), whole (the same, without preemption), or rbpf (whole programs too)
    #[argh(option, default = "Engine::Interpreter", from_str_fn(engine))]
    engine: Engine,
    /// a file that failing seeds are added to (default sim-failures.txt, with --hours)
    #[argh(option)]
    failures: Option<std::path::PathBuf>,
    /// measure the speed: simulated seconds of a group of three, all accelerated, 1,000 requests a second
    #[argh(switch)]
    speed: bool,
    /// explore all states of a small group within the bounds that follow, instead of running seeds
    #[argh(switch)]
    exhaustive: bool,
    /// with --exhaustive: replicas (default 3)
    #[argh(option, default = "Bounds::default().replicas")]
    replicas: u8,
    /// with --exhaustive: clients, each with one request in flight (default 2)
    #[argh(option, default = "Bounds::default().clients")]
    clients: u8,
    /// with --exhaustive: requests of each client (default 1)
    #[argh(option, default = "Bounds::default().ops")]
    ops: u8,
    /// with --exhaustive: the highest view (default 2)
    #[argh(option, default = "Bounds::default().view_changes")]
    view_changes: u64,
    /// with --exhaustive: crashes (default 1)
    #[argh(option, default = "Bounds::default().crashes")]
    crashes: u8,
    /// with --exhaustive: programs that stand still at a time (default 0)
    #[argh(option, default = "Bounds::default().standing")]
    standing: u8,
    /// with --exhaustive: packets of the fast path that no program takes (default 1)
    #[argh(option, default = "Bounds::default().around")]
    around: u8,
    /// with --exhaustive: times that a retry timer changes something (default 1)
    #[argh(option, default = "Bounds::default().resends")]
    resends: u8,
    /// with --exhaustive: Prepares in flight (default 2)
    #[argh(option, default = "Bounds::default().window")]
    in_flight: u8,
    /// with --exhaustive: a checkpoint at every multiple of so many ops (default: none)
    #[argh(option, default = "Bounds::default().checkpoint_ops")]
    checkpoint_ops: u64,
    /// with --exhaustive: give up after so many states
    #[argh(option, default = "Bounds::default().most_states")]
    most_states: u64,
}

fn engine(text: &str) -> Result<Engine, String> {
    match text {
        "interpreter" => Ok(Engine::Interpreter),
        "whole" => Ok(Engine::Whole),
        "rbpf" => Ok(Engine::Rbpf),
        _ => Err(format!("{text} is none of interpreter, whole, rbpf")),
    }
}

/// What survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    Seeded,
    Memory,
    Disk,
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "seeded" => Ok(Durability::Seeded),
        "memory" => Ok(Durability::Memory),
        "disk" => Ok(Durability::Disk),
        _ => Err(format!("{text} is none of seeded, memory, disk")),
    }
}

/// What a seed is with these options.
fn plan_of(options: &Options, seed: u64) -> Plan {
    let plan = Plan::of(seed, options.requests, options.accelerate).on(options.engine);
    match options.durability {
        Durability::Seeded => plan,
        Durability::Memory => plan.in_memory(),
        Durability::Disk => plan.on_disk(),
    }
}

fn acceleration(text: &str) -> Result<Acceleration, String> {
    match text {
        "seeded" => Ok(Acceleration::Seeded),
        "none" => Ok(Acceleration::None),
        "all" => Ok(Acceleration::All),
        _ => Err(format!("{text} is none of seeded, none, all")),
    }
}

fn main() -> ExitCode {
    let options: Options = argh::from_env();
    match work(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("electrode-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything held.
fn work(options: &Options) -> Result<bool> {
    if options.requests == 0 {
        bail!("--requests 0: a run without requests shows nothing; give at least 1");
    }
    if options.threads == Some(0) {
        bail!("--threads 0: nobody would run anything; give at least 1");
    }
    if options.speed {
        return speed();
    }
    if options.seed.is_some() && (options.seeds.is_some() || options.from.is_some()) {
        bail!("--seed is one run; --seeds and --from are for many: give one of them");
    }
    if options.seeds.is_some() && options.hours.is_some() {
        bail!("--seeds ends after a number, --hours after a time: give one of them");
    }
    if options.seed.is_none() && (options.trace || options.diagram.is_some()) {
        bail!("--trace and --diagram show one run: give its --seed");
    }
    if options.exhaustive {
        return exhaustive(options);
    }
    match (options.seed, options.hours) {
        (Some(_), Some(_)) => {
            bail!("--seed is one run; --hours looks for new seeds: give one of them")
        }
        (Some(seed), None) => one(options, seed),
        (None, Some(hours)) => {
            let time =
                Duration::try_from_secs_f64(hours * 3600.0).context("--hours: not a time")?;
            let from = match options.from {
                Some(from) => from,
                None => unseen()?,
            };
            println!("seeds from {from} on");
            many(options, from, u64::MAX, Some(time))
        }
        (None, None) => {
            let from = options.from.unwrap_or(0);
            many(options, from, options.seeds.unwrap_or(100), None)
        }
    }
}

/// A seed that most likely nobody ran yet: the microsecond.
fn unseen() -> Result<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(
        now.context("the clock is before 1970: give --from")?
            .as_micros(),
    )
    .context("the clock is far in the future: give --from")
}

fn exhaustive(options: &Options) -> Result<bool> {
    if !(3..=7).contains(&options.replicas) || options.replicas.is_multiple_of(2) {
        bail!("--replicas: 3, 5 or 7");
    }
    // One byte each, and a few of them: more is beyond any machine.
    if options.clients == 0 || options.clients > 8 || options.ops > 8 || options.checkpoint_ops == 0
    {
        bail!("--clients: 1 to 8; --ops: at most 8; --checkpoint-ops: at least 1");
    }
    Ok(all_states::run(&Bounds {
        replicas: options.replicas,
        clients: options.clients,
        ops: options.ops,
        view_changes: options.view_changes,
        crashes: options.crashes,
        standing: options.standing,
        around: options.around,
        resends: options.resends,
        window: options.in_flight.clamp(1, 8),
        checkpoint_ops: options.checkpoint_ops,
        most_states: options.most_states,
    }))
}

fn one(options: &Options, seed: u64) -> Result<bool> {
    let plan = plan_of(options, seed);
    let programs = Rc::new(Programs::new()?);
    let outcome = if options.trace {
        let traced = run_traced(&plan, &programs, options.window);
        print!("{}", traced.timeline);
        let path = options.diagram.clone();
        let path = path.unwrap_or_else(|| format!("sim-{seed}.html").into());
        std::fs::write(&path, &traced.diagram)
            .with_context(|| format!("writing {}", path.display()))?;
        eprintln!("the space-time diagram is in {}", path.display());
        traced.outcome
    } else {
        run(&plan, &programs)
    };
    match outcome {
        Ok(report) => {
            println!("{plan:?}");
            println!("seed {seed} held: {}", describe(&report));
            Ok(true)
        }
        Err(failure) => {
            println!("{plan:?}");
            tell(&failure, options);
            Ok(false)
        }
    }
}

/// The line that runs a seed again, as these options have it.
fn reproduce(options: &Options, seed: u64) -> String {
    let who = match options.accelerate {
        Acceleration::Seeded => "",
        Acceleration::None => " --accelerate none",
        Acceleration::All => " --accelerate all",
    };
    let durability = match options.durability {
        Durability::Seeded => "",
        Durability::Memory => " --durability memory",
        Durability::Disk => " --durability disk",
    };
    let engine = match options.engine {
        Engine::Interpreter => "",
        Engine::Whole => " --engine whole",
        Engine::Rbpf => " --engine rbpf",
    };
    format!(
        "cargo xtask sim --seed {seed} --requests {}{who}{durability}{engine} --trace",
        options.requests
    )
}

fn tell(failure: &Failure, options: &Options) {
    println!("FAILED: {failure}");
    if !failure.state.is_empty() {
        println!("  {}", failure.state);
    }
    println!("  reproduce: {}", reproduce(options, failure.seed));
}

fn describe(report: &Report) -> String {
    format!(
        "{} replicas ({} accelerated, {}), {} requests ({} reads), {} ops ({} stored by kernels), {} views, {} crashes, \
         {} power cuts of all, {} disks that failed, {} damaged logs, {} packets ({} lost), {} steps checked, {:.2} simulated seconds, log digest {:016x}",
        report.replicas,
        report.accelerated,
        if report.on_disk {
            "on disk"
        } else {
            "in memory"
        },
        report.requests,
        report.reads,
        report.ops,
        report.stored,
        report.views,
        report.crashes,
        report.power_cuts,
        report.disk_failures,
        report.damaged_logs,
        report.packets,
        report.lost,
        report.steps,
        report.simulated as f64 / 1e9,
        report.digest
    )
}

/// What many runs add up to.
#[derive(Debug, Default)]
struct Sum {
    seeds: u64,
    accelerated: u64,
    requests: u64,
    expired: u64,
    unknown: u64,
    ops: u64,
    stored: u64,
    views: u64,
    crashes: u64,
    on_disk: u64,
    power_cuts: u64,
    disk_failures: u64,
    damaged_logs: u64,
    reads: u64,
    clogs: u64,
    foreign: u64,
    packets: u64,
    steps: u64,
    simulated: u64,
    /// The longest.
    mended: u64,
    failures: Vec<Failure>,
}

impl Sum {
    fn add(&mut self, outcome: Result<Report, Failure>) {
        self.seeds += 1;
        match outcome {
            Ok(report) => {
                self.accelerated += u64::from(report.accelerated > 0);
                self.requests += report.requests;
                self.expired += report.expired;
                self.unknown += report.unknown;
                self.ops += report.ops;
                self.stored += report.stored;
                self.views += report.views as u64;
                self.crashes += report.crashes;
                self.on_disk += u64::from(report.on_disk);
                self.power_cuts += report.power_cuts;
                self.disk_failures += report.disk_failures;
                self.damaged_logs += report.damaged_logs;
                self.reads += report.reads;
                self.clogs += report.clogs;
                self.foreign += report.foreign;
                self.packets += report.packets;
                self.steps += report.steps;
                self.mended = self.mended.max(report.mended);
                self.simulated += report.simulated;
            }
            Err(failure) => self.failures.push(failure),
        }
    }
}

fn many(options: &Options, from: u64, seeds: u64, time: Option<Duration>) -> Result<bool> {
    // Broken programs are told once, not by every thread.
    drop(Programs::new()?);
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let end = from.saturating_add(seeds);
    let sum = Mutex::new(Sum::default());
    let threads = options
        .threads
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    let kept = options
        .failures
        .clone()
        .or_else(|| time.is_some().then(|| "sim-failures.txt".into()));
    let shown = Mutex::new(begun);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let programs = Rc::new(Programs::new().expect("they were built a moment ago"));
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || time.is_some_and(|time| begun.elapsed() >= time) {
                        return;
                    }
                    let outcome = run(&plan_of(options, seed), &programs);
                    if let Err(failure) = &outcome {
                        tell(failure, options);
                        if let Some(path) = &kept
                            && let Err(error) = keep(path, failure, options)
                        {
                            eprintln!("electrode-sim: {}: {error}", path.display());
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                    let mut sum = sum.lock().expect("nobody panics with it");
                    sum.add(outcome);
                    show_progress(&sum, &shown, begun, time);
                }
            });
        }
    });
    let sum = sum.into_inner().expect("nobody panics with it");
    println!(
        "{} seeds from {} in {:.1} s: {} held, {} failed",
        sum.seeds,
        from,
        begun.elapsed().as_secs_f64(),
        sum.seeds - sum.failures.len() as u64,
        sum.failures.len()
    );
    println!(
        "  {} requests ({} reads), {} ops ({} stored by kernels; {} seeds with a fast path), {} views, {} crashes, \
         {} packets, {} steps checked, {:.1} simulated seconds",
        sum.requests,
        sum.reads,
        sum.ops,
        sum.stored,
        sum.accelerated,
        sum.views,
        sum.crashes,
        sum.packets,
        sum.steps,
        sum.simulated as f64 / 1e9
    );
    println!(
        "  {} seeds on disk: {} power cuts of all at once, {} disks that failed, {} damaged logs",
        sum.on_disk, sum.power_cuts, sum.disk_failures, sum.damaged_logs
    );
    println!(
        "  the longest that a group took to work again when the faults had ended: {:.0} ms",
        sum.mended as f64 / 1e6
    );
    println!(
        "  {} clogs, {} packets of other groups and versions, {} sessions that expired and left {} requests of unknown fate",
        sum.clogs, sum.foreign, sum.expired, sum.unknown
    );
    Ok(sum.failures.is_empty() && sum.seeds > 0 && !stop.load(Ordering::Relaxed))
}

/// A line a second, for who waits.
fn show_progress(sum: &Sum, shown: &Mutex<Instant>, begun: Instant, time: Option<Duration>) {
    let mut shown = shown.lock().expect("nobody panics with it");
    let every = if time.is_some() { 10 } else { 5 };
    if shown.elapsed() < Duration::from_secs(every) {
        return;
    }
    *shown = Instant::now();
    eprintln!(
        "{:>7.0} s  {} seeds, {} failed, {} ops, {} views, {} crashes, {:.0} simulated seconds",
        begun.elapsed().as_secs_f64(),
        sum.seeds,
        sum.failures.len(),
        sum.ops,
        sum.views,
        sum.crashes,
        sum.simulated as f64 / 1e9
    );
}

/// A failing seed is kept as it happens, so that an interrupted search has lost nothing: what was broken, and all that it takes
/// to see it again, which is the line and the commit.
fn keep(path: &std::path::Path, failure: &Failure, options: &Options) -> std::io::Result<()> {
    use std::io::Write as _;
    let line = reproduce(options, failure.seed);
    let text = format!("{failure}\n  reproduce: {line}\n  with {}\n", build());
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?;
    file.write_all(text.as_bytes())
}

/// What was run: the version, and the commit of the tree that one stands in, if there is one.
fn build() -> String {
    let version = concat!("electrode-sim ", env!("CARGO_PKG_VERSION"));
    let described = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output();
    let commit = described.ok().filter(|output| output.status.success());
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match commit {
        Some(commit) => format!("{version}, commit {commit}"),
        None => format!("{version}, commit unknown"),
    }
}

/// Simulated seconds of a group per second of one CPU.
fn speed() -> Result<bool> {
    let programs = Rc::new(Programs::new()?);
    let plan = Plan::for_speed(10_000);
    let begun = Instant::now();
    match run(&plan, &programs) {
        Ok(report) => {
            let (simulated, real) = (report.simulated as f64 / 1e9, begun.elapsed().as_secs_f64());
            println!("{}", describe(&report));
            println!(
                "{simulated:.2} simulated seconds in {real:.2} s: {:.1} group-seconds per second, {:.0} requests per simulated second",
                simulated / real,
                report.requests as f64 / simulated
            );
            Ok(true)
        }
        Err(failure) => {
            println!("FAILED: {failure}");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use electrode_sim::{Rule, Violation};

    #[test]
    fn the_line_of_a_kept_failure_makes_the_same_run() {
        let parsed = |words: &[&str]| Options::from_args(&["electrode-sim"], words).unwrap();
        let options = parsed(
            &"--hours 1 --accelerate none --durability disk --engine whole --requests 70"
                .split(' ')
                .collect::<Vec<_>>(),
        );
        let failure = Failure {
            seed: 17,
            at: 3,
            violation: Violation {
                rule: Rule {
                    name: "a rule",
                    source: "a page",
                },
                text: "was broken".into(),
            },
            state: String::new(),
        };
        let path = std::env::temp_dir().join(format!("sim-failures-{}", std::process::id()));
        keep(&path, &failure, &options).unwrap();
        let kept = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(kept.starts_with("seed 17 ") && kept.contains("was broken"));
        assert!(kept.contains(env!("CARGO_PKG_VERSION")) && kept.contains("commit "));
        let line = kept.lines().find_map(|line| {
            line.trim()
                .strip_prefix("reproduce: cargo xtask sim ")
                .map(|words| words.split(' ').collect::<Vec<_>>())
        });
        let again = parsed(&line.unwrap());
        let of = |options: &Options| format!("{:?}", plan_of(options, 17));
        assert_eq!(again.seed, Some(17));
        assert_eq!(of(&again), of(&options));
    }
}
