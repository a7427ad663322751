//! Checkpoints of the same op are the same bytes at every replica: where they are taken or fetched, shown to others, or written
//! to disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use electrode_vr::{Digest, OpNumber};

use super::{Rule, Verdict};

pub(super) const RULE: Rule = Rule {
    name: "checkpoints of the same op are equal",
    source: "VR Revisited 5.1; docs/protocol.md rule 14",
};

/// The checkpoints that anybody had.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// Digests of log and bytes.
    digests: BTreeMap<OpNumber, (Digest, Digest)>,
    /// The same of those that went to a disk: digest of the log, and the bytes.
    written: BTreeMap<OpNumber, (Digest, Arc<Vec<u8>>)>,
}

impl Checkpoints {
    /// A replica has this checkpoint, or says so.
    pub(super) fn check(
        &mut self,
        op: OpNumber,
        log: Digest,
        bytes: Digest,
        node: usize,
    ) -> Verdict {
        let known = *self.digests.entry(op).or_insert((log, bytes));
        if known == (log, bytes) {
            return Ok(());
        }
        Err(differs(op, node, "has"))
    }

    /// A replica writes this checkpoint.
    pub(super) fn written(
        &mut self,
        op: OpNumber,
        log: Digest,
        bytes: &Arc<Vec<u8>>,
        node: usize,
    ) -> Verdict {
        let (known_log, known) = self
            .written
            .entry(op)
            .or_insert_with(|| (log, Arc::clone(bytes)));
        let told = self.digests.get(&op).is_none_or(|(told, _)| *told == log);
        if told && *known_log == log && *known == *bytes {
            return Ok(());
        }
        Err(differs(op, node, "writes"))
    }

    /// A replica sends this part of a checkpoint.
    pub(super) fn sent(&self, op: OpNumber, offset: u64, part: &[u8], node: usize) -> Verdict {
        let Some((_, whole)) = self.written.get(&op) else {
            return Ok(());
        };
        let rest = usize::try_from(offset).ok().and_then(|at| whole.get(at..));
        if rest.is_some_and(|rest| rest.starts_with(part)) {
            return Ok(());
        }
        Err(differs(op, node, "sends"))
    }
}

fn differs(op: OpNumber, node: usize, does: &str) -> String {
    format!("the checkpoint of op {op} that replica {node} {does} differs from another's")
}
