//! What is reported.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::recorder::Recorder;

/// The result of one run, as `electrode bench --json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BenchReport {
    /// How many clients asked at once.
    pub(crate) clients: usize,
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// From the first measured request to the last reply.
    pub(crate) seconds: f64,
    /// Answered requests per second.
    pub(crate) requests_per_s: f64,
    /// Half of the requests took no longer, in microseconds.
    pub(crate) p50_us: f64,
    /// 90 % took no longer.
    pub(crate) p90_us: f64,
    /// 95 % took no longer.
    pub(crate) p95_us: f64,
    /// 99 % took no longer.
    pub(crate) p99_us: f64,
    /// None took longer.
    pub(crate) max_us: f64,
    /// Replies that were compared with what they should be, and were right.
    pub(crate) replies_verified: u64,
    /// Replies that were wrong, and requests without a reply.
    pub(crate) errors: u64,
    /// The first failed request's error; none if all were answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_error: Option<String>,
}

impl BenchReport {
    pub(super) fn new(clients: usize, recorder: &Recorder) -> BenchReport {
        let requests = recorder.verified + recorder.wrong;
        let seconds = recorder.elapsed.as_secs_f64();
        let quantile = |quantile| recorder.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let wrong = (recorder.wrong > 0).then(|| "a reply was wrong".to_owned());
        BenchReport {
            clients,
            requests,
            seconds,
            requests_per_s: if seconds > 0.0 {
                requests as f64 / seconds
            } else {
                0.0
            },
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p95_us: quantile(0.95),
            p99_us: quantile(0.99),
            max_us: recorder.latencies.max() as f64 / 1e3,
            replies_verified: recorder.verified,
            errors: recorder.wrong + recorder.failed,
            first_error: wrong.or_else(|| recorder.first_failure.clone()),
        }
    }

    /// Whether every request was answered, and rightly.
    pub(super) fn is_clean(&self) -> bool {
        self.errors == 0
    }

    /// Prints it on standard output; whether anybody reads it is theirs to decide.
    pub(super) fn print(&self, json: bool) {
        let text = if json {
            serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
        } else {
            self.text()
        };
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    fn text(&self) -> String {
        let mut text = format!(
            "clients     {}\nrequests    {} in {:.2} s, {} verified, {} errors\nthroughput  {:.0} requests/s\n\
             latency     p50 {:.1} us   p90 {:.1} us   p95 {:.1} us   p99 {:.1} us   max {:.1} us",
            self.clients,
            self.requests,
            self.seconds,
            self.replies_verified,
            self.errors,
            self.requests_per_s,
            self.p50_us,
            self.p90_us,
            self.p95_us,
            self.p99_us,
            self.max_us,
        );
        if let Some(error) = &self.first_error {
            text.push_str("\nfirst error ");
            text.push_str(error);
        }
        text
    }
}
