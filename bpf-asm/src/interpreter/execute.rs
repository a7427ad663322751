//! What one operation does.

use super::arithmetic::{alu32, alu64, atomic, endian, holds32, holds64, sign_extended, truncated};
use super::cpu::{Cpu, Flow, pointer};
use super::fault::FaultKind;
use super::frame::{Callback, Return};
use super::image::{Hook, Op, fetches};
use super::state::State;
use super::value::{Pointer, Region, Value};
use crate::insn::{AluOp, AtomicOp, JumpOp, Reg, Size, Width};

impl Cpu {
    /// Carries out `op`. The program counter is already at the next one.
    #[inline]
    pub(super) fn execute(&mut self, state: &mut State, op: Op) -> Result<Flow, FaultKind> {
        match op {
            Op::Alu64Imm { op, dst, imm } => {
                let a = if op == AluOp::Mov {
                    Value::Scalar(0)
                } else {
                    self.read(dst)?
                };
                let value = match a {
                    Value::Scalar(a) => Value::Scalar(alu64(op, a, imm)),
                    _ => self.pointers(op, a, Value::Scalar(imm))?,
                };
                self.set(dst, value);
            }
            Op::Alu64Reg { op, dst, src } => {
                let b = self.read(src)?;
                let value = if op == AluOp::Mov {
                    b
                } else {
                    match (self.read(dst)?, b) {
                        (Value::Scalar(a), Value::Scalar(b)) => Value::Scalar(alu64(op, a, b)),
                        (a, b) => self.pointers(op, a, b)?,
                    }
                };
                self.set(dst, value);
            }
            Op::Alu32Imm { op, dst, imm } => {
                let a = if op == AluOp::Mov {
                    0
                } else {
                    self.number(dst)?
                };
                self.set(dst, Value::Scalar(u64::from(alu32(op, a as u32, imm))));
            }
            Op::Alu32Reg { op, dst, src } => {
                let b = self.number(src)?;
                let a = if op == AluOp::Mov {
                    0
                } else {
                    self.number(dst)?
                };
                self.set(dst, Value::Scalar(u64::from(alu32(op, a as u32, b as u32))));
            }
            Op::MovSx {
                width,
                bits,
                dst,
                src,
            } => {
                let value = sign_extended(bits, self.number(src)?);
                self.set(dst, Value::Scalar(narrowed(width, value)));
            }
            Op::Neg { width, dst } => {
                let value = self.number(dst)?.wrapping_neg();
                self.set(dst, Value::Scalar(narrowed(width, value)));
            }
            Op::Endian { kind, bits, dst } => {
                let value = endian(kind, bits, self.number(dst)?);
                self.set(dst, Value::Scalar(value));
            }
            Op::Const { dst, value } => self.set(dst, Value::Scalar(value)),
            Op::Address { dst, constant } => {
                let value = self.image.constants[constant as usize];
                self.set(dst, value);
            }
            Op::Load {
                size,
                signed,
                dst,
                base,
                offset,
            } => {
                let address = self.address(base, offset)?;
                let mut value = self.load(state, address, size)?;
                if signed && let Value::Scalar(number) = value {
                    value = Value::Scalar(sign_extended(8 * size.bytes(), number));
                }
                self.set(dst, value);
            }
            Op::StoreImm {
                size,
                base,
                offset,
                imm,
            } => {
                let address = self.address(base, offset)?;
                let value = Value::Scalar(i64::from(imm).cast_unsigned());
                self.store(state, address, size, value)?;
            }
            Op::StoreReg {
                size,
                base,
                offset,
                src,
            } => {
                let value = self.read(src)?;
                let address = self.address(base, offset)?;
                self.store(state, address, size, value)?;
            }
            Op::Atomic {
                size,
                op,
                base,
                offset,
                src,
            } => {
                self.atomic(state, size, op, (base, offset), src)?;
            }
            Op::LoadPacket {
                size,
                index,
                offset,
            } => return self.load_packet(size, index, offset),
            Op::Jump64Imm {
                op,
                dst,
                imm,
                target,
            } => {
                let imm = i64::from(imm).cast_unsigned();
                let holds = match self.read(dst)? {
                    Value::Scalar(a) => holds64(op, a, imm),
                    a => self.compare(op, a, Value::Scalar(imm))?,
                };
                self.jump_if(holds, target);
            }
            Op::Jump64Reg {
                op,
                dst,
                src,
                target,
            } => {
                let holds = match (self.read(dst)?, self.read(src)?) {
                    (Value::Scalar(a), Value::Scalar(b)) => holds64(op, a, b),
                    (a, b) => self.compare(op, a, b)?,
                };
                self.jump_if(holds, target);
            }
            Op::Jump32Imm {
                op,
                dst,
                imm,
                target,
            } => {
                let holds = holds32(op, self.number(dst)? as u32, imm.cast_unsigned());
                self.jump_if(holds, target);
            }
            Op::Jump32Reg {
                op,
                dst,
                src,
                target,
            } => {
                let holds = holds32(op, self.number(dst)? as u32, self.number(src)? as u32);
                self.jump_if(holds, target);
            }
            Op::Goto { target } => self.pc = target,
            Op::MayGoto { target } => match self.may_goto.checked_sub(1) {
                Some(left) => self.may_goto = left,
                None => self.pc = target,
            },
            Op::Call { helper } => return self.call(state, helper),
            Op::CallLocal { target } => {
                if self.lock.is_some() {
                    return Err(FaultKind::LockHeld("give it back before a call"));
                }
                let caller = self.caller();
                self.enter(target, Return::Caller(caller))?;
            }
            Op::Exit => return self.exit(state),
        }
        Ok(Flow::Next)
    }

