//! From the intermediate form to instructions: clean the control flow, drop what is dead, assign registers, lower.

mod allocate;
mod clean;
mod constrain;
mod flow;
mod liveness;
mod lower;
mod records;

use super::error::{BuildError, BuildErrorKind};
use super::ir::{At, BlockId, Body, Op, Operand, Reg, RegInfo, State, Terminator};
use crate::program::Function;

/// Bytes of stack that a chain of calls may use.
const STACK_BYTES: u32 = 512;

/// The function's code while it is worked on: blocks in the order in which they will stand.
#[derive(Debug)]
struct Code {
    blocks: Vec<Straight>,
    regs: Vec<RegInfo>,
    buffers: Vec<(u32, At)>,
    arguments: Vec<Reg>,
}

/// A basic block; its number is its place.
#[derive(Debug)]
struct Straight {
    ops: Vec<(Op, At)>,
    end: Terminator,
    end_at: At,
    depth: u32,
}

/// Makes a function of a finished body: the function, and the bytes of stack that it and what it calls use.
pub(super) fn compile(body: &Body, name: &str) -> Result<(Function, u32), BuildError> {
    let state = body.state.take();
    records::check(&state)?;
    let mut code = flow::straighten(state, &body.arguments)?;
    clean::clean(&mut code);
    constrain::constrain(&mut code);
    let registers = allocate::allocate(&mut code)?;
    let stack = lower::Frame::new(&code.buffers);
    let used = stack.bytes().next_multiple_of(32) + body.callee_stack.get();
    if used > STACK_BYTES {
        let at = code.buffers.iter().max_by_key(|(bytes, _)| *bytes).map_or(code.blocks[0].end_at, |(_, at)| at);
        return Err(BuildError { kind: BuildErrorKind::StackOverflow { bytes: used }, line: at.into() });
    }
    let function = lower::lower(&code, &registers, &stack, name, &body.session.borrow())?;
    Ok((function, used))
}

impl Op {
    /// Calls `f` for each operand that is read.
    fn each_use(&self, mut f: impl FnMut(Reg)) {
        self.clone().each_use_mut(|reg| f(*reg));
    }

    /// Calls `f` for each register that is read, so that it can be renamed.
    fn each_use_mut(&mut self, mut f: impl FnMut(&mut Reg)) {
        use super::ir::{Arg, Base};
        let base_of = |base: &mut Base, f: &mut dyn FnMut(&mut Reg)| {
            if let Base::Reg(reg) = base {
                f(reg);
            }
        };
        let operand_of = |operand: &mut Operand, f: &mut dyn FnMut(&mut Reg)| {
            if let Operand::Reg(reg) = operand {
                f(reg);
            }
        };
        match self {
            Op::Alu { a, b, .. } => {
                operand_of(a, &mut f);
                operand_of(b, &mut f);
            }
            Op::Copy { src, .. } => operand_of(src, &mut f),
            Op::Endian { src, .. } => f(src),
            Op::Load { base, .. } | Op::Address { base, .. } => base_of(base, &mut f),
            Op::Store { base, src, .. } => {
                base_of(base, &mut f);
                operand_of(src, &mut f);
            }
            Op::Atomic { base, src, expected, .. } => {
                base_of(base, &mut f);
                operand_of(src, &mut f);
                if let Some(expected) = expected {
                    operand_of(expected, &mut f);
                }
            }
            Op::Call { args, .. } => {
                for arg in args {
                    match arg {
                        Arg::Value(operand) => operand_of(operand, &mut f),
                        Arg::Address(base, _) => base_of(base, &mut f),
                        Arg::Map(_) => {}
                    }
                }
            }
            Op::OpenRecord(_) | Op::CloseRecord(_) => {}
        }
    }

