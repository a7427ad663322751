//! Pre-votes: a replica asks whether a view change would find support before it begins one (protocol.md, rule 11).
//!
//! Nothing changes at anybody by a pre-vote, so a partitioned or slow replica that comes back deposes no working primary.

use alloc::vec::Vec;

use super::Replica;
use super::replica_set::ReplicaSet;
use super::view_change::MAX_DOUBLINGS;
use crate::effect::Effect;
use crate::ids::{ReplicaId, Time, View};
use crate::message::Message;
use crate::state_machine::StateMachine;
use crate::status::Status;

impl<S: StateMachine> Replica<S> {
    /// "Would you support a change?" Nothing changes before f others say yes.
    pub(super) fn ask_pre_vote(&mut self, out: &mut Vec<Effect>) {
        let view = self.view_worth_trying(self.promised.next());
        let own = ReplicaSet::of(self.config.index);
        let change = &mut self.view_change;
        // Support is of the moment: who didn't hear the primary when it was asked before may have heard it since.
        change.pre_vote = Some((view, own));
        let wait = self.config.timing.retry << change.asked.min(MAX_DOUBLINGS);
        change.asked = change.asked.saturating_add(1);
        let wait = self.jittered(wait);
        self.view_change.suspect_at = self.now.plus(wait);
        self.view_change.give_up_at = self.now.plus(wait);
        out.push(Effect::Broadcast(Message::PreVote { view }));
    }

    /// The first view from `view` on whose primary isn't known to be recovering (rule 4).
    fn view_worth_trying(&self, view: View) -> View {
        let mut candidate = view;
        for _ in 0..self.config.replicas {
            let primary = candidate.primary(self.config.replicas);
            if primary == self.config.index || !self.recovering_lately(primary) {
                return candidate;
            }
            candidate = candidate.next();
        }
        view
    }

    pub(super) fn on_pre_vote(&mut self, from: ReplicaId, view: View, out: &mut Vec<Effect>) {
        if view <= self.promised || self.has_live_primary() {
            return self.ignore_pre_vote();
        }
        out.push(Effect::Send {
            to: from,
            message: Message::PreVoteOk { view },
        });
    }

    /// Whether the view that this replica is in has a primary that was heard lately: itself, if it hears f backups.
    fn has_live_primary(&self) -> bool {
        let patience = self.config.timing.view_change;
        if self.status == Status::Normal && self.is_primary() {
            let live = |other: &ReplicaId| {
                let heard = self.peers[other.index()].followed;
                heard > Time(0) && heard.plus(patience) > self.now
            };
            return self.others().filter(live).count() >= self.faults();
        }
        self.view_change
            .heard_primary
            .is_some_and(|heard| heard.plus(patience) > self.now)
    }

    /// Whether a backup of this replica's view can say this. A replica that lost its state, or that asks for a view beyond the
    /// next one (for it has promised a later view, or knows that the next one's primary is recovering), is alive, but
    /// nothing can be decided with it here: to count it would deny every pre-vote to those who could work without this
    /// primary.
    pub(super) fn may_follow(&self, message: &Message) -> bool {
        match message {
            Message::Recovery { .. } | Message::Hello { .. } => false,
            Message::PreVote { view } => *view <= self.promised.next(),
            _ => true,
        }
    }

    pub(super) fn on_pre_vote_ok(&mut self, from: ReplicaId, view: View, out: &mut Vec<Effect>) {
        let Some((asked, supporters)) = &mut self.view_change.pre_vote else {
            return self.ignore_pre_vote_ok();
        };
        if *asked != view || view <= self.promised {
            return self.ignore_pre_vote_ok();
        }
        supporters.insert(from);
        if supporters.len() > self.config.replicas / 2 {
            self.change_view(view, None, out);
        }
    }

    /// Of a view that isn't newer, or the primary was heard lately.
    fn ignore_pre_vote(&self) {}

    /// Not asked for, or not any more.
    fn ignore_pre_vote_ok(&self) {}
}
