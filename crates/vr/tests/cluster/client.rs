//! A client: one session, several requests in flight, asks again until it is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use electrode_vr::{ReplicaId, Reply, RequestNumber, View};

use crate::checks::Checks;
use crate::machine::READ;
use crate::random::Random;
use crate::world::MS;

/// A request without its answer.
struct Open {
    op: Arc<[u8]>,
    again_at: u64,
    /// The place in the order of the latest request that anybody knew to be done when this one was made.
    after: u64,
}

pub(crate) struct Client {
    index: u64,
    replicas: usize,
    /// Where the primary is believed to be.
    guess: usize,
    /// The highest view in an answer: older ones come from replicas that were left behind.
    view: View,
    next: u64,
    next_read: u64,
    reads: bool,
    pipeline: usize,
    open: BTreeMap<RequestNumber, Open>,
    pub(crate) done: u64,
    pub(crate) stopped: bool,
    think_until: u64,
}

impl Client {
    pub(crate) fn new(index: usize, replicas: usize, reads: bool, random: &mut Random) -> Client {
        Client {
            index: index as u64,
            replicas,
            guess: random.index(replicas),
            view: View(0),
            next: 1,
            next_read: RequestNumber::READS,
            reads,
            pipeline: 1 + random.index(4),
            open: BTreeMap::new(),
            done: 0,
            stopped: false,
            think_until: 0,
        }
    }

    pub(crate) fn idle(&self) -> bool {
        self.open.is_empty()
    }

    /// The first request of a session goes alone, since the session begins with it. Later ones keep close to the oldest that
    /// is open, since its reply isn't kept for ever.
    fn may_begin(&self) -> bool {
        let room = if self.done == 0 { 1 } else { self.pipeline };
        let oldest = self
            .open
            .first_key_value()
            .map_or(self.next, |(number, _)| number.0);
        self.open.len() < room && self.next < oldest + 8 && !self.stopped
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

    pub(crate) fn due(
        &mut self,
        now: u64,
        random: &mut Random,
        checks: &Checks,
    ) -> Vec<(ReplicaId, RequestNumber, Arc<[u8]>)> {
        let mut sent = Vec::new();
        while self.may_begin() && self.think_until <= now {
            self.think_until = now + random.below(4 * MS);
            if self.reads && random.chance(400) {
                let open = Open {
                    op: READ.to_le_bytes().as_slice().into(),
                    again_at: now,
                    after: checks.latest,
                };
                self.open.insert(RequestNumber(self.next_read), open);
                self.next_read += 1;
                continue;
            }
            let mut op = ((self.index << 32) | self.next).to_le_bytes().to_vec();
            // Of a length that its number gives, so that two runs send the same.
            op.resize(8 + Random::new(self.next).index(40), 0);
            let open = Open {
                op: op.into(),
                again_at: now,
                after: checks.latest,
            };
            self.open.insert(RequestNumber(self.next), open);
            self.next += 1;
        }
        for (number, open) in &mut self.open {
            if open.again_at <= now {
                if random.chance(300) {
                    self.guess = random.index(self.replicas);
                }
                open.again_at = now + 15 * MS + random.below(10 * MS);
                let to = ReplicaId(u8::try_from(self.guess).unwrap());
                sent.push((to, *number, Arc::clone(&open.op)));
            }
        }
        sent
    }

    pub(crate) fn on_reply(
        &mut self,
        number: RequestNumber,
        view: View,
        reply: Reply,
        now: u64,
        checks: &mut Checks,
    ) {
        let newest = view >= self.view;
        if newest && !matches!(reply, Reply::Unavailable) {
            self.view = view;
            self.guess = usize::from(view.primary(self.replicas).0);
        }
        let Some(open) = self.open.get_mut(&number) else {
            return;
        };
        match reply {
            Reply::Done(bytes) if number.is_read() => {
                checks.read(&bytes, open.after);
                self.open.remove(&number);
            }
            Reply::Done(bytes) => {
                checks.acknowledged(&open.op, &bytes, open.after);
                self.open.remove(&number);
                self.done += 1;
            }
            Reply::NotPrimary if newest => open.again_at = now + MS,
            Reply::Busy { retry_after_ms } => {
                open.again_at = now + u64::from(retry_after_ms) * MS;
            }
            Reply::NoSession => assert!(!newest, "no session is evicted in these runs"),
            Reply::NotRead => panic!("reads are reads in these runs"),
            Reply::TooLarge { .. } => panic!("no op is too large in these runs"),
            Reply::Unavailable | Reply::NotPrimary => {}
        }
    }
}
