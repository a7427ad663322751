//! What `electrode status` is told: one JSON object in one datagram.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The longest status report, in bytes of JSON: one datagram, with room to spare.
pub(crate) const MAX_REPORT_BYTES: usize = 8 << 10;

/// One replica's account of itself. Digests and the group are 16 hex digits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The replica's index.
    pub index: u8,
    /// Its address in the configuration, resolved.
    pub address: String,
    /// The program's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// The state machine.
    pub app: String,
    /// `starting`, `normal`, `view-change` or `recovering`.
    pub status: String,
    /// Why the status isn't normal.
    pub reason: Option<String>,
    /// `primary` or `backup`: what the view makes of it.
    pub role: String,
    /// The view.
    pub view: u64,
    /// The last op.
    pub op: u64,
    /// The commit number.
    pub commit: u64,
    /// Ops in the log that aren't committed here yet.
    pub lag: u64,
    /// `memory` or `disk`: what survives the process.
    pub durability: String,
    /// The last op that is on disk; `None` in memory mode.
    pub durable: Option<u64>,
    /// Whether it answers reads by its lease when it is primary.
    pub read_leases: bool,
    /// The latest checkpoint's op.
    pub checkpoint: u64,
    /// Entries in the log.
    pub log_entries: usize,
    /// Client sessions.
    pub sessions: usize,
    /// The group; `None` before it is known.
    pub group: Option<String>,
    /// The digest of the log at `commit`.
    pub log_digest: String,
    /// The digest of the state machine at `commit`.
    pub state_digest: String,
    /// How far the kernel helps.
    pub accelerated: Accelerated,
    /// The other replicas, as seen from here.
    pub peers: Vec<PeerReport>,
    /// The kernel's counters that aren't 0: program, then reason.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
    /// The driver's counters.
    pub driver: DriverReport,
    /// What was refused lately, one line per reason, for people.
    pub notices: Vec<String>,
}

/// How far the kernel helps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerated {
    /// `native`, `generic` or `off`: how the XDP programs are attached.
    pub xdp: String,
    /// `tcx`, `clsact` or `off`: how the TC program is attached.
    pub tc: String,
    /// The interface.
    pub interface: Option<String>,
    /// Whether the core has armed it (it is fenced while views change).
    pub armed: bool,
    /// Why it is off.
    pub why: Option<String>,
}

impl Accelerated {
    /// In one word: `native`, `generic`, `tc` (broadcast alone) or `off`.
    #[must_use]
    pub fn mode(&self) -> &str {
        match (self.xdp.as_str(), self.tc.as_str()) {
            (xdp @ ("native" | "generic"), _) => xdp,
            (_, "tcx" | "clsact") => "tc",
            _ => "off",
        }
    }
}

/// Another replica, as seen from the one that reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its index.
    pub index: u8,
    /// Its address.
    pub address: String,
    /// Milliseconds since it was last heard; `None`: never.
    pub heard_ms: Option<u64>,
    /// The highest op that it acknowledged in this view.
    pub acked: u64,
}

/// What the driver counts, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverReport {
    /// Datagrams received.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// Prepares taken from the kernel's ring.
    pub stored: u64,
    /// Messages that left once for the kernel to copy.
    pub broadcasts: u64,
    /// Messages to all that went plainly though there is a fast path: too long, or no carrier.
    pub broadcasts_plain: u64,
    /// Clients' requests taken.
    pub requests: u64,
    /// Replies sent.
    pub replies: u64,
    /// Writes to the log on disk.
    pub disk_writes: u64,
    /// How often it was synced: writes share a sync.
    pub disk_syncs: u64,
    /// System calls of the driver's thread.
    pub syscalls: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Datagrams that went no further, by reason; also what couldn't be sent.
    pub dropped: BTreeMap<String, u64>,
}

impl StatusReport {
    /// The report as JSON that fits one datagram; what is long and least needed goes first.
    pub(crate) fn into_datagram(mut self) -> Vec<u8> {
        let shorter: [fn(&mut StatusReport); 3] = [
            |_| {},
            |report| report.notices.clear(),
            |report| report.counters.clear(),
        ];
        for shorten in shorter {
            shorten(&mut self);
            let body = serde_json::to_vec(&self).unwrap_or_default();
            if body.len() <= MAX_REPORT_BYTES {
                return body;
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_back() {
        let report = StatusReport {
            index: 2,
            notices: vec!["x".into()],
            ..StatusReport::default()
        };
        let body = report.clone().into_datagram();
        assert_eq!(
            serde_json::from_slice::<StatusReport>(&body).unwrap(),
            report
        );
    }

    #[test]
    fn a_long_report_loses_its_notices_first() {
        let report = StatusReport {
            notices: vec!["x".repeat(9000)],
            ..StatusReport::default()
        };
        let body = report.into_datagram();
        assert!(body.len() <= MAX_REPORT_BYTES);
        assert!(
            serde_json::from_slice::<StatusReport>(&body)
                .unwrap()
                .notices
                .is_empty()
        );
    }

    #[test]
    fn the_mode_names_what_counts_most() {
        let mode = |xdp: &str, tc: &str| {
            Accelerated {
                xdp: xdp.into(),
                tc: tc.into(),
                ..Accelerated::default()
            }
            .mode()
            .to_owned()
        };
        assert_eq!(mode("native", "tcx"), "native");
        assert_eq!(mode("off", "clsact"), "tc");
        assert_eq!(mode("off", "off"), "off");
    }
}
