//! The core's side of the kernel's fast path (docs/fast-path.md): when it runs, and what it stored.
//!
//! Every change of view, status or role, and every change of the log but appending, lies between a Fence and an Arm.
//! After a Fence or a Claim only the kernel's records and the answer come in; what was about to happen waits here.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Replica;
use super::checkpoint::Checkpoint;
use super::normal::well_formed;
use crate::effect::{Effect, FastPathCommand, FastPathEvent, Input, Note};
use crate::ids::{OpNumber, ReplicaId, Time, View};
use crate::message::{Message, Prepare};
use crate::mutations::{Mutation, active};
use crate::state_machine::StateMachine;
use crate::status::Status;

/// A Prepare (or a chunk of state in its shape) on its way into the log.
#[derive(Clone, Debug, Hash)]
pub(super) struct Held {
    pub(super) prepare: Prepare,
    /// Whether it came by state transfer.
    pub(super) transferred: bool,
}

/// What the kernel does for this replica.
#[derive(Clone, Debug, Hash)]
pub(super) enum Fast {
    /// Nothing.
    Disarmed,
    /// Stores (a backup) or counts (the primary).
    Armed,
    /// It was asked whether it stored more meanwhile; if not, this is appended.
    Claiming(Held),
    /// It was told to stop; when what it stored is here, this happens.
    Fencing(AfterFence),
}

/// What waits for the fence.
#[derive(Clone, Debug, Hash)]
pub(super) enum AfterFence {
    /// Vote for a new view; the message that called for it is looked at again then.
    ChangeView {
        view: View,
        cause: Option<Box<(ReplicaId, Message)>>,
    },
    /// Fetch the state of a view that others started; likewise.
    Join {
        view: View,
        cause: Box<(ReplicaId, Message)>,
    },
    /// Replace the log by a checkpoint.
    InstallCheckpoint(Box<Checkpoint>),
    /// Take no more until more is committed.
    Refuse,
}

impl Fast {
    /// Whether the kernel may act.
    pub(super) fn armed(&self) -> bool {
        matches!(self, Fast::Armed | Fast::Claiming(_))
    }

    /// Whether only the kernel's records and its answer may come in.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Fast::Claiming(_) | Fast::Fencing(_))
    }
}

impl<S: StateMachine> Replica<S> {
    /// The driver's part of the contract: nothing comes between a question to the kernel and its answer.
    pub(super) fn assert_expected(&self, input: &Input) {
        use FastPathEvent::{Claimed, Fenced, Lost, Stored};
        let expected = match &self.fast {
            Fast::Disarmed | Fast::Armed => {
                !matches!(input, Input::FastPath(Fenced { .. } | Claimed | Lost))
            }
            Fast::Claiming(_) => matches!(input, Input::FastPath(Stored(_) | Claimed | Lost)),
            Fast::Fencing(_) => matches!(input, Input::FastPath(Stored(_) | Fenced { .. })),
        };
        assert!(
            expected,
            "{input:?} came while the fast path was {:?}",
            self.fast
        );
    }

    /// Starts the kernel's part, if there is one.
    pub(super) fn arm(&mut self, out: &mut Vec<Effect>) {
        assert!(
            !self.fast.armed() && !self.fast.waits(),
            "armed without a fence before"
        );
        if !self.config.fast_path {
            return;
        }
        self.fast = Fast::Armed;
        out.push(Effect::FastPath(FastPathCommand::Arm {
            view: self.view,
            primary: self.is_primary(),
            last_op: self.log.op(),
        }));
    }

    /// Stops the kernel's part, then does what is to be done: at once if there was nothing to stop.
    pub(super) fn fence(&mut self, then: AfterFence, out: &mut Vec<Effect>) {
        if self.fast.armed() {
            self.fast = Fast::Fencing(then);
            out.push(Effect::FastPath(FastPathCommand::Fence));
        } else {
            self.after_fence(then, out);
        }
    }

    pub(super) fn on_fenced(&mut self, last_op: OpNumber, out: &mut Vec<Effect>) {
        let Fast::Fencing(then) = core::mem::replace(&mut self.fast, Fast::Disarmed) else {
            unreachable!("assert_expected let it in")
        };
        // A primary's own appends don't move the kernel's word, so it may lag behind the log there.
        let own = self.log.op();
        let exact = if self.is_primary() {
            last_op <= own
        } else {
            last_op == own
        };
        assert!(
            exact,
            "the kernel accepted up to {last_op}, the log has {own}"
        );
        self.after_fence(then, out);
    }

    fn after_fence(&mut self, then: AfterFence, out: &mut Vec<Effect>) {
        match then {
            // What the kernel had acknowledged binds this replica as its own acknowledgements do.
            AfterFence::ChangeView { .. } | AfterFence::Join { .. } if self.is_bound() => {
                self.arm(out);
            }
            AfterFence::ChangeView { view, cause } => {
                self.enter_view_change(view, out);
                if let Some(cause) = cause {
                    self.on_protocol(cause.0, cause.1, out);
                }
            }
            AfterFence::Join { view, cause } => {
                self.enter_join(view, out);
                self.on_protocol(cause.0, cause.1, out);
            }
            AfterFence::InstallCheckpoint(checkpoint) => {
                self.install_checkpoint(*checkpoint, out);
            }
            AfterFence::Refuse => {}
        }
    }

