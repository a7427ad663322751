//! One run: a group starts, things break, things are mended, and then it has to work.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use electrode_vr::{OpNumber, Status};

use crate::checks::{Rule, Violation};
use crate::history::Call;
use crate::linearizability::{self, NotLinearizable};
use crate::machine::OpKey;
use crate::nic::Programs;
use crate::plan::{MS, Plan};
use crate::trace::{Kind, diagram};
use crate::world::World;

const PROGRESS: Rule = Rule {
    name: "a healed group works again in bounded time, its fast path armed",
    source: "VR Revisited 8.2; docs/fast-path.md R5, R6",
};
const STALLS: Rule = Rule {
    name: "a lost packet stalls no op for longer than the resend time-out",
    source: "docs/fast-path.md R5",
};
const STORES: Rule = Rule {
    name: "a healed group's kernels store again",
    source: "docs/fast-path.md R6",
};
const LINEARIZABLE: Rule = Rule {
    name: "histories are linearizable",
    source: "Herlihy & Wing 1990; docs/protocol.md, \"Invariants\"",
};
const KEPT: Rule = Rule {
    name: "what a client was told is never lost",
    source: "VR Revisited 8.1; docs/protocol.md, \"Invariants\"",
};
const ASSERTED: Rule = Rule {
    name: "the code's own assertions hold",
    source: "ARCHITECTURE.md, \"Invariants\"",
};

/// Simulated nanoseconds in which a healed group has to work: time-outs may have backed off, and packets and suspended
/// programs may still be hundreds of milliseconds late.
const MENDED_IN: u64 = 3_000 * MS;
/// Simulated nanoseconds in which every client hears something while packets are lost: many resend time-outs, so that chance
/// alone never fails a run.
const STALL: u64 = 1_000 * MS;
/// Of so many ops a backup's kernel stores at least one; the others may overtake each other, or be too long for it.
const STORES_ONE_OF: u64 = 40;
/// Simulated nanoseconds in which requests have to be answered then.
const ANSWERED_IN: u64 = 20_000 * MS;

/// What a run amounted to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The group's size.
    pub replicas: usize,
    /// Replicas with a fast path.
    pub accelerated: usize,
    /// Whether it was in disk mode.
    pub on_disk: bool,
    /// Requests that were answered.
    pub requests: u64,
    /// Sessions that expired.
    pub expired: u64,
    /// Requests that ended with their session: whether they were executed no client knows.
    pub unknown: u64,
    /// Ops that were committed.
    pub ops: u64,
    /// Views in which some replica was normal.
    pub views: usize,
    /// Crashes.
    pub crashes: u64,
    /// Times at which all machines lost their power at once.
    pub power_cuts: u64,
    /// Replicas that stopped since their disks were full.
    pub disk_failures: u64,
    /// Logs that were found damaged, and moved aside.
    pub damaged_logs: u64,
    /// Links and queues that stood still for a while.
    pub clogs: u64,
    /// Packets in the name of another group, or of another version.
    pub foreign: u64,
    /// Reads that clients were answered.
    pub reads: u64,
    /// Packets that were sent, and of them lost.
    pub packets: u64,
    /// Packets that were lost.
    pub lost: u64,
    /// Ops that kernels stored.
    pub stored: u64,
    /// Times that user space asked to append what kernels hadn't stored, and was the first.
    pub claims: u64,
    /// Ops that it appended so.
    pub claimed: u64,
    /// Prepares that programs passed up since those before them were missing.
    pub overtook: u64,
    /// PrepareOks that programs sent.
    pub kernel_answers: u64,
    /// Steps of cores, after each of which everything was checked.
    pub steps: u64,
    /// Simulated nanoseconds.
    pub simulated: u64,
    /// Simulated nanoseconds from the end of the faults until everybody was normal in one view, with the fast path armed.
    pub mended: u64,
    /// The digest of the log's end: two runs that agree on it did the same.
    pub digest: u64,
    /// The digest of the state there.
    pub state: u64,
    /// A digest of what every client asked, was answered, and of the answers' places in the order.
    pub replies: u64,
}

