//! A replica on a bench: time goes on only when a test says so.

use std::sync::Arc;

use electrode_vr::{
    ClientId, Config, Digest, Effect, Entry, FastPathCommand, FastPathEvent, GroupId, Input,
    Limits, Message, Nonce, Note, OpNumber, Prepare, Promise, Replica, ReplicaId, Reply,
    RequestNumber, RestoreError, Snapshot, Start, StateMachine, Time, Timing, View,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const GROUP: GroupId = GroupId(7);

/// Replies with the number of ops so far and the op.
#[derive(Debug, Default)]
pub(crate) struct Tape(Vec<Vec<u8>>);

impl StateMachine for Tape {
    fn apply(&mut self, op: &[u8]) -> Vec<u8> {
        self.0.push(op.to_vec());
        let mut reply = vec![u8::try_from(self.0.len()).unwrap_or(u8::MAX)];
        reply.extend(op);
        reply
    }

    fn read(&self, op: &[u8]) -> Option<Vec<u8>> {
        (op == b"?").then(|| vec![u8::try_from(self.0.len()).unwrap_or(u8::MAX)])
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|op| [&[u8::try_from(op.len()).unwrap()], &op[..]].concat())
            .collect()
    }

    fn restore(&mut self, mut snapshot: &[u8]) -> Result<(), RestoreError> {
        let mut ops = Vec::new();
        while let [length, rest @ ..] = snapshot {
            let Some((op, rest)) = rest.split_at_checked(usize::from(*length)) else {
                return Err(RestoreError("cut short".into()));
            };
            ops.push(op.to_vec());
            snapshot = rest;
        }
        self.0 = ops;
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest(self.0.len() as u64)
    }
}

pub(crate) struct Bench {
    pub(crate) replica: Replica<Tape>,
    pub(crate) now: Time,
}

pub(crate) fn config(replicas: usize, index: u8) -> Config {
    Config {
        replicas,
        index: ReplicaId(index),
        timing: Timing {
            heartbeat: 25 * MS,
            view_change: 150 * MS,
            resend: 10 * MS,
            retry: 50 * MS,
            lease: 0,
        },
        limits: Limits {
            batch_ops: 4,
            window: 2,
            queue: 8,
            session_requests: 4,
            ..Limits::default()
        },
        fast_path: false,
        lease_reads: false,
        durability: electrode_vr::Durability::Memory,
    }
}

impl Bench {
    /// A replica that hasn't had its first tick.
    pub(crate) fn unstarted(config: Config, start: Start) -> Bench {
        let now = Time(1000 * MS);
        Bench {
            replica: Replica::new(config, start, Tape::default(), now, Nonce(1)),
            now,
        }
    }

    /// A replica of a bootstrapped group, normal in view 0.
    pub(crate) fn normal(config: Config) -> Bench {
        let mut bench = Bench::unstarted(config, Start::Bootstrap(GROUP));
        bench.tick();
        bench
    }

    pub(crate) fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.replica.step(self.now, input, &mut out);
        out
    }

    pub(crate) fn tick(&mut self) -> Vec<Effect> {
        self.step(Input::Tick { entropy: Nonce(99) })
    }

    /// Time goes on, then there is a tick.
    pub(crate) fn tick_after(&mut self, ms: u64) -> Vec<Effect> {
        self.now = self.now.plus(ms * MS);
        self.tick()
    }

    pub(crate) fn flush(&mut self) -> Vec<Effect> {
        self.step(Input::Flush)
    }

    pub(crate) fn hear(&mut self, from: u8, message: Message) -> Vec<Effect> {
        self.step(Input::Message {
            from: ReplicaId(from),
            message,
        })
    }

    pub(crate) fn kernel(&mut self, event: FastPathEvent) -> Vec<Effect> {
        self.step(Input::FastPath(event))
    }

    pub(crate) fn request(&mut self, client: u64, number: u64, op: &str) -> Vec<Effect> {
        let Entry {
            client,
            request,
            op,
        } = entry(client, number, op);
        self.step(Input::Request {
            client,
            request,
            op,
        })
    }

    pub(crate) fn shows(&self) -> Snapshot {
        self.replica.snapshot()
    }

    /// Moves to `view` as a voter, on the word of `voter`; then the list that this gave.
    pub(crate) fn vote(&mut self, voter: u8, view: u64) -> Vec<Effect> {
        self.hear(voter, Message::StartViewChange { view: View(view) })
    }
}

