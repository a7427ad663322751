//! What is measured.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that is told apart from longer ones, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// The width of a step of [`Recorder::timeline`].
pub(super) const STEP: Duration = Duration::from_millis(100);

/// The most steps that are kept: a day.
const MAX_STEPS: usize = 24 * 3600 * 10;

/// Counts and latencies of one run.
#[derive(Debug)]
pub(super) struct Recorder {
    /// Latencies in nanoseconds, three digits exact.
    pub(super) latencies: Histogram<u64>,
    /// Replies that were right.
    pub(super) verified: u64,
    /// Replies that were wrong.
    pub(super) wrong: u64,
    /// Requests without a reply.
    pub(super) failed: u64,
    /// The first failure, in words.
    pub(super) first_failure: Option<String>,
    /// How long it took, from the first measured request to the last reply.
    pub(super) elapsed: Duration,
    /// Replies in each [`STEP`] since the begin.
    pub(super) timeline: Vec<u64>,
}

impl Recorder {
    pub(super) fn new() -> Recorder {
        let latencies = Histogram::new_with_bounds(1, LONGEST, 3);
        Recorder {
            latencies: latencies.expect("the bounds are constants that fit"),
            verified: 0,
            wrong: 0,
            failed: 0,
            first_failure: None,
            elapsed: Duration::ZERO,
            timeline: Vec::new(),
        }
    }

    /// A reply came: `since` the begin of the measurement, after `latency`.
    pub(super) fn reply(&mut self, since: Duration, latency: Duration, right: bool) {
        if right {
            self.verified += 1;
        } else {
            self.wrong += 1;
        }
        self.latencies
            .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(LONGEST));
        self.elapsed = self.elapsed.max(since);
        let step = usize::try_from(since.as_nanos() / STEP.as_nanos()).unwrap_or(usize::MAX);
        if step < MAX_STEPS {
            if self.timeline.len() <= step {
                self.timeline.resize(step + 1, 0);
            }
            self.timeline[step] += 1;
        }
    }

    pub(super) fn failure(&mut self, since: Duration, error: &str) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| error.to_owned());
        self.elapsed = self.elapsed.max(since);
    }

    /// Requests that have ended, one way or the other.
    pub(super) fn ended(&self) -> u64 {
        self.verified + self.wrong + self.failed
    }
}
