//! Pasts of the group by number, and what they become with what replicas show: each worked out once.

use std::collections::HashMap;
use std::rc::Rc;

use electrode_vr::{ReplicaId, View};

use super::history::History;
use super::node::Seen;
use super::numbered::{Numbered, Quick};
use crate::checks::Violation;

/// Number of the past before anything happened, and of what shows nothing.
pub(super) const NOTHING: u32 = 0;

/// What a replica showed, in which of its lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shown {
    who: ReplicaId,
    life: u8,
    seen: Vec<Seen>,
}

pub(super) struct Pasts {
    replicas: u8,
    pasts: Numbered<History>,
    shown: Numbered<Shown>,
    judged: HashMap<(u32, u32), Result<u32, Violation>, Quick>,
    /// By past, and views that the replicas have promised.
    settled: HashMap<(u32, u64), u32, Quick>,
    /// The most ops that were committed.
    pub(super) most_commits: usize,
}

impl Pasts {
    pub(super) fn new(replicas: u8) -> Pasts {
        let nothing = Shown {
            who: ReplicaId(0),
            life: 0,
            seen: Vec::new(),
        };
        Pasts {
            replicas,
            pasts: Numbered::beginning_with(Rc::default()),
            shown: Numbered::beginning_with(Rc::new(nothing)),
            judged: HashMap::default(),
            settled: HashMap::default(),
            most_commits: 0,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.pasts.len()
    }

    pub(super) fn past(&self, number: u32) -> &History {
        &self.pasts[number]
    }

    /// The number of what a replica showed.
    pub(super) fn seen(&mut self, who: usize, life: u8, seen: Vec<Seen>) -> u32 {
        if seen.is_empty() {
            return NOTHING;
        }
        let who = ReplicaId(u8::try_from(who).expect("few replicas"));
        self.shown.number(Rc::new(Shown { who, life, seen }))
    }

    /// A past with what a replica shows.
    ///
    /// # Errors
    /// It breaks a rule.
    pub(super) fn judged(&mut self, past: u32, shown: u32) -> Result<u32, Violation> {
        if shown == NOTHING {
            return Ok(past);
        }
        if let Some(judged) = self.judged.get(&(past, shown)) {
            return judged.clone();
        }
        let Shown { who, life, seen } = &*Rc::clone(&self.shown[shown]);
        let mut next = (*self.pasts[past]).clone();
        let verdict = seen
            .iter()
            .try_for_each(|seen| next.judge(*who, *life, self.replicas, seen));
        let judged = verdict.map(|()| {
            self.most_commits = self.most_commits.max(next.commits());
            self.pasts.number(Rc::new(next))
        });
        self.judged.insert((past, shown), judged.clone());
        judged
    }

    /// A past in which some request was taken.
    pub(super) fn begun(&mut self, past: u32) -> u32 {
        if self.pasts[past].begun {
            return past;
        }
        let mut next = (*self.pasts[past]).clone();
        next.begun = true;
        self.pasts.number(Rc::new(next))
    }

    /// A past without what makes no difference any more once the replicas have promised these views.
    pub(super) fn settled(&mut self, past: u32, promised: &[View]) -> u32 {
        let views = promised.iter().fold(0, |views, view| {
            views << 8 | u64::from(u8::try_from(view.0).expect("few views"))
        });
        if let Some(settled) = self.settled.get(&(past, views)) {
            return *settled;
        }
        let mut next = (*self.pasts[past]).clone();
        next.settle(promised);
        let settled = self.pasts.number(Rc::new(next));
        self.settled.insert((past, views), settled);
        settled
    }
}