/// A run that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("seed {seed} at {:.3} ms: {violation}", *at as f64 / 1e6)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The simulated nanosecond.
    pub at: u64,
    /// What was broken.
    pub violation: Violation,
    /// How the replicas were.
    pub state: String,
}

/// A run with its record.
#[derive(Debug)]
pub struct Traced {
    /// How it ended.
    pub outcome: Result<Report, Failure>,
    /// A line per event.
    pub timeline: String,
    /// The last part of it as a page with a space-time diagram.
    pub diagram: String,
}

/// Runs a plan.
///
/// # Errors
/// A rule was broken.
pub fn run(plan: &Plan, programs: &Rc<Programs>) -> Result<Report, Failure> {
    let mut world = None;
    guarded(plan, programs, false, &mut world)
}

/// Runs a plan and keeps a record. `window` is how many simulated milliseconds before the end the diagram shows.
#[must_use]
pub fn run_traced(plan: &Plan, programs: &Rc<Programs>, window: u64) -> Traced {
    let mut world = None;
    let outcome = guarded(plan, programs, true, &mut world);
    let Some(mut world) = world else {
        return Traced {
            outcome,
            timeline: String::new(),
            diagram: String::new(),
        };
    };
    let now = world.now;
    if let Err(failure) = &outcome {
        let text = failure.violation.to_string();
        world.trace.line(now, None, Kind::Violation, || text);
    }
    let lines = world.trace.lines.iter().map(|line| {
        let who = line
            .node
            .map_or("     *".to_owned(), |node| format!("{node:>6}"));
        format!("{:>12.6} {who}  {}\n", line.at as f64 / 1e6, line.text)
    });
    let mut timeline: String = lines.collect();
    for (node, counters) in world.counters() {
        let counted = counters.iter().filter(|(_, count)| *count > 0);
        let counted: Vec<String> = counted
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        timeline.push_str(&format!(
            "programs of replica {node} since its start: {}\n",
            counted.join(", ")
        ));
    }
    let from = now.saturating_sub(window * MS);
    let title = format!("seed {}", plan.seed);
    let diagram = diagram(&world.trace, plan.replicas, &title, from, now);
    Traced {
        outcome,
        timeline,
        diagram,
    }
}

thread_local! {
    /// Whether panics of this thread are results, not to be printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Keeps a panic's words for the report instead of printing them, in threads that run a simulation.
fn catch_words() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                MESSAGE.set(Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

/// The core asserts its invariants by panics: one of those is a violation like any other.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Violation> {
    catch_words();
    QUIET.set(true);
    let ended = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    ended.map_err(|_| broken(ASSERTED, MESSAGE.take().unwrap_or_default()))
}

fn guarded(
    plan: &Plan,
    programs: &Rc<Programs>,
    trace: bool,
    kept: &mut Option<World>,
) -> Result<Report, Failure> {
    let world = kept.insert(World::new(plan.clone(), Rc::clone(programs), trace));
    match caught(|| live(world)) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(violation)) => Err(Failure {
            seed: plan.seed,
            at: world.now,
            violation,
            state: world.describe(),
        }),
        Err(violation) => Err(Failure {
            seed: plan.seed,
            at: world.now,
            violation,
            state: String::new(),
        }),
    }
}

fn live(world: &mut World) -> Result<Report, Violation> {
    break_things(world);
    checked(world)?;
    world.heal();
    let healed = world.now;
    demand_progress(world)?;
    let mended = world.now - healed;
    let mut caught_up = CaughtUp(vec![None; world.plan.replicas]);
    caught_up.look(world);
    demand_answers(world)?;
    settle(world, &mut caught_up)?;
    judge(world)?;
    caught_up.demand_stores(world)?;
    Ok(Report {
        mended,
        ..report(world)
    })
}

fn checked(world: &World) -> Result<(), Violation> {
    world.violation().cloned().map_or(Ok(()), Err)
}

fn broken(rule: Rule, text: String) -> Violation {
    Violation { rule, text }
}

