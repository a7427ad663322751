//! An ordered map of bytes to bytes: what can be asked of it, and what it answers.
//!
//! Ops and results borrow their bytes: encoding copies once into the message, decoding copies nothing. A [`KvTxn`] holds
//! plain ops only, never another transaction, so that no op's bytes can make decoding recurse.

mod machine;

use serde::{Deserialize, Serialize};

pub use machine::Kv;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 4 << 10;

/// The longest value, in bytes; an append that would go beyond is refused.
pub const MAX_VALUE_BYTES: usize = 32 << 10;

/// A result has at most this many bytes of keys and values (a few more with their lengths): it fits into one datagram.
pub const MAX_RESULT_BYTES: usize = 48 << 10;

/// A transaction has at most this many compares, and this many ops in each of its two branches.
pub const MAX_TXN_STEPS: usize = 128;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvOp<'a> {
    /// The value of a key: [`KvResult::Value`].
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Sets a key: [`KvResult::Stored`].
    Put {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// Removes a key: [`KvResult::Deleted`].
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Sets a key if it has the expected value: [`KvResult::Stored`] or [`KvResult::Mismatch`].
    CompareAndSwap {
        /// The key.
        key: &'a [u8],
        /// What it should be now; `None`: not there.
        expected: Option<&'a [u8]>,
        /// Its new value.
        new: &'a [u8],
    },
    /// Appends to a key's value, an absent one being empty: [`KvResult::Appended`].
    Append {
        /// The key.
        key: &'a [u8],
        /// What is appended.
        value: &'a [u8],
    },
    /// Keys that begin with a prefix, in order, with their values: [`KvResult::Entries`].
    Scan {
        /// The prefix; empty: every key.
        prefix: &'a [u8],
        /// Only keys after this one, to go on where a scan stopped.
        after: Option<&'a [u8]>,
        /// At most this many.
        limit: u32,
    },
    /// How many keys begin with a prefix: [`KvResult::Count`].
    Count {
        /// The prefix; empty: every key.
        prefix: &'a [u8],
    },
}

/// Compares, then one of two lists of ops, all in one step: [`TxnResult`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvTxn<'a> {
    /// All have to hold for `success`; looked at before any op is executed.
    pub compares: Vec<Compare<'a>>,
    /// Executed, in order, when all compares hold.
    pub success: Vec<KvOp<'a>>,
    /// Executed, in order, otherwise.
    pub failure: Vec<KvOp<'a>>,
}

/// A condition of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What its value should be; `None`: not there.
    pub expected: Option<&'a [u8]>,
}

/// The answer to a [`KvOp`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvResult<'a> {
    /// The value, or `None` if the key isn't there.
    Value(Option<&'a [u8]>),
    /// The key has the new value.
    Stored,
    /// The key isn't there any more.
    Deleted {
        /// Whether it was there before.
        existed: bool,
    },
    /// The key doesn't have the expected value; nothing changed.
    Mismatch {
        /// What it has; `None`: not there.
        actual: Option<&'a [u8]>,
    },
    /// The value was extended.
    Appended {
        /// Its length now, in bytes.
        length: u64,
    },
    /// What a scan found.
    Entries {
        /// Keys and values, ascending by key.
        #[serde(borrow)]
        entries: Vec<(&'a [u8], &'a [u8])>,
        /// There is more, which `limit` or [`MAX_RESULT_BYTES`] kept out.
        more: bool,
    },
    /// How many keys.
    Count(u64),
    /// The key or the value would be longer than is allowed; nothing changed.
    TooLarge,
    /// In a transaction: the op was executed, but its result didn't fit into the answer any more.
    Omitted,
    /// The bytes are no operation; nothing changed.
    BadOperation,
}

/// The answer to a [`KvTxn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResult<'a> {
    /// Whether all compares held.
    pub succeeded: bool,
    /// The results of the branch that was executed.
    pub results: Vec<KvResult<'a>>,
}

