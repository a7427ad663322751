//! Engines that run a raw program: memory in r1, its length in r2, the answer in r0. Several of them give the same answer,
//! or one of them is wrong.
//!
//! The interpreter is always there. `rbpf` (the crate of that name; what it gets wrong is listed in docs/bpf-asm.md) and
//! the kernel (`BPF_PROG_TEST_RUN`, which needs root) are features of this crate, off by default.

#[cfg(feature = "kernel")]
pub mod kernel;
#[cfg(feature = "rbpf")]
pub mod rbpf;

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "kernel")]
pub use self::kernel::Kernel;
#[cfg(feature = "rbpf")]
pub use self::rbpf::Rbpf;
use crate::interpreter::{Fault, Input, LoadError, Machine};

/// Something that runs raw programs.
pub trait Engine {
    /// Runs `code`, encoded instructions, with a copy of `memory`.
    ///
    /// # Errors
    /// The engine refuses the program, or stops it.
    fn run(&mut self, code: &[u8], memory: &[u8]) -> Result<Answer, EngineError>;
}

/// What a raw program left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The register.
    pub r0: u64,
    /// The memory that it was given.
    pub memory: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The code is no program.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The interpreter stopped it.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// The engine refused or stopped it, in its own words.
    #[error("{engine}: {words}")]
    Refused {
        /// Which engine.
        engine: EngineKind,
        /// Its words; the verifier's log, for the kernel.
        words: String,
    },
    /// The engine couldn't be asked.
    #[error("{engine}: {words}")]
    Failed {
        /// Which engine.
        engine: EngineKind,
        /// What went wrong.
        words: String,
    },
    /// The engine isn't part of this build.
    #[error("there is no {0} in this build: build with `--features {0}`")]
    NotBuilt(EngineKind),
}

/// The engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// The reference interpreter.
    Interpreter,
    /// The crate `rbpf`.
    Rbpf,
    /// The running kernel.
    Kernel,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [EngineKind; 3] = [
        EngineKind::Interpreter,
        EngineKind::Rbpf,
        EngineKind::Kernel,
    ];

    /// As it is written on a command line.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Interpreter => "interpreter",
            EngineKind::Rbpf => "rbpf",
            EngineKind::Kernel => "kernel",
        }
    }

    /// The engine.
    ///
    /// # Errors
    /// It isn't part of this build.
    pub fn engine(self) -> Result<Box<dyn Engine>, EngineError> {
        match self {
            EngineKind::Interpreter => Ok(Box::new(Interpreter)),
            #[cfg(feature = "rbpf")]
            EngineKind::Rbpf => Ok(Box::new(Rbpf)),
            #[cfg(feature = "kernel")]
            EngineKind::Kernel => Ok(Box::new(Kernel)),
            #[cfg(not(all(feature = "rbpf", feature = "kernel")))]
            missing => Err(EngineError::NotBuilt(missing)),
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no engine has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no engine `{0}`: interpreter, rbpf or kernel")]
pub struct UnknownEngine(pub String);

impl FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<EngineKind, UnknownEngine> {
        let found = EngineKind::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

/// The reference interpreter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interpreter;

impl Engine for Interpreter {
    fn run(&mut self, code: &[u8], memory: &[u8]) -> Result<Answer, EngineError> {
        let machine = Machine::new();
        let program = machine.load_bytes(code)?;
        let mut run = machine.start(program, Input::Memory(memory.to_vec()));
        let r0 = run.run()?;
        Ok(Answer {
            r0,
            memory: run.memory().to_vec(),
        })
    }
}