/// Safety is checked while everything fails.
fn break_things(world: &mut World) {
    // The first start needs all of them, but not a good network.
    let calm = world.chance(500);
    world.set_calm(calm);
    world.run_until(200 * MS);
    world.set_calm(false);
    let end = world.now + world.plan.break_for;
    if world.plan.only_loss {
        return lose_packets(world, end);
    }
    while world.now < end && world.violation().is_none() && !nearly_done(world) {
        let gap = world.fault_gap();
        world.run_until(world.now + gap);
        world.clog();
        if world.plan.lease_reads && world.chance(100) {
            asleep(world);
            continue;
        }
        match world.chance(160) {
            true => match world.chance(500) {
                true => succession(world),
                false if world.chance(500) => flapping(world),
                false => late_reign(world),
            },
            false => world.break_something(),
        }
    }
}

/// Something must be left to ask when the faults are over.
fn nearly_done(world: &World) -> bool {
    let left: u64 = world.clients.iter().map(crate::client::Client::left).sum();
    left < world.plan.requests / 4
}

/// Packets are lost, and nothing else happens: no op stalls for longer than a few resend time-outs.
fn lose_packets(world: &mut World, end: u64) {
    world.run_until(world.now + 200 * MS);
    let started = world.now + MENDED_IN;
    while !world.works() && world.now < started && world.violation().is_none() {
        world.run_until(world.now + 50 * MS);
    }
    // Where few ops may be in flight the others stand in line, and each takes some resend time-outs.
    let (plan, limits) = (&world.plan, &world.plan.limits);
    let line = plan.clients * plan.pipeline / (limits.window * limits.batch_ops).max(1);
    let stall = STALL + 5 * line as u64 * plan.timing.resend;
    while world.now < end && world.violation().is_none() && !nearly_done(world) {
        let before = ended(world);
        world.run_until(world.now + stall);
        for (index, before) in before.into_iter().enumerate() {
            let client = &world.clients[index];
            if client.ended() == before && !client.finished() {
                let state = world.describe();
                let text = format!(
                    "client {index} hears nothing for {} ms: {state}",
                    stall / MS
                );
                world.checks.require(STALLS, Err(text));
            }
        }
    }
}

/// A primary is cut off while it has more in its log than others know; the next one commits a little and is cut off in turn,
/// as the first comes back: who has the longest log now doesn't have the newest.
fn succession(world: &mut World) {
    for _ in 0..4 {
        let Some(first) = world.leader() else {
            return world.break_something();
        };
        succeed(world, first);
        if world.violation().is_some() || world.chance(400) {
            break;
        }
    }
    world.run_until(world.now + 150 * MS);
    world.join_network();
}

/// A primary sends what nobody's acknowledgement reaches it for, and loses its view; when it leads again, nothing was decided
/// meanwhile, and what it hears first are the acks of its earlier reign.
fn late_reign(world: &mut World) {
    let Some(first) = world.leader() else {
        return world.break_something();
    };
    world.join_network();
    world.keep_acks_for(first);
    let gap = world.fault_gap() / 2;
    world.run_until(world.now + gap);
    for _ in 0..2 * world.plan.replicas {
        let Some(leader) = world.leader() else {
            break;
        };
        world.join_network();
        world.isolate(leader);
        let patience = world.now + 600 * MS;
        while world.now < patience
            && world.leader() == Some(leader)
            && !world.reigned()
            && world.violation().is_none()
        {
            world.run_until(world.now + MS);
        }
        if world.reigned() || world.violation().is_some() {
            break;
        }
    }
    world.run_until(world.now + 5 * MS);
    world.let_acks_go();
    world.join_network();
}

/// A primary stands still while it is acknowledged, and is cut off: when it goes on, another one leads, but clients still ask
/// it.
fn asleep(world: &mut World) {
    let Some(leader) = world.leader() else {
        return world.break_something();
    };
    let patience = world.plan.timing.view_change + world.plan.timing.lease;
    if world.chance(500) {
        world.pause(leader, world.now + patience);
    }
    world.run_until(world.now + 2 * MS);
    world.isolate(leader);
    let end = world.now + patience + 200 * MS;
    while world.now < end && world.violation().is_none() {
        world.run_until(world.now + 10 * MS);
    }
    world.join_network();
}

