//! The programs that ship, on bpf-asm's reference interpreter: their bytecode, their maps, their packets.

use std::net::SocketAddr;

use bpf_asm::builder::{BuildError, XDP_DROP, XDP_PASS, XDP_TX};
use bpf_asm::engine::rbpf;
use bpf_asm::interpreter::{
    Access, LoadError, Machine, Map, ProgramId, Progress, Run, SkbInput, XdpInput,
};
use bpf_asm::program::{MapType, Program};
use electrode_fastpath::abi::{
    Block, CLONE_MARK, Heard, PEERS, Peer, RecordHeader, Shared, TARGET_RESOLVED, Target,
};
use electrode_fastpath::counters::Counters;
use electrode_fastpath::host::Word;
use electrode_fastpath::programs::{NAMES, PROGRAM_PREPARE, PROGRAM_PREPARE_OK, build};
use zerocopy::IntoBytes;

use crate::card::CPUS;
use crate::frame::{Host, Layout};
use crate::plan::{Engine as Kind, Plan};

/// The interface that everything goes through.
const INTERFACE: u32 = 1;

/// Why the programs can't be had: a defect of theirs or of bpf-asm's.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// One can't be built.
    #[error("building `{0}`: {1}")]
    Build(&'static str, BuildError),
    /// One can't be loaded into the interpreter.
    #[error("loading `{0}`: {1}")]
    Load(&'static str, LoadError),
    /// The programs or their maps aren't what is expected here.
    #[error("there is no `{0}`")]
    Missing(&'static str),
}

/// The programs as they ship, built once and used by every run.
#[derive(Debug)]
pub struct Programs(Vec<(&'static str, Program)>);

impl Programs {
    /// Builds them.
    ///
    /// # Errors
    /// See [`ProgramsError`].
    pub fn new() -> Result<Programs, ProgramsError> {
        let one = |name| {
            let built = build(name).ok_or(ProgramsError::Missing(name))?;
            Ok((
                name,
                built.map_err(|error| ProgramsError::Build(name, error))?,
            ))
        };
        let programs = Programs(NAMES.into_iter().map(one).collect::<Result<_, _>>()?);
        // What can't be loaded is told here, not in the middle of a run.
        programs.load(4096)?;
        Ok(programs)
    }

    fn load(&self, ring_bytes: u32) -> Result<(Machine, Vec<ProgramId>), ProgramsError> {
        let cpus = u32::try_from(CPUS).expect("few CPUs");
        // One more, for what user space sends.
        let machine = Machine::with_cpus(cpus + 1);
        let mut ids = Vec::new();
        for (name, program) in &self.0 {
            let mut program = program.clone();
            for map in &mut program.maps {
                if map.map_type == MapType::RingBuf {
                    map.max_entries = ring_bytes;
                }
            }
            let id = machine.load(&program);
            ids.push(id.map_err(|error| ProgramsError::Load(name, error))?);
        }
        Ok((machine, ids))
    }

    /// Programs, maps and targets of one replica that starts.
    pub(crate) fn engine(&self, plan: &Plan, node: usize) -> Engine {
        let (machine, ids) = self.load(plan.ring_bytes).expect("it was loaded before");
        let map = |name: &str| machine.map(name).expect("the programs have this map");
        let id = |name: &str| {
            ids[NAMES
                .iter()
                .position(|of| *of == name)
                .expect("a program of ours")]
        };
        let jumps = map("programs");
        let wanted = plan.programs[node];
        for (index, name, wanted) in [
            (PROGRAM_PREPARE, "prepare", wanted.store),
            (PROGRAM_PREPARE_OK, "prepare_ok", wanted.count),
        ] {
            let program = wanted.then(|| id(name));
            jumps
                .set_program(index, program)
                .expect("the jump table has this index");
        }
        let targets = map("targets");
        for of in 0..plan.replicas {
            let host = Host::Replica(of);
            write_target(&targets, of, Layout::mac(host), plan.layout.address(host));
        }
        let (dispatch, broadcast) = (id("dispatch"), wanted.broadcast.then(|| id("broadcast")));
        Engine {
            shared: map("shared"),
            slots: map("slots"),
            heard: map("heard"),
            ring: map("ring"),
            counters: map("counters"),
            targets,
            dispatch,
            broadcast,
            kind: plan.engine,
            runs: [None, None],
            wakeups: 0,
            machine,
        }
    }
}

fn write_target(targets: &Map, index: usize, mac: [u8; 6], address: SocketAddr) {
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&mac);
    let target = Target {
        mac: u64::from_ne_bytes(bytes) | TARGET_RESOLVED,
        peer: Peer::from(address),
    };
    let at = index * size_of::<Target>();
    targets
        .write(at, target.as_bytes())
        .expect("every replica has a target");
}

/// How far a program goes before it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// To its end.
    Never,
    /// So many accesses to shared memory.
    After(u32),
    /// Up to the so-many-th atomic: right before one of the words that decide.
    BeforeAtomic(u32),
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// User space's stack gets it.
    Pass(Vec<u8>),
    /// It goes back where it came from.
    Send(Vec<u8>),
    /// Nobody gets it.
    Drop,
    /// The program broke a rule of the verifier's.
    Fault(String),
}

fn verdict(action: u64, packet: Vec<u8>) -> Verdict {
    match u32::try_from(action) {
        Ok(XDP_PASS) => Verdict::Pass(packet),
        Ok(XDP_TX) => Verdict::Send(packet),
        Ok(XDP_DROP) => Verdict::Drop,
        _ => Verdict::Fault(format!(
            "the program ends with {action}, which is no action of its"
        )),
    }
}

/// Programs and maps of one replica.
pub(crate) struct Engine {
    machine: Machine,
    shared: Map,
    slots: Map,
    heard: Map,
    ring: Map,
    counters: Map,
    targets: Map,
    dispatch: ProgramId,
    broadcast: Option<ProgramId>,
    kind: Kind,
    runs: [Option<Run>; CPUS],
    wakeups: u64,
}

/// Everything that a frame which is refused must leave alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Image {
    maps: [Vec<u8>; 4],
    ring: (u64, u64),
}

impl Engine {
    /// A frame is taken up by a CPU; None if its program stopped on its way.
    pub(crate) fn start(&mut self, cpu: usize, frame: Vec<u8>, stop: Stop) -> Option<Verdict> {
        let number = u32::try_from(cpu).expect("few CPUs");
        let input = XdpInput {
            packet: frame,
            ingress_ifindex: INTERFACE,
            ..XdpInput::default()
        };
        if self.kind == Kind::Rbpf {
            return Some(match rbpf::run(&self.machine, self.dispatch, input) {
                Ok(run) => verdict(u64::from(run.verdict), run.packet),
                Err(error) => Verdict::Fault(error.to_string()),
            });
        }
        self.runs[cpu] = Some(self.machine.start_on(number, self.dispatch, input));
        let whole = self.kind == Kind::Whole;
        self.go_on(cpu, if whole { Stop::Never } else { stop })
    }

    /// A program goes on where it stopped.
    pub(crate) fn go_on(&mut self, cpu: usize, stop: Stop) -> Option<Verdict> {
        let run = self.runs[cpu].as_mut()?;
        // The first point is where it stands: nothing has been accessed yet.
        let mut left = match stop {
            Stop::Never => 0,
            Stop::After(accesses) => accesses + 1,
            Stop::BeforeAtomic(count) => count,
        };
        let ended = loop {
            if stop == Stop::Never {
                break run.run();
            }
            if left == 0 {
                return None;
            }
            match run.run_until_preemption_point() {
                Ok(Progress::At(point)) => {
                    let atomic = matches!(point.access, Access::Atomic(_));
                    let counts = atomic || !matches!(stop, Stop::BeforeAtomic(_));
                    left -= u32::from(counts);
                }
                Ok(Progress::Done(action)) => break Ok(action),
                Err(fault) => break Err(fault),
            }
        };
        let run = self.runs[cpu].take()?;
        Some(match ended {
            Err(fault) => Verdict::Fault(fault.to_string()),
            Ok(action) => verdict(action, run.packet().to_vec()),
        })
    }

    /// A frame leaves user space: the copies that the program made of it, then itself.
    pub(crate) fn egress(&mut self, frame: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
        let Some(broadcast) = self.broadcast else {
            return Ok(vec![frame]);
        };
        let cpu = u32::try_from(CPUS).expect("few CPUs");
        let send = |packet: Vec<u8>, mark| {
            let input = SkbInput {
                mark,
                ifindex: INTERFACE,
                ..SkbInput::new(packet)
            };
            if self.kind == Kind::Rbpf {
                return match rbpf::run(&self.machine, broadcast, input) {
                    Ok(run) if run.verdict == 0 => Ok((run.packet, run.outputs)),
                    Ok(run) => Err(format!("broadcast ends with {}", run.verdict)),
                    Err(error) => Err(error.to_string()),
                };
            }
            let mut run = self.machine.start_on(cpu, broadcast, input);
            match run.run() {
                Ok(0) => Ok((run.packet().to_vec(), run.outputs().to_vec())),
                Ok(action) => Err(format!("broadcast ends with {action}")),
                Err(fault) => Err(fault.to_string()),
            }
        };
        let (original, copies) = send(frame, 0)?;
        let mut frames = Vec::with_capacity(copies.len() + 1);
        for copy in copies {
            if copy.mark != CLONE_MARK || copy.ifindex != INTERFACE {
                return Err("broadcast sends a copy somewhere else, or without its mark".to_owned());
            }
            // A copy comes through the program again.
            let (copy, more) = send(copy.packet, copy.mark)?;
            if !more.is_empty() {
                return Err("broadcast copies a copy".to_owned());
            }
            frames.push(copy);
        }
        frames.push(original);
        Ok(frames)
    }

    fn word(&self, word: Word) -> (&Map, usize) {
        use std::mem::offset_of;
        match word {
            Word::Tail => (&self.shared, offset_of!(Shared, tail)),
            Word::Wake => (&self.shared, offset_of!(Shared, wake)),
            Word::Slot(index) => (&self.slots, 8 * index),
            Word::HeardAt(index) => (
                &self.heard,
                index * size_of::<Heard>() + offset_of!(Heard, at),
            ),
            Word::HeardOp(index) => (
                &self.heard,
                index * size_of::<Heard>() + offset_of!(Heard, op),
            ),
        }
    }

    pub(crate) fn load(&self, word: Word) -> u64 {
        let (map, at) = self.word(word);
        map.load_u64(at).expect("the maps have this word")
    }

    pub(crate) fn store(&mut self, word: Word, value: u64) {
        let (map, at) = self.word(word);
        map.store_u64(at, value).expect("the maps have this word");
    }

    pub(crate) fn fetch_add(&mut self, word: Word, value: u64) -> u64 {
        let (map, at) = self.word(word);
        map.fetch_add_u64(at, value)
            .expect("the maps have this word")
    }

    pub(crate) fn compare_exchange(&mut self, word: Word, expected: u64, new: u64) -> u64 {
        let (map, at) = self.word(word);
        map.compare_exchange_u64(at, expected, new)
            .expect("the maps have this word")
    }

    /// One of the words of a block, as user space writes them one after the other.
    pub(crate) fn write_block_word(&mut self, which: usize, word: usize, block: &Block) {
        let at = std::mem::offset_of!(Shared, blocks) + which * size_of::<Block>() + 8 * word;
        let bytes = &block.as_bytes()[8 * word..8 * word + 8];
        self.shared.write(at, bytes).expect("a block has this word");
    }

    /// Bytes of the ring that are reserved and not taken.
    pub(crate) fn ring_used(&self) -> u64 {
        let (reserved, taken) = self.ring.ring_positions().expect("it is a ring");
        reserved - taken
    }

    /// The next record that is submitted.
    pub(crate) fn take_record(&mut self) -> Option<Vec<u8>> {
        let record = self.ring.consume().expect("it is a ring");
        record.map(|record| record.bytes)
    }

    /// The messages in the records that aren't taken yet; notices have none.
    pub(crate) fn untaken(&self) -> Vec<Vec<u8>> {
        const FRONT: usize = size_of::<RecordHeader>();
        let message = |bytes: Vec<u8>| {
            let length = bytes.get(8..16)?.try_into().ok()?;
            let length = usize::try_from(u64::from_ne_bytes(length)).ok()?;
            bytes
                .get(FRONT..FRONT.checked_add(length)?)
                .map(<[u8]>::to_vec)
        };
        let records = self.ring.untaken().expect("it is a ring");
        records
            .into_iter()
            .filter_map(|record| message(record.bytes))
            .collect()
    }

    /// Whether a program woke the ring's reader since the last call.
    pub(crate) fn take_woken(&mut self) -> bool {
        let now = self.ring.ring_wakeups().expect("it is a ring");
        std::mem::replace(&mut self.wakeups, now) != now
    }

    pub(crate) fn set_time(&mut self, now: u64) {
        self.machine.set_time_ns(now);
    }

    /// What the programs counted on all CPUs, by program and name.
    pub(crate) fn counters(&self) -> Vec<(String, u64)> {
        let all = self.counters.entries();
        let bytes = all.first().map(|(_, bytes)| &bytes[..]).unwrap_or_default();
        let names = Counters::NAMES.iter().enumerate();
        names
            .map(|(at, (program, name))| {
                let cpus = bytes.chunks_exact(8 * Counters::LEN);
                let of = |cpu: &[u8]| {
                    u64::from_ne_bytes(cpu[8 * at..8 * at + 8].try_into().expect("8 bytes"))
                };
                (format!("{program} {name}"), cpus.map(of).sum())
            })
            .collect()
    }

    /// All of the maps but the counters, and but the one word that R8 excepts: when a message of an older view was last passed up.
    pub(crate) fn image(&self) -> Image {
        let of = |map: &Map| {
            let def = map.def();
            let bytes = usize::try_from(def.value_size * def.max_entries).expect("small maps");
            map.read(0, bytes).expect("it has these bytes")
        };
        let mut shared = of(&self.shared);
        let excepted = std::mem::offset_of!(Shared, stale_passed);
        shared[excepted..excepted + 8].fill(0);
        Image {
            maps: [shared, of(&self.slots), of(&self.heard), of(&self.targets)],
            ring: self.ring.ring_positions().expect("it is a ring"),
        }
    }
}

const _: () = assert!(PEERS == 16 && CPUS == 2);

#[cfg(test)]
mod tests {
    use bpf_asm::target::Target;

    use super::*;

    /// So what a seed runs is what every kernel gets, whatever its age: there is nothing for a seed to choose.
    #[test]
    fn the_programs_that_ship_are_the_same_for_every_kernel_since_atomics() {
        let Programs(programs) = Programs::new().unwrap();
        for (name, program) in programs {
            assert_eq!(Target::common().lower(&program), Ok(program), "{name}");
        }
    }
}
