//! What goes wrong, and how it is mended.
//!
//! To add a fault: an arm in [`World::break_something`], and its repair in [`World::heal`].

use electrode_vr::{Role, Status};

use super::World;
use crate::plan::MS;

impl World {
    /// Chance, for those who drive a run.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        self.random.chance(permille)
    }

    /// The same, of the sequence that later faults have to themselves.
    pub(crate) fn whim(&mut self, permille: u64) -> bool {
        self.whims.chance(permille)
    }

    /// Whether a replica is up and takes part.
    pub(crate) fn is_normal(&self, node: usize) -> bool {
        let process = self.process(node);
        process.is_some_and(|process| process.core().snapshot().status == Status::Normal)
    }

    /// A replica of chance.
    pub(crate) fn anybody(&mut self) -> usize {
        self.random.index(self.plan.replicas)
    }

    /// How long until the next fault, in nanoseconds.
    pub(crate) fn fault_gap(&mut self) -> u64 {
        5 * MS + self.random.below(self.plan.fault_gap)
    }

    /// The replica that leads now, if one does: the one of the highest view, if others still believe that they do.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| {
            let now = self.process(*node)?.core().snapshot();
            (now.status == Status::Normal && now.role == Role::Primary).then_some((now.view, *node))
        };
        let leaders = (0..self.plan.replicas).filter_map(|node| leads(&node));
        leaders.max().map(|(_, node)| node)
    }

    /// One thing goes wrong, or is repaired.
    pub(crate) fn break_something(&mut self) {
        let n = self.plan.replicas;
        let anybody = self.random.index(n);
        // Half of what goes wrong happens to a primary.
        let victim = self
            .leader()
            .filter(|_| self.random.chance(500))
            .unwrap_or(anybody);
        match self.random.below(20) {
            0 | 1 => {
                if self.process(victim).is_some() && self.may_crash() {
                    let after = MS + self.random.below(150 * MS);
                    self.fail(victim, after);
                }
            }
            2 => self.isolate(victim),
            3 => self.cut_one_way(victim, anybody),
            4 => self.split(),
            5 => self.bridge(victim),
            6 | 7 => {
                let until = self.now + self.random.below(200 * MS);
                self.pause(victim, until);
            }
            8 => {
                let slowness = self.random.below(20 * MS);
                self.fault(Some(victim), || {
                    format!("is slow: up to {} us late", slowness / 1000)
                });
                self.machines[victim].slowness = slowness;
            }
            9 => self.jump_clock(victim),
            10 => {
                let attached = self.random.chance(300);
                self.attach(victim, attached);
            }
            11 => self.attach(victim, true),
            12 => {
                // A row of them, each as far as the group bears it.
                for node in 0..n {
                    if self.process(node).is_some() && self.may_crash() {
                        let after = MS + self.random.below(10 * MS);
                        self.fail(node, after);
                    }
                }
            }
            13 | 14 => {
                if let Some(leader) = self.leader() {
                    self.echo(leader);
                }
            }
            15 | 16 if self.plan.disk => self.break_a_disk(victim),
            _ => self.join_network(),
        }
    }

    /// Now and then something clogs, apart from what else goes wrong: a link between two replicas, or the queue in front of one.
    pub(crate) fn clog(&mut self) {
        if !self.whims.chance(self.plan.clogging) {
            return;
        }
        let anybody = self.whims.index(self.plan.replicas);
        let victim = self.leader().filter(|_| self.whims.chance(400));
        let victim = victim.unwrap_or(anybody);
        let most = self.whims.pick(&[5 * MS, 40 * MS, 150 * MS]);
        let until = self.now + self.whims.below(most);
        self.counts.clogs += 1;
        if self.whims.chance(500) {
            self.fault(Some(victim), || {
                format!("its queue is clogged until {} ms", until / MS)
            });
            self.machines[victim].clogged_until = until;
        } else {
            let to = self.whims.index(self.plan.replicas);
            self.fault(Some(victim), || {
                format!("its link to {to} is clogged until {} ms", until / MS)
            });
            self.clogged[victim][to] = until;
        }
    }

    fn break_a_disk(&mut self, victim: usize) {
        match self.random.below(3) {
            0 if self.formed => self.power_cut(),
            1 if self.plan.disk_faults => self.break_disk(victim),
            2 if self.plan.disk_faults => self.damage_log(victim),
            _ => {}
        }
    }

    /// A machine was suspended, or somebody set its clock. A lease relies on clocks that run about equally fast: where one
    /// may hold, only the clock of who believes in it jumps.
    fn jump_clock(&mut self, victim: usize) {
        let jump = self.random.below(300 * MS);
        let jumper = if self.plan.lease_reads {
            self.leader()
        } else {
            Some(victim)
        };
        let Some(victim) = jumper else {
            return;
        };
        self.fault(Some(victim), || {
            format!("its clock jumps by {} ms", jump / MS)
        });
        self.machines[victim].clock.offset += jump;
        self.schedule_wake(victim, self.now);
    }

    pub(crate) fn isolate(&mut self, node: usize) {
        self.fault(Some(node), || "is isolated".to_owned());
        for other in 0..self.plan.replicas {
            self.cut[node][other] = true;
            self.cut[other][node] = true;
        }
    }

    pub(crate) fn cut_one_way(&mut self, from: usize, to: usize) {
        self.fault(Some(from), || format!("can't reach {to} any more"));
        self.cut[from][to] = true;
    }

    fn split(&mut self) {
        let n = self.plan.replicas;
        let side: Vec<bool> = (0..n).map(|_| self.random.chance(500)).collect();
        self.fault(None, || format!("the network splits: {side:?}"));
        for from in 0..n {
            for to in 0..n {
                self.cut[from][to] = side[from] != side[to];
            }
        }
    }

    /// Two sides that only one replica can reach both of.
    fn bridge(&mut self, bridge: usize) {
        self.split();
        self.fault(Some(bridge), || {
            "is the bridge between both sides".to_owned()
        });
        for other in 0..self.plan.replicas {
            self.cut[bridge][other] = false;
            self.cut[other][bridge] = false;
        }
    }

    pub(crate) fn join_network(&mut self) {
        self.fault(None, || "the network is whole".to_owned());
        self.cut.iter_mut().for_each(|row| row.fill(false));
    }

    pub(crate) fn pause(&mut self, node: usize, until: u64) {
        self.fault(Some(node), || format!("is stopped until {} ms", until / MS));
        self.checks.set_steady(node, None);
        let machine = &mut self.machines[node];
        machine.paused_until = until;
        if let Some((at, _)) = machine.wake.take() {
            self.schedule_wake(node, at.max(until));
        }
    }

    fn attach(&mut self, node: usize, attached: bool) {
        self.fault(Some(node), || format!("programs attached: {attached}"));
        if let Some(process) = self.process(node) {
            process.place.card.set_attached(attached);
        }
    }

    /// Nothing is acknowledged for now; `node` will hear all of it when it leads again.
    pub(crate) fn keep_acks_for(&mut self, node: usize) {
        self.fault(Some(node), || "its acks are kept back".to_owned());
        self.keep_acks = true;
        self.reign = Some(node);
    }

    /// Whether it has led again.
    pub(crate) fn reigned(&self) -> bool {
        self.reign.is_none()
    }

    /// Acks arrive again.
    pub(crate) fn let_acks_go(&mut self) {
        self.keep_acks = false;
        self.reign = None;
    }

    /// It leads again: the acks of its earlier reign come, and nobody hears of the present one yet.
    pub(super) fn begin_late_reign(&mut self, node: usize) {
        self.fault(Some(node), || {
            "hears the acks of its earlier reign".to_owned()
        });
        for other in (0..self.plan.replicas).filter(|other| *other != node) {
            self.cut[node][other] = true;
        }
        self.echo(node);
    }

    /// The faults end: everybody runs, everything is connected, and the network is good. Packets on their way, and programs
    /// that are suspended, still come.
    pub(crate) fn heal(&mut self) {
        self.fault(None, || "the faults end".to_owned());
        self.calm = true;
        self.join_network();
        self.let_acks_go();
        self.clogged.iter_mut().for_each(|row| row.fill(0));
        for node in 0..self.plan.replicas {
            let machine = &mut self.machines[node];
            machine.clogged_until = 0;
            machine.slowness = 0;
            machine.paused_until = 0;
            machine.wake = None;
            machine.disk.repair();
            self.checks.set_steady(node, Some(self.now));
            let calm = self.interleaving();
            match self.process(node) {
                None => self.start(node),
                Some(process) => {
                    process.place.card.set_attached(true);
                    process.place.card.set_interleaving(calm);
                    self.schedule_wake(node, self.now);
                    self.run_programs(node);
                }
            }
        }
    }

    /// No faults from the first moment on.
    pub(crate) fn set_calm(&mut self, calm: bool) {
        self.calm = calm;
        let steady = (calm || self.plan.only_loss).then_some(self.now);
        for node in 0..self.plan.replicas {
            self.checks.set_steady(node, steady);
        }
        let interleaving = self.interleaving();
        for process in self
            .machines
            .iter()
            .filter_map(|machine| machine.process.as_ref())
        {
            process.place.card.set_interleaving(interleaving);
        }
    }
}
