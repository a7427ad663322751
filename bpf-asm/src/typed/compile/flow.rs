//! Control flow: what can't be reached goes, jumps to jumps go, chains become one block, rare code stands last.

use std::collections::HashMap;

use super::super::error::BuildError;
use super::super::ir::{BlockId, Reg, State, Terminator};
use super::{Code, Straight, ended};

/// Takes the state apart into blocks in their final order.
pub(super) fn straighten(mut state: State, arguments: &[Reg]) -> Result<Code, BuildError> {
    let entry = state.order[0];
    // Where a jump to this block ends up, past blocks that only jump on.
    let mut through: HashMap<BlockId, BlockId> = HashMap::new();
    for block in 0..state.blocks.len() {
        let mut to = block;
        for _ in 0..state.blocks.len() {
            match &state.blocks[to] {
                next if next.ops.is_empty() => match next.end {
                    Some((Terminator::Jump(on), _)) => to = on,
                    _ => break,
                },
                _ => break,
            }
        }
        through.insert(block, to);
    }
    for block in &mut state.blocks {
        if let Some((end, at)) = &mut block.end {
            end.each_target_mut(|to| *to = through[to]);
            if let Terminator::Branch { then, otherwise, .. } = end
                && then == otherwise
            {
                *block.end.as_mut().expect("just seen") = (Terminator::Jump(*then), at);
            }
        }
    }
    let entry = through[&entry];
    let reachable = reachable(&state, entry)?;
    let mut entries: HashMap<BlockId, usize> = HashMap::new();
    for &block in &reachable {
        for to in ended(&state, block)?.0.targets() {
            *entries.entry(to).or_default() += 1;
        }
    }
    // A block that is only jumped to from one place, unconditionally, continues that place.
    let mut merged: HashMap<BlockId, Vec<BlockId>> = HashMap::new();
    let mut swallowed = std::collections::HashSet::new();
    for &start in &state.order {
        if !reachable.contains(&start) || swallowed.contains(&start) {
            continue;
        }
        let mut chain = vec![start];
        let mut last = start;
        while let (Terminator::Jump(to), _) = ended(&state, last)? {
            if entries[to] != 1 || *to == entry || *to == start {
                break;
            }
            // A chain that was begun from its middle is continued here.
            if let Some(rest) = merged.remove(to) {
                chain.extend(&rest);
                swallowed.extend(&rest);
                last = *rest.last().expect("a chain has a block");
                continue;
            }
            if swallowed.contains(to) {
                break;
            }
            chain.push(*to);
            swallowed.insert(*to);
            last = *to;
        }
        merged.insert(start, chain);
    }
    let mut heads: Vec<BlockId> = state.order.iter().copied().filter(|block| merged.contains_key(block)).collect();
    heads.sort_by_key(|head| (*head != entry, state.blocks[*head].cold));
    let place: HashMap<BlockId, usize> = heads.iter().enumerate().map(|(place, head)| (*head, place)).collect();
    let mut blocks = Vec::new();
    for head in &heads {
        let mut ops = Vec::new();
        let mut last = *head;
        for block in &merged[head] {
            ops.append(&mut state.blocks[*block].ops);
            last = *block;
        }
        let depth = state.blocks[*head].depth;
        let (end, at) = ended(&state, last)?;
        let mut end = end.clone();
        end.each_target_mut(|to| *to = place[to]);
        blocks.push(Straight { ops, end, end_at: at, depth });
    }
    Ok(Code { blocks, regs: state.regs, buffers: state.buffers, arguments: arguments.to_vec() })
}

fn reachable(state: &State, entry: BlockId) -> Result<std::collections::HashSet<BlockId>, BuildError> {
    let mut seen = std::collections::HashSet::from([entry]);
    let mut open = vec![entry];
    while let Some(block) = open.pop() {
        for to in ended(state, block)?.0.targets() {
            if seen.insert(to) {
                open.push(to);
            }
        }
    }
    Ok(seen)
}
