//! The client's half of the protocol (VR Revisited, section 4.1, steps 1 and 7), without I/O, clock or randomness.
//!
//! A session numbers its requests from 1 without a gap and keeps up to a window of them in flight. What isn't answered
//! goes again to the primary it believes in, then to all. A request whose deadline has passed is reported and forgotten by
//! its owner, but not by the session: later numbers may be waiting behind it at the replicas, so it goes on
//! being sent as long as they are in flight, and afterwards a new session begins.

mod evidence;
mod reads;

use std::collections::VecDeque;

use electrode_vr::{ClientId, GroupId, ReplicaId, RequestNumber, Time, View};
use electrode_wire::{CLIENT, Envelope, ReplyRef, ReplyView};

use crate::RequestError;
use evidence::Evidence;

const MS: u64 = 1_000_000;

/// The bounds and times of a session.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The group's size.
    pub replicas: usize,
    /// Requests in flight; no more than the replicas keep replies for (64 unless they are told otherwise).
    pub window: usize,
    /// Requests that wait for the window.
    pub queue: usize,
    /// The longest operation, in bytes.
    pub op_bytes: usize,
    /// A request is sent again after this many nanoseconds, then after twice as many, and so on.
    pub retry: u64,
    /// But after this many at the latest.
    pub retry_most: u64,
}

impl Settings {
    /// What fits a group of `replicas` on a LAN: retries are frequent enough that a client isn't what takes longest when
    /// the primary has to be replaced.
    #[must_use]
    pub fn new(replicas: usize) -> Settings {
        Settings {
            replicas,
            window: 32,
            queue: 4096,
            op_bytes: 32 << 10,
            retry: 50 * MS,
            retry_most: 100 * MS,
        }
    }
}

/// One session after the other. The caller's `token` tells its requests apart.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    entropy: u64,
    client: ClientId,
    next: RequestNumber,
    /// The numbers so far can't be followed by others: the next request begins a new session.
    spent: bool,
    /// The replicas know the session: its first request was executed. Before, they would take a second request that
    /// overtakes the first for one of a session that they have forgotten.
    established: bool,
    group: GroupId,
    view: View,
    evidence: Evidence,
    pending: VecDeque<Pending>,
    /// Reads in flight, at most as many as may wait. They have numbers of their own, and aren't of the session.
    reads: VecDeque<Pending>,
    next_read: u64,
    queue: VecDeque<Queued>,
    failed: VecDeque<Failed>,
}

/// A datagram to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// To whom.
    pub to: ReplicaId,
    /// In which envelope.
    pub envelope: Envelope,
    /// The session.
    pub client: ClientId,
    /// The request's number.
    pub request: RequestNumber,
    /// The operation.
    pub op: &'a [u8],
}

/// A request that was executed, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done<'a> {
    /// The caller's.
    pub token: u64,
    /// The state machine's result.
    pub result: &'a [u8],
    /// The operation, handed back so that its buffer can be used again.
    pub op: Vec<u8>,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The caller's.
    pub token: u64,
    /// Why.
    pub error: RequestError,
}

/// Asked, but without a number yet.
#[derive(Debug)]
struct Queued {
    token: u64,
    op: Vec<u8>,
    since: Time,
    deadline: Time,
}

/// In flight.
#[derive(Debug)]
struct Pending {
    number: RequestNumber,
    asked: Queued,
    /// Nobody waits for it any more.
    abandoned: bool,
    /// How often its time ran out.
    retries: u32,
    retry_at: Time,
    due: Due,
}

impl Pending {
    fn new(number: RequestNumber, asked: Queued, now: Time) -> Pending {
        Pending {
            number,
            asked,
            abandoned: false,
            retries: 0,
            retry_at: now,
            due: Due::Primary,
        }
    }

    fn retry_if_due(&mut self, now: Time) {
        if self.retry_at <= now {
            self.retries += 1;
            self.due = if self.retries > 1 {
                Due::All
            } else {
                Due::Primary
            };
        }
    }
}

/// To whom a request has to go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nobody,
    Primary,
    All,
}

impl Session {
    /// A session that hasn't begun. `entropy` has to be random: the session's name comes from it.
    #[must_use]
    pub fn new(settings: Settings, entropy: u64) -> Session {
        let mut session = Session {
            evidence: Evidence::new(settings.replicas),
            settings,
            entropy,
            client: ClientId(0),
            next: RequestNumber(1),
            spent: true,
            established: false,
            group: GroupId(0),
            view: View(0),
            pending: VecDeque::new(),
            reads: VecDeque::new(),
            next_read: RequestNumber::READS,
            queue: VecDeque::new(),
            failed: VecDeque::new(),
        };
        session.renew();
        session
    }

