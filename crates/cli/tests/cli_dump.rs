//! `electrode dump`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAMS: [&str; 4] = ["broadcast", "dispatch", "prepare", "prepare_ok"];

fn dump(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_electrode"));
    command.arg("dump").args(arguments).output().unwrap()
}

fn text(arguments: &[&str]) -> String {
    let output = dump(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_does_not_exist_is_a_mistake_in_usage_that_names_what_does() {
    let output = dump(&["--program", "commit", "--format", "asm"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("dispatch, prepare, prepare_ok, broadcast and all"),
        "{stderr}"
    );
    let output = dump(&["--program", "prepare", "--format", "pdf"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("expected elf, asm or listing"), "{stderr}");
    assert_eq!(dump(&["--program", "prepare"]).status.code(), Some(2));
}

#[test]
fn prepare_ok_goes_by_either_dash() {
    let with_underscore = text(&["--program", "prepare_ok", "--format", "asm"]);
    assert_eq!(
        with_underscore,
        text(&["--program=prepare-ok", "--format=asm"])
    );
    assert!(with_underscore.contains("prepare_ok:\n"));
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let output = dump(&[
        "--program=all",
        "--format=elf",
        "--output=/no/such/directory/a.o",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("/no/such/directory/a.o"), "{stderr}");
}

/// The instructions of all programs, one line each, in the verifier's syntax and numbered by slots.
#[test]
fn assembly_numbers_every_slot_once() {
    let assembly = text(&["--program=all", "--format=asm"]);
    let mut functions = 0;
    let mut expected = 0;
    for line in assembly
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("; ") && !line.starts_with(".map "))
    {
        if line.ends_with(':') {
            functions += 1;
            expected = 0;
            continue;
        }
        let (slot, rest) = line.split_once(": ").expect("slot: instruction");
        assert_eq!(slot.parse::<usize>().unwrap(), expected, "{line}");
        // A 64-bit immediate takes two slots, and has opcode 0x18.
        expected += if rest.starts_with("(18)") { 2 } else { 1 };
    }
    assert!(functions >= PROGRAMS.len(), "{functions} functions");
    assert!(assembly.contains("(db) "), "an atomic operation");
    assert!(assembly.contains("call bpf_tail_call#12"));
    assert!(assembly.contains("call bpf_clone_redirect#13"));
    assert!(assembly.contains(" ; map ring"));
}

/// So that a listing can be edited, assembled and loaded.
#[test]
fn assembly_is_assembled_to_the_same_functions_and_maps() {
    for name in PROGRAMS {
        let built = electrode_fastpath::programs::build(name).unwrap().unwrap();
        let assembly = text(&["--program", name, "--format=asm"]);
        let assembly = bpf_asm::text::assemble(name, &assembly).unwrap();
        assert_eq!(assembly.maps, built.maps, "{name}");
        let functions: Vec<_> = std::iter::once(&built.main)
            .chain(&built.subprograms)
            .collect();
        assert_eq!(assembly.units.len(), functions.len(), "{name}");
        for (unit, function) in assembly.units.iter().zip(functions) {
            assert_eq!(unit.name, function.name);
            assert_eq!(unit.insns, function.insns, "{}", unit.name);
            assert_eq!(unit.relocations, function.relocations, "{}", unit.name);
        }
    }
}

/// A line of Rust that is known to make instructions stands above them, as it stands in the source.
#[test]
fn a_listing_quotes_the_rust_lines() {
    let source = include_str!("../../fastpath/src/programs/broadcast.rs");
    let (at, line) = source
        .lines()
        .enumerate()
        .find(|(_, line)| line.contains("f.clone_redirect("))
        .expect("broadcast clones");
    let listing = text(&["--program=broadcast", "--format=listing"]);
    let quoted = format!("broadcast.rs:{}  {}\n", at + 1, line.trim());
    let below = listing.split_once(&quoted).map(|(_, below)| below);
    let below = below.unwrap_or_else(|| panic!("no `{quoted}` in:\n{listing}"));
    let (group, _) = below.split_once(".rs:").unwrap();
    assert!(group.contains("call bpf_clone_redirect#13"), "{group}");
}

#[test]
fn the_same_object_goes_to_a_file_and_to_a_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("all.o");
    let written = dump(&[
        "--program=all",
        "--format=elf",
        "--output",
        file.to_str().unwrap(),
    ]);
    assert!(written.status.success() && written.stdout.is_empty());
    let piped = dump(&["--program=all", "--format=elf"]).stdout;
    assert_eq!(&piped[..4], b"\x7fELF");
    assert_eq!(std::fs::read(file).unwrap(), piped);
}

/// libbpf is a stranger to our object writer; the verifier takes what it loads.
#[test]
fn bpftool_loads_what_is_dumped() {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root || Command::new("bpftool").arg("version").output().is_err() {
        skipped("needs root and bpftool");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let bpffs = Bpffs::mount(directory.path().join("bpf"));
    for program in PROGRAMS.iter().chain(&["all"]) {
        let object = directory.path().join(format!("{program}.o"));
        let output = object.to_str().unwrap();
        assert!(
            dump(&["--program", program, "--format=elf", "--output", output])
                .status
                .success()
        );
        let pins = bpffs.path.join(program);
        run(Command::new("bpftool")
            .args(["prog", "loadall"])
            .args([&object, &pins]));
        let mut pinned: Vec<String> = std::fs::read_dir(&pins)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pinned.sort();
        let expected = if *program == "all" {
            PROGRAMS.to_vec()
        } else {
            vec![*program]
        };
        assert_eq!(pinned, expected);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}

/// A BPF file system of our own; what is pinned in it goes with it.
struct Bpffs {
    path: PathBuf,
}

impl Bpffs {
    fn mount(path: PathBuf) -> Bpffs {
        std::fs::create_dir(&path).unwrap();
        run(Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg::<&Path>(&path));
        Bpffs { path }
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.path).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "umount");
    }
}

/// Says so past the test harness, which would swallow a plain print.
fn skipped(why: &str) {
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("SKIPPED: {why}\n").as_bytes(),
    );
}