    #[inline]
    fn set(&mut self, register: u8, value: Value) {
        self.registers[usize::from(register)] = value;
    }

    #[inline]
    fn jump_if(&mut self, holds: bool, target: u32) {
        if holds {
            self.pc = target;
        }
    }

    /// A register that must hold a number.
    #[inline]
    pub(super) fn number(&self, register: u8) -> Result<u64, FaultKind> {
        match self.registers[usize::from(register)] {
            Value::Scalar(value) => Ok(value),
            Value::Pointer(pointer) => Err(FaultKind::PointerArithmetic(pointer)),
            Value::Uninit => Err(FaultKind::UninitialisedRegister(
                Reg::new(register).unwrap_or(Reg::R0),
            )),
        }
    }

    /// 64-bit arithmetic of which at least one side is a pointer.
    fn pointers(&self, op: AluOp, a: Value, b: Value) -> Result<Value, FaultKind> {
        for value in [a, b] {
            if let Value::Pointer(pointer) = value
                && self.unchecked.contains(&pointer.region.lookup())
            {
                return Err(FaultKind::UncheckedLookup(pointer));
            }
        }
        pointer_alu(op, a, b)
    }

    /// Compares when one side is a pointer. Comparing with null settles a look-up.
    fn compare(&mut self, op: JumpOp, a: Value, b: Value) -> Result<bool, FaultKind> {
        let refused = FaultKind::PointerComparison(a, b);
        match (a, b) {
            (Value::Pointer(pointer), Value::Scalar(0))
            | (Value::Scalar(0), Value::Pointer(pointer)) => {
                let lookup = pointer.region.lookup();
                self.unchecked.retain(|unchecked| *unchecked != lookup);
                match op {
                    JumpOp::Eq => Ok(false),
                    JumpOp::Ne => Ok(true),
                    _ => Err(refused),
                }
            }
            (Value::Pointer(a), Value::Pointer(b)) => {
                for pointer in [a, b] {
                    if let Some(generation) = generation(pointer.region)
                        && generation != self.buffer.generation
                    {
                        return Err(FaultKind::StalePacketPointer(pointer));
                    }
                }
                let comparable = a.region == b.region
                    || generation(a.region).is_some() && generation(b.region).is_some();
                if !comparable || op == JumpOp::Set {
                    return Err(refused);
                }
                Ok(holds64(
                    op,
                    a.offset.cast_unsigned(),
                    b.offset.cast_unsigned(),
                ))
            }
            _ => Err(refused),
        }
    }

