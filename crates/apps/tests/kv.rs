//! The key-value store, op by op, and against a model that is as simple as can be.

use std::collections::BTreeMap;

use electrode_apps::kv::{
    MAX_KEY_BYTES, MAX_RESULT_BYTES, MAX_TXN_STEPS, MAX_VALUE_BYTES, ResultError,
};
use electrode_apps::{Compare, Kv, KvOp, KvResult, KvTxn, TxnResult};
use electrode_vr::StateMachine;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Applies an op and gives its result to be looked at.
fn apply<R>(kv: &mut Kv, op: KvOp<'_>, look: impl FnOnce(KvResult<'_>) -> R) -> R {
    let bytes = kv.apply(&op.encode());
    look(KvResult::decode(&bytes).unwrap())
}

#[track_caller]
fn expect(kv: &mut Kv, op: KvOp<'_>, expected: KvResult<'_>) {
    apply(kv, op, |result| assert_eq!(result, expected));
}

fn with(entries: &[(&[u8], &[u8])]) -> Kv {
    let mut kv = Kv::default();
    for (key, value) in entries {
        expect(&mut kv, KvOp::Put { key, value }, KvResult::Stored);
    }
    kv
}

#[test]
fn a_value_is_there_from_put_to_delete() {
    let mut kv = Kv::default();
    expect(&mut kv, KvOp::Get { key: b"k" }, KvResult::Value(None));
    expect(
        &mut kv,
        KvOp::Put {
            key: b"k",
            value: b"v",
        },
        KvResult::Stored,
    );
    expect(
        &mut kv,
        KvOp::Get { key: b"k" },
        KvResult::Value(Some(b"v")),
    );
    expect(
        &mut kv,
        KvOp::Put {
            key: b"k",
            value: b"",
        },
        KvResult::Stored,
    );
    expect(&mut kv, KvOp::Get { key: b"k" }, KvResult::Value(Some(b"")));
    expect(
        &mut kv,
        KvOp::Delete { key: b"k" },
        KvResult::Deleted { existed: true },
    );
    expect(
        &mut kv,
        KvOp::Delete { key: b"k" },
        KvResult::Deleted { existed: false },
    );
    assert_eq!((kv.len(), kv.digest()), (0, Kv::default().digest()));
}

#[test]
fn compare_and_swap_changes_only_what_is_as_expected() {
    let mut kv = Kv::default();
    let swap = |expected, new| KvOp::CompareAndSwap {
        key: b"k",
        expected,
        new,
    };
    expect(
        &mut kv,
        swap(Some(b"a"), b"b"),
        KvResult::Mismatch { actual: None },
    );
    expect(&mut kv, swap(None, b"a"), KvResult::Stored);
    expect(
        &mut kv,
        swap(None, b"z"),
        KvResult::Mismatch { actual: Some(b"a") },
    );
    expect(&mut kv, swap(Some(b"a"), b"b"), KvResult::Stored);
    assert_eq!(kv.value(b"k"), Some(b"b".as_slice()));
}

#[test]
fn append_extends_and_begins_with_nothing() {
    let mut kv = Kv::default();
    expect(
        &mut kv,
        KvOp::Append {
            key: b"k",
            value: b"ab",
        },
        KvResult::Appended { length: 2 },
    );
    expect(
        &mut kv,
        KvOp::Append {
            key: b"k",
            value: b"c",
        },
        KvResult::Appended { length: 3 },
    );
    assert_eq!(kv.value(b"k"), Some(b"abc".as_slice()));
}

