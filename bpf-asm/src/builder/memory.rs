//! Typed places in memory: map values, ring buffer records, the stack, and (through a view) the packet.

use std::marker::PhantomData;

use super::error::BuildErrorKind;
use super::ir::{Base, Body, Op, Operand};
use super::packet::check;
use super::scalar::{Cell, Field, Int, Scalar};
use super::value::{IntoVal, Val, alu};
use crate::insn::{AluOp, Size, Width};

/// An `S` in memory that the verifier lets the program read and write.
pub struct Ptr<'f, S> {
    pub(super) body: &'f Body,
    pub(super) base: Base,
    pub(super) offset: i32,
    of: PhantomData<fn() -> S>,
}

impl<S> Clone for Ptr<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Ptr<'_, S> {}

/// The size of a cell.
pub(super) fn size<T: Cell>() -> Size {
    match <T::Value as Scalar>::BITS {
        8 => Size::B,
        16 => Size::H,
        32 => Size::W,
        _ => Size::DW,
    }
}

impl<'f, S> Ptr<'f, S> {
    pub(super) fn new(body: &'f Body, base: Base, offset: i32) -> Ptr<'f, S> {
        Ptr {
            body,
            base,
            offset,
            of: PhantomData,
        }
    }

    #[track_caller]
    pub(super) fn offset<T>(self, field: Field<S, T>) -> i32 {
        match i32::try_from(field.offset())
            .ok()
            .and_then(|offset| offset.checked_add(self.offset))
        {
            Some(offset) => offset,
            None => {
                self.body.fail(BuildErrorKind::OutOfRange {
                    index: field.offset() as u64,
                    len: i32::MAX as u64,
                });
                0
            }
        }
    }

    /// A part of it.
    #[track_caller]
    pub fn at<T>(self, field: Field<S, T>) -> Ptr<'f, T> {
        Ptr::new(self.body, self.base, self.offset(field))
    }

    /// Reads a field.
    #[track_caller]
    pub fn load<T: Cell>(self, field: Field<S, T>) -> Val<'f, T::Value> {
        let reg = self.body.load(size::<T>(), self.base, self.offset(field));
        Val::loaded(self.body, reg)
    }

    /// Writes a field.
    #[track_caller]
    pub fn store<T: Cell>(self, field: Field<S, T>, value: impl IntoVal<'f, T::Value>) {
        let value = value.operand(self.body);
        self.body
            .store(size::<T>(), self.base, self.offset(field), value);
    }
}

impl<'f, T: Cell> Ptr<'f, T> {
    /// Reads it.
    #[track_caller]
    pub fn read(self) -> Val<'f, T::Value> {
        self.load(Field::<T, T>::whole())
    }

    /// Writes it.
    #[track_caller]
    pub fn write(self, value: impl IntoVal<'f, T::Value>) {
        self.store(Field::<T, T>::whole(), value);
    }

    /// [`Ptr::compare_exchange`] of the whole.
    #[track_caller]
    pub fn compare_exchange_whole(
        self,
        expected: impl IntoVal<'f, T::Value>,
        new: impl IntoVal<'f, T::Value>,
    ) -> Val<'f, T::Value>
    where
        T::Value: Int,
    {
        self.compare_exchange(Field::<T, T>::whole(), expected, new)
    }
}

impl<'f, T, const N: usize> Ptr<'f, [T; N]> {
    /// The element of a constant index.
    #[track_caller]
    pub fn element(self, index: usize) -> Ptr<'f, T> {
        if index >= N {
            self.body.fail(BuildErrorKind::OutOfRange {
                index: index as u64,
                len: N as u64,
            });
            return Ptr::new(self.body, self.base, self.offset);
        }
        Ptr::new(
            self.body,
            self.base,
            self.offset + (index * size_of::<T>()) as i32,
        )
    }

    /// The element of an index taken modulo `N`, which must be a power of two.
    #[track_caller]
    pub fn index_masked(self, index: Val<'f, u64>) -> Ptr<'f, T> {
        const {
            assert!(
                N.is_power_of_two(),
                "index_masked needs a power of two; use index"
            )
        };
        self.displaced(index & (N as u64 - 1))
    }

    /// The element of an index; `or_else` when it is out of range, and must end the program or leave the loop.
    #[track_caller]
    pub fn index(self, index: Val<'f, u64>, or_else: impl FnOnce()) -> Ptr<'f, T> {
        let body = self.body;
        if body.max(index.operand) >= N as u64 {
            let within = index.lt(N as u64);
            check(
                body,
                |passed, failed| within.branch(passed, failed),
                or_else,
            );
        }
        self.displaced(index)
    }

    #[track_caller]
    fn displaced(self, index: Val<'f, u64>) -> Ptr<'f, T> {
        let by = alu(
            self.body,
            Width::W64,
            AluOp::Mul,
            index.operand,
            Operand::Const(size_of::<T>() as u64),
        );
        let start = self.body.address(self.base, self.offset);
        let dst = self.body.fresh(true, u64::MAX);
        self.body.emit(Op::Alu {
            width: Width::W64,
            op: AluOp::Add,
            dst,
            a: Operand::Reg(start),
            b: by,
        });
        Ptr::new(self.body, Base::Reg(dst), 0)
    }
}
