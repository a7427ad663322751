//! Maps with typed keys and values, declared once as constants.

use std::marker::PhantomData;

use super::error::BuildErrorKind;
use super::function::{Function, Kind};
use super::ir::{Arg, Base, Op, Operand, Terminator};
use super::memory::Ptr;
use super::packet::check;
use super::value::{IntoVal, Val};
use crate::insn::{JumpOp, Width};
use crate::program::{MapDef, MapType};

/// `BPF_F_MMAPABLE` of linux/bpf.h: user space may map the values into its memory.
const MMAPABLE: u32 = 1 << 10;

/// An array of `V`: `BPF_MAP_TYPE_ARRAY`, or one per CPU.
#[derive(Clone, Copy, Debug)]
pub struct Array<V> {
    name: &'static str,
    entries: u32,
    flags: u32,
    map_type: MapType,
    of: PhantomData<fn() -> V>,
}

impl<V> Array<V> {
    /// An array shared by all CPUs.
    #[must_use]
    pub const fn new(name: &'static str, entries: u32) -> Array<V> {
        Array {
            name,
            entries,
            flags: 0,
            map_type: MapType::Array,
            of: PhantomData,
        }
    }

    /// An array of which each CPU has its own.
    #[must_use]
    pub const fn per_cpu(name: &'static str, entries: u32) -> Array<V> {
        Array {
            name,
            entries,
            flags: 0,
            map_type: MapType::PerCpuArray,
            of: PhantomData,
        }
    }

    /// The same, such that user space can map it into its memory.
    #[must_use]
    pub const fn mmapable(self) -> Array<V> {
        Array {
            flags: self.flags | MMAPABLE,
            ..self
        }
    }

    fn definition(&self) -> MapDef {
        MapDef {
            name: self.name.to_owned(),
            map_type: self.map_type,
            key_size: 4,
            value_size: u32::try_from(size_of::<V>()).unwrap_or(u32::MAX),
            max_entries: self.entries,
            flags: self.flags,
        }
    }

    /// The value at an index; `missing` when there is none, and must end the program or leave the loop.
    #[track_caller]
    pub fn lookup<'f, K: Kind>(
        &self,
        f: Function<'f, K>,
        index: impl IntoVal<'f, u32>,
        missing: impl FnOnce(),
    ) -> Ptr<'f, V> {
        let body = f.body;
        let index = index.operand(body);
        let map = body.map(self.definition());
        let key = Base::Stack(body.key_buffer(4));
        body.store(crate::insn::Size::W, key, 0, index);
        let value = body.pointer_helper(1, vec![Arg::Map(map), Arg::Address(key, 0)]);
        non_null(body, value, missing);
        Ptr::new(body, Base::Reg(value), 0)
    }
}

#[track_caller]
fn non_null(body: &super::ir::Body, pointer: u32, or_else: impl FnOnce()) {
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

/// Programs to jump to: `BPF_MAP_TYPE_PROG_ARRAY`.
#[derive(Clone, Copy, Debug)]
pub struct ProgArray {
    name: &'static str,
    entries: u32,
}

impl ProgArray {
    /// A jump table.
    #[must_use]
    pub const fn new(name: &'static str, entries: u32) -> ProgArray {
        ProgArray { name, entries }
    }

    /// Goes on in the program at `index`, and doesn't come back; goes on behind the call when there is none.
    #[track_caller]
    pub fn tail_call<'f, K: Kind>(&self, f: Function<'f, K>, index: impl IntoVal<'f, u32>) {
        let index = index.operand(f.body);
        let map = f.body.map(MapDef {
            name: self.name.to_owned(),
            map_type: MapType::ProgArray,
            key_size: 4,
            value_size: 4,
            max_entries: self.entries,
            flags: 0,
        });
        f.body.helper(
            12,
            vec![Arg::Value(f.context()), Arg::Map(map), Arg::Value(index)],
        );
    }
}

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
        Arg::Map(f.body.map(MapDef {
            name: self.name.to_owned(),
            map_type: MapType::RingBuf,
            key_size: 0,
            value_size: 0,
            max_entries: self.bytes,
            flags: 0,
        }))
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
        let record =
            body.pointer_helper(131, vec![self.arg(f), size, Arg::Value(Operand::Const(0))]);
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
        Val::new(f.body, Operand::Reg(f.body.helper(130, arguments)))
    }

    /// What the ring says of itself (`BPF_RB_*`).
    #[track_caller]
    pub fn query<'f, K: Kind>(&self, f: Function<'f, K>, what: u64) -> Val<'f, u64> {
        let arguments = vec![self.arg(f), Arg::Value(Operand::Const(what))];
        Val::new(f.body, Operand::Reg(f.body.helper(134, arguments)))
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
        self.close(132, flags);
    }

    /// Gives its room back.
    #[track_caller]
    pub fn discard(self, flags: impl IntoVal<'f, u64>) {
        let flags = flags.operand(self.ptr.body);
        self.close(133, flags);
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
