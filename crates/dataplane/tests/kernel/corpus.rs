//! All programs, loaded once, on a corpus of frames in one state of the maps after the other: kernel, interpreter and rbpf
//! agree on everything ([`crate::shadow`]), and between them the frames take every way through the programs that one
//! thread can take. The virtual machines run this on each kernel, where loading a program anew takes seconds.
//!
//! `CORPUS_DAMAGED` says how many damaged frames there are in each state.

use std::collections::BTreeSet;
use std::time::Duration;

use electrode_fastpath::counters::Counters;
use electrode_lab::root_or_skip;
use electrode_vr::{Entry, GroupId, Message, OpNumber, Prepare, View};
use electrode_wire::{FLAG_BROADCAST, Key};

use crate::foreign::{Noise, damaged};
use crate::group::{
    ALL, GROUP, Group, KEY, Net, V4, VIEW, encoded, encoded_with, entry, prepare_ok, sign,
};

/// The replica whose programs these are: a backup in [`VIEW`], the primary in the next view.
const ME: u8 = 1;
const REPLICAS: u8 = 5;
const DAMAGED: usize = 10;

/// An interval in which one Prepare of an older view passes, and some more.
const STALE: Duration = Duration::from_millis(60);

const STALE_TRIES: usize = 15;

/// Where only a second thread, a ring of 1 MiB that is full, or a device that refuses leads. Other tests go there.
const ELSEWHERE: [(&str, &str); 8] = [
    ("prepare", "passed_ring_full"),
    ("prepare", "passed_lost_race"),
    ("prepare", "dropped_unanswered"),
    ("prepare_ok", "passed_ring_full"),
    ("prepare_ok", "passed_lost_race"),
    ("broadcast", "cloned"),
    ("broadcast", "clone_failed"),
    ("broadcast", "unfit"),
];

/// A replica in its states, and the ways that were taken.
struct Corpus {
    group: Group,
    noise: Noise,
    taken: BTreeSet<(&'static str, &'static str)>,
    runs: usize,
}

#[test]
fn every_engine_agrees_on_every_way_through_the_programs() {
    if !root_or_skip("the programs in the kernel") {
        return;
    }
    let mut corpus = Corpus {
        group: Group::new(V4, ME, REPLICAS, ALL),
        noise: Noise(0xc0de),
        taken: BTreeSet::new(),
        runs: 0,
    };
    corpus.all_frames("before the first arm", VIEW, 0);
    corpus.group.dataplane.arm(View(VIEW), false, OpNumber(0));
    corpus.all_frames("a backup with an empty log", VIEW, 0);
    corpus.all_frames("a backup with records in its ring", VIEW, corpus.last());
    corpus.group.drain();
    let last = corpus.last();
    assert!(
        corpus
            .group
            .dataplane
            .claim(OpNumber(last), OpNumber(last + 3))
    );
    assert!(!corpus.group.dataplane.before_sleep(true));
    corpus.all_frames("a backup that sleeps behind a gap", VIEW, last);
    corpus.group.dataplane.after_sleep();
    corpus.group.dataplane.fence();
    corpus.group.drain();
    let last = corpus.last();
    corpus.all_frames("fenced", VIEW, last);
    let view = VIEW + 1;
    corpus.group.dataplane.arm(View(view), true, OpNumber(last));
    corpus.all_frames("a primary that has proposed nothing", view, last);
    corpus.open(last);
    corpus.all_frames("a primary with open slots", view, last);
    let mut acks = Vec::new();
    corpus.group.dataplane.acks(OpNumber(last), &mut acks);
    assert!(!acks.is_empty());
    corpus.open(last + 8);
    assert!(!corpus.group.dataplane.before_sleep(false));
    corpus.all_frames("a primary that sleeps", view, last + 8);
    corpus.group.dataplane.after_sleep();
    corpus.group.drain();

    let all: BTreeSet<_> = Counters::NAMES.iter().copied().collect();
    let missed: Vec<_> = all.difference(&corpus.taken).copied().collect();
    let mut elsewhere = ELSEWHERE.to_vec();
    elsewhere.sort_unstable();
    assert_eq!(missed, elsewhere, "ways that no frame took");
    assert!(corpus.group.is_followed(), "more frames than are compared");
    println!(
        "{} frames, the same in kernel, interpreter and rbpf",
        corpus.runs
    );
}

impl Corpus {
    /// The last op of the kernel's log.
    fn last(&self) -> u64 {
        self.group.tail().1
    }

