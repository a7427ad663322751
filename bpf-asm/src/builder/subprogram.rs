//! Subprograms: BPF-to-BPF calls with typed arguments and one result.
//!
//! The kernel's verifier follows each call of them with what it knows of the arguments, so that numbers keep their bounds
//! and pointers may lead wherever the caller's do: to the stack, a map's value, a ring buffer record, the context.

use std::any::{TypeId, type_name};
use std::marker::PhantomData;
use std::rc::Rc;

use super::compile;
use super::error::BuildErrorKind;
use super::function::{Function, Kind};
use super::ir::{Arg, Base, Body, Callee, Op, Operand, Reg, Terminator, is_name};
use super::memory::Ptr;
use super::scalar::{Scalar, Sealed};
use super::value::{IntoVal, Val, mask};

/// A subprogram of the program in which it was written, with arguments `A` and a result `R`.
pub struct Subprogram<A, R> {
    number: usize,
    /// The program that it belongs to.
    session: u64,
    types: PhantomData<fn(A) -> R>,
}

impl<A, R> Clone for Subprogram<A, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, R> Copy for Subprogram<A, R> {}

/// The type of one argument: a number ([`Scalar`]), a pointer to memory ([`Memory`]), or the [`Context`].
pub trait Argument: Sealed + 'static {
    /// What the caller gives and the subprogram gets.
    type In<'f>;
    #[doc(hidden)]
    fn received(body: &Body, register: Reg) -> Self::In<'_>;
    #[doc(hidden)]
    fn passed<'f>(given: Self::In<'f>, body: &'f Body) -> Arg;
}

impl<T: Scalar> Argument for T {
    type In<'f> = Val<'f, T>;

    fn received(body: &Body, register: Reg) -> Val<'_, T> {
        body.state.borrow_mut().regs[register as usize].max = mask::<T>();
        Val::new(body, Operand::Reg(register))
    }

    #[track_caller]
    fn passed<'f>(given: Val<'f, T>, body: &'f Body) -> Arg {
        Arg::Value(given.operand(body))
    }
}

/// An argument that points to an `S` on the stack, in a map's value or in a ring buffer record: a [`Ptr`].
#[derive(Debug)]
pub struct Memory<S>(PhantomData<fn() -> S>);

impl<S> Sealed for Memory<S> {}
impl<S: 'static> Argument for Memory<S> {
    type In<'f> = Ptr<'f, S>;

    fn received(body: &Body, register: Reg) -> Ptr<'_, S> {
        body.state.borrow_mut().regs[register as usize].pointer = true;
        Ptr::new(body, Base::Reg(register), 0)
    }

    #[track_caller]
    fn passed<'f>(given: Ptr<'f, S>, body: &'f Body) -> Arg {
        if !std::ptr::eq(given.body, body) {
            body.fail(BuildErrorKind::ForeignValue);
        }
        Arg::Address(given.base, given.offset)
    }
}

/// The argument by which a subprogram gets the context, and with it the packet and the helpers that need it.
#[derive(Clone, Copy, Debug)]
pub struct Context;

impl Sealed for Context {}
impl Argument for Context {
    type In<'f> = Context;

    fn received(body: &Body, register: Reg) -> Context {
        body.state.borrow_mut().regs[register as usize].pointer = true;
        body.context.set(Some(register));
        Context
    }

    #[track_caller]
    fn passed(_given: Context, body: &Body) -> Arg {
        Arg::Value(Operand::Reg(body.context()))
    }
}

/// The types of a subprogram's arguments: a tuple of up to five, or an array.
pub trait Arguments: Sealed + 'static {
    /// What the caller gives and the subprogram gets.
    type In<'f>;
    #[doc(hidden)]
    const COUNT: usize;
    #[doc(hidden)]
    fn received(body: &Body) -> Self::In<'_>;
    #[doc(hidden)]
    fn passed<'f>(given: Self::In<'f>, body: &'f Body) -> Vec<Arg>;
}

macro_rules! tuples {
    ($(($($type:ident $place:tt),*))*) => {$(
        impl<$($type: Argument),*> Sealed for ($($type,)*) {}
        impl<$($type: Argument),*> Arguments for ($($type,)*) {
            type In<'f> = ($($type::In<'f>,)*);
            const COUNT: usize = [$($place),*].len();

            fn received(body: &Body) -> Self::In<'_> {
                ($($type::received(body, body.arguments[$place]),)*)
            }

            #[track_caller]
            fn passed<'f>(given: Self::In<'f>, body: &'f Body) -> Vec<Arg> {
                vec![$($type::passed(given.$place, body)),*]
            }
        }
    )*};
}
tuples! { (A 0) (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3) (A 0, B 1, C 2, D 3, E 4) }

