//! Every ring buffer record is submitted or discarded once on every path (the verifier wants it; here the error names the line).

use std::collections::HashMap;

use super::super::error::{BuildError, BuildErrorKind};
use super::super::ir::{Op, State, Terminator};
use super::ended;

/// Follows the records that can be open along all paths.
pub(super) fn check(state: &State) -> Result<(), BuildError> {
    if state.records.is_empty() {
        return Ok(());
    }
    // Per block, for each record: can it be open, can it be closed, at the block's start.
    let mut seen: HashMap<usize, Vec<(bool, bool)>> = HashMap::new();
    let mut work = vec![(state.order[0], vec![(false, true); state.records.len()])];
    while let Some((block, mut now)) = work.pop() {
        match seen.get_mut(&block) {
            Some(known) => {
                let joined: Vec<_> = known.iter().zip(&now).map(|(a, b)| (a.0 || b.0, a.1 || b.1)).collect();
                if joined == *known {
                    continue;
                }
                known.clone_from(&joined);
                now = joined;
            }
            None => {
                seen.insert(block, now.clone());
            }
        }
        for (op, at) in &state.blocks[block].ops {
            match op {
                Op::OpenRecord(record) => now[*record] = (true, false),
                Op::CloseRecord(record) => {
                    if now[*record].1 {
                        return Err(BuildError { kind: BuildErrorKind::RecordClosedTwice, line: (*at).into() });
                    }
                    now[*record] = (false, true);
                }
                _ => {}
            }
        }
        let (end, _) = ended(state, block)?;
        if matches!(end, Terminator::Return(_))
            && let Some(open) = now.iter().position(|(open, _)| *open)
        {
            return Err(BuildError { kind: BuildErrorKind::RecordLeftOpen, line: state.records[open].into() });
        }
        for to in end.targets() {
            work.push((to, now.clone()));
        }
    }
    Ok(())
}
