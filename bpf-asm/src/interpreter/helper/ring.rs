//! Helpers of the ring buffer.

use super::{Helper, Returned};
use crate::interpreter::cpu::{Cpu, OpenRecord, pointer};
use crate::interpreter::fault::FaultKind;
use crate::interpreter::map::Kind;
use crate::interpreter::state::State;
use crate::interpreter::value::{Region, Value};

/// How many records one run may reserve, one after another.
const MAX_RECORDS: usize = 1 << 16;
/// `bpf_ringbuf_discard`.
const DISCARD: u32 = 133;

impl Cpu {
    fn ring_argument(&self, state: &State, helper: Helper) -> Result<u32, FaultKind> {
        let map = self.map_argument(helper, 1)?;
        if state.maps[map as usize].kind != Kind::RingBuf {
            return Err(self.wrong_map(state, helper, map));
        }
        Ok(map)
    }

    pub(super) fn ringbuf_reserve(
        &mut self,
        state: &mut State,
        helper: Helper,
    ) -> Result<Value, FaultKind> {
        let map = self.ring_argument(state, helper)?;
        let length = self.scalar(helper, 2)?;
        let flags = self.scalar(helper, 3)?;
        let reserved = match state.ring_mut(map) {
            Some(ring) if flags == 0 && self.records.len() < MAX_RECORDS => ring.reserve(length),
            _ => None,
        };
        let Some(reservation) = reserved else {
            return Ok(Value::Scalar(0));
        };
        let lookup = self.new_lookup();
        let record = self.records.len() as u32;
        self.records.push(OpenRecord {
            map,
            reservation,
            open: true,
            lookup,
        });
        Ok(pointer(Region::Record { record, lookup }, 0))
    }

    /// `bpf_ringbuf_submit`, `bpf_ringbuf_discard`.
    pub(super) fn ringbuf_close(&mut self, state: &mut State, helper: Helper) -> Returned {
        let place = self.pointer_argument(helper, 1)?;
        let flags = self.scalar(helper, 2)?;
        let Region::Record { record, lookup } = place.region else {
            let found = Value::Pointer(place);
            return Err(helper.argument(1, "a reserved record", found));
        };
        if place.offset != 0 {
            let found = Value::Pointer(place);
            return Err(helper.argument(1, "the start of a reserved record", found));
        }
        if self.unchecked.contains(&lookup) {
            return Err(FaultKind::UncheckedLookup(place));
        }
        let open = &mut self.records[record as usize];
        if !open.open {
            return Err(FaultKind::ClosedRecord(place));
        }
        open.open = false;
        let open = *open;
        if let Some(ring) = state.ring_mut(open.map) {
            ring.commit(open.reservation, helper.number == DISCARD, flags);
        }
        Ok(0)
    }

    pub(super) fn ringbuf_output(&mut self, state: &mut State, helper: Helper) -> Returned {
        let map = self.ring_argument(state, helper)?;
        let length = self.scalar(helper, 3)?;
        let flags = self.scalar(helper, 4)?;
        let bytes = self.buffer_argument(state, helper, 2, length)?;
        let result = match state.ring_mut(map) {
            Some(ring) => ring.output(&bytes, flags).map(drop),
            None => Ok(()),
        };
        Ok(super::maps::code(result))
    }

    pub(super) fn ringbuf_query(&mut self, state: &mut State, helper: Helper) -> Returned {
        let map = self.ring_argument(state, helper)?;
        let what = self.scalar(helper, 2)?;
        Ok(state.ring(map).map_or(0, |ring| ring.query(what)))
    }
}
