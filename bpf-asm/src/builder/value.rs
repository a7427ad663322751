//! Values and variables, and the arithmetic on them.

use std::marker::PhantomData;
use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Rem, Shl, Shr, Sub};

use super::error::BuildErrorKind;
use super::ir::{Body, Op, Operand, Origin, Reg};
use super::scalar::{Be, Int, Le, Ordered, Scalar, Sealed, Signed, Unsigned};
use crate::insn::{AluOp, EndianKind, Width};

/// A value computed at run time. A handle: copying it copies nothing at run time.
pub struct Val<'f, T> {
    pub(super) body: &'f Body,
    pub(super) operand: Operand,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Val<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Val<'_, T> {}

/// What can stand where a value of type `T` is wanted: a [`Val`], a [`Var`] (its value now), or a constant.
pub trait IntoVal<'f, T>: Sealed {
    /// Its operand in the function being written.
    #[doc(hidden)]
    fn operand(self, body: &'f Body) -> Operand;
}

impl<T> Sealed for Val<'_, T> {}
impl<T> Sealed for Var<'_, T> {}

impl<'f, T: Scalar> IntoVal<'f, T> for T {
    fn operand(self, _body: &'f Body) -> Operand {
        Operand::Const(self.register())
    }
}

impl<'f, T> IntoVal<'f, T> for Val<'f, T> {
    #[track_caller]
    fn operand(self, body: &'f Body) -> Operand {
        if !std::ptr::eq(self.body, body) {
            body.fail(BuildErrorKind::ForeignValue);
            return Operand::Const(0);
        }
        self.operand
    }
}

impl<'f, T: Scalar> IntoVal<'f, T> for Var<'f, T> {
    #[track_caller]
    fn operand(self, body: &'f Body) -> Operand {
        self.get().operand(body)
    }
}

/// A variable: a register that can be assigned again.
pub struct Var<'f, T> {
    body: &'f Body,
    reg: Reg,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Var<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Var<'_, T> {}

impl<'f, T: Scalar> Var<'f, T> {
    #[track_caller]
    pub(super) fn new(body: &'f Body, init: Operand) -> Var<'f, T> {
        let reg = body.fresh_variable(false, mask::<T>());
        body.copy(reg, init);
        Var {
            body,
            reg,
            of: PhantomData,
        }
    }

    /// Its value at this point; a later `set` doesn't change what was read.
    #[track_caller]
    pub fn get(self) -> Val<'f, T> {
        let dst = self.body.fresh(false, mask::<T>());
        self.body.copy(dst, Operand::Reg(self.reg));
        Val::new(self.body, Operand::Reg(dst))
    }

    /// Assigns it.
    #[track_caller]
    pub fn set(self, value: impl IntoVal<'f, T>) {
        let value = value.operand(self.body);
        self.body.copy(self.reg, value);
    }
}

/// The largest value that a register of this type holds.
pub(super) const fn mask<T: Scalar>() -> u64 {
    // Signed 8- and 16-bit values are sign-extended to 32 bits.
    match T::BITS {
        64 => u64::MAX,
        bits if T::SIGNED || bits == 32 => u32::MAX as u64,
        bits => (1 << bits) - 1,
    }
}

const fn width<T: Scalar>() -> Width {
    if T::BITS == 64 {
        Width::W64
    } else {
        Width::W32
    }
}

