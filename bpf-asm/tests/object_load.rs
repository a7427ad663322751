//! Objects of hand-assembled programs, judged by those who load them: the kernel through aya, and bpftool (libbpf).
//!
//! They need root and say so loudly when they don't have it.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

use aya::maps::Array;
use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use bpf_asm::asm::Assembler;
use bpf_asm::insn::Reg;
use bpf_asm::object::Object;
use bpf_asm::program::{Contents, Function, MapDef, MapType, Program, ProgramKind};

const HERE: (&str, &str) = ("tests/object_load.rs", include_str!("object_load.rs"));

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_ACT_SHOT: u32 = 2;
const MAP_LOOKUP_ELEM: u32 = 1;

#[test]
fn xdp_programs_share_a_map_and_a_subprogram_in_the_kernel() {
    if !is_root() {
        return;
    }
    let mut ebpf = Ebpf::load(&example().to_elf().unwrap()).unwrap();
    assert_eq!(run_xdp(&mut ebpf, "count", 60), XDP_DROP);
    assert_eq!(run_xdp(&mut ebpf, "count", 100), XDP_PASS);
    assert_eq!(run_xdp(&mut ebpf, "count", 101), XDP_PASS);
    // The second program in the section, and the one in a section of its own, count in the same map.
    assert_eq!(run_xdp(&mut ebpf, "count_too", 102), XDP_PASS);
    assert_eq!(run_xdp(&mut ebpf, "count_frags", 103), XDP_PASS);
    let counts: Array<_, u64> = Array::try_from(ebpf.map("counts").unwrap()).unwrap();
    let counts: Vec<u64> = counts.iter().map(Result::unwrap).collect();
    assert_eq!(counts, [0, 1, 4, 0]);
}

#[test]
fn a_classifier_reads_the_packet_and_exchanges_with_a_map() {
    if !is_root() {
        return;
    }
    let mut ebpf = Ebpf::load(&example().to_elf().unwrap()).unwrap();
    let program: &mut SchedClassifier = ebpf.program_mut("swap").unwrap().try_into().unwrap();
    program.load().unwrap();
    let mut packet = [0u8; 64];
    packet[12..14].copy_from_slice(&[0x12, 0x34]);
    let options = TestRunOptions {
        data_in: Some(&packet),
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).unwrap();
    assert_eq!(result.return_value, TC_ACT_SHOT);
    let marks: Array<_, u64> = Array::try_from(ebpf.map("marks").unwrap()).unwrap();
    assert_eq!(marks.get(&0, 0).unwrap(), 0x1234);
}

#[test]
fn the_verifier_quotes_the_rust_line_it_dislikes() {
    if !is_root() {
        return;
    }
    let mut a = Assembler::new("uninitialised");
    a.mov64_imm(Reg::R0, 0);
    let line = line!() + 1;
    a.mov64(Reg::R0, Reg::R9); // r9 holds nothing yet
    a.exit();
    let object = Object::new("GPL").sources(&[HERE]);
    let object = object.program(program(ProgramKind::Xdp, a, vec![], vec![]));
    let log = rejection(&object, "uninitialised");
    assert!(log.contains("R9 !read_ok"), "{log}");
    assert!(
        log.contains("a.mov64(Reg::R0, Reg::R9); // r9 holds nothing yet"),
        "{log}"
    );
    assert!(log.contains(&format!("@ object_load.rs:{line}")), "{log}");
}

