//! Debian's kernels, fetched by apt into `target/vm`, and the modules that a guest needs.
//!
//! apt does the checking: it has a list of sources of our own per kernel, signed by Debian's keyring, and touches
//! nothing of the machine's own lists. What is there is not fetched again.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// A kernel that scenarios can run on.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What people call it by.
    pub(crate) name: &'static str,
    /// The suite of Debian that has it.
    suite: &'static str,
    /// Whether the suite has security updates of its own.
    security: bool,
}

/// Oldest first. The oldest has no 64-bit atomics in BPF: there everything runs in user space.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "5.10",
        suite: "bullseye",
        security: true,
    },
    Kernel {
        name: "6.1",
        suite: "bookworm",
        security: true,
    },
    Kernel {
        name: "6.12",
        suite: "trixie",
        security: true,
    },
    Kernel {
        name: "newest",
        suite: "sid",
        security: false,
    },
];

/// The package whose dependency is the suite's current kernel, in its small variant for virtual machines.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

const DEBIAN: &str = "http://deb.debian.org/debian";

/// Modules that guests load, in this order; what they depend on comes before them by itself.
pub(crate) const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "veth",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "sch_netem",
    "8021q",
];

/// A kernel on this machine's disk.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// The release, as `uname -r` says it.
    pub(crate) release: String,
    /// The image to boot.
    pub(crate) image: PathBuf,
    /// The folder with its modules.
    modules: PathBuf,
}

/// The kernel by its name, or which names there are.
pub(crate) fn by_name(name: &str) -> Result<&'static Kernel> {
    KERNELS
        .iter()
        .find(|kernel| kernel.name == name)
        .with_context(|| {
            let names: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
            format!("no kernel {name}; there are {}", names.join(", "))
        })
}

impl Kernel {
    /// The kernel from `folder`, where it is put first if it isn't there.
    pub(crate) fn provide(&self, folder: &Path) -> Result<Fetched> {
        let folder = folder.join(self.name);
        let unpacked = folder.join("unpacked");
        if !unpacked.is_dir() {
            let mirror = mirror("Debian").unwrap_or_else(|| DEBIAN.to_owned());
            self.fetch(&mirror, &folder, &unpacked)
                .with_context(|| format!("kernel {} from Debian {}", self.name, self.suite))?;
        }
        find(&unpacked).with_context(|| {
            format!(
                "kernel {}: remove {} to fetch it again",
                self.name,
                folder.display()
            )
        })
    }

    fn fetch(&self, mirror: &str, folder: &Path, unpacked: &Path) -> Result<()> {
        println!("fetching kernel {} (Debian {})", self.name, self.suite);
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: apt-get install debian-archive-keyring");
        }
        let apt = Apt::new(folder, &self.sources(mirror))?;
        apt.run("apt-get", &["update", "-qq"])?;
        let mut packages = apt.depends(META_PACKAGE)?;
        let Some(image) = packages.first().cloned() else {
            bail!("{META_PACKAGE} names no kernel");
        };
        // The newest ones come as an image and its modules apart.
        packages.extend(apt.depends(&image)?);
        let mut download = vec!["download"];
        download.extend(packages.iter().map(String::as_str));
        apt.run("apt-get", &download)?;
        let partial = folder.join("partial");
        let _ = fs::remove_dir_all(&partial);
        for entry in fs::read_dir(&apt.downloads)? {
            let package = entry?.path();
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(&package).arg(&partial);
            succeed(&mut unpack)?;
        }
        fs::rename(&partial, unpacked)?;
        // Lists and packages have done their work, and are large.
        for used in [&apt.state, &apt.downloads] {
            fs::remove_dir_all(used).with_context(|| used.display().to_string())?;
        }
        Ok(())
    }

    fn sources(&self, mirror: &str) -> String {
        let security = mirror_security()
            .unwrap_or_else(|| format!("{}-security", mirror.trim_end_matches('/')));
        let entry = |uri: &str, suite: &str| {
            format!(
                "Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\nArchitectures: amd64\nSigned-By: {KEYRING}\n\n"
            )
        };
        let mut text = entry(mirror, self.suite);
        if self.security {
            text.push_str(&entry(&security, &format!("{}-security", self.suite)));
        }
        text
    }
}

impl Fetched {
    /// The guest's modules as (name, object), in the order in which they have to be loaded. What is part of the kernel
    /// itself is left out.
    pub(crate) fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        list(&self.modules, &mut files)?;
        let mut found = Search {
            files,
            seen: HashSet::new(),
            order: Vec::new(),
        };
        for name in MODULES {
            found.add(name)?;
        }
        Ok(found.order)
    }
}

/// Modules, found by name with what they depend on.
struct Search {
    files: Vec<PathBuf>,
    seen: HashSet<String>,
    order: Vec<(String, Vec<u8>)>,
}

impl Search {
    fn add(&mut self, name: &str) -> Result<()> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self
            .files
            .iter()
            .find(|path| module_name(path).as_deref() == Some(name))
        else {
            // Built in: a guest that misses it says so when it is needed.
            return Ok(());
        };
        let object = decompressed(path)?;
        for dependency in dependencies(&object) {
            self.add(&dependency.replace('-', "_"))?;
        }
        self.order.push((name.to_owned(), object));
        Ok(())
    }
}

/// `virtio_net` for `.../virtio-net.ko.xz`: a file may have either, the kernel has underscores.
fn module_name(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let mut xz = Command::new("xz");
        return Ok(succeed(xz.args(["--decompress", "--stdout"]).arg(path))?.stdout);
    }
    fs::read(path).with_context(|| path.display().to_string())
}

