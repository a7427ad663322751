//! What can be wrong with a program that compiled as Rust.

use crate::program::Line;
use crate::target::{Feature, LowerErrorKind};

/// Why a program can't be built, and the Rust line that says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {kind}", line.file, line.line)]
pub struct BuildError {
    /// The rule.
    pub kind: BuildErrorKind,
    /// Where it was broken.
    pub line: Line,
}

/// The rules that only building can check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildErrorKind {
    /// Frames of one call chain share 512 bytes.
    #[error(
        "the stack needs {bytes} bytes with this; 512 is all there is: make buffers smaller, keep them in a per-CPU \
         array, or hold fewer values at a time"
    )]
    StackOverflow {
        /// Bytes needed.
        bytes: u32,
    },
    /// The kernel keeps 15 bytes of a name, and object files need it to be a C identifier.
    #[error(
        "`{name}` is not a name: use 1 to 15 ASCII letters, digits and underscores, not a digit first"
    )]
    Name {
        /// The name as given.
        name: String,
    },
    /// Two maps or two subprograms share a name and nothing else.
    #[error(
        "`{name}` is declared twice with different definitions: rename one, or share one constant"
    )]
    NameConflict {
        /// The name.
        name: String,
    },
    /// An element, a stack offset or a bound lies outside what it indexes.
    #[error(
        "index {index} is outside of {len} elements: use a smaller constant, or `index` with a run-time check"
    )]
    OutOfRange {
        /// The index as given.
        index: u64,
        /// How many there are.
        len: u64,
    },
    /// The kernel tracks packet offsets below 65536 only.
    #[error("a packet offset of up to {max} can't be proven: state a maximum below 65536")]
    PacketOffset {
        /// The maximum as given, or as it follows from the size viewed.
        max: u64,
    },
    /// The code for a failed check doesn't leave.
    #[error(
        "what to do when this check fails must end the program or leave the loop: use `ret`, `break_` or `continue_` in it"
    )]
    FallsThrough,
    /// The verifier wants to see that a loop ends.
    #[error("a loop of {iterations} iterations: between 1 and {max} are provable")]
    LoopBound {
        /// As given.
        iterations: u64,
        /// The most.
        max: u64,
    },
    /// A subprogram asked for the context or the packet.
    #[error(
        "a subprogram has no context: do this in the main function, or pass what is needed as an argument"
    )]
    NoContext,
    /// A value that belongs to another function was used.
    #[error("this value belongs to another function: pass it as an argument")]
    ForeignValue,
    /// Execution can reach the end of a subprogram or a block without an answer.
    #[error(
        "a value is returned from a main function, or an action from a subprogram: use `ret` there and `return_value` here"
    )]
    WrongReturn,
    /// A subprogram returns another type than it was declared with.
    #[error(
        "this subprogram was declared to return {declared}, and {given} is returned: convert it by `cast`, `to_native` or \
         `to_be`, or declare what it returns"
    )]
    ReturnType {
        /// The type in the declaration.
        declared: &'static str,
        /// The type of the value.
        given: &'static str,
    },
    /// A ring buffer record is neither submitted nor discarded on some path.
    #[error(
        "this record can still be open when the program ends: submit or discard it on every path"
    )]
    RecordLeftOpen,
    /// A ring buffer record is submitted or discarded on a path where it isn't open.
    #[error("this record can be closed already here: submit or discard it once on every path")]
    RecordClosedTwice,
    /// The target lacks it, and nothing can replace it.
    #[error(
        "the target has no {feature}, and nothing can replace it here: write this without it, or choose another target"
    )]
    Target {
        /// What is missing.
        feature: Feature,
    },
    /// What an instruction was lowered to doesn't fit.
    #[error(transparent)]
    Lower(LowerErrorKind),
    /// Programs of this hook can't call the helper.
    #[error(
        "programs of this hook can't call the helper {name} (number {number}): do without it, or move this to a program of the other hook"
    )]
    HelperOfAnotherHook {
        /// Its number.
        number: u32,
        /// Its name.
        name: &'static str,
    },
    /// The target's kernel doesn't have the helper.
    #[error("the target has no helper {name} (number {number}, since Linux {}.{}): do without it, or choose another target", since.0, since.1)]
    NoHelper {
        /// Its number.
        number: u32,
        /// Its name.
        name: &'static str,
        /// The first kernel that has it.
        since: (u8, u8),
    },
    /// A helper takes at most five arguments.
    #[error("{count} arguments: a helper takes at most five")]
    Arguments {
        /// How many were given.
        count: usize,
    },
    /// A value that is matched has two cases for one number.
    #[error("there are two cases for {value}: the second would never run")]
    DuplicateCase {
        /// The number, as a register holds it.
        value: u64,
    },
    /// A format string asks for other arguments than it gets, or for more than `bpf_trace_printk` takes.
    #[error(
        "the format asks for {asked} values and {given} are given: as many as given, at most three, each `%d`, `%u`, `%x`, `%ld`, `%lu`, `%lx`, `%lld`, `%llu` or `%llx`"
    )]
    Format {
        /// Conversions in the format.
        asked: usize,
        /// Values given.
        given: usize,
    },
    /// A map or a piece of memory is used in a way that its declaration rules out.
    #[error("{0}")]
    Misuse(&'static str),
    /// A shift by a constant that is not below the width.
    #[error("a shift by {by} of a value of {bits} bits: shift by less")]
    Shift {
        /// The distance.
        by: u64,
        /// The width.
        bits: u32,
    },
    /// A division by the constant zero.
    #[error("division by the constant 0")]
    DivideByZero,
    /// The verifier refuses a jump of more than 32767 instructions.
    #[error("a jump is too far: move a part into a subprogram or a tail call, or unroll less")]
    JumpTooFar,
    /// No assignment of registers exists; a bug in this crate unless a hundred values meet in one instruction.
    #[error("no registers are left here: hold fewer values at a time")]
    OutOfRegisters,
}