impl<'f, T: Scalar> Val<'f, T> {
    pub(super) fn new(body: &'f Body, operand: Operand) -> Val<'f, T> {
        Val {
            body,
            operand,
            of: PhantomData,
        }
    }

    /// What a load has left in a register: unsigned, as it was in memory.
    #[track_caller]
    pub(super) fn loaded(body: &'f Body, reg: Reg) -> Val<'f, T> {
        if T::SIGNED && T::BITS < 32 {
            Val::normal(body, Operand::Reg(reg))
        } else {
            Val::new(body, Operand::Reg(reg))
        }
    }

    /// The same bits as another type that has the same representation for them.
    fn retyped<U: Scalar>(self) -> Val<'f, U> {
        Val::new(self.body, self.operand)
    }

    /// Brings the result of 32- or 64-bit arithmetic back to the form of `T`.
    #[track_caller]
    fn normal(body: &'f Body, operand: Operand) -> Val<'f, T> {
        let operand = if T::SIGNED && T::BITS < 32 {
            sign_extended(body, Width::W32, T::BITS as u8, operand)
        } else if body.max(operand) <= mask::<T>() {
            operand
        } else if T::BITS == 32 {
            zero_extended(body, operand)
        } else {
            alu(
                body,
                Width::W32,
                AluOp::And,
                operand,
                Operand::Const(mask::<T>()),
            )
        };
        Val::new(body, operand)
    }

    #[track_caller]
    fn binary(self, op: AluOp, other: impl IntoVal<'f, T>) -> Val<'f, T> {
        let b = other.operand(self.body);
        Val::normal(self.body, alu(self.body, width::<T>(), op, self.operand, b))
    }

    /// A constant in the same function.
    fn constant(self, value: T) -> Val<'f, T> {
        Val::new(self.body, Operand::Const(value.register()))
    }

    #[track_caller]
    fn binary_from(a: T, op: AluOp, b: Val<'f, T>) -> Val<'f, T> {
        Val::normal(
            b.body,
            alu(
                b.body,
                width::<T>(),
                op,
                Operand::Const(a.register()),
                b.operand,
            ),
        )
    }
}

/// `a op b` in a register of its own, folded where that is possible.
#[track_caller]
pub(super) fn alu(body: &Body, width: Width, op: AluOp, a: Operand, b: Operand) -> Operand {
    if let (Operand::Const(a), Operand::Const(b)) = (a, b)
        && let Some(value) = fold(width, op, a, b)
    {
        return Operand::Const(value);
    }
    let (a, b) = match (a, op) {
        (Operand::Const(_), AluOp::Add | AluOp::Mul | AluOp::And | AluOp::Or | AluOp::Xor) => {
            (b, a)
        }
        _ => (a, b),
    };
    let all = if width == Width::W64 {
        u64::MAX
    } else {
        u64::from(u32::MAX)
    };
    let (mut op, mut b) = (op, b);
    if let Operand::Const(c) = b {
        match (op, c) {
            (
                AluOp::Add
                | AluOp::Sub
                | AluOp::Or
                | AluOp::Xor
                | AluOp::Lsh
                | AluOp::Rsh
                | AluOp::Arsh,
                0,
            )
            | (AluOp::Mul | AluOp::Div | AluOp::SDiv, 1)
                if body.max(a) <= all =>
            {
                return a;
            }
            (AluOp::And, _)
                if body.max(a) <= all && c & covering(body.max(a)) == covering(body.max(a)) =>
            {
                return a;
            }
            (AluOp::And | AluOp::Mul, 0) | (AluOp::Mod | AluOp::SMod, 1) => {
                return Operand::Const(0);
            }
            (AluOp::Mul, c) if c.is_power_of_two() => {
                (op, b) = (AluOp::Lsh, Operand::Const(u64::from(c.trailing_zeros())));
            }
            (AluOp::Div, c) if c.is_power_of_two() => {
                (op, b) = (AluOp::Rsh, Operand::Const(u64::from(c.trailing_zeros())));
            }
            (AluOp::Mod, c) if c.is_power_of_two() => (op, b) = (AluOp::And, Operand::Const(c - 1)),
            (AluOp::Div | AluOp::Mod | AluOp::SDiv | AluOp::SMod, 0) => {
                body.fail(BuildErrorKind::DivideByZero)
            }
            (AluOp::Lsh | AluOp::Rsh | AluOp::Arsh, by) if by >= u64::from(all.count_ones()) => {
                body.fail(BuildErrorKind::Shift {
                    by,
                    bits: all.count_ones(),
                });
            }
            _ => {}
        }
    }
    let (max_a, max_b) = (body.max(a), body.max(b));
    let max = match (op, b) {
        (AluOp::Add, _) => max_a
            .checked_add(max_b)
            .filter(|max| *max <= all)
            .unwrap_or(all),
        (AluOp::Mul, _) => max_a
            .checked_mul(max_b)
            .filter(|max| *max <= all)
            .unwrap_or(all),
        (AluOp::And, _) => max_a.min(max_b),
        (AluOp::Or | AluOp::Xor, _) => covering(max_a | max_b),
        (AluOp::Rsh, Operand::Const(by)) => (max_a & all) >> (by & 63),
        (AluOp::Lsh, Operand::Const(by)) if max_a.leading_zeros() >= (by & 63) as u32 => {
            max_a << (by & 63)
        }
        (AluOp::Div, _) => max_a,
        (AluOp::Mod, Operand::Const(c)) if c > 0 => max_a.min(c - 1),
        _ => all,
    }
    .min(all);
    let dst = body.fresh(false, max);
    if op == AluOp::And && body.is_fixed(a) {
        body.state
            .borrow_mut()
            .origins
            .insert(dst, Origin::Masked { a, b });
    }
    body.emit(Op::Alu {
        width,
        op,
        dst,
        a,
        b,
    });
    Operand::Reg(dst)
}

/// All ones up to the highest bit of `max`.
const fn covering(max: u64) -> u64 {
    if max == 0 {
        0
    } else {
        u64::MAX >> max.leading_zeros()
    }
}

fn fold(width: Width, op: AluOp, a: u64, b: u64) -> Option<u64> {
    let bits = if width == Width::W64 { 64 } else { 32 };
    let by = u32::try_from(b).ok().filter(|by| *by < bits);
    let (a, b) = if bits == 32 {
        (a & u64::from(u32::MAX), b & u64::from(u32::MAX))
    } else {
        (a, b)
    };
    let value = match op {
        AluOp::Add => a.wrapping_add(b),
        AluOp::Sub => a.wrapping_sub(b),
        AluOp::Mul => a.wrapping_mul(b),
        AluOp::Div => a.checked_div(b)?,
        AluOp::Mod => a.checked_rem(b)?,
        AluOp::Or => a | b,
        AluOp::And => a & b,
        AluOp::Xor => a ^ b,
        AluOp::Lsh => a << by?,
        AluOp::Rsh => a >> by?,
        AluOp::Arsh if bits == 64 => (a.cast_signed() >> by?).cast_unsigned(),
        AluOp::Arsh => ((a << 32).cast_signed() >> by? >> 32).cast_unsigned(),
        AluOp::SDiv | AluOp::SMod => {
            let signed = |value: u64| {
                if bits == 64 {
                    value.cast_signed()
                } else {
                    i64::from((value as u32).cast_signed())
                }
            };
            let (a, b) = (signed(a), signed(b));
            if b == 0 {
                return None;
            }
            let value = if op == AluOp::SDiv {
                a.wrapping_div(b)
            } else {
                a.wrapping_rem(b)
            };
            value.cast_unsigned()
        }
        AluOp::Mov => return None,
    };
    Some(if bits == 32 {
        value & u64::from(u32::MAX)
    } else {
        value
    })
}

/// The lowest bits as a signed number, in the form of that width.
#[track_caller]
fn sign_extended(body: &Body, width: Width, bits: u8, operand: Operand) -> Operand {
    let mask = covering_bits(if width == Width::W64 { 64 } else { 32 });
    match operand {
        Operand::Const(value) => {
            let unused = 64 - u32::from(bits);
            let extended = (value << unused).cast_signed() >> unused;
            Operand::Const(extended.cast_unsigned() & mask)
        }
        // Nothing to extend.
        Operand::Reg(_) if body.max(operand) < 1 << (bits - 1) => operand,
        Operand::Reg(src) => {
            let dst = body.fresh(false, mask);
            body.emit(Op::SignExtend {
                width,
                bits,
                dst,
                src,
            });
            Operand::Reg(dst)
        }
    }
}

/// The lower half, zero-extended.
#[track_caller]
fn zero_extended(body: &Body, operand: Operand) -> Operand {
    if let Operand::Const(value) = operand {
        return Operand::Const(value & u64::from(u32::MAX));
    }
    let dst = body.fresh(false, u64::from(u32::MAX));
    body.emit(Op::Alu {
        width: Width::W32,
        op: AluOp::Mov,
        dst,
        a: operand,
        b: operand,
    });
    Operand::Reg(dst)
}

macro_rules! operators {
    ($($bound:ident $trait:ident $method:ident $op:expr, $($type:ty)*;)*) => {$(
        impl<'f, T: $bound, R: IntoVal<'f, T>> $trait<R> for Val<'f, T> {
            type Output = Val<'f, T>;
            #[track_caller]
            fn $method(self, other: R) -> Val<'f, T> {
                self.binary($op, other)
            }
        }
        $(impl<'f> $trait<Val<'f, $type>> for $type {
            type Output = Val<'f, $type>;
            #[track_caller]
            fn $method(self, other: Val<'f, $type>) -> Val<'f, $type> {
                Val::binary_from(self, $op, other)
            }
        })*
    )*};
}
operators! {
    Int Add add AluOp::Add, u8 u16 u32 u64 i8 i16 i32 i64;
    Int Sub sub AluOp::Sub, u8 u16 u32 u64 i8 i16 i32 i64;
    Int Mul mul AluOp::Mul, u8 u16 u32 u64 i8 i16 i32 i64;
    Scalar BitAnd bitand AluOp::And, u8 u16 u32 u64 i8 i16 i32 i64;
    Scalar BitOr bitor AluOp::Or, u8 u16 u32 u64 i8 i16 i32 i64;
    Scalar BitXor bitxor AluOp::Xor, u8 u16 u32 u64 i8 i16 i32 i64;
    Int Shl shl AluOp::Lsh, u8 u16 u32 u64 i8 i16 i32 i64;
}

macro_rules! divisions {
    ($($trait:ident $method:ident $unsigned:ident $signed:ident $what:literal;)*) => {$(
        impl<'f, T: Int, R: IntoVal<'f, T>> $trait<R> for Val<'f, T> {
            type Output = Val<'f, T>;
            #[doc = $what]
            #[track_caller]
            fn $method(self, other: R) -> Val<'f, T> {
                self.binary(if T::SIGNED { AluOp::$signed } else { AluOp::$unsigned }, other)
            }
        }
    )*};
}
divisions! {
    Div div Div SDiv "The quotient, towards zero; 0 where the divisor is 0.";
    Rem rem Mod SMod "The remainder, with the sign of the dividend; the dividend where the divisor is 0.";
}

