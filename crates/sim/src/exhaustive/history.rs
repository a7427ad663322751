//! What has to be remembered of the group to judge it, and the rules that take more than one replica to see.

use electrode_vr::{OpNumber, ReplicaId, View};

use super::node::Seen;
use crate::checks::{Rule, Violation};

const COMMITTED: Rule = Rule {
    name: "a committed op has one value",
    source: "VR Revisited 8.1; docs/protocol.md rule 13",
};
const KEPT: Rule = Rule {
    name: "a committed op survives into every later view",
    source: "VR Revisited 8.1; docs/protocol.md rules 1 to 3",
};
const QUORUM: Rule = Rule {
    name: "a quorum holds each committed op",
    source: "VR Revisited 4.1 step 5; docs/fast-path.md R1, R4",
};
const PRIMARIES: Rule = Rule {
    name: "one primary commits per view",
    source: "VR Revisited 4 and 8.1; docs/protocol.md rule 6",
};
const ONCE: Rule = Rule {
    name: "a request has one place in the order, and a retry hears the same",
    source: "VR Revisited 4.1 (client table); docs/protocol.md rule 7",
};
const REMEMBERED: Rule = Rule {
    name: "who is normal in a view has what it acknowledged in it",
    source: "docs/fast-path.md R1; docs/protocol.md rule 5",
};

/// The group's past, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct History {
    /// By op: the log's digest there, and the view in which it was committed first; 0 once that makes no difference.
    committed: Vec<(u64, View)>,
    /// Per view: who committed in it, in which of its lives.
    primaries: Vec<(View, ReplicaId, u8)>,
    /// The highest op that each acknowledged, per view.
    acked: Vec<(View, ReplicaId, OpNumber)>,
    /// What clients heard: client, number, place.
    replies: Vec<(u8, u8, u8)>,
    /// Some request was taken: until then clients are all alike, and the first one's may as well be it.
    pub(super) begun: bool,
}

impl History {
    /// How many of a client's requests were answered.
    pub(super) fn answered(&self, client: u8) -> u8 {
        let own = self.replies.iter().filter(|reply| reply.0 == client);
        own.map(|reply| reply.1).max().unwrap_or_default()
    }

    /// How many ops are committed.
    pub(super) fn commits(&self) -> usize {
        self.committed.len()
    }

    /// The highest op that a replica acknowledged in a view.
    fn acked(&self, who: ReplicaId, view: View) -> OpNumber {
        let known = self.acked.iter().find(|one| (one.0, one.1) == (view, who));
        known.map_or(OpNumber(0), |known| known.2)
    }

    /// Forgets what no rule can look at any more when the replicas have promised these views: nobody is normal in a view below
    /// its promise again (that is a rule of its own).
    pub(super) fn settle(&mut self, promised: &[View]) {
        let left = |view: View, who: ReplicaId| promised[who.index()] > view;
        // Acks of views in which neither who gave them nor who counts them can be.
        self.acked.retain(|(view, who, _)| {
            let primary = view.primary(promised.len());
            !left(*view, *who) || !left(*view, primary)
        });
        // Primaries that lead no more.
        self.primaries.retain(|(view, who, _)| !left(*view, *who));
        // Every view that anybody enters comes after that in which the op was committed.
        for (_, by) in &mut self.committed {
            if promised.iter().all(|promised| promised > by) {
                *by = View(0);
            }
        }
    }

    /// Somebody acknowledges.
    fn note_ack(&mut self, who: ReplicaId, ack: &Seen) {
        let Seen::Acknowledged { view, op } = ack else {
            return;
        };
        match (self.acked.iter_mut()).find(|one| (one.0, one.1) == (*view, who)) {
            Some(known) => known.2 = known.2.max(*op),
            None => {
                self.acked.push((*view, who, *op));
                self.acked.sort_unstable();
            }
        }
    }

    /// Takes note of what a replica showed.
    pub(super) fn judge(
        &mut self,
        node: ReplicaId,
        life: u8,
        replicas: u8,
        seen: &Seen,
    ) -> Result<(), Violation> {
        let broken = |rule: Rule, text: String| Err(Violation { rule, text });
        match seen {
            Seen::Committed {
                view,
                primary,
                commit,
                digests,
            } => {
                for (at, digest) in digests.iter().enumerate() {
                    if let Some((known, _)) = self.committed.get(at) {
                        if *digest != 0 && known != digest {
                            let text = format!("op {} of replica {node} is another one", at + 1);
                            return broken(COMMITTED, text);
                        }
                        continue;
                    }
                    let op = OpNumber(at as u64 + 1);
                    if !primary {
                        let text = format!("replica {node}, no primary, commits op {op} first");
                        return broken(QUORUM, text);
                    }
                    let others = (0..replicas).map(ReplicaId).filter(|other| *other != node);
                    let count = others
                        .filter(|other| self.acked(*other, *view) >= op)
                        .count();
                    if count < usize::from(replicas / 2) {
                        let text = format!(
                            "replica {node} commits op {op} in view {view}, which {count} backups acknowledged"
                        );
                        return broken(QUORUM, text);
                    }
                    self.committed.push((*digest, *view));
                }
                if *primary && *commit > OpNumber(0) {
                    let first = self.primaries.iter().find(|first| first.0 == *view);
                    if first.is_some_and(|first| (first.1, first.2) != (node, life)) {
                        let text = format!(
                            "replica {node} (life {life}) commits in view {view} after {first:?}"
                        );
                        return broken(PRIMARIES, text);
                    }
                    if first.is_none() {
                        self.primaries.push((*view, node, life));
                        self.primaries.sort_unstable();
                    }
                }
            }
            Seen::Normal { view, digests } => {
                for (at, (digest, by)) in self.committed.iter().enumerate() {
                    let own = digests.get(at);
                    if by < view && own.is_none_or(|own| *own != 0 && own != digest) {
                        let text = format!(
                            "replica {node} is normal in view {view} with {own:x?} at op {}, committed in view {by}",
                            at + 1
                        );
                        return broken(KEPT, text);
                    }
                }
                let highest = self.acked(node, *view);
                if highest.0 > digests.len() as u64 {
                    let text = format!(
                        "replica {node} is normal in view {view} up to op {}, but acknowledged op {highest}",
                        digests.len()
                    );
                    return broken(REMEMBERED, text);
                }
            }
            Seen::Believed { view, who, op } => {
                if self.acked(*who, *view) < *op {
                    let text = format!(
                        "replica {node} believes that replica {who} acknowledged op {op} of view {view}"
                    );
                    return broken(QUORUM, text);
                }
            }
            ack @ Seen::Acknowledged { .. } => self.note_ack(node, ack),
            Seen::Replied {
                client,
                number,
                place,
            } => {
                let told = (*client, *number, *place);
                let same = |reply: &&(u8, u8, u8)| {
                    (reply.0, reply.1) == (*client, *number) || reply.2 == *place
                };
                let first = self.replies.iter().find(same);
                if first.is_some_and(|first| *first != told)
                    || usize::from(*place) > self.committed.len()
                {
                    let text = format!("client, number, place: {told:?} after {first:?}");
                    return broken(ONCE, text);
                }
                if first.is_none() {
                    self.replies.push(told);
                    self.replies.sort_unstable();
                }
            }
        }
        Ok(())
    }
}
