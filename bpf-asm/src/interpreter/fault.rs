//! Why a run ended without a result: what the verifier would not have let pass, or what a test's world lacks.

use std::fmt;

use super::value::{Pointer, Region, Value};
use crate::insn::{Insn, Reg};
use crate::program::Line;

/// The end of a run that broke a rule: which one, at which instruction, from which line of Rust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// Where.
    pub at: Box<Place>,
}

/// An instruction of a loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The program.
    pub program: String,
    /// The instruction's number, in 8-byte slots as the verifier counts them.
    pub slot: usize,
    /// The instruction; None when the program ran past its end.
    pub insn: Option<Insn>,
    /// Where it was written, if that is known.
    pub line: Option<Line>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.kind)
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Line { file, line, column }) = self.line {
            write!(f, "{file}:{line}:{column}: ")?;
        }
        write!(f, "instruction {} of `{}`", self.slot, self.program)?;
        match &self.insn {
            Some(insn) => write!(f, ", `{insn}`"),
            None => Ok(()),
        }
    }
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// A register that nothing was written to, or that a call clobbered.
    #[error("{0:?} holds nothing: write it first (calls clobber r1 to r5)")]
    UninitialisedRegister(Reg),
    /// Stack bytes that nothing was written to.
    #[error("the stack at {0} was not written yet")]
    UninitialisedStack(Pointer),
    /// The frame pointer as a destination.
    #[error("r10 can't be written")]
    FramePointerWritten,
    /// Memory through a number.
    #[error("{value} is no pointer")]
    NotAPointer {
        /// The number.
        value: Value,
    },
    /// Memory through null.
    #[error("a null pointer: handle the look-up that found nothing")]
    NullPointer,
    /// A look-up's result used before it was compared with null.
    #[error("{0} comes from a look-up and was not compared with null")]
    UncheckedLookup(Pointer),
    /// An access that isn't wholly inside its region.
    #[error("{bytes} bytes at {pointer} are outside of it ({allowed})")]
    OutOfBounds {
        /// The address.
        pointer: Pointer,
        /// The access's length.
        bytes: u64,
        /// What would have been allowed.
        allowed: String,
    },
    /// A packet pointer from before a helper that moved the packet.
    #[error("{0} is from before a helper that moved the packet: load data and data_end again")]
    StalePacketPointer(Pointer),
    /// A pointer into the stack of a function that has returned.
    #[error("{0} points into the stack of a function that has returned")]
    DanglingStackPointer(Pointer),
    /// A record that was submitted or discarded.
    #[error("{0} was submitted or discarded before")]
    ClosedRecord(Pointer),
    /// A region that can't be read or written like that.
    #[error("{pointer} can't be {how}")]
    Forbidden {
        /// The address.
        pointer: Pointer,
        /// What was tried, as a participle.
        how: &'static str,
    },
    /// A context field that isn't there, or not at this size, or not writable.
    #[error("the context has no {how} {bytes} bytes at offset {offset}")]
    ContextField {
        /// Bytes from its start.
        offset: i64,
        /// The access's length.
        bytes: u8,
        /// `readable` or `writable`.
        how: &'static str,
    },
    /// An access whose address must be a multiple of its size.
    #[error("{bytes} bytes at {pointer} are not aligned")]
    Misaligned {
        /// The address.
        pointer: Pointer,
        /// The access's length.
        bytes: u8,
    },
    /// Arithmetic that would give an address away or make none.
    #[error("this arithmetic can't be done with {0}")]
    PointerArithmetic(Pointer),
    /// A comparison of a pointer with something that it can't be compared with.
    #[error("{0} and {1} can't be compared")]
    PointerComparison(Value, Value),
    /// A pointer written where others could read it.
    #[error("{pointer} would leak into {region}")]
    PointerLeak {
        /// The pointer.
        pointer: Pointer,
        /// Where it would go.
        region: Region,
    },
    /// A pointer returned from the program or to a place that must get a number.
    #[error("r0 must be a number here, not {0}")]
    PointerReturned(Pointer),
    /// Part of a pointer on the stack read or written.
    #[error("only all 8 bytes of the pointer at {0} can be used")]
    PartOfPointer(Pointer),
    /// A helper's argument that is of the wrong kind.
    #[error("argument {argument} of {helper} must be {expected}, not {found}")]
    Argument {
        /// The helper's name.
        helper: &'static str,
        /// From 1.
        argument: u8,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: Value,
    },
    /// A helper that this interpreter doesn't have.
    #[error("helper {helper} ({name}) isn't there for this kind of program")]
    UnknownHelper {
        /// Its number.
        helper: u32,
        /// Its name, if it has one.
        name: &'static str,
    },
    /// An instruction that only the kernel can carry out.
    #[error("this instruction can't be interpreted")]
    Unsupported,
    /// A map's type that doesn't go with the helper.
    #[error("{helper} can't be used on the map `{map}`, {kind}")]
    WrongMap {
        /// The helper's name.
        helper: &'static str,
        /// The map's name.
        map: String,
        /// What it is.
        kind: &'static str,
    },
    /// More instructions than the budget.
    #[error("the budget of {0} instructions is used up")]
    Budget(u64),
    /// More nested calls than 8.
    #[error("more than {0} nested calls")]
    CallDepth(usize),
    /// More than 512 bytes of stack over all frames.
    #[error("the frames together use {bytes} bytes of stack, more than 512")]
    StackDepth {
        /// Rounded per frame, as the kernel does.
        bytes: u64,
    },
    /// Execution past the last instruction.
    #[error("the program has no instruction here: end it by exit")]
    OutOfProgram,
    /// A record that was neither submitted nor discarded.
    #[error("the record {0} is neither submitted nor discarded at the program's end")]
    UnreleasedRecord(Pointer),
    /// A spin lock held where it must not be.
    #[error("a spin lock is held here: {0}")]
    LockHeld(&'static str),
    /// A spin lock given back that isn't held.
    #[error("this spin lock isn't held")]
    LockNotHeld,
    /// A callback's or a helper's result outside what is allowed.
    #[error("a callback must return 0 or 1, not {0}")]
    CallbackResult(Value),
    /// A tail call from inside a callback.
    #[error("a tail call from a callback")]
    TailCallFromCallback,
}
