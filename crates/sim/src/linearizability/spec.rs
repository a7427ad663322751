//! What the store has to answer: its meaning, written down again in the plainest way, independently of the store.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use super::spread;
use crate::history::{Action, Answer, Outcome, Step};

/// A value and its hash, shared by the many states that have it.
#[derive(Debug)]
struct Value {
    hash: u64,
    bytes: Vec<u8>,
}

impl Value {
    fn new(bytes: Vec<u8>) -> Rc<Value> {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let hash = hasher.finish();
        Rc::new(Value { hash, bytes })
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for Value {}

/// The values of some keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State(BTreeMap<usize, Rc<Value>>);

impl State {
    /// 128 bits that say which state it is.
    pub(super) fn hash(&self) -> u128 {
        let of = |(key, value): (&usize, &Rc<Value>)| {
            spread(value.hash ^ (*key as u64 + 1).rotate_left(40))
        };
        self.0
            .iter()
            .map(of)
            .fold(1, |sum, of| sum ^ of.rotate_left(17))
    }

    /// The state after an action, if its answer is what was heard (or nothing was heard).
    pub(super) fn after(&self, action: &Action, heard: Option<&Outcome>) -> Option<State> {
        if let (Action::Single(key, step), Some(heard)) = (action, heard)
            && !self.may_answer(*key, step, heard.answers.first()?)
        {
            return None;
        }
        let mut next = self.clone();
        let outcome = next.perform(action);
        heard.is_none_or(|heard| *heard == outcome).then_some(next)
    }

    /// Whether a step could have this answer, without performing it: most of what is tried fails here.
    fn may_answer(&self, key: usize, step: &Step, answer: &Answer) -> bool {
        let bytes = self.0.get(&key).map(|value| &value.bytes);
        match (step, answer) {
            (Step::Get, Answer::Value(heard)) => bytes == heard.as_ref(),
            (Step::CompareAndSwap(expected, _), Answer::Stored) => bytes == expected.as_ref(),
            (Step::CompareAndSwap(_, _), Answer::Mismatch(actual)) => bytes == actual.as_ref(),
            (Step::Append(more), Answer::Length(length)) => {
                (bytes.map_or(0, Vec::len) + more.len()) as u64 == *length
            }
            _ => true,
        }
    }

    /// Performs an action.
    pub(super) fn perform(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Single(key, step) => Outcome {
                succeeded: true,
                answers: vec![self.step(*key, step)],
            },
            Action::Txn {
                compares,
                success,
                failure,
            } => {
                let succeeded = compares
                    .iter()
                    .all(|(key, expected)| self.bytes(*key) == expected.as_ref());
                let steps = if succeeded { success } else { failure };
                let answers = steps
                    .iter()
                    .map(|(key, step)| self.step(*key, step))
                    .collect();
                Outcome { succeeded, answers }
            }
        }
    }

    fn bytes(&self, key: usize) -> Option<&Vec<u8>> {
        self.0.get(&key).map(|value| &value.bytes)
    }

    fn step(&mut self, key: usize, step: &Step) -> Answer {
        match step {
            Step::Get => Answer::Value(self.bytes(key).cloned()),
            Step::Put(value) => {
                self.0.insert(key, Value::new(value.clone()));
                Answer::Stored
            }
            Step::CompareAndSwap(expected, new) => {
                let actual = self.bytes(key);
                if actual != expected.as_ref() {
                    return Answer::Mismatch(actual.cloned());
                }
                self.0.insert(key, Value::new(new.clone()));
                Answer::Stored
            }
            Step::Append(value) => {
                let mut whole = self.bytes(key).cloned().unwrap_or_default();
                whole.extend(value);
                let length = whole.len() as u64;
                self.0.insert(key, Value::new(whole));
                Answer::Length(length)
            }
        }
    }
}
