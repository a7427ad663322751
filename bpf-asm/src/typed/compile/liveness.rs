//! Which registers are still read later.

use super::super::ir::Reg;
use super::Code;

/// A set of registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    words: Vec<u64>,
}

impl Set {
    pub(super) fn new(registers: usize) -> Set {
        Set { words: vec![0; registers.div_ceil(64)] }
    }

    pub(super) fn insert(&mut self, reg: Reg) {
        self.words[reg as usize / 64] |= 1 << (reg % 64);
    }

    pub(super) fn remove(&mut self, reg: Reg) {
        self.words[reg as usize / 64] &= !(1 << (reg % 64));
    }

    pub(super) fn contains(&self, reg: Reg) -> bool {
        self.words[reg as usize / 64] & 1 << (reg % 64) != 0
    }

    fn union(&mut self, other: &Set) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Reg> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            (0..64).filter(move |bit| word & 1 << bit != 0).map(move |bit| (at * 64 + bit) as Reg)
        })
    }
}

/// For each block, what is live at its end.
pub(super) fn live_out(code: &Code) -> Vec<Set> {
    let none = Set::new(code.regs.len());
    // Per block: read before written, and written.
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for block in &code.blocks {
        let (mut read, mut written) = (none.clone(), none.clone());
        for (op, _) in &block.ops {
            op.each_use(|reg| {
                if !written.contains(reg) {
                    read.insert(reg);
                }
            });
            if let Some(dst) = op.def() {
                written.insert(dst);
            }
        }
        block.end.each_use(|reg| {
            if !written.contains(reg) {
                read.insert(reg);
            }
        });
        reads.push(read);
        writes.push(written);
    }
    let mut live_in = vec![none.clone(); code.blocks.len()];
    let mut live_out = vec![none; code.blocks.len()];
    loop {
        let mut changed = false;
        for number in (0..code.blocks.len()).rev() {
            for to in code.blocks[number].end.targets() {
                let (before, after) = (&live_in[to], &mut live_out[number]);
                after.union(before);
            }
            let mut live = live_out[number].clone();
            for (word, written) in live.words.iter_mut().zip(&writes[number].words) {
                *word &= !written;
            }
            live.union(&reads[number]);
            if live != live_in[number] {
                live_in[number] = live;
                changed = true;
            }
        }
        if !changed {
            return live_out;
        }
    }
}