    fn atomic(
        &mut self,
        state: &mut State,
        size: Size,
        op: AtomicOp,
        (base, offset): (u8, i16),
        src: u8,
    ) -> Result<(), FaultKind> {
        let address = self.address(base, offset)?;
        match op {
            AtomicOp::LoadAcquire => {
                atomic_place(address, size)?;
                let value = self.load(state, address, size)?;
                self.set(src, value);
                return Ok(());
            }
            AtomicOp::StoreRelease => {
                atomic_place(address, size)?;
                let value = self.read(src)?;
                return self.store(state, address, size, value);
            }
            _ => {}
        }
        let operand = truncated(size, self.number(src)?);
        let expected = match op {
            AtomicOp::CompareExchange => truncated(size, self.number(0)?),
            _ => 0,
        };
        atomic_place(address, size)?;
        let old = match self.load(state, address, size)? {
            Value::Scalar(old) => old,
            Value::Pointer(_) | Value::Uninit => {
                return Err(FaultKind::PartOfPointer(address));
            }
        };
        let new = Value::Scalar(atomic(op, size, old, operand, expected));
        self.store(state, address, size, new)?;
        if op == AtomicOp::CompareExchange {
            self.set(0, Value::Scalar(old));
        } else if fetches(op) {
            self.set(src, Value::Scalar(old));
        }
        Ok(())
    }

    /// `BPF_ABS` and `BPF_IND`: a byte order conversion, and the program's end where the packet ends.
    fn load_packet(
        &mut self,
        size: Size,
        index: Option<u8>,
        offset: i32,
    ) -> Result<Flow, FaultKind> {
        if self.hook != Hook::Tc {
            return Err(FaultKind::Unsupported);
        }
        match self.read(6)? {
            Value::Pointer(Pointer {
                region: Region::Context,
                offset: 0,
            }) => {}
            found => {
                return Err(FaultKind::Argument {
                    helper: "the packet load",
                    argument: 6,
                    expected: "the context",
                    found,
                });
            }
        }
        let index = match index {
            Some(register) => self.number(register)? as u32,
            None => 0,
        };
        let at = i64::from(offset.wrapping_add_unsigned(index));
        let bytes = usize::from(size.bytes());
        let word = usize::try_from(at)
            .ok()
            .and_then(|at| self.buffer.packet().get(at..at + bytes))
            .map(|bytes| {
                bytes
                    .iter()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte))
            });
        self.registers[1..6].fill(Value::Uninit);
        match word {
            Some(word) => {
                self.set(0, Value::Scalar(word));
                Ok(Flow::Next)
            }
            None if self.frame > 0 => Err(FaultKind::Unsupported),
            None => Ok(Flow::Exited(0)),
        }
    }

    /// Returns from the function: to its caller, to the helper that called it, or from the program.
    fn exit(&mut self, state: &mut State) -> Result<Flow, FaultKind> {
        let after = std::mem::replace(&mut self.frames[self.frame].after, Return::End);
        match after {
            Return::Caller(caller) => {
                if let Value::Pointer(pointer) = self.read(0)?
                    && matches!(pointer.region, Region::Stack { frame, .. } if usize::from(frame) == self.frame)
                {
                    return Err(FaultKind::PointerReturned(pointer));
                }
                Ok(self.leave(caller))
            }
            Return::Callback { caller, next } => {
                let more = match self.read(0)? {
                    Value::Scalar(0) => true,
                    Value::Scalar(1) => false,
                    value => return Err(FaultKind::CallbackResult(value)),
                };
                let flow = self.leave(caller);
                self.iterate(state, next, more)?;
                Ok(flow)
            }
            Return::End => self.end(state),
        }
    }

    /// Calls an iterating helper's function again, or gives the helper's result.
    pub(super) fn iterate(
        &mut self,
        state: &State,
        callback: Callback,
        more: bool,
    ) -> Result<(), FaultKind> {
        let caller = self.caller();
        let next = match callback {
            Callback::Loop {
                entry,
                done,
                of,
                context,
            } if more && done < of => {
                self.registers[1] = Value::Scalar(done);
                self.registers[2] = context;
                let done = done + 1;
                (
                    entry,
                    Callback::Loop {
                        entry,
                        done,
                        of,
                        context,
                    },
                )
            }
            Callback::Elements {
                entry,
                map,
                mut left,
                done,
                context,
            } if more && !left.is_empty() => {
                let element = left.remove(0);
                let place = state.maps[map as usize].place(element, self.number);
                let lookup = 0;
                self.registers[1] = pointer(Region::Map { map, lookup }, 0);
                self.registers[2] = pointer(Region::MapKey { map, element }, 0);
                self.registers[3] = pointer(
                    Region::MapValue {
                        map,
                        element: place,
                        lookup,
                    },
                    0,
                );
                self.registers[4] = context;
                let done = done + 1;
                (
                    entry,
                    Callback::Elements {
                        entry,
                        map,
                        left,
                        done,
                        context,
                    },
                )
            }
            Callback::Loop { done, .. } | Callback::Elements { done, .. } => {
                self.registers[1..6].fill(Value::Uninit);
                self.registers[0] = Value::Scalar(done);
                return Ok(());
            }
        };
        let (entry, next) = next;
        self.enter(entry, Return::Callback { caller, next })
    }

    fn end(&mut self, state: &mut State) -> Result<Flow, FaultKind> {
        let r0 = match self.read(0)? {
            Value::Scalar(value) => value,
            Value::Pointer(pointer) => return Err(FaultKind::PointerReturned(pointer)),
            Value::Uninit => return Err(FaultKind::UninitialisedRegister(Reg::R0)),
        };
        if self.lock.is_some() {
            return Err(FaultKind::LockHeld("give it back before the program ends"));
        }
        if let Some((record, open)) = (0..).zip(&self.records).find(|(_, record)| record.open) {
            let lookup = open.lookup;
            return Err(FaultKind::UnreleasedRecord(Pointer {
                region: Region::Record { record, lookup },
                offset: 0,
            }));
        }
        self.send_redirected(state, r0)?;
        Ok(Flow::Exited(r0))
    }
}

