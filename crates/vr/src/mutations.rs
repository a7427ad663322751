//! Rules that can be taken out one at a time, to show that the simulator notices. For tests alone: without the feature
//! `mutations` nothing of this is compiled in, and [`active`] is `false` where it stands.

macro_rules! mutations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A rule that is taken out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutation {
            $($(#[$doc])* $name,)*
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Mutation] = &[$(Mutation::$name,)*];
        }
    };
}

mutations! {
    /// A new primary takes the longest log, whatever view it was normal in.
    LongestLogWins,
    /// A new primary begins without waiting for f DoViewChanges.
    ViewChangeQuorumOfF,
    /// The primary commits what f - 1 backups have.
    CommitQuorumOfF,
    /// A backup keeps its longer suffix when a view starts.
    LongerSuffixKept,
    /// Asking for state truncates the log at once.
    TruncationOnRequest,
    /// Unanswered Prepares aren't sent again.
    NoResend,
    /// Unanswered Prepares are sent again after four times the time-out.
    LateResend,
    /// A promise isn't written to disk.
    PromiseNotPersisted,
    /// A view is spoken of before its promise is on disk.
    SpeechBeforePromise,
    /// The kernel is armed before the view is on disk.
    ArmBeforePromise,
    /// Any answer to any recovery counts.
    RecoveryWithoutNonce,
    /// A recovering replica may end up below the view that it promised.
    RecoveryBelowPromise,
    /// A recovering replica votes, acknowledges and gives state.
    RecoveringTakesPart,
    /// Neither queue nor client table stops a second execution.
    SecondExecution,
    /// A checkpoint doesn't restore the client table.
    TableNotInCheckpoint,
    /// A backup executes what it has, committed or not.
    UncommittedExecuted,
    /// Prepares of older views are appended.
    OlderViewAppended,
    /// Prepares are appended and acknowledged amid a view change.
    AckAmidViewChange,
    /// Prepares are appended across a gap.
    GapAppended,
    /// The primary counts PrepareOks of older views.
    OlderAcksCounted,
    /// What backups acknowledged in an earlier view counts in the next.
    AcksSurviveViews,
    /// Fetched state is appended to the old suffix instead of replacing it.
    SuffixNotReplaced,
    /// `prepare` reads the view again for its answer, after it has stored.
    ViewReadAgain,
    /// `prepare` exchanges whatever tail there is, of whatever generation.
    StaleGenerationAccepted,
    /// `prepare` advances the tail and answers also when the ring is full.
    AckBeforeStore,
    /// `prepare` submits its record after a lost race.
    LostRaceSubmitted,
    /// `prepare` takes what comes after a gap.
    KernelTakesGap,
    /// `prepare` takes a newer view's.
    KernelTakesNewerView,
    /// `prepare` takes an older view's.
    KernelTakesOlderView,
    /// `prepare` doesn't look at the check.
    KernelTakesDamaged,
    /// `prepare` doesn't look at its switch.
    KernelTakesFenced,
    /// `prepare_ok` marks a slot by a plain or.
    SlotByPlainOr,
    /// `prepare_ok` counts acks of other views.
    KernelCountsOtherViews,
    /// A fence reads the tail but leaves it as it is.
    FenceLeavesTail,
    /// A claim takes the kernel's last op for the core's.
    ClaimFromTail,
    /// A kernel's part that was stopped for too many uncommitted ops is never started again in its view.
    RefusedForGood,
    /// What the kernel heard in an earlier generation counts.
    HeardOfOlderGenerations,
    /// `prepare` answers each Prepare with its newest op, whatever was asked.
    KernelAnswersNewestOnly,
    /// The primary has more Prepares in flight than there are slots, and opens slots over undecided ones.
    SlotReopenedWhileUndecided,
    /// What a primary knew of its clients' requests stays when its view ends, though the requests may be gone.
    ClientTableNotRolledBack,
    /// A primary counts itself before its own disk has the op.
    PrimaryCountsItselfBeforeDurable,
    /// A backup acknowledges before its disk has the op.
    AckBeforeWriteDurable,
    /// The kernel answers in disk mode, too.
    KernelAnswersOnDisk,
    /// A record is taken from the log on disk whether or not its check is right.
    TornTailTakenWhole,
    /// A backup joins a newer view whatever lease may rely on it.
    LeaseNotWaitedFor,
    /// A request that comes again keeps its session from expiring, at the replica that hears it.
    RetryKeepsSession,
    /// A lease begins when acknowledgements come, not when the op was sent.
    LeaseFromAckTime,
    /// Of what is behind an unreadable record of the log on disk, only the first readable one is asked whether it was
    /// durable.
    DamageTakenForTorn,
    /// A start doesn't read the mark, which says how much of the log on disk is durable.
    MarkIgnored,
}

#[cfg(feature = "mutations")]
mod switch {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::Mutation;

    /// 0 for none, otherwise the mutation's number and 1.
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);

    /// Takes out one rule in the whole process, or none. Programs that are built already stay as they are.
    pub fn activate(mutation: Option<Mutation>) {
        ACTIVE.store(
            mutation.map_or(0, |mutation| mutation as usize + 1),
            Ordering::SeqCst,
        );
    }

    /// Whether this rule is taken out.
    #[must_use]
    pub fn active(mutation: Mutation) -> bool {
        ACTIVE.load(Ordering::Relaxed) == mutation as usize + 1
    }
}

#[cfg(feature = "mutations")]
pub use switch::{activate, active};

/// Whether this rule is taken out: never, without the feature.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
#[must_use]
pub const fn active(_: Mutation) -> bool {
    false
}
