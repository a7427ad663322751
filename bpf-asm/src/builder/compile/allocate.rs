//! Register allocation by graph colouring (Chaitin, Briggs): r0 to r9, the rest to the frame.
//!
//! Copies are merged wherever the two registers are never live with different values. Merging everything may make a
//! graph that can't be coloured, so that a careful variant is tried too, and the cheaper result taken.

use super::super::ir::BlockId;
use super::code::{Code, CodeBlock, R, VIRTUAL};
use super::graph::Graph;
use super::liveness::drop_dead;
use super::lower::Lowered;
use super::spill::Spiller;

/// Registers to give out.
pub(super) const COLOURS: R = 10;
/// More rounds of spilling than any program needs.
const ROUNDS: usize = 64;
/// How often copies are merged and the graph built anew; what a third time would find is hardly anything.
const MERGES: usize = 2;

/// Code over the machine's registers.
pub(super) struct Allocated {
    pub(super) blocks: Vec<CodeBlock>,
    pub(super) order: Vec<BlockId>,
    /// How many 8-byte slots follow the buffers in the frame.
    pub(super) spills: usize,
}

/// Allocates; `None` if there are no registers for what can't be spilled.
pub(super) fn allocate(lowered: Lowered, buffers: usize) -> Option<Allocated> {
    let Lowered {
        blocks,
        order,
        pointers,
    } = lowered;
    let attempt = |careful| {
        let work = Work {
            blocks: blocks.clone(),
            order: order.clone(),
            spiller: Spiller::new(buffers, pointers.len()),
        };
        work.run(careful)
    };
    match attempt(false) {
        Some(eager) if eager.spills == 0 => Some(eager),
        Some(eager) => attempt(true)
            .filter(|careful| cost(careful) < cost(&eager))
            .or(Some(eager)),
        None => attempt(true),
    }
}

fn cost(allocated: &Allocated) -> f64 {
    let block = |&block: &BlockId| {
        let block = &allocated.blocks[block];
        block.weight * block.code.len() as f64
    };
    allocated.order.iter().map(block).sum()
}

struct Work {
    blocks: Vec<CodeBlock>,
    order: Vec<BlockId>,
    spiller: Spiller,
}

impl Work {
    fn run(mut self, careful: bool) -> Option<Allocated> {
        for round in 0..ROUNDS {
            drop_dead(&mut self.blocks, &self.order, self.spiller.registers());
            let mut graph = Graph::build(&self.blocks, &self.order, &self.spiller);
            // What spilling adds has few copies left.
            let merges = if round == 0 { MERGES } else { 1 };
            for _ in 0..merges {
                if !graph.coalesce(careful) {
                    break;
                }
                let Graph { alias, .. } = graph;
                self.rename(|reg| alias.find(reg));
                self.spiller.merge(&alias);
                graph = Graph::build(&self.blocks, &self.order, &self.spiller);
            }
            let (colours, uncoloured) = graph.colour()?;
            if uncoloured.is_empty() {
                self.rename(|reg| {
                    if reg < VIRTUAL {
                        reg
                    } else {
                        colours[reg as usize]
                    }
                });
                let (blocks, order) = (self.blocks, self.order);
                return Some(Allocated {
                    blocks,
                    order,
                    spills: self.spiller.slots(),
                });
            }
            self.spiller
                .spill(&mut self.blocks, &self.order, &uncoloured);
        }
        None
    }

    /// Renames registers, and drops the copies that thereby copy nothing.
    fn rename(&mut self, f: impl Fn(R) -> R) {
        for &block in &self.order {
            let block = &mut self.blocks[block];
            for (code, _) in &mut block.code {
                code.map(&f);
            }
            block.end.0.map(&f);
            let idle = |code: &Code| code.as_copy().is_some_and(|(dst, src)| dst == src);
            block.code.retain(|(code, _)| !idle(code));
        }
    }
}
