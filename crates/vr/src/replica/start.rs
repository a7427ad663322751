//! The first start (protocol.md, rule 4): normal only by an explicit bootstrap, or when all n turn out to be new.
//!
//! f + 1 would be unsafe: a replica that lost its disk must not look like one at its first start. Replica 0 asks
//! everybody; once all have said that they are new it names the group. Who restarts in between has another nonce, and
//! who has the same nonce hasn't been normal since: so a Bootstrap may be repeated to it, whatever happened meanwhile.
//! With an explicit bootstrap of one replica the operator vouches for that instead, and that replica tells the others.

use alloc::string::String;
use alloc::vec::Vec;

use super::Replica;
use super::replica_set::ReplicaSet;
use crate::config::Start;
use crate::effect::Effect;
use crate::ids::{GroupId, Nonce, ReplicaId, Time, View};
use crate::message::Message;
use crate::state_machine::StateMachine;
use crate::status::Status;

/// Retries for which a new replica waits for the word of the one that names the group when another says that there is a group already: when
/// Bootstrap messages are lost, all who were new must not go to recovery at once, where nobody could bring them back.
const GRACE: u64 = 10;

/// A replica before its group is known.
#[derive(Clone, Debug, Hash)]
pub(super) struct FirstStart {
    explicit: bool,
    pub(super) nonce: Nonce,
    /// Who has answered that it is new as well.
    new: ReplicaSet,
    /// A group that another replica named, and since when.
    pub(super) rumour: Option<(GroupId, Time)>,
    pub(super) again_at: Time,
}

impl FirstStart {
    pub(super) fn new(start: Start, now: Time) -> FirstStart {
        FirstStart {
            explicit: matches!(start, Start::Bootstrap(_)),
            nonce: Nonce(0),
            new: ReplicaSet::default(),
            rumour: None,
            again_at: now,
        }
    }
}

impl<S: StateMachine> Replica<S> {
    pub(super) fn tick_starting(&mut self, out: &mut Vec<Effect>) {
        if self.now < self.first_start.again_at {
            return;
        }
        let retry = self.config.timing.retry;
        self.first_start.again_at = self.now.plus(self.jittered(retry));
        if self.first_start.explicit {
            return self.begin_group(self.group, out);
        }
        if let Some((group, since)) = self.first_start.rumour
            && since.plus(retry.saturating_mul(GRACE)) <= self.now
        {
            return self.recover_into(group, out);
        }
        if self.config.replicas == 1 {
            return self.name_group(out);
        }
        let hello = Message::Hello {
            nonce: self.first_start.nonce,
            group: self.group,
        };
        out.push(Effect::Broadcast(hello));
    }

    /// Anybody answers, in any status: it is no vote, only a name.
    pub(super) fn on_hello(
        &mut self,
        from: ReplicaId,
        nonce: Nonce,
        of: GroupId,
        out: &mut Vec<Effect>,
    ) {
        // By an explicit bootstrap the operator says that the whole group is new: whoever is new and was never heard by the
        // one that bootstraps belongs to it. One that comes again with another nonce has lost what it knew.
        let admits = self.first_start.explicit && self.status != Status::Starting;
        let undecided = self.status == Status::Starting && !self.first_start.explicit;
        let group = if undecided { GroupId(0) } else { self.group };
        let peer = &mut self.peers[from.index()];
        peer.hello = Some(nonce);
        if admits && of == GroupId(0) {
            peer.bootstrapped.get_or_insert(nonce);
        }
        let same_life = peer.bootstrapped == Some(nonce);
        let message = if same_life && group != GroupId(0) {
            Message::Bootstrap { nonce, group }
        } else {
            Message::HelloOk { nonce, group }
        };
        out.push(Effect::Send { to: from, message });
        self.name_group_if_all_are_new(out);
    }

    pub(super) fn on_hello_ok(
        &mut self,
        from: ReplicaId,
        nonce: Nonce,
        group: GroupId,
        out: &mut Vec<Effect>,
    ) {
        let asked = self.status == Status::Starting && !self.first_start.explicit;
        if !asked || nonce != self.first_start.nonce {
            return self.ignore_hello_ok();
        }
        if group == GroupId(0) {
            self.first_start.new.insert(from);
            return self.name_group_if_all_are_new(out);
        }
        // Replica 0 would have sent a Bootstrap if this replica were still part of the first start.
        if from == ReplicaId(0) {
            return self.recover_into(group, out);
        }
        self.first_start.rumour.get_or_insert((group, self.now));
    }

    fn name_group_if_all_are_new(&mut self, out: &mut Vec<Effect>) {
        let zero = self.status == Status::Starting
            && !self.first_start.explicit
            && self.config.index == ReplicaId(0);
        let new = self.first_start.new;
        let known =
            |other: ReplicaId| new.contains(other) && self.peers[other.index()].hello.is_some();
        if zero && self.others().all(known) {
            self.name_group(out);
        }
    }

    /// Replica 0 gives the group its random name, and tells the others.
    fn name_group(&mut self, out: &mut Vec<Effect>) {
        let group = GroupId(self.fresh_random().max(1));
        self.begin_group(group, out);
        for to in self.others() {
            let peer = &mut self.peers[to.index()];
            peer.bootstrapped = peer.hello;
            if let Some(nonce) = peer.bootstrapped {
                out.push(Effect::Send {
                    to,
                    message: Message::Bootstrap { nonce, group },
                });
            }
        }
    }

    pub(super) fn on_bootstrap(&mut self, nonce: Nonce, group: GroupId, out: &mut Vec<Effect>) {
        let asked = self.status == Status::Starting && !self.first_start.explicit;
        if !asked || nonce != self.first_start.nonce || group == GroupId(0) {
            return self.ignore_bootstrap();
        }
        self.begin_group(group, out);
    }

    /// Normal in view 0 of a new group.
    fn begin_group(&mut self, group: GroupId, out: &mut Vec<Effect>) {
        self.group = group;
        // The promise is what tells a later start that there was a group; the log that it then looks for is there first.
        self.write_entered(out);
        self.promise(View(0), out);
        self.enter_normal(View(0), out);
        if self.is_primary() {
            self.begin_primary(out);
        }
    }

    /// There is a group, and this replica lost what it knew of it.
    fn recover_into(&mut self, group: GroupId, out: &mut Vec<Effect>) {
        self.group = group;
        self.promise(View(0), out);
        self.begin_recovery();
    }

    pub(super) fn starting_reason(&self) -> String {
        let (new, all) = (self.first_start.new.len(), self.config.replicas - 1);
        match self.first_start.rumour {
            Some((group, _)) => alloc::format!(
                "first start: there is a group ({:016x}) already; waiting for the word of the one that named it",
                group.0
            ),
            None => alloc::format!(
                "first start: {new} of {all} others are known to be new; all have to be up once"
            ),
        }
    }

    /// To another question, or the replica isn't at its first start.
    fn ignore_hello_ok(&self) {}

    /// Of another life, or the replica isn't at its first start.
    fn ignore_bootstrap(&self) {}
}
