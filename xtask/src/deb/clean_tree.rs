//! The package on a Debian that has never seen it: a tree made by debootstrap, in which it is installed, looked at, removed
//! and purged. Nothing is mounted and nothing is started there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

use crate::nix::EXPOSURE_TENTHS;
use crate::tools;

/// What the service is started with while it isn't configured yet: usage errors end with 2, and systemd doesn't retry those.
const NOT_CONFIGURED: &str =
    "exec electrode replica --config /etc/electrode/config.txt --index '' --state-dir /tmp/state";

/// Makes the tree anew, tries the package there, and removes the tree.
pub(super) fn install(package: &Path, suite: &str, root: &Path) -> Result<()> {
    if !tools::provided("debootstrap", "debootstrap") {
        bail!("debootstrap is missing: apt-get install debootstrap (as root)");
    }
    remove(root)?;
    let made = made(suite, root).and_then(|()| tried(package, root));
    // Also when it failed; the first error is the one that counts.
    let removed = remove(root);
    made.and(removed)
}

fn remove(root: &Path) -> Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| root.display().to_string())
        }
        _ => Ok(()),
    }
}

fn made(suite: &str, root: &Path) -> Result<()> {
    println!("debootstrap of {suite}");
    fs::create_dir_all(root)?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", "--include=systemd", suite])
        .arg(root);
    succeed(&mut debootstrap).map(drop)
}

fn tried(package: &Path, root: &Path) -> Result<()> {
    fs::copy(package, root.join("electrode.deb")).context("copying the package")?;
    sh(root, "dpkg --install /electrode.deb")?;
    println!("{}", sh(root, "electrode --version")?.trim());
    sh(root, "electrode check --config /etc/electrode/config.txt")?;
    sh(root, "systemd-analyze verify electrode.service")?;
    let security = format!(
        "systemd-analyze security --offline=true --threshold={EXPOSURE_TENTHS} electrode.service"
    );
    let security = sh(root, &security)?;
    println!("{}", security.lines().last().unwrap_or_default().trim());
    let refused = chroot(root, NOT_CONFIGURED)?;
    ensure!(
        refused.status.code() == Some(2),
        "an empty index: {}, not exit code 2: {}",
        refused.status,
        words(&refused)
    );
    // What the administrator wrote survives an upgrade and a removal, but no purge.
    let own = "f 0\nreplica 127.0.0.1:7700\n";
    let configuration = root.join("etc/electrode/config.txt");
    fs::write(&configuration, own)?;
    sh(root, "dpkg --install /electrode.deb </dev/null")?;
    sh(root, "dpkg --remove electrode")?;
    ensure!(
        fs::read_to_string(&configuration).is_ok_and(|text| text == own),
        "a changed config.txt didn't survive upgrade and removal"
    );
    sh(root, "dpkg --purge electrode")?;
    for left in [
        "etc/electrode",
        "etc/default/electrode",
        "usr/bin/electrode",
    ] {
        ensure!(!root.join(left).exists(), "/{left} is left after a purge");
    }
    println!("installed, verified, upgraded, removed and purged on a clean tree");
    Ok(())
}

/// Runs a line of shell in the tree; returns what it wrote.
fn sh(root: &Path, line: &str) -> Result<String> {
    let output = chroot(root, line)?;
    ensure!(
        output.status.success(),
        "in the clean tree: {line}: {}: {}",
        output.status,
        words(&output)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn chroot(root: &Path, line: &str) -> Result<Output> {
    let mut command = Command::new("chroot");
    command.arg(root).args(["/bin/sh", "-c", line]);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("DEBIAN_FRONTEND", "noninteractive");
    command.output().context("starting chroot")
}

fn succeed(command: &mut Command) -> Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        words(&output)
    );
    Ok(output)
}

fn words(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}
