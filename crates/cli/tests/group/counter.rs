//! A counter that clients raise by compare-and-swap, and the proof that its history has one order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use electrode_apps::{KvOp, KvResult};
use electrode_client::Client;

use crate::group::{Group, connect};

const KEY: &[u8] = b"counter";

/// An op that isn't answered by then counts as unknown.
const DEADLINE: Duration = Duration::from_secs(20);

/// Clients that raise one counter, each reading it first.
pub(crate) struct Counter {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// The highest value that anybody was told of: nobody who asks later may see less.
    highest: AtomicU64,
    /// Who was told that they had raised the counter to this value.
    raised: Mutex<BTreeMap<u64, usize>>,
    /// Swaps without an answer.
    unknown: AtomicU64,
}

impl Counter {
    /// Starts `clients` clients on the clients' host.
    pub(crate) fn start(group: &Group, clients: usize) -> Counter {
        let shared = Arc::new(Shared::default());
        let clients = (0..clients).map(|index| {
            let (host, addresses) = (group.client.clone(), group.addresses.clone());
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let client = connect(&host, &addresses, DEADLINE);
                while !shared.stop.load(Ordering::Relaxed) {
                    shared.raise(index, &client);
                    thread::sleep(Duration::from_micros(500));
                }
            })
        });
        Counter {
            clients: clients.collect(),
            shared,
        }
    }

    /// Ends the clients; returns how often the counter was raised, which is proved to have happened in one order.
    #[track_caller]
    pub(crate) fn prove(self, group: &Group) -> usize {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        let last = read(&group.connect(DEADLINE)).expect("the group answers");
        let raised = self.shared.raised.lock().unwrap();
        let unknown = self.shared.unknown.load(Ordering::Relaxed);
        let highest = self.shared.highest.load(Ordering::Relaxed);
        assert!(last >= highest, "{highest} was seen, and later {last}");
        // What nobody was told of is somebody's swap that had no answer.
        let missing = last - raised.len() as u64;
        assert!(
            missing <= unknown,
            "the counter is at {last}, {} raises were acknowledged, and only {unknown} had no answer",
            raised.len()
        );
        assert!(!raised.is_empty(), "nobody raised the counter");
        raised.len()
    }
}

impl Shared {
    fn raise(&self, index: usize, client: &Client) {
        let seen = self.highest.load(Ordering::SeqCst);
        let Some(value) = read(client) else {
            return;
        };
        assert!(value >= seen, "{seen} was seen, and later {value}");
        self.highest.fetch_max(value, Ordering::SeqCst);
        let (old, new) = (value.to_string(), (value + 1).to_string());
        let op = KvOp::CompareAndSwap {
            key: KEY,
            expected: (value > 0).then_some(old.as_bytes()),
            new: new.as_bytes(),
        };
        let result = match smol::block_on(client.request(op.encode())) {
            Ok(result) => result,
            Err(error) => {
                let unknown = u64::from(error.outcome_unknown());
                self.unknown.fetch_add(unknown, Ordering::Relaxed);
                return;
            }
        };
        match KvResult::decode(&result) {
            Ok(KvResult::Stored) => {
                self.highest.fetch_max(value + 1, Ordering::SeqCst);
                let other = self.raised.lock().unwrap().insert(value + 1, index);
                assert_eq!(other, None, "{} was reached twice", value + 1);
            }
            Ok(KvResult::Mismatch { actual }) => {
                let actual = number(actual);
                assert!(actual > value, "{value} was read, and later {actual}");
                self.highest.fetch_max(actual, Ordering::SeqCst);
            }
            other => panic!("a swap was answered by {other:?}"),
        }
    }
}

fn read(client: &Client) -> Option<u64> {
    let op = KvOp::Get { key: KEY };
    let result = smol::block_on(client.request(op.encode())).ok()?;
    match KvResult::decode(&result) {
        Ok(KvResult::Value(value)) => Some(number(value)),
        other => panic!("a read was answered by {other:?}"),
    }
}

/// An absent counter is 0.
fn number(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |value| {
        std::str::from_utf8(value).unwrap().parse().unwrap()
    })
}
