//! The machine: what virtual CPUs share, and user space's way to it.

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::fmt;
use std::rc::Rc;

use super::cpu::Cpu;
use super::image::{Hook, Image, LoadError};
use super::map::{Contents, Errno, Kind, MapError, MapState, RingRecord};
use super::packet::Input;
use super::route::Route;
use super::run::Run;
use super::state::{Random, State};
use crate::insn::Insn;
use crate::program::{MapDef, Program, ProgramKind};

/// The most virtual CPUs of a machine.
pub const MAX_CPUS: u32 = 256;

/// A loaded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProgramId(pub(super) u32);

/// Maps, programs and surroundings. A handle: clones share one machine.
#[derive(Clone)]
pub struct Machine {
    state: Rc<RefCell<State>>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        f.debug_struct("Machine")
            .field("maps", &state.names.keys())
            .field("programs", &state.programs.len())
            .field("time_ns", &state.time_ns)
            .finish_non_exhaustive()
    }
}

impl Default for Machine {
    fn default() -> Machine {
        Machine::new()
    }
}

impl Machine {
    /// A machine of one CPU.
    pub fn new() -> Machine {
        Machine::with_cpus(1)
    }

    /// A machine of `cpus` CPUs (1 to [`MAX_CPUS`]; others are brought into that range): as many copies of per-CPU values.
    pub fn with_cpus(cpus: u32) -> Machine {
        Machine {
            state: Rc::new(RefCell::new(State::new(cpus.clamp(1, MAX_CPUS)))),
        }
    }

