//! Which registers hold a value that is still wanted, by block.

use super::super::ir::BlockId;
use super::code::{CodeBlock, R};

/// A set of registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set(Vec<u64>);

impl Set {
    pub(super) fn new(registers: usize) -> Set {
        Set(vec![0; registers.div_ceil(64)])
    }

    pub(super) fn insert(&mut self, reg: R) {
        self.0[reg as usize / 64] |= 1 << (reg % 64);
    }

    pub(super) fn remove(&mut self, reg: R) {
        self.0[reg as usize / 64] &= !(1 << (reg % 64));
    }

    pub(super) fn contains(&self, reg: R) -> bool {
        self.0[reg as usize / 64] >> (reg % 64) & 1 == 1
    }

    /// Adds all of `other`; whether that changed anything.
    pub(super) fn add(&mut self, other: &Set) -> bool {
        let mut changed = false;
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            changed |= *theirs & !*mine != 0;
            *mine |= theirs;
        }
        changed
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = R> + '_ {
        self.0.iter().enumerate().flat_map(|(word, &bits)| {
            let mut bits = bits;
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros();
                bits &= bits.wrapping_sub(1);
                (bit < 64).then_some(word as R * 64 + bit)
            })
        })
    }
}

/// For each block, what is live where it ends.
pub(super) fn live_out(blocks: &[CodeBlock], order: &[BlockId], registers: usize) -> Vec<Set> {
    let mut live_in = vec![Set::new(registers); blocks.len()];
    let mut live_out = vec![Set::new(registers); blocks.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for &block in order.iter().rev() {
            let mut live = std::mem::replace(&mut live_out[block], Set::new(0));
            for target in blocks[block].end.0.targets() {
                live.add(&live_in[target]);
            }
            live_out[block] = live.clone();
            walk(&blocks[block], &mut live, |_, _| {});
            changed |= live_in[block].add(&live);
        }
    }
    live_out
}

/// Goes backward through a block; `visit` gets each instruction's index with what is live after it.
pub(super) fn walk(block: &CodeBlock, live: &mut Set, mut visit: impl FnMut(usize, &Set)) {
    block.end.0.uses(|reg| live.insert(reg));
    for (at, (code, _)) in block.code.iter().enumerate().rev() {
        visit(at, live);
        code.defs(|reg| live.remove(reg));
        code.uses(|reg| live.insert(reg));
    }
}

/// Drops instructions whose only effect is a value that nobody wants.
pub(super) fn drop_dead(blocks: &mut [CodeBlock], order: &[BlockId], registers: usize) {
    loop {
        let live_out = live_out(blocks, order, registers);
        let mut dropped = false;
        for &block in order {
            let mut dead = Vec::new();
            let mut live = live_out[block].clone();
            blocks[block].end.0.uses(|reg| live.insert(reg));
            for (at, (code, _)) in blocks[block].code.iter().enumerate().rev() {
                if code.is_pure() && code.def().is_some_and(|dst| !live.contains(dst)) {
                    dead.push(at);
                    continue;
                }
                code.defs(|reg| live.remove(reg));
                code.uses(|reg| live.insert(reg));
            }
            // From the last to the first, so the indices stay right.
            for at in dead {
                blocks[block].code.remove(at);
                dropped = true;
            }
        }
        if !dropped {
            return;
        }
    }
}
