//! What the tests need beside Rust: installed where we may, named where we may not.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::cargo::cargo;

/// A command, and the Debian package that brings it.
struct Tool {
    command: &'static str,
    package: &'static str,
    /// What is missed without it; None when nothing works without it.
    optional: Option<&'static str>,
}

const TOOLS: &[Tool] = &[
    Tool {
        command: "ip",
        package: "iproute2",
        optional: None,
    },
    Tool {
        command: "bpftool",
        package: "bpftool",
        optional: Some("one test loads our objects with it, and will say that it didn't"),
    },
    Tool {
        command: "clang",
        package: "clang",
        optional: Some(
            "tests that compare our programs with the same ones in C will say that they didn't",
        ),
    },
    Tool {
        command: "llvm-mc-19",
        package: "llvm-19",
        optional: Some(
            "one test has LLVM assemble what it disassembles of ours, and will say that it didn't",
        ),
    },
];

/// What virtual machines need.
const MACHINE_TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("python3", "python3"),
    ("bash", "bash"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("xz", "xz-utils"),
    ("mke2fs", "e2fsprogs"),
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
];

/// The packages that virtual machines still miss here, after installing what may be installed.
pub(crate) fn missing_for_machines() -> Vec<&'static str> {
    let missing = || {
        let absent = MACHINE_TOOLS
            .iter()
            .filter(|(command, _)| !present(command));
        let mut packages: Vec<_> = absent.map(|(_, package)| *package).collect();
        packages.dedup();
        packages
    };
    let packages = missing();
    if !packages.is_empty() && is_root() && present("apt-get") {
        install(&packages);
    }
    missing()
}

/// Whether a command is here, after installing its package where that may be done.
pub(crate) fn provided(command: &str, package: &str) -> bool {
    if !present(command) && is_root() && present("apt-get") {
        install(&[package]);
    }
    present(command)
}

/// Provides what can be provided; an error names what is still missing.
pub(crate) fn provide() -> Result<()> {
    let missing = || TOOLS.iter().filter(|tool| !present(tool.command));
    if missing().next().is_some() && is_root() && present("apt-get") {
        let packages: Vec<_> = missing().map(|tool| tool.package).collect();
        install(&packages);
    }
    for component in ["fmt", "clippy"] {
        let works = cargo().args([component, "--version"]).output();
        if !works.is_ok_and(|output| output.status.success()) {
            let name = if component == "fmt" {
                "rustfmt"
            } else {
                component
            };
            if !quietly("rustup", &["component", "add", name]) {
                bail!("cargo {component} is missing: rustup component add {name}");
            }
        }
    }
    let mut needed = Vec::new();
    for tool in missing() {
        match tool.optional {
            Some(loss) => println!(
                "{} is missing (package {}): {loss}",
                tool.command, tool.package
            ),
            None => needed.push(tool.package),
        }
    }
    if !needed.is_empty() {
        bail!(
            "missing packages: {0}; sudo apt-get install {0}",
            needed.join(" ")
        );
    }
    if !is_root() {
        println!(
            "Not root: tests that need namespaces or load programs are SKIPPED, each by name."
        );
    }
    Ok(())
}

/// Installs packages one by one, so that one that doesn't exist keeps no other away. What fails here shows afterwards, by
/// what is still missing.
fn install(packages: &[&str]) {
    // Lists may never have been fetched on a fresh machine.
    quietly("apt-get", &["update", "-qq"]);
    for package in packages {
        println!("installing {package}");
        let install = [
            // Another installation may be under way.
            "-o",
            "DPkg::Lock::Timeout=120",
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            package,
        ];
        quietly("apt-get", &install);
    }
}

/// Whether a command is found where commands are; `sbin` too, which a user's PATH may lack.
pub(crate) fn present(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(command).is_file())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // Files in /proc/self belong to the effective user.
    Path::new("/proc/self")
        .metadata()
        .is_ok_and(|metadata| metadata.uid() == 0)
}

fn quietly(command: &str, arguments: &[&str]) -> bool {
    Command::new(command)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
