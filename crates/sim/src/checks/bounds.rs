//! Memory stays bounded whatever the uptime: log, sessions, socket, ring.

use electrode_vr::Snapshot;

use super::{Rule, Verdict};
use crate::card::SOCKET;
use crate::process::Seen;

pub(super) const RULE: Rule = Rule {
    name: "every queue has a bound and keeps to it",
    source: "docs/protocol.md rule 14 and \"Batching and pipelining\"; VR Revisited 5.1",
};

pub(super) fn check(process: Seen<'_>, now: &Snapshot) -> Verdict {
    let node = process.id();
    let limits = process.limits();
    // What the ring had acknowledged at the soft limit comes on top: at most one record of one op per 128 bytes.
    let ring = u64::from(process.ring_bytes()) / 128;
    let most = limits.executed_ops() + 2 * limits.uncommitted() + ring;
    if now.log_entries as u64 > most {
        return Err(format!(
            "replica {node} keeps {} entries, at most {most} are allowed",
            now.log_entries
        ));
    }
    if now.sessions > limits.sessions {
        return Err(format!("replica {node} keeps {} sessions", now.sessions));
    }
    if process.card().socket_length() > SOCKET {
        return Err(format!("the socket of replica {node} holds too much"));
    }
    Ok(())
}