    /// Opens slots for the eight ops after `last`.
    fn open(&mut self, last: u64) {
        for op in last + 1..=last + 8 {
            self.group.dataplane.open_slot(OpNumber(op));
        }
    }

    /// Gives all frames to the programs, as they fit a log that ends with `last` in `view`.
    fn all_frames(&mut self, state: &str, view: u64, last: u64) {
        // Shown when something differs.
        println!("{state}");
        let net = self.group.net;
        for (sender, message) in messages(view, last) {
            self.receive(&net.frame(sender, ME, &message).bytes());
        }
        let newest = Message::Prepare(proposal(view, self.last() + 1, &[30, 4]));
        let right = [
            (primary(view), encoded(primary(view), &newest)),
            (2, prepare_ok(2, view, last + 6, last + 6)),
        ];
        for (sender, message) in right {
            for frame in odd_frames(net, sender, &message) {
                self.receive(&frame);
            }
            let right = net.frame(sender, ME, &message);
            for _ in 0..damaged_frames() {
                let frame = damaged(&right, &mut self.noise);
                self.receive(&frame);
            }
        }
        // One of an older view passes per interval.
        let stale = encoded(0, &Message::Prepare(proposal(view - 5, last + 1, &[3])));
        let stale = net.frame(primary(view - 5), ME, &stale).bytes();
        std::thread::sleep(STALE);
        self.receive(&stale);
        // The others are dropped: those that come in time, which on a busy machine takes some tries.
        for _ in 0..STALE_TRIES {
            let ran = self.group.runner.run("dispatch", &stale);
            ran.expect("the kernel runs it");
            self.receive(&stale);
            self.note();
            if self.taken.contains(&("prepare", "dropped_older_view")) {
                break;
            }
        }
        for frame in sent(net, view, last) {
            self.send(&frame);
        }
        self.note();
    }

    fn receive(&mut self, frame: &[u8]) {
        self.group.run(frame);
        self.runs += 1;
    }

    fn send(&mut self, frame: &[u8]) {
        self.group.send(frame);
        self.runs += 1;
    }

    fn note(&mut self) {
        let moved = self.group.moved();
        self.taken.extend(moved.into_iter().map(|(way, _)| way));
    }
}

fn damaged_frames() -> usize {
    match std::env::var("CORPUS_DAMAGED") {
        Ok(text) => text.parse().expect("CORPUS_DAMAGED: a number"),
        Err(_) => DAMAGED,
    }
}

fn primary(view: u64) -> u8 {
    (view % u64::from(REPLICAS)) as u8
}

fn proposal(view: u64, first: u64, sizes: &[usize]) -> Prepare {
    let entries: Vec<Entry> = (first..)
        .zip(sizes)
        .map(|(op, size)| entry(op, *size))
        .collect();
    Prepare {
        view: View(view),
        first: OpNumber(first),
        commit: OpNumber(first - 1),
        entries,
    }
}

