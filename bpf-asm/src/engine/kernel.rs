//! Code run by the kernel, through BPF_PROG_TEST_RUN: memory in, all 64 bits of r0 out.
//!
//! ```text
//!   packet:  memory | 8 bytes for r0 | padding to an Ethernet header
//!   program: r1 = memory, r2 = its length; call the code; store r0 behind the memory
//! ```
//! The code is a function of its own, so that its `exit` returns here; it has nearly the whole stack to itself.

use std::cell::RefCell;

use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

use super::{Answer, Engine, EngineError, EngineKind};
use crate::asm::Assembler;
use crate::code;
use crate::insn::{Insn, Reg};
use crate::interpreter::LoadError;
use crate::object::{self, Object};
use crate::program::{Function, Program, ProgramKind};
use crate::target;
use crate::verifier;

/// What a test run takes at least: an Ethernet header.
const MIN_PACKET: usize = 14;

/// The most memory, in bytes: the linear part of a packet in a test run ends at 3520, and r0 has to fit behind the memory.
pub const MAX_MEMORY_BYTES: usize = 3504;

const RESULT_BYTES: usize = 8;

thread_local! {
    /// Without the kernel's own types, to which nothing here refers. A new loader reads them first, which takes longer than
    /// everything else, so there is one loader for all.
    static LOADER: RefCell<EbpfLoader<'static>> = {
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        RefCell::new(loader)
    };
}

/// The running kernel, by `BPF_PROG_TEST_RUN`. Needs root.
///
/// Programs must satisfy the verifier. Memory is a packet, on which the kernel allows no atomics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Engine for Kernel {
    fn run(&mut self, code: &[u8], memory: &[u8]) -> Result<Answer, EngineError> {
        let (slots, rest) = code.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(LoadError::Length(code.len()).into());
        }
        let insns =
            Insn::decode_all(slots).map_err(|(slot, error)| LoadError::Decode { slot, error })?;
        let mut memory = memory.to_vec();
        let r0 = Loaded::load(&insns, Call::WithMemory(memory.len()))?.run(&mut memory)?;
        Ok(Answer { r0, memory })
    }
}

impl Kernel {
    /// Which instructions the running kernel has, found by asking it; helpers aren't asked for.
    ///
    /// # Errors
    /// No program can be loaded at all, for example for lack of privileges.
    pub fn target(&mut self) -> Result<target::Target, EngineError> {
        target::Target::probe(|program| {
            if matches!(program.main.insns[..], [Insn::Call { .. }, ..]) {
                return Ok(target::Answer::Refused("unknown func".into()));
            }
            let elf = Object::new("GPL").program(program.clone()).to_elf();
            let mut ebpf = LOADER
                .with_borrow_mut(|loader| loader.load(&elf.map_err(other)?).map_err(chain))?;
            let loaded = ebpf.program_mut(&program.main.name).ok_or_else(gone)?;
            match <&mut Xdp>::try_from(loaded).map_err(chain)?.load() {
                Ok(()) => Ok(target::Answer::Loaded),
                Err(ProgramError::LoadError { verifier_log, .. }) => {
                    Ok(target::Answer::Refused(verifier_log.to_string()))
                }
                Err(error) => Err(chain(error)),
            }
        })
    }
}

/// How plain code is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// By an XDP program, with this many bytes of memory in r1 and their number in r2.
    WithMemory(usize),
    /// As a TC classifier, with the context in r1 and the memory as its packet; only the lower half of r0 comes back.
    AsClassifier,
}

/// Plain code that the kernel has taken.
#[derive(Debug)]
pub struct Loaded {
    ebpf: Ebpf,
    call: Call,
}

