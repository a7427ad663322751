//! A client: one session, several requests in flight, asks again until it is answered, and remembers what it heard.

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

/// A request without its answer.
struct Open {
    op: Arc<[u8]>,
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
    next: u64,
    next_read: u64,
    /// Whether it reads by requests that leave no trace, which a primary may answer by its lease.
    reads: bool,
    left: u64,
    pipeline: usize,
    think: u64,
    workload: Workload,
    open: BTreeMap<RequestNumber, Open>,
    pub(crate) history: Vec<Call>,
    pub(crate) done: u64,
    pub(crate) reads_done: u64,
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
            next: 1,
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
            done: 0,
            reads_done: 0,
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

    /// How many requests it has still to make.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// The first request of a session goes alone, since the session begins with it. Later ones keep close to the oldest that
    /// is open, since its reply isn't kept for ever.
    fn may_begin(&self) -> bool {
        let room = if self.done == self.reads_done {
            1
        } else {
            self.pipeline
        };
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

    fn begin(&mut self, now: u64, known: &Known) {
        let read = self.reads && self.choices.chance(400);
        let (action, number) = if read {
            (self.workload.read(&mut self.choices), self.next_read)
        } else {
            let action = self.workload.action(self.next, &mut self.choices);
            (action, self.next)
        };
        let mut op = number.to_le_bytes().to_vec();
        op.extend(self.id.0.to_le_bytes());
        debug_assert_eq!(op.len(), OP_FRONT);
        op.extend(action.encode());
        let open = Open {
            op: op.into(),
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