/// Messages and who sends them: right ones first, then what each check is for.
fn messages(view: u64, last: u64) -> Vec<(u8, Vec<u8>)> {
    let leader = primary(view);
    let prepare_of = |view: u64, first: u64, sizes: &[usize]| {
        let sender = primary(view);
        (
            sender,
            encoded(sender, &Message::Prepare(proposal(view, first, sizes))),
        )
    };
    let mut messages = vec![
        // The next op, again, a batch, one that overlaps it, an old one, one after a gap, the largest, one too large.
        prepare_of(view, last + 1, &[5]),
        prepare_of(view, last + 1, &[5]),
        prepare_of(view, last + 2, &[8, 0, 31, 256]),
        prepare_of(view, last + 4, &[31, 256, 9]),
        prepare_of(view, 1, &[9]),
        prepare_of(view, last + 30, &[9]),
        prepare_of(view, last + 7, &[1368]),
        prepare_of(view, last + 8, &[1400]),
        // More ops than the kernel takes at once, of a newer view, from another replica than the view's primary.
        prepare_of(view, last + 8, &[0; 65]),
        prepare_of(view + 5, last + 8, &[3]),
        (
            3,
            encoded(3, &Message::Prepare(proposal(view, last + 8, &[3]))),
        ),
        // Said by the primary, sent by another.
        (
            2,
            encoded(leader, &Message::Prepare(proposal(view, last + 8, &[3]))),
        ),
        (
            leader,
            encoded(leader, &Message::PreVote { view: View(view) }),
        ),
        (leader, b"ELCT".to_vec()),
        (leader, Vec::new()),
    ];
    // Of other keys and groups.
    let next = Message::Prepare(proposal(view, last + 8, &[3]));
    let ack = Message::PrepareOk {
        view: View(view),
        op: OpNumber(last + 1),
        last_op: OpNumber(last + 1),
    };
    for message in [&next, &ack] {
        let sender = if matches!(message, Message::Prepare(_)) {
            leader
        } else {
            2
        };
        messages.push((sender, encoded_with(sender, GROUP, &Key::UNKEYED, message)));
        messages.push((sender, encoded_with(sender, GroupId(9), &KEY, message)));
    }
    // Acks of every backup for an open op, one that comes again, one for an op without a slot, of other views, of nobody.
    for sender in [0, 2, 2, 3, 4, ME, REPLICAS, 255] {
        messages.push((
            sender.min(REPLICAS),
            prepare_ok(sender, view, last + 1, last + 2),
        ));
    }
    messages.extend([
        (3, prepare_ok(2, view, last + 2, last + 2)),
        (2, prepare_ok(2, view, last + 2, last + 3)),
        (3, prepare_ok(3, view, last + 2, last + 2)),
        (2, prepare_ok(2, view, 0, last)),
        (2, prepare_ok(2, view, last + 100, last + 100)),
        (2, prepare_ok(2, view, last + 3, last + 2)),
        (2, prepare_ok(2, view + 1, last + 3, last + 3)),
        (2, prepare_ok(2, view - 1, last + 3, last + 3)),
    ]);
    // An op that had no slot: one from long before.
    messages.push((
        2,
        prepare_ok(2, view, last.saturating_sub(1).max(1), last + 3),
    ));
    // Signed, and wrong inside: a length, a count, padding.
    let (_, right) = prepare_of(view, last + 8, &[3, 5]);
    for (at, value) in [
        (80, 0xff),
        (72, 1),
        (90, 0),
        (right.len() - 1, 7),
        (48, 0xff),
    ] {
        let mut wrong = right.clone();
        wrong[at] ^= value;
        sign(&mut wrong);
        messages.push((leader, wrong));
    }
    messages
}

/// A message in the frames that aren't plain datagrams of the group's: tags, padding, fragments, options, other protocols,
/// other destinations, and cut off.
fn odd_frames(net: Net, sender: u8, message: &[u8]) -> Vec<Vec<u8>> {
    let plain = net.frame(sender, ME, message);
    let bytes = plain.bytes();
    let patched = |patches: &[(usize, u8)]| {
        let mut frame = bytes.clone();
        for (at, value) in patches {
            frame[*at] = *value;
        }
        frame
    };
    let mut frames: Vec<Vec<u8>> = [1, 2]
        .map(|tags| Net { tags, ..net }.frame(sender, ME, message).bytes())
        .into();
    frames.push([&bytes[..], &[0xee; 40]].concat());
    frames.extend([
        // More fragments; a later fragment; options; version 6; TCP; ARP; a shorter datagram; a longer one.
        patched(&[(20, 0x20)]),
        patched(&[(21, 1)]),
        patched(&[(14, 0x46)]),
        patched(&[(14, 0x65)]),
        patched(&[(23, 6)]),
        patched(&[(12, 8), (13, 6)]),
        patched(&[(38, 0), (39, 20)]),
        patched(&[(38, 0xff)]),
        // To another port and to another address.
        patched(&[(37, 1)]),
        patched(&[(33, 99)]),
    ]);
    frames.push(Net { v6: true, tags: 0 }.frame(sender, ME, message).bytes());
    frames.extend([14, 20, 34, 42, 60, 100].map(|length| bytes[..length].to_vec()));
    frames
}

/// What leaves this replica: to be broadcast, and not.
fn sent(net: Net, view: u64, last: u64) -> Vec<Vec<u8>> {
    let plain = encoded(ME, &Message::Prepare(proposal(view, last + 1, &[30, 2])));
    let mut flagged = plain.clone();
    flagged[7] |= FLAG_BROADCAST;
    sign(&mut flagged);
    let mut frames: Vec<Vec<u8>> = [0, 1, 2]
        .map(|tags| Net { tags, ..net }.frame(ME, 2, &flagged).bytes())
        .into();
    frames.push(net.frame(ME, 2, &plain).bytes());
    // To nobody of the group, from another port, and no message.
    let mut elsewhere = net.frame(ME, 2, &flagged);
    elsewhere.to.set_port(9);
    frames.push(elsewhere.bytes());
    let mut other = net.frame(ME, 2, &flagged);
    other.from.set_port(9);
    frames.push(other.bytes());
    frames.push(net.frame(ME, 2, b"ELCTnonsense").bytes());
    frames
}
