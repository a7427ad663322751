//! View changes (VR Revisited, section 4.2), begun by a pre-vote so that nobody deposes a working primary (rule 11).
//!
//! DoViewChange and StartView name the log by its last op and digest. Who lacks it fetches it (`state_transfer`), and
//! replaces its own in one step (rules 2, 3, 12). Only then is it normal in the new view.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::Replica;
use super::fast_path::AfterFence;
use super::replica_set::ReplicaSet;
use super::requests::Primary;
use super::state_transfer::Purpose;
use crate::effect::{Effect, Note};
use crate::ids::{Digest, OpNumber, ReplicaId, Time, View};
use crate::message::Message;
use crate::mutations::{Mutation, active};
use crate::state_machine::StateMachine;
use crate::status::Status;

/// How often time-outs double at most.
pub(super) const MAX_DOUBLINGS: u32 = 4;

/// What a DoViewChange says, or this replica's own counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    from: ReplicaId,
    last_normal: View,
    op: OpNumber,
    commit: OpNumber,
    digest: Digest,
}

/// Votes, and the time-outs that lead to them.
#[derive(Clone, Debug, Hash)]
pub(super) struct ViewChange {
    /// When the primary of the promised view was last heard.
    pub(super) heard_primary: Option<Time>,
    /// When a backup begins to doubt its primary.
    pub(super) suspect_at: Time,
    /// The view that support was asked for last, and who has given it since.
    pub(super) pre_vote: Option<(View, ReplicaSet)>,
    /// Pre-votes in vain since the primary was heard.
    pub(super) asked: u32,
    /// View changes in vain since a view worked.
    pub(super) failed: u32,
    /// Who sent StartViewChange for `view`.
    pub(super) starters: ReplicaSet,
    /// Whether DoViewChange was sent: the log is frozen, and shown to the new primary.
    pub(super) announced: bool,
    pub(super) candidates: Vec<Option<Candidate>>,
    /// The new primary has chosen a log.
    pub(super) chosen: bool,
    pub(super) again_at: Time,
    pub(super) give_up_at: Time,
}

impl ViewChange {
    pub(super) fn new(replicas: usize) -> ViewChange {
        ViewChange {
            heard_primary: None,
            suspect_at: Time(0),
            pre_vote: None,
            asked: 0,
            failed: 0,
            starters: ReplicaSet::default(),
            announced: false,
            candidates: alloc::vec![None; replicas],
            chosen: false,
            again_at: Time(0),
            give_up_at: Time(0),
        }
    }

    pub(super) fn deadline(&self) -> Time {
        self.again_at.min(self.give_up_at)
    }

    /// No votes are open any more.
    pub(super) fn end(&mut self, now: Time) {
        let replicas = self.candidates.len();
        let (asked, failed) = (self.asked, self.failed);
        *self = ViewChange {
            heard_primary: Some(now),
            asked,
            failed,
            ..ViewChange::new(replicas)
        };
    }
}

impl<S: StateMachine> Replica<S> {
    /// The primary of the promised view lives: nobody here asks for another soon.
    pub(super) fn heard_primary(&mut self) {
        let patience = self.config.timing.view_change;
        let patience = self.jittered(patience);
        let now = self.now;
        let change = &mut self.view_change;
        change.heard_primary = Some(now);
        change.suspect_at = now.plus(patience);
        change.give_up_at = change.give_up_at.max(now.plus(patience));
        change.pre_vote = None;
        change.asked = 0;
    }

    /// The view works: the next change begins with short time-outs again.
    pub(super) fn view_works(&mut self) {
        self.view_change.failed = 0;
    }

    /// Progress in fetching the state of the view: no reason to give it up.
    pub(super) fn postpone_giving_up(&mut self) {
        let patience = self.config.timing.view_change;
        let patience = self.jittered(patience);
        let change = &mut self.view_change;
        change.give_up_at = change.give_up_at.max(self.now.plus(patience));
    }

    /// Moves to a higher view, as a voter: fence, promise, speak.
    pub(super) fn change_view(
        &mut self,
        view: View,
        cause: Option<(ReplicaId, Message)>,
        out: &mut Vec<Effect>,
    ) {
        if self.is_bound() {
            return self.ignore_while_bound();
        }
        let cause = cause.map(Box::new);
        self.fence(AfterFence::ChangeView { view, cause }, out);
    }

    /// Section 4.2, step 1.
    pub(super) fn enter_view_change(&mut self, view: View, out: &mut Vec<Effect>) {
        if active(Mutation::SpeechBeforePromise) {
            out.push(Effect::Broadcast(Message::StartViewChange { view }));
        }
        self.promise(view, out);
        self.vote(view, out);
    }

    /// Votes for the view that was promised.
    pub(super) fn vote(&mut self, view: View, out: &mut Vec<Effect>) {
        self.view = view;
        self.leave_normal(out);
        self.view_change.starters = ReplicaSet::of(self.config.index);
        if self.faults() == 0 {
            // Nobody else has a vote.
            return self.choose_log(out);
        }
        out.push(Effect::Broadcast(Message::StartViewChange { view }));
    }

