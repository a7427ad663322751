//! The programs on two CPUs against user space's half on a third thread: rules R1 to R4 where they are hardest to keep.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use electrode_lab::root_or_skip;
use electrode_vr::{ClientId, Entry, Message, OpNumber, Prepare, RequestNumber, View};

use crate::frame::Frame;
use crate::group::{ALL, Group, V4, XDP_DROP, XDP_PASS, XDP_TX, decoded, encoded, prepare_ok};

/// Packets that the programs see, over all threads.
const PACKETS: u64 = 200_000;
/// What a slow machine is given.
const PATIENCE: Duration = Duration::from_secs(60);

/// What user space tells the threads that play the network: the view, and (as a hint only) the log's last op.
#[derive(Default)]
struct Network {
    view: AtomicU64,
    last: AtomicU64,
    packets: AtomicU64,
    over: AtomicBool,
}

impl Network {
    /// Ends the others too when one of the threads fails.
    fn ends_with_me(&self) -> Ending<'_> {
        Ending(self)
    }
}

struct Ending<'n>(&'n Network);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, SeqCst);
    }
}

/// Marsaglia's xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

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
    let mut group = Group::new(V4, 1, 3, ALL);
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
fn primaries(
    network: &Network,
    runner: &electrode_dataplane::Runner,
    seed: u64,
) -> Vec<(u64, u64, u64)> {
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
    let mut group = Group::new(V4, 0, 5, ALL);
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
fn backups(network: &Network, sent: &Sent, runner: &electrode_dataplane::Runner, seed: u64) {
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