impl Loaded {
    /// Loads it; needs root.
    ///
    /// # Errors
    /// It is no code, there is too much memory, the verifier refuses it ([`EngineError::Refused`]), or the kernel can't be asked.
    pub fn load(insns: &[Insn], call: Call) -> Result<Loaded, EngineError> {
        let functions = code::functions("code", "code", insns).map_err(other)?;
        let program = match call {
            Call::AsClassifier => {
                let mut functions = functions.into_iter();
                Program {
                    kind: ProgramKind::Classifier,
                    main: functions.next().ok_or_else(|| failed("no code"))?,
                    subprograms: functions.collect(),
                    maps: Vec::new(),
                }
            }
            Call::WithMemory(length) if length > MAX_MEMORY_BYTES => {
                return Err(failed(format!(
                    "{length} bytes of memory: the kernel's engine has room for {MAX_MEMORY_BYTES}"
                )));
            }
            Call::WithMemory(length) => Program {
                kind: ProgramKind::Xdp,
                main: caller(length)?,
                subprograms: functions,
                maps: Vec::new(),
            },
        };
        let name = program.main.name.clone();
        let linked = object::link(&program).map_err(other)?;
        let elf = Object::new("GPL")
            .program(program)
            .to_elf()
            .map_err(other)?;
        let mut ebpf = LOADER
            .with_borrow_mut(|loader| loader.load(&elf))
            .map_err(chain)?;
        let program = ebpf.program_mut(&name).ok_or_else(gone)?;
        let loaded = match call {
            Call::AsClassifier => <&mut SchedClassifier>::try_from(program)
                .map_err(chain)?
                .load(),
            Call::WithMemory(_) => <&mut Xdp>::try_from(program).map_err(chain)?.load(),
        };
        match loaded {
            Ok(()) => Ok(Loaded { ebpf, call }),
            Err(ProgramError::LoadError {
                io_error,
                verifier_log,
            }) => {
                let told = verifier::explain(&verifier_log.to_string(), &linked, &[]);
                Err(EngineError::Refused {
                    engine: EngineKind::Kernel,
                    words: format!("{io_error}\n{told}"),
                })
            }
            Err(error) => Err(chain(error)),
        }
    }

    /// Runs it once; r0 comes back, and `memory` as the code left it. Its length is that of loading.
    ///
    /// # Errors
    /// The memory has another length, or the kernel can't be asked.
    pub fn run(&self, memory: &mut [u8]) -> Result<u64, EngineError> {
        let mut packet = memory.to_vec();
        if let Call::WithMemory(length) = self.call {
            if length != memory.len() {
                return Err(failed("the memory has another length"));
            }
            packet.resize(packet.len() + RESULT_BYTES, 0);
        }
        packet.resize(packet.len().max(MIN_PACKET), 0);
        let mut out = vec![0; packet.len()];
        let options = TestRunOptions {
            data_in: Some(&packet),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let mut programs = self.ebpf.programs();
        let result = match programs.next().ok_or_else(gone)?.1 {
            aya::programs::Program::Xdp(program) => program.test_run(options),
            aya::programs::Program::SchedClassifier(program) => program.test_run(options),
            _ => return Err(gone()),
        };
        let result = result.map_err(chain)?;
        if self.call == Call::AsClassifier {
            return Ok(u64::from(result.return_value));
        }
        let (left, r0) = out.split_at(memory.len());
        memory.copy_from_slice(left);
        match r0.first_chunk() {
            Some(r0) if result.return_value == XDP_PASS => Ok(u64::from_le_bytes(*r0)),
            _ => Err(failed("the kernel gave the program another packet")),
        }
    }
}

const XDP_PASS: u32 = 2;

/// The program around the code.
fn caller(length: usize) -> Result<Function, EngineError> {
    let (data, data_end) = (0, 4);
    let short = |bytes: usize| i32::try_from(bytes).map_err(other);
    let mut a = Assembler::new("caller");
    let out = a.label();
    a.mov64(Reg::R6, Reg::R1);
    if length == 0 {
        a.mov64_imm(Reg::R1, 0).mov64_imm(Reg::R2, 0);
    } else {
        a.ldx_w(Reg::R2, Reg::R6, data)
            .ldx_w(Reg::R3, Reg::R6, data_end);
        a.mov64(Reg::R1, Reg::R2).add64_imm(Reg::R2, short(length)?);
        a.jgt64(Reg::R2, Reg::R3, out)
            .mov64_imm(Reg::R2, short(length)?);
    }
    a.call_local("code");
    a.ldx_w(Reg::R2, Reg::R6, data)
        .ldx_w(Reg::R3, Reg::R6, data_end);
    a.add64_imm(Reg::R2, short(length + RESULT_BYTES)?);
    a.jgt64(Reg::R2, Reg::R3, out);
    a.stx_dw(Reg::R2, -8, Reg::R0);
    a.mov64_imm(Reg::R0, 2).exit();
    a.bind(out).mov64_imm(Reg::R0, 0).exit();
    a.finish().map_err(other)
}

fn failed(words: impl Into<String>) -> EngineError {
    EngineError::Failed {
        engine: EngineKind::Kernel,
        words: words.into(),
    }
}

fn other(error: impl std::fmt::Display) -> EngineError {
    failed(error.to_string())
}

fn gone() -> EngineError {
    failed("the loader lost the program")
}

/// An error with everything behind it.
fn chain(error: impl std::error::Error) -> EngineError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    failed(text)
}
