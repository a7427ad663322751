//! Atomic operations on memory that programs and user space share.

use super::ir::{Op, Operand};
use super::memory::{Ptr, size};
use super::scalar::{Cell, Field, Int, Ordered, Scalar};
use super::value::{IntoVal, Val};
use crate::insn::{AtomicOp, Size};
use crate::target::Feature;

const fn is_word<T: Cell>() -> bool {
    <T::Value as Scalar>::BITS >= 32
}

macro_rules! with_old_value {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {
        impl<'f, S> Ptr<'f, S> {$(
            $(#[$doc])*
            #[track_caller]
            pub fn $name<T: Cell>(self, field: Field<S, T>, value: impl IntoVal<'f, T::Value>) -> Val<'f, T::Value>
            where
                T::Value: Int,
            {
                const { assert!(is_word::<T>(), "atomics are 32 or 64 bits wide") };
                let value = value.operand(self.body);
                self.atomic::<T>(AtomicOp::$op, field, value, None)
            }
        )*}
    };
}

with_old_value! {
    /// Adds to a 32- or 64-bit field atomically; what was there before. Fully ordered.
    fetch_add FetchAdd;
    /// Ands to a 32- or 64-bit field atomically; what was there before. Fully ordered.
    fetch_and FetchAnd;
    /// Ors to a 32- or 64-bit field atomically; what was there before. Fully ordered.
    fetch_or FetchOr;
    /// Exclusive-ors to a 32- or 64-bit field atomically; what was there before. Fully ordered.
    fetch_xor FetchXor;
    /// Writes a 32- or 64-bit field atomically; what was there before. Fully ordered.
    exchange Exchange;
}

macro_rules! without_old_value {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {
        impl<'f, S> Ptr<'f, S> {$(
            $(#[$doc])*
            #[track_caller]
            pub fn $name<T: Cell>(self, field: Field<S, T>, value: impl IntoVal<'f, T::Value>)
            where
                T::Value: Int,
            {
                const { assert!(is_word::<T>(), "atomics are 32 or 64 bits wide") };
                let src = value.operand(self.body);
                let (base, offset) = self.body.reachable(self.base, self.offset(field));
                self.body.emit(Op::Atomic {
                    size: size::<T>(),
                    op: AtomicOp::$op,
                    base,
                    offset,
                    src,
                    expected: None,
                    dst: None,
                });
            }
        )*}
    };
}

without_old_value! {
    /// Adds to a 32- or 64-bit field atomically, without the old value. Not ordered.
    atomic_add Add;
    /// Ands to a 32- or 64-bit field atomically, without the old value. Not ordered.
    atomic_and And;
    /// Ors to a 32- or 64-bit field atomically, without the old value. Not ordered.
    atomic_or Or;
    /// Exclusive-ors to a 32- or 64-bit field atomically, without the old value. Not ordered.
    atomic_xor Xor;
}

impl<'f, S> Ptr<'f, S> {
    /// Writes `new` if `expected` is there, atomically; what was there before. Fully ordered.
    #[track_caller]
    pub fn compare_exchange<T: Cell>(
        self,
        field: Field<S, T>,
        expected: impl IntoVal<'f, T::Value>,
        new: impl IntoVal<'f, T::Value>,
    ) -> Val<'f, T::Value>
    where
        T::Value: Int,
    {
        const { assert!(is_word::<T>(), "atomics are 32 or 64 bits wide") };
        let (expected, new) = (expected.operand(self.body), new.operand(self.body));
        self.atomic::<T>(AtomicOp::CompareExchange, field, new, Some(expected))
    }

    /// Reads a field with acquire ordering: what others wrote before a release of it is seen afterwards. Where the target has no
    /// such load, an atomic addition of nothing takes its place (which wants memory that may be written).
    #[track_caller]
    pub fn load_acquire<T: Cell>(self, field: Field<S, T>) -> Val<'f, T::Value>
    where
        T::Value: Ordered,
    {
        const {
            assert!(
                is_word::<T>(),
                "ordered accesses here are 32 or 64 bits wide"
            )
        };
        if !self.has_ordered_access() {
            return self.atomic::<T>(AtomicOp::FetchAdd, field, Operand::Const(0), None);
        }
        self.atomic::<T>(AtomicOp::LoadAcquire, field, Operand::Const(0), None)
    }

    /// Writes a field with release ordering: who reads it with acquire sees what was written before. Where the target has no
    /// such store, an exchange takes its place.
    #[track_caller]
    pub fn store_release<T: Cell>(self, field: Field<S, T>, value: impl IntoVal<'f, T::Value>)
    where
        T::Value: Ordered,
    {
        const {
            assert!(
                is_word::<T>(),
                "ordered accesses here are 32 or 64 bits wide"
            )
        };
        let src = value.operand(self.body);
        if !self.has_ordered_access() {
            self.atomic::<T>(AtomicOp::Exchange, field, src, None);
            return;
        }
        let (base, offset) = self.body.reachable(self.base, self.offset(field));
        self.body.emit(Op::Atomic {
            size: size::<T>(),
            op: AtomicOp::StoreRelease,
            base,
            offset,
            src,
            expected: None,
            dst: None,
        });
    }

    fn has_ordered_access(self) -> bool {
        self.body
            .session
            .borrow()
            .target
            .has(Feature::OrderedAccess)
    }

    #[track_caller]
    fn atomic<T: Cell>(
        self,
        op: AtomicOp,
        field: Field<S, T>,
        src: Operand,
        expected: Option<Operand>,
    ) -> Val<'f, T::Value> {
        let size = size::<T>();
        let (base, offset) = self.body.reachable(self.base, self.offset(field));
        let max = if size == Size::DW {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        };
        let dst = self.body.fresh(false, max);
        self.body.emit(Op::Atomic {
            size,
            op,
            base,
            offset,
            src,
            expected,
            dst: Some(dst),
        });
        Val::new(self.body, Operand::Reg(dst))
    }
}
