//! An undecided Prepare leaves the primary again within the resend time-out, for every backup that hasn't acknowledged it. What
//! counts is what leaves the machine: copies by the egress program as much as user space's own.

use std::collections::BTreeMap;

use electrode_vr::{OpNumber, Role, Snapshot, Status, View};

use super::{Rule, Verdict};
use crate::plan::{MS, Plan};
use electrode_driver::DISK_RESEND;

pub(super) const RULE: Rule = Rule {
    name: "an undecided Prepare leaves again in time for whoever hasn't acknowledged it",
    source: "docs/fast-path.md R5; VR Revisited 4.1",
};

/// Nanoseconds that a timer may be late on a machine that has nothing else to do.
const SLACK: u64 = MS;

/// The longest that a Prepare of this plan waits, in simulated nanoseconds: its primary's clock may be slow.
pub(super) fn patience(plan: &Plan) -> u64 {
    let resend = match plan.disk {
        true => plan.timing.resend.max(DISK_RESEND),
        false => plan.timing.resend,
    };
    resend + resend * plan.drift / 1_000_000 + SLACK
}

/// A primary's undecided Prepares.
#[derive(Clone, Debug, Default)]
pub(super) struct Resends {
    view: View,
    /// By the last op: when it left last for each replica.
    left: BTreeMap<OpNumber, Vec<u64>>,
}

impl Resends {
    /// A Prepare leaves for replica `to`.
    pub(super) fn note(&mut self, view: View, op: OpNumber, to: usize, replicas: usize, at: u64) {
        if view > self.view {
            (self.view, self.left) = (view, BTreeMap::new());
        }
        if view == self.view {
            // Whom it didn't leave for at first it is due for no later than for the others.
            self.left.entry(op).or_insert_with(|| vec![at; replicas])[to] = at;
        }
    }

    /// After a step. `steady`: since when nothing keeps its machine from being in time; None: something does.
    pub(super) fn check(
        &mut self,
        now: &Snapshot,
        node: usize,
        (at, steady): (u64, Option<u64>),
        patience: u64,
    ) -> Verdict {
        let leads = now.status == Status::Normal && now.role == Role::Primary;
        if !leads || now.view != self.view {
            self.left.clear();
            return Ok(());
        }
        self.left.retain(|op, _| *op > now.commit);
        // A primary that has stepped down says nothing.
        if now.reason.is_some() {
            self.left.values_mut().for_each(|times| times.fill(at));
        }
        let Some(steady) = steady else {
            return Ok(());
        };
        for (op, times) in &self.left {
            let waits = |(to, time): (usize, &u64)| {
                let acked = now.peers[to].1 >= *op;
                let late = at > steady.max(*time) + patience;
                (to != node && !acked && late).then_some((to, *time))
            };
            if let Some((to, time)) = times.iter().enumerate().find_map(waits) {
                return Err(format!(
                    "the Prepare up to op {op} of primary {node} left last for {to}, which hasn't acknowledged it, {} us ago",
                    (at - time) / 1000
                ));
            }
        }
        Ok(())
    }
}
