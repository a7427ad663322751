//! The client table at the commit number (VR Revisited, section 4.1): what makes a request execute once.
//!
//! It is a function of the executed ops alone, hence the same at every replica, and part of checkpoints (rule 7).
//! What is logged but not executed is the primary's business (`requests`), derived from the log's suffix.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

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
    replies: VecDeque<Arc<[u8]>>,
}

/// All sessions.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct ClientTable {
    sessions: BTreeMap<ClientId, Session>,
    /// Each session by its age; the first is the next to be evicted.
    by_age: BTreeMap<OpNumber, ClientId>,
}

/// The bounds, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) sessions: usize,
    pub(super) replies: usize,
}

impl ClientTable {
    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
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
            let evicted = self.by_age.pop_first();
            self.sessions
                .remove(&evicted.expect("a full table has an oldest session").1);
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
        session.replies.push_back(reply);
        while session.replies.len() > bounds.replies {
            session.replies.pop_front();
        }
        self.by_age.insert(op, entry.client);
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
        Ok(ClientTable { sessions, by_age })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        sessions: 2,
        replies: 2,
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
