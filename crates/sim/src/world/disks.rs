//! Disks: starts from them, the moments at which they are written, and what goes wrong with them.

use electrode_journal::{DiskError, Identity};
use electrode_vr::{OpNumber, ReplicaId, Start, Stored, View};

use super::{Clock, Happening, World};
use crate::checks::Rule;
use crate::disk::{Damage, Notice};
use crate::plan::MS;
use crate::process::Journal;

const DAMAGE: Rule = Rule {
    name: "a torn write is no damage, and damage is never passed over",
    source: "docs/protocol.md, \"Durability\"",
};
const REASON: Rule = Rule {
    name: "a disk that can't be written stops its replica, with a reason",
    source: "docs/protocol.md, \"Durability\"",
};

/// A damage that nobody could notice isn't done; so often another one is looked for.
const TRIES: usize = 4;

/// A log that was opened, and what was in it.
type Opened = (Option<Journal>, Option<Stored>);

impl World {
    fn identity(&self, node: usize) -> Identity {
        Identity {
            index: ReplicaId(u8::try_from(node).expect("few replicas")),
            replicas: self.plan.replicas,
        }
    }

    /// What a start makes of the log on disk; the counterpart of `crates/replica/src/process/opening.rs`. None: a rule is
    /// broken.
    pub(super) fn open_log(&mut self, node: usize, start: Start) -> Option<Opened> {
        if !self.plan.disk {
            return Some((None, None));
        }
        let (identity, delay) = (self.identity(node), self.plan.disk_delay);
        let disk = &mut self.machines[node].disk;
        disk.repair();
        let (damaged, expected) = (disk.damaged, disk.book.clone());
        let (mut journal, found) = match Journal::open(disk, identity, delay) {
            Err(error @ DiskError::Damaged { .. }) if damaged => {
                disk.set_aside();
                self.fault(Some(node), || format!("its log is moved aside: {error}"));
                let disk = &self.machines[node].disk;
                Journal::open(disk, identity, delay).expect("there is nothing that could be wrong")
            }
            Err(error) => {
                let text = format!("replica {node} can't open its log ({expected:?}): {error}");
                self.checks.require(DAMAGE, Err(text));
                return None;
            }
            Ok(_) if damaged => {
                let text = format!("replica {node} starts with a log that was damaged");
                self.checks.require(DAMAGE, Err(text));
                return None;
            }
            Ok(opened) => opened,
        };
        let stored = found.map(|found| found.stored);
        let verdict = self.machines[node].disk.book.found(stored.as_ref());
        self.checks.read_back(node, verdict);
        if self.random.chance(500) {
            // Or the thread hasn't come to it when something happens.
            let marked = journal.mark(&mut self.machines[node].disk.book);
            marked.expect("the disk was repaired");
        }
        if let (Start::New | Start::Bootstrap(_), Some(stored)) = (start, &stored) {
            // The log is begun right before the first promise is made; whatever more there is was said to others.
            let begun = stored.op() == OpNumber(0) && stored.last_normal() == View(0);
            let text = || format!("replica {node} has a log, but no promise");
            self.checks
                .require(DAMAGE, if begun { Ok(()) } else { Err(text()) });
            return Some((Some(journal), None));
        }
        Some((Some(journal), stored))
    }

    /// When whoever writes the log has something to do.
    pub(super) fn schedule_disk(&mut self, node: usize) {
        let machine = &self.machines[node];
        let journal = machine
            .process
            .as_ref()
            .and_then(|it| it.place.journal.as_ref());
        if let Some(due) = journal.and_then(Journal::due)
            && !machine.disk_scheduled
        {
            let life = machine.life;
            self.machines[node].disk_scheduled = true;
            self.put(due, Happening::Disk { node, life });
        }
        if self.plan.disk && !self.formed {
            let begun = |at: usize| self.machines[at].disk.book.exists();
            self.formed = (0..self.plan.replicas).all(begun);
        }
    }