    /// Takes a request; it ends as [`Done`] or [`Failed`] by `deadline`. Ask [`Session::transmit`] afterwards.
    ///
    /// # Errors
    /// [`RequestError::TooLarge`] and [`RequestError::QueueFull`]: the request wasn't taken.
    pub fn submit(
        &mut self,
        now: Time,
        token: u64,
        op: Vec<u8>,
        deadline: Time,
    ) -> Result<(), RequestError> {
        if op.len() > self.settings.op_bytes {
            return Err(RequestError::TooLarge {
                length: op.len(),
                limit: self.settings.op_bytes,
            });
        }
        if self.queue.len() >= self.settings.queue {
            return Err(RequestError::QueueFull {
                waiting: self.queue.len(),
            });
        }
        self.queue.push_back(Queued {
            token,
            op,
            since: now,
            deadline,
        });
        self.admit(now);
        Ok(())
    }

    /// Gives every datagram that is due to `send`.
    pub fn transmit(&mut self, now: Time, mut send: impl FnMut(Transmit<'_>)) {
        let envelope = Envelope {
            group: self.group,
            epoch: 0,
            sender: CLIENT,
            flags: 0,
        };
        self.transmit_list(now, envelope, false, &mut send);
        self.transmit_list(now, envelope, true, &mut send);
    }

    fn transmit_list(
        &mut self,
        now: Time,
        envelope: Envelope,
        reads: bool,
        send: &mut impl FnMut(Transmit<'_>),
    ) {
        let primary = self.view.primary(self.settings.replicas);
        let mut list = std::mem::take(if reads {
            &mut self.reads
        } else {
            &mut self.pending
        });
        for pending in &mut list {
            let due = std::mem::replace(&mut pending.due, Due::Nobody);
            if due == Due::Nobody {
                continue;
            }
            pending.retry_at = now.plus(self.wait_after(pending.retries));
            for to in replicas(self.settings.replicas) {
                if due == Due::All || to == primary {
                    self.evidence.sent(to);
                    let (client, request) = (self.client, pending.number);
                    send(Transmit {
                        to,
                        envelope,
                        client,
                        request,
                        op: &pending.asked.op,
                    });
                }
            }
        }
        if reads {
            self.reads = list;
        } else {
            self.pending = list;
        }
    }

    /// Takes a reply that came from the address of replica `from`. What isn't for this session, or not from a replica
    /// of its group, changes nothing.
    pub fn on_reply<'a>(
        &mut self,
        now: Time,
        from: ReplicaId,
        reply: &ReplyView<'a>,
    ) -> Option<Done<'a>> {
        if reply.envelope.sender != from.0
            || reply.client != self.client
            || self.ignore_group(reply)
        {
            return None;
        }
        if reply.request.is_read() {
            return self.on_read_reply(now, reply);
        }
        let index = self
            .pending
            .iter()
            .position(|pending| pending.number == reply.request)?;
        self.learn_view(reply.view);
        match reply.reply {
            ReplyRef::Done(result) => {
                let pending = self.pending.remove(index)?;
                self.established = true;
                self.retire_if_nobody_waits();
                self.admit(now);
                let Pending {
                    asked: Queued { token, op, .. },
                    abandoned,
                    ..
                } = pending;
                (!abandoned).then_some(Done { token, result, op })
            }
            // The view said who the primary is; should that be the sender itself, time will tell.
            ReplyRef::NotPrimary => None,
            ReplyRef::Busy { retry_after_ms } => {
                let wait = (u64::from(retry_after_ms) * MS).clamp(MS, self.settings.retry_most);
                self.pending[index].retry_at = now.plus(wait);
                // The primary lives: there is no reason to bother the others next.
                self.pending[index].retries = 0;
                None
            }
            // A primary that was cut off doesn't know of sessions that began without it.
            ReplyRef::NoSession if reply.view < self.view => {
                self.pending[index].retries = self.pending[index].retries.max(1);
                None
            }
            ReplyRef::NoSession => {
                // What became of any number of this session isn't known.
                for pending in std::mem::take(&mut self.pending) {
                    self.fail(pending, |_| RequestError::SessionLost);
                }
                self.spent = true;
                self.admit(now);
                None
            }
            ReplyRef::TooLarge { limit } => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let pending = self.pending.remove(index)?;
                let length = pending.asked.op.len();
                self.fail(pending, |_| RequestError::TooLarge { length, limit });
                self.settings.op_bytes = self.settings.op_bytes.min(limit);
                // Its number will never be executed, and so none after it.
                self.spent = true;
                self.retire_if_nobody_waits();
                self.admit(now);
                None
            }
            ReplyRef::Unavailable => {
                // Somebody else may be primary already: the next retry goes to all.
                self.pending[index].retries = self.pending[index].retries.max(1);
                None
            }
            // It wasn't asked as one.
            ReplyRef::NotRead => None,
        }
    }

    /// A datagram to this replica came back: nothing listens there (ICMP port unreachable).
    pub fn on_refused(&mut self, from: ReplicaId) {
        self.evidence.undelivered(from);
    }

    /// A datagram that [`Session::transmit`] gave didn't leave.
    pub fn on_send_failed(&mut self, to: ReplicaId) {
        self.evidence.undelivered(to);
    }

    /// Lets time pass: expired requests fail, unanswered ones become due again.
    pub fn on_time(&mut self, now: Time) {
        let expired = self.queue.iter().any(|queued| queued.deadline <= now);
        for queued in if expired {
            std::mem::take(&mut self.queue)
        } else {
            VecDeque::new()
        } {
            if queued.deadline <= now {
                let error = RequestError::Unavailable {
                    waited_ms: waited_ms(&queued, now),
                };
                self.failed.push_back(Failed {
                    token: queued.token,
                    error,
                });
            } else {
                self.queue.push_back(queued);
            }
        }
        for index in 0..self.pending.len() {
            let pending = &mut self.pending[index];
            if !pending.abandoned && pending.asked.deadline <= now {
                pending.abandoned = true;
                let error = self
                    .evidence
                    .judge(self.group, waited_ms(&pending.asked, now));
                self.failed.push_back(Failed {
                    token: pending.asked.token,
                    error,
                });
            }
            pending.retry_if_due(now);
        }
        for mut read in std::mem::take(&mut self.reads) {
            if read.asked.deadline <= now {
                let error = self.evidence.judge(self.group, waited_ms(&read.asked, now));
                self.fail(read, |_| error);
                continue;
            }
            read.retry_if_due(now);
            self.reads.push_back(read);
        }
        self.retire_if_nobody_waits();
        self.admit(now);
    }

    /// The next request that failed.
    pub fn poll_failed(&mut self) -> Option<Failed> {
        self.failed.pop_front()
    }

    /// When [`Session::on_time`] is due; none while nothing is asked.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let pending = self.pending.iter().map(|pending| match pending.abandoned {
            true => pending.retry_at,
            false => pending.retry_at.min(pending.asked.deadline),
        });
        let reads = self.reads.iter();
        pending
            .chain(reads.map(|read| read.retry_at.min(read.asked.deadline)))
            .chain(self.queue.iter().map(|queued| queued.deadline))
            .min()
    }

    /// The session's present name.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// The newest view that a replica told of.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// The group, 0 before the first reply.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The first reply tells the group; from then on others' replies are ignored, but remembered for the error.
    fn ignore_group(&mut self, reply: &ReplyView<'_>) -> bool {
        if self.group == GroupId(0) {
            self.group = reply.envelope.group;
        }
        let foreign = reply.envelope.group != self.group;
        self.evidence.heard(foreign.then_some(reply.envelope.group));
        foreign
    }

    /// A newer view has another primary: whatever is in flight goes there at once.
    fn learn_view(&mut self, view: View) {
        if view <= self.view {
            return;
        }
        self.view = view;
        for pending in self.pending.iter_mut().chain(&mut self.reads) {
            pending.due = Due::Primary;
            pending.retries = 0;
        }
    }

    /// Moves requests from the queue into flight as the window allows.
    fn admit(&mut self, now: Time) {
        while !self.queue.is_empty() {
            if self.spent {
                if !self.pending.is_empty() {
                    return;
                }
                self.renew();
            }
            // The replicas keep the replies to the last numbers, so the window is one of numbers.
            let oldest = self
                .pending
                .front()
                .map_or(self.next, |pending| pending.number);
            let window = if self.established {
                self.settings.window as u64
            } else {
                1
            };
            if self.next.0 - oldest.0 >= window {
                return;
            }
            let Some(asked) = self.queue.pop_front() else {
                return;
            };
            let number = self.next;
            self.next = RequestNumber(number.0 + 1);
            self.pending.push_back(Pending::new(number, asked, now));
        }
    }

    /// Nobody waits for what is still in flight: it is dropped, and its numbers with it.
    fn retire_if_nobody_waits(&mut self) {
        if !self.pending.is_empty() && self.pending.iter().all(|pending| pending.abandoned) {
            self.pending.clear();
            self.spent = true;
        }
    }

    fn fail(&mut self, pending: Pending, error: impl FnOnce(&Pending) -> RequestError) {
        if !pending.abandoned {
            let error = error(&pending);
            self.failed.push_back(Failed {
                token: pending.asked.token,
                error,
            });
        }
    }

    fn renew(&mut self) {
        self.client = ClientId(self.random());
        self.next = RequestNumber(1);
        self.spent = false;
        self.established = false;
    }

    /// How long to wait for an answer: doubling, with a quarter of jitter so that clients don't march in step.
    fn wait_after(&mut self, retries: u32) -> u64 {
        let wait = self.settings.retry.saturating_mul(1 << retries.min(16));
        let wait = wait.min(self.settings.retry_most).max(MS);
        wait + self.random() % (wait / 4)
    }

    /// SplitMix64: enough to name sessions and spread retries, given a random start.
    fn random(&mut self) -> u64 {
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.entropy;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn replicas(count: usize) -> impl Iterator<Item = ReplicaId> {
    (0..=u8::MAX).take(count).map(ReplicaId)
}

fn waited_ms(asked: &Queued, now: Time) -> u64 {
    now.0.saturating_sub(asked.since.0) / MS
}

#[cfg(test)]
mod tests;
