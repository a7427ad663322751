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
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::history::Call;
use spec::State;

/// Configurations that one part of a history may take before the search is given up.
const MAX_CONFIGURATIONS: usize = 4_000_000;

/// Why a history is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLinearizable {
    /// No order explains what the clients heard.
    #[error("no order explains the {calls} calls on keys {keys:?}; stuck at the call {stuck}")]
    NoOrder {
        /// The keys of the part that has no order.
        keys: Vec<usize>,
        /// How many calls it has.
        calls: usize,
        /// The call that the longest order couldn't explain.
        stuck: String,
    },
    /// The search was given up: nothing is known.
    #[error(
        "the search over {calls} calls on keys {keys:?} was given up; it didn't get past the call {stuck}"
    )]
    GivenUp {
        /// The keys of the part that took too long.
        keys: Vec<usize>,
        /// How many calls it has.
        calls: usize,
        /// The call that the longest order couldn't explain.
        stuck: String,
    },
}

/// Checks a whole history.
///
/// # Errors
/// See [`NotLinearizable`].
pub fn check(history: &[Call]) -> Result<(), NotLinearizable> {
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

/// What identifies a configuration: the linearized calls and the state, hashed to 128 bits. Two that differ are taken for
/// one with a probability below 2^-80 in the largest search, and then a violation could be missed, never invented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Configuration(u128);

impl Hash for Configuration {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.0 as u64);
    }
}

/// Configurations are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only words are hashed");
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
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

    /// The calls that may be next: those that were invoked before any of the others returned. What the clients were told of
    /// the order comes first; it saves the search, and decides nothing.
    fn candidates(&self) -> Vec<usize> {
        let mut calls = Vec::new();
        let mut at = self.next[self.moments.len()];
        while let Some(Moment {
            call,
            returns: false,
        }) = self.moments.get(at).copied()
        {
            calls.push(call);
            at = self.next[at];
        }
        // What is tried first stands last; calls of which nobody said anything are tried after the others.
        calls.sort_by_key(|call| std::cmp::Reverse(self.calls[*call].hint.wrapping_sub(1)));
        calls
    }

    fn take(&mut self, call: usize) {
        self.remove(self.begins[call]);
        if let Some(returned) = self.returns[call] {
            self.remove(returned);
        }
    }

    fn give_back(&mut self, call: usize) {
        if let Some(returned) = self.returns[call] {
            self.put_back(returned);
        }
        self.put_back(self.begins[call]);
    }

    fn describe(&self, call: Option<usize>) -> String {
        call.map_or_else(String::new, |call| format!("{:?}", self.calls[call]))
    }

    fn run(mut self, keys: &[usize]) -> Result<(), NotLinearizable> {
        let mut open = self.returns.iter().flatten().count();
        let mut state = State::default();
        let mut done: u128 = 0;
        let mut seen: HashSet<Configuration, BuildHasherDefault<Already>> = HashSet::default();
        let mut deepest = 0;
        let mut stuck: Option<usize> = None;
        // Per level the calls that are left to try, the last first; between two levels the call that led on, and the state before it.
        let mut levels = vec![self.candidates()];
        let mut trail: Vec<(usize, State)> = Vec::new();
        while open > 0 {
            let Some(level) = levels.last_mut() else {
                let (keys, calls) = (keys.to_vec(), self.calls.len());
                let stuck = self.describe(stuck);
                return Err(NotLinearizable::NoOrder { keys, calls, stuck });
            };
            let Some(call) = level.pop() else {
                levels.pop();
                if trail.len() >= deepest {
                    deepest = trail.len();
                    let first = self.next[self.moments.len()];
                    stuck = self.moments.get(first).map(|moment| moment.call);
                }
                if let Some((call, before)) = trail.pop() {
                    self.give_back(call);
                    open += usize::from(self.returns[call].is_some());
                    done ^= mark(call);
                    state = before;
                }
                continue;
            };
            let asked = self.calls[call];
            let answer = asked.returned.as_ref().map(|(_, outcome)| outcome);
            let Some(then) = state.after(&asked.action, answer) else {
                continue;
            };
            if !seen.insert(Configuration(done ^ mark(call) ^ then.hash())) {
                continue;
            }
            if seen.len() > MAX_CONFIGURATIONS {
                let (keys, calls) = (keys.to_vec(), self.calls.len());
                let stuck = self.describe(stuck);
                return Err(NotLinearizable::GivenUp { keys, calls, stuck });
            }
            trail.push((call, std::mem::replace(&mut state, then)));
            self.take(call);
            open -= usize::from(self.returns[call].is_some());
            done ^= mark(call);
            levels.push(self.candidates());
        }
        Ok(())
    }
}

/// A call's own 128 random bits: a set of calls is the sum of theirs (Zobrist).
fn mark(call: usize) -> u128 {
    spread(call as u64 + 1)
}

/// 128 bits from 64, well mixed.
fn spread(word: u64) -> u128 {
    let mix = |mut word: u64| {
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    let high = mix(word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let low = mix(word ^ 0x5851_f42d_4c95_7f2d);
    u128::from(high) << 64 | u128::from(low)
}
