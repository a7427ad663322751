//! `cargo xtask vm`: whole machines, under plain QEMU, on Debian's kernels. The scenarios are those of the NixOS tests;
//! vm-tests/README.md says how the two hang together.

mod archive;
mod guest;
mod kernels;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use argh::FromArgs;
use serde_json::{Value, json};

use crate::cargo::root;
use crate::tools;
use kernels::{KERNELS, Kernel};

/// How much slower than a real machine an emulated one is: time-outs are multiplied by it.
const EMULATED: u32 = 10;

/// How long the whole test may begin new scenarios, in seconds: on a machine that is busy with other things, what is left
/// then is named and left out.
const BUDGET_SECONDS: u32 = 480;

/// What one run leaves on the disk at most, in MiB: kernels, file systems, logs.
const DISK_MIB: u64 = 2048;

/// run scenarios in virtual machines; without options all that are meant for each kernel
#[derive(FromArgs, Debug, Default)]
#[argh(subcommand, name = "vm")]
pub(crate) struct Vm {
    /// a kernel (repeatable; default: all): 5.10, 6.1, 6.12, newest
    #[argh(option)]
    kernel: Vec<String>,

    /// a scenario of vm-tests/scenarios (repeatable; default: all that are meant for the kernel)
    #[argh(option)]
    scenario: Vec<String>,

    /// print kernels and scenarios, and run nothing
    #[argh(switch)]
    list: bool,

    /// use the processor's own virtualisation (KVM) rather than emulation
    #[argh(switch)]
    kvm: bool,

    /// an older build of electrode, for the scenarios that upgrade (default: this build)
    #[argh(option)]
    previous: Option<PathBuf>,

    /// only what the whole test runs: scenarios on the kernels that the table has them in `test` for
    #[argh(switch)]
    test: bool,

    /// begin no more scenarios after so many seconds, but name them (default: run all)
    #[argh(option)]
    budget: Option<u32>,

    /// say every command
    #[argh(switch)]
    verbose: bool,
}

/// A scenario, as vm-tests/scenarios.json tells.
#[derive(Debug)]
struct Scenario {
    about: String,
    kernels: Vec<String>,
    /// The kernels on which the whole test runs it.
    test: Vec<String>,
}

/// Runs what the arguments ask for.
pub(crate) fn run(arguments: &Vm) -> Result<()> {
    let table = table()?;
    let mut scenarios = scenarios(&table)?;
    if arguments.list {
        list(&scenarios);
        return Ok(());
    }
    if arguments.test {
        for scenario in scenarios.values_mut() {
            scenario.kernels.clone_from(&scenario.test);
        }
    }
    let chosen = choose(&scenarios, &arguments.scenario, &arguments.kernel)?;
    let missing = tools::missing_for_machines();
    if !missing.is_empty() {
        bail!(
            "virtual machines need {0}; sudo apt-get install {0}",
            missing.join(" ")
        );
    }
    let folder = root().join("target/vm");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let _claimed = claim(&folder)?;
    enough_room(&folder, free_mib(&folder)?)?;
    let mut fetched = Vec::new();
    for (kernel, _) in &chosen {
        fetched.push(kernel.provide(&folder.join("kernels"))?);
    }
    let built = guest::build()?;
    let mut planned = Vec::new();
    for ((kernel, names), fetched) in chosen.iter().zip(&fetched) {
        let archive = folder.join(format!("guest-{}.cpio", kernel.name));
        guest::write(&archive, fetched, &built, arguments.previous.as_deref())?;
        println!("kernel {}: {}", kernel.name, fetched.release);
        planned.push(json!({
            "name": kernel.name,
            "image": fetched.image,
            "archive": archive,
            "scenarios": names,
        }));
    }
    let plan = json!({
        "kernels": planned,
        "scenarios": table,
        "folder": folder.join("run"),
        "scripts": root().join("vm-tests/scenarios"),
        "slowness": if arguments.kvm { 1 } else { EMULATED },
        "budget": arguments.budget,
        "accelerator": if arguments.kvm { "kvm" } else { "tcg" },
    });
    let path = folder.join("plan.json");
    fs::write(&path, serde_json::to_string_pretty(&plan)?)?;
    drive(&path, arguments.verbose)
}

