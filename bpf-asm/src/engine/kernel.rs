//! The running kernel: a raw program becomes an XDP program around it, and its memory the packet.
//!
//! ```text
//!   r2 = data_end; r1 = data; if r1 + length > r2 goto out; r2 = length
//!   the program, whose main function's exits are jumps to the end
//!   r0 >>= 32 (in the second run); exit
//! ```
//! The kernel hands 32 bits of r0 back, so the program runs twice, each time with fresh memory.

use aya::EbpfLoader;
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};

use super::{Answer, Engine, EngineError, EngineKind};
use crate::insn::{AluOp, Insn, JumpOp, Reg, Size, Source, Width};
use crate::interpreter::LoadError;
use crate::object::Object;
use crate::program::{Function, Line, Program, ProgramKind, Relocation, Target};
use crate::target;

/// The shortest packet that a test run takes.
const MIN_PACKET_BYTES: usize = 14;

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
        self.run_insns(&[&insns], memory)?.remove(0)
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
            let elf = elf.map_err(|error| refused(error.to_string()))?;
            let mut ebpf = load(&elf)?;
            match xdp(&mut ebpf, &program.main.name)?.load() {
                Ok(()) => Ok(target::Answer::Loaded),
                Err(ProgramError::LoadError { verifier_log, .. }) => {
                    Ok(target::Answer::Refused(verifier_log.to_string()))
                }
                Err(error) => Err(in_words(error)),
            }
        })
    }

    /// Runs many programs with the same memory. They are loaded from one object, which takes much less time than one each.
    ///
    /// # Errors
    /// The object can't be made. What happens to a program is in its place of the answer.
    pub fn run_insns(
        &mut self,
        programs: &[&[Insn]],
        memory: &[u8],
    ) -> Result<Vec<Result<Answer, EngineError>>, EngineError> {
        let mut object = Object::new("GPL");
        for (number, insns) in programs.iter().enumerate() {
            for (half, upper) in [("low", false), ("high", true)] {
                let name = format!("{half}{number}");
                object = object.program(wrapped(&name, insns, memory.len(), upper)?);
            }
        }
        let elf = object
            .to_elf()
            .map_err(|error| refused(error.to_string()))?;
        let mut ebpf = load(&elf)?;
        let answers = (0..programs.len()).map(|number| {
            let (low, after) = run(&mut ebpf, &format!("low{number}"), memory)?;
            let (high, _) = run(&mut ebpf, &format!("high{number}"), memory)?;
            Ok(Answer {
                r0: u64::from(low) | u64::from(high) << 32,
                memory: after,
            })
        });
        Ok(answers.collect())
    }
}

/// An object's maps in the kernel. The kernel's own types, which take long to read, are left alone: nothing refers to them.
fn load(elf: &[u8]) -> Result<aya::Ebpf, EngineError> {
    let loaded = EbpfLoader::new().btf(None).load(elf);
    loaded.map_err(|error| refused(error.to_string()))
}

fn xdp<'e>(ebpf: &'e mut aya::Ebpf, name: &str) -> Result<&'e mut Xdp, EngineError> {
    let program = ebpf.program_mut(name).ok_or(refused("no program".into()))?;
    program.try_into().map_err(in_words)
}

fn run(ebpf: &mut aya::Ebpf, name: &str, memory: &[u8]) -> Result<(u32, Vec<u8>), EngineError> {
    let program = xdp(ebpf, name)?;
    program.load().map_err(in_words)?;
    let mut packet = memory.to_vec();
    packet.resize(memory.len().max(MIN_PACKET_BYTES), 0);
    let mut out = vec![0; packet.len()];
    let options = TestRunOptions {
        data_in: Some(&packet),
        data_out: Some(&mut out),
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).map_err(in_words)?;
    program.unload().map_err(in_words)?;
    out.truncate(memory.len());
    Ok((result.return_value, out))
}

fn in_words(error: ProgramError) -> EngineError {
    // The verifier's log is the useful part, and it is in the source.
    let mut words = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        words.push_str(": ");
        words.push_str(&error.to_string());
        source = error.source();
    }
    refused(words)
}

