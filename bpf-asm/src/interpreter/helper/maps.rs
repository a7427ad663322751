//! Helpers of maps: look-up, update, delete, push, pop, spin locks, and the program array.

use std::rc::Rc;

use super::{Helper, Returned};
use crate::interpreter::cpu::{Cpu, Flow, pointer};
use crate::interpreter::fault::FaultKind;
use crate::interpreter::image::Image;
use crate::interpreter::map::{Contents, Errno, Kind};
use crate::interpreter::state::State;
use crate::interpreter::value::{Pointer, Region, Value};

/// `sizeof(struct bpf_spin_lock)`.
const LOCK_BYTES: u64 = 4;

impl Cpu {
    /// `bpf_map_lookup_elem`.
    pub(super) fn map_lookup(
        &mut self,
        state: &mut State,
        helper: Helper,
        cpu: u32,
    ) -> Result<Value, FaultKind> {
        let map = self.map_argument(helper, 1)?;
        let kind = state.maps[map as usize].kind;
        if !kind.has_values() && !kind.of_maps() && !kind.redirects() {
            return Err(self.wrong_map(state, helper, map));
        }
        let mut key = self.key_argument(state, helper, map)?;
        let element = state.maps[map as usize].find(&key);
        key.clear();
        self.key = key;
        let map_state = &state.maps[map as usize];
        let Some(element) = element else {
            return Ok(Value::Scalar(0));
        };
        if kind.of_maps() {
            return Ok(match inner(map_state.value(element)) {
                Some(map) => {
                    let lookup = self.new_lookup();
                    pointer(Region::Map { map, lookup }, 0)
                }
                None => Value::Scalar(0),
            });
        }
        if kind.redirects() && map_state.value(element).iter().all(|byte| *byte == 0) {
            return Ok(Value::Scalar(0));
        }
        let element = map_state.place(element, cpu);
        let lookup = self.new_lookup();
        Ok(pointer(
            Region::MapValue {
                map,
                element,
                lookup,
            },
            0,
        ))
    }

    /// `bpf_map_update_elem`.
    pub(super) fn map_update(&mut self, state: &mut State, helper: Helper) -> Returned {
        let map = self.map_argument(helper, 1)?;
        if !state.maps[map as usize].kind.has_values() {
            return Err(self.wrong_map(state, helper, map));
        }
        let key = self.key_argument(state, helper, map)?;
        let size = state.maps[map as usize].value_size as u64;
        let value = self.buffer_argument(state, helper, 3, size)?;
        let flags = self.scalar(helper, 4)?;
        let result = state.maps[map as usize].update(&key, &value, flags, Some(self.number));
        self.key = key;
        Ok(code(result))
    }

    /// `bpf_map_delete_elem`.
    pub(super) fn map_delete(&mut self, state: &mut State, helper: Helper) -> Returned {
        let map = self.map_argument(helper, 1)?;
        if !state.maps[map as usize].kind.has_values() {
            return Err(self.wrong_map(state, helper, map));
        }
        let key = self.key_argument(state, helper, map)?;
        let result = state.maps[map as usize].delete(&key);
        self.key = key;
        Ok(code(result))
    }

    /// `bpf_map_push_elem`.
    pub(super) fn map_push(&mut self, state: &mut State, helper: Helper) -> Returned {
        let map = self.map_argument(helper, 1)?;
        let size = state.maps[map as usize].value_size as u64;
        if !matches!(
            state.maps[map as usize].kind,
            Kind::Queue | Kind::Stack | Kind::Bloom
        ) {
            return Err(self.wrong_map(state, helper, map));
        }
        let value = self.buffer_argument(state, helper, 2, size)?;
        let flags = self.scalar(helper, 3)?;
        Ok(code(state.maps[map as usize].push(&value, flags)))
    }