/// Runs all scenarios on the kernels that they are meant for, as a part of the whole test. Where there is no QEMU, or a
/// kernel can't be fetched, that is said by name, and the rest runs.
pub(crate) fn run_all() -> Result<()> {
    let missing = tools::missing_for_machines();
    if !missing.is_empty() {
        println!(
            "SKIPPED: virtual machines: packages missing here: {}",
            missing.join(", ")
        );
        return Ok(());
    }
    let folder = root().join("target/vm/kernels");
    let scenarios = scenarios(&table()?)?;
    let tested = |kernel: &&Kernel| {
        let on = |scenario: &Scenario| scenario.test.iter().any(|name| name == kernel.name);
        scenarios.values().any(on)
    };
    let mut kernels = Vec::new();
    for kernel in KERNELS.iter().filter(tested) {
        match kernel.provide(&folder) {
            Ok(_) => kernels.push(kernel.name.to_owned()),
            Err(error) => println!("SKIPPED: virtual machines on this kernel: {error:#}"),
        }
    }
    if kernels.is_empty() {
        return Ok(());
    }
    run(&Vm {
        kernel: kernels,
        budget: Some(BUDGET_SECONDS),
        test: true,
        ..Vm::default()
    })
}

/// Runs the runner on a plan. It ends with us: the kernel sees to that.
fn drive(plan: &Path, verbose: bool) -> Result<()> {
    let mut runner = Command::new("python3");
    runner
        .arg("-B")
        .arg(root().join("vm-tests/runner"))
        .arg(plan)
        .stdin(Stdio::null());
    if verbose {
        runner.arg("--verbose");
    }
    let status = runner.status().context("starting python3")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(1) => bail!("scenarios failed; their serial logs are in target/vm/run"),
        _ => bail!("the runner of virtual machines ended with {status}"),
    }
}

/// The table of scenarios.
fn table() -> Result<Value> {
    let path = root().join("vm-tests/scenarios.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn scenarios(table: &Value) -> Result<BTreeMap<String, Scenario>> {
    let table = table.as_object().context("an object of scenarios")?;
    let mut scenarios = BTreeMap::new();
    for (name, value) in table {
        let kernels = |key: &str| -> Result<Vec<String>> {
            let list = value[key].as_array();
            let list = list.with_context(|| format!("{name}: {key}: a list of kernels"))?;
            let names = list.iter().filter_map(Value::as_str);
            Ok(names.map(str::to_owned).collect())
        };
        let scenario = Scenario {
            about: value["about"].as_str().unwrap_or_default().to_owned(),
            kernels: kernels("kernels")?,
            test: kernels("test")?,
        };
        scenarios.insert(name.clone(), scenario);
    }
    Ok(scenarios)
}

fn list(scenarios: &BTreeMap<String, Scenario>) {
    let names: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
    println!("kernels: {}", names.join(", "));
    for (name, scenario) in scenarios {
        let on = match scenario.kernels.join(", ") {
            none if none.is_empty() => "when asked for".to_owned(),
            kernels => format!("on {kernels}"),
        };
        println!("{name} ({on}): {}", scenario.about);
    }
}

/// Which scenarios run on which kernel. One that is named runs on every kernel that is named, meant for it or not.
fn choose<'s>(
    scenarios: &'s BTreeMap<String, Scenario>,
    named: &[String],
    kernels: &[String],
) -> Result<Vec<(&'static Kernel, Vec<&'s str>)>> {
    for name in named {
        if !scenarios.contains_key(name) {
            let names: Vec<_> = scenarios.keys().map(String::as_str).collect();
            bail!("no scenario {name}; there are {}", names.join(", "));
        }
    }
    let every: Vec<&'static Kernel> = if kernels.is_empty() {
        KERNELS.iter().collect()
    } else {
        let kernels = kernels.iter().map(|name| kernels::by_name(name));
        kernels.collect::<Result<_>>()?
    };
    let mut chosen = Vec::new();
    for kernel in every {
        let meant = |name: &str, scenario: &Scenario| {
            let asked = named.is_empty() || named.iter().any(|wanted| wanted == name);
            let insisted = !named.is_empty() && !kernels.is_empty();
            asked && (insisted || scenario.kernels.iter().any(|on| on == kernel.name))
        };
        let names = scenarios
            .iter()
            .filter(|(name, scenario)| meant(name, scenario));
        let mut names: Vec<_> = names.collect();
        // What is tested on most kernels comes first: when time runs out, the rest is what is left out.
        names.sort_by_key(|(_, scenario)| Reverse(scenario.test.len()));
        let names: Vec<&str> = names.into_iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            chosen.push((kernel, names));
        }
    }
    if chosen.is_empty() {
        bail!("none of these scenarios is meant for these kernels; name one kernel to insist");
    }
    Ok(chosen)
}

