//! Choices inside one event: at each of user space's accesses to shared memory a program that stands still may go on. An
//! event is carried out once for every sequence of choices, each time from the same state.

use std::cell::RefCell;

/// The sequence of choices that is being followed.
#[derive(Debug, Default)]
pub(super) struct Choices(RefCell<Sequence>);

#[derive(Debug, Default)]
struct Sequence {
    /// What was chosen, of how many.
    taken: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    /// One of `of` ways to go on, numbered from 0.
    pub(super) fn choose(&self, of: usize) -> usize {
        let mut sequence = self.0.borrow_mut();
        let at = sequence.at;
        sequence.at += 1;
        if at == sequence.taken.len() {
            sequence.taken.push((0, of));
        }
        let (choice, was) = sequence.taken[at];
        assert_eq!(was, of, "the same choices come in the same order");
        choice
    }

    /// Forgets every choice: another event begins.
    pub(super) fn begin(&self) {
        *self.0.borrow_mut() = Sequence::default();
    }

    /// On to the next sequence; false when there was none left.
    pub(super) fn advance(&self) -> bool {
        let mut sequence = self.0.borrow_mut();
        sequence.at = 0;
        while let Some((choice, of)) = sequence.taken.pop() {
            if choice + 1 < of {
                sequence.taken.push((choice + 1, of));
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_comes_once() {
        let choices = Choices::default();
        let mut seen = Vec::new();
        choices.begin();
        loop {
            let first = choices.choose(2);
            let second = if first == 1 { choices.choose(3) } else { 0 };
            seen.push((first, second));
            if !choices.advance() {
                break;
            }
        }
        assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (1, 2)]);
    }
}
