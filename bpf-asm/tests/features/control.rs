//! Matches and loops.

use bpf_asm::builder::{Be, Function, XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, Xdp, xdp, xdp_for};
use bpf_asm::program::Program;
use bpf_asm::target::{Feature, Target};
use zerocopy::byteorder::big_endian::U16;

use crate::kernel::{Running, is_root, probed};

fn first_byte(write: impl FnOnce(Function<'_, Xdp>, bpf_asm::builder::Val<'_, u8>)) -> Program {
    let program = xdp("first_byte", |f| {
        let packet = f.packet();
        let view = packet.view::<[u8; 14]>(0, || f.ret(XDP_ABORTED));
        write(f, view.element(0).read());
    });
    program.unwrap()
}

fn answers(program: Program, bytes: &[u8]) -> Vec<u32> {
    let mut running = Running::new(program);
    let answer = |byte: &u8| {
        let mut packet = [0; 64];
        packet[0] = *byte;
        running.run(&packet).0
    };
    bytes.iter().map(answer).collect()
}

#[test]
fn a_match_does_what_belongs_to_the_first_case_that_fits() {
    if !is_root() {
        return;
    }
    let program = first_byte(|f, byte| {
        let answer = f.var(0u32);
        f.match_(byte)
            .case(7, || answer.set(70u32))
            .any_of([1, 2, 3], || answer.set(10u32))
            .case(0, || f.ret(XDP_TX))
            .otherwise(|| answer.set(99u32));
        f.ret(answer.get() + 1u32);
    });
    assert_eq!(
        answers(program, &[7, 1, 2, 3, 0, 4, 255]),
        [71, 11, 11, 11, XDP_TX, 100, 100]
    );
}

#[test]
fn a_match_in_network_order_needs_no_swap() {
    let program = xdp("ethertype", |f| {
        let packet = f.packet();
        let ethertype = packet
            .view::<[U16; 7]>(0, || f.ret(XDP_DROP))
            .element(6)
            .read();
        f.match_(ethertype)
            .case(Be::new(0x0800), || f.ret(XDP_TX))
            .otherwise(|| f.ret(XDP_PASS));
    })
    .unwrap();
    let listing = bpf_asm::disasm::listing(&program.main).to_string();
    assert!(!listing.contains("be16"), "{listing}");
    if is_root() {
        let mut running = Running::new(program);
        let mut packet = [0; 64];
        packet[12..14].copy_from_slice(&[8, 0]);
        assert_eq!(running.run(&packet).0, XDP_TX);
        assert_eq!(running.verdict(), XDP_PASS);
    }
}

#[test]
fn unrolled_code_has_no_loop_and_can_be_left() {
    if !is_root() {
        return;
    }
    let program = first_byte(|f, byte| {
        let sum = f.var(0u32);
        f.unroll(5, |number, round| {
            f.if_(byte.eq(number as u8), || round.break_());
            f.if_(f.value(number).eq(1u64), || round.continue_());
            sum.set(sum.get() + 10u32);
        });
        f.ret(sum.get());
    });
    assert!(!goes_back(&program));
    assert_eq!(answers(program, &[0, 1, 2, 4, 9]), [0, 10, 10, 30, 40]);
}

/// Whether a jump leads backwards.
fn goes_back(program: &Program) -> bool {
    use bpf_asm::insn::Insn;
    program.main.insns.iter().any(
        |insn| matches!(insn, Insn::Jump { offset, .. } | Insn::Goto { offset } if *offset < 0),
    )
}

#[test]
fn a_counted_loop_ends_where_a_run_time_bound_says() {
    if !is_root() {
        return;
    }
    let program = first_byte(|f, byte| {
        let sum = f.var(0u64);
        let bound = byte.cast::<u64>();
        f.loop_up_to(100, |number, round| {
            f.if_(number.ge(bound), || round.break_());
            f.if_((number & 1u64).eq(1u64), || round.continue_());
            sum.set(sum.get() + number);
        });
        f.ret(sum.get().cast::<u32>());
    });
    assert_eq!(answers(program, &[0, 1, 5, 200]), [0, 0, 6, 2450]);
}

#[test]
fn a_loop_by_callback_runs_a_million_rounds_with_state_on_the_stack() {
    #[repr(C)]
    struct State {
        sum: u64,
        stop_at: u64,
    }
    if !is_root() {
        return;
    }
    let program = first_byte(|f, byte| {
        let state = f.stack::<State>();
        state.store(bpf_asm::field!(State, sum), 0u64);
        state.store(bpf_asm::field!(State, stop_at), byte.cast::<u64>());
        let rounds = f.loop_callback("add", 1_000_000u32, state, |g, index, state| {
            let stop_at = state.load(bpf_asm::field!(State, stop_at));
            g.if_(stop_at.ne(0u64) & index.cast::<u64>().eq(stop_at), || {
                g.return_value(1u64);
            });
            let sum = state.load(bpf_asm::field!(State, sum));
            state.store(bpf_asm::field!(State, sum), sum + index.cast::<u64>());
        });
        let sum = state.load(bpf_asm::field!(State, sum));
        f.ret((sum + rounds.cast::<u64>()).cast::<u32>());
    });
    let all = (999_999u64 * 1_000_000 / 2 + 1_000_000) as u32;
    // The round that stops counts.
    assert_eq!(answers(program, &[0, 4]), [all, 6 + 5]);
}

#[test]
fn a_loop_by_budget_ends_by_itself_where_the_kernel_has_it() {
    if !is_root() {
        return;
    }
    let target = probed();
    let write = |f: Function<'_, Xdp>| {
        let packet = f.packet();
        let byte = packet
            .view::<[u8; 14]>(0, || f.ret(XDP_ABORTED))
            .element(0)
            .read();
        let count = f.var(0u64);
        f.loop_budget(|round| {
            f.if_(count.get().ge(byte.cast::<u64>()), || round.break_());
            count.set(count.get() + 1u64);
        });
        f.ret(count.get().cast::<u32>());
    };
    if target.has(Feature::MayGoto) {
        let program = xdp_for(&target, "budget", write).unwrap();
        assert_eq!(answers(program, &[0, 3, 200]), [0, 3, 200]);
    }
    let error = xdp_for(&Target::common(), "budget", write).unwrap_err();
    assert!(
        error.to_string().contains("the target has no may_goto"),
        "{error}"
    );
    let mut lines = include_str!("control.rs").lines();
    let line = lines.nth(error.line.line as usize - 1).unwrap();
    assert!(line.contains("f.loop_budget("), "{line}");
}
