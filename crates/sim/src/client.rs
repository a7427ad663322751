//! A client: one session after the other, several requests in flight, asks again until it is answered, and remembers what it
//! heard.
//!
//! When its session has expired, it does what the shipped client does (`crates/client/src/session.rs`): the fate of what is in
//! flight isn't known, and the next request begins a new session.

use std::collections::BTreeMap;
use std::sync::Arc;

use electrode_apps::KvResult;
use electrode_vr::{ClientId, GroupId, Reply, RequestNumber, View};
use electrode_wire::{CLIENT, Envelope, decode_reply, encode_request};

use crate::history::Call;
use crate::machine::{OP_FRONT, OpKey, REPLY_FRONT, key_of, place_of};
use crate::plan::{MS, Plan};
use crate::random::Random;
use crate::workload::Workload;

/// Nanoseconds after which nobody waits for a request any more, where sessions are so few that one expires as it begins.
const PATIENCE: u64 = 250 * MS;
/// Sessions of one client are so far apart, more than there are clients.
const APART: u64 = 64;

/// A request without its answer.
struct Open {
    op: Arc<[u8]>,
    since: u64,
    again_at: u64,
    /// Where it stands in the history.
    call: usize,
    /// The place in the order of the latest request that anybody knew to be done when this one was made.
    after: u64,
}

/// What clients know together: the latest place in the order that any of them was told.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) latest: u64,
    /// Every op that was acknowledged.
    pub(crate) acknowledged: Vec<OpKey>,
}

pub(crate) struct Client {
    pub(crate) index: usize,
    id: ClientId,
    replicas: usize,
    /// Where the primary is believed to be.
    guess: usize,
    /// The highest view in an answer: older ones come from replicas that were left behind.
    view: View,
    /// Whether sessions are fewer than clients, so that they expire.
    expires: bool,
    /// Whether the replicas know the session: its first request was executed.
    established: bool,
    /// The number of the session's next request, and how many there were in earlier sessions.
    next: u64,
    earlier: u64,
    next_read: u64,
    /// Whether it reads by requests that leave no trace, which a primary may answer by its lease.
    reads: bool,
    left: u64,
    pipeline: usize,
    think: u64,
    workload: Workload,
    open: BTreeMap<RequestNumber, Open>,
    pub(crate) history: Vec<Call>,
    /// What identifies the op of each call.
    pub(crate) keys: Vec<OpKey>,
    pub(crate) done: u64,
    pub(crate) reads_done: u64,
    /// Sessions that expired, and the requests of unknown fate that they left.
    pub(crate) expired: u64,
    pub(crate) unknown: u64,
    think_until: u64,
    /// What it asks, apart from when: so that two runs can ask the same.
    choices: Random,
    random: Random,
}

impl Client {
    pub(crate) fn new(plan: &Plan, index: usize, requests: u64, mut random: Random) -> Client {
        Client {
            index,
            id: ClientId(index as u64 + 1),
            replicas: plan.replicas,
            guess: random.index(plan.replicas),
            view: View(0),
            expires: plan.sessions_expire(),
            established: false,
            next: 1,
            earlier: 0,
            next_read: RequestNumber::READS,
            reads: plan.reads,
            left: requests,
            pipeline: plan.pipeline,
            think: plan.think,
            workload: Workload::new(
                u8::try_from(index).expect("few clients"),
                plan.keys,
                plan.large,
            ),
            open: BTreeMap::new(),
            history: Vec::new(),
            keys: Vec::new(),
            done: 0,
            reads_done: 0,
            expired: 0,
            unknown: 0,
            think_until: 0,
            choices: random.fork(),
            random,
        }
    }

    /// Whether nothing is in flight.
    pub(crate) fn idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether everything was asked and answered.
    pub(crate) fn finished(&self) -> bool {
        self.left == 0 && self.idle()
    }

    /// How many requests were answered, or ended with their session.
    pub(crate) fn ended(&self) -> u64 {
        self.done + self.unknown
    }

    /// How many requests it has still to make.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// The first request of a session goes alone, since the session begins with it. Later ones keep close to the oldest that
    /// is open, since its reply isn't kept for ever.
    fn may_begin(&self) -> bool {
        let room = if self.established { self.pipeline } else { 1 };
        let oldest = self
            .open
            .first_key_value()
            .map_or(self.next, |(number, _)| number.0);
        self.open.len() < room && self.next < oldest + 8 && self.left > 0
    }

    pub(crate) fn next_at(&self) -> u64 {
        let again = self
            .open
            .values()
            .map(|open| open.again_at)
            .min()
            .unwrap_or(u64::MAX);
        if self.may_begin() {
            again.min(self.think_until)
        } else {
            again
        }
    }

    /// What is to be sent now: the replica, and the request's bytes.
    pub(crate) fn due(&mut self, now: u64, known: &Known) -> Vec<(usize, Vec<u8>)> {
        if self.expires && self.nobody_waits(now) {
            self.begin_session();
        }
        while self.may_begin() && self.think_until <= now {
            self.begin(now, known);
        }
        let mut sent = Vec::new();
        for (number, open) in &mut self.open {
            if open.again_at <= now {
                if self.random.chance(300) {
                    self.guess = self.random.index(self.replicas);
                }
                open.again_at = now + 15 * MS + self.random.below(10 * MS);
                let envelope = Envelope {
                    group: GroupId(0),
                    epoch: 0,
                    sender: CLIENT,
                    flags: 0,
                };
                let mut bytes = Vec::new();
                encode_request(&envelope, self.id, *number, &open.op, &mut bytes);
                // A read may be asked of anybody who might believe to lead.
                let astray = number.is_read() && self.random.chance(400);
                let to = if astray {
                    self.random.index(self.replicas)
                } else {
                    self.guess
                };
                sent.push((to, bytes));
            }
        }
        sent
    }

