//! What the replica says about itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use electrode_driver::{Counts, Driver};
use electrode_vr::{GroupId, Nonce, Role, StateMachine, Status};
use electrode_wire::admission::Refusal;
use electrode_wire::{Key, Packet, encode};
use nix::sys::socket::SockaddrStorage;

use super::Linux;
use crate::calls;
use crate::clock::MS;
use crate::journal::Journal;
use crate::status::{DriverReport, PeerReport, StatusReport};

/// Status requests answered per second: the answer is longer than the question, and anybody may ask.
const PER_SECOND: u32 = 200;

impl Linux {
    /// Answers a status request, unless there were too many.
    pub(super) fn answer<S: StateMachine>(
        &mut self,
        driver: &Driver<S>,
        nonce: Nonce,
        source: SocketAddr,
    ) -> Result<(), Refusal> {
        let (began, answered) = &mut self.status;
        if driver.now() >= began.plus(1000 * MS) {
            (*began, *answered) = (driver.now(), 0);
        }
        *answered += 1;
        if *answered > PER_SECOND {
            return Err(Refusal::TooOften);
        }
        let packet = Packet::StatusReply {
            nonce,
            body: self.report(driver).into_datagram(),
        };
        let envelope = driver.door().envelope(0);
        self.socket
            .compose(|out| encode(&envelope, &Key::UNKEYED, &packet, out));
        self.socket.send_to(SockaddrStorage::from(source));
        Ok(())
    }

    /// The whole report.
    pub(crate) fn report<S: StateMachine>(&self, driver: &Driver<S>) -> StatusReport {
        let (core, door, now) = (driver.core().snapshot(), driver.door(), driver.now());
        let own = door.index();
        let status = match core.status {
            Status::Starting => "starting",
            Status::Normal => "normal",
            Status::ViewChange => "view-change",
            Status::Recovering => "recovering",
        };
        let role = match core.role {
            Role::Primary => "primary",
            Role::Backup => "backup",
        };
        let mut counters: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        let dataplane = self.fast_path.dataplane.as_ref();
        let read = dataplane.map(|dataplane| calls::counted(|| dataplane.counters()));
        for counter in read.and_then(Result::ok).unwrap_or_default() {
            if counter.value > 0 {
                let program = counters.entry(counter.program.to_owned()).or_default();
                program.insert(counter.name.to_owned(), counter.value);
            }
        }
        let others = door.addresses().iter().zip(&core.peers).zip(0_u8..);
        let peers = others.filter(|(_, index)| *index != own.0).map(
            |((address, (heard, acked)), index)| {
                let heard_ms = (heard.0 > 0).then(|| now.0.saturating_sub(heard.0) / MS);
                PeerReport {
                    index,
                    address: address.to_string(),
                    heard_ms,
                    acked: acked.0,
                }
            },
        );
        StatusReport {
            index: own.0,
            address: door.addresses()[own.index()].to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: now.0.saturating_sub(self.started.0) / MS,
            app: self.app.to_string(),
            status: status.to_owned(),
            reason: core.reason,
            role: role.to_owned(),
            view: core.view.0,
            op: core.op.0,
            commit: core.commit.0,
            lag: core.op.0.saturating_sub(core.commit.0),
            durability: match self.journal {
                Some(_) => "disk",
                None => "memory",
            }
            .to_owned(),
            read_leases: self.read_leases,
            durable: core.durable.map(|op| op.0),
            checkpoint: core.checkpoint.0,
            log_entries: core.log_entries,
            sessions: core.sessions,
            group: (core.group != GroupId(0)).then(|| format!("{:016x}", core.group.0)),
            log_digest: format!("{:016x}", core.log_digest.0),
            state_digest: format!("{:016x}", core.state_digest.0),
            accelerated: self.fast_path.report(driver.armed().is_some()),
            peers: peers.collect(),
            counters,
            driver: self.driver_report(driver.counts()),
            notices: self.refusals.notices(),
        }
    }

    fn driver_report(&self, counts: &Counts) -> DriverReport {
        let socket = &self.socket.counts;
        let mut dropped = self.refusals.counts();
        for (name, count) in [
            ("send_full", socket.send_full),
            ("send_failed", socket.send_failed),
        ] {
            if count > 0 {
                dropped.insert(name.to_owned(), count);
            }
        }
        let journal = self.journal.as_ref();
        let (disk_writes, disk_syncs) = journal.map_or((0, 0), Journal::counts);
        DriverReport {
            disk_writes,
            disk_syncs,
            packets_in: socket.packets_in,
            packets_out: socket.packets_out,
            stored: counts.stored,
            broadcasts: counts.broadcasts,
            broadcasts_plain: counts.broadcasts_plain,
            requests: counts.requests,
            replies: counts.replies,
            syscalls: calls::total(),
            turns: counts.turns,
            dropped,
        }
    }
}
