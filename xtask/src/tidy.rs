//! What the compiler doesn't check: who imports whom, and what must not be in the sources.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo::{cargo, root};
use crate::edges::EDGES;

/// Marks of unfinished work, and what was only there to look. Cut in two, or this file would find itself.
const WORDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("db", "g!("),
    concat!("to", "do!("),
    concat!("unimplem", "ented!("),
];

/// Where `unsafe` may be: mapped memory, and an engine that runs bytecode from it.
const UNSAFE: &[&str] = &["bpf-asm/", "crates/dataplane/", "crates/sim/"];

/// Checks it all; every finding is printed, and any is an error.
pub(crate) fn check() -> Result<()> {
    let mut findings = Vec::new();
    check_edges(&metadata()?, &mut findings);
    for path in sources()? {
        let text = fs::read_to_string(root().join(&path)).with_context(|| path.clone())?;
        check_source(&path, &text, &mut findings);
    }
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        n => bail!("tidy: {n} findings"),
    }
}

/// What `cargo metadata` says of the workspace's packages.
fn metadata() -> Result<Value> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("starting cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    serde_json::from_slice(&output.stdout).context("reading cargo metadata")
}

fn check_edges(metadata: &Value, findings: &mut Vec<String>) {
    let empty = Vec::new();
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    let names: Vec<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(edges) = EDGES.iter().find(|edges| edges.package == name) else {
            findings.push(format!("{name}: not in the table in xtask/src/edges.rs"));
            continue;
        };
        for dependency in array(&package["dependencies"]) {
            // Tests may bring what they like: they ship with nobody.
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let on = dependency["name"].as_str().unwrap_or_default();
            if names.contains(&on) && !edges.may.contains(&on) {
                findings.push(format!(
                    "{name} -> {on}: no such edge in xtask/src/edges.rs"
                ));
            }
            // Behind a feature that is off by default: who turns it on asks for it.
            let optional = dependency["optional"].as_bool() == Some(true);
            if edges.never.contains(&on) && !optional {
                findings.push(format!("{name} -> {on}: never, says xtask/src/edges.rs"));
            }
        }
    }
}

/// Every Rust file of the tree, as paths from its root. What is built and what is hidden is no part of it.
fn sources() -> Result<Vec<String>> {
    let root = root();
    let mut paths = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                let built = ["target", "result"]
                    .iter()
                    .any(|start| name.starts_with(start));
                if !built && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                let path = path.strip_prefix(&root).unwrap_or(&path);
                paths.push(path.display().to_string());
            }
        }
    }
    paths.sort();
    Ok(paths)
}

fn check_source(path: &str, text: &str, findings: &mut Vec<String>) {
    if Path::new(path).ends_with("mod.rs") {
        findings.push(format!("{path}: name it after its module, one folder up"));
    }
    let may_be_unsafe = UNSAFE.iter().any(|start| path.starts_with(start));
    let allows_unsafe = concat!("allow(un", "safe_code)");
    for (number, line) in (1..).zip(text.lines()) {
        for word in WORDS {
            if line.contains(word) {
                findings.push(format!("{path}:{number}: `{word}`"));
            }
        }
        if line.contains(allows_unsafe) && !may_be_unsafe {
            findings.push(format!("{path}:{number}: no unsafe code here"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings_in(path: &str, text: &str) -> usize {
        let mut findings = Vec::new();
        check_source(path, text, &mut findings);
        findings.len()
    }

    #[test]
    fn unfinished_work_and_misplaced_files_are_found() {
        assert_eq!(findings_in("crates/a/src/lib.rs", "fn a() {}\n"), 0);
        for word in WORDS {
            assert_eq!(findings_in("crates/a/src/lib.rs", word), 1, "{word}");
        }
        assert_eq!(findings_in("crates/a/src/b/mod.rs", ""), 1);
        let text = concat!("#![allow(un", "safe_code)]");
        assert_eq!(findings_in("crates/vr/src/lib.rs", text), 1);
        assert_eq!(findings_in("crates/dataplane/src/memory.rs", text), 0);
    }

    #[test]
    fn an_edge_outside_the_table_is_found_and_a_dev_dependency_is_not() {
        let metadata = |dependency: Value| {
            serde_json::json!({ "packages": [
                { "name": "electrode-vr", "dependencies": [dependency] },
                { "name": "electrode-lab", "dependencies": [] },
            ] })
        };
        let findings = |dependency| {
            let mut findings = Vec::new();
            check_edges(&metadata(dependency), &mut findings);
            findings.len()
        };
        assert_eq!(
            findings(serde_json::json!({ "name": "serde", "kind": null })),
            0
        );
        assert_eq!(
            findings(serde_json::json!({ "name": "aya", "kind": null })),
            1
        );
        let optional = serde_json::json!({ "name": "aya", "kind": null, "optional": true });
        assert_eq!(findings(optional), 0);
        assert_eq!(
            findings(serde_json::json!({ "name": "electrode-lab", "kind": null })),
            1
        );
        assert_eq!(
            findings(serde_json::json!({ "name": "electrode-lab", "kind": "dev" })),
            0
        );
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Taking out, again and again, packages that import nothing that is left.
        let mut left: Vec<_> = EDGES.iter().collect();
        while !left.is_empty() {
            let names: Vec<&str> = left.iter().map(|edges| edges.package).collect();
            let before = left.len();
            left.retain(|edges| edges.may.iter().any(|on| names.contains(on)));
            assert!(left.len() < before, "a cycle among {names:?}");
        }
    }
}
