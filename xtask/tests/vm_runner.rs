//! The runner of virtual machines (`vm-tests/runner`) where it can't do its work: one clear line, an exit code, and nothing
//! left running. QEMU is played by scripts.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a busy machine is given.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a plan for one machine, and with all the commands that the runner finds.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder };
        fs::create_dir_all(place.path("bin")).unwrap();
        fs::create_dir_all(place.path("scripts")).unwrap();
        fs::write(place.path("scripts/prelude.py"), "").unwrap();
        fs::write(place.path("scripts/boot.py"), "start_all()\n").unwrap();
        let run = place.path("run");
        let plan = format!(
            r#"{{"kernels": [{{"name": "6.12", "image": "i", "archive": "a", "scenarios": ["boot"]}}],
                "scenarios": {{"boot": {{"machines": ["machine"]}}}}, "folder": "{}", "scripts": "{}",
                "slowness": 1, "accelerator": "tcg", "budget": null}}"#,
            run.display(),
            place.path("scripts").display(),
        );
        fs::write(place.path("plan.json"), plan).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that does what the shell script says.
    fn command(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn runner(&self) -> Command {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut runner = Command::new(python());
        runner
            .arg("-B")
            .arg(repository.join("vm-tests/runner"))
            .arg(self.path("plan.json"))
            .env("PATH", self.path("bin"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        runner
    }

    fn run(&self) -> (Option<i32>, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.runner().output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    /// A runner whose machine runs, and the machine's process.
    fn running(&self) -> (Child, u32) {
        self.command("mke2fs", "exit 0");
        let id = self.path("id");
        let script = format!(
            "echo $$ > {0}.new\n/bin/mv {0}.new {0}\nexec /bin/sleep 600",
            id.display()
        );
        self.command("qemu-system-x86_64", &script);
        let runner = self.runner().spawn().unwrap();
        let mut machine = None;
        wait("a machine", || {
            let text = fs::read_to_string(&id).ok();
            machine = text.and_then(|text| text.trim().parse().ok());
            machine.is_some()
        });
        (runner, machine.unwrap())
    }
}

/// The interpreter itself: `python3` may be a script that needs more than there is in the place.
fn python() -> PathBuf {
    let said = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output();
    let said = said.expect("python3, which the virtual machines need");
    String::from_utf8(said.stdout).unwrap().trim().into()
}

#[track_caller]
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(process: u32, signal: &str) {
    let process = process.to_string();
    let sent = Command::new("kill").args(["-s", signal, &process]).status();
    assert!(sent.unwrap().success());
}

fn is_running(process: u32) -> bool {
    // One that has ended and that nobody has asked about yet is a zombie.
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn without_qemu_the_runner_names_the_package() {
    let (code, _, said) = Place::new().run();
    assert_eq!(
        said,
        "vm: qemu-system-x86_64 is missing (package qemu-system-x86)\n"
    );
    assert_eq!(code, Some(2));
}

#[test]
fn a_disk_that_cannot_be_made_is_named_with_the_reason() {
    let place = Place::new();
    place.command("qemu-system-x86_64", "exit 0");
    place.command(
        "mke2fs",
        "echo 'mke2fs: No space left on device' >&2; exit 1",
    );
    let (code, _, said) = place.run();
    let disk = place.path("run/6.12/machine/machine.disk");
    let expected = format!(
        "vm: mke2fs {}: mke2fs: No space left on device\n",
        disk.display()
    );
    assert_eq!(said, expected);
    assert_eq!(code, Some(2));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let place = Place::new();
    place.command("qemu-system-x86_64", "exit 0");
    fs::write(place.path("run"), "a file").unwrap();
    let (code, _, said) = place.run();
    assert!(
        said.starts_with("vm: ") && said.contains("run/6.12"),
        "{said}"
    );
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
}

#[test]
fn a_machine_that_does_not_start_fails_its_scenario_with_qemus_words() {
    let place = Place::new();
    place.command("mke2fs", "exit 0");
    let words = "qemu-system-x86_64: could not set up the network: Address already in use";
    place.command("qemu-system-x86_64", &format!("echo '{words}' >&2; exit 1"));
    let (code, said, _) = place.run();
    assert!(
        said.starts_with("FAILED  boot on 6.12, at vm-tests/scenarios/boot.py:1: machine: "),
        "{said}"
    );
    assert!(said.contains(words), "{said}");
    assert!(said.ends_with("FAILED boot on 6.12\n"), "{said}");
    assert_eq!(code, Some(1));
}

/// A host that is slow doesn't fail for it, but nobody takes what didn't run for what passed.
#[test]
fn what_there_is_no_time_for_is_named_and_is_no_failure() {
    let place = Place::new();
    place.command("qemu-system-x86_64", "exit 1");
    let plan = fs::read_to_string(place.path("plan.json")).unwrap();
    let plan = plan.replace("\"budget\": null", "\"budget\": 0");
    fs::write(place.path("plan.json"), plan).unwrap();
    let (code, said, _) = place.run();
    assert_eq!(
        said,
        "SKIPPED boot on 6.12: no time left for it on this machine\n"
    );
    assert_eq!(code, Some(0));
}

#[test]
fn machines_end_with_a_runner_that_is_told_to_end() {
    let place = Place::new();
    let (mut runner, machine) = place.running();
    signal(runner.id(), "TERM");
    assert_eq!(runner.wait().unwrap().code(), Some(143));
    wait("the machine's end", || !is_running(machine));
}

#[test]
fn machines_end_with_a_runner_that_is_killed() {
    let place = Place::new();
    let (mut runner, machine) = place.running();
    signal(runner.id(), "KILL");
    runner.wait().unwrap();
    wait("the machine's end", || !is_running(machine));
    // Nobody holds its output open either.
    let mut said = String::new();
    runner
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
}
