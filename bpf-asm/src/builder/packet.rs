//! The packet: a bounds check yields a view, and a view allows what it has proven.

use std::marker::PhantomData;

use super::error::BuildErrorKind;
use super::function::{Function, Kind, Tc, Xdp};
use super::ir::{Arg, Base, Body, Op, Operand, Reg};
use super::memory::Ptr;
use super::scalar::{Cell, Field};
use super::value::{IntoVal, Val};
use crate::helper;
use crate::insn::{AluOp, JumpOp, Size, Width};

/// The kernel follows packet offsets below this.
const OFFSETS: u64 = 1 << 16;

/// The packet's bytes, as they lie between two helpers that move them. Those helpers take it; ask for it again afterwards.
pub struct Packet<'f> {
    body: &'f Body,
    data: Reg,
    end: Reg,
}

/// An `S` in the packet that has been proven to be there.
pub struct View<'p, 'f, S> {
    pub(super) ptr: Ptr<'f, S>,
    packet: PhantomData<&'p ()>,
}

impl<S> Clone for View<'_, '_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for View<'_, '_, S> {}

impl<'f, K: Kind> Function<'f, K> {
    /// The packet as it lies now.
    #[track_caller]
    pub fn packet(self) -> Packet<'f> {
        let context = self.body.context();
        let pointer = |offset| {
            let dst = self.body.fresh(true, u64::MAX);
            self.body.emit(Op::Load {
                size: Size::W,
                dst,
                base: Base::Reg(context),
                offset,
            });
            dst
        };
        Packet {
            body: self.body,
            data: pointer(K::DATA),
            end: pointer(K::DATA + 4),
        }
    }
}

impl<'f> Packet<'f> {
    /// An `S` at a constant offset; `or_else` when the packet is too short, and must end the program or leave the loop.
    #[track_caller]
    pub fn view<S>(&self, offset: u64, or_else: impl FnOnce()) -> View<'_, 'f, S> {
        self.prove(self.data, offset, size_of::<S>() as u64, or_else)
    }

    /// An `S` at an offset that is computed, and at most `max`; `or_else` when it isn't or the packet is too short.
    #[track_caller]
    pub fn view_at<S>(
        &self,
        offset: Val<'f, u64>,
        max: u64,
        or_else: impl Fn(),
    ) -> View<'_, 'f, S> {
        self.view_with(offset, max, 0, or_else)
    }

    /// An `S` at `offset + plus`, where the offset is computed and at most `max`.
    #[track_caller]
    pub fn view_with<S>(
        &self,
        offset: Val<'f, u64>,
        max: u64,
        plus: u64,
        or_else: impl Fn(),
    ) -> View<'_, 'f, S> {
        let body = self.body;
        let offset = offset.operand(body);
        if max >= OFFSETS {
            body.fail(BuildErrorKind::PacketOffset { max });
        }
        if body.max(offset) > max {
            let within = Val::<u64>::new(body, offset).le(max);
            check(
                body,
                |passed, failed| within.branch(passed, failed),
                &or_else,
            );
        }
        let start = body.fresh(true, u64::MAX);
        body.emit(Op::Alu {
            width: Width::W64,
            op: AluOp::Add,
            dst: start,
            a: Operand::Reg(self.data),
            b: offset,
        });
        self.prove(start, plus, size_of::<S>() as u64, or_else)
    }

    /// How many bytes there are from the start to the end.
    #[track_caller]
    pub fn length(&self) -> Val<'f, u64> {
        // The verifier learns no bound from a difference of pointers.
        let dst = self.body.fresh(false, u64::MAX);
        let (a, b) = (Operand::Reg(self.end), Operand::Reg(self.data));
        self.body.emit(Op::Alu {
            width: Width::W64,
            op: AluOp::Sub,
            dst,
            a,
            b,
        });
        Val::new(self.body, Operand::Reg(dst))
    }

    #[track_caller]
    fn prove<S>(
        &self,
        start: Reg,
        offset: u64,
        bytes: u64,
        or_else: impl FnOnce(),
    ) -> View<'_, 'f, S> {
        let body = self.body;
        let Some(end) = offset.checked_add(bytes).filter(|end| *end < OFFSETS) else {
            body.fail(BuildErrorKind::PacketOffset {
                max: offset.saturating_add(bytes),
            });
            return View {
                ptr: Ptr::new(body, Base::Reg(start), 0),
                packet: PhantomData,
            };
        };
        let view = View {
            ptr: Ptr::new(body, Base::Reg(start), offset as i32),
            packet: PhantomData,
        };
        if body.is_proven(start, self.end, end) {
            return view;
        }
        let after = body.address(Base::Reg(start), end as i32);
        let (a, b) = (Operand::Reg(after), Operand::Reg(self.end));
        check(
            body,
            |passed, failed| {
                body.end(super::ir::Terminator::Branch {
                    width: Width::W64,
                    op: JumpOp::Gt,
                    a,
                    b,
                    then: failed,
                    otherwise: passed,
                });
            },
            or_else,
        );
        body.set_proven(start, self.end, end);
        view
    }
}

/// Branches to what follows, or to `or_else`, which must leave.
#[track_caller]
pub(super) fn check(body: &Body, branch: impl FnOnce(usize, usize), or_else: impl FnOnce()) {
    let (failed, passed) = (body.coldly(|| body.block()), body.block());
    body.on_line(std::panic::Location::caller(), || branch(passed, failed));
    body.begin(failed);
    body.coldly(|| body.scoped(or_else));
    if body.falls_through() {
        body.fail(BuildErrorKind::FallsThrough);
        body.jump(passed);
    }
    body.begin(passed);
}