#[test]
fn scan_and_count_see_the_prefix_alone() {
    let mut kv = with(&[
        (b"a", b"0"),
        (b"b", b"1"),
        (b"b\xff", b"2"),
        (b"b\xff\xff", b"3"),
        (b"c", b"4"),
    ]);
    expect(
        &mut kv,
        KvOp::Scan {
            prefix: b"b",
            after: None,
            limit: 10,
        },
        KvResult::Entries {
            entries: vec![(b"b", b"1"), (b"b\xff", b"2"), (b"b\xff\xff", b"3")],
            more: false,
        },
    );
    expect(&mut kv, KvOp::Count { prefix: b"b" }, KvResult::Count(3));
    expect(&mut kv, KvOp::Count { prefix: b"" }, KvResult::Count(5));
    expect(&mut kv, KvOp::Count { prefix: b"d" }, KvResult::Count(0));
}

#[test]
fn a_scan_that_was_cut_goes_on_after_its_last_key() {
    let mut kv = with(&[(b"a", b""), (b"b", b""), (b"c", b"")]);
    let scan = |after, limit| KvOp::Scan {
        prefix: b"",
        after,
        limit,
    };
    let entries = |entries, more| KvResult::Entries { entries, more };
    expect(
        &mut kv,
        scan(None, 2),
        entries(vec![(b"a", b""), (b"b", b"")], true),
    );
    expect(
        &mut kv,
        scan(Some(b"b"), 2),
        entries(vec![(b"c", b"")], false),
    );
    expect(&mut kv, scan(Some(b"c"), 2), entries(vec![], false));
    expect(&mut kv, scan(None, 0), entries(vec![], true));
    expect(
        &mut kv,
        KvOp::Scan {
            prefix: b"b",
            after: Some(b"a"),
            limit: 9,
        },
        entries(vec![(b"b", b"")], false),
    );
}

#[test]
fn a_scan_stops_before_the_answer_is_too_long() {
    let value = vec![7; 20 << 10];
    let mut kv = with(&[(b"a", &value), (b"b", &value), (b"c", &value)]);
    let op = KvOp::Scan {
        prefix: b"",
        after: None,
        limit: u32::MAX,
    };
    assert!(kv.apply(&op.encode()).len() <= MAX_RESULT_BYTES);
    apply(&mut kv, op, |result| {
        assert_eq!(
            result,
            KvResult::Entries {
                entries: vec![(b"a", &value), (b"b", &value)],
                more: true
            }
        );
    });
}

#[test]
fn what_is_too_long_is_refused_and_changes_nothing() {
    let mut kv = with(&[(b"k", &[1; MAX_VALUE_BYTES])]);
    let before = kv.clone();
    let long_key = [0; MAX_KEY_BYTES + 1];
    let long_value = [0; MAX_VALUE_BYTES + 1];
    for op in [
        KvOp::Put {
            key: &long_key,
            value: b"",
        },
        KvOp::Put {
            key: b"k",
            value: &long_value,
        },
        KvOp::Append {
            key: b"k",
            value: b"x",
        },
        KvOp::Append {
            key: &long_key,
            value: b"x",
        },
        KvOp::CompareAndSwap {
            key: b"n",
            expected: None,
            new: &long_value,
        },
    ] {
        expect(&mut kv, op, KvResult::TooLarge);
    }
    assert_eq!(kv, before);
}

#[test]
fn a_transaction_takes_one_branch_whole() {
    let mut kv = with(&[(b"from", b"10"), (b"to", b"0")]);
    let txn = KvTxn {
        compares: vec![
            Compare {
                key: b"from",
                expected: Some(b"10"),
            },
            Compare {
                key: b"lock",
                expected: None,
            },
        ],
        success: vec![
            KvOp::Put {
                key: b"from",
                value: b"3",
            },
            KvOp::Append {
                key: b"to",
                value: b"7",
            },
            KvOp::Get { key: b"from" },
        ],
        failure: vec![KvOp::Get { key: b"from" }],
    };
    let bytes = kv.apply(&txn.encode());
    let results = vec![
        KvResult::Stored,
        KvResult::Appended { length: 2 },
        KvResult::Value(Some(b"3")),
    ];
    assert_eq!(
        TxnResult::decode(&bytes),
        Ok(TxnResult {
            succeeded: true,
            results
        })
    );
    let bytes = kv.apply(&txn.encode());
    let results = vec![KvResult::Value(Some(b"3"))];
    assert_eq!(
        TxnResult::decode(&bytes),
        Ok(TxnResult {
            succeeded: false,
            results
        })
    );
}