macro_rules! constant_divisions {
    ($($type:ty)*) => {$(
        impl<'f> Div<Val<'f, $type>> for $type {
            type Output = Val<'f, $type>;
            #[track_caller]
            fn div(self, other: Val<'f, $type>) -> Val<'f, $type> {
                other.constant(self) / other
            }
        }
        impl<'f> Rem<Val<'f, $type>> for $type {
            type Output = Val<'f, $type>;
            #[track_caller]
            fn rem(self, other: Val<'f, $type>) -> Val<'f, $type> {
                other.constant(self) % other
            }
        }
    )*};
}
constant_divisions! { u8 u16 u32 u64 i8 i16 i32 i64 }

impl<'f, T: Signed> Neg for Val<'f, T> {
    type Output = Val<'f, T>;
    /// The negative; that of the smallest number is itself.
    #[track_caller]
    fn neg(self) -> Val<'f, T> {
        let zero = Val::<T>::new(self.body, Operand::Const(0));
        zero.binary(AluOp::Sub, self)
    }
}

impl<'f, T: Int, R: IntoVal<'f, T>> Shr<R> for Val<'f, T> {
    type Output = Val<'f, T>;
    /// Arithmetic for signed types, logical for unsigned ones. Distances are taken modulo 64, or 32 for narrower types.
    #[track_caller]
    fn shr(self, other: R) -> Val<'f, T> {
        self.binary(if T::SIGNED { AluOp::Arsh } else { AluOp::Rsh }, other)
    }
}