/// One replica crashes again and again, hardly back each time: what was sent to its earlier lives reaches the later ones.
fn flapping(world: &mut World) {
    let victim = world.anybody();
    for _ in 0..4 {
        if world.process(victim).is_some() && world.may_crash() {
            world.fail(victim, MS);
        }
        let gap = 3 * MS + world.fault_gap() / 4;
        world.run_until(world.now + gap);
        // Half of the time it takes part again before it crashes once more, perhaps in the same view.
        let patience = world.now + if world.whim(500) { 150 * MS } else { 0 };
        while world.now < patience && !world.is_normal(victim) && world.violation().is_none() {
            world.run_until(world.now + 5 * MS);
        }
    }
}

fn succeed(world: &mut World, first: usize) {
    world.isolate(first);
    let begun = world.checks.committed().last();
    for _ in 0..300 {
        world.run_until(world.now + MS / 2);
        let second = world.leader().filter(|second| *second != first);
        if let Some(second) = second
            && world.checks.committed().last() > begun
        {
            world.join_network();
            world.isolate(second);
            world.echo(second);
            break;
        }
        if world.violation().is_some() {
            return;
        }
    }
    // Whoever is heard now is the first again, or the third.
    world.run_until(world.now + 100 * MS);
}

/// How many requests of each client have ended.
fn ended(world: &World) -> Vec<u64> {
    let clients = world.clients.iter();
    clients.map(crate::client::Client::ended).collect()
}

/// Everybody is up and connected: the group has to come back, and its fast path with it.
fn demand_progress(world: &mut World) -> Result<(), Violation> {
    let deadline = world.now + MENDED_IN;
    world.run_until(world.now + 50 * MS);
    while world.now < deadline && !world.works() {
        world.run_until(world.now + 20 * MS);
        checked(world)?;
    }
    if !world.works() {
        let text = format!("not after {} ms: {}", MENDED_IN / MS, world.describe());
        return Err(broken(PROGRESS, text));
    }
    Ok(())
}

/// What each replica had when it was seen, after the faults, to have caught up: the ops of its log, and those that its kernel had
/// stored.
struct CaughtUp(Vec<Option<(u64, u64)>>);

impl CaughtUp {
    fn look(&mut self, world: &World) {
        let last = world.checks.committed().last();
        for (node, seen) in self.0.iter_mut().enumerate() {
            let op = world.process(node).map(|it| it.core().snapshot().op);
            if let (None, Some(op)) = (&seen, op.filter(|op| *op >= last)) {
                *seen = Some((op.0, world.checks.stored_by[node]));
            }
        }
    }

    /// From then on each backup's kernel has stored something of what came.
    fn demand_stores(&self, world: &World) -> Result<(), Violation> {
        for (node, seen) in self.0.iter().enumerate() {
            let (Some((op, stored)), Some(process)) = (seen, world.process(node)) else {
                continue;
            };
            let ops = process.core().snapshot().op.0 - op;
            let stored = world.checks.stored_by[node] - stored;
            let stores = world.plan.programs[node].store && world.leader() != Some(node);
            if stores && ops >= STORES_ONE_OF && stored == 0 {
                let text =
                    format!("the kernel of replica {node} stored none of the last {ops} ops");
                return Err(broken(STORES, text));
            }
        }
        Ok(())
    }
}

/// It has come back: every client is answered.
fn demand_answers(world: &mut World) -> Result<(), Violation> {
    let before = ended(world);
    world.run_until(world.now + 400 * MS);
    checked(world)?;
    for (client, before) in world.clients.iter().zip(before) {
        if client.ended() == before && !client.finished() {
            let text = format!(
                "client {} hears nothing for 400 ms: {}",
                client.index,
                world.describe()
            );
            return Err(broken(PROGRESS, text));
        }
    }
    Ok(())
}

