//! Whether a history could have come from one store that executes one request at a time (Herlihy & Wing, 1990).
//!
//! The search is Wing & Gong's, with Lowe's memory of configurations ("Testing for linearizability", 2017): a set of
//! linearized calls and the state that they led to is never looked at twice. Linearizability is local, so calls that share
//! no key, not even through others, are checked apart. A call without an answer may have taken place at any time after it
//! was invoked, or never.
//!
//! It is checked itself: by histories known to be good and bad, and against trying all orders (`tests`).

mod spec;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use crate::history::Call;
use spec::State;

/// Configurations that one part of a history may take before the search is given up.
const MAX_CONFIGURATIONS: usize = 4_000_000;

/// Why a history is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotLinearizable {
    /// No order explains what the clients heard.
    #[error("no order explains the {calls} calls on keys {keys:?}; stuck at the call {stuck}")]
    NoOrder {
        keys: Vec<usize>,
        calls: usize,
        stuck: String,
    },
    /// The search was given up: nothing is known.
    #[error("the search over {calls} calls on keys {keys:?} was given up")]
    GivenUp { keys: Vec<usize>, calls: usize },
}

/// Checks a whole history.
pub(crate) fn check(history: &[Call]) -> Result<(), NotLinearizable> {
    for (keys, part) in parts(history) {
        check_part(&keys, &part)?;
    }
    Ok(())
}

/// The history in parts without common keys.
fn parts(history: &[Call]) -> Vec<(Vec<usize>, Vec<&Call>)> {
    let most = history.iter().flat_map(|call| call.action.keys()).max();
    let mut group: Vec<usize> = (0..=most.unwrap_or(0)).collect();
    for call in history {
        let keys = call.action.keys();
        for pair in keys.windows(2) {
            let (from, to) = (group[pair[0]], group[pair[1]]);
            group
                .iter_mut()
                .filter(|of| **of == from)
                .for_each(|of| *of = to);
        }
    }
    let mut parts: BTreeMap<usize, Vec<&Call>> = BTreeMap::new();
    for call in history {
        parts
            .entry(group[call.action.keys()[0]])
            .or_default()
            .push(call);
    }
    parts
        .into_iter()
        .map(|(of, calls)| {
            (
                (0..group.len()).filter(|key| group[*key] == of).collect(),
                calls,
            )
        })
        .collect()
}

/// A set of calls, by index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Set(Vec<u64>);

impl Set {
    fn of(size: usize) -> Set {
        Set(vec![0; size.div_ceil(64)])
    }

    fn flip(&mut self, index: usize) {
        self.0[index / 64] ^= 1 << (index % 64);
    }
}

/// One moment of a history: a call begins, or its answer comes.
#[derive(Clone, Copy, Debug)]
struct Moment {
    call: usize,
    returns: bool,
}

fn check_part(keys: &[usize], calls: &[&Call]) -> Result<(), NotLinearizable> {
    // A call without an answer that changes nothing explains nothing.
    let calls: Vec<&Call> = calls
        .iter()
        .copied()
        .filter(|call| call.returned.is_some() || call.action.writes())
        .collect();
    let mut moments: Vec<(u64, bool, usize)> = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        moments.push((call.invoked, false, index));
        if let Some((at, _)) = call.returned {
            moments.push((at, true, index));
        }
    }
    // At the same nanosecond a call begins before another returns: that allows more orders, never fewer than are real.
    moments.sort_unstable();
    let moments: Vec<Moment> = moments
        .into_iter()
        .map(|(_, returns, call)| Moment { call, returns })
        .collect();
    Search::new(&calls, &moments).run(keys)
}

/// The moments as a linked list, out of which linearized calls are taken and into which they are put back.
struct Search<'a> {
    calls: &'a [&'a Call],
    moments: &'a [Moment],
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Per call the moments at which it begins and returns.
    begins: Vec<usize>,
    returns: Vec<Option<usize>>,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [&'a Call], moments: &'a [Moment]) -> Search<'a> {
        // The list's ends are the index after the last moment.
        let end = moments.len();
        let mut begins = vec![end; calls.len()];
        let mut returns = vec![None; calls.len()];
        for (at, moment) in moments.iter().enumerate() {
            if moment.returns {
                returns[moment.call] = Some(at);
            } else {
                begins[moment.call] = at;
            }
        }
        Search {
            calls,
            moments,
            next: (0..=end)
                .map(|at| if at == end { 0 } else { at + 1 })
                .collect(),
            previous: (0..=end)
                .map(|at| if at == 0 { end } else { at - 1 })
                .collect(),
            begins,
            returns,
        }
    }

    fn remove(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn put_back(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        self.next[before] = at;
        self.previous[after] = at;
    }

    fn run(mut self, keys: &[usize]) -> Result<(), NotLinearizable> {
        let end = self.moments.len();
        if end == 0 {
            return Ok(());
        }
        let mut open = self.returns.iter().flatten().count();
        let mut state = State::default();
        let mut done = Set::of(self.calls.len());
        let mut seen: HashSet<(Set, State)> = HashSet::new();
        let mut trail: Vec<(usize, State)> = Vec::new();
        let mut at = self.next[end];
        let mut stuck = 0;
        while open > 0 {
            let moment = self.moments.get(at).copied();
            if let Some(Moment {
                call,
                returns: false,
            }) = moment
            {
                let asked = self.calls[call];
                let answer = asked.returned.as_ref().map(|(_, outcome)| outcome);
                if let Some(then) = state.after(&asked.action, answer) {
                    done.flip(call);
                    if seen.insert((done.clone(), then.clone())) {
                        if seen.len() > MAX_CONFIGURATIONS {
                            let (keys, calls) = (keys.to_vec(), self.calls.len());
                            return Err(NotLinearizable::GivenUp { keys, calls });
                        }
                        trail.push((call, std::mem::replace(&mut state, then)));
                        self.remove(self.begins[call]);
                        if let Some(returned) = self.returns[call] {
                            self.remove(returned);
                            open -= 1;
                        }
                        at = self.next[end];
                        continue;
                    }
                    done.flip(call);
                }
                at = self.next[at];
                continue;
            }
            // The next answer belongs to a call that isn't linearized (or nothing is left to try): another order.
            if let Some(moment) = moment {
                stuck = stuck.max(moment.call);
            }
            let Some((call, before)) = trail.pop() else {
                let (keys, calls) = (keys.to_vec(), self.calls.len());
                let stuck = format!("{:?}", self.calls[stuck]);
                return Err(NotLinearizable::NoOrder { keys, calls, stuck });
            };
            if let Some(returned) = self.returns[call] {
                self.put_back(returned);
                open += 1;
            }
            self.put_back(self.begins[call]);
            done.flip(call);
            state = before;
            at = self.next[self.begins[call]];
        }
        Ok(())
    }
}
