//! Nobody acknowledges what it doesn't have: not in user space unless it is normal, not in the kernel for anybody but a
//! normal backup.

use electrode_vr::{Message, OpNumber, Snapshot, Status};

use super::tail::stored_through;
use super::{Acked, Life, Rule, Verdict};
use crate::process::Seen;

pub(crate) const RULE: Rule = Rule {
    name: "an ack is for what is there, by who may give it",
    source: "VR Revisited 4.1 step 4; docs/fast-path.md R1, R3; docs/protocol.md rule 5",
};

pub(super) const ANSWERS: Rule = Rule {
    name: "a program answers with the view and the op that it was asked about",
    source: "docs/fast-path.md, \"One tail word\"",
};

pub(crate) fn by_user_space(
    now: &Snapshot,
    op: OpNumber,
    last_op: OpNumber,
    node: usize,
) -> Verdict {
    if now.status != Status::Normal {
        return Err(format!(
            "replica {node} acknowledges op {op} while {:?}",
            now.status
        ));
    }
    if op > last_op || last_op > now.op {
        return Err(format!(
            "replica {node} acknowledges op {op}, newest {last_op}; its log ends at {}",
            now.op
        ));
    }
    Ok(())
}

/// At the moment at which a replica becomes normal, perhaps in another life: what it ever acknowledged in this view it has.
pub(super) fn remembered(acked: &Acked, now: &Snapshot, node: usize) -> Verdict {
    let highest = acked.highest(now.view, node);
    if highest <= now.op {
        return Ok(());
    }
    Err(format!(
        "replica {node} is normal in view {} with a log up to op {}, but acknowledged op {highest} of this view before",
        now.view, now.op
    ))
}

/// An ack that a program gave may leave late, but never covers more than was in the log when its view ended here.
pub(super) fn by_kernel(life: &Life, process: Seen<'_>, message: &Message, node: usize) -> Verdict {
    let Message::PrepareOk { view, op, last_op } = *message else {
        return Err(format!("the kernel of replica {node} sends {message:?}"));
    };
    if op > last_op {
        return Err(format!(
            "the kernel of replica {node} acknowledges op {op}, newest {last_op}"
        ));
    }
    let Some(end) = life.stored.get(&view) else {
        return Err(format!(
            "the kernel of replica {node} acknowledges in view {view}, for which it wasn't armed"
        ));
    };
    let there = match end {
        Some(end) => *end,
        None => stored_through(process),
    };
    if last_op > there {
        return Err(format!(
            "the kernel of replica {node} acknowledges up to op {last_op} of view {view}; log and ring end at {there}"
        ));
    }
    Ok(())
}
