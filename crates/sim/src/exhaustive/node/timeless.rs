//! The system that a driver runs on while all states are explored: nothing takes time, nothing has bytes, and where something
//! may happen in more than one way, it happens in all of them.

use std::net::SocketAddr;
use std::rc::Rc;

use electrode_driver::{Door, Driver, Happened, Received, ReplyTo, Stopped, System, Wait, Waiting};
use electrode_fastpath::abi::RECORD_NOTICE;
use electrode_fastpath::host::Host;
use electrode_vr::{
    Effect, FastPathCommand, Message, Nonce, Note, OpNumber, Prepare, Promise, ReplicaId, Reply,
    Role, Snapshot, Status, Time, View, Write,
};
use electrode_wire::admission::Refusal;

use super::Seen;
use crate::checks::{Rule, Violation, acks, promises};
use crate::exhaustive::choices::Choices;
use crate::exhaustive::memory::{Armed, Shared};
use crate::exhaustive::sequence::Sequence;

pub(super) const STOPS: Rule = Rule {
    name: "the driver never has to stop",
    source: "docs/fast-path.md R1",
};

/// Claims of one event. More means that user space asks for ever.
const CLAIMS: usize = 64;
/// The first claims of an event may be lost to a record that doesn't come at once.
const IMPATIENT_CLAIMS: usize = 2;

/// What an event makes; taken apart when it ends.
#[derive(Default)]
pub(super) struct Making {
    /// The questions that were open when the event began.
    pub(super) asked: (Nonce, Option<Nonce>),
    pub(super) sent: Vec<(ReplicaId, Message)>,
    pub(super) seen: Vec<Seen>,
    pub(super) pre_vote: Option<View>,
    pub(super) broken: Option<Violation>,
    pub(super) claims: usize,
    /// The core before the input that it is being given.
    pub(super) before: Option<Snapshot>,
}

/// Why an event ends before its end.
pub(super) enum Ended {
    Died,
    /// The driver would stop with this.
    Stopped(String),
    /// A rule was broken, and what comes after that would only hide it.
    Broken,
}

/// A replica's memory and disk, amid an event.
pub(super) struct Timeless<'a> {
    pub(super) now: Time,
    /// What woke it, if it was a datagram.
    pub(super) received: Option<Received>,
    pub(super) host: &'a mut Host<Shared>,
    pub(super) disk: &'a mut Option<Promise>,
    pub(super) making: &'a mut Making,
    pub(super) choices: &'a Rc<Choices>,
    /// What was composed last; None where what is said makes no difference.
    pub(super) composed: Option<Message>,
    /// What was sent since the last flush.
    pub(super) waiting: usize,
}

impl Making {
    /// Keeps the first thing that is wrong.
    pub(super) fn require(&mut self, rule: Rule, verdict: Result<(), String>) {
        if let Err(text) = verdict
            && self.broken.is_none()
        {
            self.broken = Some(Violation { rule, text });
        }
    }

    fn unbroken(&self) -> Result<(), Ended> {
        match self.broken {
            Some(_) => Err(Ended::Broken),
            None => Ok(()),
        }
    }

    /// A message leaves, by user space or by a program.
    pub(super) fn leaves(&mut self, to: ReplicaId, message: Message) {
        if let Message::PrepareOk { view, last_op, .. } = message
            && last_op > OpNumber(0)
        {
            let op = last_op;
            self.seen.push(Seen::Acknowledged { view, op });
        }
        self.sent.push((to, message));
    }
}

