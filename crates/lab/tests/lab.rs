//! A lab as its users see it: hosts that reach each other, faults, and nothing left behind.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bpf_asm::asm::Assembler;
use bpf_asm::insn::Reg;
use bpf_asm::program::{Program, ProgramKind};
use electrode_lab::{Host, HostOptions, Lab, LabError, Loaded, root_or_skip};

/// Whether a datagram of `size` bytes sent on `from` arrives on `to`: within five seconds, since a neighbour that
/// doesn't answer at once is asked again after one.
fn reaches(from: &Host, to: &Host, address: IpAddr, size: usize) -> bool {
    let receiver = to
        .in_namespace(|| UdpSocket::bind((address, 0)).unwrap())
        .unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let to: SocketAddr = receiver.local_addr().unwrap();
    from.in_namespace(|| {
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let sender = UdpSocket::bind(any).unwrap();
        let mut buffer = vec![0; 2000];
        (0..25).any(|_| {
            // An error is a host that is known to be out of reach: as good as a loss.
            let _ = sender.send_to(&vec![7; size], to);
            receiver.recv(&mut buffer).is_ok_and(|n| n == size)
        })
    })
    .unwrap()
}

fn pids_in(namespace: &str) -> Vec<u32> {
    let output = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|pid| pid.parse().ok()).collect()
}

fn namespace_exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

#[test]
fn hosts_reach_each_other_over_both_protocols_until_a_cable_is_pulled() {
    if !root_or_skip("hosts in namespaces") {
        return;
    }
    let lab = Lab::new("reach").unwrap();
    let a = lab.host("a").unwrap();
    let b = lab.host("b").unwrap();
    assert!(reaches(&a, &b, b.ip(), 100));
    assert!(reaches(&b, &a, a.ipv6().into(), 1400));
    a.link_down().unwrap();
    assert!(!reaches(&b, &a, a.ip(), 100));
    a.link_up().unwrap();
    assert!(reaches(&b, &a, a.ip(), 100));
    assert!(reaches(&b, &a, a.ipv6().into(), 100));
    assert!(matches!(lab.host("a"), Err(LabError::NoRoom(_))));
}

#[test]
fn a_new_host_is_reached_by_the_first_datagram() {
    if !root_or_skip("hosts in namespaces") {
        return;
    }
    let lab = Lab::new("first").unwrap();
    let a = lab.host("a").unwrap();
    for number in 0..12 {
        let b = lab.host(&format!("b{number}")).unwrap();
        let receiver = b
            .in_namespace(|| UdpSocket::bind((b.ip(), 0)).unwrap())
            .unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let to = receiver.local_addr().unwrap();
        a.in_namespace(|| {
            let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
            sender.send_to(&[7; 64], to).unwrap();
        })
        .unwrap();
        let received = receiver.recv(&mut [0; 100]);
        assert_eq!(received.ok(), Some(64), "host b{number}");
    }
}

#[test]
fn a_partition_separates_its_groups_and_heals() {
    if !root_or_skip("a partition") {
        return;
    }
    let lab = Lab::new("split").unwrap();
    let hosts: Vec<Host> = ["a", "b", "c"]
        .iter()
        .map(|name| lab.host(name).unwrap())
        .collect();
    let [a, b, c] = hosts.as_slice() else {
        panic!("three hosts")
    };
    assert!(reaches(a, c, c.ip(), 64));
    for _ in 0..2 {
        lab.partition(&[&[a, b], &[c]]).unwrap();
        assert!(reaches(a, b, b.ip(), 64));
        assert!(!reaches(a, c, c.ip(), 64));
        lab.heal().unwrap();
        assert!(reaches(a, c, c.ip(), 64));
    }
}

#[test]
fn a_host_has_the_mtu_and_the_ethernet_address_that_it_says() {
    if !root_or_skip("a host's link") {
        return;
    }
    let lab = Lab::new("mtu").unwrap();
    let host = lab.host_with("a", HostOptions { mtu: 1300 }).unwrap();
    let mut command = host.command("ip");
    command
        .args(["link", "show", "eth0"])
        .stdout(Stdio::piped());
    let output = host.spawn(command).unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("mtu 1300"), "{text}");
    let mac: Vec<String> = host.mac().iter().map(|b| format!("{b:02x}")).collect();
    assert!(text.contains(&mac.join(":")), "{text}");
}

