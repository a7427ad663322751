//! Helpers: their arguments are checked as the verifier does, then they do what the kernel's do.

mod checksum;
mod maps;
mod packet;
mod print;
mod ring;
mod routes;
mod skb;

use super::cpu::{Cpu, Flow};
use super::fault::FaultKind;
use super::frame::Callback;
use super::image::Hook;
use super::state::State;
use super::value::{Pointer, Region, Value};
use crate::insn::{Insn, Reg};

/// The longest buffer that a helper is given.
const MAX_BUFFER_BYTES: u64 = 1 << 20;
/// `BPF_MAX_LOOPS`.
const MAX_LOOPS: u64 = 8 << 20;

/// The helper that is being called, for errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Helper {
    number: u32,
    name: &'static str,
}

impl Helper {
    fn argument(self, argument: u8, expected: &'static str, found: Value) -> FaultKind {
        FaultKind::Argument {
            helper: self.name,
            argument,
            expected,
            found,
        }
    }
}

/// A helper that ends like a function: its result, and r1 to r5 are gone.
type Returned = Result<u64, FaultKind>;

impl Cpu {
    /// Calls a helper.
    pub(super) fn call(&mut self, state: &mut State, number: u32) -> Result<Flow, FaultKind> {
        let helper = Helper {
            number,
            name: Insn::helper_name(number).unwrap_or("?"),
        };
        if self.lock.is_some() && number != 94 {
            return Err(FaultKind::LockHeld("only bpf_spin_unlock may be called"));
        }
        let value = match number {
            // Those whose result is a pointer, or that don't simply return.
            1 => self.map_lookup(state, helper, self.number)?,
            195 => {
                let cpu = self.scalar(helper, 3)?;
                match u32::try_from(cpu).ok().filter(|cpu| *cpu < state.cpus) {
                    Some(cpu) => self.map_lookup(state, helper, cpu)?,
                    None => Value::Scalar(0),
                }
            }
            131 => self.ringbuf_reserve(state, helper)?,
            12 => return self.tail_call(state, helper),
            93 => return self.spin_lock(state, helper),
            164 | 181 => return self.start_iteration(state, helper),
            94 | 132 | 133 => {
                // They return nothing.
                self.returning(state, helper)?;
                Value::Uninit
            }
            _ => Value::Scalar(self.returning(state, helper)?),
        };
        self.registers[1..6].fill(Value::Uninit);
        self.registers[0] = value;
        Ok(Flow::Next)
    }

    fn returning(&mut self, state: &mut State, helper: Helper) -> Returned {
        let (xdp, tc) = (self.hook == Hook::Xdp, self.hook == Hook::Tc);
        match helper.number {
            2 => self.map_update(state, helper),
            3 => self.map_delete(state, helper),
            // Monotonic, boot, coarse and TAI clocks are one here.
            5 | 125 | 160 | 208 => Ok(state.time_ns),
            118 => Ok(state.time_ns / 4_000_000),
            6 => self.trace_printk(state, helper),
            177 => self.trace_vprintk(state, helper),
            165 => self.snprintf(state, helper),
            7 => Ok(u64::from(state.random.next())),
            8 => Ok(u64::from(self.number)),
            42 => Ok(0),
            28 => self.csum_diff(state, helper),
            87 => self.map_push(state, helper),
            88 | 89 => self.map_pop(state, helper),
            94 => self.spin_unlock(state, helper),
            130 => self.ringbuf_output(state, helper),
            132 | 133 => self.ringbuf_close(state, helper),
            134 => self.ringbuf_query(state, helper),
            182 => self.strncmp(state, helper),
            23 if xdp || tc => self.redirect(helper),
            51 if xdp => self.redirect_map(state, helper),
            69 if xdp || tc => self.fib_lookup(state, helper),
            163 if xdp || tc => self.check_mtu(state, helper),
            44 | 54 | 65 if xdp => self.xdp_adjust(helper),
            188 if xdp => {
                self.context_argument(helper, 1)?;
                Ok(self.buffer.len() as u64)
            }
            189 | 190 if xdp => self.xdp_bytes(state, helper),
            9 | 26 | 68 if tc => self.skb_bytes(state, helper),
            10 | 11 if tc => self.csum_replace(helper),
            13 if tc => self.clone_redirect(state, helper),
            18 | 19 | 31 | 32 | 38 | 39 | 43 | 50 if tc => self.skb_change(helper),
            34 | 40 | 41 | 48 | 135 if tc => self.skb_hash_and_sum(helper),
            155 if tc => self.redirect_peer(helper),
            helper_number => Err(FaultKind::UnknownHelper {
                helper: helper_number,
                name: helper.name,
            }),
        }
    }

    /// Argument `n`, from 1.
    pub(super) fn argument(&self, n: u8) -> Result<Value, FaultKind> {
        match self.registers[usize::from(n)] {
            Value::Uninit => Err(FaultKind::UninitialisedRegister(
                Reg::new(n).unwrap_or(Reg::R0),
            )),
            value => Ok(value),
        }
    }

    /// A number.
    pub(super) fn scalar(&self, helper: Helper, n: u8) -> Result<u64, FaultKind> {
        match self.argument(n)? {
            Value::Scalar(value) => Ok(value),
            found => Err(helper.argument(n, "a number", found)),
        }
    }

    /// The context, unmoved.
    pub(super) fn context_argument(&self, helper: Helper, n: u8) -> Result<(), FaultKind> {
        match self.argument(n)? {
            Value::Pointer(Pointer {
                region: Region::Context,
                offset: 0,
            }) => Ok(()),
            found => Err(helper.argument(n, "the context", found)),
        }
    }

