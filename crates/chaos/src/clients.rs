//! The load: the simulator's workload, by the client library that ships, and a history of what was asked and answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use electrode_client::{Client, Options, RequestError};
use electrode_lab::Host;
use electrode_sim::{Action, Call, Outcome, Random, Step, Workload};

/// Sessions, over the clients' hosts in turns.
const SESSIONS: usize = 4;

/// Requests that a session has in flight.
const IN_FLIGHT: usize = 3;

/// Keys that the clients use at a time; few, so that they get in each other's way.
pub(crate) const KEYS: usize = 5;

/// Bytes of the few values that need more than one packet.
const LARGE: usize = 1700;

/// How long clients wait for an answer before it counts as unknown; sessions differ, so that some give up where others don't.
const DEADLINES: [Duration; 2] = [Duration::from_secs(4), Duration::from_millis(600)];

/// One call of those that were made, and whether it counts.
#[derive(Debug)]
struct Asked {
    call: Call,
    /// It is certain that it was never executed, and never will be.
    refused: bool,
}

/// What the clients' tasks share.
#[derive(Debug)]
struct Shared {
    started: Instant,
    stop: AtomicBool,
    first_key: AtomicUsize,
    history: Mutex<Vec<Asked>>,
    violations: Mutex<Vec<String>>,
    answered: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    /// When the last answer came, and the longest time between two, in nanoseconds since the start.
    last_answer: AtomicU64,
    longest_stall: AtomicU64,
    /// Per task when its latest answered request was begun.
    begun: Vec<AtomicU64>,
    /// Nanoseconds between two requests of a task, on average.
    think: u64,
}

/// The clients.
#[derive(Debug)]
pub(crate) struct Clients {
    sessions: Vec<Client>,
    shared: Arc<Shared>,
    random: Random,
    tasks: Vec<smol::Task<()>>,
    /// Per task how many requests it has made: no value is written twice.
    made: Vec<Arc<AtomicU64>>,
}

impl Clients {
    /// Opens sessions on these hosts; nothing is asked yet.
    pub(crate) fn connect(
        hosts: &[Host],
        replicas: &[SocketAddr],
        rate: u32,
        seed: u64,
    ) -> Result<Clients> {
        let mut sessions = Vec::new();
        for session in 0..SESSIONS {
            let options = Options {
                deadline: DEADLINES[session % DEADLINES.len()],
                ..Options::new(replicas.to_vec())
            };
            let host = &hosts[session / DEADLINES.len() % hosts.len()];
            sessions.push(host.in_namespace(|| Client::connect(options))??);
        }
        let tasks = SESSIONS * IN_FLIGHT;
        Ok(Clients {
            sessions,
            shared: Arc::new(Shared {
                started: Instant::now(),
                stop: AtomicBool::new(false),
                first_key: AtomicUsize::new(0),
                history: Mutex::default(),
                violations: Mutex::default(),
                answered: AtomicU64::new(0),
                unknown: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                last_answer: AtomicU64::new(0),
                longest_stall: AtomicU64::new(0),
                begun: (0..tasks).map(|_| AtomicU64::new(0)).collect(),
                think: 1_000_000_000 * tasks as u64 / u64::from(rate),
            }),
            random: Random::new(seed),
            tasks: Vec::new(),
            made: (0..tasks).map(|_| Arc::default()).collect(),
        })
    }

    /// Begins to ask, for keys from this one on.
    pub(crate) fn begin(&mut self, first_key: usize) -> Result<()> {
        self.shared.stop.store(false, Ordering::Relaxed);
        self.shared.first_key.store(first_key, Ordering::Relaxed);
        self.shared
            .last_answer
            .store(self.shared.now(), Ordering::Relaxed);
        for task in 0..self.made.len() {
            let one = One {
                task,
                client: self.sessions[task % SESSIONS].clone(),
                shared: Arc::clone(&self.shared),
                workload: Workload::new(u8::try_from(task)?, KEYS, LARGE),
                made: Arc::clone(&self.made[task]),
                random: self.random.fork(),
            };
            self.tasks.push(smol::spawn(one.run()));
        }
        Ok(())
    }