#[test]
fn a_transactions_answer_is_bounded_and_later_results_are_left_out() {
    let value = vec![1; 20 << 10];
    let mut kv = with(&[(b"k", &value)]);
    let mut success = vec![KvOp::Get { key: b"k" }; 4];
    success.push(KvOp::Put {
        key: b"done",
        value: b"yes",
    });
    let bytes = kv.apply(
        &KvTxn {
            success,
            ..KvTxn::default()
        }
        .encode(),
    );
    assert!(bytes.len() <= MAX_RESULT_BYTES + MAX_TXN_STEPS + 8);
    let full = KvResult::Value(Some(&value));
    let results = vec![
        full.clone(),
        full,
        KvResult::Omitted,
        KvResult::Omitted,
        KvResult::Stored,
    ];
    assert_eq!(TxnResult::decode(&bytes).unwrap().results, results);
    assert_eq!(kv.value(b"done"), Some(b"yes".as_slice()));
}

#[test]
fn a_transaction_with_too_many_steps_is_refused_whole() {
    let mut kv = Kv::default();
    let success = vec![
        KvOp::Put {
            key: b"k",
            value: b"v"
        };
        MAX_TXN_STEPS + 1
    ];
    let bytes = kv.apply(
        &KvTxn {
            success,
            ..KvTxn::default()
        }
        .encode(),
    );
    assert_eq!(TxnResult::decode(&bytes), Err(ResultError::BadOperation));
    assert!(kv.is_empty());
}

#[test]
fn bytes_that_are_no_operation_are_answered_as_such() {
    let mut kv = with(&[(b"k", b"v")]);
    let before = kv.clone();
    let put = KvOp::Put {
        key: b"k",
        value: b"w",
    }
    .encode();
    let longer = [put.as_slice(), b"x"].concat();
    for op in [
        b"".as_slice(),
        b"\xff",
        b"\0",
        b"\0\xff",
        &put[..put.len() - 1],
        &longer,
        b"\x01\xff\xff\xff\xff\x0f",
    ] {
        assert_eq!(
            KvResult::decode(&kv.apply(op)),
            Ok(KvResult::BadOperation),
            "{op:?}"
        );
    }
    assert_eq!(kv, before);
}

#[test]
fn an_op_is_no_result() {
    let op = KvOp::Get { key: b"k" }.encode();
    assert_eq!(KvResult::decode(&op), Err(ResultError::Malformed));
    let txn = KvTxn::default().encode();
    assert_eq!(TxnResult::decode(&txn), Err(ResultError::Malformed));
}

#[test]
fn the_digest_depends_on_the_state_and_not_on_the_way() {
    let one = with(&[(b"a", b"1"), (b"b", b"2")]);
    let mut other = with(&[(b"b", b"9"), (b"x", b"x"), (b"a", b"1"), (b"b", b"2")]);
    assert_ne!(one.digest(), other.digest());
    expect(
        &mut other,
        KvOp::Delete { key: b"x" },
        KvResult::Deleted { existed: true },
    );
    assert_eq!(one.digest(), other.digest());
    assert_ne!(
        with(&[(b"ab", b"c")]).digest(),
        with(&[(b"a", b"bc")]).digest()
    );
}

#[test]
fn bytes_that_are_no_snapshot_change_nothing() {
    let mut kv = with(&[(b"k", b"v")]);
    let before = kv.clone();
    let good = with(&[(b"a", b"1"), (b"b", b"2")]).snapshot();
    let cases: [(&[u8], &str); 5] = [
        (b"", "no count"),
        (&good[..good.len() - 1], "an entry is cut off"),
        (b"\x02\x01b\x00\x01a\x00", "keys aren't ascending"),
        (b"\x00x", "bytes follow the last entry"),
        (
            b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            "an entry is cut off",
        ),
    ];
    for (bytes, why) in cases {
        assert_eq!(kv.restore(bytes).unwrap_err().0, why);
    }
    assert_eq!(kv, before);
}