fn narrowed(width: Width, value: u64) -> u64 {
    match width {
        Width::W32 => value & 0xffff_ffff,
        Width::W64 => value,
    }
}

fn generation(region: Region) -> Option<u32> {
    match region {
        Region::Packet { generation }
        | Region::PacketMeta { generation }
        | Region::PacketEnd { generation } => Some(generation),
        _ => None,
    }
}

/// Addition and subtraction of pointers, as far as they say nothing of addresses.
fn pointer_alu(op: AluOp, a: Value, b: Value) -> Result<Value, FaultKind> {
    let movable = |pointer: Pointer| {
        let fixed = matches!(
            pointer.region,
            Region::Map { .. }
                | Region::PacketEnd { .. }
                | Region::Function { .. }
                | Region::Context
        );
        if fixed {
            Err(FaultKind::PointerArithmetic(pointer))
        } else {
            Ok(pointer)
        }
    };
    let moved = |at: Pointer, by: u64| {
        let at = movable(at)?;
        Ok(pointer(at.region, at.offset.wrapping_add_unsigned(by)))
    };
    match (op, a, b) {
        (AluOp::Add, Value::Pointer(at), Value::Scalar(by))
        | (AluOp::Add, Value::Scalar(by), Value::Pointer(at)) => moved(at, by),
        (AluOp::Sub, Value::Pointer(at), Value::Scalar(by)) => moved(at, by.wrapping_neg()),
        (AluOp::Sub, Value::Pointer(a), Value::Pointer(b))
            if a.region == b.region
                || generation(a.region).is_some()
                    && generation(a.region) == generation(b.region) =>
        {
            Ok(Value::Scalar(
                a.offset.wrapping_sub(b.offset).cast_unsigned(),
            ))
        }
        (_, Value::Pointer(pointer), _) | (_, _, Value::Pointer(pointer)) => {
            Err(FaultKind::PointerArithmetic(pointer))
        }
        _ => Err(FaultKind::Unsupported),
    }
}

/// Atomics work on the stack, on map values and on what a raw program was given; aligned.
fn atomic_place(pointer: Pointer, size: Size) -> Result<(), FaultKind> {
    let allowed = matches!(
        pointer.region,
        Region::Stack { .. } | Region::MapValue { .. } | Region::Memory | Region::Record { .. }
    );
    if !allowed {
        let how = "accessed atomically";
        return Err(FaultKind::Forbidden { pointer, how });
    }
    // Alignment matters where others may look.
    if pointer.region != Region::Memory && pointer.offset.rem_euclid(i64::from(size.bytes())) != 0 {
        let bytes = size.bytes();
        return Err(FaultKind::Misaligned { pointer, bytes });
    }
    Ok(())
}