    /// Asks for nothing more, and waits for what is under way.
    pub(crate) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            smol::block_on(task);
        }
    }

    /// Reads all these keys, so that the history says what became of them; each has to be answered within this time.
    pub(crate) fn read(&self, keys: std::ops::Range<usize>, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        for key in keys {
            loop {
                let action = Action::Single(key, Step::Get);
                let at = self.shared.ask(action.clone());
                let answer = smol::block_on(self.sessions[0].request(action.encode()));
                let answered = answer.is_ok();
                let said = answer.as_ref().err().map(ToString::to_string);
                self.shared.answer(at, &action, answer);
                if answered {
                    break;
                }
                if Instant::now() > until {
                    bail!("key {key} can't be read: {}", said.unwrap_or_default());
                }
            }
        }
        Ok(())
    }

    /// Whether every task has an answer to something that it asked after this moment.
    pub(crate) fn all_answered_since(&self, since: Instant) -> bool {
        let since = since.saturating_duration_since(self.shared.started);
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let begun = self.shared.begun.iter();
        begun
            .into_iter()
            .all(|at| at.load(Ordering::Relaxed) > since)
    }

    /// Requests that were answered, of unknown fate, and refused.
    pub(crate) fn counts(&self) -> [u64; 3] {
        let Shared {
            answered,
            unknown,
            refused,
            ..
        } = &*self.shared;
        [answered, unknown, refused].map(|count| count.load(Ordering::Relaxed))
    }

    /// The longest time between two answers to any client since the last call of this.
    pub(crate) fn take_longest_stall(&self) -> Duration {
        self.shared.note_stall(self.shared.now());
        Duration::from_nanos(self.shared.longest_stall.swap(0, Ordering::Relaxed))
    }

    /// What clients were told that can't be an answer.
    pub(crate) fn violations(&self) -> Vec<String> {
        lock(&self.shared.violations).clone()
    }

    /// The calls on these keys, without those that are known not to have been executed.
    pub(crate) fn history(&self, keys: std::ops::Range<usize>) -> Vec<Call> {
        let history = lock(&self.shared.history);
        let calls = history.iter().filter(|asked| {
            let on = asked.call.action.keys();
            !asked.refused && on.iter().all(|key| keys.contains(key))
        });
        calls.map(|asked| asked.call.clone()).collect()
    }
}

/// A task: a request, its answer, a pause, and so on.
struct One {
    task: usize,
    client: Client,
    shared: Arc<Shared>,
    workload: Workload,
    made: Arc<AtomicU64>,
    random: Random,
}

impl One {
    async fn run(mut self) {
        self.workload
            .move_to(self.shared.first_key.load(Ordering::Relaxed));
        loop {
            let think = self.random.below(2 * self.shared.think);
            smol::Timer::after(Duration::from_nanos(think)).await;
            if self.shared.stop.load(Ordering::Relaxed) {
                return;
            }
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            let action = showing(self.workload.action(number, &mut self.random));
            let reads = matches!(action, Action::Single(_, Step::Get));
            let at = self.shared.ask(action.clone());
            let begun = self.shared.now();
            let answer = if reads && self.random.chance(700) {
                self.client.read(action.encode()).await
            } else {
                self.client.request(action.encode()).await
            };
            if let Some(outcome) = self.shared.answer(at, &action, answer) {
                self.shared.begun[self.task].store(begun, Ordering::Relaxed);
                self.workload.learn(&action, &outcome);
            }
        }
    }
}

/// The same action, but so that every answer shows each value that it depends on, not its length alone, or that it differs from
/// what was expected: what a call without an answer wrote then matters only if somebody saw it.
fn showing(action: Action) -> Action {
    match action {
        Action::Single(key, Step::Append(value)) => Action::Txn {
            compares: Vec::new(),
            success: vec![(key, Step::Append(value)), (key, Step::Get)],
            failure: Vec::new(),
        },
        Action::Single(..) => action,
        Action::Txn {
            compares,
            mut success,
            mut failure,
        } => {
            let written: Vec<usize> = success.iter().map(|(key, _)| *key).collect();
            success.extend(written.into_iter().map(|key| (key, Step::Get)));
            failure.extend(compares.iter().map(|(key, _)| (*key, Step::Get)));
            Action::Txn {
                compares,
                success,
                failure,
            }
        }
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes a call into the history, before it leaves.
    fn ask(&self, action: Action) -> usize {
        let mut history = lock(&self.history);
        history.push(Asked {
            call: Call {
                action,
                invoked: self.now(),
                returned: None,
                hint: 0,
            },
            refused: false,
        });
        history.len() - 1
    }

    /// Takes the answer to a call into the history; unacknowledged is unknown.
    fn answer(
        &self,
        at: usize,
        action: &Action,
        answer: Result<Vec<u8>, RequestError>,
    ) -> Option<Outcome> {
        let now = self.now();
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(error) if error.outcome_unknown() => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            Err(error) => {
                if !matches!(error, RequestError::Unavailable { .. }) {
                    self.violated(format!("{action:?} was answered by: {error}"));
                }
                self.refused.fetch_add(1, Ordering::Relaxed);
                lock(&self.history)[at].refused = true;
                return None;
            }
        };
        let Some(outcome) = action.outcome(&bytes) else {
            self.violated(format!("{action:?} was answered by {bytes:?}"));
            return None;
        };
        lock(&self.history)[at].call.returned = Some((now, outcome.clone()));
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.note_stall(now);
        self.last_answer.fetch_max(now, Ordering::Relaxed);
        Some(outcome)
    }

    fn note_stall(&self, now: u64) {
        let last = self.last_answer.load(Ordering::Relaxed);
        self.longest_stall
            .fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    }

    fn violated(&self, what: String) {
        lock(&self.violations).push(what);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
