//! The clients: each asks, waits for its answer, and asks again, all in one thread that owns its reactor.
//!
//! A turn of the loop is one recvmmsg and one sendmmsg, whatever the number of clients that had news.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use electrode_client::RequestError;
use electrode_client::session::{Done, Session, Settings};
use electrode_vr::{ClientId, ReplicaId, Time};
use electrode_wire::{HEADER_BYTES, decode_reply, encode_request};
use indicatif::{ProgressBar, ProgressStyle};

use super::BenchError;
use super::recorder::Recorder;
use super::socket::{PATIENCE, Receiver, Sender, open};
use super::workload::{Application, OVERHEAD, Workload};

/// How often the sessions' timers are looked at.
const TICK: Duration = PATIENCE;

/// What to run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) replicas: Vec<SocketAddr>,
    pub(super) application: Application,
    pub(super) clients: usize,
    pub(super) value_size: usize,
    /// Before anything is measured.
    pub(super) warmup: Duration,
    /// Measure for this long, or ...
    pub(super) seconds: Option<Duration>,
    /// ... until so many requests have ended; whatever comes first.
    pub(super) requests: Option<u64>,
    /// Of each request.
    pub(super) deadline: Duration,
    /// Whether to draw a progress bar.
    pub(super) progress: bool,
}

/// A run.
pub(super) struct Load {
    receiver: Receiver,
    clients: Clients,
    bar: ProgressBar,
}

/// All clients, and what they have to say.
struct Clients {
    plan: Plan,
    started: Instant,
    sender: Sender,
    clients: Vec<OneClient>,
    by_session: HashMap<ClientId, usize>,
    recorder: Recorder,
    /// Requests of the measurement that were asked.
    asked: u64,
    /// Requests that are neither answered nor failed.
    open: usize,
    /// Whether any request was ever answered.
    answered: bool,
}

struct OneClient {
    session: Session,
    /// The session's name that `by_session` knows.
    name: ClientId,
    workload: Workload,
    asked_at: Time,
}

impl Load {
    pub(super) fn new(plan: Plan) -> io::Result<Load> {
        let slot = (HEADER_BYTES + plan.value_size + OVERHEAD).max(2048);
        let (receiver, sender) = open(&plan.replicas, slot)?;
        let bar = if plan.progress {
            bar(&plan)
        } else {
            ProgressBar::hidden()
        };
        Ok(Load {
            receiver,
            clients: Clients::new(plan, sender),
            bar,
        })
    }

    /// Runs the plan to its end.
    pub(super) fn run(mut self) -> Result<Recorder, BenchError> {
        let clients = &mut self.clients;
        for index in 0..clients.clients.len() {
            clients.ask(index, Time(0), Vec::new());
        }
        let mut next_tick = clients.now().plus(nanos(TICK));
        while clients.open > 0 {
            clients.sender.flush();
            let count = self.receiver.receive()?;
            let now = clients.now();
            for index in 0..count {
                let (from, bytes) = self.receiver.datagram(index);
                clients.on_datagram(now, from, bytes);
            }
            let now = clients.now();
            if now >= next_tick {
                next_tick = now.plus(nanos(TICK));
                clients.on_tick(now)?;
                self.bar.set_position(clients.progress(now));
            }
        }
        self.bar.finish_and_clear();
        Ok(self.clients.recorder)
    }
}

impl Clients {
    fn new(plan: Plan, sender: Sender) -> Clients {
        let random = RandomState::new();
        let settings = Settings {
            window: 1,
            queue: 1,
            ..Settings::new(plan.replicas.len())
        };
        let clients: Vec<OneClient> = (0..plan.clients)
            .map(|index| {
                let session = Session::new(settings.clone(), random.hash_one(index));
                let name = session.client();
                let workload = Workload::new(plan.application, name.0, plan.value_size);
                OneClient {
                    session,
                    name,
                    workload,
                    asked_at: Time(0),
                }
            })
            .collect();
        let by_session = clients
            .iter()
            .enumerate()
            .map(|(index, client)| (client.name, index))
            .collect();
        Clients {
            plan,
            started: Instant::now(),
            sender,
            clients,
            by_session,
            recorder: Recorder::new(),
            asked: 0,
            open: 0,
            answered: false,
        }
    }

