//! The engines that run plain code: memory in, r0 out.

use std::str::FromStr;

use bpf_asm::insn::Insn;
use bpf_asm::interpreter::{Input, Machine};

use crate::kernel::{Call, Loaded};

/// Who runs the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The crate's reference interpreter.
    #[default]
    Interpreter,
    /// The crate `rbpf`.
    Rbpf,
    /// The kernel; needs root.
    Kernel,
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Engine, String> {
        match text {
            "interpreter" => Ok(Engine::Interpreter),
            "rbpf" => Ok(Engine::Rbpf),
            "kernel" => Ok(Engine::Kernel),
            _ => Err("expected interpreter, rbpf or kernel".into()),
        }
    }
}

impl Engine {
    /// Runs the code with the memory's address in r1 and its length in r2.
    pub(crate) fn run(self, insns: &[Insn], memory: Vec<u8>) -> Result<u64, String> {
        match self {
            Engine::Interpreter => {
                let machine = Machine::new();
                let program = machine
                    .load_insns(insns)
                    .map_err(|error| error.to_string())?;
                let result = machine.start(program, Input::Memory(memory)).run();
                result.map_err(|fault| fault.to_string())
            }
            Engine::Rbpf => rbpf(insns, memory),
            Engine::Kernel => {
                let call = Call::WithMemory(memory.len());
                let loaded = Loaded::load(insns, call).map_err(|error| error.to_string())?;
                let mut memory = memory;
                loaded.run(&mut memory).map_err(|error| error.to_string())
            }
        }
    }
}

fn rbpf(insns: &[Insn], mut memory: Vec<u8>) -> Result<u64, String> {
    let mut slots = Vec::new();
    for insn in insns {
        insn.encode(&mut slots);
    }
    let said = |error: std::io::Error| format!("rbpf: {error}");
    let vm = rbpf::EbpfVmRaw::new(Some(slots.as_flattened())).map_err(said)?;
    vm.execute_program(&mut memory).map_err(said)
}