pub(crate) fn entry(client: u64, number: u64, op: &str) -> Entry {
    Entry {
        client: ClientId(client),
        request: RequestNumber(number),
        op: Arc::from(op.as_bytes()),
    }
}

/// Requests 1, 2, ... of client 1.
pub(crate) fn entries(ops: &[&str]) -> Vec<Entry> {
    ops.iter()
        .zip(1..)
        .map(|(op, number)| entry(1, number, op))
        .collect()
}

pub(crate) fn prepare(view: u64, first: u64, commit: u64, entries: Vec<Entry>) -> Prepare {
    Prepare {
        view: View(view),
        first: OpNumber(first),
        commit: OpNumber(commit),
        entries,
    }
}

/// The digest of the log that has just these entries.
pub(crate) fn digest_of(entries: &[Entry]) -> Digest {
    let mut scratch = Bench::normal(Config {
        replicas: 3,
        ..config(3, 1)
    });
    for (entry, op) in entries.iter().zip(1..) {
        let one = prepare(0, op, op - 1, vec![entry.clone()]);
        scratch.hear(0, Message::Prepare(one));
    }
    scratch
        .replica
        .log_digest_at(OpNumber(entries.len() as u64))
        .unwrap()
}

pub(crate) fn send(to: u8, message: Message) -> Effect {
    Effect::Send {
        to: ReplicaId(to),
        message,
    }
}

pub(crate) fn prepare_ok(view: u64, op: u64, last_op: u64) -> Message {
    Message::PrepareOk {
        view: View(view),
        op: OpNumber(op),
        last_op: OpNumber(last_op),
    }
}

pub(crate) fn commit(view: u64, commit: u64) -> Message {
    Message::Commit {
        view: View(view),
        commit: OpNumber(commit),
    }
}

pub(crate) fn start_view(view: u64, commit: u64, log: &[Entry]) -> Message {
    Message::StartView {
        view: View(view),
        op: OpNumber(log.len() as u64),
        commit: OpNumber(commit),
        digest: digest_of(log),
    }
}

pub(crate) fn do_view_change(view: u64, last_normal: u64, commit: u64, log: &[Entry]) -> Message {
    Message::DoViewChange {
        view: View(view),
        last_normal: View(last_normal),
        op: OpNumber(log.len() as u64),
        commit: OpNumber(commit),
        digest: digest_of(log),
    }
}

pub(crate) fn done(client: u64, number: u64, view: u64, reply: &[u8]) -> Effect {
    answer(client, number, view, Reply::Done(Arc::from(reply)))
}

pub(crate) fn answer(client: u64, number: u64, view: u64, reply: Reply) -> Effect {
    let (client, request) = (ClientId(client), RequestNumber(number));
    Effect::Reply {
        client,
        request,
        view: View(view),
        reply,
    }
}

pub(crate) fn persist(view: u64) -> Effect {
    Effect::Persist(Promise {
        group: GROUP,
        view: View(view),
    })
}

pub(crate) fn entered(status: &'static str, view: u64, primary: bool) -> Effect {
    Effect::Note(Note::Entered {
        status,
        view: View(view),
        primary,
    })
}

pub(crate) fn fast(command: FastPathCommand) -> Effect {
    Effect::FastPath(command)
}

/// The nonce and the op of the GetState that `effects` ends with.
pub(crate) fn asked_state(effects: &[Effect]) -> (Nonce, OpNumber) {
    match effects.last() {
        Some(Effect::Send {
            message: Message::GetState { nonce, after, .. },
            ..
        }) => (*nonce, *after),
        other => panic!("no GetState but {other:?}"),
    }
}

/// The answer to it: all of `log` after `after`.
pub(crate) fn new_state(
    view: u64,
    nonce: Nonce,
    after: u64,
    log: &[Entry],
    commit: u64,
) -> Message {
    let split = usize::try_from(after).unwrap();
    Message::NewState {
        view: View(view),
        nonce,
        after: OpNumber(after),
        digest_after: digest_of(&log[..split]),
        entries: log[split..].to_vec(),
        op: OpNumber(log.len() as u64),
        digest: digest_of(log),
        commit: OpNumber(commit),
    }
}
