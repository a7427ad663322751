//! How often what happened.

/// What a sequence of frames and calls has to bring about, or it shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: u32,
    pub(super) dropped: u32,
    pub(super) answered: u32,
    /// Records that were taken.
    pub(super) records: u32,
    /// Prepares that were passed up since the ring was full.
    pub(super) full: u32,
    /// Programs that stood still.
    pub(super) held: u32,
    /// Those that were overtaken: by a fence, by another program, by user space's own append.
    pub(super) overtaken: u32,
    /// Slots in which user space found acks.
    pub(super) marks: u32,
    /// Claims that succeeded.
    pub(super) claims: u32,
    /// Claims that didn't.
    pub(super) lost: u32,
}

impl Tally {
    /// What happened least often.
    pub(super) fn least(&self) -> u32 {
        let Tally {
            passed,
            dropped,
            answered,
            records,
            full,
            held,
            overtaken,
            marks,
            claims,
            lost,
        } = *self;
        let all = [
            passed, dropped, answered, records, full, held, overtaken, marks, claims, lost,
        ];
        all.into_iter().min().expect("there are some")
    }
}
