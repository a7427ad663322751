//! Ring buffer records: on every path, one that is reserved is submitted or discarded once.

use super::super::error::BuildErrorKind;
use super::super::ir::{Block, BlockId, Body, Op, Terminator};

/// The states that a record may be in at some point, as bits.
type States = u8;
const ABSENT: States = 1;
const OPEN: States = 2;
const CLOSED: States = 4;

/// Reports the first record that breaks the rule.
pub(super) fn check(body: &Body, blocks: &[Block], order: &[BlockId]) {
    let records = body.state.borrow().records.clone();
    for (record, &reserved_at) in records.iter().enumerate() {
        let mut states: Vec<States> = vec![0; blocks.len()];
        if let Some(&entry) = order.first() {
            states[entry] = ABSENT;
        }
        let mut changed = true;
        while changed {
            changed = false;
            for &block in order {
                let after = through(&blocks[block], record, states[block], |_, _| {});
                for target in targets(&blocks[block]) {
                    changed |= after & !states[target] != 0;
                    states[target] |= after;
                }
            }
        }
        for &block in order {
            let after = through(&blocks[block], record, states[block], |op, before| {
                let (op, at) = &blocks[block].ops[op];
                match op {
                    Op::OpenRecord(_) if before & OPEN != 0 => {
                        body.fail_at(BuildErrorKind::RecordLeftOpen, reserved_at);
                    }
                    Op::CloseRecord(_) if before & !OPEN != 0 => {
                        body.fail_at(BuildErrorKind::RecordClosedTwice, at)
                    }
                    _ => {}
                }
            });
            if matches!(blocks[block].end, Some((Terminator::Return(_), _))) && after & OPEN != 0 {
                body.fail_at(BuildErrorKind::RecordLeftOpen, reserved_at);
            }
        }
    }
}

/// The states behind a block, given those before it.
fn through(
    block: &Block,
    record: usize,
    mut states: States,
    mut visit: impl FnMut(usize, States),
) -> States {
    for (at, (op, _)) in block.ops.iter().enumerate() {
        let after = match op {
            Op::OpenRecord(number) if *number == record => OPEN,
            Op::CloseRecord(number) if *number == record => CLOSED,
            _ => continue,
        };
        visit(at, states);
        states = if states == 0 { 0 } else { after };
    }
    states
}

pub(super) fn targets(block: &Block) -> impl Iterator<Item = BlockId> + use<> {
    match block.end {
        Some((Terminator::Jump(to), _)) => [Some(to), None],
        Some((
            Terminator::Branch {
                then, otherwise, ..
            },
            _,
        )) => [Some(then), Some(otherwise)],
        Some((Terminator::MayGoto { out, go_on }, _)) => [Some(out), Some(go_on)],
        _ => [None, None],
    }
    .into_iter()
    .flatten()
}
