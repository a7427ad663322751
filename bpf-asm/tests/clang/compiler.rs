//! clang as a compiler for BPF.

use std::path::Path;
use std::process::Command;

/// Whether there is a clang that compiles for BPF.
pub(crate) fn has_clang() -> bool {
    let targets = Command::new("clang").arg("--print-targets").output();
    targets.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("bpf"))
}

/// The object of a C file. Headers are looked for beside it, and in `headers`.
pub(crate) fn compiled(source: &Path, headers: &Path) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    let object = scratch.path().join("clang.o");
    let mut clang = Command::new("clang");
    // Version 3 of the instruction set, which is what the builder uses unless it is told more.
    clang.args([
        "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-c",
    ]);
    clang
        .arg("-I")
        .arg(headers)
        .arg(source)
        .arg("-o")
        .arg(&object);
    let output = clang.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", source.display());
    std::fs::read(object).unwrap()
}
