//! States of the group: those that were visited and those that wait for their turn, and how each was reached.
//!
//! A state stands for every other that differs only in having fewer messages on their way (none of them has to arrive) and more
//! of what is bounded behind it: only those are kept for which none stands.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use super::letters::Letters;
use super::numbered::Spread;

/// What is bounded over a whole history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) crashes: u8,
    pub(super) around: u8,
    pub(super) resends: u8,
}

impl Spent {
    /// Whether nothing was spent more than there.
    fn within(self, other: Spent) -> bool {
        self.crashes <= other.crashes
            && self.around <= other.around
            && self.resends <= other.resends
    }
}

/// A state of the group: numbers of its replicas' states, of the sets of messages to each, and of its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group<const N: usize> {
    pub(super) locals: [u32; N],
    pub(super) sets: [u32; N],
    pub(super) past: u32,
    pub(super) spent: Spent,
}

impl<const N: usize> Group<N> {
    /// Whether it can do whatever another one with the same replicas and past can.
    fn covers(&self, other: &Group<N>, letters: &Letters) -> bool {
        let mut sets = self.sets.iter().zip(other.sets);
        self.spent.within(other.spent) && sets.all(|(own, other)| letters.includes(*own, other))
    }

    fn same_but_letters(&self, other: &Group<N>) -> bool {
        (self.locals, self.past) == (other.locals, other.past)
    }

    fn hash_but_letters(&self) -> u64 {
        let mut hasher = Spread::default();
        for local in self.locals {
            local.hash(&mut hasher);
        }
        self.past.hash(&mut hasher);
        hasher.finish()
    }
}

/// No state.
const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Waits,
    Visited,
    /// Another one stands for it.
    Passed,
}

struct Record<const N: usize> {
    group: Group<N>,
    /// The state from which it was reached.
    before: u32,
    /// The next one with the same replicas and past.
    next: u32,
    /// How long the way to it is.
    length: u16,
    turn: Turn,
}

/// All states that were reached.
pub(super) struct States<const N: usize> {
    records: Vec<Record<N>>,
    /// The first ones with the same replicas and past, by hash; open addressing.
    heads: Vec<u32>,
    /// How many heads there are.
    keys: usize,
    /// What is left to visit, by how far it has come.
    waiting: BTreeMap<u32, Vec<u32>>,
    left: u64,
    again: u64,
}

impl<const N: usize> States<N> {
    pub(super) fn new() -> States<N> {
        States {
            records: Vec::new(),
            heads: vec![NOBODY; 1 << 10],
            keys: 0,
            waiting: BTreeMap::new(),
            left: 0,
            again: 0,
        }
    }

    /// States but for the messages on their way.
    pub(super) fn keys(&self) -> u64 {
        self.keys as u64
    }

    /// States that wait for their turn.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// States that were visited before one came up that stands for them.
    pub(super) fn again(&self) -> u64 {
        self.again
    }

    pub(super) fn group(&self, number: u32) -> Group<N> {
        self.records[number as usize].group
    }

    /// How long the way to a state is.
    pub(super) fn length(&self, number: u32) -> u16 {
        self.records[number as usize].length
    }

    /// The states on the way to this one, from the first on.
    pub(super) fn way(&self, number: u32) -> Vec<u32> {
        let mut way = vec![number];
        let mut at = number;
        while self.records[at as usize].before != NOBODY {
            at = self.records[at as usize].before;
            way.push(at);
        }
        way.reverse();
        way
    }

    /// Puts a state where it waits for its turn, unless another one stands for it.
    pub(super) fn add(
        &mut self,
        group: &Group<N>,
        before: Option<u32>,
        come: u32,
        letters: &Letters,
    ) {
        let slot = self.slot(group);
        let head = self.heads[slot];
        let mut at = head;
        while at != NOBODY {
            let record = &self.records[at as usize];
            if record.group.covers(group, letters) {
                return;
            }
            at = record.next;
        }
        if head == NOBODY {
            self.keys += 1;
        }
        let number = u32::try_from(self.records.len()).expect("fewer than 2^32 states");
        assert!(number != NOBODY, "fewer than 2^32 - 1 states");
        let rest = self.without_covered(head, group, letters);
        self.records.push(Record {
            group: *group,
            before: before.unwrap_or(NOBODY),
            next: rest,
            length: before.map_or(0, |before| self.length(before) + 1),
            turn: Turn::Waits,
        });
        self.heads[slot] = number;
        self.left += 1;
        self.waiting.entry(come).or_default().push(number);
        if self.keys * 4 > self.heads.len() * 3 {
            self.widen();
        }
    }

    /// Takes out of a chain what a state stands for; the chain's new first one.
    fn without_covered(&mut self, head: u32, group: &Group<N>, letters: &Letters) -> u32 {
        let (mut first, mut last, mut at) = (NOBODY, NOBODY, head);
        while at != NOBODY {
            let record = &mut self.records[at as usize];
            let next = record.next;
            if group.covers(&record.group, letters) {
                match record.turn {
                    Turn::Waits => self.left -= 1,
                    Turn::Visited => self.again += 1,
                    Turn::Passed => unreachable!("it was taken out already"),
                }
                record.turn = Turn::Passed;
            } else {
                record.next = NOBODY;
                match last {
                    NOBODY => first = at,
                    last => self.records[last as usize].next = at,
                }
                last = at;
            }
            at = next;
        }
        first
    }

    /// The next one that is to be visited: of those that have come least far the latest, so whatever may be on its way in a
    /// state tends to be known by then.
    pub(super) fn next(&mut self) -> Option<u32> {
        loop {
            let mut least = self.waiting.first_entry()?;
            let number = least.get_mut().pop();
            if least.get().is_empty() {
                least.remove();
            }
            let number = number.expect("empty ones are taken out");
            let record = &mut self.records[number as usize];
            if record.turn == Turn::Waits {
                record.turn = Turn::Visited;
                self.left -= 1;
                return Some(number);
            }
        }
    }

    /// Where the head of a state's chain is, or would be.
    fn slot(&self, group: &Group<N>) -> usize {
        let mask = self.heads.len() - 1;
        let hash = group.hash_but_letters();
        let mut slot = usize::try_from(hash).unwrap_or(usize::MAX) & mask;
        loop {
            let head = self.heads[slot];
            if head == NOBODY || self.records[head as usize].group.same_but_letters(group) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn widen(&mut self) {
        let wider = vec![NOBODY; self.heads.len() * 2];
        let heads = std::mem::replace(&mut self.heads, wider);
        for head in heads {
            if head != NOBODY {
                let slot = self.slot(&self.records[head as usize].group);
                self.heads[slot] = head;
            }
        }
    }
}
