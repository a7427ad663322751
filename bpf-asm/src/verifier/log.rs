//! The lines of a verifier log: instructions, states, complaints, and the verifier's remarks about its own work.

use std::collections::{BTreeMap, VecDeque};

use super::{MAX_COMPLAINT_LINES, MAX_STEPS};

/// What a log comes to.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) complaint: Vec<String>,
    pub(super) steps: Vec<(usize, String)>,
    pub(super) omitted: usize,
    pub(super) state: Vec<String>,
}

/// Registers and stack slots of the function that is walked, by their order: r0 to r10, then the stack.
#[derive(Debug, Default)]
struct State {
    values: BTreeMap<(bool, i64), String>,
    /// The frame that they belong to; the verifier names it from the second on.
    frame: String,
}

pub(super) fn read(log: &str) -> Read {
    let mut read = Read::default();
    let mut steps: VecDeque<(usize, String)> = VecDeque::new();
    let mut state = State::default();
    // A call's states of caller and callee are indented; the callee's follows once more.
    for line in log.lines() {
        let text = line.trim_end();
        if text.is_empty() || text.starts_with([';', ' ']) || is_remark(text) {
            continue;
        }
        if let Some((slot, rest)) = numbered(text) {
            match rest
                .strip_prefix('(')
                .and_then(|rest| rest.split_once(") "))
            {
                Some((_, insn)) => {
                    let (insn, after) = insn.split_once(" ; ").unwrap_or((insn, ""));
                    read.state = state.shown();
                    // Whatever was said before did not end the walk: branches end too.
                    read.complaint.clear();
                    if steps.len() == MAX_STEPS {
                        steps.pop_front();
                        read.omitted += 1;
                    }
                    steps.push_back((slot, insn.trim_end().to_owned()));
                    state.update(after);
                }
                None => state.replace(rest),
            }
        } else if let Some((_, states)) =
            text.strip_prefix("from ").and_then(|t| t.split_once(": "))
        {
            // `from 5 to 9: R0=...`: another branch of what was walked.
            state.replace(states);
        } else if read.complaint.len() < MAX_COMPLAINT_LINES {
            read.complaint.push(text.to_owned());
        }
    }
    read.steps = steps.into();
    read
}

/// `12: ...`
fn numbered(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once(':')?;
    Some((number.parse().ok()?, rest.trim_start()))
}

/// What the verifier says about its own work, and how it goes back to find what has to be exact.
fn is_remark(text: &str) -> bool {
    const REMARKS: &[&str] = &[
        "processed ",
        "verification time ",
        "stack depth ",
        "last_idx ",
        "regs=",
        "parent ",
        "parent_",
        "mark_precise: ",
        "caller:",
        "callee:",
        "returning from callee:",
        "to caller at ",
        "propagating ",
        "func#",
        "Func#",
        "live regs ",
        "max_states",
    ];
    let is_scalar_check = text.starts_with('R') && text.ends_with(" is not a scalar");
    is_scalar_check || REMARKS.iter().any(|remark| text.starts_with(remark))
}

impl State {
    /// A whole state: whatever it does not name is not there.
    fn replace(&mut self, states: &str) {
        self.values.clear();
        self.update(states);
    }

    /// What an instruction changed.
    fn update(&mut self, states: &str) {
        let mut states = states.trim();
        if let Some((frame, rest)) = states
            .split_once(": ")
            .filter(|(frame, _)| frame.starts_with("frame"))
        {
            if self.frame != frame {
                self.values.clear();
                self.frame = frame.to_owned();
            }
            states = rest;
        } else if states.starts_with('R') && !self.frame.is_empty() {
            self.values.clear();
            self.frame.clear();
        }
        for state in pieces(states) {
            let Some((name, value)) = state.split_once('=') else {
                continue;
            };
            // `R1_w` was written, `R1_rw` was read too.
            let name = name.split_once('_').map_or(name, |(name, _)| name);
            let place = match (name.strip_prefix('R'), name.strip_prefix("fp")) {
                (Some(number), _) => number.parse().ok().map(|number: i64| (false, number)),
                (_, Some(offset)) => offset.parse().ok().map(|offset: i64| (true, offset)),
                _ => None,
            };
            if let Some(place) = place {
                self.values.insert(place, format!("{name}={value}"));
            }
        }
    }

    fn shown(&self) -> Vec<String> {
        self.values.values().cloned().collect()
    }
}

/// Splits at white space outside of parentheses.
fn pieces(text: &str) -> Vec<&str> {
    let mut depth = 0i32;
    let at = |c: char| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth <= 0 && c.is_whitespace()
    };
    text.split(at).filter(|piece| !piece.is_empty()).collect()
}
