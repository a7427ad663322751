//! In disk mode: nothing is acknowledged, or counted as one's own, before it is durable; and what is read back after a
//! start is what was written, with all of it that was durable.

use electrode_vr::{Message, OpNumber};

use super::{Rule, Verdict};
use crate::disk::Disk;

pub(super) const RULE: Rule = Rule {
    name: "nothing is acknowledged or counted before it is durable",
    source: "docs/protocol.md, \"Durability\"",
};

pub(super) const READ_BACK: Rule = Rule {
    name: "what was durable is read back, and nothing else",
    source: "docs/protocol.md, \"Durability\" (records, torn writes, damage)",
};

/// A PrepareOk leaves, by user space or kernel.
pub(super) fn acknowledged(
    disk: &Disk,
    message: &Message,
    by_kernel: bool,
    node: usize,
) -> Verdict {
    let Message::PrepareOk { last_op, .. } = *message else {
        return Ok(());
    };
    if by_kernel {
        return Err(format!(
            "the kernel of replica {node} answers op {last_op}, whose record is in its ring only"
        ));
    }
    let durable = disk.book.durable_op();
    if last_op <= durable {
        return Ok(());
    }
    Err(format!(
        "replica {node} acknowledges op {last_op}; op {durable} is the last on its disk"
    ))
}

/// A primary tells of a commit.
pub(super) fn committed(disk: &Disk, message: &Message, node: usize) -> Verdict {
    match message {
        Message::Prepare(prepare) => counted(disk, prepare.commit, node),
        Message::Commit { commit, .. } | Message::StartView { commit, .. } => {
            counted(disk, *commit, node)
        }
        _ => Ok(()),
    }
}

/// What a primary committed it has: it is one of the f + 1 itself.
pub(super) fn counted(disk: &Disk, commit: OpNumber, node: usize) -> Verdict {
    let durable = disk.book.durable_op();
    if commit <= durable {
        return Ok(());
    }
    Err(format!(
        "primary {node} commits op {commit}; op {durable} is the last on its disk"
    ))
}
