//! Loads, stores, and the byte ranges of helpers: every access is checked against the region that its pointer is of.

use super::cpu::Cpu;
use super::fault::FaultKind;
use super::frame::STACK_BYTES;
use super::map::Kind;
use super::state::State;
use super::value::{Pointer, Region, Value};
use crate::insn::{Reg, Size};

/// Bytes that an access may touch, resolved.
#[derive(Clone, Copy, Debug)]
enum Place {
    Stack { frame: usize, at: usize },
    Packet { at: usize },
    Value { map: usize, at: usize },
    Record { record: usize, at: usize },
    Memory { at: usize },
    Key { map: usize, element: u32, at: usize },
}

impl Cpu {
    /// A register's value, if it has one.
    #[inline]
    pub(super) fn read(&self, register: u8) -> Result<Value, FaultKind> {
        match self.registers[usize::from(register)] {
            Value::Uninit => Err(uninitialised(register)),
            value => Ok(value),
        }
    }

    /// The address `register + offset`.
    #[inline]
    pub(super) fn address(&self, register: u8, offset: i16) -> Result<Pointer, FaultKind> {
        match self.registers[usize::from(register)] {
            Value::Pointer(Pointer {
                region,
                offset: from,
            }) => Ok(Pointer {
                region,
                offset: from.wrapping_add(i64::from(offset)),
            }),
            Value::Scalar(0) => Err(FaultKind::NullPointer),
            value @ Value::Scalar(_) => Err(FaultKind::NotAPointer { value }),
            Value::Uninit => Err(uninitialised(register)),
        }
    }

    /// Reads a word.
    #[inline]
    pub(super) fn load(
        &mut self,
        state: &State,
        pointer: Pointer,
        size: Size,
    ) -> Result<Value, FaultKind> {
        let bytes = usize::from(size.bytes());
        if pointer.region == Region::Context {
            return self
                .context
                .load(&self.buffer, pointer.offset, size.bytes());
        }
        let word = |memory: &[u8], at: usize| Ok(Value::Scalar(read_word(memory, at, size)));
        match self.place(state, pointer, bytes as u64, false)? {
            Place::Stack { frame, at } => {
                aligned(pointer, at, size)?;
                self.frames[frame].load(at, size)
            }
            Place::Packet { at } => word(&self.buffer.bytes, at),
            Place::Value { map, at } => word(&state.maps[map].values, at),
            Place::Memory { at } => word(&self.memory, at),
            Place::Record { record, at } => {
                let mut read = [0; 8];
                let record = self.records[record];
                if let Some(ring) = state.ring(record.map) {
                    ring.read_record(record.reservation, at, &mut read[..bytes]);
                }
                Ok(Value::Scalar(u64::from_le_bytes(read)))
            }
            Place::Key { map, element, at } => word(&state.maps[map].key(element), at),
        }
    }

    /// Writes a word.
    #[inline]
    pub(super) fn store(
        &mut self,
        state: &mut State,
        pointer: Pointer,
        size: Size,
        value: Value,
    ) -> Result<(), FaultKind> {
        let bytes = usize::from(size.bytes());
        if let Region::Stack { .. } = pointer.region
            && let Place::Stack { frame, at } = self.place(state, pointer, bytes as u64, true)?
        {
            aligned(pointer, at, size)?;
            self.deepen(frame, at)?;
            return self.frames[frame].store(at, size, value);
        }
        let number = match value {
            Value::Scalar(number) => number,
            Value::Pointer(leaked) => {
                return Err(FaultKind::PointerLeak {
                    pointer: leaked,
                    region: pointer.region,
                });
            }
            Value::Uninit => return Err(FaultKind::NotAPointer { value }),
        };
        if pointer.region == Region::Context {
            return self.context.store(pointer.offset, size.bytes(), number);
        }
        match self.place(state, pointer, bytes as u64, true)? {
            Place::Packet { at } => write_word(&mut self.buffer.bytes, at, size, number),
            Place::Value { map, at } => write_word(&mut state.maps[map].values, at, size, number),
            Place::Memory { at } => write_word(&mut self.memory, at, size, number),
            place => return self.put(state, place, &number.to_le_bytes()[..bytes]),
        }
        Ok(())
    }

