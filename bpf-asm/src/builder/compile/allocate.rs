//! Register allocation: copies are merged, the rest is coloured (r0 to r9), and what finds no register goes to the frame.
//!
//! Merging is eager: wherever two registers never hold different values at once. What thereby became too long to find a
//! register is taken apart again, and its parts get registers one by one where they fit. Liveness is computed once: the
//! same ranges answer which copies can go, which parts fit, and which register is free at one instruction.

use super::super::ir::BlockId;
use super::code::{CodeBlock, R, VIRTUAL};
use super::graph::Graph;
use super::liveness::drop_dead;
use super::lower::Lowered;
use super::place::Placed;
use super::ranges::{Merged, Ranges};
use super::spill::rewrite;

/// More rounds than any program needs: in each, at least one more instruction gets a register for a moment.
const ROUNDS: usize = 64;

/// Code over the machine's registers.
pub(super) struct Allocated {
    pub(super) blocks: Vec<CodeBlock>,
    pub(super) order: Vec<BlockId>,
    /// How many 8-byte slots follow the buffers in the frame.
    pub(super) spills: usize,
}

/// What is known of the code over virtual registers.
pub(super) struct Input<'a> {
    pub(super) blocks: &'a [CodeBlock],
    pub(super) order: &'a [BlockId],
    pub(super) ranges: &'a Ranges,
    pub(super) merged: &'a Merged<'a>,
    pub(super) names: &'a Names,
    /// The copies between registers, those that run most often first.
    pub(super) copies: &'a [(R, R)],
}

/// The registers that were merged into one, and what the graph calls them.
pub(super) struct Names {
    /// By register: itself if it is the machine's, else [`VIRTUAL`] and the number of its node.
    pub(super) of: Vec<R>,
    /// By node, the registers that are it: the first stands for the others.
    pub(super) members: Vec<Vec<R>>,
}

impl Names {
    fn new(ranges: &Ranges, merged: &Merged<'_>, registers: usize) -> Names {
        // A register that doesn't occur is never asked for.
        let mut of: Vec<R> = (0..VIRTUAL).collect();
        of.resize(registers, 0);
        let mut members: Vec<Vec<R>> = Vec::new();
        for reg in (VIRTUAL..registers as R).filter(|reg| !ranges.of(*reg).is_empty()) {
            // It is no greater than any that it stands for, so that it has its name already.
            let first = merged.find(reg);
            if first == reg {
                of[reg as usize] = VIRTUAL + members.len() as R;
                members.push(vec![reg]);
            } else {
                of[reg as usize] = of[first as usize];
                if first >= VIRTUAL {
                    members[(of[first as usize] - VIRTUAL) as usize].push(reg);
                }
            }
        }
        Names { of, members }
    }

    /// The node that a register belongs to, if it isn't the machine's.
    pub(super) fn node(&self, reg: R) -> Option<usize> {
        let node = self.of[reg as usize].checked_sub(VIRTUAL)?;
        Some(node as usize)
    }
}

/// Allocates; `None` if there are no registers for what can't be spilled.
pub(super) fn allocate(lowered: Lowered, buffers: usize) -> Option<Allocated> {
    let Lowered {
        mut blocks,
        order,
        registers,
    } = lowered;
    let live_out = drop_dead(&mut blocks, &order, registers);
    let ranges = Ranges::new(&blocks, &order, &live_out, registers);
    let copies = copies(&blocks, &order);
    let mut merged = Merged::new(&ranges, registers);
    for &(dst, src) in &copies {
        let (a, b) = (merged.find(dst), merged.find(src));
        let (kept, gone) = (a.min(b), a.max(b));
        if kept != gone && gone >= VIRTUAL {
            merged.merge(kept, gone);
        }
    }
    let names = Names::new(&ranges, &merged, registers);
    let input = Input {
        blocks: &blocks,
        order: &order,
        ranges: &ranges,
        merged: &merged,
        names: &names,
        copies: &copies,
    };
    let mut graph = Graph::new(&input, &live_out);
    for _ in 0..ROUNDS {
        let placed = Placed::new(&input, &graph)?;
        match rewrite(&input, &placed, buffers) {
            Ok(code) => {
                for (&block, (code, end)) in order.iter().zip(code) {
                    (blocks[block].code, blocks[block].end.0) = (code, end);
                }
                return Some(Allocated {
                    blocks,
                    order,
                    spills: placed.slots,
                });
            }
            Err(mut crowded) => {
                crowded.sort_unstable();
                graph.reserve(&input, &crowded);
            }
        }
    }
    None
}

/// The copies between registers, those that run most often first.
fn copies(blocks: &[CodeBlock], order: &[BlockId]) -> Vec<(R, R)> {
    let mut copies = Vec::new();
    for &block in order {
        let weight = blocks[block].weight;
        for (code, _) in &blocks[block].code {
            copies.extend(code.as_copy().map(|copy| (weight, copy)));
        }
    }
    copies.sort_by(|a, b| b.0.total_cmp(&a.0));
    copies.into_iter().map(|(_, copy)| copy).collect()
}