    /// The requests in flight that are of the session: reads have numbers of their own.
    fn of_session(&self) -> impl Iterator<Item = &Open> {
        let all = self.open.iter();
        all.filter(|(number, _)| !number.is_read())
            .map(|(_, open)| open)
    }

    fn nobody_waits(&self, now: u64) -> bool {
        self.of_session().next().is_some()
            && self.of_session().all(|open| open.since + PATIENCE <= now)
    }

    /// What became of the session's requests isn't known.
    fn begin_session(&mut self) {
        self.expired += 1;
        self.unknown += self.of_session().count() as u64;
        self.open.retain(|number, _| number.is_read());
        self.id.0 += APART;
        self.earlier += self.next - 1;
        self.next = 1;
        self.established = false;
    }

    fn begin(&mut self, now: u64, known: &Known) {
        let read = self.reads && self.choices.chance(400);
        let (action, number) = if read {
            (self.workload.read(&mut self.choices), self.next_read)
        } else {
            let count = self.earlier + self.next;
            let action = self.workload.action(count, &mut self.choices);
            (action, self.next)
        };
        let mut op = number.to_le_bytes().to_vec();
        op.extend(self.id.0.to_le_bytes());
        debug_assert_eq!(op.len(), OP_FRONT);
        op.extend(action.encode());
        let open = Open {
            op: op.into(),
            since: now,
            again_at: now,
            call: self.history.len(),
            after: known.latest,
        };
        self.history.push(Call {
            action,
            invoked: now,
            returned: None,
            hint: 0,
        });
        self.keys.push((number, self.id.0));
        self.open.insert(RequestNumber(number), open);
        if read {
            self.next_read += 1;
        } else {
            self.next += 1;
        }
        self.left -= 1;
        self.think_until = now + self.random.below(self.think);
    }

    /// A reply arrives. An error is a violation of what clients are promised.
    pub(crate) fn on_datagram(
        &mut self,
        bytes: &[u8],
        now: u64,
        known: &mut Known,
    ) -> Result<(), String> {
        let Ok(reply) = decode_reply(bytes) else {
            return Ok(());
        };
        if reply.client != self.id {
            return Ok(());
        }
        let (view, number) = (reply.view, reply.request);
        let reply = Reply::from(reply.reply);
        let newest = view >= self.view;
        if newest && !matches!(reply, Reply::Unavailable) {
            self.view = view;
            self.guess = view.primary(self.replicas).index();
        }
        let Some(open) = self.open.get_mut(&number) else {
            return Ok(());
        };
        match reply {
            Reply::Done(bytes) => return self.on_done(number, &bytes, now, known),
            Reply::NotPrimary if newest => open.again_at = now + MS,
            Reply::Busy { retry_after_ms } => open.again_at = now + u64::from(retry_after_ms) * MS,
            Reply::NoSession if newest && self.expires && !number.is_read() => {
                self.begin_session();
            }
            Reply::NoSession if newest => {
                return Err(format!(
                    "request {number} of client {}: no session is evicted in these runs",
                    self.index
                ));
            }
            Reply::NotRead => {
                return Err(format!(
                    "request {number} of client {} is a read, and was refused as none",
                    self.index
                ));
            }
            Reply::TooLarge { limit } => {
                return Err(format!(
                    "no op is too large in these runs, but {limit} is the limit"
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn on_done(
        &mut self,
        number: RequestNumber,
        bytes: &[u8],
        now: u64,
        known: &mut Known,
    ) -> Result<(), String> {
        let open = self.open.remove(&number).expect("it was just found");
        let client = self.index;
        if bytes.len() < REPLY_FRONT || key_of(&bytes[8..]) != key_of(&open.op) {
            return Err(format!(
                "client {client} got the reply to another request than its {number}"
            ));
        }
        let place = place_of(bytes);
        // A read stands behind the op whose place it has.
        let read = number.is_read();
        if place < open.after || place == open.after && !read {
            return Err(format!(
                "request {number} of client {client} was begun after place {} was done, but got place {place}",
                open.after
            ));
        }
        known.latest = known.latest.max(place);
        if !read {
            known.acknowledged.push(key_of(&open.op));
        }
        self.done += 1;
        self.reads_done += u64::from(read);
        self.established |= !read;
        let call = &mut self.history[open.call];
        let Some(outcome) = call.action.outcome(&bytes[REPLY_FRONT..]) else {
            let read = KvResult::decode(&bytes[REPLY_FRONT..]);
            return Err(format!(
                "request {number} of client {client} got no answer to {:?}: {read:?}",
                call.action
            ));
        };
        self.workload.learn(&call.action, &outcome);
        call.returned = Some((now, outcome));
        call.hint = 2 * place + u64::from(read);
        Ok(())
    }
}