#[test]
fn bpftool_loads_the_same_object() {
    if !is_root() {
        return;
    }
    if Command::new("bpftool").arg("version").output().is_err() {
        skipped("bpftool is not installed");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let object = scratch.path().join("example.o");
    std::fs::write(&object, example().to_elf().unwrap()).unwrap();
    let bpffs = Bpffs::mount(scratch.path().join("bpf"));
    let pins = bpffs.path.join("pins");

    let mut load = Command::new("bpftool");
    load.args(["prog", "loadall"]).args([&object, &pins]);
    succeed(load.output().unwrap());
    let mut pinned: Vec<_> = std::fs::read_dir(&pins)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pinned.sort();
    assert_eq!(pinned, ["count", "count_frags", "count_too", "swap"]);

    let mut dump = Command::new("bpftool");
    dump.args(["prog", "dump", "xlated", "pinned"]);
    let dump = succeed(dump.arg(pins.join("count")).output().unwrap());
    for expected in [
        "int count(struct xdp_md * ctx)",
        "u64 verdict(u64 r1)",
        "lock *(u64 *)(r0 +0) += r1",
    ] {
        assert!(dump.contains(expected), "no `{expected}` in:\n{dump}");
    }

    let mut btf = Command::new("bpftool");
    let btf = succeed(
        btf.args(["btf", "dump", "file"])
            .arg(&object)
            .output()
            .unwrap(),
    );
    for expected in [
        "FUNC 'verdict' type_id=",
        "VAR 'counts' type_id=",
        "DATASEC '.maps' size=64",
    ] {
        assert!(btf.contains(expected), "no `{expected}` in:\n{btf}");
    }
}

#[test]
fn iproute2_attaches_the_same_object_to_xdp_and_to_tc() {
    if !is_root() {
        return;
    }
    let tools = ["ip", "tc"].map(|tool| Command::new(tool).arg("-V").output().is_ok());
    if tools != [true, true] {
        skipped("ip and tc (iproute2) are not installed");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("example.o");
    std::fs::write(&file, example().to_elf().unwrap()).unwrap();
    let file = file.to_str().unwrap();
    let namespace = Namespace::new();
    namespace.run("ip link set lo up");
    namespace.run(&format!("ip link set dev lo xdpgeneric obj {file} sec xdp"));
    let link = namespace.run("ip -d link show lo");
    assert!(link.contains("prog/xdp"), "{link}");
    namespace.run("ip link set dev lo xdpgeneric off");
    namespace.run("tc qdisc add dev lo clsact");
    namespace.run(&format!(
        "tc filter add dev lo egress bpf da obj {file} sec classifier"
    ));
    let filters = namespace.run("tc filter show dev lo egress");
    assert!(
        filters.contains("direct-action") && filters.contains("classifier"),
        "{filters}"
    );
}

#[test]
fn llvm_objdump_shows_global_variables_callbacks_and_our_rust_lines() {
    if Command::new("llvm-objdump")
        .arg("--version")
        .output()
        .is_err()
    {
        skipped("llvm-objdump is not installed");
        return;
    }
    let program = bpf_asm::builder::xdp("lines", |f| {
        let count = COUNT.ptr(f);
        count.write(count.read() + 1u64); // counts
        let state = f.stack::<u64>();
        state.write(0u64);
        f.loop_callback("callback", 3u32, state, |g, _, _| g.return_value(0u64));
        f.ret(XDP_PASS);
    });
    let object = Object::new("GPL")
        .sources(&[HERE])
        .program(program.unwrap());
    let elf = object.to_elf().unwrap();
    assert_eq!(elf, object.to_elf().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("lines.o");
    std::fs::write(&file, &elf).unwrap();
    let mut objdump = Command::new("llvm-objdump");
    let dump = succeed(
        objdump
            .args(["-d", "-r", "-S"])
            .arg(&file)
            .output()
            .unwrap(),
    );
    for expected in [
        "<lines>:",
        "<callback>:",
        "R_BPF_64_64\t.data",
        "R_BPF_64_64\t.text",
    ] {
        assert!(dump.contains(expected), "no `{expected}` in:\n{dump}");
    }
    // What -S prints comes from DWARF in older versions; the lines are in the object's BTF in any case.
    let text = "count.write(count.read() + 1u64); // counts";
    assert!(
        elf.windows(text.len())
            .any(|bytes| bytes == text.as_bytes())
    );
}

const COUNT: bpf_asm::builder::Global<u64> = bpf_asm::builder::Global::new("count", 7);

/// A network namespace of our own; it goes when this is dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new() -> Namespace {
        let name = format!("bpf-asm-{}", std::process::id());
        succeed(
            Command::new("ip")
                .args(["netns", "add", &name])
                .output()
                .unwrap(),
        );
        Namespace { name }
    }

    fn run(&self, command: &str) -> String {
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", &self.name]);
        succeed(ip.args(command.split(' ')).output().unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        assert!(removed.is_ok_and(|status| status.success()), "ip netns del");
    }
}

/// The types whose definitions differ in what is absent: keys, values, or both.
#[test]
fn every_map_type_is_created_by_aya_and_by_bpftool() {
    if !is_root() {
        return;
    }
    const NO_PREALLOC: u32 = 1;
    const MMAPABLE: u32 = 1 << 10;
    let map = |map_type, key_size, value_size, max_entries, flags| MapDef {
        name: format!("{map_type:?}"),
        map_type,
        key_size,
        value_size,
        max_entries,
        flags,
        contents: Contents::Empty,
    };
    let maps = vec![
        map(MapType::Hash, 12, 20, 8, 0),
        map(MapType::Array, 4, 16, 8, MMAPABLE),
        map(MapType::ProgArray, 4, 4, 8, 0),
        map(MapType::PerCpuHash, 8, 8, 8, 0),
        map(MapType::PerCpuArray, 4, 8, 8, 0),
        map(MapType::LruHash, 8, 8, 8, 0),
        map(MapType::LpmTrie, 8, 8, 8, NO_PREALLOC),
        map(MapType::DevMap, 4, 4, 8, 0),
        map(MapType::XskMap, 4, 4, 8, 0),
        map(MapType::Queue, 0, 8, 8, 0),
        map(MapType::RingBuf, 0, 0, 4096, 0),
        map(MapType::Bloom, 0, 8, 8, 0),
    ];
    let mut a = Assembler::new("all_maps");
    for map in &maps {
        a.load_map(Reg::R1, &map.name);
    }
    a.mov64_imm(Reg::R0, 2).exit();
    let object = Object::new("GPL").program(program(ProgramKind::Xdp, a, vec![], maps));
    let elf = object.to_elf().unwrap();
    let mut ebpf = EbpfLoader::new().load(&elf).unwrap();
    assert_eq!(run_xdp(&mut ebpf, "all_maps", 64), XDP_PASS);
    assert_eq!(ebpf.maps().count(), 12);

    if Command::new("bpftool").arg("version").output().is_err() {
        skipped("bpftool is not installed");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("maps.o");
    std::fs::write(&file, elf).unwrap();
    let bpffs = Bpffs::mount(scratch.path().join("bpf"));
    let mut load = Command::new("bpftool");
    load.args(["prog", "load"])
        .args([&file, &bpffs.path.join("pin")]);
    succeed(load.output().unwrap());
}

#[test]
fn two_builds_are_the_same_bytes() {
    assert_eq!(example().to_elf().unwrap(), example().to_elf().unwrap());
}

/// Three XDP programs that count verdicts, and a classifier.
fn example() -> Object {
    let counts = array("counts", 4);
    let marks = array("marks", 1);
    let count = |kind, name| {
        let maps = vec![counts.clone()];
        program(kind, count(name), vec![verdict()], maps)
    };
    Object::new("GPL")
        .sources(&[HERE])
        .program(count(ProgramKind::Xdp, "count"))
        .program(count(ProgramKind::XdpFrags, "count_frags"))
        .program(count(ProgramKind::Xdp, "count_too"))
        .program(program(
            ProgramKind::Classifier,
            swap(),
            vec![],
            vec![marks],
        ))
}

/// `counts[verdict(length)] += 1`, and returns that verdict.
fn count(name: &str) -> Assembler {
    let mut a = Assembler::new(name);
    let missing = a.label();
    a.ldx_w(Reg::R2, Reg::R1, 0).ldx_w(Reg::R1, Reg::R1, 4);
    a.sub64(Reg::R1, Reg::R2);
    a.call_local("verdict").mov64(Reg::R6, Reg::R0);
    a.stx_w(Reg::R10, -4, Reg::R0);
    a.mov64(Reg::R2, Reg::R10).add64_imm(Reg::R2, -4);
    a.load_map(Reg::R1, "counts").call(MAP_LOOKUP_ELEM);
    a.jeq64_imm(Reg::R0, 0, missing);
    a.mov64_imm(Reg::R1, 1).atomic_add64(Reg::R0, 0, Reg::R1);
    a.bind(missing).mov64(Reg::R0, Reg::R6).exit();
    a
}

/// Passes what is longer than 64 bytes.
fn verdict() -> Function {
    let mut a = Assembler::new("verdict");
    let long = a.label();
    a.mov64_imm(Reg::R0, 2).jgt64_imm(Reg::R1, 64, long);
    a.mov64_imm(Reg::R0, 1);
    a.bind(long).exit();
    a.finish().unwrap()
}

/// Puts the packet's EtherType into `marks[0]` if that is 0, and drops the packet.
fn swap() -> Assembler {
    const DATA: i16 = 76;
    const DATA_END: i16 = 80;
    let mut a = Assembler::new("swap");
    let out = a.label();
    a.ldx_w(Reg::R2, Reg::R1, DATA)
        .ldx_w(Reg::R3, Reg::R1, DATA_END);
    a.mov64(Reg::R4, Reg::R2).add64_imm(Reg::R4, 14);
    a.jgt64(Reg::R4, Reg::R3, out);
    a.ldx_h(Reg::R6, Reg::R2, 12).be16(Reg::R6);
    a.st_w(Reg::R10, -4, 0);
    a.mov64(Reg::R2, Reg::R10).add64_imm(Reg::R2, -4);
    a.load_map(Reg::R1, "marks").call(MAP_LOOKUP_ELEM);
    a.jeq64_imm(Reg::R0, 0, out);
    a.mov64(Reg::R1, Reg::R0).mov64_imm(Reg::R0, 0);
    a.cmpxchg64(Reg::R1, 0, Reg::R6);
    a.bind(out).mov64_imm(Reg::R0, 2).exit();
    a
}

fn array(name: &str, max_entries: u32) -> MapDef {
    MapDef {
        name: name.to_owned(),
        map_type: MapType::Array,
        key_size: 4,
        value_size: 8,
        max_entries,
        flags: 0,
        contents: Contents::Empty,
    }
}

fn program(
    kind: ProgramKind,
    main: Assembler,
    subprograms: Vec<Function>,
    maps: Vec<MapDef>,
) -> Program {
    Program {
        kind,
        main: main.finish().unwrap(),
        subprograms,
        maps,
    }
}

fn run_xdp(ebpf: &mut Ebpf, name: &str, length: usize) -> u32 {
    let program: &mut Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
    if program.fd().is_err() {
        program.load().unwrap();
    }
    let packet = vec![0u8; length];
    let options = TestRunOptions {
        data_in: Some(&packet),
        ..TestRunOptions::default()
    };
    program.test_run(options).unwrap().return_value
}

/// What the verifier says about an XDP program that it refuses.
fn rejection(object: &Object, name: &str) -> String {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::VERBOSE);
    let mut ebpf = loader.load(&object.to_elf().unwrap()).unwrap();
    let program: &mut Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
    match program.load() {
        Err(ProgramError::LoadError { verifier_log, .. }) => verifier_log.to_string(),
        other => panic!("the verifier was to refuse this, not {other:?}"),
    }
}

fn is_root() -> bool {
    let owner = std::fs::metadata("/proc/self").unwrap().uid();
    if owner != 0 {
        skipped("needs root");
    }
    owner == 0
}

fn succeed(output: Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    stdout
}

/// A BPF file system of our own; it and every pin in it go when this is dropped.
struct Bpffs {
    path: std::path::PathBuf,
}

impl Bpffs {
    fn mount(path: std::path::PathBuf) -> Bpffs {
        std::fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        succeed(
            mount
                .args(["-t", "bpf", "bpf"])
                .arg(&path)
                .output()
                .unwrap(),
        );
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
