//! Subprograms: BPF-to-BPF calls with 64-bit scalar arguments and one result.

use std::rc::Rc;

use super::compile;
use super::error::BuildErrorKind;
use super::function::{Function, Kind};
use super::ir::{Arg, Body, Callee, Op, Operand, Terminator, is_name};
use super::value::{IntoVal, Val};

/// A subprogram of the program in which it was written, with `N` arguments.
#[derive(Clone, Copy, Debug)]
pub struct Subprogram<const N: usize> {
    number: usize,
}

impl<'f, K: Kind> Function<'f, K> {
    /// Writes a subprogram of this program. It has no context: pass what it needs as arguments, at most five.
    #[track_caller]
    pub fn subprogram<const N: usize>(
        self,
        name: &str,
        write: impl for<'g> FnOnce(Function<'g, K>, [Val<'g, u64>; N]),
    ) -> Subprogram<N> {
        const { assert!(N <= 5, "a subprogram has at most five arguments") };
        if !is_name(name) {
            self.body.fail(BuildErrorKind::Name {
                name: name.to_owned(),
            });
        }
        let session = Rc::clone(&self.body.session);
        let taken = session
            .borrow()
            .subprograms
            .iter()
            .any(|other| other.name == name);
        if taken {
            self.body.fail(BuildErrorKind::NameConflict {
                name: name.to_owned(),
            });
        }
        let body = Body::new(Rc::clone(&session), false, N);
        let arguments =
            std::array::from_fn(|number| Val::new(&body, Operand::Reg(body.arguments[number])));
        write(Function::of(&body), arguments);
        let number = session.borrow().subprograms.len();
        if session.borrow().error.is_none() {
            match compile::compile(&body, name) {
                Ok((function, stack)) => {
                    let mut session = session.borrow_mut();
                    session.subprograms.push(function);
                    session.subprogram_stack.push(stack);
                }
                Err(error) => {
                    session.borrow_mut().error.get_or_insert(error);
                }
            }
        }
        Subprogram { number }
    }

    /// Calls a subprogram of this program; its result.
    #[track_caller]
    pub fn call<const N: usize>(
        self,
        subprogram: Subprogram<N>,
        arguments: [Val<'f, u64>; N],
    ) -> Val<'f, u64> {
        let body = self.body;
        let stack = body
            .session
            .borrow()
            .subprogram_stack
            .get(subprogram.number)
            .copied();
        // Without an entry the subprogram couldn't be built, and that error is kept already.
        body.callee_stack
            .set(body.callee_stack.get().max(stack.unwrap_or(0)));
        let dst = body.fresh(false, u64::MAX);
        let args = arguments
            .map(|argument| Arg::Value(argument.operand(body)))
            .to_vec();
        body.emit(Op::Call {
            callee: Callee::Subprogram(subprogram.number),
            args,
            dst: Some(dst),
        });
        Val::new(body, Operand::Reg(dst))
    }

    /// Ends a subprogram with its result.
    #[track_caller]
    pub fn return_value(self, value: impl IntoVal<'f, u64>) {
        let value = value.operand(self.body);
        if self.body.is_main {
            self.body.fail(BuildErrorKind::WrongReturn);
        }
        self.body.end(Terminator::Return(value));
    }
}
