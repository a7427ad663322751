//! `cargo xtask deb`: the Debian package, by dpkg-deb alone. The same tree gives the same package.

mod clean_tree;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use argh::FromArgs;

use crate::cargo::{cargo, root};
use crate::tools;

/// What is in the package: where, from where in the repository, and its mode. The binary comes besides.
const FILES: &[(&str, &str, u32)] = &[
    (
        "usr/lib/systemd/system/electrode.service",
        "packaging/debian/electrode.service",
        0o644,
    ),
    ("etc/default/electrode", "packaging/debian/default", 0o644),
    (
        "etc/electrode/config.txt",
        "packaging/debian/config.txt",
        0o644,
    ),
    ("usr/share/doc/electrode/README.md", "README.md", 0o644),
    (
        "usr/share/doc/electrode/operations.md",
        "docs/operations.md",
        0o644,
    ),
    ("usr/share/doc/electrode/copyright", "LICENSE-MIT", 0o644),
];

/// The workspace's version is every package's.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Files that their administrator changes, and that an upgrade leaves alone.
const CONFIGURATION: &[&str] = &["/etc/default/electrode", "/etc/electrode/config.txt"];

/// The service is enabled by hand, once it is configured; systemd only has to see the unit.
const AFTER: &str =
    "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then\n    systemctl daemon-reload\nfi\n";

/// build the Debian package of the release binary into target/debian
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "deb")]
pub(crate) struct Deb {
    /// also install it on a clean Debian tree made by debootstrap, look at it there, and remove it (root, network)
    #[argh(switch)]
    install: bool,

    /// the suite of that tree (default: bookworm); its libc must be as new as this machine's
    #[argh(option, default = "\"bookworm\".into()")]
    suite: String,
}

/// Builds the package and says where it is.
pub(crate) fn run(arguments: &Deb) -> Result<()> {
    if !tools::present("dpkg-deb") {
        bail!("dpkg-deb is missing: apt-get install dpkg");
    }
    let status = cargo()
        .args(["build", "--release", "--package", "electrode"])
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("cargo build --release failed");
    }
    let binary = root().join("target/release/electrode");
    let folder = root().join("target/debian");
    let package = package(&binary, &folder)?;
    println!("{}", package.display());
    if arguments.install {
        clean_tree::install(&package, &arguments.suite, &folder.join("root"))?;
    }
    Ok(())
}

/// Writes the package into a folder; returns its path.
fn package(binary: &Path, folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("tree");
    let _ = fs::remove_dir_all(&tree);
    place(
        &tree,
        "usr/bin/electrode",
        &stripped(binary, folder)?,
        0o755,
    )?;
    for (to, from, mode) in FILES {
        let content = fs::read(root().join(from)).with_context(|| (*from).to_owned())?;
        place(&tree, to, &content, *mode)?;
    }
    let needs = newest_glibc(&fs::read(binary)?).context("the binary names no version of libc")?;
    let architecture = architecture()?;
    let control = control(VERSION, &architecture, needs);
    place(&tree, "DEBIAN/control", control.as_bytes(), 0o644)?;
    let configuration = CONFIGURATION.join("\n") + "\n";
    place(&tree, "DEBIAN/conffiles", configuration.as_bytes(), 0o644)?;
    place(&tree, "DEBIAN/postinst", AFTER.as_bytes(), 0o755)?;
    let package = folder.join(format!("electrode_{VERSION}_{architecture}.deb"));
    let output = Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .args([&tree, &package])
        // No times but the one that is asked for.
        .env(
            "SOURCE_DATE_EPOCH",
            std::env::var("SOURCE_DATE_EPOCH").unwrap_or_else(|_| "1".into()),
        )
        .output()
        .context("starting dpkg-deb")?;
    if !output.status.success() {
        bail!(
            "dpkg-deb: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(package)
}

fn place(tree: &Path, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let path = tree.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, content).with_context(|| path.display().to_string())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// The binary without what only debuggers read.
fn stripped(binary: &Path, folder: &Path) -> Result<Vec<u8>> {
    fs::create_dir_all(folder)?;
    let out = folder.join("stripped");
    let status = Command::new("strip")
        .arg("-o")
        .args([&out, binary])
        .status()
        .context("starting strip (package binutils)")?;
    if !status.success() {
        bail!("strip {} failed", binary.display());
    }
    fs::read(&out).with_context(|| out.display().to_string())
}

fn control(version: &str, architecture: &str, glibc: (u32, u32)) -> String {
    format!(
        "Package: electrode\n\
         Version: {version}\n\
         Architecture: {architecture}\n\
         Maintainer: The Electrode developers <maintainers@electrode.invalid>\n\
         Depends: libc6 (>= {}.{}), libgcc-s1\n\
         Recommends: iproute2\n\
         Section: net\n\
         Priority: optional\n\
         Homepage: https://github.com/electrode-rs/electrode\n\
         Description: state-machine replication whose hot path runs in the kernel\n \
         A group of 2f+1 replicas executes the same operations in the same order and\n \
         survives f of them failing. eBPF programs store, acknowledge and count.\n",
        glibc.0, glibc.1
    )
}

fn architecture() -> Result<String> {
    let output = Command::new("dpkg")
        .arg("--print-architecture")
        .output()
        .context("starting dpkg")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The newest version of libc whose symbols the binary uses: the largest of its strings `GLIBC_2.34`.
fn newest_glibc(binary: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_";
    let version = |at: usize| {
        let text = &binary[at + MARK.len()..];
        let end = text
            .iter()
            .position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let (major, rest) = std::str::from_utf8(&text[..end]).ok()?.split_once('.')?;
        let minor = rest.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let marks = binary.windows(MARK.len()).enumerate();
    marks
        .filter(|(_, bytes)| *bytes == MARK)
        .filter_map(|(at, _)| version(at))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_libc_that_is_named_is_what_the_package_needs() {
        let binary = b"..GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.17\0GLIBC_PRIVATE\0";
        assert_eq!(newest_glibc(binary), Some((2, 34)));
        assert_eq!(newest_glibc(b"static"), None);
    }

    #[test]
    fn every_file_of_the_package_exists_and_configuration_is_among_them() {
        for (_, from, _) in FILES {
            assert!(root().join(from).is_file(), "{from}");
        }
        for path in CONFIGURATION {
            assert!(
                FILES.iter().any(|(to, _, _)| format!("/{to}") == *path),
                "{path}"
            );
        }
    }
}
