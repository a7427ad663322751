//! `cargo xtask nix`: what of our Nix files can be checked without nixpkgs. The modules are evaluated against the stand-in
//! in `nix/`; what they write, units and config.txt, is compared with golden files and shown to systemd and to our binary.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use argh::FromArgs;
use serde_json::Value;

use crate::cargo::{cargo, root};
use crate::tools;

/// The most that `systemd-analyze security` may say of a unit, in tenths.
pub(crate) const EXPOSURE_TENTHS: u32 = 25;

/// Where the cases have the binary; systemd wants one that exists.
const BINARY_IN_CASES: &str = "/usr/bin/electrode";

/// check the Nix files and what the modules write, without nixpkgs; GOLDEN=write takes what comes for right
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "nix")]
pub(crate) struct Nix {}

/// Runs all checks whose tools are here; names the others.
pub(crate) fn run() -> Result<()> {
    if !tools::provided("nix-instantiate", "nix-bin") {
        println!("SKIPPED: checks of the Nix files: no nix-instantiate here (package nix-bin)");
        return Ok(());
    }
    let binary = root().join("target/ci/electrode");
    if !binary.is_file() {
        bail!("{} is missing: cargo build --profile ci", binary.display());
    }
    let files = files()?;
    for file in &files {
        said(nix()?.arg("--parse").arg(file)).context("parsing")?;
    }
    with_tool("nixfmt", "nixfmt_rs", |tool| {
        said(Command::new(tool).arg("--check").args(&files)).map(drop)
    })?;
    with_tool("deadnix", "deadnix", |tool| {
        said(Command::new(tool).arg("--fail").args(&files)).map(drop)
    })?;
    let cases = root().join("nix/module-cases.nix");
    let text = said(nix()?.args(["--eval", "--strict", "--json"]).arg(cases))?;
    let cases: Value = serde_json::from_str(&text).context("the cases as JSON")?;
    let rendered = rendered(&cases)?;
    compare(&rendered)?;
    let mut units_and_configs = rendered;
    let debian = debian_unit(&units_and_configs["accelerated.service"])?;
    units_and_configs.insert("electrode-debian.service".into(), debian);
    units(&units_and_configs, &binary)
}

/// The unit of the Debian package, once it says what the module's says.
fn debian_unit(module: &str) -> Result<String> {
    let path = root().join("packaging/debian/electrode.service");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if let Some(difference) = difference(&settings(module), &settings(&text)) {
        bail!(
            "{}: not what the module writes: {difference}",
            path.display()
        );
    }
    Ok(text)
}

/// What a unit says of its service, but for what is told to it.
fn settings(unit: &str) -> String {
    let own = ["ExecStart=", "LoadCredential=", "EnvironmentFile="];
    let mut lines: Vec<&str> = unit
        .lines()
        .skip_while(|line| *line != "[Service]")
        .take_while(|line| *line != "[Install]")
        .filter(|line| !line.is_empty() && !own.iter().any(|start| line.starts_with(start)))
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Every Nix file, from the root of the repository.
fn files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in ["", "nix", "nixos-modules"] {
        let folder = root().join(folder);
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "nix") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// nix-instantiate with a store and a configuration of its own: it only evaluates, and touches nothing of the machine's.
fn nix() -> Result<Command> {
    let folder = root().join("target/nix");
    let configuration = folder.join("conf");
    fs::create_dir_all(&configuration).with_context(|| configuration.display().to_string())?;
    fs::write(
        configuration.join("nix.conf"),
        "build-users-group =\nsubstituters =\n",
    )?;
    let mut command = Command::new("nix-instantiate");
    command
        .env("NIX_STORE_DIR", folder.join("store"))
        .env("NIX_STATE_DIR", folder.join("state"))
        .env("NIX_LOG_DIR", folder.join("log"))
        .env("NIX_CONF_DIR", configuration)
        .env("NIX_REMOTE", "local")
        .env("HOME", &folder);
    Ok(command)
}

/// Runs a check by a tool that cargo installs: found in PATH or in target/tools, else installed there.
fn with_tool(name: &str, package: &str, check: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if tools::present(name) {
        return check(Path::new(name));
    }
    let folder = root().join("target/tools");
    let own = folder.join("bin").join(name);
    if !own.is_file() {
        println!("installing {package} into target/tools");
        // Unoptimised: it is built in a third of the time and reads a few small files.
        let mut install = cargo();
        install
            .args([
                "install", package, "--locked", "--debug", "--quiet", "--root",
            ])
            .arg(&folder)
            .arg("--target-dir")
            .arg(folder.join("build"));
        if !install.status().is_ok_and(|status| status.success()) {
            println!("SKIPPED: {name} over the Nix files: cargo install {package} --locked failed");
            return Ok(());
        }
    }
    check(&own)
}

/// What the cases come to, as golden files: their names and texts.
fn rendered(cases: &Value) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let units = cases["units"].as_object().context("units in the cases")?;
    for (name, unit) in units {
        let text = unit["unit"].as_str().context("a unit's text")?;
        files.insert(format!("{name}.service"), text.to_owned());
        if let Some(config) = unit["config"].as_str() {
            files.insert(format!("{name}.config.txt"), config.to_owned());
        }
    }
    let ports: BTreeMap<&String, &Value> = units
        .iter()
        .map(|(name, unit)| (name, &unit["ports"]))
        .collect();
    let complaints = serde_json::json!({
        "complaints": cases["complaints"],
        "ports": ports,
        "refused": cases["refused"],
    });
    let complaints = serde_json::to_string_pretty(&complaints)? + "\n";
    files.insert("complaints.json".into(), complaints);
    Ok(files)
}

