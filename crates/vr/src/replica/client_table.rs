//! The client table at the commit number (VR Revisited, section 4.1): what makes a request execute once.
//!
//! It is a function of the executed ops alone, hence the same at every replica, and part of checkpoints (rule 7).
//! What is logged but not executed is the primary's business (`requests`), derived from the log's suffix.
//!
//! Replies are most of it. When they have too many bytes, those of the sessions unused the longest go; the sessions stay, so
//! that their clients go on, and nothing is executed twice.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound::{Excluded, Unbounded};

use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, OpNumber, RequestNumber};
use crate::message::{Entry, Reply};
use crate::mutations::{Mutation, active};

/// One session's executed past.
#[derive(Clone, Debug, Hash, Serialize, Deserialize)]
struct Session {
    /// The highest executed number.
    highest: RequestNumber,
    /// The op of that request: the session's age.
    used: OpNumber,
    /// The replies to the last requests; the newest, to `highest`, at the back.
    #[serde(serialize_with = "as_bytes")]
    replies: VecDeque<Arc<[u8]>>,
}

/// What a reply takes of the byte limit besides its bytes.
const REPLY_OVERHEAD: usize = 16;

fn reply_bytes(reply: &[u8]) -> usize {
    REPLY_OVERHEAD + reply.len()
}

fn bytes_of(replies: &VecDeque<Arc<[u8]>>) -> usize {
    replies.iter().map(|reply| reply_bytes(reply)).sum()
}

/// A reply that is written at once, not as a sequence of numbers; the bytes are the same.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<T: serde::Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.serialize_bytes(self.0)
    }
}

fn as_bytes<T: serde::Serializer>(
    replies: &VecDeque<Arc<[u8]>>,
    serializer: T,
) -> Result<T::Ok, T::Error> {
    serializer.collect_seq(replies.iter().map(|reply| Bytes(reply)))
}

/// All sessions.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct ClientTable {
    sessions: BTreeMap<ClientId, Session>,
    /// Each session by its age; the first is the next to be evicted.
    by_age: BTreeMap<OpNumber, ClientId>,
    /// What all replies take.
    reply_bytes: usize,
    /// Sessions of this age, and older ones, have no replies any more.
    emptied: OpNumber,
}

/// The bounds, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) sessions: usize,
    pub(super) replies: usize,
    pub(super) reply_bytes: usize,
}

impl ClientTable {
    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// How many bytes all replies take.
    pub(super) fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    /// The highest executed number of a session.
    pub(super) fn highest(&self, client: ClientId) -> Option<RequestNumber> {
        self.sessions.get(&client).map(|session| session.highest)
    }

    /// The answer to a request that is not above the session's highest.
    pub(super) fn answer(&self, client: ClientId, request: RequestNumber) -> Reply {
        let kept = self.sessions.get(&client).and_then(|session| {
            let age = usize::try_from(session.highest.0.checked_sub(request.0)?).ok()?;
            session
                .replies
                .get(session.replies.len().checked_sub(age)?.checked_sub(1)?)
        });
        kept.map_or(Reply::NoSession, |bytes| Reply::Done(Arc::clone(bytes)))
    }

    /// Makes a session the youngest, and the youngest as old as that was: what no message may do, only an executed op.
    pub(super) fn rejuvenate(&mut self, client: ClientId) {
        let age = |table: &ClientTable, of| table.sessions.get(&of).map(|session| session.used);
        let youngest = self.by_age.last_key_value().map(|(age, of)| (*age, *of));
        let (Some(old), Some((young, other))) = (age(self, client), youngest) else {
            return;
        };
        for (of, age) in [(other, old), (client, young)] {
            self.by_age.insert(age, of);
            if let Some(session) = self.sessions.get_mut(&of) {
                session.used = age;
            }
        }
    }

