//! What was committed is never lost: whoever becomes normal in a view has everything that was committed in earlier ones.

use std::collections::BTreeMap;

use electrode_vr::{Digest, OpNumber, Replica, Snapshot, View};

use super::{Rule, Verdict};
use crate::machine::Ledger;

pub(super) const RULE: Rule = Rule {
    name: "a committed op survives into every later view",
    source: "VR Revisited 8.1 (\"Correctness of the view change protocol\"); docs/protocol.md rules 1 to 3",
};

/// The one log: the digest at each op that anybody committed, and by which view the ops were committed.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    digests: BTreeMap<OpNumber, Digest>,
    /// Per view the highest op that was committed first in it.
    by_view: BTreeMap<View, OpNumber>,
}

impl Committed {
    /// Notes a commit; what was committed there first.
    pub(super) fn note(&mut self, op: OpNumber, digest: Digest, view: View) -> Digest {
        if let Some(known) = self.digests.get(&op) {
            return *known;
        }
        self.digests.insert(op, digest);
        let highest = self.by_view.entry(view).or_default();
        *highest = op.max(*highest);
        digest
    }

    /// The digest at a committed op.
    pub(crate) fn digest(&self, op: OpNumber) -> Option<Digest> {
        self.digests.get(&op).copied()
    }

    /// The last committed op.
    pub(crate) fn last(&self) -> OpNumber {
        self.digests
            .last_key_value()
            .map_or(OpNumber(0), |(op, _)| *op)
    }
}

/// At the moment at which a replica becomes normal.
pub(super) fn check(
    committed: &Committed,
    replica: &Replica<Ledger>,
    now: &Snapshot,
    node: usize,
) -> Verdict {
    let earlier = committed.by_view.range(..now.view).map(|(_, op)| *op).max();
    let Some(op) = earlier else {
        return Ok(());
    };
    if now.op < op {
        return Err(format!(
            "replica {node} is normal in view {} with a log up to op {}, but op {op} was committed in an earlier view",
            now.view, now.op
        ));
    }
    match (replica.log_digest_at(op), committed.digest(op)) {
        (Some(own), Some(agreed)) if own != agreed => Err(format!(
            "replica {node} is normal in view {} with another value of the committed op {op}",
            now.view
        )),
        _ => Ok(()),
    }
}
