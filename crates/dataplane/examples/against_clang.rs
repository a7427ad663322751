//! Prints what Electrode's programs cost beside clang's for the same logic (`crates/fastpath/tests/clang`): `cargo run --release -p
//! electrode-dataplane --example against_clang`. Needs clang, and root to load programs.
//!
//! Times are medians of alternating series, from BPF_PROG_TEST_RUN. What changes packet or maps can't be repeated within one such
//! run: there each series is a run of its own, and its time has the clock's and a cold start's in it, for both alike.

#[path = "../../../bpf-asm/tests/clang/compiler.rs"]
mod compiler;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/kernel/frame.rs"]
mod frame;

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

use electrode_dataplane::{AttachError, Dataplane, Options, Programs, Runner};
use electrode_fastpath::abi::{TARGET_RESOLVED, Target};
use electrode_fastpath::programs::{NAMES, object};
use electrode_lab::Lab;
use electrode_vr::{
    ClientId, Entry, GroupId, Message, OpNumber, Prepare, ReplicaId, RequestNumber, View,
};
use electrode_wire::{Envelope, FLAG_BROADCAST, Key, encode_message};

use frame::Frame;

const KEY: Key = Key(*b"a group's secret");
const GROUP: GroupId = GroupId(7);
const REPLICAS: u8 = 5;
/// Replica 0 is its primary.
const VIEW: View = View(15);
/// Nobody's MAC, with the bit that says that it is known.
const MAC: u64 = 0x0605_0403_0202 | TARGET_RESOLVED;

/// Series of each program, and runs in one of what can be repeated.
const SERIES: usize = 15;
const REPEAT: u32 = 100_000;
/// Series of what can't be repeated.
const SINGLE_RUNS: usize = 4_000;

