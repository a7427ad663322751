//! `prepare_ok` against slots that are opened again and again: the acks that were sent, and the acks that are marked.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use electrode_dataplane::Runner;
use electrode_lab::root_or_skip;
use electrode_vr::{OpNumber, View};

use super::{Dice, Network, PACKETS, PATIENCE};
use crate::group::{Group, INGRESS, V4, XDP_DROP, XDP_PASS, prepare_ok};

/// Acks that were sent, by view and op: the senders, as bits. Entered before the packet is.
type Sent = Mutex<BTreeMap<(u64, u64), u16>>;

fn lock(sent: &Sent) -> MutexGuard<'_, BTreeMap<(u64, u64), u16>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Acks that each of the two threads sends before it waits for user space's next step.
const EAGERNESS: u64 = 40;

/// Of an op of a view, only these two of the four backups ever send acks, so that an ack that is marked in the slot of another
/// op, or of the same op in another view, is seen: the ops that share a slot have other backups.
fn voters(view: u64, op: u64) -> [u8; 2] {
    let turn = (view + op / 1024) % 4;
    [1 + turn as u8, 1 + ((turn + 1) % 4) as u8]
}

/// R4, on slots that op after op shares: an ack bit stands only in the slot of the (view, op) that its sender acknowledged.
///
/// Three ops are open at a time; then the next three, 1024 further, take their slots. The network goes on sending acks for those
/// before, while their slots are opened for others.
#[test]
fn two_cpus_race_for_slots_that_ops_share() {
    if !root_or_skip("prepare_ok in the kernel") {
        return;
    }
    let mut group = Group::new(V4, 0, 5, INGRESS);
    let network = Network::default();
    let sent = Sent::default();
    let mut decided = HashSet::new();
    let mut rounds = 0;
    std::thread::scope(|scope| {
        for seed in [1, 2] {
            let (network, sent, runner) = (&network, &sent, group.runner.clone());
            scope.spawn(move || backups(network, sent, &runner, seed));
        }
        let _ending = network.ends_with_me();
        let mut dice = Dice(3);
        let began = Instant::now();
        let mut acks = Vec::new();
        let mut view = 0;
        while !network.over.load(SeqCst)
            && network.packets.load(SeqCst) < PACKETS
            && began.elapsed() < PATIENCE
        {
            // The same ops again in each view.
            view += 5;
            network.view.store(view, SeqCst);
            group.dataplane.arm(View(view), true, OpNumber(0));
            for round in 0..2 + dice.below(20) {
                rounds += 1;
                let commit = 1024 * round;
                for op in 1..=3 {
                    group.dataplane.open_slot(OpNumber(commit + op));
                }
                network.last.store(commit + 3, SeqCst);
                let mut open: HashSet<u64> = [1, 2, 3].map(|op| commit + op).into();
                // Some are given up undecided, as by a view change.
                let patience = network.packets.load(SeqCst) + 20 + dice.below(2 * EAGERNESS - 20);
                loop {
                    let enough = network.packets.load(SeqCst) >= patience
                        || network.over.load(SeqCst)
                        || began.elapsed() >= PATIENCE;
                    acks.clear();
                    group.dataplane.acks(OpNumber(commit), &mut acks);
                    for &(op, bits) in &acks {
                        let entitled = lock(&sent).get(&(view, op.0)).copied().unwrap_or(0);
                        assert_eq!(
                            bits & !entitled,
                            0,
                            "op {op} of view {view} has acks {bits:#b}, and {entitled:#b} were sent"
                        );
                        if bits.count_ones() >= 2 {
                            open.remove(&op.0);
                            decided.insert((view, op.0));
                        }
                    }
                    if enough || open.is_empty() {
                        break;
                    }
                    if acks.is_empty() {
                        std::thread::yield_now();
                    } else if dice.below(10) == 0 {
                        // Sent again: what was marked is counted anew.
                        group
                            .dataplane
                            .open_slot(OpNumber(commit + 1 + dice.below(3)));
                    }
                }
                // All decided or given up: those of this round don't stand in the way of the next.
                acks.clear();
                group.dataplane.acks(OpNumber(commit + 3), &mut acks);
            }
            group.dataplane.fence();
            group.drain();
        }
    });
    let moved = group.moved();
    let of = |name| {
        moved
            .iter()
            .find(|(key, _)| *key == ("prepare_ok", name))
            .map_or(0, |(_, by)| *by)
    };
    let packets = network.packets.load(SeqCst);
    println!(
        "{packets} acks, {rounds} rounds, {} decided; {moved:?}",
        decided.len()
    );
    assert!(
        packets >= PACKETS / 20,
        "this machine is too slow to say anything"
    );
    // It was a race: acks counted and completed, came late, and met slots that weren't theirs any more.
    assert!(decided.len() > 1000, "{} decided", decided.len());
    for name in [
        "counted",
        "completed",
        "surplus",
        "passed_no_slot",
        "dropped_older_view",
    ] {
        assert!(of(name) > 20, "{name}: {}", of(name));
    }
    assert_eq!(
        of("dropped_bad_check") + of("dropped_bad_index") + of("dropped_wrong_source"),
        0
    );
}

/// Sends acks for the newest ops and for those that had their slots before, in this view and in the one before.
fn backups(network: &Network, sent: &Sent, runner: &Runner, seed: u64) {
    let _ending = network.ends_with_me();
    let mut dice = Dice(seed);
    let mut step = (0, 0);
    let mut eager = 0;
    while !network.over.load(SeqCst) {
        let (newest, view) = (network.last.load(SeqCst), network.view.load(SeqCst));
        if step != (newest, view) {
            step = (newest, view);
            eager = EAGERNESS;
        }
        if eager == 0 || newest == 0 {
            std::thread::yield_now();
            continue;
        }
        eager -= 1;
        network.packets.fetch_add(1, SeqCst);
        let view = if dice.below(16) == 0 { view - 5 } else { view };
        let behind = 1024 * dice.below(8).saturating_sub(5);
        let op = (newest - dice.below(3)).saturating_sub(behind).max(1);
        let sender = voters(view, op)[dice.below(2) as usize];
        *lock(sent).entry((view, op)).or_default() |= 1 << sender;
        let frame = V4.frame(sender, 0, &prepare_ok(sender, view, op, newest));
        let (verdict, after) = runner.run("dispatch", &frame.bytes()).expect("it runs");
        assert!([XDP_DROP, XDP_PASS].contains(&verdict), "verdict {verdict}");
        assert_eq!(after, frame.bytes());
    }
}
