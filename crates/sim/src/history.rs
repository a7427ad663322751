//! What clients did and heard: the input of the linearizability checker.

use electrode_apps::{Compare, KvOp, KvResult, KvTxn, TxnResult};

/// A single step on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Get,
    Put(Vec<u8>),
    CompareAndSwap(Option<Vec<u8>>, Vec<u8>),
    Append(Vec<u8>),
}

/// What a client asked; keys are small numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// One step.
    Single(usize, Step),
    /// If every compare holds, the first steps, otherwise the second.
    Txn {
        compares: Vec<(usize, Option<Vec<u8>>)>,
        success: Vec<(usize, Step)>,
        failure: Vec<(usize, Step)>,
    },
}

/// What a step answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Value(Option<Vec<u8>>),
    Stored,
    Mismatch(Option<Vec<u8>>),
    Length(u64),
}

/// What an action answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Of a transaction: whether the compares held.
    pub(crate) succeeded: bool,
    pub(crate) answers: Vec<Answer>,
}

/// One request, from its first send to its reply.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) action: Action,
    /// The simulated nanosecond of the first send.
    pub(crate) invoked: u64,
    /// When the answer came and what it was; None: it is not known whether it was executed.
    pub(crate) returned: Option<(u64, Outcome)>,
    /// Where in the order its answer says that it was, 0 when nobody said: where the checker looks first.
    pub(crate) hint: u64,
}

/// The bytes of a key.
pub(crate) fn key_bytes(key: usize) -> Vec<u8> {
    format!("key{key}").into_bytes()
}

impl Action {
    /// The keys that it reads or writes.
    pub(crate) fn keys(&self) -> Vec<usize> {
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
    pub(crate) fn writes(&self) -> bool {
        let write = |step: &Step| !matches!(step, Step::Get);
        match self {
            Action::Single(_, step) => write(step),
            Action::Txn {
                success, failure, ..
            } => success.iter().chain(failure).any(|(_, step)| write(step)),
        }
    }

    /// As the store's op.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let names: Vec<Vec<u8>> = (0..=self.keys().into_iter().max().unwrap_or(0))
            .map(key_bytes)
            .collect();
        match self {
            Action::Single(key, step) => op(&names[*key], step).encode(),
            Action::Txn {
                compares,
                success,
                failure,
            } => KvTxn {
                compares: compares
                    .iter()
                    .map(|(key, expected)| Compare {
                        key: &names[*key],
                        expected: expected.as_deref(),
                    })
                    .collect(),
                success: success
                    .iter()
                    .map(|(key, step)| op(&names[*key], step))
                    .collect(),
                failure: failure
                    .iter()
                    .map(|(key, step)| op(&names[*key], step))
                    .collect(),
            }
            .encode(),
        }
    }

    /// Reads the store's result; None when it is no answer to this action.
    pub(crate) fn outcome(&self, bytes: &[u8]) -> Option<Outcome> {
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