    /// Asks a client's next request, unless the plan is fulfilled. `op` is a buffer to use.
    fn ask(&mut self, index: usize, now: Time, mut op: Vec<u8>) {
        if self.is_over(now) {
            return;
        }
        if self.is_measured(now) {
            self.asked += 1;
        }
        let client = &mut self.clients[index];
        client.workload.next(&mut op);
        client.asked_at = now;
        let deadline = now.plus(nanos(self.plan.deadline));
        if let Err(error) = client.session.submit(now, 0, op, deadline) {
            // Can't be: the value's size was checked, and the one place in the queue is free.
            self.fail(index, now, &error);
            return;
        }
        self.open += 1;
        if client.session.client() != client.name {
            self.by_session.remove(&client.name);
            client.name = client.session.client();
            self.by_session.insert(client.name, index);
        }
        self.transmit(index, now);
    }

    fn transmit(&mut self, index: usize, now: Time) {
        let sender = &mut self.sender;
        self.clients[index].session.transmit(now, |transmit| {
            sender.push(transmit.to.index(), |datagram| {
                encode_request(
                    &transmit.envelope,
                    transmit.client,
                    transmit.request,
                    transmit.op,
                    datagram,
                );
            });
        });
    }

    fn on_datagram(&mut self, now: Time, from: Option<SocketAddr>, bytes: &[u8]) {
        let Ok(reply) = decode_reply(bytes) else {
            return;
        };
        let sender = usize::from(reply.envelope.sender);
        if self.plan.replicas.get(sender).copied() != from {
            return;
        }
        let Some(index) = self.by_session.get(&reply.client).copied() else {
            return;
        };
        let client = &mut self.clients[index];
        match client
            .session
            .on_reply(now, ReplicaId(reply.envelope.sender), &reply)
        {
            Some(done) => self.on_done(index, now, done),
            None => {
                self.collect_failures(index, now);
                self.transmit(index, now);
            }
        }
    }

    fn on_done(&mut self, index: usize, now: Time, done: Done<'_>) {
        self.answered = true;
        self.open -= 1;
        let client = &mut self.clients[index];
        let right = client.workload.verify(done.result);
        let asked_at = client.asked_at;
        if self.is_measured(asked_at) {
            let latency = Duration::from_nanos(now.0 - asked_at.0);
            let since = self.since(now);
            self.recorder.reply(since, latency, right);
        } else if !right {
            // A wrong answer is one at any time.
            self.recorder.wrong += 1;
        }
        self.ask(index, now, done.op);
    }

    fn on_tick(&mut self, now: Time) -> Result<(), RequestError> {
        for index in 0..self.clients.len() {
            let session = &mut self.clients[index].session;
            if session.deadline().is_some_and(|deadline| deadline <= now) {
                session.on_time(now);
                if !self.answered
                    && let Some(failed) = session.poll_failed()
                {
                    return Err(failed.error);
                }
                self.collect_failures(index, now);
                self.transmit(index, now);
            }
        }
        Ok(())
    }

    /// A client whose request failed goes on with the next one.
    fn collect_failures(&mut self, index: usize, now: Time) {
        while let Some(failed) = self.clients[index].session.poll_failed() {
            self.open -= 1;
            self.fail(index, now, &failed.error);
            self.ask(index, now, Vec::new());
        }
    }

    fn fail(&mut self, index: usize, now: Time, error: &RequestError) {
        if self.is_measured(self.clients[index].asked_at) {
            let since = self.since(now);
            self.recorder.failure(since, &error.to_string());
        }
    }

    fn is_measured(&self, asked_at: Time) -> bool {
        asked_at.0 >= nanos(self.plan.warmup)
    }

    fn is_over(&self, now: Time) -> bool {
        let time = self
            .plan
            .seconds
            .is_some_and(|seconds| now.0 >= nanos(self.plan.warmup + seconds));
        time || self
            .plan
            .requests
            .is_some_and(|requests| self.asked >= requests)
    }

    /// Since the begin of the measurement.
    fn since(&self, now: Time) -> Duration {
        Duration::from_nanos(now.0.saturating_sub(nanos(self.plan.warmup)))
    }

    /// In the bar's units: requests, or milliseconds.
    fn progress(&self, now: Time) -> u64 {
        match self.plan.requests {
            Some(_) => self.recorder.ended(),
            None => now.0 / 1_000_000,
        }
    }

    fn now(&self) -> Time {
        Time(nanos(self.started.elapsed()))
    }
}

fn bar(plan: &Plan) -> ProgressBar {
    let total = plan.warmup + plan.seconds.unwrap_or_default();
    let milliseconds = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
    let (length, unit) = match plan.requests {
        Some(requests) => (requests, "{pos}/{len} requests"),
        None => (milliseconds, "{elapsed}"),
    };
    let style = ProgressStyle::with_template(&format!("{{bar:40}} {unit} {{eta}} left"));
    let bar = ProgressBar::new(length);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
