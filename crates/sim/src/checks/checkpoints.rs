//! Checkpoints of the same op are the same bytes at every replica.

use std::collections::BTreeMap;

use electrode_vr::{Digest, OpNumber};

use super::{Rule, Verdict};

pub(super) const RULE: Rule = Rule {
    name: "checkpoints of the same op are equal",
    source: "VR Revisited 5.1; docs/protocol.md rule 14",
};

/// The checkpoints that were shown to anybody: digests of log and bytes.
#[derive(Debug, Default)]
pub(super) struct Checkpoints(BTreeMap<OpNumber, (Digest, Digest)>);

impl Checkpoints {
    pub(super) fn check(
        &mut self,
        op: OpNumber,
        log: Digest,
        bytes: Digest,
        node: usize,
    ) -> Verdict {
        let known = *self.0.entry(op).or_insert((log, bytes));
        if known == (log, bytes) {
            return Ok(());
        }
        Err(format!(
            "the checkpoint of op {op} at replica {node} differs from another's"
        ))
    }
}
