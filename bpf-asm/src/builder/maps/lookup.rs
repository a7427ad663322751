//! Looking things up, and what keys and values may be given as.

use crate::builder::error::BuildErrorKind;
use crate::builder::ir::{Arg, Base, Body, Operand, Terminator};
use crate::builder::memory::{Ptr, size};
use crate::builder::packet::check;
use crate::builder::scalar::{Cell, Scalar, Sealed};
use crate::builder::value::{IntoVal, Val, Var};
use crate::helper;
use crate::insn::{JumpOp, Width};

/// What can stand where a helper wants the address of an `S`: a [`Ptr`], or a value that is put on the stack first.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `{S}` in memory",
    label = "a `Ptr` to a `{S}`, or a value or constant of that type, is wanted here",
    note = "convert numbers by `cast`, and structs by `stack` and `store`"
)]
pub trait InMemory<'f, S>: Sealed {
    /// Its address, for a call that follows right away.
    #[doc(hidden)]
    fn address(self, body: &'f Body, role: Role) -> Arg;
}

/// What the address is for: each role has its own place on the stack.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A key.
    Key,
    /// A value.
    Value,
}

impl<S> Sealed for Ptr<'_, S> {}
impl<'f, S> InMemory<'f, S> for Ptr<'f, S> {
    #[track_caller]
    fn address(self, body: &'f Body, _role: Role) -> Arg {
        if !std::ptr::eq(self.body, body) {
            body.fail(BuildErrorKind::ForeignValue);
        }
        Arg::Address(self.base, self.offset)
    }
}

#[track_caller]
fn on_stack<'f, S: Cell>(body: &'f Body, role: Role, value: impl IntoVal<'f, S::Value>) -> Arg {
    let value = value.operand(body);
    let bytes = <S::Value as Scalar>::BITS / 8;
    let place = Base::Stack(body.key_buffer(bytes, role == Role::Value));
    body.store(size::<S>(), place, 0, value);
    Arg::Address(place, 0)
}

impl<'f, S: Cell> InMemory<'f, S> for Val<'f, S::Value> {
    #[track_caller]
    fn address(self, body: &'f Body, role: Role) -> Arg {
        on_stack::<S>(body, role, self)
    }
}

impl<'f, S: Cell> InMemory<'f, S> for Var<'f, S::Value> {
    #[track_caller]
    fn address(self, body: &'f Body, role: Role) -> Arg {
        on_stack::<S>(body, role, self)
    }
}

macro_rules! constants {
    ($($type:ty)*) => {$(
        impl<'f> InMemory<'f, $type> for $type {
            #[track_caller]
            fn address(self, body: &'f Body, role: Role) -> Arg {
                on_stack::<$type>(body, role, self)
            }
        }
    )*};
}
constants! { u8 u16 u32 u64 i8 i16 i32 i64 }

/// `bpf_map_lookup_elem`, and what to do when there is nothing.
#[track_caller]
pub(super) fn look_up<'f, V>(
    body: &'f Body,
    map: Arg,
    key: Arg,
    missing: impl FnOnce(),
) -> Ptr<'f, V> {
    let value = body.pointer_helper(helper::MAP_LOOKUP_ELEM, vec![map, key]);
    non_null(body, value, missing);
    Ptr::new(body, Base::Reg(value), 0)
}

/// `bpf_map_update_elem`: 0 or a negative error.
#[track_caller]
pub(super) fn update<'f>(
    body: &'f Body,
    map: Arg,
    key: Arg,
    value: Arg,
    flags: Operand,
) -> Val<'f, i64> {
    let arguments = vec![map, key, value, Arg::Value(flags)];
    let result = body.helper(helper::MAP_UPDATE_ELEM, arguments);
    Val::new(body, Operand::Reg(result))
}

/// `bpf_map_delete_elem`: 0 or a negative error.
#[track_caller]
pub(super) fn delete<'f>(body: &'f Body, map: Arg, key: Arg) -> Val<'f, i64> {
    let result = body.helper(helper::MAP_DELETE_ELEM, vec![map, key]);
    Val::new(body, Operand::Reg(result))
}

#[track_caller]
pub(super) fn non_null(body: &Body, pointer: u32, or_else: impl FnOnce()) {
    let (a, b) = (Operand::Reg(pointer), Operand::Const(0));
    check(
        body,
        |passed, failed| {
            body.end(Terminator::Branch {
                width: Width::W64,
                op: JumpOp::Eq,
                a,
                b,
                then: failed,
                otherwise: passed,
            });
        },
        or_else,
    );
}