    /// Copies what a helper reads.
    pub(super) fn read_bytes(
        &self,
        state: &State,
        pointer: Pointer,
        out: &mut [u8],
    ) -> Result<(), FaultKind> {
        if out.is_empty() {
            return Ok(());
        }
        match self.place(state, pointer, out.len() as u64, false)? {
            Place::Stack { frame, at } => return self.frames[frame].read(at, out),
            Place::Packet { at } => out.copy_from_slice(&self.buffer.bytes[at..at + out.len()]),
            Place::Value { map, at } => {
                out.copy_from_slice(&state.maps[map].values[at..at + out.len()]);
            }
            Place::Memory { at } => out.copy_from_slice(&self.memory[at..at + out.len()]),
            Place::Record { record, at } => {
                let record = self.records[record];
                if let Some(ring) = state.ring(record.map) {
                    ring.read_record(record.reservation, at, out);
                }
            }
            Place::Key { map, element, at } => {
                out.copy_from_slice(&state.maps[map].key(element)[at..at + out.len()]);
            }
        }
        Ok(())
    }

    /// Copies what a helper writes.
    pub(super) fn write_bytes(
        &mut self,
        state: &mut State,
        pointer: Pointer,
        bytes: &[u8],
    ) -> Result<(), FaultKind> {
        if bytes.is_empty() {
            return Ok(());
        }
        let place = self.place(state, pointer, bytes.len() as u64, true)?;
        self.put(state, place, bytes)
    }

    fn put(&mut self, state: &mut State, place: Place, bytes: &[u8]) -> Result<(), FaultKind> {
        let length = bytes.len();
        match place {
            Place::Stack { frame, at } => {
                self.deepen(frame, at)?;
                self.frames[frame].write(at, bytes);
            }
            Place::Packet { at } => self.buffer.bytes[at..at + length].copy_from_slice(bytes),
            Place::Value { map, at } => {
                state.maps[map].values[at..at + length].copy_from_slice(bytes);
            }
            Place::Memory { at } => self.memory[at..at + length].copy_from_slice(bytes),
            Place::Record { record, at } => {
                let record = self.records[record];
                if let Some(ring) = state.ring_mut(record.map) {
                    ring.write_record(record.reservation, at, bytes);
                }
            }
            // `place` gives no key to a writer.
            Place::Key { .. } => {}
        }
        Ok(())
    }

    /// Checks an access of `bytes` bytes, at least one.
    #[inline]
    fn place(
        &self,
        state: &State,
        pointer: Pointer,
        bytes: u64,
        write: bool,
    ) -> Result<Place, FaultKind> {
        let lookup = pointer.region.lookup();
        if lookup != 0 && self.unchecked.contains(&lookup) {
            return Err(FaultKind::UncheckedLookup(pointer));
        }
        let within = |from: i64, to: i64| {
            let end = pointer.offset.checked_add_unsigned(bytes);
            if pointer.offset < from || end.is_none_or(|end| end > to) {
                return Err(out_of_bounds(pointer, bytes, from, to));
            }
            Ok(pointer.offset as usize)
        };
        let fresh = |generation| {
            if generation == self.buffer.generation {
                Ok(())
            } else {
                Err(FaultKind::StalePacketPointer(pointer))
            }
        };
        let how = if write { "written" } else { "read" };
        Ok(match pointer.region {
            Region::Stack { frame, serial } => {
                let frame = usize::from(frame);
                if frame > self.frame || self.frames[frame].serial != serial {
                    return Err(FaultKind::DanglingStackPointer(pointer));
                }
                let size = STACK_BYTES as i64;
                let at = pointer.offset.wrapping_add(size);
                let end = at.checked_add_unsigned(bytes);
                if at < 0 || end.is_none_or(|end| end > size) {
                    return Err(out_of_bounds(pointer, bytes, -size, 0));
                }
                let at = at as usize;
                Place::Stack { frame, at }
            }
            Region::Packet { generation } => {
                fresh(generation)?;
                let (from, to) = (self.buffer.data as i64, self.buffer.end as i64);
                let at = within(from, to)?;
                Place::Packet { at }
            }
            Region::PacketMeta { generation } => {
                fresh(generation)?;
                let (from, to) = (self.buffer.meta as i64, self.buffer.data as i64);
                let at = within(from, to)?;
                Place::Packet { at }
            }
            Region::MapValue { map, element, .. } => {
                let map = map as usize;
                let state = &state.maps[map];
                let allowed = if write {
                    state.writable_by_programs()
                } else {
                    state.readable_by_programs()
                };
                if !allowed {
                    return Err(FaultKind::Forbidden { pointer, how });
                }
                let at = within(0, state.value_size as i64)?;
                let at = element as usize * state.stride + at;
                Place::Value { map, at }
            }
            Region::Record { record, .. } => {
                let record = record as usize;
                if !self.records[record].open {
                    return Err(FaultKind::ClosedRecord(pointer));
                }
                let length = self.records[record].reservation.length;
                let at = within(0, i64::from(length))?;
                Place::Record { record, at }
            }
            Region::Memory => {
                let at = within(0, self.memory.len() as i64)?;
                Place::Memory { at }
            }
            Region::MapKey { map, element } if !write => {
                let map = map as usize;
                let at = within(0, state.maps[map].key_size as i64)?;
                Place::Key { map, element, at }
            }
            Region::MapKey { .. }
            | Region::Context
            | Region::PacketEnd { .. }
            | Region::Map { .. }
            | Region::Function { .. } => return Err(FaultKind::Forbidden { pointer, how }),
        })
    }

