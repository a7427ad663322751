//! The kernel's last op is never beyond what is in log and ring, and only a normal backup's kernel accepts anything.

use electrode_driver::Armed;
use electrode_fastpath::abi::OP_MASK;
use electrode_fastpath::host::Word;
use electrode_vr::{Message, OpNumber, Promise, Status};
use electrode_wire::{Packet, decode};

use super::{Life, Rule, Verdict};
use crate::process::Seen;

pub(crate) const RULE: Rule = Rule {
    name: "the kernel's last op is in log or ring, in the promised view",
    source: "docs/fast-path.md R1, R2, R3 and \"One tail word\"",
};

pub(super) const UNTOUCHED: Rule = Rule {
    name: "what is refused changes nothing but counters",
    source: "docs/fast-path.md R8",
};

pub(super) const SOUND: Rule = Rule {
    name: "programs do what the kernel's verifier allows",
    source: "docs/fast-path.md, \"What runs where\"",
};

/// How far log and ring reach without a gap.
pub(super) fn stored_through(process: Seen<'_>) -> OpNumber {
    let op = process.core().snapshot().op;
    if !process.accelerated() {
        return op;
    }
    let mut end = op;
    for message in process.card().untaken() {
        if let Ok((_, Packet::Message(Message::Prepare(prepare)))) =
            decode(&message, &process.key())
            && prepare.first <= end.next()
        {
            end = end.max(prepare.last());
        }
    }
    end
}

/// After each moment that touched the replica.
pub(super) fn check(process: Seen<'_>) -> Verdict {
    if !process.accelerated() {
        return Ok(());
    }
    let now = process.core().snapshot();
    if now.armed != process.armed().is_some() {
        return Err(format!(
            "replica {} believes that its kernel's part runs: {}; it does: {:?}",
            process.id(),
            now.armed,
            process.armed()
        ));
    }
    if process.armed() != Some(Armed::Backup) {
        return Ok(());
    }
    let last = OpNumber(process.card().peek(Word::Tail) & OP_MASK);
    if last <= now.op || last <= stored_through(process) {
        return Ok(());
    }
    Err(format!(
        "the kernel of replica {} says op {last}; its log and ring end at {}",
        process.id(),
        stored_through(process)
    ))
}

/// A program's exchange of the tail succeeded.
pub(super) fn accepted(
    life: &Life,
    process: Seen<'_>,
    disk: Option<Promise>,
    generation: u16,
    from: u64,
    to: u64,
) -> Verdict {
    let node = process.id();
    let Some((view, primary)) = life.generations.get(&generation).copied() else {
        return Err(format!(
            "the kernel of replica {node} accepts op {to} in generation {generation}, which never was armed"
        ));
    };
    if primary {
        return Err(format!(
            "the kernel of replica {node} accepts op {to} as a primary's"
        ));
    }
    if to <= from {
        return Err(format!(
            "the kernel of replica {node} moves its last op from {from} to {to}"
        ));
    }
    let status = process.core().snapshot().status;
    let promised = disk.map(|promise| promise.view);
    if promised != Some(view) || status != Status::Normal {
        return Err(format!(
            "the kernel of replica {node} accepts op {to} of view {view}; the replica is {status:?} and promised {promised:?}"
        ));
    }
    Ok(())
}