impl<'f, T: Scalar> Not for Val<'f, T> {
    type Output = Val<'f, T>;
    #[track_caller]
    fn not(self) -> Val<'f, T> {
        let ones = Operand::Const(mask::<T>());
        Val::normal(
            self.body,
            alu(self.body, width::<T>(), AluOp::Xor, self.operand, ones),
        )
    }
}

impl<'f, T: Int> Val<'f, T> {
    /// Converts as Rust's `as` does: truncates, zero-extends an unsigned source, sign-extends a signed one.
    #[track_caller]
    pub fn cast<U: Int>(self) -> Val<'f, U> {
        let body = self.body;
        if T::SIGNED && U::BITS == 64 && T::BITS < 64 {
            return Val::new(body, sign_extended(body, Width::W64, 32, self.operand));
        }
        if U::SIGNED && U::BITS < 32 && T::SIGNED && T::BITS <= U::BITS {
            return self.retyped();
        }
        if U::SIGNED && U::BITS < 32 && self.body.max(self.operand) < 1 << (U::BITS - 1) {
            return self.retyped();
        }
        Val::normal(body, self.operand)
    }

    /// Converts to a type that holds every value of this one.
    #[track_caller]
    pub fn widen<U: Int + From<T>>(self) -> Val<'f, U> {
        self.cast()
    }

    /// Keeps the low bits.
    #[track_caller]
    pub fn truncate<U: Int>(self) -> Val<'f, U>
    where
        T: From<U>,
    {
        self.cast()
    }
}

