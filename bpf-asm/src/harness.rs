//! Unit tests of programs in plain `cargo test`: no root, no kernel, no network.
//!
//! A [`Harness`] loads programs with their maps into a [`Machine`] and gives them packets. What comes back is the verdict,
//! the packet as the program left it, and the packets that it sent elsewhere; maps and rings are read as user space would.
//! A program that breaks a rule of the verifier's on the way ends in a [`Fault`] that names the Rust line.
//!
//! ```
//! use bpf_asm::builder::{xdp, Array, Be, RingBuf, XDP_DROP, XDP_PASS, XDP_TX};
//! use bpf_asm::field;
//! use bpf_asm::harness::Harness;
//! use bpf_asm::interpreter::{FaultKind, XdpInput};
//! use bpf_asm::program::Program;
//! use zerocopy::byteorder::big_endian::U16;
//!
//! #[repr(C)]
//! struct Ethernet { destination: [u8; 6], source: [u8; 6], ethertype: U16 }
//! #[repr(C)]
//! struct Counts { seen: u64, dropped: u64 }
//! #[repr(C)]
//! struct Event { ethertype: u64 }
//!
//! const COUNTS: Array<Counts> = Array::new("counts", 1);
//! const EVENTS: RingBuf = RingBuf::new("events", 4096);
//!
//! // The program under test: echoes local experiments, drops IPv6 and reports it, passes everything else.
//! fn guard() -> Program {
//!     xdp("guard", |f| {
//!         let counts = COUNTS.lookup(f, 0u32, || f.ret(XDP_PASS));
//!         counts.atomic_add(field!(Counts, seen), 1u64);
//!         let packet = f.packet();
//!         let ethernet = packet.view::<Ethernet>(0, || f.ret(XDP_DROP));
//!         let ethertype = ethernet.load(field!(Ethernet, ethertype));
//!         f.if_(ethertype.eq(Be::new(0x88b5)), || {
//!             ethernet.at(field!(Ethernet, source)).element(5).write(1u8);
//!             f.ret(XDP_TX);
//!         });
//!         f.if_(ethertype.eq(Be::new(0x86dd)), || {
//!             counts.atomic_add(field!(Counts, dropped), 1u64);
//!             let event = EVENTS.reserve::<Event, _>(f, || f.ret(XDP_DROP));
//!             event.ptr().store(field!(Event, ethertype), ethertype.to_native().widen::<u64>());
//!             event.submit(0u64);
//!             f.ret(XDP_DROP);
//!         });
//!         f.ret(XDP_PASS);
//!     })
//!     .expect("the program builds")
//! }
//!
//! fn frame(ethertype: u16) -> Vec<u8> {
//!     let mut frame = vec![0; 60];
//!     frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
//!     frame
//! }
//!
//! let harness = Harness::new([guard()])?;
//!
//! // Verdicts, and the packet as the program left it.
//! assert_eq!(harness.xdp("guard", frame(0x0800))?.verdict, XDP_PASS);
//! let echoed = harness.xdp("guard", frame(0x88b5))?;
//! assert_eq!((echoed.verdict, echoed.packet[11]), (XDP_TX, 1));
//! // A packet that is too short is no surprise to the program.
//! assert_eq!(harness.xdp("guard", vec![0; 13])?.verdict, XDP_DROP);
//!
//! // Maps, as user space reads them.
//! assert_eq!(harness.xdp("guard", frame(0x86dd))?.verdict, XDP_DROP);
//! let counts = harness.map("counts")?;
//! assert_eq!((counts.load_u64(0)?, counts.load_u64(8)?), (4, 1));
//!
//! // The ring's records, and whether its reader was woken.
//! assert_eq!(harness.records("events")?, [0x86dd_u64.to_le_bytes()]);
//! assert_eq!(harness.map("events")?.ring_wakeups()?, 1);
//!
//! // A full ring: the program must still drop.
//! for _ in 0..1000 {
//!     assert_eq!(harness.xdp("guard", frame(0x86dd))?.verdict, XDP_DROP);
//! }
//! assert_eq!(harness.records("events")?.len(), 4095 / 16);
//!
//! // What each instruction did, with the line of this file that wrote it.
//! let traced = harness.traced("guard", XdpInput::new(frame(0x0800)))?;
//! assert!(traced.trace[0].line.is_some());
//! println!("{}", traced.listing());
//!
//! // The budget catches what doesn't end.
//! harness.machine().set_budget(5);
//! let fault = harness.xdp("guard", frame(0x0800)).unwrap_err();
//! assert_eq!(fault.kind, FaultKind::Budget(5));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Programs that call each other by `bpf_tail_call` are loaded together and put into their table by
//! [`Harness::jump`]; clocks, random numbers, routes and interfaces are the [`Machine`]'s. For several CPUs at once, step by
//! step, use the machine itself.

use std::collections::BTreeMap;

use crate::interpreter::{
    Fault, Input, LoadError, Machine, Map, MapError, Output, ProgramId, SkbInput, Step, XdpInput,
};
use crate::program::Program;