    /// Executes the entry at `op` by `apply`, unless the session has no place for it: executed before, evicted
    /// meanwhile, or out of order. Those are decided by the table alone, so every replica decides the same.
    pub(super) fn execute(
        &mut self,
        op: OpNumber,
        entry: &Entry,
        bounds: Bounds,
        apply: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Reply {
        let highest = self.highest(entry.client).unwrap_or_default();
        if entry.request <= highest && !active(Mutation::SecondExecution) {
            return self.answer(entry.client, entry.request);
        }
        if active(Mutation::SecondExecution) {
            let reply: Arc<[u8]> = apply(&entry.op).into();
            self.remember(op, entry, bounds, Arc::clone(&reply));
            return Reply::Done(reply);
        }
        if entry.request != RequestNumber(highest.0 + 1) {
            return Reply::NoSession;
        }
        let reply: Arc<[u8]> = apply(&entry.op).into();
        self.remember(op, entry, bounds, Arc::clone(&reply));
        Reply::Done(reply)
    }

    fn remember(&mut self, op: OpNumber, entry: &Entry, bounds: Bounds, reply: Arc<[u8]>) {
        if !self.sessions.contains_key(&entry.client) && self.sessions.len() >= bounds.sessions {
            let (_, evicted) = self
                .by_age
                .pop_first()
                .expect("a full table has an oldest session");
            let session = self.sessions.remove(&evicted);
            self.reply_bytes -= session.map_or(0, |session| bytes_of(&session.replies));
        }
        let session = self
            .sessions
            .entry(entry.client)
            .or_insert_with(|| Session {
                highest: RequestNumber(0),
                used: op,
                replies: VecDeque::new(),
            });
        self.by_age.remove(&session.used);
        session.highest = entry.request;
        session.used = op;
        self.reply_bytes += reply_bytes(&reply);
        session.replies.push_back(reply);
        while session.replies.len() > bounds.replies {
            let oldest = session.replies.pop_front();
            self.reply_bytes -= oldest.map_or(0, |reply| reply_bytes(&reply));
        }
        self.by_age.insert(op, entry.client);
        self.shed_replies(bounds.reply_bytes);
    }

    /// Forgets replies until the rest fits; the latest one stays.
    fn shed_replies(&mut self, limit: usize) {
        while self.reply_bytes > limit {
            let mut younger = self.by_age.range((Excluded(self.emptied), Unbounded));
            let Some((&used, client)) = younger.next() else {
                return;
            };
            let youngest = younger.next().is_none();
            let session = self.sessions.get_mut(client);
            let replies = &mut session.expect("each age is of a session").replies;
            self.reply_bytes -= bytes_of(replies);
            if youngest {
                while replies.len() > 1 && bytes_of(replies) > limit {
                    replies.pop_front();
                }
                self.reply_bytes += bytes_of(replies);
                return;
            }
            *replies = VecDeque::new();
            self.emptied = used;
        }
    }
}

impl Serialize for ClientTable {
    fn serialize<T: serde::Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        self.sessions.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ClientTable {
    fn deserialize<T: serde::Deserializer<'de>>(deserializer: T) -> Result<Self, T::Error> {
        let sessions = BTreeMap::<ClientId, Session>::deserialize(deserializer)?;
        let by_age = sessions
            .iter()
            .map(|(client, session)| (session.used, *client))
            .collect();
        let all = sessions.values();
        let reply_bytes = all.clone().map(|session| bytes_of(&session.replies)).sum();
        let emptied = all.filter(|session| session.replies.is_empty());
        let emptied = emptied.map(|session| session.used).max();
        Ok(ClientTable {
            sessions,
            by_age,
            reply_bytes,
            emptied: emptied.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        sessions: 2,
        replies: 2,
        reply_bytes: 1 << 20,
    };

    fn run(table: &mut ClientTable, op: u64, client: u64, request: u64) -> Reply {
        let entry = Entry {
            client: ClientId(client),
            request: RequestNumber(request),
            op: Arc::from(&b"x"[..]),
        };
        table.execute(OpNumber(op), &entry, BOUNDS, |_| {
            alloc::vec![u8::try_from(op).unwrap()]
        })
    }

    fn done(byte: u8) -> Reply {
        Reply::Done(Arc::from(&[byte][..]))
    }

    #[test]
    fn the_longest_unused_session_is_evicted_and_has_to_begin_anew() {
        let mut table = ClientTable::default();
        assert_eq!(run(&mut table, 1, 10, 1), done(1));
        assert_eq!(run(&mut table, 2, 20, 1), done(2));
        assert_eq!(run(&mut table, 3, 10, 2), done(3));
        assert_eq!(run(&mut table, 4, 30, 1), done(4));
        assert_eq!(table.highest(ClientId(20)), None);
        assert_eq!(run(&mut table, 5, 20, 2), Reply::NoSession);
        assert_eq!(table.highest(ClientId(10)), Some(RequestNumber(2)));
    }

    #[test]
    fn an_executed_number_is_answered_from_the_table_and_not_executed() {
        let mut table = ClientTable::default();
        for number in 1..=3 {
            run(&mut table, number, 10, number);
        }
        assert_eq!(run(&mut table, 9, 10, 3), done(3));
        assert_eq!(run(&mut table, 9, 10, 2), done(2));
        assert_eq!(run(&mut table, 9, 10, 1), Reply::NoSession);
        assert_eq!(run(&mut table, 9, 10, 5), Reply::NoSession);
        assert_eq!(
            table.answer(ClientId(10), RequestNumber(u64::MAX)),
            Reply::NoSession
        );
    }

    /// Long replies of many sessions, in an order without a pattern; every so often the second table is made anew from the
    /// bytes of the first, as at a replica that comes by a checkpoint.
    #[test]
    fn replies_keep_to_their_bytes_and_go_alike_by_log_and_by_checkpoint() {
        const REPLY: usize = 1000;
        let bounds = Bounds {
            sessions: 20,
            replies: 4,
            reply_bytes: 10 * REPLY,
        };
        let (mut by_log, mut by_checkpoint) = (ClientTable::default(), ClientTable::default());
        let (mut numbers, mut random, mut emptied) = ([0; 30], 1_u64, 0);
        for op in 1..=3000 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(op);
            let client = usize::try_from((random >> 33) % 30).unwrap();
            let length = usize::try_from((random >> 40) % 2).unwrap() * REPLY;
            if by_log.highest(ClientId(client as u64)).is_none() {
                numbers[client] = 0;
            }
            numbers[client] += 1;
            let entry = Entry {
                client: ClientId(client as u64),
                request: RequestNumber(numbers[client]),
                op: Arc::from(&b"x"[..]),
            };
            let apply = |_: &[u8]| alloc::vec![7; length];
            let reply = by_log.execute(OpNumber(op), &entry, bounds, apply);
            assert!(matches!(reply, Reply::Done(_)), "nobody lost its place");
            assert_eq!(
                by_checkpoint.execute(OpNumber(op), &entry, bounds, apply),
                reply
            );
            assert_eq!(by_log.answer(entry.client, entry.request), reply);
            let bytes = postcard::to_allocvec(&by_log).unwrap();
            assert_eq!(postcard::to_allocvec(&by_checkpoint).unwrap(), bytes);
            assert!(by_log.reply_bytes <= bounds.reply_bytes);
            assert!(bytes.len() <= bounds.reply_bytes + 40 * bounds.sessions);
            let counted: usize = by_log.sessions.values().map(|s| bytes_of(&s.replies)).sum();
            assert_eq!(by_log.reply_bytes, counted);
            let empty = by_log.sessions.values().filter(|s| s.replies.is_empty());
            emptied += empty.count();
            if op % 37 == 0 {
                by_checkpoint = postcard::from_bytes(&bytes).unwrap();
            }
        }
        assert!(emptied > 1000 && by_log.len() == 20, "{emptied}");
    }

    #[test]
    fn a_reply_that_was_forgotten_is_no_session_and_the_session_goes_on() {
        let bounds = Bounds {
            reply_bytes: 2 * REPLY_OVERHEAD + 2,
            ..BOUNDS
        };
        let mut table = ClientTable::default();
        let mut run = |op: u64, client: u64, request: u64| {
            let entry = Entry {
                client: ClientId(client),
                request: RequestNumber(request),
                op: Arc::from(&b"x"[..]),
            };
            let byte = u8::try_from(op).unwrap();
            table.execute(OpNumber(op), &entry, bounds, |_| alloc::vec![byte])
        };
        run(1, 10, 1);
        run(2, 20, 1);
        run(3, 20, 2);
        assert_eq!(run(9, 10, 1), Reply::NoSession);
        assert_eq!(run(9, 20, 1), done(2));
        assert_eq!(run(4, 10, 2), done(4));
        assert_eq!(run(9, 20, 2), Reply::NoSession);
        assert_eq!(run(9, 10, 2), done(4));
    }

    #[test]
    fn one_session_alone_keeps_its_latest_replies() {
        let bounds = Bounds {
            reply_bytes: REPLY_OVERHEAD,
            ..BOUNDS
        };
        let mut table = ClientTable::default();
        for number in 1..=2 {
            let entry = Entry {
                client: ClientId(10),
                request: RequestNumber(number),
                op: Arc::from(&b"x"[..]),
            };
            let reply = table.execute(OpNumber(number), &entry, bounds, |_| alloc::vec![1; 50]);
            assert_eq!(table.answer(ClientId(10), RequestNumber(number)), reply);
        }
        assert_eq!(table.reply_bytes, REPLY_OVERHEAD + 50);
        let older = table.answer(ClientId(10), RequestNumber(1));
        assert_eq!(older, Reply::NoSession);
    }

    #[test]
    fn bytes_and_table_are_inverses() {
        let mut table = ClientTable::default();
        run(&mut table, 1, 10, 1);
        run(&mut table, 2, 20, 1);
        let bytes = postcard::to_allocvec(&table).unwrap();
        let mut back: ClientTable = postcard::from_bytes(&bytes).unwrap();
        run(&mut back, 3, 30, 1);
        assert_eq!(back.highest(ClientId(10)), None);
        assert_eq!(back.highest(ClientId(20)), Some(RequestNumber(1)));
    }
}
