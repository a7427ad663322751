//! Logs as kernels wrote them.

use super::*;
use crate::code;
use crate::object::link;
use crate::program::{Program, ProgramKind};
use crate::text::assemble_code;

fn linked(text: &str) -> Linked {
    let mut functions = code::functions("main", "main.s", &assemble_code("main.s", text).unwrap())
        .unwrap()
        .into_iter();
    let program = Program {
        kind: ProgramKind::Xdp,
        main: functions.next().unwrap(),
        subprograms: functions.collect(),
        maps: Vec::new(),
    };
    link(&program).unwrap()
}

/// Linux 6.18, with lines; the caller of `bpf-asm run` around three instructions.
const PACKET_6_18: &str = "\
0: R1=ctx() R10=fp0
; src/main.rs:1 @ main.rs:1
0: (bf) r6 = r1                       ; R1=ctx() R6=ctx()
1: (61) r2 = *(u32 *)(r6 +0)          ; R2=pkt(r=0) R6=ctx()
2: (61) r3 = *(u32 *)(r6 +4)          ; R3=pkt_end() R6=ctx()
3: (bf) r1 = r2                       ; R1=pkt(r=0) R2=pkt(r=0)
4: (07) r2 += 8                       ; R2=pkt(off=8,r=0)
5: (2d) if r2 > r3 goto pc+9          ; R2=pkt(off=8,r=8) R3=pkt_end()
6: (b7) r2 = 8                        ; R2=8
7: (85) call pc+9
R1 is not a scalar
caller:
 R6=ctx() R10=fp0
callee:
 frame1: R1=pkt(r=8) R2=8 R3=pkt_end() R10=fp0
17: frame1: R1=pkt(r=8) R2=8 R3=pkt_end() R10=fp0
; main.s:1 @ main.s:1
17: (b7) r2 = 3                       ; frame1: R2=3
18: (61) r0 = *(u32 *)(r1 +6)
invalid access to packet, off=6 size=4, R1(id=0,off=6,r=8)
R1 offset is outside of the packet
verification time 39 usec
stack depth 0+0
processed 10 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0
";

#[test]
fn a_log_of_two_frames_comes_to_complaint_place_and_registers() {
    let around = "r0 = 0\n".repeat(7)
        + "call f\n"
        + &"r0 = 0\n".repeat(8)
        + "exit\nf: r2 = 3\nr0 = *(u32 *)(r1 +6)\nexit";
    let told = explain(PACKET_6_18, &linked(&around), &[]);
    assert_eq!(
        told.complaint,
        [
            "invalid access to packet, off=6 size=4, R1(id=0,off=6,r=8)",
            "R1 offset is outside of the packet"
        ]
    );
    assert!(told.advice.unwrap().contains("data_end"));
    assert_eq!(told.steps.len(), 10);
    let last = told.steps.last().unwrap();
    assert_eq!(
        (last.slot, last.insn.as_str()),
        (18, "r0 = *(u32 *)(r1 +6)")
    );
    assert_eq!(last.line.unwrap().line, 19);
    assert_eq!(
        told.state,
        ["R1=pkt(r=8)", "R2=3", "R3=pkt_end()", "R10=fp0"]
    );
}

/// Linux 6.1: no lines, and states that say what was written.
const LOOP_6_1: &str = "\
0: R1=ctx(off=0,imm=0) R10=fp0
0: (b7) r0 = 0                        ; R0_w=0
1: (b7) r2 = 8                        ; R2_w=8
2: (07) r0 += 1                       ; R0_w=1
3: (ad) if r0 < r2 goto pc-2          ; R0_w=1 R2_w=8
2: (07) r0 += 1                       ; R0_w=2
3: (ad) if r0 < r2 goto pc-2          ; R0_w=2 R2_w=8
last_idx 3 first_idx 0
regs=4 stack=0 before 2: (07) r0 += 1
4: (7b) *(u64 *)(r10 -8) = r2         ; R2=8 R10=fp0 fp-8_w=8
5: (bf) r0 = r9
R9 !read_ok
processed 9 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
";

const LOOP: &str =
    "r0 = 0\nr2 = 8\nr0 += 1\nif r0 < r2 goto pc-2\n*(u64 *)(r10 -8) = r2\nr0 = r9\nexit";

#[test]
fn lines_are_found_on_kernels_that_print_none() {
    let told = explain(LOOP_6_1, &linked(LOOP), &[("main.s", LOOP)]);
    assert_eq!(
        told.to_string(),
        "\
the verifier says: R9 !read_ok
at main.s:6:1
that is: this register holds nothing here. Write it first, on every path; calls clobber r1 to r5, and r0 has to be set before exit
what led there:
  main.s:1  r0 = 0
       0: r0 = 0
  main.s:2  r2 = 8
       1: r2 = 8
  main.s:3  r0 += 1
       2: r0 += 1
  main.s:4  if r0 < r2 goto pc-2
       3: if r0 < r2 goto pc-2
  main.s:3  r0 += 1
       2: r0 += 1
  main.s:4  if r0 < r2 goto pc-2
       3: if r0 < r2 goto pc-2
  main.s:5  *(u64 *)(r10 -8) = r2
       4: *(u64 *)(r10 -8) = r2
  main.s:6  r0 = r9
       5: r0 = r9
with R0=2 R1=ctx(off=0,imm=0) R2=8 R10=fp0 fp-8=8
"
    );
}

#[test]
fn a_long_log_is_shortened_to_its_end() {
    let mut log = String::from("0: R1=ctx() R10=fp0\n");
    for round in 0..100_000 {
        log.push_str(&format!(
            "2: (07) r0 += 1 ; R0=scalar(umin=1, umax={round})\n"
        ));
    }
    log.push_str("from 3 to 5: R0=7 R10=fp0\n5: (bf) r0 = r9\nR9 !read_ok\n");
    let told = explain(&log, &linked(LOOP), &[]);
    assert_eq!(
        (told.steps.len(), told.omitted),
        (MAX_STEPS, 100_001 - MAX_STEPS)
    );
    assert_eq!(told.state, ["R0=7", "R10=fp0"]);
    assert!(told.to_string().lines().count() < 30);
}

#[test]
fn a_complaint_without_a_walk_is_told_alone() {
    let told = explain("unreachable insn 3\nprocessed 0 insns", &linked(LOOP), &[]);
    assert_eq!(told.complaint, ["unreachable insn 3"]);
    assert!(told.steps.is_empty() && told.advice.is_some());
    let silent = explain("", &linked(LOOP), &[]);
    assert_eq!(silent.to_string(), "the verifier gave no reason\n");
}

#[test]
fn numbers_that_no_instruction_has_do_no_harm() {
    let log = "999: (bf) r0 = r9\n99999999999999999999999: (bf) r0 = r9\n: (\n(: )\n5:\n5: (\n5: (bf)\nfrom : \nR=\n";
    let told = explain(log, &linked(LOOP), &[]);
    assert_eq!(told.steps[0].line, None);
}
