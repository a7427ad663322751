//! `cargo xtask reproduce`: builds the committed tree twice, in folders of different names, and compares the binaries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use argh::FromArgs;

use crate::cargo::{CargoFailed, cargo, root};

/// Where the builds are, below `target/reproduce`; names of different lengths, since lengths get into binaries too.
const FOLDERS: [&str; 2] = ["a", "another-folder"];

/// build the commit twice in different folders; the exit code is 0 when both binaries are equal to the byte
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "reproduce")]
pub(crate) struct Reproduce {}

/// Builds twice, compares, and says what came of it.
pub(crate) fn run() -> Result<()> {
    let mut built = Vec::new();
    for name in FOLDERS {
        let folder = root().join("target/reproduce").join(name);
        built.push(build(&folder)?);
    }
    let contents: Vec<_> = built.iter().map(fs::read).collect::<Result<_, _>>()?;
    let paths = || built.iter().map(|path| path.display().to_string());
    match differing(&contents[0], &contents[1]) {
        None => {
            println!("equal, {} bytes:", contents[0].len());
            paths().for_each(|path| println!("  {path}"));
            Ok(())
        }
        Some(at) => bail!(
            "the two binaries differ from byte {at} on: {}",
            paths().collect::<Vec<_>>().join(" and ")
        ),
    }
}

/// Takes the commit into a folder of its own and builds it there, as docs/operations.md says.
fn build(folder: &Path) -> Result<PathBuf> {
    let _ = fs::remove_dir_all(folder);
    let tree = folder.join("tree");
    fs::create_dir_all(&tree).with_context(|| tree.display().to_string())?;
    let archive = Command::new("git")
        .current_dir(root())
        .args(["archive", "HEAD"])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting git")?;
    let unpacked = Command::new("tar")
        .args(["-x", "-C"])
        .arg(&tree)
        .stdin(archive.stdout.context("git's output")?)
        .status()
        .context("starting tar")?;
    if !unpacked.success() {
        bail!("git archive HEAD | tar -x failed in {}", tree.display());
    }
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| home + "/.cargo"))
        .context("neither CARGO_HOME nor HOME is set")?;
    let flags = format!(
        "--remap-path-prefix={}=/electrode --remap-path-prefix={home}=/cargo",
        tree.display()
    );
    let status = cargo()
        .current_dir(&tree)
        .env("RUSTFLAGS", flags)
        .env("SOURCE_DATE_EPOCH", "1")
        .env("CARGO_TARGET_DIR", tree.join("target"))
        .args(["build", "--release", "--locked", "--package", "electrode"])
        .status()
        .context("starting cargo")?;
    if !status.success() {
        return Err(CargoFailed::new("build --release").into());
    }
    Ok(tree.join("target/release/electrode"))
}

/// The first byte in which two files differ.
fn differing(a: &[u8], b: &[u8]) -> Option<usize> {
    let common = a.iter().zip(b).position(|(a, b)| a != b);
    common.or_else(|| (a.len() != b.len()).then(|| a.len().min(b.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_differs_is_found() {
        assert_eq!(differing(b"abc", b"abc"), None);
        assert_eq!(differing(b"abc", b"axc"), Some(1));
        assert_eq!(differing(b"abc", b"ab"), Some(2));
    }
}
