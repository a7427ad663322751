//! `prepare` against fence, arm and claim: the log that is acknowledged, and the log that user space has.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use electrode_dataplane::Runner;
use electrode_lab::root_or_skip;
use electrode_vr::{ClientId, Entry, Message, OpNumber, Prepare, RequestNumber, View};

use super::{Dice, Network, PACKETS, PATIENCE};
use crate::frame::Frame;
use crate::group::{Group, INGRESS, V4, XDP_DROP, XDP_PASS, XDP_TX, decoded, encoded};

/// The one op that this view's primary put at this place.
fn entry_of(view: u64, op: u64) -> Entry {
    Entry {
        client: ClientId(view),
        request: RequestNumber(op),
        op: vec![op as u8; (op % 40) as usize].into(),
    }
}

fn prepare_of(view: u64, first: u64, ops: u64) -> Message {
    Message::Prepare(Prepare {
        view: View(view),
        first: OpNumber(first),
        commit: OpNumber(0),
        entries: (first..first + ops).map(|op| entry_of(view, op)).collect(),
    })
}

/// R1 to R3. Two CPUs take Prepares, new and old and overlapping, of the current view and of those before it; meanwhile user
/// space appends, drains, changes the view, its role and its log.
///
/// An answer in view `v` up to `op` is right if the log that user space had when it fenced `v` (all that a view change
/// is told) reaches `op`, without a gap, and with what `v`'s primary put there.
#[test]
fn two_cpus_race_with_fence_and_arm() {
    if !root_or_skip("prepare in the kernel") {
        return;
    }
    let mut group = Group::new(V4, 1, 3, INGRESS);
    let network = Network::default();
    let mut answered: Vec<(u64, u64, u64)> = Vec::new();
    let mut backup = Backup::default();
    std::thread::scope(|scope| {
        let cpus = [1, 2].map(|seed| {
            let (network, runner) = (&network, group.runner.clone());
            scope.spawn(move || primaries(network, &runner, seed))
        });
        let ending = network.ends_with_me();
        backup.run(&mut group, &network);
        drop(ending);
        for cpu in cpus {
            answered.extend(cpu.join().expect("the network doesn't fail"));
        }
    });

    for &(view, op, last_op) in &answered {
        let promised = backup.promised.get(&view);
        let promised =
            promised.unwrap_or_else(|| panic!("view {view} had this replica as its primary"));
        assert!(
            op <= *promised && last_op <= *promised,
            "op {op} of view {view} was acknowledged (and {last_op} claimed), and the log that was promised ends at {promised}"
        );
    }
    let new = group.moved();
    let of = |name| {
        new.iter()
            .find(|(key, _)| *key == ("prepare", name))
            .map_or(0, |(_, by)| *by)
    };
    println!(
        "{} packets, {} views, {} answers, {} ops; {new:?}",
        network.packets.load(SeqCst),
        backup.promised.len(),
        answered.len(),
        backup.ops,
    );
    // It was a race: each outcome was seen, often.
    assert!(backup.promised.len() > 30 && backup.claims.iter().all(|count| *count > 30));
    assert!(of("stored") > 1000 && of("duplicate") > 1000 && of("passed_fenced") > 100);
    assert_eq!(of("acked"), answered.len() as u64);
    // (The ring may well have been full, if user space had no CPU for a while.)
    assert_eq!(of("dropped_bad_check") + of("dropped_malformed"), 0);
}

/// Sends Prepares until it is over; returns the answers: view, op, and the newest op that the answer claims.
fn primaries(network: &Network, runner: &Runner, seed: u64) -> Vec<(u64, u64, u64)> {
    let _ending = network.ends_with_me();
    let mut dice = Dice(seed);
    let mut answered = Vec::new();
    while !network.over.load(SeqCst) {
        network.packets.fetch_add(1, SeqCst);
        // Now and then a view behind.
        let view = network
            .view
            .load(SeqCst)
            .saturating_sub(u64::from(dice.below(16) == 0));
        let last = network.last.load(SeqCst);
        let first =
            (last + 1).saturating_sub(dice.below(3)).max(1) + u64::from(dice.below(16) == 0);
        let ops = 1 + dice.below(3);
        let sender = (view % 3) as u8;
        let frame = V4.frame(sender, 1, &encoded(sender, &prepare_of(view, first, ops)));
        let (verdict, after) = runner.run("dispatch", &frame.bytes()).expect("it runs");
        match verdict {
            XDP_TX => {
                let (by, message) = decoded(&Frame::parse(&after).payload);
                let Message::PrepareOk {
                    view: of,
                    op,
                    last_op,
                } = message
                else {
                    panic!("{message:?}")
                };
                assert_eq!((by, of.0, op.0), (1, view, first + ops - 1));
                assert!(op <= last_op);
                answered.push((view, op.0, last_op.0));
                network.last.fetch_max(last_op.0, SeqCst);
            }
            XDP_PASS | XDP_DROP => assert_eq!(after, frame.bytes()),
            other => panic!("verdict {other}"),
        }
    }
    answered
}

