//! A quorum slot's bits are acknowledgements that were really sent, for that op, in that view.

use electrode_vr::{OpNumber, View};

use super::{Acked, Rule, Verdict};

pub(super) const RULE: Rule = Rule {
    name: "a slot holds only acks that were sent for its op",
    source: "docs/fast-path.md R4 and \"Quorum slots\"",
};

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
