//! Laying out a function: from labels to offsets, near or far.

use super::{AsmError, Fault, Item};
use crate::insn::Insn;
use crate::program::Line;

/// Slots of a conditional jump that has to go far: over a `goto` to a `gotol`.
const FAR_CONDITIONAL_SLOTS: usize = 3;

/// A function laid out.
pub(super) struct LaidOut {
    pub(super) insns: Vec<Insn>,
    pub(super) lines: Vec<Line>,
    /// For each item the index of its first instruction in `insns`.
    pub(super) places: Vec<usize>,
}

/// Resolves every jump of `items`.
pub(super) fn lay_out(
    items: &[Item],
    labels: &[Option<usize>],
    long_jumps: bool,
) -> Result<LaidOut, AsmError> {
    let targets = targets(items, labels)?;
    let far = far_jumps(items, &targets, long_jumps)?;
    let starts = starts(items, &far);
    let mut out = LaidOut {
        insns: Vec::with_capacity(items.len()),
        lines: Vec::with_capacity(items.len()),
        places: Vec::with_capacity(items.len()),
    };
    for (i, item) in items.iter().enumerate() {
        out.places.push(out.insns.len());
        match targets[i] {
            None => out.insns.push(item.insn),
            Some(target) => {
                let slots = distance(starts[i] + width(item, far[i]), starts[target]);
                if far[i] && !is_unconditional(&item.insn) {
                    out.insns.push(with_offset(item, 1)?);
                    out.insns.push(Insn::Goto { offset: 1 });
                    out.insns.push(long(item, slots)?);
                } else if far[i] {
                    out.insns.push(long(item, slots)?);
                } else {
                    out.insns.push(with_offset(item, slots)?);
                }
            }
        }
        out.lines.resize(out.insns.len(), item.line);
    }
    Ok(out)
}

/// For each item that jumps, the item it jumps to.
fn targets(items: &[Item], labels: &[Option<usize>]) -> Result<Vec<Option<usize>>, AsmError> {
    let near = vec![false; items.len()];
    let starts = starts(items, &near);
    let target = |i: usize, item: &Item| -> Result<Option<usize>, Fault> {
        if let Some(label) = item.label {
            let index = labels[label].ok_or(Fault::Unbound)?;
            return if index < items.len() {
                Ok(Some(index))
            } else {
                Err(Fault::OutOfFunction)
            };
        }
        let Some(offset) = raw_offset(&item.insn) else {
            return Ok(None);
        };
        let slot = usize::try_from(offset + distance(0, starts[i] + 1))
            .ok()
            .filter(|slot| *slot < starts[items.len()])
            .ok_or(Fault::OutOfFunction)?;
        let index = starts.binary_search(&slot);
        index.map(Some).map_err(|_| Fault::MidInstruction)
    };
    let located = |(i, item): (usize, &Item)| {
        target(i, item).map_err(|fault| AsmError {
            at: item.line,
            fault,
        })
    };
    items.iter().enumerate().map(located).collect()
}

/// Which jumps have to be far. Making one far may push others out of range, so this repeats until nothing changes;
/// it ends because a far jump stays far.
fn far_jumps(
    items: &[Item],
    targets: &[Option<usize>],
    long_jumps: bool,
) -> Result<Vec<bool>, AsmError> {
    let mut far = vec![false; items.len()];
    loop {
        let starts = starts(items, &far);
        let mut grew = false;
        for (i, item) in items.iter().enumerate() {
            let Some(target) = targets[i] else { continue };
            let slots = distance(starts[i] + 1, starts[target]);
            let is_long = matches!(item.insn, Insn::GotoLong { .. });
            if far[i] || is_long || i16::try_from(slots).is_ok() {
                continue;
            }
            if !long_jumps {
                return Err(too_far(item, slots));
            }
            far[i] = true;
            grew = true;
        }
        if !grew {
            return Ok(far);
        }
    }
}

/// The first slot of every item, and one past the last slot.
fn starts(items: &[Item], far: &[bool]) -> Vec<usize> {
    let mut starts = Vec::with_capacity(items.len() + 1);
    let mut slot = 0;
    for (item, far) in items.iter().zip(far) {
        starts.push(slot);
        slot += width(item, *far);
    }
    starts.push(slot);
    starts
}

fn width(item: &Item, far: bool) -> usize {
    if far && !is_unconditional(&item.insn) {
        FAR_CONDITIONAL_SLOTS
    } else {
        item.insn.slots()
    }
}

fn is_unconditional(insn: &Insn) -> bool {
    matches!(insn, Insn::Goto { .. } | Insn::GotoLong { .. })
}

fn raw_offset(insn: &Insn) -> Option<i64> {
    match *insn {
        Insn::Jump { offset, .. } | Insn::Goto { offset } | Insn::MayGoto { offset } => {
            Some(i64::from(offset))
        }
        Insn::GotoLong { offset } => Some(i64::from(offset)),
        _ => None,
    }
}

fn with_offset(item: &Item, slots: i64) -> Result<Insn, AsmError> {
    if matches!(item.insn, Insn::GotoLong { .. }) {
        return long(item, slots);
    }
    let offset = i16::try_from(slots).map_err(|_| too_far(item, slots))?;
    Ok(match item.insn {
        Insn::Jump {
            width,
            op,
            dst,
            src,
            ..
        } => Insn::Jump {
            width,
            op,
            dst,
            src,
            offset,
        },
        Insn::MayGoto { .. } => Insn::MayGoto { offset },
        _ => Insn::Goto { offset },
    })
}

fn long(item: &Item, slots: i64) -> Result<Insn, AsmError> {
    let offset = i32::try_from(slots).map_err(|_| too_far(item, slots))?;
    Ok(Insn::GotoLong { offset })
}

fn too_far(item: &Item, slots: i64) -> AsmError {
    AsmError {
        at: item.line,
        fault: Fault::TooFar { slots },
    }
}

/// Slots from `from` to `to`. A function has far fewer than 2^63 of them.
fn distance(from: usize, to: usize) -> i64 {
    to as i64 - from as i64
}