impl System<Sequence> for Timeless<'_> {
    type Error = Ended;
    type Memory = Shared;

    fn now(&mut self) -> Time {
        self.now
    }

    fn entropy(&mut self) -> Nonce {
        Nonce(0)
    }

    fn receive(&mut self) -> Result<usize, Ended> {
        Ok(usize::from(self.received.is_some()))
    }

    fn received(&mut self, _door: &mut Door, _index: usize) -> Result<Received, Refusal> {
        self.received.take().ok_or(Refusal::NoSource)
    }

    fn compose(&mut self, _door: &Door, _flags: u8, message: &Message) {
        // Who supports a pre-vote makes no difference: anybody may begin a view change at any time.
        if let Message::PreVote { view } = message {
            self.making.pre_vote = Some(*view);
            self.composed = None;
            return;
        }
        self.composed = Some(message.clone());
    }

    fn send_to(&mut self, to: ReplicaId) {
        if let Some(message) = &self.composed {
            self.waiting += 1;
            self.making.leaves(to, message.clone());
        }
    }

    fn reply(&mut self, _door: &Door, _to: SocketAddr, _reply: ReplyTo<'_>) {
        unreachable!("clients have no addresses here")
    }

    fn flush(&mut self) -> usize {
        std::mem::take(&mut self.waiting)
    }

    fn answer_status(
        &mut self,
        _driver: &Driver<Sequence>,
        _nonce: Nonce,
        _source: SocketAddr,
    ) -> Result<(), Refusal> {
        unreachable!("nobody asks here")
    }

    fn store(&mut self, promise: Promise) -> Result<(), Ended> {
        // What is said before is said, what comes behind isn't.
        if self.disk.is_some() && self.choices.choose(2) == 1 {
            return Err(Ended::Died);
        }
        *self.disk = Some(promise);
        self.host.memory().state_mut().promised = promise.view;
        Ok(())
    }

    fn write(&mut self, _write: Write) -> Result<(), Ended> {
        unreachable!("groups in memory mode write no log")
    }

    fn barrier(&mut self) -> Result<(), Ended> {
        Ok(())
    }

    fn persisted(&mut self) -> Result<Option<(View, OpNumber)>, Ended> {
        Ok(None)
    }

    fn host(&mut self) -> Option<&mut Host<Shared>> {
        Some(self.host)
    }

    fn take_stored(&mut self, _door: &Door) -> Result<Option<Prepare>, Ended> {
        self.making.unbroken()?;
        let Some(record) = self.host.memory().take_record() else {
            return Ok(None);
        };
        // The generation is the host's to judge.
        let mut front = record.generation.to_ne_bytes().to_vec();
        front.extend(0u64.to_ne_bytes());
        assert!(record.generation != RECORD_NOTICE && self.host.message(&front).is_some());
        Ok(Some(record.prepare))
    }

    fn carrier(&mut self, _bytes: usize, _plain: &mut Vec<ReplicaId>) -> Option<ReplicaId> {
        None
    }

    fn on_own_clock(&mut self, at: Time) -> Time {
        at
    }

    fn pause(&mut self, waiting: &Waiting) -> bool {
        // The record may still be on its way. After a fence the driver waits as long as a program that owes one can go on; after a
        // claim not for ever. To claim in vain again and again changes nothing until the record comes, so it does that once.
        let patient = waiting.wait == Wait::Fence || self.making.claims > IMPATIENT_CLAIMS;
        (patient || self.choices.choose(2) == 0) && self.host.memory().run_promised()
    }

    fn note(&mut self, _note: Note) {}

    fn before(&mut self, driver: &Driver<Sequence>, effect: &Effect) -> Result<(), Ended> {
        self.making.unbroken()?;
        let index = driver.door().index();
        match effect {
            Effect::Persist(promise) => {
                let verdict = promises::persisted(*self.disk, *promise, index.index());
                self.making.require(promises::RULE, verdict);
            }
            Effect::Send { message, .. } | Effect::Broadcast(message) => {
                let verdict = promises::sent(message, *self.disk, index.index());
                self.making.require(promises::RULE, verdict);
                if let Message::PrepareOk { op, last_op, .. } = *message {
                    let now = driver.core().snapshot();
                    let verdict = acks::by_user_space(&now, op, last_op, index.index());
                    self.making.require(acks::RULE, verdict);
                }
            }
            Effect::Reply {
                client,
                request,
                reply: Reply::Done(bytes),
                ..
            } => self.making.seen.push(Seen::Replied {
                client: u8::try_from(client.0).expect("few clients"),
                number: u8::try_from(request.0).expect("few requests"),
                place: bytes[0],
            }),
            Effect::FastPath(FastPathCommand::Arm { view, primary, .. }) => {
                let verdict = promises::arming(index.index(), *view, *self.disk);
                self.making.require(promises::RULE, verdict);
                // The programs may go on from the moment at which the tail names the generation: the check has to know first.
                self.host.memory().state_mut().armed = Some(Armed {
                    generation: self.host.generation().wrapping_add(1),
                    view: *view,
                    primary: *primary,
                });
            }
            Effect::FastPath(FastPathCommand::Claim { last, .. }) => {
                self.making.claims += 1;
                if self.making.claims > CLAIMS {
                    let text = format!("{CLAIMS} claims for op {last} in one event");
                    return Err(Ended::Stopped(text));
                }
            }
            Effect::Write(_) | Effect::Reply { .. } | Effect::FastPath(_) | Effect::Note(_) => {}
        }
        Ok(())
    }

    fn saw(&mut self, driver: &Driver<Sequence>, what: Happened<'_>) {
        match what {
            Happened::Given(_) => self.making.before = Some(driver.core().snapshot()),
            Happened::Stepped => self.stepped(driver),
            Happened::Fenced { .. } => self.host.memory().state_mut().armed = None,
            _ => {}
        }
    }
}

impl Timeless<'_> {
    /// Looks at what the core became.
    fn stepped(&mut self, driver: &Driver<Sequence>) {
        let Some(before) = self.making.before.take() else {
            return;
        };
        let after = driver.core().snapshot();
        let normal = after.status == Status::Normal;
        let primary = normal && after.role == Role::Primary;
        let entered = normal && (before.status != Status::Normal || before.view != after.view);
        let seen = &mut self.making.seen;
        if entered {
            seen.push(Seen::Normal {
                view: after.view,
                digests: digests(driver, after.op),
            });
        }
        if primary {
            for (who, (_, op)) in after.peers.iter().enumerate() {
                let known = !entered && before.peers[who].1 == *op;
                if *op > OpNumber(0) && !known {
                    let who = ReplicaId(u8::try_from(who).expect("few replicas"));
                    let (view, op) = (after.view, *op);
                    seen.push(Seen::Believed { view, who, op });
                }
            }
        }
        if after.commit > before.commit {
            seen.push(Seen::Committed {
                view: after.view,
                primary,
                commit: after.commit,
                digests: digests(driver, after.commit),
            });
        }
        let verdict = promises::normal(&after, *self.disk, driver.door().index().index());
        self.making.require(promises::RULE, verdict);
    }
}

/// The digests of ops 1 to `end`; 0 for those that a checkpoint covers.
fn digests(driver: &Driver<Sequence>, end: OpNumber) -> Vec<u64> {
    let digest = |op| driver.core().log_digest_at(OpNumber(op));
    (1..=end.0)
        .map(|op| digest(op).map_or(0, |digest| digest.0))
        .collect()
}

impl From<Stopped> for Ended {
    fn from(stopped: Stopped) -> Ended {
        Ended::Stopped(stopped.to_string())
    }
}