/// The rest of the requests, and quiet.
fn settle(world: &mut World, caught_up: &mut CaughtUp) -> Result<(), Violation> {
    let deadline = world.now + ANSWERED_IN;
    while world.now < deadline && !world.clients.iter().all(crate::client::Client::finished) {
        caught_up.look(world);
        world.run_until(world.now + 50 * MS);
        checked(world)?;
    }
    if let Some(client) = world.clients.iter().find(|client| !client.finished()) {
        let text = format!(
            "a request of client {} stays without answer: {}",
            client.index,
            world.describe()
        );
        return Err(broken(PROGRESS, text));
    }
    // Commit numbers reach everybody by the next heartbeats.
    world.run_until(world.now + 300 * MS);
    checked(world)
}

/// What can be seen at the end alone.
fn judge(world: &World) -> Result<(), Violation> {
    let committed = world.checks.committed();
    let last = committed.last();
    for node in 0..world.plan.replicas {
        let Some(process) = world.process(node) else {
            return Err(broken(PROGRESS, format!("replica {node} isn't up")));
        };
        let now = process.core().snapshot();
        let armed = world.plan.programs[node].any();
        if now.status != Status::Normal
            || now.armed != armed
            || (now.op, now.commit) != (last, last)
        {
            return Err(broken(
                PROGRESS,
                format!("not everybody is at op {last}: {}", world.describe()),
            ));
        }
        for key in &world.known.acknowledged {
            if !process.core().machine().has(*key) {
                return Err(broken(
                    KEPT,
                    format!("op {key:?} isn't in the state of replica {node}"),
                ));
            }
        }
    }
    match linearizability::check(&history(world)) {
        Ok(()) => Ok(()),
        Err(error @ NotLinearizable::NoOrder { .. } | error @ NotLinearizable::GivenUp { .. }) => {
            Err(broken(LINEARIZABLE, error.to_string()))
        }
    }
}

/// What all clients did and heard. Where the client heard nothing, the replicas' answer tells the place in the order: that is
/// only where the search looks first.
fn history(world: &World) -> Vec<Call> {
    let calls = world
        .clients
        .iter()
        .flat_map(|client| client.history.iter().zip(&client.keys));
    let told = |(call, key): (&Call, &OpKey)| {
        let mut call = call.clone();
        if call.returned.is_none() {
            call.hint = world.checks.place(*key).map_or(0, |place| 2 * place);
        }
        call
    };
    calls.map(told).collect()
}

/// What clients heard, as one number.
fn replies(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    for call in world.clients.iter().flat_map(|client| &client.history) {
        call.action.hash(&mut hasher);
        let outcome = call.returned.as_ref().map(|(_, outcome)| outcome);
        (outcome, call.hint).hash(&mut hasher);
    }
    hasher.finish()
}

fn report(world: &World) -> Report {
    let committed = world.checks.committed();
    let last: OpNumber = committed.last();
    Report {
        replicas: world.plan.replicas,
        accelerated: world
            .plan
            .programs
            .iter()
            .filter(|programs| programs.any())
            .count(),
        on_disk: world.plan.disk,
        requests: world.clients.iter().map(|client| client.done).sum(),
        expired: world.clients.iter().map(|client| client.expired).sum(),
        unknown: world.clients.iter().map(|client| client.unknown).sum(),
        ops: last.0,
        views: world.checks.views.len(),
        crashes: world.counts.crashes,
        power_cuts: world.counts.power_cuts,
        disk_failures: world.counts.disk_failures,
        damaged_logs: world.counts.damaged_logs,
        clogs: world.counts.clogs,
        foreign: world.counts.foreign,
        reads: world.clients.iter().map(|client| client.reads_done).sum(),
        packets: world.counts.packets,
        lost: world.counts.lost,
        stored: world.checks.stored_by_kernels,
        claims: world.checks.claims.0,
        claimed: world.checks.claims.1,
        overtook: world.counted("prepare passed_gap"),
        kernel_answers: world.counts.kernel_answers,
        steps: world.checks.steps,
        simulated: world.now,
        mended: 0,
        digest: committed.digest(last).map_or(0, |digest| digest.0),
        state: world
            .process(0)
            .map_or(0, |process| process.core().snapshot().state_digest.0),
        replies: replies(world),
    }
}
