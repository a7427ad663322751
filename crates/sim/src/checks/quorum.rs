//! The primary commits only what f distinct backups acknowledged in its view, and those who acknowledged have it: in their
//! log, or in their ring.

use electrode_vr::{OpNumber, Snapshot, View};

use super::tail::stored_through;
use super::{Acked, Committed, Life, Rule, Verdict};
use crate::process::Seen;

pub(super) const RULE: Rule = Rule {
    name: "a quorum holds each committed op",
    source: "VR Revisited 4.1 step 5; docs/fast-path.md R1, R4",
};

/// What a primary believes of its backups they have said, in this view.
pub(super) fn believed(acked: &Acked, now: &Snapshot, primary: usize) -> Verdict {
    for (node, (_, op)) in now.peers.iter().enumerate() {
        if node != primary && *op > acked.highest(now.view, node) {
            return Err(format!(
                "replica {primary} believes that replica {node} acknowledged op {op} of view {}, which it never did",
                now.view
            ));
        }
    }
    Ok(())
}

/// At the moment of the commit.
pub(super) fn counted(
    acked: &Acked,
    faults: usize,
    view: View,
    primary: usize,
    commit: OpNumber,
) -> Verdict {
    let backups = acked.highest.range((view, 0)..=(view, usize::MAX));
    let count = backups
        .filter(|((_, node), op)| *node != primary && **op >= commit)
        .count();
    if count >= faults {
        return Ok(());
    }
    Err(format!(
        "replica {primary} commits op {commit} in view {view}, which {count} backups acknowledged, not {faults}"
    ))
}

/// After the moment: those who acknowledged it and live have it.
pub(super) fn held<'a>(
    acked: &Acked,
    lives: &[Life],
    committed: &Committed,
    view: View,
    primary: usize,
    commit: OpNumber,
    processes: &impl Fn(usize) -> Option<Seen<'a>>,
) -> Verdict {
    for (node, life) in lives.iter().enumerate() {
        // In this life it stored or followed in the view: what it lost with another life is the recovery's business.
        let normal_here = life.entered == Some(view);
        let commit = commit.min(acked.highest(view, node));
        if node == primary || !normal_here || commit == OpNumber(0) {
            continue;
        }
        let Some(process) = processes(node) else {
            continue;
        };
        if stored_through(process) < commit {
            return Err(format!(
                "op {commit} is committed in view {view}; replica {node} acknowledged it, but its log and ring end at {}",
                stored_through(process)
            ));
        }
        let own = process.core().log_digest_at(commit);
        if own.is_some_and(|own| committed.digest(commit).is_some_and(|agreed| own != agreed)) {
            return Err(format!(
                "replica {node} acknowledged op {commit} of view {view}, but has another one there"
            ));
        }
    }
    Ok(())
}