impl Sealed for () {}
impl Arguments for () {
    type In<'f> = ();
    const COUNT: usize = 0;

    fn received(_body: &Body) -> Self::In<'_> {}

    fn passed(_given: (), _body: &Body) -> Vec<Arg> {
        Vec::new()
    }
}

impl<T: Argument, const N: usize> Sealed for [T; N] {}
impl<T: Argument, const N: usize> Arguments for [T; N] {
    type In<'f> = [T::In<'f>; N];
    const COUNT: usize = N;

    fn received(body: &Body) -> Self::In<'_> {
        std::array::from_fn(|place| T::received(body, body.arguments[place]))
    }

    #[track_caller]
    fn passed<'f>(given: Self::In<'f>, body: &'f Body) -> Vec<Arg> {
        let mut passed = Vec::with_capacity(N);
        for given in given {
            passed.push(T::passed(given, body));
        }
        passed
    }
}

/// The type that `return_value` has to be given in a function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Returned {
    id: TypeId,
    name: &'static str,
}

impl Returned {
    pub(super) fn of<R: Scalar>() -> Returned {
        Returned {
            id: TypeId::of::<R>(),
            name: type_name::<R>(),
        }
    }
}

/// Writes and compiles a subprogram; its number in the session.
#[track_caller]
pub(super) fn new_subprogram(
    caller: &Body,
    name: &str,
    arguments: usize,
    returned: Returned,
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
    let body = Body::new(Rc::clone(&session), Some(returned), arguments);
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
    /// Writes a subprogram of this program, with arguments `A` and a result `R`. It has no context unless that is an argument.
    ///
    /// ```
    /// use bpf_asm::builder::{Context, Memory, XDP_DROP, XDP_PASS, xdp};
    /// use bpf_asm::field;
    ///
    /// struct Counts { long: u64 }
    ///
    /// xdp("lengths", |f| {
    ///     let is_long = f.subprogram::<(Context, u16, Memory<Counts>), u8>("is_long", |g, (_, limit, counts)| {
    ///         let packet = g.packet();
    ///         packet.view::<[u8; 100]>(0, || g.return_value(0u8));
    ///         counts.store(field!(Counts, long), counts.load(field!(Counts, long)) + limit.cast::<u64>());
    ///         g.return_value(1u8);
    ///     });
    ///     let counts = f.stack::<Counts>();
    ///     counts.store(field!(Counts, long), 0u64);
    ///     let long = f.call(is_long, (Context, f.value(1500u16), counts));
    ///     f.if_(long.eq(1u8), || f.ret(XDP_DROP));
    ///     f.ret(XDP_PASS);
    /// })?;
    /// # Ok::<(), bpf_asm::builder::BuildError>(())
    /// ```
    #[track_caller]
    pub fn subprogram<A: Arguments, R: Scalar>(
        self,
        name: &str,
        write: impl for<'g> FnOnce(Function<'g, K>, A::In<'g>),
    ) -> Subprogram<A, R> {
        const { assert!(A::COUNT <= 5, "a subprogram has at most five arguments") };
        let returned = Returned::of::<R>();
        let number = new_subprogram(self.body, name, A::COUNT, returned, |body| {
            write(Function::of(body), A::received(body));
        });
        Subprogram {
            number,
            session: self.body.session.borrow().id,
            types: PhantomData,
        }
    }

    /// Calls a subprogram of this program; its result.
    #[track_caller]
    pub fn call<A: Arguments, R: Scalar>(
        self,
        subprogram: Subprogram<A, R>,
        arguments: A::In<'f>,
    ) -> Val<'f, R> {
        let body = self.body;
        if subprogram.session != body.session.borrow().id {
            body.fail(BuildErrorKind::Misuse(
                "this subprogram belongs to another program: write it in this one",
            ));
            return Val::new(body, Operand::Const(0));
        }
        compile::account(body, subprogram.number);
        let args = A::passed(arguments, body);
        let dst = body.fresh(false, mask::<R>());
        body.emit(Op::Call {
            callee: Callee::Subprogram(subprogram.number),
            args,
            dst: Some(dst),
        });
        Val::new(body, Operand::Reg(dst))
    }

    /// Ends a subprogram with its result, which has to be of the type that the subprogram was declared with.
    #[track_caller]
    pub fn return_value<R: Scalar>(self, value: impl IntoVal<'f, R>) {
        let value = value.operand(self.body);
        match self.body.returned {
            None => self.body.fail(BuildErrorKind::WrongReturn),
            Some(returned) if returned.id != TypeId::of::<R>() => {
                self.body.fail(BuildErrorKind::ReturnType {
                    declared: returned.name,
                    given: type_name::<R>(),
                });
            }
            Some(_) => {}
        }
        self.body.end(Terminator::Return(value));
    }
}