    /// Calls `f` for each operand that may be a constant, so that it can be replaced.
    fn each_operand_mut(&mut self, mut f: impl FnMut(&mut Operand)) {
        match self {
            Op::Alu { a, b, .. } => {
                f(a);
                f(b);
            }
            Op::Copy { src, .. } | Op::Store { src, .. } => f(src),
            Op::Atomic { src, expected, .. } => {
                f(src);
                if let Some(expected) = expected {
                    f(expected);
                }
            }
            Op::Call { args, .. } => {
                for arg in args {
                    if let super::ir::Arg::Value(operand) = arg {
                        f(operand);
                    }
                }
            }
            Op::Endian { .. } | Op::Load { .. } | Op::Address { .. } | Op::OpenRecord(_) | Op::CloseRecord(_) => {}
        }
    }

    /// The register that is written.
    fn def(&self) -> Option<Reg> {
        match self {
            Op::Alu { dst, .. }
            | Op::Copy { dst, .. }
            | Op::Endian { dst, .. }
            | Op::Load { dst, .. }
            | Op::Address { dst, .. } => Some(*dst),
            Op::Atomic { dst, .. } | Op::Call { dst, .. } => *dst,
            Op::Store { .. } | Op::OpenRecord(_) | Op::CloseRecord(_) => None,
        }
    }

    /// The register that is written, so that it can be renamed.
    fn def_mut(&mut self) -> Option<&mut Reg> {
        match self {
            Op::Alu { dst, .. }
            | Op::Copy { dst, .. }
            | Op::Endian { dst, .. }
            | Op::Load { dst, .. }
            | Op::Address { dst, .. } => Some(dst),
            Op::Atomic { dst, .. } | Op::Call { dst, .. } => dst.as_mut(),
            Op::Store { .. } | Op::OpenRecord(_) | Op::CloseRecord(_) => None,
        }
    }

    /// Whether it does something besides writing its register.
    fn has_effect(&self) -> bool {
        matches!(self, Op::Store { .. } | Op::Atomic { .. } | Op::Call { .. })
    }
}

impl Terminator {
    fn each_operand_mut(&mut self, mut f: impl FnMut(&mut Operand)) {
        match self {
            Terminator::Jump(_) => {}
            Terminator::Branch { a, b, .. } => {
                f(a);
                f(b);
            }
            Terminator::Return(value) => f(value),
        }
    }

    fn each_use(&self, mut f: impl FnMut(Reg)) {
        self.clone().each_operand_mut(|operand| {
            if let Operand::Reg(reg) = operand {
                f(*reg);
            }
        });
    }

    fn each_target_mut(&mut self, mut f: impl FnMut(&mut BlockId)) {
        match self {
            Terminator::Jump(to) => f(to),
            Terminator::Branch { then, otherwise, .. } => {
                f(then);
                f(otherwise);
            }
            Terminator::Return(_) => {}
        }
    }

    fn targets(&self) -> Vec<BlockId> {
        let mut targets = Vec::new();
        self.clone().each_target_mut(|to| targets.push(*to));
        targets
    }
}

impl Code {
    /// A register of the compiler's own.
    fn fresh(&mut self, like: RegInfo) -> Reg {
        self.regs.push(RegInfo { variable: false, ..like });
        (self.regs.len() - 1) as Reg
    }

    /// A scalar of the compiler's own.
    fn fresh_scalar(&mut self) -> Reg {
        self.fresh(RegInfo { pointer: false, variable: false, max: u64::MAX })
    }
}

/// The end of a block; the front end ends every block but perhaps the last.
fn ended(state: &State, block: BlockId) -> Result<(&Terminator, At), BuildError> {
    let block = &state.blocks[block];
    match &block.end {
        Some((end, at)) => Ok((end, at)),
        None => {
            let line = block.ops.last().map_or_else(
                || crate::program::Line { file: file!(), line: line!(), column: 1 },
                |(_, at)| (*at).into(),
            );
            Err(BuildError { kind: BuildErrorKind::WrongReturn, line })
        }
    }
}