    /// Makes a map, or finds the one of that name and definition.
    ///
    /// # Errors
    /// Definitions that the kernel refuses, and a second definition of a name.
    pub fn create_map(&self, def: &MapDef) -> Result<Map, MapError> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let number = match state.names.entry(def.name.clone()) {
            Entry::Occupied(entry) if state.maps[*entry.get() as usize].def == *def => *entry.get(),
            Entry::Occupied(_) => return Err(MapError::Conflict(def.name.clone())),
            Entry::Vacant(entry) => {
                let mut map = MapState::new(def, state.cpus)?;
                let globals = def.global_bytes();
                range(&mut map, 0, globals.len())?.copy_from_slice(&globals);
                state.maps.push(map);
                *entry.insert(state.maps.len() as u32 - 1)
            }
        };
        Ok(self.handle(number))
    }

    /// The map of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn map(&self, name: &str) -> Result<Map, MapError> {
        let number = self.state.borrow().names.get(name).copied();
        match number {
            Some(number) => Ok(self.handle(number)),
            None => Err(MapError::Unknown(name.to_owned())),
        }
    }

    /// Every map, in the order of their making.
    pub fn maps(&self) -> Vec<Map> {
        let count = self.state.borrow().maps.len() as u32;
        (0..count).map(|number| self.handle(number)).collect()
    }

    /// Loads a program and makes those of its maps that aren't there yet.
    ///
    /// # Errors
    /// Programs that can't be linked, and maps as in [`Machine::create_map`].
    pub fn load(&self, program: &Program) -> Result<ProgramId, LoadError> {
        for def in &program.maps {
            self.create_map(def)?;
        }
        let image = {
            let state = self.state.borrow();
            Image::of_program(program, |name| state.names.get(name).copied())?
        };
        Ok(self.keep(image))
    }

    /// Loads encoded instructions that take memory: its address in r1, its length in r2.
    ///
    /// # Errors
    /// Bytes that are no program.
    pub fn load_bytes(&self, code: &[u8]) -> Result<ProgramId, LoadError> {
        Ok(self.keep(Image::of_bytes("raw", Hook::Raw, code)?))
    }

    /// Loads instructions that take memory, as [`Machine::load_bytes`].
    ///
    /// # Errors
    /// Instructions that make no program.
    pub fn load_insns(&self, insns: &[Insn]) -> Result<ProgramId, LoadError> {
        Ok(self.keep(Image::of_insns("raw", Hook::Raw, insns.to_vec())?))
    }

    /// Loads instructions for a hook.
    ///
    /// # Errors
    /// Instructions that make no program.
    pub fn load_insns_for(
        &self,
        kind: ProgramKind,
        insns: &[Insn],
    ) -> Result<ProgramId, LoadError> {
        let hook = match kind {
            ProgramKind::Classifier => Hook::Tc,
            ProgramKind::Xdp | ProgramKind::XdpFrags => Hook::Xdp,
        };
        Ok(self.keep(Image::of_insns("raw", hook, insns.to_vec())?))
    }

    /// A run of a program on CPU 0, at its first instruction.
    pub fn start(&self, program: ProgramId, input: impl Into<Input>) -> Run {
        self.start_on(0, program, input)
    }

    /// A run of a program on a CPU, at its first instruction.
    ///
    /// # Panics
    /// When the program is another machine's, or the CPU is none of this one's: a mistake of the caller.
    pub fn start_on(&self, cpu: u32, program: ProgramId, input: impl Into<Input>) -> Run {
        let state = self.state.borrow();
        assert!(cpu < state.cpus, "CPU {cpu} of {}", state.cpus);
        let image = Rc::clone(&state.programs[program.0 as usize]);
        let cpu = Cpu::new(cpu, image, input.into(), state.budget);
        Run::new(Rc::clone(&self.state), cpu)
    }

    /// What the clocks say, in nanoseconds; they stand still between calls of this.
    pub fn set_time_ns(&self, time_ns: u64) {
        self.state.borrow_mut().time_ns = time_ns;
    }

    /// What the clocks say now.
    pub fn time_ns(&self) -> u64 {
        self.state.borrow().time_ns
    }

    /// Random numbers from this seed.
    pub fn seed_random(&self, seed: u64) {
        self.state.borrow_mut().random = Random::Seeded(seed);
    }

    /// These "random" numbers, over and over.
    pub fn set_random(&self, numbers: &[u32]) {
        self.state.borrow_mut().random = Random::Sequence {
            numbers: numbers.to_vec(),
            next: 0,
        };
    }

    /// How many instructions runs that are started from now on may take.
    pub fn set_budget(&self, instructions: u64) {
        self.state.borrow_mut().budget = instructions;
    }

    /// A route that `bpf_fib_lookup` finds; longer prefixes win.
    pub fn add_route(&self, route: Route) {
        self.state.borrow_mut().routes.push(route);
    }

    /// An interface's MTU.
    pub fn set_mtu(&self, ifindex: u32, mtu: u32) {
        self.state.borrow_mut().mtus.insert(ifindex, mtu);
    }

    /// Makes sending to an interface fail, or work again.
    pub fn set_interface_removed(&self, ifindex: u32, removed: bool) {
        let interfaces = &mut self.state.borrow_mut().removed_interfaces;
        if removed {
            interfaces.insert(ifindex);
        } else {
            interfaces.remove(&ifindex);
        }
    }

    /// The lines printed since the last call.
    pub fn take_printed(&self) -> Vec<String> {
        std::mem::take(&mut self.state.borrow_mut().printed)
    }

    /// What all handles share.
    #[cfg(feature = "rbpf")]
    pub(super) fn shared(&self) -> Rc<RefCell<State>> {
        Rc::clone(&self.state)
    }

    fn keep(&self, image: Image) -> ProgramId {
        let mut state = self.state.borrow_mut();
        state.programs.push(Rc::new(image));
        ProgramId(state.programs.len() as u32 - 1)
    }

    fn handle(&self, number: u32) -> Map {
        Map {
            state: Rc::clone(&self.state),
            number,
        }
    }
}

/// A map as user space sees it. A handle: clones are the same map.
///
/// [`read`](Map::read), [`write`](Map::write) and the words are the memory that an array gives when it is mapped: element
/// after element, each padded to 8 bytes. What belongs to system calls goes by keys.
#[derive(Clone)]
pub struct Map {
    state: Rc<RefCell<State>>,
    number: u32,
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|map| map.def.fmt(f))
    }
}

impl Map {
    /// Its name.
    pub fn name(&self) -> String {
        self.with(|map| map.def.name.clone())
    }

    /// Its definition.
    pub fn def(&self) -> MapDef {
        self.with(|map| map.def.clone())
    }

    /// Its number, as pointers and steps name it.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The aligned word at `offset`.
    ///
    /// # Errors
    /// There is no such word.
    pub fn load_u64(&self, offset: usize) -> Result<u64, MapError> {
        self.word(offset, |word| word)
    }

    /// Writes the aligned word at `offset`.
    ///
    /// # Errors
    /// There is no such word.
    pub fn store_u64(&self, offset: usize, value: u64) -> Result<(), MapError> {
        self.word(offset, |_| value).map(drop)
    }

    /// Adds to the aligned word at `offset`, wrapping; what was there.
    ///
    /// # Errors
    /// There is no such word.
    pub fn fetch_add_u64(&self, offset: usize, value: u64) -> Result<u64, MapError> {
        self.word(offset, |word| word.wrapping_add(value))
    }