    /// Notes that a frame's stack is used down to `at`.
    #[inline]
    fn deepen(&mut self, frame: usize, at: usize) -> Result<(), FaultKind> {
        let depth = STACK_BYTES - at;
        if depth > self.frames[frame].depth {
            self.frames[frame].depth = depth;
            self.check_stack()?;
        }
        Ok(())
    }

    /// Whether an access through this pointer is one that other CPUs or user space may see.
    pub(super) fn is_shared(&self, state: &State, value: Value) -> bool {
        match value {
            Value::Pointer(Pointer {
                region: Region::MapValue { map, .. },
                ..
            }) => state.maps[map as usize].shared,
            _ => false,
        }
    }

    /// Whether a helper's map argument is one whose look-ups depend on what others do.
    pub(super) fn is_mutable_index(state: &State, value: Value) -> bool {
        match value {
            Value::Pointer(Pointer {
                region: Region::Map { map, .. },
                ..
            }) => {
                let map = &state.maps[map as usize];
                !matches!(map.kind, Kind::Array | Kind::PerCpuArray) && map.shared
            }
            _ => false,
        }
    }
}

/// The word at `at`, whose bytes were found to be there. A match by size, since copies of variable length are slow.
#[inline]
pub(super) fn read_word(memory: &[u8], at: usize, size: Size) -> u64 {
    match size {
        Size::B => u64::from(memory[at]),
        Size::H => u64::from(u16::from_le_bytes(array(memory, at))),
        Size::W => u64::from(u32::from_le_bytes(array(memory, at))),
        Size::DW => u64::from_le_bytes(array(memory, at)),
    }
}

/// Writes the word at `at`, whose bytes were found to be there.
#[inline]
pub(super) fn write_word(memory: &mut [u8], at: usize, size: Size, value: u64) {
    match size {
        Size::B => memory[at] = value as u8,
        Size::H => memory[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes()),
        Size::W => memory[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes()),
        Size::DW => memory[at..at + 8].copy_from_slice(&value.to_le_bytes()),
    }
}

#[inline]
fn array<const N: usize>(memory: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&memory[at..at + N]);
    bytes
}

fn uninitialised(register: u8) -> FaultKind {
    FaultKind::UninitialisedRegister(Reg::new(register).unwrap_or(Reg::R0))
}

fn aligned(pointer: Pointer, at: usize, size: Size) -> Result<(), FaultKind> {
    if at.is_multiple_of(usize::from(size.bytes())) {
        return Ok(());
    }
    Err(FaultKind::Misaligned {
        pointer,
        bytes: size.bytes(),
    })
}

#[cold]
fn out_of_bounds(pointer: Pointer, bytes: u64, from: i64, to: i64) -> FaultKind {
    let base = Pointer {
        offset: from,
        ..pointer
    };
    let end = Pointer {
        offset: to,
        ..pointer
    };
    FaultKind::OutOfBounds {
        pointer,
        bytes,
        allowed: format!("{base} up to {end}"),
    }
}