impl<'f, T: Unsigned> Val<'f, T> {
    /// Rotates left by a constant below the width, as [`u64::rotate_left`] does.
    #[track_caller]
    pub fn rotate_left(self, by: u32) -> Val<'f, T> {
        let by = by % T::BITS;
        if by == 0 {
            return self;
        }
        let (body, width) = (self.body, width::<T>());
        let low = alu(
            body,
            width,
            AluOp::Rsh,
            self.operand,
            Operand::Const(u64::from(T::BITS - by)),
        );
        let high = alu(
            body,
            width,
            AluOp::Lsh,
            self.operand,
            Operand::Const(u64::from(by)),
        );
        Val::normal(body, alu(body, width, AluOp::Or, high, low))
    }

    /// Rotates right by a constant below the width.
    #[track_caller]
    pub fn rotate_right(self, by: u32) -> Val<'f, T> {
        self.rotate_left(T::BITS - by % T::BITS)
    }
}

impl<'f, T: Signed> Val<'f, T> {
    /// The same bits as an unsigned integer.
    #[track_caller]
    pub fn cast_unsigned<U: Unsigned>(self) -> Val<'f, U> {
        self.cast()
    }
}

/// The bytes of an operand in reverse order.
#[track_caller]
fn swapped(body: &Body, operand: Operand, bits: u32) -> Operand {
    match operand {
        Operand::Const(value) => Operand::Const(value.swap_bytes() >> (64 - bits)),
        Operand::Reg(src) => {
            // A swap of a swap is what was there before.
            if let Some(Origin::Swapped {
                src,
                bits: before,
                kind: EndianKind::ToBe,
            }) = body.origin(operand)
                && u32::from(before) == bits
                && body.max(Operand::Reg(src)) <= covering_bits(bits)
            {
                return Operand::Reg(src);
            }
            let dst = body.fresh(false, covering_bits(bits));
            let (kind, bits) = (EndianKind::ToBe, bits as u8);
            if body.is_fixed(operand) {
                body.state
                    .borrow_mut()
                    .origins
                    .insert(dst, Origin::Swapped { src, kind, bits });
            }
            body.emit(Op::Endian {
                kind,
                bits,
                dst,
                src,
            });
            Operand::Reg(dst)
        }
    }
}

const fn covering_bits(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

impl<'f, T: Ordered> Val<'f, T> {
    /// Reverses the order of its bytes.
    #[track_caller]
    pub fn swap_bytes(self) -> Val<'f, T> {
        Val::new(self.body, swapped(self.body, self.operand, T::BITS))
    }
}

impl<'f, T: Ordered> Val<'f, Be<T>> {
    /// In network byte order.
    #[track_caller]
    pub fn from_native(native: Val<'f, T>) -> Val<'f, Be<T>> {
        Val::new(native.body, swapped(native.body, native.operand, T::BITS))
    }

    /// As a native integer.
    #[track_caller]
    pub fn to_native(self) -> Val<'f, T> {
        Val::new(self.body, swapped(self.body, self.operand, T::BITS))
    }

    /// The bits as they lie in memory, read as a native integer: for checksums, hashes and copies.
    pub fn raw(self) -> Val<'f, T> {
        self.retyped()
    }

    /// The opposite of [`raw`](Self::raw).
    pub fn from_raw(raw: Val<'f, T>) -> Val<'f, Be<T>> {
        raw.retyped()
    }
}

impl<'f, T: Ordered> Val<'f, Le<T>> {
    /// In little-endian byte order; no instruction on a little-endian target.
    pub fn from_native(native: Val<'f, T>) -> Val<'f, Le<T>> {
        native.retyped()
    }

    /// As a native integer; no instruction on a little-endian target.
    pub fn to_native(self) -> Val<'f, T> {
        self.retyped()
    }
}

impl<'f, T: Ordered> Val<'f, T> {
    /// In network byte order.
    #[track_caller]
    pub fn to_be(self) -> Val<'f, Be<T>> {
        Val::<Be<T>>::from_native(self)
    }

    /// In little-endian byte order.
    pub fn to_le(self) -> Val<'f, Le<T>> {
        self.retyped()
    }
}