fn refused(words: String) -> EngineError {
    EngineError::Refused {
        engine: EngineKind::Kernel,
        words,
    }
}

/// The XDP program around a raw one.
fn wrapped(name: &str, insns: &[Insn], length: usize, upper: bool) -> Result<Program, EngineError> {
    let length = i32::try_from(length).map_err(|_| refused("too much memory".into()))?;
    let mut slots = Vec::with_capacity(insns.len() + 1);
    let mut slot = 0;
    for insn in insns {
        slots.push(slot);
        slot += insn.slots();
    }
    slots.push(slot);
    let target = |at: usize, offset: i32| {
        let slot = slots[at] as i64 + 1 + i64::from(offset);
        let index = usize::try_from(slot)
            .ok()
            .and_then(|slot| slots.binary_search(&slot).ok());
        index.ok_or(LoadError::Target { slot: slots[at] })
    };
    // Where functions begin: at the targets of calls.
    let mut starts = vec![0];
    for (at, insn) in insns.iter().enumerate() {
        if let Insn::CallLocal { offset } = insn {
            starts.push(target(at, *offset)?);
        }
    }
    starts.sort_unstable();
    starts.dedup();
    let name_of = |start: usize| format!("{name}_at_{}", slots[start]);
    let mut functions = Vec::new();
    for (number, &start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(insns.len());
        let is_main = start == 0;
        let mut body = if is_main {
            prologue(length)
        } else {
            Vec::new()
        };
        let mut relocations = Vec::new();
        for at in start..end {
            match insns[at] {
                Insn::Exit if is_main => {
                    let distance = slots[end] - slots[at] - 1;
                    let offset = i16::try_from(distance)
                        .map_err(|_| refused("more code than a jump spans".into()))?;
                    body.push(Insn::Goto { offset });
                }
                Insn::CallLocal { offset } => {
                    let callee = target(at, offset)?;
                    relocations.push(Relocation {
                        at: body.len(),
                        target: Target::Subprogram(name_of(callee)),
                    });
                    body.push(Insn::CallLocal { offset: -1 });
                }
                insn => body.push(insn),
            }
        }
        if is_main {
            if upper {
                body.push(Insn::Alu {
                    width: Width::W64,
                    op: AluOp::Rsh,
                    dst: Reg::R0,
                    src: Source::Imm(32),
                });
            }
            body.push(Insn::Exit);
        }
        let line = Line {
            file: "raw",
            line: 1,
            column: 1,
        };
        functions.push(Function {
            name: if is_main {
                name.to_owned()
            } else {
                name_of(start)
            },
            arguments: if is_main { 1 } else { 5 },
            lines: vec![line; body.len()],
            insns: body,
            relocations,
        });
    }
    let main = functions.remove(0);
    Ok(Program {
        kind: ProgramKind::Xdp,
        main,
        subprograms: functions,
        maps: Vec::new(),
    })
}

/// r1 = the packet, proven to have `length` bytes; r2 = length.
fn prologue(length: i32) -> Vec<Insn> {
    let word = |dst, offset| Insn::Load {
        size: Size::W,
        signed: false,
        dst,
        base: Reg::R1,
        offset,
    };
    let mov = |dst, src| Insn::Alu {
        width: Width::W64,
        op: AluOp::Mov,
        dst,
        src,
    };
    vec![
        word(Reg::R2, 4),
        word(Reg::R1, 0),
        mov(Reg::R0, Reg::R1.into()),
        Insn::Alu {
            width: Width::W64,
            op: AluOp::Add,
            dst: Reg::R0,
            src: length.into(),
        },
        // The way out is never taken.
        Insn::Jump {
            width: Width::W64,
            op: JumpOp::Le,
            dst: Reg::R0,
            src: Reg::R2.into(),
            offset: 2,
        },
        mov(Reg::R0, 0.into()),
        Insn::Exit,
        mov(Reg::R2, length.into()),
    ]
}
