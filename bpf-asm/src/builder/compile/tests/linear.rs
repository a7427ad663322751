//! The compiler's work grows as programs do.

use crate::builder::compile::steps;
use crate::builder::{XDP_DROP, XDP_PASS, xdp};

/// More than registers, so that some are spilled.
const VARIABLES: usize = 14;

/// What was done for so many statements, and how many instructions came of it.
fn work(statements: usize) -> (usize, usize) {
    steps::taken();
    let program = xdp("long", |f| {
        let packet = f.packet();
        let view = packet.view::<[u8; 64]>(0, || f.ret(XDP_DROP));
        let variables: Vec<_> = (0..VARIABLES)
            .map(|number| f.var(view.element(number).read().widen::<u64>()))
            .collect();
        for number in 0..statements {
            let variable = |by: usize| variables[(number * 7 + by) % VARIABLES];
            let value = variable(1).get() * 3u64 + variable(2).get();
            f.if_(value.gt(variable(3).get()), || {
                variable(4).set(value ^ variable(5).get());
            });
            if number % 5 == 0 {
                variable(6).set(f.random_u32().widen::<u64>());
            }
            variable(0).set(value + variable(8).get());
        }
        for (number, variable) in variables.iter().enumerate() {
            view.element(number).write(variable.get().truncate::<u8>());
        }
        f.ret(XDP_PASS);
    });
    (steps::taken(), program.unwrap().main.insns.len())
}

#[test]
fn four_times_the_statements_take_four_times_the_work() {
    let (few, few_instructions) = work(200);
    let (many, many_instructions) = work(800);
    assert!(
        many_instructions < few_instructions * 9 / 2,
        "{few_instructions} and {many_instructions} instructions"
    );
    assert!(many < few * 5, "{few} and {many} steps");
    // And few for each: what the whole back end does for one instruction.
    assert!(
        many < many_instructions * 200,
        "{many} steps for {many_instructions} instructions"
    );
}