/// User space of one replica: a log, and nothing else.
#[derive(Default)]
struct Backup {
    log: Vec<Entry>,
    view: u64,
    /// Per view in which it was a backup, the last op of the log when it was fenced.
    promised: BTreeMap<u64, u64>,
    /// Claims that succeeded, and that were lost to the kernel.
    claims: [u64; 2],
    ops: u64,
}

impl Backup {
    fn run(&mut self, group: &mut Group, network: &Network) {
        let mut dice = Dice(3);
        let began = Instant::now();
        let mut stored = Vec::new();
        while !network.over.load(SeqCst)
            && network.packets.load(SeqCst) < PACKETS
            && began.elapsed() < PATIENCE
        {
            self.enter_view(group, network, &mut dice);
            // Its own primary now and then: nothing is taken then, whatever comes.
            let backup = self.view % 3 != 1;
            for _ in 0..dice.below(40) {
                match dice.below(4) {
                    0 if backup => self.append(group, network, 1 + dice.below(2)),
                    1 => std::thread::sleep(Duration::from_micros(dice.below(200))),
                    _ => while self.take(group, &mut stored) {},
                }
            }
            self.fence(group, &mut stored, backup);
        }
        assert!(
            network.packets.load(SeqCst) >= PACKETS / 20,
            "this machine is too slow to say anything"
        );
    }

    fn enter_view(&mut self, group: &mut Group, network: &Network, dice: &mut Dice) {
        self.view += 1 + dice.below(2);
        // The new view's log may lack what the old one's primary hadn't committed; and it mustn't grow for ever.
        let kept = match dice.below(50) {
            0 => 0,
            1..10 => self.log.len().saturating_sub(dice.below(5) as usize),
            _ => self.log.len(),
        };
        self.log.truncate(kept);
        let last = self.log.len() as u64;
        group
            .dataplane
            .arm(View(self.view), self.view % 3 == 1, OpNumber(last));
        network.last.store(last, SeqCst);
        network.view.store(self.view, SeqCst);
    }

    /// A Prepare came by the socket.
    fn append(&mut self, group: &mut Group, network: &Network, ops: u64) {
        let after = self.log.len() as u64;
        let claimed = group
            .dataplane
            .claim(OpNumber(after), OpNumber(after + ops));
        self.claims[usize::from(!claimed)] += 1;
        if claimed {
            self.ops += ops;
            self.log
                .extend((after + 1..=after + ops).map(|op| entry_of(self.view, op)));
            network.last.fetch_max(after + ops, SeqCst);
        }
    }

    /// Takes one record: it must be of this view, chain, and hold what the primary sent.
    fn take(&mut self, group: &mut Group, stored: &mut Vec<u8>) -> bool {
        if !group.dataplane.take_stored(stored) {
            return false;
        }
        let (sender, message) = decoded(stored);
        let Message::Prepare(prepare) = message else {
            panic!("{message:?}")
        };
        let last = self.log.len() as u64;
        assert_eq!(
            (prepare.view, sender),
            (View(self.view), (self.view % 3) as u8)
        );
        assert!(
            prepare.first.0 <= last + 1 && prepare.last().0 > last,
            "{}..={} after {last}",
            prepare.first,
            prepare.last()
        );
        let first = prepare.first.0;
        for (op, entry) in (first..).zip(prepare.entries) {
            assert_eq!(entry, entry_of(self.view, op));
            if op > last {
                self.log.push(entry);
                self.ops += 1;
            }
        }
        true
    }

    /// R2: what the fence says is exact, and comes out of the ring in bounded time; then nothing more does.
    fn fence(&mut self, group: &mut Group, stored: &mut Vec<u8>, backup: bool) {
        let OpNumber(accepted) = group.dataplane.fence();
        let began = Instant::now();
        while (self.log.len() as u64) < accepted {
            if !self.take(group, stored) {
                // Accepted and not yet submitted: its CPU is about to.
                assert!(
                    began.elapsed() < Duration::from_secs(10),
                    "a record never came"
                );
                std::thread::yield_now();
            }
        }
        assert_eq!(
            self.log.len() as u64,
            accepted,
            "the kernel's last op and the log's"
        );
        assert!(
            !group.dataplane.take_stored(stored),
            "a record after the fence"
        );
        if backup {
            self.promised.insert(self.view, accepted);
        }
    }
}
