//! The object as the kernel and as a stranger's loader take it.

use std::io::Write;
use std::process::Command;

use electrode_dataplane::{Hook, Programs};
use electrode_fastpath::programs::{NAMES, object};
use electrode_lab::root_or_skip;
use electrode_vr::{OpNumber, View};

use crate::group::{ALL, Group, V4, VIEW, XDP_PASS, prepare};

/// Each subset of the programs: what isn't wanted isn't loaded, and what is wanted works without the others.
#[test]
fn every_program_loads() {
    if !root_or_skip("loading the programs") {
        return;
    }
    for subset in 0..8u8 {
        let programs = Programs {
            broadcast: subset & 1 != 0,
            prepare: subset & 2 != 0,
            prepare_ok: subset & 4 != 0,
        };
        let mut group = Group::new(V4, 1, 3, programs);
        let attachment = group.dataplane.attachment();
        assert_eq!((attachment.xdp, attachment.tc), (Hook::Off, Hook::Off));
        let frame = V4.frame(2, 1, &prepare(VIEW, 1, &[3])).bytes();
        let xdp = programs.prepare || programs.prepare_ok;
        for (name, loaded) in [
            ("dispatch", xdp),
            ("prepare", programs.prepare),
            ("prepare_ok", programs.prepare_ok),
            ("broadcast", programs.broadcast),
        ] {
            let ran = group.runner.run(name, &frame);
            assert_eq!(ran.is_ok(), loaded, "{programs:?}, {name}: {ran:?}");
        }
        assert!(group.runner.run("no such program", &frame).is_err());
        if xdp && !programs.prepare {
            // A Prepare that nobody here takes is user space's.
            group.dataplane.arm(View(VIEW), false, OpNumber(0));
            group.moved();
            let frame = V4.frame(0, 1, &prepare(VIEW, 1, &[3])).bytes();
            assert_eq!(group.run(&frame), (XDP_PASS, frame));
            group.counted(&[("dispatch", "prepare", 1)]);
            assert_eq!(group.dataplane.fence(), OpNumber(0));
        }
    }
}

/// The verifier gives up at a million instructions; stay where another kernel's, which may have to look further, doesn't.
#[test]
fn the_verifier_has_an_easy_time() {
    if !root_or_skip("loading the programs") {
        return;
    }
    let _group = Group::new(V4, 1, 3, ALL);
    for name in NAMES {
        let programs = aya::programs::loaded_programs().filter_map(Result::ok);
        let verified = programs
            .filter(|program| program.name_as_str() == Some(name))
            .filter_map(|program| program.verified_instruction_count())
            .max()
            .expect("a kernel that says so (Linux 5.16)");
        println!("{name}: {verified} instructions verified");
        assert!(
            verified < 400_000,
            "{name}: {verified} instructions verified"
        );
    }
}

/// libbpf, through bpftool: it reads ELF, BTF and maps by its own rules. Pinned in a file system of the command's own, that
/// ends with it.
#[test]
fn objects_load_with_bpftool() {
    if !root_or_skip("loading the programs") {
        return;
    }
    if Command::new("bpftool").arg("version").output().is_err() {
        // Past the harness's capture: a skipped test must not look like a passed one.
        let _ = std::io::stderr().write_all(b"SKIPPED: there is no bpftool\n");
        return;
    }
    // libbpf makes an underscore of each dot in a pin's path, so the path must have none.
    let directory = tempfile::Builder::new().prefix("electrode-").tempdir();
    let directory = directory.expect("a directory");
    let file = directory.path().join("fastpath.o");
    std::fs::write(&file, object().expect("the object is built")).expect("a file");
    let pins = directory.path().join("pins");
    std::fs::create_dir(&pins).expect("a directory");
    let script = r#"
        mount -t bpf bpf "$2" &&
        bpftool prog loadall "$1" "$2/programs" pinmaps "$2/maps" &&
        ls "$2/maps" &&
        for name in dispatch prepare prepare_ok broadcast; do
            bpftool --json prog show pinned "$2/programs/$name" || exit 1
        done"#;
    let run = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .args(["sh".as_ref(), file.as_os_str(), pins.as_os_str()])
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&run.stdout);
    let complaints = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}{complaints}");
    for map in [
        "shared", "slots", "heard", "targets", "counters", "ring", "programs",
    ] {
        assert!(said.lines().any(|line| line == map), "map {map} in {said}");
    }
    for name in NAMES {
        let name = format!("\"name\":\"{name}\"");
        let line = said.lines().find(|line| line.contains(&name));
        let line = line.unwrap_or_else(|| panic!("{name} in {said}"));
        assert!(line.contains("Dual MIT/GPL") || line.contains("\"gpl_compatible\":true"));
    }
    assert!(
        std::fs::read_dir(&pins)
            .expect("a directory")
            .next()
            .is_none(),
        "nothing stays pinned"
    );
}