    /// A moment of the thread that writes the log.
    pub(super) fn write_log(&mut self, node: usize) {
        // Now and then the power goes amid what it does.
        let dies = !self.calm && self.formed && self.random.rarely(50 * self.plan.sudden_death);
        let machine = &mut self.machines[node];
        let Some(journal) = machine
            .process
            .as_mut()
            .and_then(|it| it.place.journal.as_mut())
        else {
            return;
        };
        let fails_already = machine.disk.broken;
        if dies && !fails_already {
            machine.disk.fail_after(self.random.index(6));
        }
        journal.go_on(&mut machine.disk.book, self.now, &mut self.random);
        if dies && !fails_already {
            let after = MS + self.random.below(60 * MS);
            return self.power_off(node, after);
        }
        if journal.rings() {
            let latency = self.latency(node);
            self.schedule_wake(node, self.now + latency);
        }
        self.schedule_disk(node);
    }

    /// The process ends, or its whole machine.
    pub(crate) fn fail(&mut self, node: usize, restart_after: u64) {
        if self.plan.disk && self.random.chance(500) {
            self.power_off(node, restart_after);
        } else {
            self.crash(node, Some(restart_after));
        }
    }

    /// The machine goes: of what wasn't synced some is lost, and its clock begins anew.
    pub(crate) fn power_off(&mut self, node: usize, restart_after: u64) {
        self.fault(Some(node), || "loses its power".to_owned());
        self.machines[node].disk.lose_power(&mut self.random);
        self.machines[node].clock.offset = Clock::begin(&mut self.random);
        self.crash(node, Some(restart_after));
        if self.plan.disk_faults && !self.calm && self.random.chance(300) {
            self.damage_files(node);
        }
    }

    /// All machines at once.
    pub(crate) fn power_cut(&mut self) {
        self.fault(None, || "the power is cut".to_owned());
        self.counts.power_cuts += 1;
        for node in 0..self.plan.replicas {
            if self.machines[node].process.is_some() {
                let after = MS + self.random.below(50 * MS);
                self.power_off(node, after);
            }
        }
    }

    /// A replica has stopped since its disk said no. It starts again when somebody has seen to that.
    pub(super) fn disk_failed(&mut self, node: usize, why: &str) {
        let disk = &self.machines[node].disk;
        let named = why.contains("/disk/") && why.contains("no room left");
        let verdict = if disk.broken && named {
            Ok(())
        } else {
            Err(format!("replica {node} stops: {why}"))
        };
        self.checks.require(REASON, verdict);
        self.fault(Some(node), || format!("stops: {why}"));
        self.counts.disk_failures += 1;
        let after = MS + self.random.below(60 * MS);
        self.fail(node, after);
    }

    /// The disk fills up, or breaks: what is written from some moment on fails.
    pub(crate) fn break_disk(&mut self, node: usize) {
        if self.process(node).is_some() && self.may_crash() {
            let operations = self.random.index(8);
            self.fault(Some(node), || {
                format!("its disk is full after {operations} operations")
            });
            self.machines[node].disk.fail_after(operations);
        }
    }

    /// Something in the files changes, and the machine goes down with it.
    pub(crate) fn damage_log(&mut self, node: usize) {
        if self.formed {
            let restart = MS + self.random.below(50 * MS);
            self.power_off(node, restart);
            self.damage_files(node);
        }
    }

    /// No more logs are lost like that than memories may be.
    fn damage_files(&mut self, node: usize) {
        let without = |at: &usize| !self.machines[*at].disk.book.exists();
        let lost = (0..self.plan.replicas).filter(without).count();
        let damaged = self.machines.iter().filter(|it| it.disk.damaged).count();
        if !self.formed || lost + damaged >= self.plan.faults() {
            return;
        }
        let disk = &mut self.machines[node].disk;
        for _ in 0..TRIES {
            let Some(damage) = Damage::draw(disk, &mut self.random) else {
                return;
            };
            let name = damage.name.clone();
            let what = match damage.notice {
                Notice::Impossible => continue,
                Notice::Undue => "where nothing durable is lost",
                Notice::Due => "which was durable",
            };
            self.counts.damaged_logs += u64::from(damage.notice == Notice::Due);
            damage.inflict(disk);
            return self.fault(Some(node), || format!("its {name} is damaged, {what}"));
        }
    }
}