/// The folder for this process alone, until what is returned is dropped: two runs would use the same disks.
fn claim(folder: &Path) -> Result<fs::File> {
    let path = folder.join("lock");
    let file = fs::File::create(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!(
            "{}: another run of virtual machines uses it; wait for its end",
            folder.display()
        ),
        Err(fs::TryLockError::Error(error)) => Err(error).context(path.display().to_string()),
    }
}

/// What is free on the folder's disk, in MiB, where `df` can say it.
fn free_mib(folder: &Path) -> Result<Option<u64>> {
    let output = Command::new("df")
        .args(["--output=avail", "--block-size=1M"])
        .arg(folder)
        .output()
        .context("starting df")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().nth(1);
    Ok(line.and_then(|line| line.trim().parse().ok()))
}

/// Room on the disk, before it is missed half-way.
fn enough_room(folder: &Path, free: Option<u64>) -> Result<()> {
    match free {
        Some(free) if free < DISK_MIB => bail!(
            "{}: {free} MiB free, and virtual machines need {DISK_MIB}",
            folder.display()
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> BTreeMap<String, Scenario> {
        scenarios(&json!({
            "old": { "about": "", "machines": ["machine"], "kernels": ["5.10"], "test": [] },
            "boot": { "about": "", "machines": ["machine"], "kernels": ["5.10", "6.12"], "test": [] },
        }))
        .unwrap()
    }

    fn chosen(named: &[&str], kernels: &[&str]) -> Result<Vec<(String, Vec<String>)>> {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let table = table();
        let chosen = choose(&table, &owned(named), &owned(kernels))?;
        let pair = |(kernel, names): (&Kernel, Vec<&str>)| (kernel.name.to_owned(), owned(&names));
        Ok(chosen.into_iter().map(pair).collect())
    }

    #[test]
    fn each_kernel_runs_what_is_meant_for_it() {
        let all = chosen(&[], &[]).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0], ("5.10".into(), vec!["boot".into(), "old".into()]));
        assert_eq!(all[1], ("6.12".into(), vec!["boot".into()]));
    }

    #[test]
    fn naming_both_insists() {
        let insisted = chosen(&["old"], &["6.12"]).unwrap();
        assert_eq!(insisted, [("6.12".into(), vec!["old".into()])]);
    }

    #[test]
    fn a_disk_that_is_too_full_is_named_with_what_is_free_and_what_is_needed() {
        let error = enough_room(Path::new("/a/b"), Some(100)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/a/b: 100 MiB free, and virtual machines need 2048"
        );
        assert!(enough_room(Path::new("/a/b"), Some(DISK_MIB)).is_ok());
        assert!(free_mib(Path::new("/")).unwrap().is_some());
    }

    #[test]
    fn two_runs_in_one_folder_do_not_share_their_disks() {
        let folder = tempfile::tempdir().unwrap();
        let first = claim(folder.path()).unwrap();
        let error = claim(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another run"), "{error}");
        drop(first);
        assert!(claim(folder.path()).is_ok());
    }

    #[test]
    fn what_is_tested_on_most_kernels_comes_first() {
        let table = scenarios(&json!({
            "a": { "about": "", "machines": ["m"], "kernels": ["6.12"], "test": [] },
            "b": { "about": "", "machines": ["m"], "kernels": ["6.12"], "test": ["6.12"] },
            "c": { "about": "", "machines": ["m"], "kernels": ["6.12"], "test": ["6.1", "6.12"] },
        }));
        let table = table.unwrap();
        let chosen = choose(&table, &[], &[]).unwrap();
        assert_eq!(chosen[0].1, ["c", "b", "a"]);
    }

    #[test]
    fn a_name_that_does_not_exist_is_answered_by_those_that_do() {
        let error = chosen(&["power-cat"], &[]).unwrap_err().to_string();
        assert!(
            error.contains("power-cat") && error.contains("boot, old"),
            "{error}"
        );
        assert!(
            chosen(&[], &["6.13"])
                .unwrap_err()
                .to_string()
                .contains("6.13")
        );
    }
}