/// What the module says of itself in its section `.modinfo`: strings, each ended by a zero.
fn dependencies(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = object.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let value = object[at + KEY.len()..].split(|&byte| byte == 0);
    let value = value.into_iter().next().unwrap_or_default();
    let names = value.split(|&byte| byte == b',');
    names
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

fn find(unpacked: &Path) -> Result<Fetched> {
    for modules in ["lib/modules", "usr/lib/modules"] {
        let Ok(mut releases) = fs::read_dir(unpacked.join(modules)) else {
            continue;
        };
        let Some(release) = releases.next() else {
            continue;
        };
        let release = release?;
        let name = release.file_name().to_string_lossy().into_owned();
        let images = [
            unpacked.join("boot").join(format!("vmlinuz-{name}")),
            release.path().join("vmlinuz"),
        ];
        let image = images.into_iter().find(|image| image.is_file());
        return Ok(Fetched {
            image: image.with_context(|| format!("no image of {name}"))?,
            modules: release.path().join("kernel"),
            release: name,
        });
    }
    bail!("no modules under {}", unpacked.display())
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// apt with lists and state of its own.
struct Apt {
    state: PathBuf,
    downloads: PathBuf,
    options: Vec<String>,
}

impl Apt {
    fn new(folder: &Path, sources: &str) -> Result<Apt> {
        let state = folder.join("apt");
        let downloads = folder.join("packages");
        for made in [&state, &downloads] {
            let _ = fs::remove_dir_all(made);
        }
        for made in ["lists/partial", "cache/archives/partial", "sources"] {
            fs::create_dir_all(state.join(made))?;
        }
        fs::create_dir_all(&downloads)?;
        fs::write(state.join("sources/kernel.sources"), sources)?;
        let at = |name: &str| state.join(name).display().to_string();
        let options = [
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            format!("Dir::Etc::SourceParts={}", at("sources")),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            // An old suite's list has run out; what is signed stays signed.
            "Acquire::Check-Valid-Until=false".to_owned(),
            "APT::Update::Error-Mode=any".to_owned(),
            // The folder may be one that apt's own user can't enter.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Apt {
            state,
            downloads,
            options: options.into(),
        })
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Result<Output> {
        let mut process = Command::new(command);
        for option in &self.options {
            process.args(["-o", option]);
        }
        succeed(process.args(arguments).current_dir(&self.downloads))
    }

    /// The kernel packages that a package needs.
    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let output = self.run("apt-cache", &["depends", "--important", package])?;
        let kernels = ["linux-image-", "linux-binary-", "linux-modules-"];
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names
            .filter(|name| kernels.iter().any(|start| name.starts_with(start)))
            .map(str::to_owned)
            .collect())
    }
}

/// Where this machine gets packages of Debian from, if it does.
fn mirror(label: &str) -> Option<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(LABEL) $(REPO_URI)"])
        .arg("Created-By: Packages")
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| {
        let (of, uri) = line.rsplit_once(' ')?;
        (of == label).then(|| uri.to_owned())
    })
}

fn mirror_security() -> Option<String> {
    mirror("Debian-Security")
}

/// Runs a command; its words are in the error when it fails.
fn succeed(command: &mut Command) -> Result<Output> {
    let described = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("starting {described}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{described}: {}", complaint(&said));
    }
    Ok(output)
}

/// What a command complains of, in one line: apt marks its errors among warnings, others have little to say.
fn complaint(said: &str) -> &str {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().find(|line| line.starts_with("E: "));
    error.or_else(|| lines().next_back()).unwrap_or("it failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_cannot_be_had_is_named_in_one_line() {
        if !Path::new(KEYRING).exists() || !crate::tools::present("apt-get") {
            eprintln!("SKIPPED: fetching kernels needs apt and Debian's keyring");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let kernel = by_name("6.1").unwrap();
        let unpacked = folder.path().join("unpacked");
        let nowhere = "file:///nowhere/debian";
        let error = kernel.fetch(nowhere, folder.path(), &unpacked).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("apt-get: E: "), "{error}");
        assert!(error.contains("/nowhere/debian"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!unpacked.exists());
    }

    #[test]
    fn of_what_a_command_says_the_error_is_shown() {
        let said = "W: a warning\nE: no such package\nE: and more\n";
        assert_eq!(complaint(said), "E: no such package");
        assert_eq!(complaint("first\nlast\n\n"), "last");
        assert_eq!(complaint(""), "it failed");
    }

    #[test]
    fn a_modules_dependencies_are_read_from_it() {
        let object = b"\x7fELF...\0license=GPL\0depends=failover,net-failover\0name=x\0";
        assert_eq!(dependencies(object), ["failover", "net-failover"]);
        assert!(dependencies(b"\0depends=\0name=x\0").is_empty());
        assert!(dependencies(b"nothing").is_empty());
    }

    #[test]
    fn modules_are_named_with_and_without_compression() {
        let name = |path: &str| module_name(Path::new(path)).unwrap_or_default();
        assert_eq!(name("a/veth.ko"), "veth");
        assert_eq!(name("a/net-failover.ko.xz"), "net_failover");
        assert_eq!(name("a/modules.dep"), "");
    }

    #[test]
    fn an_unknown_kernel_is_answered_by_those_that_exist() {
        let error = by_name("4.19").unwrap_err().to_string();
        assert!(error.contains("4.19") && error.contains("6.12"), "{error}");
    }
}
