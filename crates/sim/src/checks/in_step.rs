//! The fast path comes back by itself, in the turn in which what stopped it is repaired: whoever is normal when user space goes
//! to sleep has its kernel's part armed, and that stands where the log ends, so that it takes the next Prepare.

use electrode_driver::Armed;
use electrode_fastpath::abi::OP_MASK;
use electrode_fastpath::host::Word;
use electrode_vr::{OpNumber, Status};

use super::{Rule, Verdict};
use crate::process::Seen;

pub(super) const RULE: Rule = Rule {
    name: "the kernel's part is armed, and in step with the log, when the turn that repaired either ends",
    source: "docs/fast-path.md R6",
};

/// When user space is between two turns.
pub(super) fn check(process: Seen<'_>) -> Verdict {
    if !process.accelerated() {
        return Ok(());
    }
    let (node, now) = (process.id(), process.core().snapshot());
    if now.status != Status::Normal {
        return Ok(());
    }
    let beyond = now.op.0 - now.commit.0;
    if !now.armed && beyond <= process.limits().uncommitted() {
        return Err(format!(
            "replica {node} is normal in view {} with op {} and commit {}, but its kernel's part isn't armed",
            now.view, now.op, now.commit
        ));
    }
    let last = OpNumber(process.card().peek(Word::Tail) & OP_MASK);
    if process.armed() == Some(Armed::Backup) && last < now.op {
        return Err(format!(
            "the log of replica {node} ends at op {}, but its kernel waits for what comes after op {last}",
            now.op
        ));
    }
    Ok(())
}