fn main() {
    let told = if compiler::has_clang() {
        report()
    } else {
        Err("there is no clang that compiles for BPF: install it".into())
    };
    if let Err(error) = told {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn report() -> Result<(), Box<dyn Error + Send + Sync>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clang = compiler::compiled(
        &here.join("../fastpath/tests/clang/programs.c"),
        &here.join("../../bpf-asm/tests/clang"),
    );
    let ours = object()?;
    // A loopback device that nobody else uses takes the copies.
    let lab = Lab::new("clang")?;
    let host = lab.host("a")?;
    host.in_namespace(|| {
        let mut backup = [armed(1, &ours)?, armed(1, &clang)?];
        print_sizes(&backup)?;
        println!("\n{:44} {:>22}", "time of a packet", "builder / clang");
        print_times_of_a_backup(&mut backup)?;
        print_times_of_a_primary(&mut [armed(0, &ours)?, armed(0, &clang)?])
    })?
}

fn print_sizes(dataplanes: &[Dataplane; 2]) -> io::Result<()> {
    println!(
        "{:16} {:>20} {:>24} {:>28}",
        "builder / clang", "instructions", "machine code", "followed by the verifier"
    );
    let runners = dataplanes.each_ref().map(Dataplane::runner);
    for name in NAMES {
        let [ours, clang] = [runners[0].size(name)?, runners[1].size(name)?];
        println!(
            "{name:16} {:>20} {:>24} {:>28}",
            beside(ours.instructions.into(), clang.instructions.into(), ""),
            beside(ours.native_bytes.into(), clang.native_bytes.into(), "B"),
            beside(ours.verified.into(), clang.verified.into(), ""),
        );
    }
    Ok(())
}

fn print_times_of_a_backup(backup: &mut [Dataplane; 2]) -> io::Result<()> {
    let mut tcp = frame(0, 1, &prepare(2, 64, 0));
    // IPv4's protocol.
    tcp[23] = 6;
    for (what, frame) in [
        ("dispatch: TCP, passed", tcp),
        (
            "prepare, 64 bytes: checked, a gap, passed",
            frame(0, 1, &prepare(2, 64, 0)),
        ),
        (
            "prepare, 1368 bytes: the same",
            frame(0, 1, &prepare(2, 1368, 0)),
        ),
    ] {
        repeated(what, "dispatch", &frame, backup)?;
    }
    for (what, bytes) in [
        ("prepare, 64 bytes: stored, answered", 64),
        ("prepare, 1368 bytes: stored, answered", 1368),
    ] {
        // Each begins with an empty log.
        for dataplane in backup.iter_mut() {
            dataplane.fence();
            dataplane.arm(VIEW, false, OpNumber(0));
        }
        singly(what, backup, |dataplane, runner, round| {
            let message = prepare(round as u64 + 1, bytes, 0);
            let ran = runner.measure("dispatch", &frame(0, 1, &message), 1)?;
            assert_eq!(ran.verdict, 3, "XDP_TX");
            assert!(dataplane.take_stored(&mut Vec::new()));
            Ok(ran.time)
        })?;
    }
    Ok(())
}

fn print_times_of_a_primary(
    primary: &mut [Dataplane; 2],
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let op = OpNumber(1);
    for dataplane in primary.iter_mut() {
        dataplane.fence();
        dataplane.arm(VIEW, true, op);
    }
    let message = Message::PrepareOk {
        view: VIEW,
        op,
        last_op: op,
    };
    let ack = frame(1, 0, &encoded(1, 0, &message));
    singly("prepare_ok: counted", primary, |dataplane, runner, _| {
        dataplane.open_slot(op);
        let ran = runner.measure("dispatch", &ack, 1)?;
        assert_eq!(ran.verdict, 1, "XDP_DROP");
        Ok(ran.time)
    })?;
    repeated("prepare_ok: surplus, dropped", "dispatch", &ack, primary)?;
    let plain = frame(0, 1, &prepare(2, 64, 0));
    repeated("broadcast: no flag, passed", "broadcast", &plain, primary)?;
    for dataplane in primary.iter_mut() {
        let mut image = dataplane.image();
        for target in image.targets.chunks_mut(size_of::<Target>() / 8) {
            target[0] = MAC;
        }
        dataplane.restore(&image);
    }
    let flagged = frame(0, 1, &prepare(2, 64, FLAG_BROADCAST));
    singly("broadcast: copied for 3 more", primary, |_, runner, _| {
        let ran = runner.measure("broadcast", &flagged, 1)?;
        Ok(ran.time)
    })?;
    Ok(())
}

fn armed(index: u8, object: &[u8]) -> Result<Dataplane, AttachError> {
    let mut dataplane = Dataplane::load_object(
        &Options {
            interface: "lo".to_owned(),
            programs: Programs {
                broadcast: true,
                prepare: true,
                prepare_ok: true,
            },
            answer: true,
            allow_generic: false,
            index: ReplicaId(index),
            replicas: (0..REPLICAS).map(address).collect(),
            key: KEY.0,
        },
        object,
    )?;
    dataplane.set_group(GROUP);
    dataplane.arm(VIEW, index == 0, OpNumber(0));
    Ok(dataplane)
}

/// Prints the time of a frame that changes nothing.
fn repeated(
    what: &str,
    program: &str,
    frame: &[u8],
    dataplanes: &[Dataplane; 2],
) -> io::Result<()> {
    let runners = dataplanes.each_ref().map(Dataplane::runner);
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..SERIES {
        for (runner, times) in runners.iter().zip(&mut times) {
            times.push(runner.measure(program, frame, REPEAT)?.time);
        }
    }
    print_times(what, times);
    Ok(())
}

/// Prints the time of what is made ready anew for each run.
fn singly(
    what: &str,
    dataplanes: &mut [Dataplane; 2],
    mut run: impl FnMut(&mut Dataplane, &Runner, usize) -> io::Result<Duration>,
) -> io::Result<()> {
    let mut times = [const { Vec::new() }; 2];
    for round in 0..SINGLE_RUNS {
        for (dataplane, times) in dataplanes.iter_mut().zip(&mut times) {
            let runner = dataplane.runner();
            times.push(run(dataplane, &runner, round)?);
        }
    }
    print_times(what, times);
    Ok(())
}

fn print_times(what: &str, times: [Vec<Duration>; 2]) {
    let [ours, clang] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2].as_nanos()
    });
    println!("{what:44} {:>22}", beside(ours, clang, "ns"));
}

fn beside(ours: u128, clang: u128, unit: &str) -> String {
    let ratio = ours as f64 / clang.max(1) as f64;
    format!("{ours:6} / {clang:6} {unit} {ratio:.2}")
}

fn address(replica: u8) -> std::net::SocketAddr {
    ([10, 77, 0, replica + 1], 7000).into()
}

fn frame(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let frame = Frame {
        to_mac: [2, 0, 0, 0, 0, to],
        from_mac: [2, 0, 0, 0, 0, from],
        tags: Vec::new(),
        from: address(from),
        to: address(to),
        payload: payload.to_vec(),
    };
    frame.bytes()
}

/// A Prepare of one op.
fn prepare(op: u64, bytes: usize, flags: u8) -> Vec<u8> {
    let entry = Entry {
        client: ClientId(1),
        request: RequestNumber(1),
        op: vec![1; bytes].into(),
    };
    let message = Message::Prepare(Prepare {
        view: VIEW,
        first: OpNumber(op),
        commit: OpNumber(0),
        entries: [entry].into_iter().collect(),
    });
    encoded(0, flags, &message)
}

fn encoded(sender: u8, flags: u8, message: &Message) -> Vec<u8> {
    let envelope = Envelope {
        group: GROUP,
        epoch: 0,
        sender,
        flags,
    };
    let mut out = Vec::new();
    encode_message(&envelope, &KEY, message, &mut out);
    out
}
