//! Programs to a relocatable ELF file, the one that aya, libbpf and bpftool load and LLVM's tools read.
//!
//! ```text
//!   xdp, xdp.frags, classifier   main functions, one global symbol each
//!   .text                        subprograms, local symbols; where libbpf insists on having them
//!   .rodata, .data, .bss         global variables, if there are any
//!   .maps                        one variable a map, described by BTF; absent without maps
//!   license                      for helpers that ask for the GPL
//!   .BTF, .BTF.ext               types, and where in Rust each instruction comes from
//! ```
//! The bytes depend on nothing but the programs and the sources handed in: not on the time, the place or the host.

mod collect;
mod elf;
mod globals;
mod link;
mod sources;
mod types;

use crate::insn::IllegalInsn;
use crate::program::Program;
pub use link::{Linked, link};
pub(crate) use sources::Sources;

/// Programs that go into one file, with their licence.
#[derive(Clone, Debug)]
pub struct Object {
    /// The licence, for example `GPL` or `Dual MIT/GPL`.
    pub license: String,
    /// The programs, in the order in which they are written.
    pub programs: Vec<Program>,
    sources: Sources,
}

/// Why programs don't make an object.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// An object without programs.
    #[error("there are no programs")]
    Empty,
    /// A licence that is empty or holds a NUL.
    #[error("`{0:?}` is no licence")]
    License(String),
    /// A name that is not a C identifier, or a map's that the kernel has no room for.
    #[error("`{0}` can't be a symbol: C identifiers only, and for maps at most 15 bytes")]
    Name(String),
    /// Two programs, subprograms or maps of one name, but for maps and subprograms that programs share.
    #[error("two symbols are called `{0}`")]
    DuplicateSymbol(String),
    /// Programs that mean different functions by one subprogram's name.
    #[error("programs disagree about the subprogram `{0}`")]
    ConflictingSubprogram(String),
    /// Programs that define a map differently.
    #[error("programs disagree about the map `{0}`")]
    ConflictingMap(String),
    /// Programs that mean different variables by one name, or variables that overlap.
    #[error("programs disagree about the global variable `{0}`")]
    ConflictingGlobal(String),
    /// A map of maps of maps, or of variables.
    #[error("the map `{0}` can hold neither maps of maps nor global variables")]
    Nested(String),
    /// A function with no instructions.
    #[error("the function `{0}` is empty")]
    EmptyFunction(String),
    /// A function of more than five arguments.
    #[error("the function `{0}` has more than five arguments")]
    Arguments(String),
    /// A function whose instructions and lines don't pair up.
    #[error("the function `{0}` doesn't have one source line for each instruction")]
    Lines(String),
    /// An instruction that can't be encoded.
    #[error("instruction {at} of `{function}`: {illegal}")]
    Illegal {
        /// The function.
        function: String,
        /// The instruction's index.
        at: usize,
        /// What is wrong with it.
        illegal: IllegalInsn,
    },
    /// A relocation at an instruction that can't have it, or out of order, or a second one there.
    #[error("instruction {at} of `{function}` can't take its relocation")]
    Relocation {
        /// The function.
        function: String,
        /// The instruction's index.
        at: usize,
    },
    /// A map load or local call without a relocation.
    #[error("instruction {at} of `{function}` says neither which map nor which function it means")]
    Unrelocated {
        /// The function.
        function: String,
        /// The instruction's index.
        at: usize,
    },
    /// A map that the program doesn't define.
    #[error("`{function}` uses the map `{map}`, which its program doesn't define")]
    UnknownMap {
        /// The function.
        function: String,
        /// The map.
        map: String,
    },
    /// A subprogram that the program doesn't have.
    #[error("`{function}` calls `{callee}`, which its program doesn't have")]
    UnknownSubprogram {
        /// The caller.
        function: String,
        /// The callee.
        callee: String,
    },
    /// More code than 32-bit offsets reach, or more than 65535 maps.
    #[error("the object is too large")]
    TooLarge,
    /// What the ELF writer says.
    #[error("the ELF writer: {0}")]
    Write(String),
}

impl Object {
    /// An object without programs so far.
    pub fn new(license: impl Into<String>) -> Object {
        Object {
            license: license.into(),
            programs: Vec::new(),
            sources: Sources::default(),
        }
    }

    /// Adds a program.
    #[must_use]
    pub fn program(mut self, program: Program) -> Object {
        self.programs.push(program);
        self
    }

    /// Provides the Rust text that verifier logs will quote, as pairs of the file's name (or how it ends, in whole path
    /// components) and its contents. Lines of other files are quoted as `file:line`.
    ///
    /// ```
    /// # use bpf_asm::object::Object;
    /// let object = Object::new("GPL").sources(&[("src/drop.rs", "fn drop() {}")]);
    /// ```
    #[must_use]
    pub fn sources(mut self, sources: &[(&str, &str)]) -> Object {
        self.sources.add(sources);
        self
    }

    /// The file's bytes, the same ones each time.
    ///
    /// # Errors
    /// Programs that contradict themselves or each other are refused; whether the verifier likes them is not asked.
    pub fn to_elf(&self) -> Result<Vec<u8>, ObjectError> {
        if self.license.is_empty() || self.license.contains('\0') {
            return Err(ObjectError::License(self.license.clone()));
        }
        let programs = globals::unify(&self.programs)?;
        let parts = collect::collect(&programs)?;
        elf::write(&self.license, &parts, &self.sources)
    }
}
