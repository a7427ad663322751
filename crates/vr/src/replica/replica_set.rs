//! A set of replicas, counted by distinct member (protocol.md, rule 8).

use crate::ids::ReplicaId;

/// Bit `i` is replica `i`; groups have at most [`crate::MAX_REPLICAS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ReplicaSet(u16);

impl ReplicaSet {
    /// The set of one.
    pub(super) fn of(replica: ReplicaId) -> ReplicaSet {
        let mut set = ReplicaSet::default();
        set.insert(replica);
        set
    }

    /// Adds a member; a second time changes nothing.
    pub(super) fn insert(&mut self, replica: ReplicaId) {
        self.0 |= 1 << replica.0;
    }

    /// Whether it is a member.
    pub(super) fn contains(self, replica: ReplicaId) -> bool {
        self.0 & (1 << replica.0) != 0
    }

    /// How many members.
    pub(super) fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}
