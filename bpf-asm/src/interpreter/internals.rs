//! The interpreter's parts as the engine for `rbpf` uses them.

use std::cell::RefCell;
use std::rc::Rc;

pub(crate) use super::cpu::{Cpu, Flow, MAX_TAIL_CALLS};
pub(crate) use super::image::{Hook, Image, Op};
pub(crate) use super::map::Reservation;
pub(crate) use super::state::State;
use super::{FaultKind, Machine, Output, ProgramId, Value};
use crate::insn::Insn;

impl Machine {
    pub(crate) fn state(&self) -> Rc<RefCell<State>> {
        self.shared()
    }
}

impl Image {
    pub(crate) fn hook(&self) -> Hook {
        self.hook
    }

    pub(crate) fn insns(&self) -> &[Insn] {
        &self.insns
    }

    pub(crate) fn op(&self, at: usize) -> Option<Op> {
        self.ops.get(at).copied()
    }

    pub(crate) fn constant(&self, number: u32) -> Value {
        self.constants[number as usize]
    }
}

impl State {
    pub(crate) fn program(&self, program: ProgramId) -> Rc<Image> {
        Rc::clone(&self.programs[program.0 as usize])
    }

    /// Each map's values.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Vec<u8>> {
        self.maps.iter_mut().map(|map| &mut map.values)
    }

    pub(crate) fn key_size(&self, map: u32) -> usize {
        self.maps[map as usize].key_size
    }

    /// Where a key's value begins among the map's values, on CPU 0.
    pub(crate) fn find_value(&mut self, map: u32, key: &[u8]) -> Option<usize> {
        let map = &mut self.maps[map as usize];
        let element = map.find(key)?;
        Some(map.place(element, 0) as usize * map.stride)
    }

    pub(crate) fn reserve(&mut self, map: u32, length: u64) -> Option<Reservation> {
        self.ring_mut(map)?.reserve(length)
    }

    /// Writes a reserved record's bytes and gives it to the reader or its room back.
    pub(crate) fn commit(
        &mut self,
        map: u32,
        reservation: Reservation,
        bytes: &[u8],
        discard: bool,
        flags: u64,
    ) {
        if let Some(ring) = self.ring_mut(map) {
            ring.write_record(reservation, 0, bytes);
            ring.commit(reservation, discard, flags);
        }
    }

    /// What `bpf_ringbuf_output` returns.
    pub(crate) fn output(&mut self, map: u32, bytes: &[u8], flags: u64) -> u64 {
        let output = self.ring_mut(map).map(|ring| ring.output(bytes, flags));
        match output {
            Some(Err(errno)) => errno.result(),
            Some(Ok(_)) | None => 0,
        }
    }

    pub(crate) fn query(&self, map: u32, what: u64) -> u64 {
        self.ring(map).map_or(0, |ring| ring.query(what))
    }
}

/// The program that a jump table's entry leads to.
pub(crate) fn tail_target(state: &State, map: u32, index: u32) -> Option<Rc<Image>> {
    let map = &state.maps[map as usize];
    if index >= map.def.max_entries {
        return None;
    }
    let number = u32::from_le_bytes(*map.value(index).first_chunk()?);
    state.programs.get(number.checked_sub(1)? as usize).cloned()
}

impl Cpu {
    pub(crate) fn packet(&self) -> &[u8] {
        self.buffer.packet()
    }

    pub(crate) fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// All of the packet's buffer, from which offsets of packet pointers count.
    pub(crate) fn buffer_bytes(&self) -> &[u8] {
        &self.buffer.bytes
    }

    pub(crate) fn buffer_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.bytes
    }

    /// The context's 32-bit word at an offset, if programs may read it.
    pub(crate) fn context_word(&self, offset: i64) -> Option<Value> {
        self.context.load(&self.buffer, offset, 4).ok()
    }

    /// Writes a word of the context, if programs may write it.
    pub(crate) fn store_context_word(&mut self, offset: i64, word: u32) -> Result<(), FaultKind> {
        self.context.store(offset, 4, u64::from(word))
    }

    /// Calls a helper with these arguments; its result.
    pub(crate) fn call_with(
        &mut self,
        state: &mut State,
        helper: u32,
        arguments: [Value; 5],
    ) -> Result<(Flow, Value), FaultKind> {
        self.registers[1..6].copy_from_slice(&arguments);
        let flow = self.call(state, helper)?;
        Ok((flow, self.registers[0]))
    }
}
