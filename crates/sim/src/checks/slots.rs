//! A quorum slot's bits are acknowledgements that were really sent, for that op, in that view; and no slot is taken from an
//! undecided op.

use std::collections::BTreeMap;

use electrode_fastpath::abi::SLOTS;
use electrode_vr::{OpNumber, View};

use super::{Acked, Rule, Verdict};

pub(super) const RULE: Rule = Rule {
    name: "a slot holds only acks that were sent for its op",
    source: "docs/fast-path.md R4 and \"Quorum slots\"",
};

/// The ops for which the slots of one replica's present reign are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Opened {
    generation: u16,
    ops: BTreeMap<u64, OpNumber>,
}

impl Opened {
    /// A slot is opened: for no other op while its old one is undecided.
    pub(super) fn open(
        &mut self,
        generation: u16,
        op: OpNumber,
        commit: OpNumber,
        node: usize,
    ) -> Verdict {
        if self.generation != generation {
            *self = Opened {
                generation,
                ops: BTreeMap::new(),
            };
        }
        match self.ops.insert(op.0 % u64::from(SLOTS), op) {
            Some(old) if old != op && old > commit => Err(format!(
                "replica {node} opens the slot of op {old}, undecided, for op {op}"
            )),
            _ => Ok(()),
        }
    }
}

/// A program marked a slot of a generation, which was armed for `of` (view, and whether as its primary).
pub(super) fn marked(
    of: Option<(View, bool)>,
    view: View,
    generation: u16,
    node: usize,
) -> Verdict {
    if of == Some((view, true)) {
        return Ok(());
    }
    Err(format!(
        "an ack of view {view} marks a slot of generation {generation} at replica {node}, armed for {of:?} (view, primary)"
    ))
}

pub(super) fn check(acked: &Acked, view: View, op: OpNumber, acks: u16, primary: usize) -> Verdict {
    for node in (0..16).filter(|node| acks & (1 << node) != 0) {
        if !acked.exact.contains(&(view, node, op)) {
            return Err(format!(
                "the slot of op {op} at replica {primary} (view {view}) has an ack of replica {node}, which never sent it"
            ));
        }
    }
    Ok(())
}
