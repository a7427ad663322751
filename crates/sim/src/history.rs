//! What clients did and heard: the input of the linearizability checker.

use std::collections::BTreeMap;

use electrode_apps::{Compare, KvOp, KvResult, KvTxn, TxnResult};

/// A single step on one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Read.
    Get,
    /// Write this value.
    Put(Vec<u8>),
    /// Write the second value if the first is there (None: if nothing is).
    CompareAndSwap(Option<Vec<u8>>, Vec<u8>),
    /// Add these bytes at the end.
    Append(Vec<u8>),
}

/// What a client asked; keys are small numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// One step.
    Single(usize, Step),
    /// If every compare holds, the first steps, otherwise the second.
    Txn {
        /// Keys, and what has to be there.
        compares: Vec<(usize, Option<Vec<u8>>)>,
        /// The steps if all of that is there.
        success: Vec<(usize, Step)>,
        /// The steps otherwise.
        failure: Vec<(usize, Step)>,
    },
}

/// What a step answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// What was read.
    Value(Option<Vec<u8>>),
    /// It was written.
    Stored,
    /// Another value was there, this one; nothing was written.
    Mismatch(Option<Vec<u8>>),
    /// The length after an append, in bytes.
    Length(u64),
}

/// What an action answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Of a transaction: whether the compares held.
    pub succeeded: bool,
    /// One for each step that was made.
    pub answers: Vec<Answer>,
}

/// One request, from its first send to its reply.
#[derive(Clone, Debug)]
pub struct Call {
    /// What was asked.
    pub action: Action,
    /// The (simulated) nanosecond of the first send.
    pub invoked: u64,
    /// When the answer came and what it was; None: it is not known whether it was executed.
    pub returned: Option<(u64, Outcome)>,
    /// Where in the order its answer says that it was, 0 when nobody said: where the checker looks first.
    pub hint: u64,
}

/// The bytes of a key.
pub(crate) fn key_bytes(key: usize) -> Vec<u8> {
    format!("key{key}").into_bytes()
}

impl Action {
    /// The keys that it reads or writes.
    #[must_use]
    pub fn keys(&self) -> Vec<usize> {
        match self {
            Action::Single(key, _) => vec![*key],
            Action::Txn {
                compares,
                success,
                failure,
            } => {
                let compared = compares.iter().map(|(key, _)| *key);
                let steps = success.iter().chain(failure).map(|(key, _)| *key);
                compared.chain(steps).collect()
            }
        }
    }

    /// Whether it can change anything.
    #[must_use]
    pub fn writes(&self) -> bool {
        let write = |step: &Step| !matches!(step, Step::Get);
        match self {
            Action::Single(_, step) => write(step),
            Action::Txn {
                success, failure, ..
            } => success.iter().chain(failure).any(|(_, step)| write(step)),
        }
    }

    /// As the store's op.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let names: BTreeMap<usize, Vec<u8>> = self
            .keys()
            .into_iter()
            .map(|key| (key, key_bytes(key)))
            .collect();
        match self {
            Action::Single(key, step) => op(&names[key], step).encode(),
            Action::Txn {
                compares,
                success,
                failure,
            } => KvTxn {
                compares: compares
                    .iter()
                    .map(|(key, expected)| Compare {
                        key: &names[key],
                        expected: expected.as_deref(),
                    })
                    .collect(),
                success: success
                    .iter()
                    .map(|(key, step)| op(&names[key], step))
                    .collect(),
                failure: failure
                    .iter()
                    .map(|(key, step)| op(&names[key], step))
                    .collect(),
            }
            .encode(),
        }
    }

    /// Reads the store's result; None when it is no answer to this action.
    #[must_use]
    pub fn outcome(&self, bytes: &[u8]) -> Option<Outcome> {
        match self {
            Action::Single(..) => Some(Outcome {
                succeeded: true,
                answers: vec![answer(&KvResult::decode(bytes).ok()?)?],
            }),
            Action::Txn { .. } => {
                let result = TxnResult::decode(bytes).ok()?;
                Some(Outcome {
                    succeeded: result.succeeded,
                    answers: result.results.iter().map(answer).collect::<Option<_>>()?,
                })
            }
        }
    }
}

fn op<'a>(key: &'a [u8], step: &'a Step) -> KvOp<'a> {
    match step {
        Step::Get => KvOp::Get { key },
        Step::Put(value) => KvOp::Put { key, value },
        Step::CompareAndSwap(expected, new) => KvOp::CompareAndSwap {
            key,
            expected: expected.as_deref(),
            new,
        },
        Step::Append(value) => KvOp::Append { key, value },
    }
}

fn answer(result: &KvResult<'_>) -> Option<Answer> {
    Some(match result {
        KvResult::Value(value) => Answer::Value(value.map(<[u8]>::to_vec)),
        KvResult::Stored => Answer::Stored,
        KvResult::Mismatch { actual } => Answer::Mismatch(actual.map(<[u8]>::to_vec)),
        KvResult::Appended { length } => Answer::Length(*length),
        _ => return None,
    })
}
