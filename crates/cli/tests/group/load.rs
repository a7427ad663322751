//! Writers that append numbers, and the proof that what was acknowledged is there: in order, once.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use electrode_apps::{KvOp, KvResult};
use electrode_client::RequestError;

use crate::group::{Group, connect};

/// An append that isn't answered by then counts as unknown; longer than any failover.
const DEADLINE: Duration = Duration::from_secs(20);

/// What each key's value stays below; the store takes 32 KiB.
const KEY_BYTES: usize = 30_000;

/// How a load behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Sessions, each with keys of its own.
    pub(crate) writers: usize,
    /// Requests that each has in flight.
    pub(crate) depth: usize,
    /// The length of each appended value.
    pub(crate) bytes: usize,
    /// What each waits after an answer: the replicas shall have some of the machine too.
    pub(crate) pause: Duration,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            writers: 4,
            depth: 2,
            bytes: 12,
            pause: Duration::from_micros(500),
        }
    }
}

/// A running load.
pub(crate) struct Load {
    shape: Shape,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Writer>>,
}

/// What one writer knows of its appends.
#[derive(Default)]
struct Writer {
    acknowledged: BTreeSet<u64>,
    /// Sent, and the outcome isn't known.
    unknown: BTreeSet<u64>,
    /// When each answer came.
    answers: Vec<Instant>,
    /// The longest that an append waited for its answer.
    slowest: Duration,
    /// Numbers used.
    numbers: u64,
}

/// What became of a load; everything in it has been proved.
pub(crate) struct Proved {
    /// Acknowledged appends.
    pub(crate) acknowledged: usize,
    /// The longest that one append waited for its answer.
    pub(crate) slowest: Duration,
    answers: Vec<Instant>,
}

impl Load {
    /// Starts writing, from the clients' host.
    pub(crate) fn start(group: &Group, shape: Shape) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = (0..shape.writers).map(|index| {
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            let (host, addresses) = (group.client.clone(), group.addresses.clone());
            thread::spawn(move || {
                let client = connect(&host, &addresses, DEADLINE);
                let mut writer = Writer::default();
                let mut flying = VecDeque::new();
                loop {
                    if !stop.load(Ordering::Relaxed) && flying.len() < shape.depth {
                        let number = writer.numbers;
                        writer.numbers += 1;
                        let answer = client.request(shape.append(index, number));
                        flying.push_back((number, Instant::now(), answer));
                        continue;
                    }
                    let Some((number, sent, answer)) = flying.pop_front() else {
                        return writer;
                    };
                    let answer = smol::block_on(answer);
                    if writer.on_answer(number, sent, answer) {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    thread::sleep(shape.pause);
                }
            })
        });
        Load {
            writers: writers.collect(),
            shape,
            stop,
            acknowledged,
        }
    }

    /// Appends acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more appends were acknowledged.
    #[track_caller]
    pub(crate) fn wait_for(&self, group: &Group, more: u64) {
        let target = self.acknowledged() + more;
        let give_up = Instant::now() + DEADLINE;
        while self.acknowledged() < target {
            assert!(
                Instant::now() < give_up,
                "commits don't go on: {} of {target} after {DEADLINE:?}\n{}",
                self.acknowledged(),
                group.describe()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the load and reads everything back: each acknowledged number is there once and in order, and nothing else
    /// is but what may be.
    #[track_caller]
    pub(crate) fn prove(self, group: &Group) -> Proved {
        self.stop.store(true, Ordering::Relaxed);
        let writers = self
            .writers
            .into_iter()
            .map(|writer| writer.join().unwrap());
        let writers: Vec<Writer> = writers.collect();
        let client = group.connect(DEADLINE);
        let mut proved = Proved {
            acknowledged: 0,
            slowest: Duration::ZERO,
            answers: Vec::new(),
        };
        for (index, writer) in writers.into_iter().enumerate() {
            let mut there = Vec::new();
            let keys = writer.numbers.div_ceil(self.shape.numbers_of_a_key());
            for key in 0..keys {
                let key = key_name(index, key);
                let op = KvOp::Get {
                    key: key.as_bytes(),
                };
                let result = smol::block_on(client.request(op.encode())).unwrap();
                let Ok(KvResult::Value(value)) = KvResult::decode(&result) else {
                    panic!("not a value: {result:?}");
                };
                there.extend(numbers(value.unwrap_or_default()));
            }
            writer.check(index, &there);
            proved.acknowledged += writer.acknowledged.len();
            proved.slowest = proved.slowest.max(writer.slowest);
            proved.answers.extend(writer.answers);
        }
        proved.answers.sort_unstable();
        assert!(proved.acknowledged > 0, "nothing was acknowledged");
        proved
    }
}

impl Proved {
    /// The longest time between two answers to anybody, of those that came after `since`.
    pub(crate) fn longest_silence(&self, since: Instant) -> Duration {
        let answers = self.answers.iter().filter(|answer| **answer > since);
        let times: Vec<Instant> = std::iter::once(since).chain(answers.copied()).collect();
        let silences = times.windows(2).map(|pair| pair[1] - pair[0]);
        silences.max().unwrap_or(Duration::MAX)
    }
}

impl Shape {
    fn numbers_of_a_key(&self) -> u64 {
        (KEY_BYTES / self.bytes) as u64
    }

    /// The op that appends `number`, made as long as the load's values are.
    fn append(&self, writer: usize, number: u64) -> Vec<u8> {
        let key = key_name(writer, number / self.numbers_of_a_key());
        let value = format!("{number:0width$};", width = self.bytes - 1);
        let op = KvOp::Append {
            key: key.as_bytes(),
            value: value.as_bytes(),
        };
        op.encode()
    }
}

impl Writer {
    /// Notes an answer; true when it was an acknowledgement.
    fn on_answer(
        &mut self,
        number: u64,
        sent: Instant,
        answer: Result<Vec<u8>, RequestError>,
    ) -> bool {
        match answer {
            Ok(result) => {
                let Ok(KvResult::Appended { .. }) = KvResult::decode(&result) else {
                    panic!("append {number} was answered by {result:?}");
                };
                self.answers.push(Instant::now());
                self.slowest = self.slowest.max(sent.elapsed());
                self.acknowledged.insert(number);
                true
            }
            Err(error) => {
                if error.outcome_unknown() {
                    self.unknown.insert(number);
                }
                false
            }
        }
    }

    #[track_caller]
    fn check(&self, writer: usize, there: &[u64]) {
        if let Some(pair) = there.windows(2).find(|pair| pair[0] >= pair[1]) {
            panic!("writer {writer}: {} is followed by {}", pair[0], pair[1]);
        }
        let there: BTreeSet<u64> = there.iter().copied().collect();
        let lost: Vec<_> = self.acknowledged.difference(&there).collect();
        assert!(
            lost.is_empty(),
            "writer {writer}: acknowledged, and lost: {lost:?}"
        );
        let may_be: BTreeSet<u64> = self.acknowledged.union(&self.unknown).copied().collect();
        let foreign: Vec<_> = there.difference(&may_be).collect();
        assert!(
            foreign.is_empty(),
            "writer {writer}: never appended, but there: {foreign:?}"
        );
    }
}

fn key_name(writer: usize, key: u64) -> String {
    format!("writer-{writer}-{key}")
}

/// The numbers in a value.
fn numbers(value: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(value).unwrap();
    let numbers = text.split_terminator(';');
    numbers.map(|number| number.parse().unwrap()).collect()
}