/// An op that owns its bytes.
#[derive(Clone, Debug)]
enum Owned {
    Get(Vec<u8>),
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Swap(Vec<u8>, Option<Vec<u8>>, Vec<u8>),
    Append(Vec<u8>, Vec<u8>),
    Scan(Vec<u8>, Option<Vec<u8>>, u32),
    Count(Vec<u8>),
}

impl Owned {
    fn op(&self) -> KvOp<'_> {
        match self {
            Owned::Get(key) => KvOp::Get { key },
            Owned::Put(key, value) => KvOp::Put { key, value },
            Owned::Delete(key) => KvOp::Delete { key },
            Owned::Swap(key, expected, new) => KvOp::CompareAndSwap {
                key,
                expected: expected.as_deref(),
                new,
            },
            Owned::Append(key, value) => KvOp::Append { key, value },
            Owned::Scan(prefix, after, limit) => KvOp::Scan {
                prefix,
                after: after.as_deref(),
                limit: *limit,
            },
            Owned::Count(prefix) => KvOp::Count { prefix },
        }
    }

    /// What the op should answer and do, said without prefixes, ranges or budgets.
    fn on<'a>(&'a self, model: &'a mut BTreeMap<Vec<u8>, Vec<u8>>) -> KvResult<'a> {
        match self {
            Owned::Get(key) => KvResult::Value(model.get(key).map(Vec::as_slice)),
            Owned::Put(key, value) => {
                model.insert(key.clone(), value.clone());
                KvResult::Stored
            }
            Owned::Delete(key) => KvResult::Deleted {
                existed: model.remove(key).is_some(),
            },
            Owned::Swap(key, expected, new) if model.get(key) == expected.as_ref() => {
                model.insert(key.clone(), new.clone());
                KvResult::Stored
            }
            Owned::Swap(key, ..) => KvResult::Mismatch {
                actual: model.get(key).map(Vec::as_slice),
            },
            Owned::Append(key, value) => {
                let all = model.entry(key.clone()).or_default();
                all.extend_from_slice(value);
                KvResult::Appended {
                    length: all.len() as u64,
                }
            }
            Owned::Scan(prefix, after, limit) => {
                let all: Vec<(&[u8], &[u8])> = model
                    .iter()
                    .filter(|(key, _)| key.starts_with(prefix))
                    .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
                    .map(|(key, value)| (key.as_slice(), value.as_slice()))
                    .collect();
                let count = all.len().min(*limit as usize);
                KvResult::Entries {
                    entries: all[..count].to_vec(),
                    more: count < all.len(),
                }
            }
            Owned::Count(prefix) => {
                KvResult::Count(model.keys().filter(|key| key.starts_with(prefix)).count() as u64)
            }
        }
    }
}

fn short() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0u8), Just(1), Just(0xff)], 0..4)
}

fn owned() -> impl Strategy<Value = Owned> {
    prop_oneof![
        1 => short().prop_map(Owned::Get),
        3 => (short(), short()).prop_map(|(key, value)| Owned::Put(key, value)),
        1 => short().prop_map(Owned::Delete),
        2 => (short(), option::of(short()), short()).prop_map(|(key, old, new)| Owned::Swap(key, old, new)),
        1 => (short(), short()).prop_map(|(key, value)| Owned::Append(key, value)),
        1 => (short(), option::of(short()), 0..6u32).prop_map(|(prefix, after, limit)| Owned::Scan(prefix, after, limit)),
        1 => short().prop_map(Owned::Count),
    ]
}

