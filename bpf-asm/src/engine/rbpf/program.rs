//! Whole XDP and TC programs on `rbpf`, over the maps of an interpreter's machine.
//!
//! Contexts hold packet addresses in 32 bits, so context and packet lie below 4 GiB. Map values are copied out for the run
//! and back after it. Helpers are the interpreter's own where they take the context alone; those of maps and rings take
//! addresses of this process. A tail call is a return that is gone on from here.
//!
//! The only unsafe code of the crate: `rbpf` computes addresses from numbers, so somebody has to hand them out.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::rc::Rc;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::{refused, without_atomics};
use crate::engine::EngineError;
use crate::insn::{Imm64, Insn, JumpOp, Reg, Source, Width};
use crate::interpreter::internals::{
    Cpu, Flow, Hook, Image, MAX_TAIL_CALLS, Op, Reservation, State, tail_target,
};
use crate::interpreter::{Input, Machine, Output, Pointer, ProgramId, Region, Value};

/// Bytes of the low mapping: the context's page, then the packet's buffer.
const ARENA_BYTES: usize = 1 << 18;
/// Where the packet's buffer begins in it.
const BUFFER_AT: usize = 4096;
/// Bytes for the records of one run.
const RECORDS_BYTES: usize = 1 << 17;
/// What a map's address is for the program: this, and its number.
const MAP_HANDLE: u64 = 0x4d41_5000_0000_0000;
/// `bpf_tail_call`.
const TAIL_CALL: u32 = 12;
/// The lowest stack word, which lowered atomics use.
const LOWEST: i16 = -504;

/// What a program left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RbpfRun {
    /// The action that it returned.
    pub verdict: u32,
    /// The packet.
    pub packet: Vec<u8>,
    /// The packets that it sent elsewhere by `bpf_clone_redirect`.
    pub outputs: Vec<Output>,
}

/// Runs a program of `machine` on `rbpf`, with the machine's maps, on CPU 0.
///
/// # Errors
/// `rbpf` refuses or stops it, or it uses a helper that isn't here: there are those of packets and contexts, map look-up,
/// and reserved ring records.
pub fn run(
    machine: &Machine,
    program: ProgramId,
    input: impl Into<Input>,
) -> Result<RbpfRun, EngineError> {
    let state = machine.state();
    let image = state.borrow().program(program);
    let cpu = Cpu::new(0, Rc::clone(&image), input.into(), 0);
    let mut session = Session::new(Rc::clone(&state), cpu)?;
    let mut image = image;
    let mut tail_calls = 0;
    let r0 = loop {
        let (returned, result) = session.execute(&image);
        session = returned;
        let r0 = result?;
        if let Some(words) = session.error.take() {
            return Err(refused(words));
        }
        match session.next.take() {
            Some(next) => {
                tail_calls += 1;
                session.tails_left = tail_calls < MAX_TAIL_CALLS;
                image = next;
            }
            None => break r0,
        }
    };
    session.read_arena();
    let mut state = state.borrow_mut();
    for (map, values) in state.values_mut().zip(&session.values) {
        map.copy_from_slice(values);
    }
    Ok(RbpfRun {
        verdict: r0 as u32,
        packet: session.cpu.packet().to_vec(),
        outputs: session.cpu.outputs().to_vec(),
    })
}

/// Memory below 4 GiB.
struct Arena {
    start: NonNull<u8>,
}

impl Arena {
    fn new() -> Result<Arena, EngineError> {
        // Where nothing is mapped by usual loaders; another place is tried if one is taken.
        const PLACES: [usize; 6] = [
            0x1000_0000,
            0x1800_0000,
            0x2000_0000,
            0x3000_0000,
            0x6000_0000,
            0x6800_0000,
        ];
        let length = NonZeroUsize::new(ARENA_BYTES).ok_or(refused("no arena".into()))?;
        for attempt in 0..64 {
            let place = PLACES[attempt % PLACES.len()] + attempt * ARENA_BYTES;
            // SAFETY: a new private mapping that replaces none, so nothing else refers to it.
            let mapped = unsafe {
                mmap_anonymous(
                    NonZeroUsize::new(place),
                    length,
                    ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                    MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE,
                )
            };
            if let Ok(start) = mapped {
                let start = start.cast();
                return Ok(Arena { start });
            }
        }
        Err(refused("no memory below 4 GiB is free".into()))
    }

    fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= ARENA_BYTES, "inside the arena");
        // SAFETY: inside the mapping, as just checked; `bytes` is no part of it, since nobody has a reference into it.
        unsafe {
            self.start
                .as_ptr()
                .add(at)
                .copy_from(bytes.as_ptr(), bytes.len())
        };
    }

    fn read(&self, at: usize, out: &mut [u8]) {
        assert!(at + out.len() <= ARENA_BYTES, "inside the arena");
        // SAFETY: inside the mapping, as just checked, which is initialised from the start; `out` is no part of it.
        unsafe {
            self.start
                .as_ptr()
                .add(at)
                .copy_to(out.as_mut_ptr(), out.len())
        };
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `new` with this length, and no reference into it exists.
        let unmapped = unsafe { munmap(self.start.cast(), ARENA_BYTES) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}

/// A record that is reserved.
struct Record {
    address: u64,
    map: u32,
    reservation: Reservation,
}

/// What helpers need during a run.
struct Session {
    state: Rc<RefCell<State>>,
    /// The interpreter's CPU, for its context, its packet and its helpers.
    cpu: Cpu,
    arena: Arena,
    /// Each map's values, whose addresses programs get.
    values: Vec<Vec<u8>>,
    /// Room for records, handed out from the start.
    room: Vec<u8>,
    used: usize,
    records: Vec<Record>,
    next: Option<Rc<Image>>,
    tails_left: bool,
    error: Option<String>,
}

thread_local! {
    /// `rbpf` takes helpers as plain functions, so what they work on is here during a run.
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

impl Session {
    fn new(state: Rc<RefCell<State>>, cpu: Cpu) -> Result<Session, EngineError> {
        let values = state
            .borrow_mut()
            .values_mut()
            .map(|values| values.clone())
            .collect();
        let session = Session {
            state,
            cpu,
            arena: Arena::new()?,
            values,
            room: vec![0; RECORDS_BYTES],
            used: 0,
            records: Vec::new(),
            next: None,
            tails_left: true,
            error: None,
        };
        if BUFFER_AT + session.cpu.buffer_bytes().len() > ARENA_BYTES {
            return Err(refused("the packet is too long".into()));
        }
        session.write_arena();
        Ok(session)
    }

    /// Runs one program. The session is handed to the helpers meanwhile, and back.
    fn execute(mut self, image: &Image) -> (Session, Result<u64, EngineError>) {
        let code = match lowered(image) {
            Ok(code) => code,
            Err(error) => return (self, Err(error)),
        };
        let memory: Vec<(u64, usize)> = self
            .values
            .iter_mut()
            .chain([&mut self.room])
            .map(|bytes| (bytes.as_mut_ptr().expose_provenance() as u64, bytes.len()))
            .collect();
        let arena = self.arena.address();
        SESSION.set(Some(self));
        let result = (|| {
            let mut vm = ::rbpf::EbpfVmMbuff::new(Some(&code))?;
            for (number, helper) in HELPERS {
                vm.register_helper(*number, *helper)?;
            }
            for (start, length) in memory {
                vm.register_allowed_memory(start..start + length as u64);
            }
            vm.register_allowed_memory(arena..arena + ARENA_BYTES as u64);
            // SAFETY: the context's page is mapped and initialised, and lives in the session until after the call. The program
            // writes to it through the address, while this slice exists: rbpf is made like that, and reads it by its address too.
            let context = unsafe {
                std::slice::from_raw_parts(std::ptr::with_exposed_provenance(arena as usize), 192)
            };
            vm.execute_program(&[], context)
        })();
        let session = SESSION
            .take()
            .unwrap_or_else(|| unreachable!("helpers leave the session where it is"));
        (session, result.map_err(|error| refused(error.to_string())))
    }

    /// Packet and context into the low memory.
    fn write_arena(&self) {
        self.arena.write(BUFFER_AT, self.cpu.buffer_bytes());
        let base = self.arena.address() + BUFFER_AT as u64;
        for offset in (0..192).step_by(4) {
            let word = match self.cpu.context_word(offset) {
                Some(Value::Scalar(value)) => value as u32,
                Some(Value::Pointer(pointer)) => (base + pointer.offset as u64) as u32,
                Some(Value::Uninit) | None => continue,
            };
            self.arena.write(offset as usize, &word.to_le_bytes());
        }
    }

    /// What the program wrote there, back.
    fn read_arena(&mut self) {
        let mut bytes = vec![0; self.cpu.buffer_bytes().len()];
        self.arena.read(BUFFER_AT, &mut bytes);
        self.cpu.buffer_bytes_mut().copy_from_slice(&bytes);
        for offset in (0..192).step_by(4) {
            let mut word = [0; 4];
            self.arena.read(offset as usize, &mut word);
            // Only what programs may write is taken over; the rest can't have changed.
            let _ = self
                .cpu
                .store_context_word(offset, u32::from_le_bytes(word));
        }
    }

    fn call(&mut self, number: u32, arguments: [u64; 5]) -> Result<u64, String> {
        let state = Rc::clone(&self.state);
        let mut state = state.borrow_mut();
        match number {
            1 => {
                let map = map(arguments[0])?;
                let mut key = vec![0; state.key_size(map)];
                // SAFETY: the program says that a key is there, which the interpreter has checked for the same input; rbpf itself
                // checks nothing that helpers read.
                unsafe {
                    std::ptr::with_exposed_provenance::<u8>(arguments[1] as usize)
                        .copy_to(key.as_mut_ptr(), key.len());
                }
                let Some(place) = state.find_value(map, &key) else {
                    return Ok(0);
                };
                let values = &self.values[map as usize];
                Ok((values.as_ptr().expose_provenance() + place) as u64)
            }
            TAIL_CALL => {
                let target = tail_target(&state, map(arguments[1])?, arguments[2] as u32);
                self.next = target.filter(|_| self.tails_left);
                Ok(u64::from(self.next.is_some()))
            }
            131 => {
                let ring = map(arguments[0])?;
                let length = (arguments[1] as usize).next_multiple_of(8);
                let reserved = state.reserve(ring, arguments[1]);
                let Some(reservation) = reserved else {
                    return Ok(0);
                };
                if self.used + length > RECORDS_BYTES {
                    return Err("no room for the run's records".into());
                }
                let start = self.room.as_mut_ptr().expose_provenance() + self.used;
                self.used += length;
                self.records.push(Record {
                    address: start as u64,
                    map: ring,
                    reservation,
                });
                Ok(start as u64)
            }
            132 | 133 => {
                let record = self
                    .records
                    .iter()
                    .position(|record| record.address == arguments[0])
                    .ok_or("no such record is reserved")?;
                let record = self.records.remove(record);
                let start = (record.address as usize) - self.room.as_ptr().expose_provenance();
                let length = record.reservation.length as usize;
                let mut bytes = vec![0; length];
                // SAFETY: the record's part of `room`, which lives in this session; read by its exposed address, as the program
                // wrote it.
                unsafe {
                    std::ptr::with_exposed_provenance::<u8>(record.address as usize)
                        .copy_to(bytes.as_mut_ptr(), length);
                }
                debug_assert!(start + length <= RECORDS_BYTES);
                let discard = number == 133;
                state.commit(
                    record.map,
                    record.reservation,
                    &bytes,
                    discard,
                    arguments[1],
                );
                Ok(0)
            }
            130 => {
                let length = usize::try_from(arguments[2]).unwrap_or(usize::MAX);
                if length > RECORDS_BYTES {
                    return Err("no room for the run's records".into());
                }
                let mut bytes = vec![0; length];
                // SAFETY: the program says that so many bytes are there, which the interpreter has checked for the same input.
                unsafe {
                    std::ptr::with_exposed_provenance::<u8>(arguments[1] as usize)
                        .copy_to(bytes.as_mut_ptr(), length);
                }
                Ok(state.output(map(arguments[0])?, &bytes, arguments[3]))
            }
            134 => Ok(state.query(map(arguments[0])?, arguments[1])),
            _ => {
                self.read_arena();
                let context = self.arena.address();
                let values = arguments.map(|argument| {
                    if argument == context {
                        Value::Pointer(Pointer {
                            region: Region::Context,
                            offset: 0,
                        })
                    } else {
                        Value::Scalar(argument)
                    }
                });
                let r0 = match self.cpu.call_with(&mut state, number, values) {
                    Ok((Flow::Next, Value::Scalar(r0))) => r0,
                    Ok(other) => return Err(format!("helper {number}: {other:?}")),
                    Err(kind) => return Err(kind.to_string()),
                };
                if BUFFER_AT + self.cpu.buffer_bytes().len() > ARENA_BYTES {
                    return Err("the packet became too long".into());
                }
                self.write_arena();
                Ok(r0)
            }
        }
    }
}

/// A map's number.
fn map(handle: u64) -> Result<u32, String> {
    let number = handle.wrapping_sub(MAP_HANDLE);
    u32::try_from(number).map_err(|_| format!("{handle:#x} is no map"))
}

fn helper<const NUMBER: u32>(a: u64, b: u64, c: u64, d: u64, e: u64) -> u64 {
    SESSION.with_borrow_mut(|session| {
        let Some(session) = session else { return 0 };
        session
            .call(NUMBER, [a, b, c, d, e])
            .unwrap_or_else(|words| {
                session.error.get_or_insert(words);
                0
            })
    })
}

macro_rules! helpers {
    ($($number:literal)*) => {
        const HELPERS: &[(u32, ::rbpf::Helper)] = &[$(($number, helper::<$number>),)*];
    };
}

helpers! { 1 5 7 8 10 11 12 13 18 19 23 31 32 34 38 39 41 43 44 48 54 65 118 125 130 131 132 133 134 160 188 208 }

/// The program as rbpf takes it.
fn lowered(image: &Image) -> Result<Vec<u8>, EngineError> {
    if image.hook() == Hook::Raw {
        return Err(refused(
            "a raw program has no context: Engine::run takes it".into(),
        ));
    }
    let mut insns = Vec::with_capacity(image.insns().len());
    for (at, insn) in image.insns().iter().enumerate() {
        let stack = match insn {
            Insn::Load { base, offset, .. }
            | Insn::Store { base, offset, .. }
            | Insn::Atomic { base, offset, .. } => (*base == Reg::R10).then_some(*offset),
            _ => None,
        };
        if stack.is_some_and(|offset| offset < LOWEST) {
            return Err(refused(
                "the stack's lowest word is needed for atomics".into(),
            ));
        }
        insns.push(match (*insn, image.op(at)) {
            (Insn::LoadImm64 { dst, .. }, Some(Op::Address { constant, .. })) => {
                match image.constant(constant) {
                    Value::Pointer(Pointer {
                        region: Region::Map { map, .. },
                        ..
                    }) => Insn::LoadImm64 {
                        dst,
                        value: Imm64::Value(MAP_HANDLE + u64::from(map)),
                    },
                    _ => return Err(refused("rbpf has no callbacks".into())),
                }
            }
            (insn, _) => insn,
        });
    }
    let mut encoded = Vec::new();
    for insn in super::laid_out(&insns, |insn| match *insn {
        // A tail call that succeeds returns.
        Insn::Call { helper: TAIL_CALL } => Some(vec![
            *insn,
            Insn::Jump {
                width: Width::W64,
                op: JumpOp::Eq,
                dst: Reg::R0,
                src: Source::Imm(0),
                offset: 1,
            },
            Insn::Exit,
        ]),
        _ => without_atomics(insn),
    })? {
        insn.encode(&mut encoded);
    }
    Ok(encoded.concat())
}