/// Programs and their maps, ready to be given packets.
#[derive(Debug)]
pub struct Harness {
    machine: Machine,
    programs: BTreeMap<String, ProgramId>,
}

/// What a program did with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The action that it returned.
    pub verdict: u32,
    /// The packet as it left it.
    pub packet: Vec<u8>,
    /// The packets that it sent elsewhere.
    pub outputs: Vec<Output>,
    /// What it printed.
    pub printed: Vec<String>,
    /// How many instructions it took.
    pub instructions: u64,
    /// A TC program's metadata; its `packet` is empty.
    pub skb: Option<SkbInput>,
    /// Each instruction, if that was asked for ([`Harness::traced`]).
    pub trace: Vec<Step>,
}

impl Outcome {
    /// The trace as text, a line for each instruction.
    pub fn listing(&self) -> String {
        self.trace.iter().map(|step| format!("{step}\n")).collect()
    }
}

/// Why a program couldn't be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HarnessError {
    /// No program of that name was loaded.
    #[error("there is no program `{0}`: give it to Harness::new")]
    UnknownProgram(String),
    /// The map can't do that.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl Harness {
    /// Loads programs, and makes the maps that they use.
    ///
    /// # Errors
    /// Programs or maps that a kernel would refuse, and programs that disagree about a map.
    pub fn new(programs: impl IntoIterator<Item = Program>) -> Result<Harness, LoadError> {
        Harness::on(Machine::new(), programs)
    }

    /// The same on a machine that was made before: of several CPUs, or with maps of one's own.
    ///
    /// # Errors
    /// As [`Harness::new`].
    pub fn on(
        machine: Machine,
        programs: impl IntoIterator<Item = Program>,
    ) -> Result<Harness, LoadError> {
        let mut harness = Harness {
            machine,
            programs: BTreeMap::new(),
        };
        for program in programs {
            let id = harness.machine.load(&program)?;
            harness.programs.insert(program.main.name, id);
        }
        Ok(harness)
    }

    /// The machine that they run on.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// A map, by its name.
    ///
    /// # Errors
    /// No program uses it.
    pub fn map(&self, name: &str) -> Result<Map, MapError> {
        self.machine.map(name)
    }

    /// A loaded program.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn program(&self, name: &str) -> Result<ProgramId, HarnessError> {
        let found = self.programs.get(name).copied();
        found.ok_or_else(|| HarnessError::UnknownProgram(name.to_owned()))
    }

    /// Puts a program into a jump table.
    ///
    /// # Errors
    /// There is no such program or no such place.
    pub fn jump(&self, table: &str, index: u32, program: &str) -> Result<(), HarnessError> {
        let program = self.program(program)?;
        Ok(self.map(table)?.set_program(index, Some(program))?)
    }

    /// Gives an XDP program a packet, on interface 1.
    ///
    /// # Errors
    /// The rule that it broke.
    ///
    /// # Panics
    /// No program of that name was loaded: a mistake of the test.
    pub fn xdp(&self, program: &str, packet: impl Into<Vec<u8>>) -> Result<Outcome, Fault> {
        self.run(program, XdpInput::new(packet))
    }

    /// Gives a TC program a packet, on interface 1.
    ///
    /// # Errors
    /// The rule that it broke.
    ///
    /// # Panics
    /// No program of that name was loaded: a mistake of the test.
    pub fn tc(&self, program: &str, packet: impl Into<Vec<u8>>) -> Result<Outcome, Fault> {
        self.run(program, SkbInput::new(packet))
    }

    /// Calls a program.
    ///
    /// # Errors
    /// The rule that it broke.
    ///
    /// # Panics
    /// No program of that name was loaded: a mistake of the test.
    pub fn run(&self, program: &str, input: impl Into<Input>) -> Result<Outcome, Fault> {
        self.call(program, input.into(), false)
    }

    /// Calls a program and keeps what each instruction did.
    ///
    /// # Errors
    /// The rule that it broke.
    ///
    /// # Panics
    /// No program of that name was loaded: a mistake of the test.
    pub fn traced(&self, program: &str, input: impl Into<Input>) -> Result<Outcome, Fault> {
        self.call(program, input.into(), true)
    }

    /// Takes a ring buffer's records.
    ///
    /// # Errors
    /// There is no such ring.
    pub fn records(&self, ring: &str) -> Result<Vec<Vec<u8>>, MapError> {
        let ring = self.map(ring)?;
        let mut records = Vec::new();
        while let Some(record) = ring.consume()? {
            records.push(record.bytes);
        }
        Ok(records)
    }

    fn call(&self, program: &str, input: Input, traced: bool) -> Result<Outcome, Fault> {
        let program = self
            .program(program)
            .unwrap_or_else(|error| panic!("{error}"));
        let mut run = self.machine.start(program, input);
        if traced {
            run = run.traced();
        }
        let verdict = run.run()? as u32;
        Ok(Outcome {
            verdict,
            packet: run.packet().to_vec(),
            outputs: run.outputs().to_vec(),
            printed: self.machine.take_printed(),
            instructions: run.executed(),
            skb: run.skb().cloned(),
            trace: run.trace().to_vec(),
        })
    }
}
