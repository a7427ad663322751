//! One value per op number: who commits an op commits what everybody else committed there, and everything before it.

use electrode_vr::{OpNumber, Replica, View};

use super::{Committed, Rule, Verdict};
use crate::machine::Ledger;

pub(super) const RULE: Rule = Rule {
    name: "a committed op has one value",
    source: "VR Revisited 8.1; docs/protocol.md rule 13",
};

pub(super) fn check(
    committed: &mut Committed,
    replica: &Replica<Ledger>,
    before: OpNumber,
    commit: OpNumber,
    view: View,
    node: usize,
) -> Verdict {
    let mut op = before.next();
    while op <= commit {
        if let Some(digest) = replica.log_digest_at(op) {
            let agreed = committed.note(op, digest, view);
            if agreed != digest {
                return Err(format!(
                    "op {op} has another value at replica {node}, which commits it in view {view}"
                ));
            }
        }
        op = op.next();
    }
    Ok(())
}
