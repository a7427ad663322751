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
        const { assert!(N > 0, "there is no element to index") };
        let body = self.body;
        if body.max(index.operand) < N as u64 {
            return self.displaced(index);
        }
        // What is compared is what is added afterwards, not the index, which lives longer and so may be in the frame:
        // verifiers before Linux 6.8 know nothing of a bound that was found on a copy from there.
        let distance = match body.max(index.operand).checked_mul(size_of::<T>() as u64) {
            Some(_) => self.distance(index.operand),
            // It could wrap around, to a distance that is in range.
            None => index.operand,
        };
        let checked = Val::<u64>::new(body, distance);
        let scaled = distance != index.operand;
        let unit = if scaled { size_of::<T>() as u64 } else { 1 };
        // The last element's own distance: the verifier takes any below a bound for possible, not only the multiples.
        let within = checked.le((N as u64 - 1) * unit);
        check(
            body,
            |passed, failed| within.branch(passed, failed),
            or_else,
        );
        if scaled {
            self.moved(distance)
        } else {
            self.displaced(index)
        }
    }

    #[track_caller]
    fn displaced(self, index: Val<'f, u64>) -> Ptr<'f, T> {
        self.moved(self.distance(index.operand))
    }

    /// How many bytes an element is behind the first.
    #[track_caller]
    fn distance(self, index: Operand) -> Operand {
        let size = Operand::Const(size_of::<T>() as u64);
        alu(self.body, Width::W64, AluOp::Mul, index, size)
    }

    #[track_caller]
    fn moved(self, by: Operand) -> Ptr<'f, T> {
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
