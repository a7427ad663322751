//! Checking a real group's history, where many calls have no answer.
//!
//! In the simulator every answer says where in the order it was; a real group doesn't tell. But every value is written once, so
//! whoever sees it tells that its writer was before. That helps the search in two ways, of which neither can hide a violation
//! or invent one: where it looks first, and which unanswered calls it leaves out at first. An order without them is an order,
//! since they may never have been executed; only if there is none they are all tried. (Where answers show all that they depend
//! on, as those to the [clients](crate::clients) do, there is none then either.)

use std::collections::HashMap;

use electrode_sim::{Action, Answer, Call, NotLinearizable, Step, check_linearizability};

/// Bytes at the beginning of a value that tell it from all others.
const MARK: usize = 3;

/// Whether there is an order that explains what the clients heard.
pub(crate) fn check(mut history: Vec<Call>) -> Result<(), NotLinearizable> {
    let seen = first_seen(&history);
    for (call, seen) in history.iter_mut().zip(&seen) {
        // Most calls took place in the order in which they were answered, and before anybody saw what they wrote.
        let returned = call.returned.as_ref().map(|(at, _)| *at);
        let before = seen.map(|at| at.saturating_sub(1));
        call.hint = returned.into_iter().chain(before).min().unwrap_or(0);
    }
    let telling: Vec<Call> = history
        .iter()
        .zip(&seen)
        .filter(|(call, seen)| call.returned.is_some() || seen.is_some())
        .map(|(call, _)| call.clone())
        .collect();
    match check_linearizability(&telling) {
        Err(_) if telling.len() < history.len() => check_linearizability(&history),
        done => done,
    }
}

/// Per call, when the first answer came that has something in it that the call wrote.
fn first_seen(history: &[Call]) -> Vec<Option<u64>> {
    let mut writers: HashMap<&[u8], (usize, &[u8])> = HashMap::new();
    for (index, call) in history.iter().enumerate() {
        for value in written(&call.action) {
            if let Some(mark) = value.get(..MARK) {
                writers.insert(mark, (index, value));
            }
        }
    }
    let mut seen = vec![None; history.len()];
    for (index, call) in history.iter().enumerate() {
        let Some((at, outcome)) = &call.returned else {
            continue;
        };
        for value in outcome.answers.iter().filter_map(shown) {
            for (from, mark) in value.windows(MARK).enumerate() {
                if let Some((writer, written)) = writers.get(mark)
                    && *writer != index
                    && value[from..].starts_with(written)
                {
                    let first: &mut Option<u64> = &mut seen[*writer];
                    *first = Some(first.map_or(*at, |first| first.min(*at)));
                }
            }
        }
    }
    seen
}

/// The values that an action may write.
fn written(action: &Action) -> Vec<&[u8]> {
    let value = |step| match step {
        &Step::Get => None,
        Step::Put(value) | Step::CompareAndSwap(_, value) | Step::Append(value) => {
            Some(value.as_slice())
        }
    };
    match action {
        Action::Single(_, step) => value(step).into_iter().collect(),
        Action::Txn {
            success, failure, ..
        } => {
            let steps = success.iter().chain(failure);
            steps.filter_map(|(_, step)| value(step)).collect()
        }
    }
}

/// The value that an answer shows.
fn shown(answer: &Answer) -> Option<&[u8]> {
    match answer {
        Answer::Value(value) | Answer::Mismatch(value) => value.as_deref(),
        Answer::Stored | Answer::Length(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use electrode_sim::Outcome;

    use super::*;

    fn call(step: Step, invoked: u64, returned: Option<(u64, Answer)>) -> Call {
        Call {
            action: Action::Single(0, step),
            invoked,
            returned: returned.map(|(at, answer)| {
                let outcome = Outcome {
                    succeeded: true,
                    answers: vec![answer],
                };
                (at, outcome)
            }),
            hint: 0,
        }
    }

    fn value(number: u8) -> Vec<u8> {
        vec![1, number, 0]
    }

    fn saw(number: u8) -> Answer {
        Answer::Value(Some(value(number)))
    }

    /// Calls without an answer that nobody saw, more than could be tried in every order.
    fn unanswered() -> Vec<Call> {
        (100..200)
            .map(|number| call(Step::Put(value(number)), u64::from(number - 100), None))
            .collect()
    }

    #[test]
    fn calls_that_nobody_answered_and_nobody_saw_cost_nothing() {
        let mut history = unanswered();
        // Two writes at once, in the other order than they were answered, so that the search has to turn back.
        history.push(call(Step::Put(value(1)), 200, Some((300, Answer::Stored))));
        history.push(call(Step::Put(value(2)), 201, Some((301, Answer::Stored))));
        for at in (400..600).step_by(10) {
            history.push(call(Step::Get, at, Some((at + 5, saw(1)))));
        }
        assert_eq!(check(history), Ok(()));
    }

    #[test]
    fn a_call_that_nobody_answered_but_somebody_saw_is_in_the_order() {
        let mut history = unanswered();
        history.push(call(Step::Put(value(1)), 200, None));
        history.push(call(Step::Get, 300, Some((301, saw(1)))));
        assert_eq!(check(history), Ok(()));
        assert_eq!(
            first_seen(&[
                call(Step::Append(value(1)), 0, None),
                call(
                    Step::Get,
                    5,
                    Some((9, Answer::Value(Some([value(7), value(1)].concat()))))
                ),
            ]),
            [Some(9), None]
        );
    }

    #[test]
    fn a_call_that_only_a_length_tells_of_is_tried_in_the_end() {
        let history = vec![
            call(Step::Put(value(1)), 0, None),
            call(Step::Append(value(2)), 10, Some((20, Answer::Length(6)))),
        ];
        assert_eq!(check(history), Ok(()));
    }

    #[test]
    fn a_write_that_was_acknowledged_and_is_gone_is_still_found() {
        let history = vec![
            call(Step::Put(value(9)), 0, None),
            call(Step::Put(value(1)), 0, Some((10, Answer::Stored))),
            call(Step::Put(value(2)), 20, Some((30, Answer::Stored))),
            call(Step::Get, 40, Some((50, saw(1)))),
        ];
        assert!(matches!(
            check(history),
            Err(NotLinearizable::NoOrder { .. })
        ));
    }
}