impl<'f, S> View<'_, 'f, S> {
    /// Reads a field, in the byte order of its type.
    #[track_caller]
    pub fn load<T: Cell>(self, field: Field<S, T>) -> Val<'f, T::Value> {
        self.ptr.load(field)
    }

    /// Writes a field.
    #[track_caller]
    pub fn store<T: Cell>(self, field: Field<S, T>, value: impl IntoVal<'f, T::Value>) {
        self.ptr.store(field, value);
    }
}

impl<'p, 'f, S> View<'p, 'f, S> {
    /// A part of it.
    #[track_caller]
    pub fn at<T>(self, field: Field<S, T>) -> View<'p, 'f, T> {
        View {
            ptr: self.ptr.at(field),
            packet: PhantomData,
        }
    }
}

impl<'p, 'f, S> View<'p, 'f, S> {
    /// The same bytes as another type of the same size.
    #[must_use]
    pub fn reinterpret<T>(self) -> View<'p, 'f, T> {
        const {
            assert!(
                size_of::<S>() == size_of::<T>(),
                "reinterpret keeps the size"
            )
        };
        View {
            ptr: Ptr::new(self.ptr.body, self.ptr.base, self.ptr.offset),
            packet: PhantomData,
        }
    }
}

impl<'p, 'f, T, const N: usize> View<'p, 'f, [T; N]> {
    /// The element of a constant index.
    #[track_caller]
    pub fn element(self, index: usize) -> View<'p, 'f, T> {
        View {
            ptr: self.ptr.element(index),
            packet: PhantomData,
        }
    }
}

impl<'f, T: Cell> View<'_, 'f, T> {
    /// Reads it.
    #[track_caller]
    pub fn read(self) -> Val<'f, T::Value> {
        self.ptr.read()
    }

    /// Writes it.
    #[track_caller]
    pub fn write(self, value: impl IntoVal<'f, T::Value>) {
        self.ptr.write(value);
    }
}

impl<'f> Function<'f, Xdp> {
    /// Grows (positive) or shrinks the packet at its end: `bpf_xdp_adjust_tail`. 0 or a negative error.
    #[track_caller]
    pub fn adjust_tail(self, packet: Packet<'f>, by: impl IntoVal<'f, i64>) -> Val<'f, i64> {
        let _ = packet;
        self.move_packet(helper::XDP_ADJUST_TAIL, by.operand(self.body))
    }

    /// Grows (negative) or shrinks the packet at its start: `bpf_xdp_adjust_head`. 0 or a negative error.
    #[track_caller]
    pub fn adjust_head(self, packet: Packet<'f>, by: impl IntoVal<'f, i64>) -> Val<'f, i64> {
        let _ = packet;
        self.move_packet(helper::XDP_ADJUST_HEAD, by.operand(self.body))
    }

    #[track_caller]
    fn move_packet(self, helper: u32, by: Operand) -> Val<'f, i64> {
        let arguments = vec![Arg::Value(self.context()), Arg::Value(by)];
        let result = self.body.helper(helper, arguments);
        // Helpers return an int: its sign is in the lower half.
        Val::<i64>::new(self.body, Operand::Reg(result))
    }
}

impl<'f> Function<'f, Tc> {
    /// Sends a clone out of an interface: `bpf_clone_redirect`. 0 or a negative error.
    #[track_caller]
    pub fn clone_redirect(
        self,
        packet: Packet<'f>,
        interface: Val<'f, u32>,
        flags: u64,
    ) -> Val<'f, i64> {
        let _ = packet;
        let arguments = vec![
            Arg::Value(self.context()),
            Arg::Value(interface.operand),
            Arg::Value(Operand::Const(flags)),
        ];
        Val::new(
            self.body,
            Operand::Reg(self.body.helper(helper::CLONE_REDIRECT, arguments)),
        )
    }

    /// Brings the first `bytes` of the packet into its linear part, writable: `bpf_skb_pull_data`. 0 or a negative error.
    #[track_caller]
    pub fn pull_data(self, packet: Packet<'f>, bytes: impl IntoVal<'f, u32>) -> Val<'f, i64> {
        let _ = packet;
        let bytes = bytes.operand(self.body);
        let arguments = vec![Arg::Value(self.context()), Arg::Value(bytes)];
        Val::new(
            self.body,
            Operand::Reg(self.body.helper(helper::SKB_PULL_DATA, arguments)),
        )
    }

    /// Corrects a transport checksum at `offset` for a change of `from` to `to`: `bpf_l4_csum_replace`, which knows
    /// whether the device will complete the sum. `flags`: `BPF_F_*` and the size of the values.
    #[track_caller]
    pub fn l4_csum_replace(
        self,
        packet: Packet<'f>,
        offset: Val<'f, u64>,
        from: Val<'f, u64>,
        to: Val<'f, u64>,
        flags: u64,
    ) -> Val<'f, i64> {
        let _ = packet;
        let arguments = vec![
            Arg::Value(self.context()),
            Arg::Value(offset.operand),
            Arg::Value(from.operand),
            Arg::Value(to.operand),
            Arg::Value(Operand::Const(flags)),
        ];
        Val::new(
            self.body,
            Operand::Reg(self.body.helper(helper::L4_CSUM_REPLACE, arguments)),
        )
    }
}