    /// A map.
    pub(super) fn map_argument(&self, helper: Helper, n: u8) -> Result<u32, FaultKind> {
        match self.argument(n)? {
            Value::Pointer(
                pointer @ Pointer {
                    region: Region::Map { map, lookup },
                    offset: 0,
                },
            ) => {
                if lookup != 0 && self.unchecked.contains(&lookup) {
                    return Err(FaultKind::UncheckedLookup(pointer));
                }
                Ok(map)
            }
            found => Err(helper.argument(n, "a map", found)),
        }
    }

    /// Memory.
    pub(super) fn pointer_argument(&self, helper: Helper, n: u8) -> Result<Pointer, FaultKind> {
        match self.argument(n)? {
            Value::Pointer(pointer) => Ok(pointer),
            Value::Scalar(0) => Err(FaultKind::NullPointer),
            found => Err(helper.argument(n, "a pointer", found)),
        }
    }

    /// Memory in argument `n` whose length is in the next one, copied; null is no bytes.
    pub(super) fn buffer_argument(
        &self,
        state: &State,
        helper: Helper,
        n: u8,
        length: u64,
    ) -> Result<Vec<u8>, FaultKind> {
        if length == 0 {
            return Ok(Vec::new());
        }
        if length > MAX_BUFFER_BYTES {
            return Err(helper.argument(n + 1, "a length", Value::Scalar(length)));
        }
        let pointer = self.pointer_argument(helper, n)?;
        let mut bytes = vec![0; length as usize];
        self.read_bytes(state, pointer, &mut bytes)?;
        Ok(bytes)
    }

    /// `bpf_strncmp`: at most so many bytes of a string with a constant one.
    fn strncmp(&mut self, state: &State, helper: Helper) -> Returned {
        let length = self.scalar(helper, 2)?;
        let a = self.buffer_argument(state, helper, 1, length)?;
        let at = self.pointer_argument(helper, 3)?;
        for (offset, byte) in (0..).zip(a) {
            let mut other = [0];
            let place = Pointer {
                offset: at.offset + offset,
                ..at
            };
            self.read_bytes(state, place, &mut other)?;
            if byte != other[0] {
                let difference = i64::from(byte) - i64::from(other[0]);
                return Ok(difference.cast_unsigned());
            }
            if byte == 0 {
                break;
            }
        }
        Ok(0)
    }

    /// `bpf_tail_call`: goes on in another program, or simply goes on.
    fn tail_call(&mut self, state: &State, helper: Helper) -> Result<Flow, FaultKind> {
        self.context_argument(helper, 1)?;
        let map = self.map_argument(helper, 2)?;
        let index = self.scalar(helper, 3)? as u32;
        if (0..=self.frame).any(|frame| self.frames[frame].is_callback()) {
            return Err(FaultKind::TailCallFromCallback);
        }
        if self.records.iter().any(|record| record.open) {
            // The verifier lets no reference live across it.
            return Err(FaultKind::UnreleasedRecord(self.open_record()));
        }
        let target = self.tail_target(state, helper, map, index)?;
        match target {
            Some(image) if self.tail_calls < super::cpu::MAX_TAIL_CALLS => {
                self.tail_calls += 1;
                self.switch(image);
                Ok(Flow::Switched)
            }
            _ => {
                self.registers[0..6].fill(Value::Uninit);
                Ok(Flow::Next)
            }
        }
    }

    fn open_record(&self) -> Pointer {
        let open = (0..).zip(&self.records).find(|(_, record)| record.open);
        let (record, lookup) = open.map_or((0, 0), |(at, record)| (at, record.lookup));
        Pointer {
            region: Region::Record { record, lookup },
            offset: 0,
        }
    }

    /// `bpf_loop` and `bpf_for_each_map_elem`.
    fn start_iteration(&mut self, state: &State, helper: Helper) -> Result<Flow, FaultKind> {
        let function = |cpu: &Cpu, n| match cpu.argument(n)? {
            Value::Pointer(Pointer {
                region: Region::Function { entry },
                ..
            }) => Ok(entry),
            found => Err(helper.argument(n, "a function of this program", found)),
        };
        let entry = function(self, 2)?;
        let context = self.argument(3)?;
        let flags = self.scalar(helper, 4)?;
        let einval = Value::Scalar(super::Errno::EINVAL.result());
        let callback = if helper.number == 181 {
            let of = self.scalar(helper, 1)? & 0xffff_ffff;
            if of > MAX_LOOPS || flags != 0 {
                self.registers[1..6].fill(Value::Uninit);
                let e2big = Value::Scalar(super::Errno::E2BIG.result());
                self.registers[0] = if flags != 0 { einval } else { e2big };
                return Ok(Flow::Next);
            }
            Callback::Loop {
                entry,
                done: 0,
                of,
                context,
            }
        } else {
            let map = self.map_argument(helper, 1)?;
            if !state.maps[map as usize].kind.has_values() {
                return Err(self.wrong_map(state, helper, map));
            }
            if flags != 0 {
                self.registers[1..6].fill(Value::Uninit);
                self.registers[0] = einval;
                return Ok(Flow::Next);
            }
            Callback::Elements {
                entry,
                map,
                left: state.maps[map as usize].elements(),
                done: 0,
                context,
            }
        };
        self.iterate(state, callback, true)?;
        Ok(Flow::Next)
    }
}