    /// Moves towards a view that others have started: this replica has no vote in it, only its state to fetch.
    pub(super) fn join(
        &mut self,
        view: View,
        from: ReplicaId,
        message: Message,
        out: &mut Vec<Effect>,
    ) {
        if self.is_bound() {
            return self.ignore_while_bound();
        }
        self.fence(
            AfterFence::Join {
                view,
                cause: Box::new((from, message)),
            },
            out,
        );
    }

    /// The view itself rises when its state is here (rule 2).
    pub(super) fn enter_join(&mut self, view: View, out: &mut Vec<Effect>) {
        self.promise(view, out);
        self.leave_normal(out);
    }

    fn leave_normal(&mut self, out: &mut Vec<Effect>) {
        if self.status == Status::Normal && self.leads(self.config.index, self.last_normal) {
            self.turn_away(out);
        }
        self.status = Status::ViewChange;
        self.learned_commit = self.commit;
        self.abandon_transfer();
        self.early.clear();
        let pending = core::mem::take(&mut self.primary.pending);
        self.primary = Primary::default();
        if active(Mutation::ClientTableNotRolledBack) {
            self.primary.pending = pending;
        }
        let failed = self.view_change.failed;
        self.view_change = ViewChange::new(self.config.replicas);
        self.view_change.failed = failed.saturating_add(1);
        let wait = self.config.timing.view_change << failed.min(MAX_DOUBLINGS);
        self.view_change.give_up_at = self.now.plus(self.jittered(wait));
        self.view_change.again_at = self.now.plus(self.config.timing.retry);
        self.note_entered("view change", out);
    }

    /// Whether this replica votes for the view that it promised, rather than fetching its state.
    fn votes(&self) -> bool {
        self.status == Status::ViewChange && self.view == self.promised
    }

    pub(super) fn tick_view_change(&mut self, out: &mut Vec<Effect>) {
        if self.now >= self.view_change.again_at {
            let again = self.config.timing.retry;
            self.view_change.again_at = self.now.plus(self.jittered(again));
            if self.votes() {
                out.push(Effect::Broadcast(Message::StartViewChange {
                    view: self.view,
                }));
                self.send_do_view_change(out);
            }
        }
        if self.now >= self.view_change.give_up_at {
            self.ask_pre_vote(out);
        }
    }

    pub(super) fn on_start_view_change(
        &mut self,
        from: ReplicaId,
        view: View,
        out: &mut Vec<Effect>,
    ) {
        if view < self.promised {
            return self.ignore_start_view_change();
        }
        // A StartViewChange is evidence enough: its sender had a pre-vote's quorum, or followed one who had.
        if view > self.promised {
            return self.change_view(view, Some((from, Message::StartViewChange { view })), out);
        }
        if self.status == Status::Normal {
            return self.show_started_view(from, out);
        }
        if self.votes() {
            self.view_change.starters.insert(from);
            self.announce_log(out);
        }
    }

    /// Section 4.2, step 2: f others have promised the view too.
    fn announce_log(&mut self, out: &mut Vec<Effect>) {
        if self.view_change.announced || self.view_change.starters.len() <= self.faults() {
            return;
        }
        self.view_change.announced = true;
        self.send_do_view_change(out);
        if active(Mutation::ViewChangeQuorumOfF) && self.leads(self.config.index, self.view) {
            self.choose_log(out);
        }
    }

    fn send_do_view_change(&self, out: &mut Vec<Effect>) {
        let to = self.view.primary(self.config.replicas);
        if !self.view_change.announced || to == self.config.index {
            return;
        }
        let Candidate {
            last_normal,
            op,
            commit,
            digest,
            ..
        } = self.own_candidate();
        let view = self.view;
        let message = Message::DoViewChange {
            view,
            last_normal,
            op,
            commit,
            digest,
        };
        out.push(Effect::Send { to, message });
    }

    fn own_candidate(&self) -> Candidate {
        Candidate {
            from: self.config.index,
            last_normal: self.last_normal,
            op: self.log.op(),
            commit: self.commit,
            digest: self.log.digest(),
        }
    }

    /// May come before any StartViewChange (rule 8): its sender saw f + 1 of them.
    pub(super) fn on_do_view_change(
        &mut self,
        from: ReplicaId,
        message: Message,
        out: &mut Vec<Effect>,
    ) {
        let Message::DoViewChange {
            view,
            last_normal,
            op,
            commit,
            digest,
        } = message
        else {
            return;
        };
        let impossible = commit > op || last_normal >= view || op.0 >= OpNumber::LIMIT;
        if view < self.promised || impossible || !self.leads(self.config.index, view) {
            return self.ignore_do_view_change();
        }
        if view > self.promised {
            return self.change_view(view, Some((from, message)), out);
        }
        if self.status == Status::Normal {
            return self.show_started_view(from, out);
        }
        let candidate = Candidate {
            from,
            last_normal,
            op,
            commit,
            digest,
        };
        self.view_change.candidates[from.index()] = Some(candidate);
        self.choose_log(out);
    }

