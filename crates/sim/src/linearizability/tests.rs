//! The checker checked: histories known to be good and bad, and small random ones against every order.

use super::spec::State;
use super::{NotLinearizable, check};
use crate::history::{Action, Answer, Call, Outcome, Step};
use crate::random::Random;

fn call(invoked: u64, returned: u64, action: Action, answer: Answer) -> Call {
    let outcome = Outcome {
        succeeded: true,
        answers: vec![answer],
    };
    Call {
        action,
        invoked,
        returned: Some((returned, outcome)),
        hint: 0,
    }
}

fn put(invoked: u64, returned: u64, value: u8) -> Call {
    let action = Action::Single(0, Step::Put(vec![value]));
    call(invoked, returned, action, Answer::Stored)
}

fn get(invoked: u64, returned: u64, value: Option<u8>) -> Call {
    let answer = Answer::Value(value.map(|value| vec![value]));
    call(invoked, returned, Action::Single(0, Step::Get), answer)
}

fn unanswered(call: Call) -> Call {
    Call {
        returned: None,
        ..call
    }
}

#[test]
fn reads_may_see_a_concurrent_write_or_not() {
    for seen in [None, Some(1)] {
        assert_eq!(check(&[put(0, 10, 1), get(2, 8, seen)]), Ok(()));
    }
}

#[test]
fn a_read_after_a_write_sees_it() {
    let stale = [put(0, 10, 1), get(11, 12, None)];
    assert!(matches!(
        check(&stale),
        Err(NotLinearizable::NoOrder { .. })
    ));
    assert_eq!(check(&[put(0, 10, 1), get(11, 12, Some(1))]), Ok(()));
}

#[test]
fn two_reads_do_not_see_a_write_come_and_go() {
    let calls = [put(0, 100, 1), get(10, 20, Some(1)), get(30, 40, None)];
    assert!(check(&calls).is_err());
    let calls = [put(0, 100, 1), get(10, 20, None), get(30, 40, Some(1))];
    assert_eq!(check(&calls), Ok(()));
}

#[test]
fn an_unanswered_write_may_take_place_late_or_never() {
    let write = unanswered(put(0, 0, 1));
    assert_eq!(
        check(&[write.clone(), get(5, 6, None), get(90, 91, Some(1))]),
        Ok(())
    );
    assert_eq!(check(&[write.clone(), get(5, 6, None)]), Ok(()));
    assert!(check(&[write, get(5, 6, Some(1)), get(7, 8, None)]).is_err());
    let future = [get(1, 2, Some(1)), unanswered(put(5, 0, 1))];
    assert!(check(&future).is_err(), "not before it was invoked");
}

#[test]
fn only_one_of_two_swaps_from_the_same_value_succeeds() {
    let swap = |new: u8, answer| {
        let action = Action::Single(0, Step::CompareAndSwap(None, vec![new]));
        call(0, 10, action, answer)
    };
    assert!(check(&[swap(1, Answer::Stored), swap(2, Answer::Stored)]).is_err());
    let mismatch = Answer::Mismatch(Some(vec![1]));
    assert_eq!(check(&[swap(1, Answer::Stored), swap(2, mismatch)]), Ok(()));
}

#[test]
fn appends_are_not_lost_or_doubled() {
    let append = |invoked, returned, length| {
        let action = Action::Single(0, Step::Append(vec![7]));
        call(invoked, returned, action, Answer::Length(length))
    };
    assert_eq!(check(&[append(0, 9, 1), append(0, 9, 2)]), Ok(()));
    assert!(
        check(&[append(0, 9, 1), append(0, 9, 1)]).is_err(),
        "one is lost"
    );
    assert!(check(&[append(0, 9, 2)]).is_err(), "one was executed twice");
}

#[test]
fn a_transaction_joins_its_keys() {
    let txn = |invoked, returned, succeeded, answers| Call {
        action: Action::Txn {
            compares: vec![(0, None)],
            success: vec![(0, Step::Put(vec![1])), (1, Step::Put(vec![1]))],
            failure: vec![(1, Step::Get)],
        },
        invoked,
        returned: Some((returned, Outcome { succeeded, answers })),
        hint: 0,
    };
    let first = txn(0, 5, true, vec![Answer::Stored, Answer::Stored]);
    let second = txn(6, 9, false, vec![Answer::Value(Some(vec![1]))]);
    assert_eq!(check(&[first.clone(), second]), Ok(()));
    let torn = txn(6, 9, false, vec![Answer::Value(None)]);
    assert!(check(&[first, torn]).is_err());
}

/// Tries every order: whether one agrees with real time and with what was heard.
fn by_brute_force(state: &State, left: &[&Call]) -> bool {
    if left.iter().all(|call| call.returned.is_none()) {
        return true;
    }
    let earliest = left
        .iter()
        .filter_map(|call| call.returned.as_ref().map(|(at, _)| *at))
        .min();
    (0..left.len()).any(|index| {
        let call = left[index];
        if earliest.is_some_and(|at| at < call.invoked) {
            return false;
        }
        let heard = call.returned.as_ref().map(|(_, outcome)| outcome);
        let mut rest = left.to_vec();
        rest.remove(index);
        state
            .after(&call.action, heard)
            .is_some_and(|next| by_brute_force(&next, &rest))
    })
}

fn random_history(random: &mut Random) -> Vec<Call> {
    let calls = 2 + random.index(5);
    // Real executions, some of which are then falsified.
    let mut state = State::default();
    let mut history: Vec<Call> = Vec::new();
    for number in 0..calls {
        let value = vec![u8::try_from(number % 3).unwrap()];
        let mut step = || match random.below(4) {
            0 => Step::Get,
            1 => Step::Put(value.clone()),
            2 => Step::CompareAndSwap(random.chance(500).then(|| vec![0]), value.clone()),
            _ => Step::Append(value.clone()),
        };
        let (one, two) = (step(), step());
        let action = if random.chance(250) {
            Action::Txn {
                compares: vec![(0, random.chance(500).then(|| vec![1]))],
                success: vec![(1, one)],
                failure: vec![(0, two)],
            }
        } else {
            Action::Single(random.index(2), one)
        };
        let outcome = state.perform(&action);
        let at = 10 * number as u64 + 5;
        let (before, after) = (random.below(25), random.below(25));
        let returned = random.chance(850).then_some((at + after, outcome));
        history.push(Call {
            action,
            invoked: at.saturating_sub(before),
            returned,
            // Often right, often wrong: it must not matter.
            hint: random.below(calls as u64),
        });
    }
    if random.chance(600) {
        let (one, two) = (random.index(calls), random.index(calls));
        if let (Some(first), Some(second)) =
            (history[one].returned.clone(), history[two].returned.clone())
        {
            history[one].returned = Some((first.0, second.1));
        }
    }
    history
}

#[test]
fn agrees_with_every_order_tried_on_small_random_histories() {
    let mut verdicts = [0; 2];
    for seed in 0..4000 {
        let history = random_history(&mut Random::new(seed));
        let all: Vec<&Call> = history.iter().collect();
        let expected = by_brute_force(&State::default(), &all);
        assert_eq!(
            check(&history).is_ok(),
            expected,
            "seed {seed}: {history:#?}"
        );
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts[0] > 300 && verdicts[1] > 300, "{verdicts:?}");
}