proptest! {
    #[test]
    fn answers_and_state_are_the_models(ops in vec(owned(), 1..60)) {
        let mut kv = Kv::default();
        let mut model = BTreeMap::new();
        for op in &ops {
            let bytes = kv.apply(&op.op().encode());
            prop_assert_eq!(KvResult::decode(&bytes).unwrap(), op.on(&mut model));
            prop_assert_eq!(kv.len(), model.len());
        }
        let entries: Vec<(&[u8], &[u8])> =
            model.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
        let fresh = with(&entries);
        prop_assert_eq!(kv.digest(), fresh.digest());
        prop_assert_eq!(kv.snapshot(), fresh.snapshot());
        let mut restored = with(&[(b"old", b"gone")]);
        restored.restore(&kv.snapshot()).unwrap();
        prop_assert_eq!(restored, kv);
    }

    #[test]
    fn a_transaction_is_its_ops_one_after_another(
        before in vec(owned(), 0..20),
        compares in vec((short(), option::of(short())), 0..3),
        success in vec(owned(), 0..6),
        failure in vec(owned(), 0..6),
    ) {
        let mut kv = Kv::default();
        for op in &before {
            kv.apply(&op.op().encode());
        }
        let mut one_by_one = kv.clone();
        let holds = compares.iter().all(|(key, expected)| kv.value(key) == expected.as_deref());
        let txn = KvTxn {
            compares: compares.iter().map(|(key, expected)| Compare { key, expected: expected.as_deref() }).collect(),
            success: success.iter().map(Owned::op).collect(),
            failure: failure.iter().map(Owned::op).collect(),
        };
        let bytes = kv.apply(&txn.encode());
        let result = TxnResult::decode(&bytes).unwrap();
        prop_assert_eq!(result.succeeded, holds);
        let branch = if holds { &success } else { &failure };
        prop_assert_eq!(result.results.len(), branch.len());
        for (op, result) in branch.iter().zip(&result.results) {
            let bytes = one_by_one.apply(&op.op().encode());
            prop_assert_eq!(&KvResult::decode(&bytes).unwrap(), result);
        }
        prop_assert_eq!(kv, one_by_one);
    }

    #[test]
    fn no_bytes_make_it_panic(op in prop_oneof![
        vec(any::<u8>(), 0..60),
        (0..2u8, vec(0..9u8, 0..40)).prop_map(|(tag, rest)| [&[tag], rest.as_slice()].concat()),
    ]) {
        let mut kv = with(&[(b"\x01", b"v")]);
        let answer = kv.apply(&op);
        prop_assert!(KvResult::decode(&answer).is_ok() || TxnResult::decode(&answer).is_ok());
        let _ = kv.restore(&op);
        let _ = KvResult::decode(&op);
        let _ = TxnResult::decode(&op);
    }
}

/// What the primary answers by its lease is what the log would have answered.
#[test]
fn reads_answer_as_execution_does_and_writes_are_no_reads() {
    use electrode_vr::StateMachine as _;
    let mut kv = Kv::default();
    for (key, value) in [(b"a", b"1"), (b"b", b"2")] {
        kv.apply(&KvOp::Put { key, value }.encode());
    }
    let looks = [
        KvOp::Get { key: b"a" },
        KvOp::Get { key: b"absent" },
        KvOp::Count { prefix: b"" },
        KvOp::Scan {
            prefix: b"",
            after: Some(b"a"),
            limit: 9,
        },
    ];
    for op in looks {
        let read = kv.read(&op.encode());
        assert_eq!(read, Some(kv.apply(&op.encode())), "{op:?}");
    }
    let writes = [
        KvOp::Put {
            key: b"a",
            value: b"3",
        },
        KvOp::Delete { key: b"a" },
        KvOp::Append {
            key: b"a",
            value: b"3",
        },
        KvOp::CompareAndSwap {
            key: b"a",
            expected: None,
            new: b"3",
        },
    ];
    for op in writes {
        assert_eq!(kv.read(&op.encode()), None, "{op:?}");
    }
    assert_eq!(kv.read(&KvTxn::default().encode()), None);
    assert_eq!(kv.read(b"no operation"), None);
}
