//! How fast the interpreter is: `cargo run --release -p bpf-asm --example interpreter_speed`.
//!
//! Counted by the time that this process had a processor, so that a busy machine tells the same.
//!
//! Three kinds of work: arithmetic in a loop, what a packet program does (packet, stack, map, helper), and the same one
//! instruction at a time, from preemption point to preemption point.

use std::io;

use bpf_asm::builder::{Array, XDP_DROP, XDP_PASS, xdp};
use bpf_asm::field;
use bpf_asm::interpreter::{Input, Machine, ProgramId, Progress, XdpInput};

#[repr(C)]
struct Counts {
    packets: u64,
    sum: u64,
}

const COUNTS: Array<Counts> = Array::new("counts", 1);
/// Runs of each program.
const RUNS: u32 = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::new();
    let arithmetic = machine.load(&xdp("arithmetic", |f| {
        let (a, b) = (f.var(1u64), f.var(0x1234_5678_9abc_def0u64));
        f.loop_up_to(20_000, |round, _| {
            a.set(a.get().rotate_left(13) ^ b.get());
            b.set(b.get() + a.get() * 3u64);
            b.set(b.get() ^ (round << 7u64));
        });
        f.ret((a.get() ^ b.get()).cast::<u32>() & 1u32);
    })?)?;
    let packet = machine.load(&xdp("packet", |f| {
        let sum = f.var(0u64);
        f.loop_up_to(5_000, |round, _| {
            let counts = COUNTS.lookup(f, 0u32, || f.ret(XDP_DROP));
            let packet = f.packet();
            let word =
                packet.view_with::<u64>((round & 31u64) << 3u64, 248, 14, || f.ret(XDP_DROP));
            sum.set(sum.get() + word.read());
            counts.store(field!(Counts, sum), sum.get());
            counts.atomic_add(field!(Counts, packets), 1u64);
        });
        f.ret(XDP_PASS);
    })?)?;
    measure("arithmetic", || whole(&machine, arithmetic))?;
    measure("packet, map, helper", || whole(&machine, packet))?;
    measure("the same, stopping at preemption points", || {
        in_pieces(&machine, packet)
    })?;
    Ok(())
}

fn input() -> Input {
    XdpInput::new(vec![3; 512]).into()
}

fn whole(machine: &Machine, program: ProgramId) -> u64 {
    let mut run = machine.start(program, input());
    run.run().unwrap_or_else(|fault| panic!("{fault}"));
    run.executed()
}

fn in_pieces(machine: &Machine, program: ProgramId) -> u64 {
    let mut run = machine.start(program, input());
    loop {
        match run.run_until_preemption_point() {
            Ok(Progress::At(_)) => {}
            Ok(Progress::Done(_)) => return run.executed(),
            Err(fault) => panic!("{fault}"),
        }
    }
}

fn measure(name: &str, run: impl Fn() -> u64) -> io::Result<()> {
    let began = processor_seconds()?;
    let instructions: u64 = (0..RUNS).map(|_| run()).sum();
    let seconds = processor_seconds()? - began;
    let millions = instructions as f64 / 1e6;
    println!(
        "{name}: {millions:.0} million instructions, {:.1} million/s",
        millions / seconds
    );
    Ok(())
}

/// How long this process has run on processors (Linux's `Documentation/scheduler/sched-stats.rst`).
fn processor_seconds() -> io::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds = text
        .split(' ')
        .next()
        .and_then(|word| word.parse::<u64>().ok());
    let nanoseconds =
        nanoseconds.ok_or_else(|| io::Error::other("/proc/self/schedstat: no number"))?;
    Ok(nanoseconds as f64 / 1e9)
}
