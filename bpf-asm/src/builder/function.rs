//! A function under construction: control flow, variables, and what every kind of program may do.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{BuildError, BuildErrorKind};
use super::ir::{Base, Body, Operand, Session, Terminator};
use super::memory::Ptr;
use super::packet::check;
use super::scalar::{Int, Scalar};
use super::value::{IntoVal, Val, Var};
use super::{Cond, compile};
use crate::program::{Program, ProgramKind};
use crate::target::{LowerErrorKind, Target};

/// The kind of a program, as a type: which context it has and which helpers it may call.
pub trait Kind: Copy + 'static {
    /// The hook.
    const KIND: ProgramKind;
    /// Offset of `data` in the context; `data_end` follows it.
    #[doc(hidden)]
    const DATA: i32;
}

/// XDP programs: the context is `struct xdp_md`.
#[derive(Clone, Copy, Debug)]
pub struct Xdp;

/// TC programs: the context is `struct __sk_buff`.
#[derive(Clone, Copy, Debug)]
pub struct Tc;

impl Kind for Xdp {
    const KIND: ProgramKind = ProgramKind::Xdp;
    const DATA: i32 = 0;
}

impl Kind for Tc {
    const KIND: ProgramKind = ProgramKind::Classifier;
    const DATA: i32 = 76;
}

/// A function that is being written. A handle: it may be copied into closures.
pub struct Function<'f, K> {
    pub(super) body: &'f Body,
    kind: PhantomData<K>,
}

impl<K> Clone for Function<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Function<'_, K> {}

