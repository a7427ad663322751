//! Ring buffers, and records in them.

use super::definition;
use super::lookup::non_null;
use crate::builder::error::BuildErrorKind;
use crate::builder::function::{Function, Kind};
use crate::builder::ir::{Arg, Base, Op, Operand};
use crate::builder::memory::Ptr;
use crate::builder::value::{IntoVal, Val};
use crate::helper;
use crate::program::MapType;

/// A ring buffer: `BPF_MAP_TYPE_RINGBUF`.
#[derive(Clone, Copy, Debug)]
pub struct RingBuf {
    name: &'static str,
    bytes: u32,
}

/// Flags of [`Record::submit`] and [`RingBuf::output`]: the reader isn't woken.
pub const BPF_RB_NO_WAKEUP: u64 = 1;
/// Flags of [`Record::submit`] and [`RingBuf::output`]: the reader is woken.
pub const BPF_RB_FORCE_WAKEUP: u64 = 2;
/// [`RingBuf::query`]: bytes that haven't been read.
pub const BPF_RB_AVAIL_DATA: u64 = 0;

impl RingBuf {
    /// A ring of this many bytes: a power of two and a multiple of the page size.
    #[must_use]
    pub const fn new(name: &'static str, bytes: u32) -> RingBuf {
        RingBuf { name, bytes }
    }

    fn arg<'f, K: Kind>(&self, f: Function<'f, K>) -> Arg {
        Arg::Map(f.body.map(definition(
            self.name,
            MapType::RingBuf,
            [0, 0],
            self.bytes,
            0,
        )))
    }

    /// Room for an `R`; `full` when there is none, and must end the program or leave the loop. The record has to be
    /// submitted or discarded on every path.
    #[track_caller]
    pub fn reserve<'f, R, K: Kind>(
        &self,
        f: Function<'f, K>,
        full: impl FnOnce(),
    ) -> Record<'f, R> {
        let body = f.body;
        if size_of::<R>() as u64 >= u64::from(self.bytes) {
            body.fail(BuildErrorKind::OutOfRange {
                index: size_of::<R>() as u64,
                len: u64::from(self.bytes),
            });
        }
        let size = Arg::Value(Operand::Const(size_of::<R>() as u64));
        let record = body.pointer_helper(
            helper::RINGBUF_RESERVE,
            vec![self.arg(f), size, Arg::Value(Operand::Const(0))],
        );
        non_null(body, record, full);
        let number = {
            let records = &mut body.state.borrow_mut().records;
            records.push(std::panic::Location::caller());
            records.len() - 1
        };
        body.emit(Op::OpenRecord(number));
        Record {
            ptr: Ptr::new(body, Base::Reg(record), 0),
            register: record,
            number,
        }
    }

    /// Copies `S` into the ring; 0, or a negative error when there is no room.
    #[track_caller]
    pub fn output<'f, S, K: Kind>(
        &self,
        f: Function<'f, K>,
        data: Ptr<'f, S>,
        flags: impl IntoVal<'f, u64>,
    ) -> Val<'f, i64> {
        let flags = flags.operand(f.body);
        let arguments = vec![
            self.arg(f),
            Arg::Address(data.base, data.offset),
            Arg::Value(Operand::Const(size_of::<S>() as u64)),
            Arg::Value(flags),
        ];
        Val::new(
            f.body,
            Operand::Reg(f.body.helper(helper::RINGBUF_OUTPUT, arguments)),
        )
    }

    /// What the ring says of itself (`BPF_RB_*`).
    #[track_caller]
    pub fn query<'f, K: Kind>(&self, f: Function<'f, K>, what: u64) -> Val<'f, u64> {
        let arguments = vec![self.arg(f), Arg::Value(Operand::Const(what))];
        Val::new(
            f.body,
            Operand::Reg(f.body.helper(helper::RINGBUF_QUERY, arguments)),
        )
    }
}

/// A reserved record.
pub struct Record<'f, R> {
    ptr: Ptr<'f, R>,
    register: u32,
    number: usize,
}

impl<R> Clone for Record<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Record<'_, R> {}

impl<'f, R> Record<'f, R> {
    /// Its memory. Not to be used after it is submitted or discarded.
    #[must_use]
    pub fn ptr(self) -> Ptr<'f, R> {
        self.ptr
    }

    /// Gives it to the reader.
    #[track_caller]
    pub fn submit(self, flags: impl IntoVal<'f, u64>) {
        let flags = flags.operand(self.ptr.body);
        self.close(helper::RINGBUF_SUBMIT, flags);
    }

    /// Gives its room back.
    #[track_caller]
    pub fn discard(self, flags: impl IntoVal<'f, u64>) {
        let flags = flags.operand(self.ptr.body);
        self.close(helper::RINGBUF_DISCARD, flags);
    }

    #[track_caller]
    fn close(self, helper: u32, flags: Operand) {
        let body = self.ptr.body;
        body.emit(Op::CloseRecord(self.number));
        body.helper(
            helper,
            vec![Arg::Value(Operand::Reg(self.register)), Arg::Value(flags)],
        );
    }
}
