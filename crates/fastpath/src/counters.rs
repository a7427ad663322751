//! What the programs count, by reason. A fast path that silently isn't one is a defect: every way out of a program has a
//! counter of its own.

/// The counters of one CPU, in the order of [`Counters::NAMES`].
macro_rules! counters {
    ($($(#[$doc:meta])* $program:literal $field:ident: $name:literal,)*) => {
        /// One CPU's counters.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Counters {
            /// Program and name of each field, in order.
            pub const NAMES: &[(&str, &str)] = &[$(($program, $name),)*];
            /// How many there are.
            pub const LEN: usize = Counters::NAMES.len();
        }
    };
}

counters! {
    /// Not a message of ours for this replica: passed untouched.
    "dispatch" dispatch_foreign: "passed_foreign",
    /// A message of ours that user space handles.
    "dispatch" dispatch_other: "passed_other_kind",
    /// Handed to `prepare`.
    "dispatch" dispatch_prepare: "prepare",
    /// Handed to `prepare_ok`.
    "dispatch" dispatch_prepare_ok: "prepare_ok",

    /// New: stored in the ring.
    "prepare" prepare_stored: "stored",
    /// Answered with a PrepareOk (new or duplicate).
    "prepare" prepare_acked: "acked",
    /// Already there: answered again.
    "prepare" prepare_duplicate: "duplicate",
    /// Passed: fenced, not storing, or the generation moved.
    "prepare" prepare_fenced: "passed_fenced",
    /// Passed: of another group.
    "prepare" prepare_group: "passed_group",
    /// Passed: of a newer view.
    "prepare" prepare_newer: "passed_newer_view",
    /// Passed: of an older view, so that user space tells the sender.
    "prepare" prepare_older_passed: "passed_older_view",
    /// Passed: an earlier op is missing.
    "prepare" prepare_gap: "passed_gap",
    /// Passed: too large for a record.
    "prepare" prepare_large: "passed_too_large",
    /// Passed: no room in the ring.
    "prepare" prepare_full: "passed_ring_full",
    /// Passed: lost the race for the tail twice.
    "prepare" prepare_race: "passed_lost_race",
    /// Dropped: of an older view.
    "prepare" prepare_older: "dropped_older_view",
    /// Dropped: the check doesn't verify.
    "prepare" prepare_check: "dropped_bad_check",
    /// Dropped: the sender isn't the view's primary.
    "prepare" prepare_index: "dropped_bad_index",
    /// Dropped: not from the sender's address.
    "prepare" prepare_source: "dropped_wrong_source",
    /// Dropped: ops, lengths and body don't match.
    "prepare" prepare_malformed: "dropped_malformed",
    /// Dropped after it was stored: the answer couldn't be built (the primary sends again).
    "prepare" prepare_unanswered: "dropped_unanswered",

    /// A backup's ack that was neither the completing one nor late.
    "prepare_ok" prepare_ok_counted: "counted",
    /// Completed a quorum; user space was awake and sees it.
    "prepare_ok" prepare_ok_completed: "completed",
    /// Completed a quorum and woke user space by a notice.
    "prepare_ok" prepare_ok_noticed: "completed_noticed",
    /// Completed a quorum, and the ring was full: passed up.
    "prepare_ok" prepare_ok_full: "passed_ring_full",
    /// After the quorum, or a duplicate: dropped.
    "prepare_ok" prepare_ok_surplus: "surplus",
    /// Passed: fenced or not counting.
    "prepare_ok" prepare_ok_fenced: "passed_fenced",
    /// Passed: of another group.
    "prepare_ok" prepare_ok_group: "passed_group",
    /// Passed: of a newer view.
    "prepare_ok" prepare_ok_newer: "passed_newer_view",
    /// Passed: no slot is open for the op.
    "prepare_ok" prepare_ok_no_slot: "passed_no_slot",
    /// Passed: lost the race for the slot four times.
    "prepare_ok" prepare_ok_race: "passed_lost_race",
    /// Dropped: of an older view.
    "prepare_ok" prepare_ok_older: "dropped_older_view",
    /// Dropped: the check doesn't verify.
    "prepare_ok" prepare_ok_check: "dropped_bad_check",
    /// Dropped: no such replica, or this one itself.
    "prepare_ok" prepare_ok_index: "dropped_bad_index",
    /// Dropped: not from the sender's address.
    "prepare_ok" prepare_ok_source: "dropped_wrong_source",
    /// Dropped: an op that can't be, or a length.
    "prepare_ok" prepare_ok_malformed: "dropped_malformed",

    /// A message that was broadcast.
    "broadcast" broadcast_handled: "handled",
    /// Copies that left.
    "broadcast" broadcast_cloned: "cloned",
    /// Copies that couldn't be made (the primary sends again).
    "broadcast" broadcast_clone_failed: "clone_failed",
    /// Backups without a known neighbour: user space sends to them plainly.
    "broadcast" broadcast_unresolved: "unresolved",
    /// A broadcast that is segmented or not writable: only the original left.
    "broadcast" broadcast_unfit: "unfit",
}

const _: () = assert!(size_of::<Counters>() == 8 * Counters::LEN);