    /// Writes the aligned word at `offset`; what was there.
    ///
    /// # Errors
    /// There is no such word.
    pub fn swap_u64(&self, offset: usize, value: u64) -> Result<u64, MapError> {
        self.word(offset, |_| value)
    }

    /// Writes `new` to the aligned word at `offset` if `expected` is there; what was there.
    ///
    /// # Errors
    /// There is no such word.
    pub fn compare_exchange_u64(
        &self,
        offset: usize,
        expected: u64,
        new: u64,
    ) -> Result<u64, MapError> {
        self.word(offset, |word| if word == expected { new } else { word })
    }

    /// Copies bytes of the values.
    ///
    /// # Errors
    /// There are no such bytes.
    pub fn read(&self, offset: usize, bytes: usize) -> Result<Vec<u8>, MapError> {
        self.with_mut(|map| Ok(range(map, offset, bytes)?.to_vec()))
    }

    /// Writes bytes of the values.
    ///
    /// # Errors
    /// There are no such bytes.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), MapError> {
        self.with_mut(|map| {
            range(map, offset, bytes.len())?.copy_from_slice(bytes);
            Ok(())
        })
    }

    /// The value of a key; of a per-CPU map that of CPU 0.
    ///
    /// # Errors
    /// Keys of the wrong length; maps without look-up.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        self.lookup_on(0, key)
    }

    /// The value of a key on a CPU.
    ///
    /// # Errors
    /// Keys of the wrong length; maps without look-up.
    pub fn lookup_on(&self, cpu: u32, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        self.with_mut(|map| {
            has_keys(map)?;
            length(map, "keys", map.key_size, key.len())?;
            let element = map.find(key);
            Ok(element.map(|element| map.value(map.place(element, cpu)).to_vec()))
        })
    }

    /// Writes the value of a key; of a per-CPU map that of every CPU.
    ///
    /// # Errors
    /// Keys and values of the wrong length, and what the kernel refuses.
    pub fn update(&self, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        self.update_with(key, value, 0)
    }

    /// Writes the value of a key with flags (`BPF_NOEXIST` 1, `BPF_EXIST` 2).
    ///
    /// # Errors
    /// Keys and values of the wrong length, and what the kernel refuses.
    pub fn update_with(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), MapError> {
        self.with_mut(|map| {
            has_keys(map)?;
            if map.kind.of_maps() || map.kind == Kind::ProgArray {
                return Err(wrong_kind(map));
            }
            length(map, "keys", map.key_size, key.len())?;
            length(map, "values", map.value_size, value.len())?;
            map.update(key, value, flags, None)
                .map_err(|errno| refused(map, errno))
        })
    }

    /// Removes a key.
    ///
    /// # Errors
    /// Keys of the wrong length, and what the kernel refuses.
    pub fn delete(&self, key: &[u8]) -> Result<(), MapError> {
        self.with_mut(|map| {
            has_keys(map)?;
            length(map, "keys", map.key_size, key.len())?;
            map.delete(key).map_err(|errno| refused(map, errno))
        })
    }

    /// The keys that there are.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.with(|map| {
            let elements = map.elements().into_iter();
            elements.map(|element| map.key(element)).collect()
        })
    }

    /// Keys and values, by key; of a per-CPU map the values of all CPUs one after another.
    pub fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.with(|map| {
            let copies = map.copies();
            let value = |element: u32| {
                let places = (0..copies).map(|cpu| map.place(element, cpu));
                places.flat_map(|place| map.value(place).to_vec()).collect()
            };
            let mut entries: Vec<_> = map
                .elements()
                .into_iter()
                .map(|element| (map.key(element), value(element)))
                .collect();
            entries.sort();
            entries
        })
    }

    /// Puts a value into a queue, a stack or a bloom filter.
    ///
    /// # Errors
    /// Values of the wrong length, and what the kernel refuses.
    pub fn push(&self, value: &[u8]) -> Result<(), MapError> {
        self.with_mut(|map| {
            length(map, "values", map.value_size, value.len())?;
            map.push(value, 0).map_err(|errno| refused(map, errno))
        })
    }

    /// Takes a value from a queue or a stack.
    ///
    /// # Errors
    /// Other maps.
    pub fn pop(&self) -> Result<Option<Vec<u8>>, MapError> {
        self.with_mut(|map| match map.pop(true) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(refused(map, errno)),
        })
    }

    /// Puts a program into a jump table, or takes it out.
    ///
    /// # Errors
    /// Other maps, and indices that it doesn't have.
    pub fn set_program(&self, index: u32, program: Option<ProgramId>) -> Result<(), MapError> {
        self.with_mut(|map| match map.kind {
            Kind::ProgArray => {
                let number = program.map_or(0, |program| program.0 + 1);
                map.update(&index.to_le_bytes(), &number.to_le_bytes(), 0, None)
                    .map_err(|errno| refused(map, errno))
            }
            _ => Err(wrong_kind(map)),
        })
    }

    /// Puts a map into an array or a hash of maps, or takes it out.
    ///
    /// # Errors
    /// Other maps, and keys that it can't have.
    pub fn set_inner(&self, key: &[u8], inner: Option<&Map>) -> Result<(), MapError> {
        self.with_mut(|map| {
            if !map.kind.of_maps() {
                return Err(wrong_kind(map));
            }
            length(map, "keys", map.key_size, key.len())?;
            let result = match inner {
                Some(inner) => map.update(key, &(inner.number + 1).to_le_bytes(), 0, None),
                None => map.delete(key),
            };
            result.map_err(|errno| refused(map, errno))
        })
    }

    /// Takes the next submitted record of a ring buffer. A record that is still reserved stops the reader, as in the kernel.
    ///
    /// # Errors
    /// Other maps.
    pub fn consume(&self) -> Result<Option<RingRecord>, MapError> {
        self.with_mut(|map| match &mut map.contents {
            Contents::Ring(ring) => Ok(ring.consume()),
            _ => Err(wrong_kind(map)),
        })
    }

    /// A ring buffer's positions: what was reserved, and what was taken.
    ///
    /// # Errors
    /// Other maps.
    pub fn ring_positions(&self) -> Result<(u64, u64), MapError> {
        self.with(|map| match &map.contents {
            Contents::Ring(ring) => Ok((ring.producer, ring.consumer)),
            _ => Err(wrong_kind(map)),
        })
    }

    /// How often a ring buffer's reader was woken so far.
    ///
    /// # Errors
    /// Other maps.
    pub fn ring_wakeups(&self) -> Result<u64, MapError> {
        self.with(|map| match &map.contents {
            Contents::Ring(ring) => Ok(ring.wakeups),
            _ => Err(wrong_kind(map)),
        })
    }

    /// Whether accesses to it are preemption points: at first they are, but for per-CPU maps.
    pub fn set_preemption_points(&self, are: bool) {
        self.with_mut(|map| map.shared = are);
    }

    fn with<T>(&self, look: impl FnOnce(&MapState) -> T) -> T {
        look(&self.state.borrow().maps[self.number as usize])
    }

    fn with_mut<T>(&self, work: impl FnOnce(&mut MapState) -> T) -> T {
        work(&mut self.state.borrow_mut().maps[self.number as usize])
    }

    fn word(&self, offset: usize, new: impl FnOnce(u64) -> u64) -> Result<u64, MapError> {
        self.with_mut(|map| {
            let missing = MapError::Range {
                map: map.def.name.clone(),
                offset,
                bytes: 8,
            };
            let range = offset..offset.saturating_add(8);
            let word = map
                .values
                .get_mut(range)
                .and_then(|bytes| bytes.first_chunk_mut::<8>());
            let Some(word) = word.filter(|_| offset.is_multiple_of(8)) else {
                return Err(missing);
            };
            let old = u64::from_le_bytes(*word);
            *word = new(old).to_le_bytes();
            Ok(old)
        })
    }
}

fn range(map: &mut MapState, offset: usize, bytes: usize) -> Result<&mut [u8], MapError> {
    let missing = MapError::Range {
        map: map.def.name.clone(),
        offset,
        bytes,
    };
    let range = offset..offset.saturating_add(bytes);
    map.values.get_mut(range).ok_or(missing)
}

fn has_keys(map: &MapState) -> Result<(), MapError> {
    match map.contents {
        Contents::Array | Contents::Hash(_) => Ok(()),
        _ => Err(wrong_kind(map)),
    }
}

fn length(
    map: &MapState,
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), MapError> {
    if expected == found {
        return Ok(());
    }
    Err(MapError::Length {
        map: map.def.name.clone(),
        what,
        expected,
        found,
    })
}

fn wrong_kind(map: &MapState) -> MapError {
    MapError::Kind {
        map: map.def.name.clone(),
        kind: map.kind.words(),
    }
}

fn refused(map: &MapState, errno: Errno) -> MapError {
    MapError::Refused {
        map: map.def.name.clone(),
        errno,
    }
}