#[test]
fn a_dropped_lab_leaves_no_namespace_no_process_and_no_directory() {
    if !root_or_skip("a lab's end") {
        return;
    }
    let lab = Lab::new("end").unwrap();
    let host = lab.host("a").unwrap();
    let scratch = lab.scratch().to_owned();
    std::fs::write(scratch.join("file"), "x").unwrap();
    let namespace = host.namespace().unwrap().to_owned();
    let mut command = host.command("sleep");
    command.arg("600");
    let mut child = host.spawn(command).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    assert!(namespace_exists(&namespace));
    drop(lab);
    assert!(!namespace_exists(&namespace));
    assert!(!scratch.exists());
    let ended = child.try_wait().unwrap();
    assert!(ended.is_some_and(|status| !status.success()), "{ended:?}");
    assert!(host.in_namespace(|| ()).is_err());
}

/// What [`a_killed_process_leaves_nothing_either`] runs as a process of its own: it says its pids and names, and hangs.
#[test]
#[ignore = "the other half of a_killed_process_leaves_nothing_either, which runs it"]
fn a_process_that_hangs_in_its_lab() {
    let lab = Lab::new("hang").unwrap();
    let host = lab.host("a").unwrap();
    let mut command = host.command("sleep");
    command.arg("600");
    let child = host.spawn(command).unwrap();
    println!(
        "\nlab {} {} {}",
        child.pid(),
        host.namespace().unwrap(),
        lab.scratch().display()
    );
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_killed_process_leaves_nothing_either() {
    if !root_or_skip("a killed lab") {
        return;
    }
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("a_process_that_hangs_in_its_lab")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = BufReader::new(process.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find(|line| line.starts_with("lab "))
        .unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let [_, pid, namespace, scratch] = words.as_slice() else {
        panic!("{line}")
    };
    assert!(namespace_exists(namespace));
    process.kill().unwrap();
    process.wait().unwrap();
    let process_of_child = Path::new("/proc").join(pid);
    let started = Instant::now();
    while namespace_exists(namespace) || process_of_child.exists() || Path::new(scratch).exists() {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "still there: {line}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn namespaces_of_dead_processes_are_swept_and_those_of_living_ones_kept() {
    if !root_or_skip("the sweep") {
        return;
    }
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let leftover = format!("electrode-{}-0-r0", dead.id());
    let added = Command::new("ip")
        .args(["netns", "add", &leftover])
        .status()
        .unwrap();
    assert!(added.success());
    let mut sleeper = Command::new("ip")
        .args(["netns", "exec", &leftover, "sleep", "600"])
        .spawn()
        .unwrap();
    // The sweep finds processes by the namespace that they are in; `ip` needs a moment to get there.
    let started = Instant::now();
    while !pids_in(&leftover).contains(&sleeper.id()) {
        assert!(started.elapsed() < Duration::from_secs(20), "{leftover}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let lab = Lab::new("sweep").unwrap();
    assert!(!namespace_exists(&leftover));
    assert!(!sleeper.wait().unwrap().success());
    let again = Lab::new("sweep2").unwrap();
    assert!(namespace_exists(lab.switch().unwrap()));
    assert!(namespace_exists(again.switch().unwrap()));
}

#[test]
fn a_lab_on_the_loopback_device_needs_no_root() {
    let lab = Lab::loopback("lo").unwrap();
    let a = lab.host("a").unwrap();
    let b = lab.host("b").unwrap();
    assert_ne!(a.ip(), b.ip());
    assert!(reaches(&a, &b, b.ip(), 100));
    assert!(matches!(a.link_down(), Err(LabError::OnLoopback(_))));
    assert_eq!(a.namespace(), None);
}

/// What the verifier dislikes is told with the line of Rust that wrote it.
#[test]
fn a_program_that_the_kernel_refuses_is_told_with_its_line() {
    if !root_or_skip("loading a program") {
        return;
    }
    let mut code = Assembler::new("refused");
    code.mov64_imm(Reg::R0, 2);
    let line = line!() + 1;
    code.mov64(Reg::R0, Reg::R9);
    code.exit();
    let refused = Loaded::new(Program {
        kind: ProgramKind::Xdp,
        main: code.finish().unwrap(),
        subprograms: Vec::new(),
        maps: Vec::new(),
    });
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("the verifier says: R9 !read_ok"),
        "{message}"
    );
    assert!(
        message.contains(&format!("tests/lab.rs:{line}:")),
        "{message}"
    );
    assert!(!message.contains("processed "), "{message}");
}
