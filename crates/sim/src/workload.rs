//! What clients ask for: reads, writes, compare-and-swaps, appends, and transactions over two keys.
//!
//! The twin on a real kernel asks for the same.

use crate::history::{Action, Answer, Outcome, Step};
use crate::random::Random;

/// Bytes of a value that is compared with.
const LONGEST_EXPECTED: usize = 4000;

/// One client's wishes. No two clients write the same value, nor one client twice within 65,536 requests.
#[derive(Clone, Debug)]
pub struct Workload {
    client: u8,
    first_key: usize,
    large: usize,
    /// What it last saw of each key.
    seen: Vec<Option<Vec<u8>>>,
}

impl Workload {
    /// Of the client with this number, over so many keys from 0 on. A few values have `large` bytes; 0: none.
    #[must_use]
    pub fn new(client: u8, keys: usize, large: usize) -> Workload {
        Workload {
            client,
            first_key: 0,
            large,
            seen: vec![None; keys],
        }
    }

    /// Goes on with as many other keys, which nobody has written yet: what has no answer so far can't be seen in them.
    pub fn move_to(&mut self, first_key: usize) {
        self.first_key = first_key;
        self.seen.fill(None);
    }

    /// The action of the request with this number among the client's.
    pub fn action(&mut self, number: u64, random: &mut Random) -> Action {
        let key = random.index(self.seen.len());
        if !random.chance(120) {
            let step = self.step(key, number, random);
            return Action::Single(self.first_key + key, step);
        }
        let other = random.index(self.seen.len());
        let (first, second) = (self.first_key + key, self.first_key + other);
        Action::Txn {
            compares: vec![(first, self.expected(key))],
            success: vec![
                (first, self.step(key, number, random)),
                (second, self.step(other, number, random)),
            ],
            failure: vec![(second, Step::Get)],
        }
    }

    /// A read of one key.
    pub fn read(&self, random: &mut Random) -> Action {
        let key = random.index(self.seen.len());
        Action::Single(self.first_key + key, Step::Get)
    }

    /// Takes note of an answer: what is compared with later is what was seen last.
    pub fn learn(&mut self, action: &Action, outcome: &Outcome) {
        let Action::Single(key, step) = action else {
            return;
        };
        // The answer to a request from before it moved to other keys.
        let Some(seen) = key
            .checked_sub(self.first_key)
            .and_then(|key| self.seen.get_mut(key))
        else {
            return;
        };
        *seen = match (step, outcome.answers.first()) {
            (Step::Get, Some(Answer::Value(value))) => value.clone(),
            (Step::Put(value) | Step::CompareAndSwap(_, value), Some(Answer::Stored)) => {
                Some(value.clone())
            }
            (_, Some(Answer::Mismatch(actual))) => actual.clone(),
            (_, _) => seen.take(),
        };
    }

    /// A value that nobody else writes.
    fn value(&self, number: u64, random: &mut Random) -> Vec<u8> {
        let mut value = vec![self.client];
        value.extend(
            u16::try_from(number & 0xffff)
                .expect("16 bits")
                .to_le_bytes(),
        );
        if self.large > 0 && random.chance(30) {
            value.resize(self.large, 0xaa);
        } else if random.chance(200) {
            value.resize(3 + random.index(200), 0x55);
        }
        value
    }

    /// What it last saw of a key, unless that is too long to be sent around.
    fn expected(&self, key: usize) -> Option<Vec<u8>> {
        self.seen[key]
            .clone()
            .filter(|value| value.len() <= LONGEST_EXPECTED)
    }

    fn step(&self, key: usize, number: u64, random: &mut Random) -> Step {
        match random.below(10) {
            0..3 => Step::Get,
            3..6 => Step::Put(self.value(number, random)),
            6..8 => Step::CompareAndSwap(self.expected(key), self.value(number, random)),
            _ => Step::Append(self.value(number, random)),
        }
    }
}
