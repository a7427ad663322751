//! From the intermediate form to instructions: lowering, register allocation, layout.

mod allocate;
mod code;
mod emit;
mod graph;
mod liveness;
mod lower;
mod mixed;
mod place;
mod ranges;
mod records;
mod spill;
mod steps;
#[cfg(test)]
mod tests;

use super::error::{BuildError, BuildErrorKind};
use super::ir::{Body, is_name};
use crate::program::Function;

/// The stack of a call chain.
const STACK_BYTES: u32 = 512;
/// The kernel rounds each frame up to this when it adds up a chain.
const FRAME_UNIT: u32 = 32;
/// What the kernel adds to the frame of a function with `may_goto`: the count, and on some architectures a time.
const BUDGET_BYTES: u32 = 16;

/// Compiles a finished function; also says how many bytes of stack it and its callees need.
///
/// # Errors
/// The first rule that the function breaks.
pub(super) fn compile(body: &Body, name: &str) -> Result<(Function, u32), BuildError> {
    let blocks = std::mem::take(&mut body.state.borrow_mut().blocks);
    let begun = std::mem::take(&mut body.state.borrow_mut().order);
    let begin = body.state.borrow().buffers.first().map(|buffer| buffer.1);
    let Some(first) = begin.or_else(|| blocks.iter().find_map(|block| Some(block.end.as_ref()?.1)))
    else {
        // Nothing ends: there is not even a return.
        let line = std::panic::Location::caller().into();
        return Err(BuildError {
            kind: BuildErrorKind::WrongReturn,
            line,
        });
    };
    if !is_name(name) {
        body.fail_at(
            BuildErrorKind::Name {
                name: name.to_owned(),
            },
            first,
        );
    }
    let order = lower::reachable(&blocks, &begun);
    for &block in &order {
        if blocks[block].end.is_none() {
            let at = blocks[block].ops.last().map_or(first, |op| op.1);
            body.fail_at(BuildErrorKind::WrongReturn, at);
        }
    }
    records::check(body, &blocks, &order);
    checked(body)?;
    let buffers: Vec<_> = body.state.borrow().buffers.clone();
    let lowered = lower::lower(body, &blocks, order);
    let Some(mut allocated) = allocate::allocate(lowered, buffers.len()) else {
        return Err(BuildError {
            kind: BuildErrorKind::OutOfRegisters,
            line: first.into(),
        });
    };
    emit::tidy(&mut allocated.blocks, &mut allocated.order);
    let sizes = buffers
        .iter()
        .map(|buffer| buffer.0)
        .chain(std::iter::repeat_n(8, allocated.spills));
    let (offsets, bytes) = emit::frame(sizes);
    let budget = if body.may_goto.get() { BUDGET_BYTES } else { 0 };
    let own = bytes
        .saturating_add(budget)
        .max(1)
        .checked_next_multiple_of(FRAME_UNIT)
        .unwrap_or(u32::MAX);
    let chain = own.saturating_add(body.callee_stack.get());
    let largest = buffers
        .iter()
        .max_by_key(|buffer| buffer.0)
        .map_or(first, |buffer| buffer.1);
    if chain > STACK_BYTES {
        body.fail_at(BuildErrorKind::StackOverflow { bytes: chain }, largest);
    }
    checked(body)?;
    let function = emit::emit(body, name, &allocated.blocks, &allocated.order, &offsets);
    checked(body)?;
    Ok((function, chain))
}

/// Counts the stack of a subprogram that `body` calls.
pub(super) fn account(body: &Body, subprogram: usize) {
    let stack = body
        .session
        .borrow()
        .subprogram_stack
        .get(subprogram)
        .copied();
    // Without an entry the subprogram couldn't be built, and that error is kept already.
    body.callee_stack
        .set(body.callee_stack.get().max(stack.unwrap_or(0)));
}

fn checked(body: &Body) -> Result<(), BuildError> {
    body.session.borrow_mut().error.take().map_or(Ok(()), Err)
}