    /// `bpf_map_pop_elem`, `bpf_map_peek_elem`.
    pub(super) fn map_pop(&mut self, state: &mut State, helper: Helper) -> Returned {
        const POP: u32 = 88;
        let map = self.map_argument(helper, 1)?;
        let place = self.pointer_argument(helper, 2)?;
        let map_state = &mut state.maps[map as usize];
        let size = map_state.value_size;
        match map_state.kind {
            Kind::Queue | Kind::Stack => {
                let popped = map_state.pop(helper.number == POP);
                // The kernel writes zeros where there is nothing.
                let value = popped.clone().unwrap_or_else(|_| vec![0; size]);
                self.write_bytes(state, place, &value)?;
                Ok(code(popped.map(drop)))
            }
            Kind::Bloom if helper.number != POP => {
                let mut value = vec![0; size];
                self.read_bytes(state, place, &mut value)?;
                let known = match &state.maps[map as usize].contents {
                    Contents::Bloom(values) => values.contains(&value),
                    _ => false,
                };
                Ok(code(if known { Ok(()) } else { Err(Errno::ENOENT) }))
            }
            _ => Err(self.wrong_map(state, helper, map)),
        }
    }

    /// `bpf_spin_lock`.
    pub(super) fn spin_lock(
        &mut self,
        state: &mut State,
        helper: Helper,
    ) -> Result<Flow, FaultKind> {
        if self.lock.is_some() {
            return Err(FaultKind::LockHeld("it can't be taken twice"));
        }
        let (lock, place) = self.lock_argument(state, helper)?;
        let mut word = [0; LOCK_BYTES as usize];
        self.read_bytes(state, place, &mut word)?;
        if word != [0; 4] {
            return Ok(Flow::Blocked);
        }
        self.write_bytes(state, place, &1u32.to_le_bytes())?;
        self.lock = Some(lock);
        self.registers[0..6].fill(Value::Uninit);
        Ok(Flow::Next)
    }

    /// `bpf_spin_unlock`.
    pub(super) fn spin_unlock(&mut self, state: &mut State, helper: Helper) -> Returned {
        let (lock, place) = self.lock_argument(state, helper)?;
        if self.lock != Some(lock) {
            return Err(FaultKind::LockNotHeld);
        }
        self.write_bytes(state, place, &0u32.to_le_bytes())?;
        self.lock = None;
        Ok(0)
    }

    fn lock_argument(
        &self,
        state: &State,
        helper: Helper,
    ) -> Result<((u32, u32, i64), Pointer), FaultKind> {
        let place = self.pointer_argument(helper, 1)?;
        match place.region {
            Region::MapValue { map, element, .. }
                if place.offset % LOCK_BYTES as i64 == 0
                    && !state.maps[map as usize].kind.per_cpu() =>
            {
                Ok(((map, element, place.offset), place))
            }
            _ => Err(helper.argument(1, "a spin lock in a map's value", Value::Pointer(place))),
        }
    }

    /// The program that an index of a jump table leads to.
    pub(super) fn tail_target(
        &self,
        state: &State,
        helper: Helper,
        map: u32,
        index: u32,
    ) -> Result<Option<Rc<Image>>, FaultKind> {
        let map_state = &state.maps[map as usize];
        if map_state.kind != Kind::ProgArray {
            return Err(self.wrong_map(state, helper, map));
        }
        if index >= map_state.def.max_entries {
            return Ok(None);
        }
        let program = inner(map_state.value(index));
        Ok(program.and_then(|number| state.programs.get(number as usize).cloned()))
    }

    pub(super) fn wrong_map(&self, state: &State, helper: Helper, map: u32) -> FaultKind {
        let map = &state.maps[map as usize];
        FaultKind::WrongMap {
            helper: helper.name,
            map: map.def.name.clone(),
            kind: map.kind.words(),
        }
    }

    /// The key in argument 2, in a buffer that is to be given back.
    fn key_argument(
        &mut self,
        state: &State,
        helper: Helper,
        map: u32,
    ) -> Result<Vec<u8>, FaultKind> {
        let place = self.pointer_argument(helper, 2)?;
        let mut key = std::mem::take(&mut self.key);
        key.resize(state.maps[map as usize].key_size, 0);
        self.read_bytes(state, place, &mut key)?;
        Ok(key)
    }
}

/// A map's or a program's number as entries hold it: 0 is none.
fn inner(value: &[u8]) -> Option<u32> {
    let number = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
    number.checked_sub(1)
}

/// What a helper returns.
pub(super) fn code(result: Result<(), Errno>) -> u64 {
    result.err().map_or(0, Errno::result)
}