/// Why bytes are no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// The state machine couldn't read the transaction, or it has more than [`MAX_TXN_STEPS`] steps.
    #[error("the state machine refused the transaction as malformed")]
    BadOperation,
    /// The bytes aren't an answer of this state machine.
    #[error("not an answer of the key-value store")]
    Malformed,
}

/// The first byte of an op: one alone, or a transaction.
const SINGLE: u8 = 0;
const TXN: u8 = 1;

/// The first byte of a result: others, so that an echo of an op isn't taken for its result.
const SINGLE_RESULT: u8 = 2;
const TXN_RESULT: u8 = 3;

impl<'a> KvOp<'a> {
    /// The op's bytes for a request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        put(self, vec![SINGLE])
    }
}

impl<'a> KvTxn<'a> {
    /// The transaction's bytes for a request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = put(&self.compares, vec![TXN]);
        put(&self.failure, put(&self.success, bytes))
    }
}

impl<'a> KvResult<'a> {
    /// Reads the answer to a [`KvOp`].
    ///
    /// # Errors
    /// [`ResultError::Malformed`].
    pub fn decode(bytes: &'a [u8]) -> Result<KvResult<'a>, ResultError> {
        match bytes.split_first() {
            Some((&SINGLE_RESULT, rest)) => {
                let (result, rest) = take(rest).ok_or(ResultError::Malformed)?;
                if rest.is_empty() {
                    Ok(result)
                } else {
                    Err(ResultError::Malformed)
                }
            }
            _ => Err(ResultError::Malformed),
        }
    }
}

impl<'a> TxnResult<'a> {
    /// Reads the answer to a [`KvTxn`].
    ///
    /// # Errors
    /// [`ResultError`].
    pub fn decode(bytes: &'a [u8]) -> Result<TxnResult<'a>, ResultError> {
        let Some((&TXN_RESULT, rest)) = bytes.split_first() else {
            return Err(match KvResult::decode(bytes) {
                Ok(KvResult::BadOperation) => ResultError::BadOperation,
                _ => ResultError::Malformed,
            });
        };
        let (succeeded, rest) = take::<bool>(rest).ok_or(ResultError::Malformed)?;
        let (results, rest) = take_list(rest).ok_or(ResultError::Malformed)?;
        if rest.is_empty() {
            Ok(TxnResult { succeeded, results })
        } else {
            Err(ResultError::Malformed)
        }
    }
}

/// What a request's bytes are.
enum Operation<'a> {
    Single(KvOp<'a>),
    Txn(KvTxn<'a>),
}

impl<'a> Operation<'a> {
    fn decode(bytes: &'a [u8]) -> Option<Operation<'a>> {
        let (tag, rest) = bytes.split_first()?;
        let (operation, rest) = match *tag {
            SINGLE => {
                let (op, rest) = take(rest)?;
                (Operation::Single(op), rest)
            }
            TXN => {
                let (compares, rest) = take_list(rest)?;
                let (success, rest) = take_list(rest)?;
                let (failure, rest) = take_list(rest)?;
                (
                    Operation::Txn(KvTxn {
                        compares,
                        success,
                        failure,
                    }),
                    rest,
                )
            }
            _ => return None,
        };
        rest.is_empty().then_some(operation)
    }
}

fn put<T: Serialize>(value: &T, bytes: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(value, bytes).expect("a vector takes everything that has a length")
}

fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<(T, &'a [u8])> {
    postcard::take_from_bytes(bytes).ok()
}

/// A list as postcard writes it, but read with its bound checked before anything is allocated.
fn take_list<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<(Vec<T>, &'a [u8])> {
    let (count, mut rest) = take::<u32>(bytes)?;
    let count = usize::try_from(count)
        .ok()
        .filter(|count| *count <= MAX_TXN_STEPS)?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let (item, after) = take(rest)?;
        items.push(item);
        rest = after;
    }
    Some((items, rest))
}
