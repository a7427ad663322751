//! At most one primary commits in a view: one replica, in one of its lives (a replica that was primary and forgot it is
//! another one).

use std::collections::BTreeMap;

use electrode_vr::View;

use super::{Rule, Verdict};

pub(super) const RULE: Rule = Rule {
    name: "one primary commits per view",
    source: "VR Revisited 4 and 8.1; docs/protocol.md rule 6",
};

/// Who committed in which view.
#[derive(Debug, Default)]
pub(super) struct Primaries(BTreeMap<View, (usize, u64)>);

impl Primaries {
    pub(super) fn check(&mut self, view: View, node: usize, life: u64) -> Verdict {
        let first = *self.0.entry(view).or_insert((node, life));
        if first == (node, life) {
            return Ok(());
        }
        Err(format!(
            "replica {node} (life {life}) commits in view {view} as replica {} (life {}) did",
            first.0, first.1
        ))
    }
}