    /// Asks whether the log is still the kernel's: a Prepare that came by the socket is to be appended.
    pub(super) fn claim(&mut self, held: Held, out: &mut Vec<Effect>) {
        let (after, last) = (self.log.op(), held.prepare.last());
        self.fast = Fast::Claiming(held);
        out.push(Effect::FastPath(FastPathCommand::Claim { after, last }));
    }

    pub(super) fn on_claimed(&mut self, out: &mut Vec<Effect>) {
        let Fast::Claiming(held) = core::mem::replace(&mut self.fast, Fast::Armed) else {
            unreachable!("assert_expected let it in")
        };
        self.accept(held, out);
        self.append_early(out);
    }

    /// The kernel was first. What was to be appended may be there already, or overlap what is.
    pub(super) fn on_lost(&mut self, out: &mut Vec<Effect>) {
        let Fast::Claiming(held) = core::mem::replace(&mut self.fast, Fast::Armed) else {
            unreachable!("assert_expected let it in")
        };
        self.hold_early(held);
        self.append_early(out);
    }

    /// The kernel stored and acknowledged a Prepare: no answer from here. It is a life sign (R9), and has its commit number.
    pub(super) fn on_stored(&mut self, prepare: Prepare, out: &mut Vec<Effect>) {
        let storing = matches!(
            self.fast,
            Fast::Armed | Fast::Claiming(_) | Fast::Fencing(_)
        );
        assert!(
            storing && !self.is_primary(),
            "the kernel stored for a replica that wasn't armed"
        );
        assert!(
            self.status == Status::Normal,
            "the kernel stored for a replica that isn't normal"
        );
        assert!(
            prepare.view == self.view,
            "the kernel stored a Prepare of another view"
        );
        assert!(
            well_formed(&prepare),
            "the kernel stored a malformed Prepare"
        );
        assert!(
            prepare.first <= self.log.op().next(),
            "the kernel stored beyond a gap"
        );
        assert!(
            prepare.last() > self.log.op(),
            "the kernel stored what was there"
        );
        let commit = prepare.commit;
        let primary = self.view.primary(self.config.replicas);
        self.peers[primary.index()].heard = self.now;
        self.heard_primary();
        self.bind();
        self.append_missing(prepare, out);
        self.learn_commit(commit, out);
    }

    /// Acks that the primary's slot word holds: read by user space itself (R4).
    pub(super) fn on_slot_acks(&mut self, op: OpNumber, acks: u16, out: &mut Vec<Effect>) {
        if !self.fast.armed() || !self.is_primary() {
            return self.ignore_kernel_acks();
        }
        for backup in self.others() {
            if acks & (1 << backup.0) != 0 {
                self.peers[backup.index()].joined = true;
                self.acknowledge(backup, op);
            }
        }
        self.advance_commit(out);
    }

    /// A backup whose acks the kernel dropped: they still are its life sign and its progress.
    pub(super) fn on_heard(
        &mut self,
        from: ReplicaId,
        at: Time,
        op: OpNumber,
        out: &mut Vec<Effect>,
    ) {
        let stranger = from.index() >= self.config.replicas || from == self.config.index;
        if stranger || !self.fast.armed() || !self.is_primary() {
            return self.ignore_kernel_acks();
        }
        let peer = &mut self.peers[from.index()];
        let at = at.min(self.now);
        peer.heard = peer.heard.max(at);
        peer.followed = peer.followed.max(at);
        peer.joined = true;
        self.acknowledge(from, op);
        self.advance_commit(out);
    }

    /// Whether the log has more uncommitted ops than a working group can have.
    pub(super) fn over_soft_limit(&self) -> bool {
        self.log.op().0 - self.commit.0 > self.config.limits.uncommitted()
    }

    /// What the ring has acknowledged can't be refused, so the kernel stops while there still is room for all of it.
    pub(super) fn refuse_more(&mut self, out: &mut Vec<Effect>) {
        let (op, commit) = (self.log.op(), self.commit);
        out.push(Effect::Note(Note::Warning(alloc::format!(
            "op {op} is too far beyond commit {commit}: no more until more is committed"
        ))));
        self.fence(AfterFence::Refuse, out);
    }

    pub(super) fn rearm_below_soft_limit(&mut self, out: &mut Vec<Effect>) {
        let stopped = self.config.fast_path && matches!(self.fast, Fast::Disarmed);
        if stopped && !self.over_soft_limit() && !active(Mutation::RefusedForGood) {
            self.arm(out);
        }
    }

    /// Of a generation that is over.
    fn ignore_kernel_acks(&self) {}
}
