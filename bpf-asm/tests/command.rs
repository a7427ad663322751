//! The `bpf-asm` command.

#[path = "clang/compiler.rs"]
mod compiler;

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpf-asm"));
    command.args(arguments).stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// What it prints, where that goes well.
fn printed(arguments: &[&str], input: &str) -> String {
    let output = run(arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    assert!(stderr.is_empty(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it complains about, with this exit code.
fn refused(arguments: &[&str], input: &str, code: i32) -> String {
    let output = run(arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    stderr
}

const ANSWER: &str = "b7 00 00 00 2a 00 00 00\n95 00 00 00 00 00 00 00\n";

#[test]
fn text_becomes_code_and_code_becomes_text() {
    assert_eq!(printed(&["asm", "--hex", "-"], "mov %r0, 42\nexit"), ANSWER);
    let listing = "0: (b7) r0 = 42\n1: (95) exit\n";
    assert_eq!(printed(&["disasm", "--hex", ANSWER], ""), listing);
    assert_eq!(printed(&["disasm", "--hex=-"], ANSWER), listing);
    assert_eq!(printed(&["asm", "-", "--hex"], listing), ANSWER);
}

#[test]
fn an_object_is_disassembled_to_what_it_was_made_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let text = "\
        .map counts array 4 8 1\n\
        .function count\n\
        r1 = map[counts]\n\
        call verdict\n\
        exit\n\
        .function verdict\n\
        r0 = 2\n\
        exit\n";
    std::fs::write(path("count.s"), text).unwrap();
    assert_eq!(
        printed(&["asm", &path("count.s"), "-o", &path("count.o")], ""),
        ""
    );
    let listing = printed(&["disasm", &path("count.o")], "");
    let main = "count:\n0: (18) r1 = 0x0 ; map counts\n2: (85) call pc-1 ; verdict\n3: (95) exit\n";
    assert!(listing.contains(main), "{listing}");
    assert!(listing.contains("verdict:\n0: (b7) r0 = 2\n"), "{listing}");
    assert!(
        listing.starts_with(".map counts array 4 8 1\n"),
        "{listing}"
    );
    assert_eq!(assembled_and_disassembled(&listing), listing);
    let hex = refused(&["asm", "--hex", &path("count.s")], "", 1);
    assert!(hex.contains("the map `counts` by its name"), "{hex}");
}

/// The listing of the object that a listing is assembled to.
fn assembled_and_disassembled(listing: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let object = directory.path().join("again.o");
    let object = object.to_str().unwrap();
    printed(&["asm", "-", "--output", object], listing);
    printed(&["disasm", object], "")
}

#[test]
fn a_listing_keeps_variables_maps_of_maps_and_addresses_of_functions() {
    let directory = tempfile::tempdir().unwrap();
    let object = directory.path().join("all.o");
    let object = object.to_str().unwrap();
    let maps = "\
        .map packets percpu_hash 4 16 512 0x1\n\
        .map groups array_of_maps 4 4 8\n\
        .inner groups groups hash 8 8 100\n\
        .map events ringbuf 0 0 4096\n\
        .map .rodata array 4 8 1 0x80\n\
        .global .rodata limit 0 6400000000000000\n\
        .map .data array 4 24 1\n\
        .global .data first 0 0100\n\
        .global .data second 8 zero 16\n\
        .map .bss array 4 8 1\n\
        .global .bss total 0 zero 8\n";
    let code = "\
        .function main\n\
        r1 = map[packets]\n\
        r1 = map[groups]\n\
        r1 = map[events]\n\
        r1 = map[.rodata][0]+0\n\
        r1 = map[.data][0]+8\n\
        r1 = map[.bss][0]+4\n\
        r1 = 3\n\
        r2 = subprog[callback]\n\
        r3 = 0\n\
        r4 = 0\n\
        call bpf_loop\n\
        exit\n\
        .function callback\n\
        r0 = 0\n\
        exit\n";
    printed(&["asm", "-", "-o", object], &format!("{maps}{code}"));
    let listing = printed(&["disasm", object], "");
    assert!(listing.starts_with(maps), "{listing}");
    for line in [
        " r1 = map[fd:0][0]+8 ; map .data\n",
        " r1 = map[fd:0][0]+4 ; map .bss\n",
        " r2 = subprog[-1] ; callback\n",
    ] {
        assert!(listing.contains(line), "{line}{listing}");
    }
    assert_eq!(assembled_and_disassembled(&listing), listing);
}

/// Objects that others have made: `key` and `value` instead of sizes, variables by symbols of their own.
#[test]
fn clang_s_objects_are_disassembled_to_what_assembles_again() {
    if !compiler::has_clang() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no clang for BPF");
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clang");
    let directory = tempfile::tempdir().unwrap();
    let object = directory.path().join("clang.o");
    for (source, map) in [
        ("syn_flood.c", ".map attempts lru_hash 4 8 65536\n"),
        ("load_balancer.c", ".map services hash 8 4 64\n"),
        ("packet_counter.c", ".map counts percpu_array 4 16 256\n"),
        ("lpm_firewall.c", ".map blocked lpm_trie 8 8 1024 0x1\n"),
    ] {
        std::fs::write(&object, compiler::compiled(&folder.join(source), &folder)).unwrap();
        let listing = printed(&["disasm", object.to_str().unwrap()], "");
        assert!(listing.contains(map), "{source}: {listing}");
        assert_eq!(assembled_and_disassembled(&listing), listing, "{source}");
    }
    // What a text has no words for is told, and the rest can be read.
    let source = directory.path().join("pinned.c");
    let text = "#include \"bpf.h\"\n\
        struct { INT(type, ARRAY); INT(max_entries, 1); INT(pinning, 1); TYPE(key, u32); TYPE(value, u64); } pinned SEC(\".maps\");\n\
        SEC(\"xdp\") int pass(struct xdp_md *ctx) { u32 zero = 0; return map_lookup(&pinned, &zero) ? XDP_PASS : XDP_DROP; }\n";
    std::fs::write(&source, text).unwrap();
    std::fs::write(&object, compiler::compiled(&source, &folder)).unwrap();
    let listing = printed(&["disasm", object.to_str().unwrap()], "");
    let told =
        "; the map `pinned` has a member `pinning`, which a `.map` line can't say\n\npass:\n";
    assert!(listing.starts_with(told), "{listing}");
}

#[test]
fn what_is_wrong_with_maps_is_told_with_its_place() {
    for (text, message) in [
        (
            ".global .data x 0 00",
            "-:1:9: there is no `.map .data` above",
        ),
        (
            ".map .data array 4 8 1\n.global .data x 4 zero 5",
            "-:2:9: this variable ends at byte 9, and the section has 8",
        ),
        (
            ".map .data array 4 8 1\n.global .data x 0 012",
            "-:2:19: expected its bytes as hexadecimal digits",
        ),
        (
            ".map .data array 4 8 1\n.global .data x 0 00\n.global .data x 0 01",
            "-:3:9: `x` is defined differently above",
        ),
        (
            ".map a array 4 8 1\n.map a array 4 8 2",
            "-:2:6: the map `a` is defined differently above",
        ),
        (
            ".map a array_of_maps 4 4 1\n.inner a b hash 4 4 1\n.inner a b hash 4 4 2",
            "-:3:8: `a` has other contents above",
        ),
        (
            ".map .data array 4 8 1\n.global .data x 0 zero 4294967295",
            "a variable has at most 1048576 bytes",
        ),
    ] {
        let told = refused(&["asm", "--hex", "-"], &format!("{text}\nexit"), 1);
        assert!(told.contains(message), "{text}: {told}");
    }
}

/// Functions may be labels too.
#[test]
fn calls_to_labels_make_functions_of_an_object() {
    let directory = tempfile::tempdir().unwrap();
    let object = directory.path().join("f.o");
    let object = object.to_str().unwrap();
    let text = "call f\nexit\nf: r0 = 7\nexit";
    printed(&["asm", "-", "-o", object], text);
    let listing = printed(&["disasm", object], "");
    assert!(
        listing.contains("main:\n0: (85) call pc-1 ; main_2\n"),
        "{listing}"
    );
    assert!(listing.contains("main_2:\n0: (b7) r0 = 7\n"), "{listing}");
    let code = printed(&["asm", "-", "--hex"], text);
    assert!(code.starts_with("85 10 00 00 01 00 00 00\n"), "{code}");
    assert_eq!(printed(&["run", "--hex", &code], ""), "0x7\n");
}

#[test]
fn mistakes_in_a_text_are_told_with_file_line_and_column() {
    let errors = refused(&["asm", "--hex", "-"], "r0 = 1\nr0 ++ 2\n  goto far\n", 1);
    let expected = "bpf-asm asm: -:2:4: expected an assignment such as =, += or s>>=, not `++`\n-:3:8: `far` is no label of this function\n";
    assert_eq!(errors, expected);
    let missing = refused(&["asm", "--hex", "/no/such/file.s"], "", 1);
    assert!(
        missing.contains("/no/such/file.s: No such file"),
        "{missing}"
    );
    let bytes = refused(&["disasm", "/proc/self/cmdline"], "", 1);
    assert!(
        bytes.starts_with("bpf-asm disasm: /proc/self/cmdline: "),
        "{bytes}"
    );
    let empty = refused(&["asm", "--hex", "-"], "; nothing\n", 1);
    assert!(empty.contains("-:1:1: there is no instruction"), "{empty}");
}

#[test]
fn engines_agree_on_r0() {
    let mut engines = vec!["interpreter", "rbpf"];
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        engines.push("kernel");
    } else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: the kernel's engine needs root");
    }
    let text = "r0 = *(u16 *)(r1 +1)\nr0 <<= 40\nexit";
    for engine in engines {
        let arguments = ["run", "-", "--mem", "01 02 03", "--engine", engine];
        assert_eq!(printed(&arguments, text), "0x3020000000000\n", "{engine}");
        assert_eq!(
            printed(&["run", "--hex", ANSWER, &format!("--engine={engine}")], ""),
            "0x2a\n"
        );
    }
}

#[test]
fn a_run_that_fails_says_where() {
    let fault = refused(&["run", "-"], "r0 = r3\nexit", 1);
    assert!(
        fault.starts_with("bpf-asm run: ") && fault.contains("r3"),
        "{fault}"
    );
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        let fault = refused(
            &["run", "-", "--engine=kernel"],
            "r0 = *(u8 *)(r1 +9)\nexit",
            1,
        );
        assert!(fault.contains("the verifier says: "), "{fault}");
        assert!(fault.contains("at code:1:1"), "{fault}");
        assert!(!fault.contains("processed "), "{fault}");
    }
    let bytes = refused(&["run", "--hex", "b700"], "", 1);
    assert!(bytes.contains("--hex: 2 bytes are no code"), "{bytes}");
    let opcode = refused(&["run", "--hex", "ff 00 00 00 00 00 00 00"], "", 1);
    assert!(
        opcode.contains("--hex: slot 0: unknown opcode 0xff"),
        "{opcode}"
    );
    let memory = refused(&["run", "--hex", ANSWER, "--mem", "0"], "", 1);
    assert!(
        memory.contains("--mem: 1 hexadecimal digits make no whole bytes"),
        "{memory}"
    );
    let digit = refused(&["run", "--hex", ANSWER, "--mem=0g"], "", 1);
    assert!(digit.contains("`g` is no hexadecimal digit"), "{digit}");
}

/// As the conformance suite's runner calls it: the memory before what it was told to pass.
#[test]
fn the_plugin_takes_memory_and_code_and_prints_r0() {
    let load = "71 10 01 00 00 00 00 00 95 00 00 00 00 00 00 00\n";
    for engine in ["interpreter", "rbpf"] {
        let engine = format!("--engine={engine}");
        assert_eq!(printed(&["aa bb cc", "plugin", &engine], load), "bb\n");
        assert_eq!(printed(&["plugin", "aa bb cc", &engine], load), "bb\n");
    }
    assert_eq!(printed(&["plugin"], ANSWER), "2a\n");
    let error = refused(&["plugin"], "zz", 1);
    assert!(
        error.contains("standard input: `z` is no hexadecimal digit"),
        "{error}"
    );
    refused(&["plugin", "--elf"], ANSWER, 2);
}

#[test]
fn a_command_line_that_makes_no_sense_is_a_mistake_in_usage() {
    for arguments in [
        &[][..],
        &["link"],
        &["run"],
        &["run", "a.s", "--hex", "00"],
        &["run", "a.s", "--engine", "ubpf"],
        &["disasm"],
        &["asm"],
        &["asm", "a.s", "--kind", "kprobe", "--hex"],
        &["asm", "a.s", "--frob"],
    ] {
        let errors = refused(arguments, "", 2);
        assert!(
            errors.contains("--help` for more"),
            "{arguments:?}: {errors}"
        );
    }
    let engine = refused(&["run", "a.s", "--engine", "ubpf"], "", 2);
    assert!(engine.contains("interpreter, rbpf or kernel"), "{engine}");
}

#[test]
fn help_and_version_are_found_anywhere() {
    for arguments in [&["-h"][..], &["--help"], &["help"]] {
        assert!(printed(arguments, "").contains("Assemble, disassemble and run eBPF code"));
    }
    for arguments in [
        &["run", "-h"][..],
        &["help", "run"],
        &["run", "a.s", "--help"],
    ] {
        assert!(
            printed(arguments, "").contains("with memory in r1"),
            "{arguments:?}"
        );
    }
    assert!(printed(&["--version"], "").starts_with("bpf-asm 0."));
    assert!(printed(&["run", "-V"], "").starts_with("bpf-asm 0."));
}