/// Writes an XDP program: `write` is called once and writes the instructions.
///
/// # Errors
/// A rule that only building can check was broken; the error names the Rust line.
pub fn xdp(name: &str, write: impl FnOnce(Function<'_, Xdp>)) -> Result<Program, BuildError> {
    program(&Target::common(), Xdp::KIND, name, write)
}

/// Writes an XDP program for a target, for example one that was probed: it uses what that has, and does without what it
/// hasn't.
///
/// # Errors
/// As [`xdp`]; and something can't be done on the target.
pub fn xdp_for(
    target: &Target,
    name: &str,
    write: impl FnOnce(Function<'_, Xdp>),
) -> Result<Program, BuildError> {
    program(target, Xdp::KIND, name, write)
}

/// Writes an XDP program that accepts packets in fragments (`xdp.frags`): [`Function::packet`] is their first part, the rest
/// is reached by [`Function::load_bytes`].
///
/// # Errors
/// As [`xdp`].
pub fn xdp_frags(name: &str, write: impl FnOnce(Function<'_, Xdp>)) -> Result<Program, BuildError> {
    program(&Target::common(), ProgramKind::XdpFrags, name, write)
}

/// Writes a TC program (`classifier`).
///
/// # Errors
/// A rule that only building can check was broken; the error names the Rust line.
pub fn classifier(name: &str, write: impl FnOnce(Function<'_, Tc>)) -> Result<Program, BuildError> {
    program(&Target::common(), Tc::KIND, name, write)
}

/// Writes a TC program for a target.
///
/// # Errors
/// As [`xdp_for`].
pub fn classifier_for(
    target: &Target,
    name: &str,
    write: impl FnOnce(Function<'_, Tc>),
) -> Result<Program, BuildError> {
    program(target, Tc::KIND, name, write)
}

/// How many programs were begun: tells one's subprograms from another's. It appears in no program.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

fn program<K: Kind>(
    target: &Target,
    kind: ProgramKind,
    name: &str,
    write: impl FnOnce(Function<'_, K>),
) -> Result<Program, BuildError> {
    let session = std::rc::Rc::new(std::cell::RefCell::new(Session {
        id: SESSIONS.fetch_add(1, Ordering::Relaxed),
        target: target.clone(),
        kind: Some(kind),
        ..Session::default()
    }));
    let body = Body::new(std::rc::Rc::clone(&session), None, 1);
    write(Function::of(&body));
    if let Some(error) = session.borrow_mut().error.take() {
        return Err(error);
    }
    let (main, _stack) = compile::compile(&body, name)?;
    if let Some(error) = session.borrow_mut().error.take() {
        return Err(error);
    }
    drop(body);
    let session = std::mem::take(&mut *session.borrow_mut());
    let program = Program {
        kind,
        main,
        subprograms: session.subprograms,
        maps: session.maps,
    };
    target.lower(&program).map_err(|error| BuildError {
        kind: match error.kind {
            LowerErrorKind::Missing { feature } => BuildErrorKind::Target { feature },
            other => BuildErrorKind::Lower(other),
        },
        line: error.line,
    })
}

impl<'f, K: Kind> Function<'f, K> {
    pub(super) fn of(body: &'f Body) -> Function<'f, K> {
        Function {
            body,
            kind: PhantomData,
        }
    }

    #[track_caller]
    pub(super) fn context(self) -> Operand {
        Operand::Reg(self.body.context())
    }

    /// A constant as a value.
    pub fn value<T: Scalar>(self, constant: T) -> Val<'f, T> {
        Val::new(self.body, Operand::Const(constant.register()))
    }

    /// A variable with its first value.
    #[track_caller]
    pub fn var<T: Scalar>(self, init: impl IntoVal<'f, T>) -> Var<'f, T> {
        let init = init.operand(self.body);
        Var::new(self.body, init)
    }

    /// A place on the stack, 8-byte aligned. Write it before it is read.
    #[track_caller]
    pub fn stack<S>(self) -> Ptr<'f, S> {
        let bytes = u32::try_from(size_of::<S>()).unwrap_or(u32::MAX);
        let buffer = self.body.buffer(bytes);
        Ptr::new(self.body, Base::Stack(buffer), 0)
    }

    /// Ends the program with this action (`XDP_*`, `TC_ACT_*`).
    #[track_caller]
    pub fn ret(self, action: impl IntoVal<'f, u32>) {
        let action = action.operand(self.body);
        if self.body.returned.is_some() {
            self.body.fail(BuildErrorKind::WrongReturn);
        }
        self.body.end(Terminator::Return(action));
    }

    /// `then` if the condition holds.
    #[track_caller]
    pub fn if_(self, cond: Cond<'f>, then: impl FnOnce()) {
        let (yes, join) = (self.body.block(), self.body.block());
        cond.branch(yes, join);
        self.body.begin(yes);
        self.body.scoped(then);
        self.body.jump(join);
        self.body.begin(join);
    }

    /// As [`Function::if_`], for what happens rarely: its code is laid out behind everything else.
    #[track_caller]
    pub fn if_rare(self, cond: Cond<'f>, then: impl FnOnce()) {
        let body = self.body;
        let (yes, join) = (body.coldly(|| body.block()), body.block());
        cond.branch(yes, join);
        body.begin(yes);
        body.coldly(|| body.scoped(then));
        body.jump(join);
        body.begin(join);
    }

    /// `then` if the condition holds, `otherwise` if not.
    #[track_caller]
    pub fn if_else(self, cond: Cond<'f>, then: impl FnOnce(), otherwise: impl FnOnce()) {
        let (yes, no, join) = (self.body.block(), self.body.block(), self.body.block());
        cond.branch(yes, no);
        self.body.begin(yes);
        self.body.scoped(then);
        self.body.jump(join);
        self.body.begin(no);
        self.body.scoped(otherwise);
        self.body.jump(join);
        self.body.begin(join);
    }

    /// The value of `then` if the condition holds, of `otherwise` if not.
    #[track_caller]
    pub fn choose<T: Scalar>(
        self,
        cond: Cond<'f>,
        then: impl IntoVal<'f, T>,
        otherwise: impl IntoVal<'f, T>,
    ) -> Val<'f, T> {
        let result = self.var(otherwise);
        self.if_(cond, || result.set(then));
        result.get()
    }

    /// A check whose failure ends the program or leaves the loop.
    #[track_caller]
    pub fn require(self, cond: Cond<'f>, or_else: impl FnOnce()) {
        let body = self.body;
        check(body, |passed, failed| cond.branch(passed, failed), or_else);
    }

    /// The number of bits that are set.
    #[track_caller]
    pub fn count_ones<T: Int>(self, value: Val<'f, T>) -> Val<'f, u64> {
        let v = value.cast::<u64>();
        let v = v - ((v >> 1u64) & 0x5555_5555_5555_5555u64);
        let v = (v & 0x3333_3333_3333_3333u64) + ((v >> 2u64) & 0x3333_3333_3333_3333u64);
        let v = (v + (v >> 4u64)) & 0x0f0f_0f0f_0f0f_0f0fu64;
        (v * 0x0101_0101_0101_0101u64) >> 56u64
    }
}
