//! Which registers hold a value that is still wanted, by block.
//!
//! Most registers live in one block alone. Only the others get a bit in each block's sets, so that memory stays linear in
//! the size of the program.

use super::super::ir::BlockId;
use super::code::{CodeBlock, R};

/// A set of registers that is cheap to walk through and to clear, however many registers there are.
#[derive(Clone, Debug)]
pub(super) struct Live {
    members: Vec<R>,
    /// Where each register is in `members`, if it is.
    place: Vec<u32>,
}

impl Live {
    pub(super) fn new(registers: usize) -> Live {
        Live {
            members: Vec::new(),
            place: vec![0; registers],
        }
    }

    pub(super) fn contains(&self, reg: R) -> bool {
        self.members.get(self.place[reg as usize] as usize) == Some(&reg)
    }

    pub(super) fn insert(&mut self, reg: R) {
        if !self.contains(reg) {
            self.place[reg as usize] = self.members.len() as u32;
            self.members.push(reg);
        }
    }

    pub(super) fn remove(&mut self, reg: R) {
        if self.contains(reg) {
            let place = self.place[reg as usize];
            self.members.swap_remove(place as usize);
            if let Some(moved) = self.members.get(place as usize) {
                self.place[*moved as usize] = place;
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = R> + '_ {
        self.members.iter().copied()
    }

    /// Makes it hold these and no others.
    pub(super) fn set(&mut self, members: &[R]) {
        self.members.clear();
        members.iter().for_each(|reg| self.insert(*reg));
    }
}

/// Bits for the registers that live in more than one block.
type Bits = Vec<u64>;

/// For each block, what is live where it ends.
pub(super) fn live_out(blocks: &[CodeBlock], order: &[BlockId], registers: usize) -> Vec<Vec<R>> {
    // The block that has written a register last, as it is looked through.
    let mut writers = vec![BlockId::MAX; registers];
    let exposed: Vec<(BlockId, Vec<R>, Vec<R>)> = order
        .iter()
        .map(|&block| {
            let (read, written) = read_and_written(block, &blocks[block], &mut writers);
            (block, read, written)
        })
        .collect();
    // A number for each register that some block reads before it writes it.
    let mut numbers: Vec<Option<u32>> = vec![None; registers];
    let mut crossing: Vec<R> = Vec::new();
    for &reg in exposed.iter().flat_map(|(_, read, _)| read) {
        numbers[reg as usize].get_or_insert_with(|| {
            crossing.push(reg);
            crossing.len() as u32 - 1
        });
    }
    let words = crossing.len().div_ceil(64);
    let bits = |regs: &[R]| {
        let mut bits: Bits = vec![0; words];
        for number in regs.iter().filter_map(|reg| numbers[*reg as usize]) {
            bits[number as usize / 64] |= 1 << (number % 64);
        }
        bits
    };
    let mut live_in: Vec<Bits> = vec![Bits::new(); blocks.len()];
    let mut out: Vec<Bits> = vec![Bits::new(); blocks.len()];
    let mut kept: Vec<Bits> = vec![Bits::new(); blocks.len()];
    for (block, read, written) in &exposed {
        live_in[*block] = bits(read);
        kept[*block] = bits(written).iter().map(|word| !word).collect();
        out[*block] = vec![0; words];
    }
    let mut changed = true;
    while changed {
        changed = false;
        for &block in order.iter().rev() {
            for target in blocks[block].end.0.targets() {
                let (to, from) = (&mut out[block], &live_in[target]);
                to.iter_mut().zip(from).for_each(|(to, from)| *to |= from);
            }
            let through = out[block]
                .iter()
                .zip(&kept[block])
                .map(|(out, kept)| out & kept);
            for (word, through) in live_in[block].iter_mut().zip(through) {
                changed |= through & !*word != 0;
                *word |= through;
            }
        }
    }
    out.iter().map(|bits| members(bits, &crossing)).collect()
}

fn members(bits: &[u64], crossing: &[R]) -> Vec<R> {
    let mut members = Vec::new();
    for (word, &bits) in bits.iter().enumerate() {
        let mut bits = bits;
        while bits != 0 {
            members.push(crossing[word * 64 + bits.trailing_zeros() as usize]);
            bits &= bits - 1;
        }
    }
    members
}

/// What a block reads of what was there before it, and what it writes. A register may be named more than once.
fn read_and_written(
    number: BlockId,
    block: &CodeBlock,
    writers: &mut [BlockId],
) -> (Vec<R>, Vec<R>) {
    let (mut read, mut written): (Vec<R>, Vec<R>) = Default::default();
    for (code, _) in &block.code {
        code.uses(|reg| {
            if writers[reg as usize] != number {
                read.push(reg);
            }
        });
        code.defs(|reg| {
            if std::mem::replace(&mut writers[reg as usize], number) != number {
                written.push(reg);
            }
        });
    }
    block.end.0.uses(|reg| {
        if writers[reg as usize] != number {
            read.push(reg);
        }
    });
    (read, written)
}

/// Goes backward through a block; `visit` gets each instruction's index with what is live after it.
pub(super) fn walk(block: &CodeBlock, live: &mut Live, mut visit: impl FnMut(usize, &Live)) {
    block.end.0.uses(|reg| live.insert(reg));
    for (at, (code, _)) in block.code.iter().enumerate().rev() {
        visit(at, live);
        code.defs(|reg| live.remove(reg));
        code.uses(|reg| live.insert(reg));
    }
}

/// Drops instructions whose only effect is a value that nobody wants.
pub(super) fn drop_dead(blocks: &mut [CodeBlock], order: &[BlockId], registers: usize) {
    let mut live = Live::new(registers);
    loop {
        let live_out = live_out(blocks, order, registers);
        let mut dropped = false;
        for &block in order {
            live.set(&live_out[block]);
            blocks[block].end.0.uses(|reg| live.insert(reg));
            let mut wanted = vec![true; blocks[block].code.len()];
            for (at, (code, _)) in blocks[block].code.iter().enumerate().rev() {
                if code.is_pure() && code.def().is_some_and(|dst| !live.contains(dst)) {
                    wanted[at] = false;
                    dropped = true;
                    continue;
                }
                code.defs(|reg| live.remove(reg));
                code.uses(|reg| live.insert(reg));
            }
            let mut wanted = wanted.into_iter();
            blocks[block].code.retain(|_| wanted.next().unwrap_or(true));
        }
        if !dropped {
            return;
        }
    }
}