    /// Section 4.2, step 3: the log of the highest (last normal view, op) of f + 1 is the new view's (rule 1).
    fn choose_log(&mut self, out: &mut Vec<Effect>) {
        let change = &self.view_change;
        let others = change.candidates.iter().flatten().copied();
        let wanted = if active(Mutation::ViewChangeQuorumOfF) {
            0
        } else {
            self.faults()
        };
        if change.chosen || others.clone().count() < wanted {
            return;
        }
        let own = self.own_candidate();
        let rank = |candidate: &Candidate| {
            if active(Mutation::LongestLogWins) {
                return (View(0), candidate.op);
            }
            (candidate.last_normal, candidate.op)
        };
        let best = others.clone().fold(own, |best, candidate| {
            if rank(&candidate) > rank(&best) {
                candidate
            } else {
                best
            }
        });
        let commit = others
            .map(|candidate| candidate.commit)
            .fold(own.commit, OpNumber::max);
        if commit > best.op {
            let text = "a committed op is in no log of the quorum: this view can't start";
            return out.push(Effect::Note(Note::Warning(text.into())));
        }
        self.view_change.chosen = true;
        if best.from == self.config.index {
            self.lead(commit, out);
        } else {
            let target = Some((best.op, best.digest));
            self.begin_transfer(Purpose::Lead { commit }, best.from, self.view, target, out);
        }
    }

    /// The new view's log is here: its primary begins.
    pub(super) fn lead(&mut self, commit: OpNumber, out: &mut Vec<Effect>) {
        self.learned_commit = self.learned_commit.max(commit);
        self.enter_normal(self.promised, out);
        self.begin_primary(out);
    }

    pub(super) fn start_view(&self) -> Message {
        Message::StartView {
            view: self.view,
            op: self.log.op(),
            commit: self.commit,
            digest: self.log.digest(),
        }
    }

    fn show_started_view(&mut self, to: ReplicaId, out: &mut Vec<Effect>) {
        if self.is_primary() {
            out.push(Effect::Send {
                to,
                message: self.start_view(),
            });
        }
    }

    pub(super) fn on_start_view(
        &mut self,
        from: ReplicaId,
        message: Message,
        out: &mut Vec<Effect>,
    ) {
        let Message::StartView {
            view,
            op,
            commit,
            digest,
        } = message
        else {
            return;
        };
        let impossible = commit > op || op.0 >= OpNumber::LIMIT;
        if view < self.promised || !self.leads(from, view) || impossible {
            return self.ignore_start_view();
        }
        if view > self.promised {
            return self.join(view, from, message, out);
        }
        self.heard_primary();
        if self.status == Status::Normal {
            self.acknowledge_log(out);
            self.learn_commit(commit, out);
            return self.catch_up_if_behind(out);
        }
        if op < self.commit {
            let text = "a view was started without ops that are committed here: not joined";
            return out.push(Effect::Note(Note::Warning(text.into())));
        }
        if self.log.digest_at(op) == Some(digest) {
            // The log is the new view's, but for a longer suffix that lost (rule 3).
            if !active(Mutation::LongerSuffixKept) {
                self.truncate(op);
            }
            self.learned_commit = self.learned_commit.max(commit);
            self.follow(view, out);
        } else if self.transfer.is_none() {
            let target = Some((op, digest));
            self.begin_transfer(Purpose::Follow, from, view, target, out);
        }
    }

    /// A message of a view that others have started came before its StartView, or instead of it.
    pub(super) fn fetch_started_view(&mut self, view: View, out: &mut Vec<Effect>) {
        if self.transfer.is_none() {
            let primary = view.primary(self.config.replicas);
            self.begin_transfer(Purpose::Follow, primary, view, None, out);
        }
    }

    /// The log is the view's: become its backup, and acknowledge all of it (rule 10).
    pub(super) fn follow(&mut self, view: View, out: &mut Vec<Effect>) {
        self.enter_normal(view, out);
        self.acknowledge_log(out);
        self.execute(out);
        self.append_early(out);
    }

    pub(super) fn acknowledge_log(&mut self, out: &mut Vec<Effect>) {
        self.bind();
        let (view, op) = (self.view, self.durable());
        let to = view.primary(self.config.replicas);
        out.push(Effect::Send {
            to,
            message: Message::PrepareOk {
                view,
                op,
                last_op: op,
            },
        });
    }

    pub(super) fn view_change_reason(&self) -> String {
        let (view, primary) = (self.promised, self.promised.primary(self.config.replicas));
        if self.transfer.is_some() {
            return alloc::format!(
                "fetching the state of view {view} (primary: replica {primary})"
            );
        }
        let starters = self.view_change.starters.len();
        let quorum = self.faults() + 1;
        alloc::format!(
            "changing to view {view} (primary: replica {primary}), {starters} of {quorum} votes"
        )
    }

    /// Of an older view.
    fn ignore_start_view_change(&self) {}

    /// Of an older view, for another primary, or impossible.
    fn ignore_do_view_change(&self) {}

    /// Of an older view, of no primary, or impossible.
    fn ignore_start_view(&self) {}
}
