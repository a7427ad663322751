//! Stepping, preemption points, and runs that interleave.

use bpf_asm::asm::Assembler;
use bpf_asm::insn::Reg;
use bpf_asm::interpreter::{Access, Machine, ProgramId, Progress, Run, Value, XdpInput};
use bpf_asm::program::ProgramKind;

use crate::support::{array, program};

/// A machine, and a program that adds 1 to the array's second word: by an atomic or by a load and a store.
fn counting(atomic: bool) -> (Machine, ProgramId) {
    let machine = Machine::with_cpus(2);
    let program = program(ProgramKind::Xdp, &[array()], |a: &mut Assembler| {
        let found = a.label();
        a.st_w(Reg::R10, -4, 0).load_map(Reg::R1, "array");
        a.mov64(Reg::R2, Reg::R10).add64_imm(Reg::R2, -4).call(1);
        a.jne64_imm(Reg::R0, 0, found).exit();
        a.bind(found);
        if atomic {
            a.mov64_imm(Reg::R1, 1).atomic_add64(Reg::R0, 8, Reg::R1);
        } else {
            a.ldx_dw(Reg::R1, Reg::R0, 8).add64_imm(Reg::R1, 1);
            a.stx_dw(Reg::R0, 8, Reg::R1);
        }
        a.mov64_imm(Reg::R0, 2).exit();
    });
    let id = machine.load(&program).unwrap();
    (machine, id)
}

fn start(machine: &Machine, cpu: u32, id: ProgramId) -> Run {
    machine.start_on(cpu, id, XdpInput::new([0; 64]))
}

#[test]
fn preemption_points_are_the_accesses_that_others_see() {
    let (machine, id) = counting(false);
    let mut run = start(&machine, 0, id);
    let Ok(Progress::At(load)) = run.run_until_preemption_point() else {
        panic!("no point");
    };
    assert!(matches!(load.access, Access::Load(at) if at.offset == 8));
    // User space comes in between.
    let map = machine.map("array").unwrap();
    map.store_u64(8, 40).unwrap();
    let Ok(Progress::At(store)) = run.run_until_preemption_point() else {
        panic!("no point");
    };
    assert!(matches!(store.access, Access::Store(_)));
    assert_eq!(run.register(Reg::R1), Value::Scalar(41));
    map.store_u64(8, 7).unwrap();
    assert_eq!(run.run_until_preemption_point(), Ok(Progress::Done(2)));
    assert_eq!(run.run_until_preemption_point(), Ok(Progress::Done(2)));
    assert_eq!(map.load_u64(8), Ok(41), "user space's 7 is lost");
}

/// Every interleaving of two runs: the plain addition loses one in some, the atomic one in none.
#[test]
fn all_interleavings_of_two_cpus_are_reached() {
    for (atomic, expected) in [(false, vec![1, 2]), (true, vec![2])] {
        let mut seen = Vec::new();
        for schedule in 0..1u32 << 6 {
            let (machine, id) = counting(atomic);
            let mut runs = [start(&machine, 0, id), start(&machine, 1, id)];
            for turn in 0..6 {
                let run = &mut runs[(schedule >> turn & 1) as usize];
                run.run_until_preemption_point().unwrap();
            }
            for run in &mut runs {
                assert_eq!(run.run(), Ok(2));
            }
            seen.push(machine.map("array").unwrap().load_u64(8).unwrap());
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, expected);
    }
}

#[test]
fn maps_can_be_left_out_of_preemption() {
    let (machine, id) = counting(false);
    machine.map("array").unwrap().set_preemption_points(false);
    let mut run = start(&machine, 0, id);
    assert_eq!(run.run_until_preemption_point(), Ok(Progress::Done(2)));
}

#[test]
fn a_step_says_what_it_did() {
    let (machine, id) = counting(true);
    let mut run = start(&machine, 0, id).traced();
    let first = run.step().unwrap();
    assert!(matches!(first.access, Some(Access::Store(at)) if at.offset == -4));
    assert_eq!((first.slot, first.wrote), (0, None));
    assert_eq!(run.run(), Ok(2));
    let trace = run.trace();
    assert_eq!(trace.len() as u64, run.executed());
    let call = &trace[4];
    assert_eq!(call.access, Some(Access::Helper(1)));
    assert!(
        call.to_string().contains("call bpf_map_lookup_elem"),
        "{call}"
    );
    assert!(call.to_string().contains(file!()), "{call}");
    let last = trace.last().unwrap();
    assert_eq!((last.ended, last.depth), (Some(2), 0));
}

#[test]
fn a_spin_lock_makes_the_other_cpu_wait() {
    let machine = Machine::with_cpus(2);
    let program = program(ProgramKind::Xdp, &[array()], |a: &mut Assembler| {
        let found = a.label();
        a.st_w(Reg::R10, -4, 0).load_map(Reg::R1, "array");
        a.mov64(Reg::R2, Reg::R10).add64_imm(Reg::R2, -4).call(1);
        a.jne64_imm(Reg::R0, 0, found).exit();
        a.bind(found)
            .mov64(Reg::R6, Reg::R0)
            .mov64(Reg::R1, Reg::R6)
            .call(93);
        a.ldx_dw(Reg::R1, Reg::R6, 8).add64_imm(Reg::R1, 1);
        a.stx_dw(Reg::R6, 8, Reg::R1)
            .mov64(Reg::R1, Reg::R6)
            .call(94);
        a.mov64_imm(Reg::R0, 2).exit();
    });
    let id = machine.load(&program).unwrap();
    let mut holder = start(&machine, 0, id);
    let map = machine.map("array").unwrap();
    while map.load_u64(0) == Ok(0) {
        holder.step().unwrap();
    }
    let mut waiter = start(&machine, 1, id);
    let mut waited = 0;
    for _ in 0..20 {
        waited += u32::from(waiter.step().unwrap().blocked);
    }
    assert!(waited > 5);
    assert_eq!(map.load_u64(8), Ok(0));
    assert_eq!(holder.run(), Ok(2));
    assert_eq!(waiter.run(), Ok(2));
    assert_eq!(map.load_u64(8), Ok(2));
}
