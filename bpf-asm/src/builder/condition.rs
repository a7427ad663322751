//! Conditions: comparisons of values, combined with `&`, `|` and `!`, decided by jumps where they are used.

use std::ops::{BitAnd, BitOr, Not};

use super::ir::{BlockId, Body, Operand, Origin, Terminator};
use super::scalar::{Int, Scalar, Signed};
use super::value::{IntoVal, Val};
use crate::insn::{EndianKind, JumpOp, Width};

/// Something that is true or false at run time. Operands are computed where they are written; `&` and `|` then jump
/// past comparisons that no longer matter.
#[derive(Clone, Copy)]
pub struct Cond<'f> {
    body: &'f Body,
    node: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    Known(bool),
    Compare {
        width: Width,
        op: JumpOp,
        a: Operand,
        b: Operand,
    },
    And(usize, usize),
    Or(usize, usize),
    Not(usize),
}

impl<'f> Cond<'f> {
    fn new(body: &'f Body, node: Node) -> Cond<'f> {
        let nodes = &mut body.state.borrow_mut().conditions;
        nodes.push(node);
        Cond {
            body,
            node: nodes.len() - 1,
        }
    }

    /// 1 if it holds, else 0.
    #[track_caller]
    pub fn to_val<T: Int + From<bool>>(self) -> Val<'f, T> {
        let result = self.body.fresh_variable(false, 1);
        self.body.copy(result, Operand::Const(1));
        let (zero, join) = (self.body.block(), self.body.block());
        self.branch(join, zero);
        self.body.begin(zero);
        self.body.copy(result, Operand::Const(0));
        self.body.jump(join);
        self.body.begin(join);
        Val::new(self.body, Operand::Reg(result))
    }

    /// Ends the block being written: on to `then` if it holds, else to `otherwise`.
    #[track_caller]
    pub(super) fn branch(self, then: BlockId, otherwise: BlockId) {
        let node = self.body.state.borrow().conditions[self.node];
        let part = |node| Cond {
            body: self.body,
            node,
        };
        match node {
            Node::Known(truth) => self.body.jump(if truth { then } else { otherwise }),
            Node::Compare { width, op, a, b } => self.body.end(Terminator::Branch {
                width,
                op,
                a,
                b,
                then,
                otherwise,
            }),
            Node::And(left, right) => {
                let both = self.body.block();
                part(left).branch(both, otherwise);
                self.body.begin(both);
                part(right).branch(then, otherwise);
            }
            Node::Or(left, right) => {
                let either = self.body.block();
                part(left).branch(then, either);
                self.body.begin(either);
                part(right).branch(then, otherwise);
            }
            Node::Not(inner) => part(inner).branch(otherwise, then),
        }
    }
}

