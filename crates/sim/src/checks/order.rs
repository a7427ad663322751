//! Commit never passes the log, and neither commit nor last normal view falls while a replica lives.

use electrode_vr::{Replica, Snapshot};

use super::{Life, Rule, Verdict};
use crate::machine::Ledger;

pub(super) const RULE: Rule = Rule {
    name: "commit, log and views only grow",
    source: "VR Revisited 4.1 and 8.1; docs/protocol.md rules 1 and 2",
};

pub(super) fn check(life: &Life, now: &Snapshot, replica: &Replica<Ledger>) -> Verdict {
    if now.commit > now.op {
        return Err(format!("commit {} is beyond op {}", now.commit, now.op));
    }
    if now.commit < life.commit {
        return Err(format!(
            "commit fell from {} to {}",
            life.commit, now.commit
        ));
    }
    let last_normal = replica.last_normal();
    // What replaces a suffix is here before the suffix goes, in one step with the view.
    if now.op < life.op && last_normal == life.last_normal {
        return Err(format!(
            "the log falls from op {} to {} without becoming another view's",
            life.op, now.op
        ));
    }
    if last_normal < life.last_normal {
        return Err(format!(
            "the last normal view fell from {} to {last_normal}",
            life.last_normal
        ));
    }
    Ok(())
}
