//! Loops, each with a bound that the kernel can see.
//!
//! | loop | iterations | what the verifier does | since |
//! | --- | --- | --- | --- |
//! | [`unroll`](Function::unroll) | a constant, few | nothing: there is no loop | - |
//! | [`loop_up_to`](Function::loop_up_to) | a constant | follows each iteration | 5.3 |
//! | [`loop_callback`](Function::loop_callback) | up to 2^23 | follows the body once | 5.17 |
//! | [`loop_budget`](Function::loop_budget) | until the kernel says stop | follows until nothing new is learnt | 6.9 |

use super::compile;
use super::error::BuildErrorKind;
use super::function::{Function, Kind};
use super::ir::{Arg, Body, Operand, Terminator};
use super::memory::Ptr;
use super::subprogram::{Returned, new_subprogram};
use super::value::{IntoVal, Val};
use crate::helper;
use crate::target::Feature;

/// What [`Function::loop_up_to`] takes at most.
const MOST_ITERATIONS: u64 = 1 << 20;
/// What [`Function::unroll`] takes at most: more text than that belongs into a loop.
const MOST_UNROLLED: u64 = 1 << 12;
/// What the kernel lets `bpf_loop` do (BPF_MAX_LOOPS).
const MOST_CALLBACKS: u64 = 8 << 20;

/// A loop that is being written.
#[derive(Clone, Copy)]
pub struct Loop<'f> {
    body: &'f Body,
    next: usize,
    exit: usize,
}

impl Loop<'_> {
    /// Leaves the loop.
    #[track_caller]
    pub fn break_(self) {
        self.body.jump(self.exit);
    }

    /// Goes on with the next iteration.
    #[track_caller]
    pub fn continue_(self) {
        self.body.jump(self.next);
    }
}

impl<'f, K: Kind> Function<'f, K> {
    /// At most `iterations` times, with the number of the iteration from 0. The verifier follows every iteration, so their
    /// number times what is in them has to stay below a million instructions.
    #[track_caller]
    pub fn loop_up_to(self, iterations: u64, write: impl FnOnce(Val<'f, u64>, Loop<'f>)) {
        let body = self.body;
        if iterations == 0 || iterations > MOST_ITERATIONS {
            body.fail(BuildErrorKind::LoopBound {
                iterations,
                max: MOST_ITERATIONS,
            });
            return;
        }
        let counter = self.var(0u64);
        let exit = body.block();
        let (start, next) = body.in_loop(|| (body.block(), body.block()));
        body.jump(start);
        body.begin(start);
        body.in_loop(|| body.scoped(|| write(counter.get(), Loop { body, next, exit })));
        body.jump(next);
        body.begin(next);
        body.in_loop(|| counter.set(counter.get() + 1u64));
        body.in_loop(|| counter.get().lt(iterations).branch(start, exit));
        body.begin(exit);
    }

    /// The same code this many times, with the number of each, a constant: no loop in the program.
    #[track_caller]
    pub fn unroll(self, times: u64, write: impl Fn(u64, Loop<'f>)) {
        let body = self.body;
        if times > MOST_UNROLLED {
            body.fail(BuildErrorKind::LoopBound {
                iterations: times,
                max: MOST_UNROLLED,
            });
            return;
        }
        let exit = body.block();
        for number in 0..times {
            let next = body.block();
            // What one round has checked, the next one has too only if it wasn't left early.
            body.scoped(|| write(number, Loop { body, next, exit }));
            body.jump(next);
            body.begin(next);
        }
        body.jump(exit);
        body.begin(exit);
    }

    /// Again and again until `write` leaves the loop, or the kernel's budget for it is used up (about 8 million rounds, or a
    /// quarter of a second): `may_goto`. The target has to have that; ask it by probing.
    #[track_caller]
    pub fn loop_budget(self, write: impl FnOnce(Loop<'f>)) {
        let body = self.body;
        body.demand(Feature::MayGoto);
        // The kernel keeps the budget in the frame.
        body.may_goto.set(true);
        let exit = body.block();
        let (start, go_on) = body.in_loop(|| (body.block(), body.block()));
        body.jump(start);
        body.begin(start);
        body.end(Terminator::MayGoto { out: exit, go_on });
        body.begin(go_on);
        let next = start;
        body.in_loop(|| body.scoped(|| write(Loop { body, next, exit })));
        body.jump(start);
        body.begin(exit);
    }

    /// Calls a subprogram of its own with each number from 0 up to `iterations`, and with `context`, which has to lie on the
    /// stack: `bpf_loop`. The subprogram goes on unless it returns 1 (`return_value(1u64)`). How many calls there were, or a
    /// negative error.
    #[track_caller]
    pub fn loop_callback<C>(
        self,
        name: &str,
        iterations: impl IntoVal<'f, u32>,
        context: Ptr<'f, C>,
        write: impl for<'g> FnOnce(Function<'g, K>, Val<'g, u32>, Ptr<'g, C>),
    ) -> Val<'f, i64> {
        let body = self.body;
        body.demand(Feature::Callback);
        let iterations = iterations.operand(body);
        // Of a callback that is never called, Linux 6.18 drops the code and keeps its address, and then refuses that.
        if let Operand::Const(iterations) = iterations
            && !(1..=MOST_CALLBACKS).contains(&iterations)
        {
            body.fail(BuildErrorKind::LoopBound {
                iterations,
                max: MOST_CALLBACKS,
            });
        }
        if !matches!(context.base, super::ir::Base::Stack(_)) {
            body.fail(BuildErrorKind::Misuse(
                "the context of a callback has to lie on the stack: make it with `stack`",
            ));
        }
        let callback = new_subprogram(body, name, 2, Returned::of::<u64>(), |callback: &Body| {
            let [index, pointer] = [callback.arguments[0], callback.arguments[1]];
            callback.state.borrow_mut().regs[pointer as usize].pointer = true;
            // The kernel passes 32 bits in 64.
            let index = Val::<u64>::new(callback, Operand::Reg(index)).cast::<u32>();
            let context = Ptr::new(callback, super::ir::Base::Reg(pointer), 0);
            write(Function::of(callback), index, context);
            if callback.falls_through() {
                callback.end(Terminator::Return(Operand::Const(0)));
            }
        });
        compile::account(body, callback);
        let arguments = vec![
            Arg::Value(iterations),
            Arg::Function(callback),
            Arg::Address(context.base, context.offset),
            Arg::Value(Operand::Const(0)),
        ];
        Val::new(body, Operand::Reg(body.helper(helper::LOOP, arguments)))
    }
}
