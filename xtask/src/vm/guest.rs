//! What is in a guest: busybox, bash and the network tools of this machine, our binary and tests, the kernel's modules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive::Archive;
use super::kernels::Fetched;
use crate::FEATURES;
use crate::cargo::{cargo, root};

/// Tools that busybox has only poorly, or that scenarios want as they are elsewhere.
const TOOLS: &[(&str, &str)] = &[
    ("bin/bash", "bash"),
    ("usr/local/bin/ip", "ip"),
    ("usr/local/bin/tc", "tc"),
];

/// Commands of `vm-tests/guest`.
const GUEST_COMMANDS: &[&str] = &[
    "systemctl",
    "journalctl",
    "electrode-binary",
    "electrode-options",
    "machine-reset",
];

/// Test programs that scenarios run: the folder of their package, their name there, and the guest's.
const TESTS: &[(&str, &str, &str)] = &[
    ("bpf-asm", "builder_random", "random-builder-tests"),
    ("bpf-asm", "engines_random", "random-instructions-tests"),
    ("crates/dataplane", "kernel", "dataplane-kernel-tests"),
    ("crates/replica", "group", "replica-group-tests"),
];

/// Tests of the command itself: building them builds it as all tests have it.
const OF_COMMAND: &str = "cli_arguments";

/// What runs in the guests, built.
#[derive(Debug)]
pub(crate) struct Built {
    electrode: PathBuf,
    tests: Vec<(&'static str, PathBuf)>,
}

/// Builds the command and the tests exactly as all tests are built, so that nothing is built twice.
pub(crate) fn build() -> Result<Built> {
    let mut arguments = vec!["test", "--no-run", "--workspace", "--test", OF_COMMAND];
    for (_, name, _) in TESTS {
        arguments.extend(["--test", name]);
    }
    arguments.extend(FEATURES);
    let built = executables(&arguments)?;
    let find = |folder: &str, name: &str| {
        let folder = root().join(folder);
        let of = |built: &&Executable| built.folder == folder && built.name == name;
        let found = built.iter().find(of).map(|built| built.path.clone());
        found.with_context(|| format!("cargo built no {name} of {}", folder.display()))
    };
    let mut tests = Vec::new();
    for (folder, name, command) in TESTS {
        tests.push((*command, find(folder, name)?));
    }
    Ok(Built {
        electrode: find("crates/cli", "electrode")?,
        tests,
    })
}

/// Writes the root file system for a kernel. `previous` is an older build to upgrade from; without one it is the same.
pub(crate) fn write(
    path: &Path,
    kernel: &Fetched,
    built: &Built,
    previous: Option<&Path>,
) -> Result<()> {
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "run", "tmp", "etc", "root", "var/lib"] {
        archive.folder(folder)?;
    }
    let mut programs = Programs {
        scratch: path.with_extension("stripped"),
        libraries: BTreeSet::new(),
    };
    programs.add(&mut archive, "bin/busybox", &on_path("busybox")?)?;
    for (name, tool) in TOOLS {
        programs.add(&mut archive, name, &on_path(tool)?)?;
    }
    archive.link("bin/sh", "busybox")?;
    let guest = root().join("vm-tests/guest");
    archive.copy("init", &guest.join("init"))?;
    for script in GUEST_COMMANDS {
        archive.copy(&format!("usr/local/bin/{script}"), &guest.join(script))?;
    }
    let current = "opt/electrode-current/bin/electrode";
    programs.add(&mut archive, current, &built.electrode)?;
    let previous = previous.unwrap_or(&built.electrode);
    programs.add(
        &mut archive,
        "opt/electrode-previous/bin/electrode",
        previous,
    )?;
    archive.link("usr/local/bin/electrode", &format!("/{current}"))?;
    for (command, path) in &built.tests {
        programs.add(&mut archive, &format!("usr/local/bin/{command}"), path)?;
    }
    let modules = kernel.modules()?;
    let order: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
    archive.file("modules/order", (order.join("\n") + "\n").as_bytes())?;
    for (name, object) in &modules {
        archive.file(&format!("modules/{name}.ko"), object)?;
    }
    let bytes = archive.finish()?;
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// Programs and the libraries that they are linked with.
struct Programs {
    /// A file to strip into.
    scratch: PathBuf,
    libraries: BTreeSet<PathBuf>,
}

impl Programs {
    fn add(&mut self, archive: &mut Archive, name: &str, from: &Path) -> Result<()> {
        archive.file(name, &stripped(from, &self.scratch)?)?;
        for library in libraries(from)? {
            if self.libraries.insert(library.clone()) {
                let name = library.display().to_string();
                archive.copy(name.trim_start_matches('/'), &library)?;
            }
        }
        Ok(())
    }
}

/// A program without what only debuggers read, which is most of it; as it is where there is no `strip`.
fn stripped(program: &Path, scratch: &Path) -> Result<Vec<u8>> {
    let strip = Command::new("strip")
        .args(["--strip-debug", "-o"])
        .args([scratch, program])
        .output();
    let read = match strip {
        Ok(output) if output.status.success() => scratch,
        _ => program,
    };
    fs::read(read).with_context(|| read.display().to_string())
}

/// What the dynamic linker would load for a program, itself included; nothing for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("starting ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        bail!("{}: {}", program.display(), missing.trim());
    }
    // "libc.so.6 => /lib/libc.so.6 (0x7f...)", "/lib64/ld-linux-x86-64.so.2 (0x7f...)".
    let paths = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

/// Where a command is; `sbin` too, which a user's PATH may lack.
fn on_path(command: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(command))
        .find(|file| file.is_file())
        .with_context(|| format!("{command} is missing"))
}

/// What cargo made.
struct Executable {
    /// The folder of its package.
    folder: PathBuf,
    name: String,
    path: PathBuf,
}

/// Runs cargo, and returns the executables that it made or found made.
fn executables(arguments: &[&str]) -> Result<Vec<Executable>> {
    let output = cargo()
        .args(arguments)
        .args([
            "--profile",
            "ci",
            "--quiet",
            "--message-format",
            "json-render-diagnostics",
        ])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("cargo's messages")?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let manifest = text(&message["manifest_path"]);
        let (name, path) = (
            text(&message["target"]["name"]),
            text(&message["executable"]),
        );
        if let (Some(manifest), Some(name), Some(path)) = (manifest, name, path) {
            let folder = Path::new(&manifest).parent().map(PathBuf::from);
            found.push(Executable {
                folder: folder.unwrap_or_default(),
                name,
                path: path.into(),
            });
        }
    }
    Ok(found)
}
