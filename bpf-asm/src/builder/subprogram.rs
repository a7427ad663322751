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

/// Writes and compiles a subprogram; its number in the session.
#[track_caller]
pub(super) fn new_subprogram(
    caller: &Body,
    name: &str,
    arguments: usize,
    write: impl for<'g> FnOnce(&'g Body),
) -> usize {
    if !is_name(name) {
        caller.fail(BuildErrorKind::Name {
            name: name.to_owned(),
        });
    }
    let session = Rc::clone(&caller.session);
    let is_taken = session
        .borrow()
        .subprograms
        .iter()
        .any(|other| other.name == name);
    if is_taken {
        caller.fail(BuildErrorKind::NameConflict {
            name: name.to_owned(),
        });
    }
    let body = Body::new(Rc::clone(&session), false, arguments);
    write(&body);
    if session.borrow().error.is_none() {
        match compile::compile(&body, name) {
            Ok((function, stack)) => {
                let mut session = session.borrow_mut();
                session.subprograms.push(function);
                session.subprogram_stack.push(stack);
                return session.subprograms.len() - 1;
            }
            Err(error) => {
                session.borrow_mut().error.get_or_insert(error);
            }
        }
    }
    // Nothing is made of a program with an error, so that no one asks for this one.
    session.borrow().subprograms.len()
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
        let number = new_subprogram(self.body, name, N, |body| {
            let argument = |number: usize| Val::new(body, Operand::Reg(body.arguments[number]));
            write(Function::of(body), std::array::from_fn(argument));
        });
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
        compile::account(body, subprogram.number);
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
