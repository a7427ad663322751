//! Which registers hold a value that is still wanted, by block.
//!
//! Most registers live in one block alone. For the others, one at a time, the blocks before each read are gone through
//! backward up to those that write it: work and memory are what the answer has in it.

use super::super::ir::BlockId;
use super::code::{CodeBlock, R};
use super::steps::step;

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
    pub(super) fn set(&mut self, members: impl IntoIterator<Item = R>) {
        self.members.clear();
        members.into_iter().for_each(|reg| self.insert(reg));
    }
}

/// The blocks that go on to each block, in one list.
struct Predecessors {
    starts: Vec<usize>,
    blocks: Vec<BlockId>,
}

impl Predecessors {
    fn new(blocks: &[CodeBlock], order: &[BlockId]) -> Predecessors {
        let mut starts = vec![0; blocks.len() + 1];
        let edges = |f: &mut dyn FnMut(BlockId, BlockId)| {
            for &from in order {
                blocks[from].end.0.targets().for_each(|to| f(from, to));
            }
        };
        edges(&mut |_, to| starts[to + 1] += 1);
        for block in 0..blocks.len() {
            starts[block + 1] += starts[block];
        }
        let mut free = starts.clone();
        let mut all = vec![0; starts[blocks.len()]];
        edges(&mut |from, to| {
            all[free[to]] = from;
            free[to] += 1;
        });
        Predecessors {
            starts,
            blocks: all,
        }
    }

    fn of(&self, block: BlockId) -> &[BlockId] {
        &self.blocks[self.starts[block]..self.starts[block + 1]]
    }
}

/// For each block, what is live where it ends.
pub(super) fn live_out(blocks: &[CodeBlock], order: &[BlockId], registers: usize) -> Vec<Vec<R>> {
    let [mut reads, mut writes] = read_and_written(blocks, order, registers);
    reads.sort_unstable();
    let mut crosses = vec![false; registers];
    reads
        .iter()
        .for_each(|read| crosses[read.0 as usize] = true);
    writes.retain(|write| crosses[write.0 as usize]);
    writes.sort_unstable();
    let predecessors = Predecessors::new(blocks, order);
    let mut out = vec![Vec::new(); blocks.len()];
    // The last register that was found to be live at a block's begin, at its end, and written in it.
    let [mut begins, mut ends, mut written] = [(); 3].map(|()| vec![R::MAX; blocks.len()]);
    let mut writes = writes.into_iter().peekable();
    let mut next: Vec<BlockId> = Vec::new();
    for reads in reads.chunk_by(|a, b| a.0 == b.0) {
        let reg = reads[0].0;
        while let Some((_, block)) = writes.next_if(|write| write.0 <= reg) {
            written[block] = reg;
        }
        for &(_, block) in reads {
            begins[block] = reg;
            next.push(block);
        }
        while let Some(block) = next.pop() {
            for &before in predecessors.of(block) {
                if std::mem::replace(&mut ends[before], reg) == reg {
                    continue;
                }
                out[before].push(reg);
                step(1);
                if written[before] != reg && std::mem::replace(&mut begins[before], reg) != reg {
                    next.push(before);
                }
            }
        }
    }
    out
}

/// A register, and a block that reads or writes it.
type Place = (R, BlockId);

/// What each block reads of what was there before it, and what each block writes, once.
fn read_and_written(blocks: &[CodeBlock], order: &[BlockId], registers: usize) -> [Vec<Place>; 2] {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    // The last block that read each register as it found it, and the last that wrote it.
    let [mut reader, mut writer] = [(); 2].map(|()| vec![BlockId::MAX; registers]);
    for &number in order {
        let block = &blocks[number];
        for (code, _) in &block.code {
            code.uses(|reg| read(reg, number, &mut reader, &writer, &mut reads));
            code.defs(|reg| {
                if std::mem::replace(&mut writer[reg as usize], number) != number {
                    writes.push((reg, number));
                }
            });
        }
        let end = block.end.0;
        end.uses(|reg| read(reg, number, &mut reader, &writer, &mut reads));
    }
    [reads, writes]
}

fn read(
    reg: R,
    block: BlockId,
    reader: &mut [BlockId],
    writer: &[BlockId],
    reads: &mut Vec<Place>,
) {
    if writer[reg as usize] != block && std::mem::replace(&mut reader[reg as usize], block) != block
    {
        reads.push((reg, block));
    }
}

/// Drops instructions whose only effect is a value that nobody wants; what is live where the blocks end.
pub(super) fn drop_dead(
    blocks: &mut [CodeBlock],
    order: &[BlockId],
    registers: usize,
) -> Vec<Vec<R>> {
    let mut live = Live::new(registers);
    let mut wanted = Vec::new();
    loop {
        let live_out = live_out(blocks, order, registers);
        let mut dropped = false;
        for &block in order {
            live.set(live_out[block].iter().copied());
            blocks[block].end.0.uses(|reg| live.insert(reg));
            wanted.clear();
            step(blocks[block].code.len());
            for (code, _) in blocks[block].code.iter().rev() {
                let is_wanted = !code.is_pure() || code.def().is_none_or(|dst| live.contains(dst));
                wanted.push(is_wanted);
                if is_wanted {
                    code.defs(|reg| live.remove(reg));
                    code.uses(|reg| live.insert(reg));
                }
            }
            if wanted.contains(&false) {
                dropped = true;
                blocks[block].code.retain(|_| wanted.pop().unwrap_or(true));
            }
        }
        if !dropped {
            return live_out;
        }
    }
}