fn compare(rendered: &BTreeMap<String, String>) -> Result<()> {
    let golden = root().join("nix/golden");
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        fs::create_dir_all(&golden)?;
        for (name, text) in rendered {
            fs::write(golden.join(name), text)?;
        }
        return Ok(());
    }
    for (name, text) in rendered {
        let path = golden.join(name);
        let expected = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if let Some(difference) = difference(&expected, text) {
            bail!(
                "{}: {difference}; if that is right, GOLDEN=write cargo xtask nix",
                path.display()
            );
        }
    }
    Ok(())
}

/// The first line that differs.
fn difference(expected: &str, found: &str) -> Option<String> {
    let mut expected = expected.lines();
    let mut found = found.lines();
    for number in 1.. {
        match (expected.next(), found.next()) {
            (None, None) => return None,
            (a, b) if a == b => {}
            (a, b) => {
                let or_end = |line: Option<&str>| line.unwrap_or("(end)").to_owned();
                return Some(format!(
                    "line {number} was `{}` and is `{}`",
                    or_end(a),
                    or_end(b)
                ));
            }
        }
    }
    None
}

/// Shows the units to systemd and the configurations to the binary that is to read them.
fn units(rendered: &BTreeMap<String, String>, binary: &Path) -> Result<()> {
    let folder = root().join("target/nix/units");
    fs::create_dir_all(&folder)?;
    let systemd = tools::present("systemd-analyze");
    if !systemd {
        println!("SKIPPED: units before systemd-analyze: it isn't here (package systemd)");
    }
    for (name, text) in rendered {
        let path = folder.join(name);
        fs::write(
            &path,
            text.replace(BINARY_IN_CASES, &binary.display().to_string()),
        )?;
        if name.ends_with(".config.txt") {
            said(Command::new(binary).args(["check", "--config"]).arg(&path))?;
        }
        if name.ends_with(".service") && systemd {
            said(Command::new("systemd-analyze").arg("verify").arg(&path))?;
            // The load's unit is run by hand and holds nothing.
            if name != "bench.service" {
                let threshold = format!("--threshold={EXPOSURE_TENTHS}");
                let mut security = Command::new("systemd-analyze");
                said(
                    security
                        .args(["security", "--offline=true", &threshold])
                        .arg(&path),
                )?;
            }
        }
    }
    Ok(())
}

/// Runs a command and returns what it wrote; when it fails, its words are the error.
fn said(command: &mut Command) -> Result<String> {
    let described = format!("{command:?}");
    let output = command
        .output()
        .with_context(|| format!("starting {described}"))?;
    let written = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{described}: {}{}",
            written,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_named() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        let found = difference("a\nb\n", "a\nc\n").unwrap();
        assert_eq!(found, "line 2 was `b` and is `c`");
        let found = difference("a\n", "").unwrap();
        assert_eq!(found, "line 1 was `a` and is `(end)`");
    }

    #[test]
    fn settings_are_compared_whatever_their_order_and_without_what_is_told() {
        let a = "[Unit]\nAfter=x\n[Service]\nExecStart=a\nUMask=1\nType=notify\n\n[Install]\nWantedBy=y\n";
        let b = "[Service]\nType=notify\nUMask=1\nExecStart=b\nEnvironmentFile=c\n";
        assert_eq!(settings(a), settings(b));
        assert_ne!(settings(a), settings("[Service]\nUMask=1\n"));
    }

    #[test]
    fn units_and_configurations_become_files_of_their_own() {
        let cases = serde_json::json!({
            "units": { "plain": { "unit": "[Unit]\n", "config": "f 1\n", "ports": [1] } },
            "complaints": {}, "refused": {},
        });
        let files = rendered(&cases).unwrap();
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["complaints.json", "plain.config.txt", "plain.service"]
        );
        assert!(rendered(&serde_json::json!({})).is_err());
    }
}