impl<'f> BitAnd for Cond<'f> {
    type Output = Cond<'f>;
    fn bitand(self, other: Cond<'f>) -> Cond<'f> {
        Cond::new(self.body, Node::And(self.node, other.node))
    }
}

impl<'f> BitOr for Cond<'f> {
    type Output = Cond<'f>;
    fn bitor(self, other: Cond<'f>) -> Cond<'f> {
        Cond::new(self.body, Node::Or(self.node, other.node))
    }
}

impl<'f> Not for Cond<'f> {
    type Output = Cond<'f>;
    fn not(self) -> Cond<'f> {
        Cond::new(self.body, Node::Not(self.node))
    }
}

impl<'f, T: Scalar> Val<'f, T> {
    #[track_caller]
    fn compare(self, op: JumpOp, other: impl IntoVal<'f, T>) -> Cond<'f> {
        let other = other.operand(self.body);
        Cond::new(
            self.body,
            comparison::<T>(self.body, op, self.operand, other),
        )
    }

    /// Equal.
    #[track_caller]
    pub fn eq(self, other: impl IntoVal<'f, T>) -> Cond<'f> {
        self.compare(JumpOp::Eq, other)
    }

    /// Not equal.
    #[track_caller]
    pub fn ne(self, other: impl IntoVal<'f, T>) -> Cond<'f> {
        self.compare(JumpOp::Ne, other)
    }
}

impl<'f, T: Int> Val<'f, T> {
    /// Less, signed if the type is.
    #[track_caller]
    pub fn lt(self, other: impl IntoVal<'f, T>) -> Cond<'f> {
        self.compare(if T::SIGNED { JumpOp::SLt } else { JumpOp::Lt }, other)
    }

    /// Less or equal, signed if the type is.
    #[track_caller]
    pub fn le(self, other: impl IntoVal<'f, T>) -> Cond<'f> {
        self.compare(if T::SIGNED { JumpOp::SLe } else { JumpOp::Le }, other)
    }

    /// Greater, signed if the type is.
    #[track_caller]
    pub fn gt(self, other: impl IntoVal<'f, T>) -> Cond<'f> {
        self.compare(if T::SIGNED { JumpOp::SGt } else { JumpOp::Gt }, other)
    }

    /// Greater or equal, signed if the type is.
    #[track_caller]
    pub fn ge(self, other: impl IntoVal<'f, T>) -> Cond<'f> {
        self.compare(if T::SIGNED { JumpOp::SGe } else { JumpOp::Ge }, other)
    }

    /// `self & bits != 0`, in one jump.
    #[track_caller]
    pub fn has_any(self, bits: impl IntoVal<'f, T>) -> Cond<'f> {
        self.compare(JumpOp::Set, bits)
    }
}

impl<'f, T: Signed> Val<'f, T> {
    /// Below zero: how helpers report errors.
    #[track_caller]
    pub fn is_negative(self) -> Cond<'f> {
        self.compare(JumpOp::SLt, Val::new(self.body, Operand::Const(0)))
    }
}

#[track_caller]
fn comparison<T: Scalar>(body: &Body, op: JumpOp, a: Operand, b: Operand) -> Node {
    let (op, a, b) = match (a, b) {
        (Operand::Const(a), Operand::Const(b)) => return Node::Known(holds::<T>(op, a, b)),
        (Operand::Const(_), Operand::Reg(_)) => (mirrored(op), b, a),
        _ => (op, a, b),
    };
    let mut compared = (op, a, b);
    if let (JumpOp::Eq | JumpOp::Ne, Operand::Const(constant)) = (op, b) {
        match body.origin(a) {
            // Swapping the constant is free.
            Some(Origin::Swapped {
                src,
                kind: EndianKind::ToBe,
                bits,
            }) if body.max(Operand::Reg(src)) <= u64::MAX >> (64 - bits) => {
                compared = (
                    op,
                    Operand::Reg(src),
                    Operand::Const(constant.swap_bytes() >> (64 - bits)),
                );
            }
            Some(Origin::Masked { a, b }) if constant == 0 => {
                let set = Node::Compare {
                    width: fitting::<T>(JumpOp::Set, b),
                    op: JumpOp::Set,
                    a,
                    b,
                };
                if op == JumpOp::Ne {
                    return set;
                }
                let nodes = &mut body.state.borrow_mut().conditions;
                nodes.push(set);
                return Node::Not(nodes.len() - 1);
            }
            _ => {}
        }
    }
    let (op, a, b) = compared;
    Node::Compare {
        width: fitting::<T>(op, b),
        op,
        a,
        b,
    }
}

/// 64 bits wherever the zero-extended form compares alike, since the verifier then learns 64-bit bounds.
fn fitting<T: Scalar>(op: JumpOp, b: Operand) -> Width {
    let signed = matches!(op, JumpOp::SGt | JumpOp::SGe | JumpOp::SLt | JumpOp::SLe);
    let narrow_constant = matches!(b, Operand::Const(value) if i32::try_from(value).is_err());
    if T::BITS < 64 && (signed || narrow_constant) {
        Width::W32
    } else {
        Width::W64
    }
}

const fn mirrored(op: JumpOp) -> JumpOp {
    match op {
        JumpOp::Gt => JumpOp::Lt,
        JumpOp::Ge => JumpOp::Le,
        JumpOp::Lt => JumpOp::Gt,
        JumpOp::Le => JumpOp::Ge,
        JumpOp::SGt => JumpOp::SLt,
        JumpOp::SGe => JumpOp::SLe,
        JumpOp::SLt => JumpOp::SGt,
        JumpOp::SLe => JumpOp::SGe,
        JumpOp::Eq | JumpOp::Ne | JumpOp::Set => op,
    }
}

fn holds<T: Scalar>(op: JumpOp, a: u64, b: u64) -> bool {
    let signed = |value: u64| {
        if T::BITS == 64 {
            value.cast_signed()
        } else {
            i64::from((value as u32).cast_signed())
        }
    };
    match op {
        JumpOp::Eq => a == b,
        JumpOp::Ne => a != b,
        JumpOp::Gt => a > b,
        JumpOp::Ge => a >= b,
        JumpOp::Lt => a < b,
        JumpOp::Le => a <= b,
        JumpOp::Set => a & b != 0,
        JumpOp::SGt => signed(a) > signed(b),
        JumpOp::SGe => signed(a) >= signed(b),
        JumpOp::SLt => signed(a) < signed(b),
        JumpOp::SLe => signed(a) <= signed(b),
    }
}
