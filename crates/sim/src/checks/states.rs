//! The same ops give the same state: replicas that stand at the same op have the same digest of state and log.

use std::collections::BTreeMap;

use electrode_vr::{Digest, OpNumber, Snapshot};

use super::{Rule, Verdict};

pub(super) const RULE: Rule = Rule {
    name: "the same op, the same state",
    source: "VR Revisited 2 (state machine replication); docs/protocol.md rule 13; docs/fast-path.md R7",
};

/// The state at each op at which anybody stood.
#[derive(Debug, Default)]
pub(super) struct States(BTreeMap<OpNumber, (Digest, Digest)>);

impl States {
    pub(super) fn check(&mut self, now: &Snapshot, node: usize) -> Verdict {
        let own = (now.log_digest, now.state_digest);
        let known = *self.0.entry(now.commit).or_insert(own);
        if known == own {
            return Ok(());
        }
        Err(format!(
            "replica {node} stands at op {} with another state than others did",
            now.commit
        ))
    }
}
