//! Messages on their way: each has a number, and so has each set of messages to one replica. Messages that nobody can ever take
//! again are forgotten.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use electrode_vr::{Message, Nonce, OpNumber, View};

use super::numbered::{Numbered, Quick};

/// The set without any message.
pub(super) const NONE: u32 = 0;

/// One message.
pub(super) struct Letter {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) message: Rc<Message>,
    stale: Stale,
}

/// When nobody can ever take a message again.
#[derive(Clone, Copy, Debug)]
enum Stale {
    /// Its receiver has promised a later view.
    Below(View),
    /// Its receiver has promised a later view, or leads this one and has committed the op.
    Ack(View, OpNumber),
    /// Its receiver has promised a later view, or has counted the votes for this one: a vote only makes it tell its sender of the
    /// view then, which the StartViewChange that came before the vote does as well.
    Vote(View),
    /// Its receiver has another question open.
    Answer(Nonce),
    /// Its sender has another question open.
    Question(Nonce),
}

/// What of a replica decides which messages from and to it can be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Gate {
    pub(super) who: usize,
    pub(super) promised: View,
    /// Who leads: up to where acks don't count any more.
    pub(super) counted: Option<OpNumber>,
    /// No vote for the promised view is counted any more.
    pub(super) decided: bool,
    /// The questions that are open: recovery's, state transfer's.
    pub(super) open: (Option<Nonce>, Option<Nonce>),
}

impl Gate {
    fn has_open(&self, nonce: Nonce) -> bool {
        self.open.0 == Some(nonce) || self.open.1 == Some(nonce)
    }
}

/// All messages, and all sets of messages to one replica.
pub(super) struct Letters {
    letters: Vec<Letter>,
    /// By fingerprint.
    numbers: HashMap<u64, u32, Quick>,
    sets: Numbered<[u32]>,
    gates: Vec<Gate>,
    gate_numbers: HashMap<Gate, u32, Quick>,
    /// By gate, set, and set that comes to it.
    grown: HashMap<(u32, u32, u32), u32, Quick>,
    /// By gate of a sender, and set.
    open: HashMap<(u32, u32), u32, Quick>,
}

impl Letters {
    pub(super) fn new() -> Letters {
        Letters {
            letters: Vec::new(),
            numbers: HashMap::default(),
            sets: Numbered::beginning_with(Rc::new([])),
            gates: Vec::new(),
            gate_numbers: HashMap::default(),
            grown: HashMap::default(),
            open: HashMap::default(),
        }
    }

    /// How many messages there are, and how many sets of them.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.letters.len(), self.sets.len())
    }

    pub(super) fn letter(&self, number: u32) -> &Letter {
        &self.letters[number as usize]
    }

    /// A message's number.
    pub(super) fn number(&mut self, from: usize, to: usize, message: Message) -> u32 {
        let mut hasher = DefaultHasher::new();
        (from, to, &message).hash(&mut hasher);
        let fingerprint = hasher.finish();
        if let Some(number) = self.numbers.get(&fingerprint) {
            return *number;
        }
        let number = u32::try_from(self.letters.len()).expect("fewer than 2^32 messages");
        self.numbers.insert(fingerprint, number);
        let stale = stale(&message);
        let message = Rc::new(message);
        self.letters.push(Letter {
            from,
            to,
            message,
            stale,
        });
        number
    }

    /// A set's number.
    pub(super) fn set(&mut self, mut letters: Vec<u32>) -> u32 {
        letters.sort_unstable();
        letters.dedup();
        self.sets.number(letters.into())
    }

    pub(super) fn of(&self, set: u32) -> Rc<[u32]> {
        Rc::clone(&self.sets[set])
    }

    pub(super) fn gate(&mut self, gate: Gate) -> u32 {
        if let Some(number) = self.gate_numbers.get(&gate) {
            return *number;
        }
        let number = u32::try_from(self.gates.len()).expect("fewer than 2^32 gates");
        self.gate_numbers.insert(gate, number);
        self.gates.push(gate);
        number
    }

    /// Whether a message is a question: what its sender becomes then decides how long it stays.
    pub(super) fn is_question(&self, letter: u32) -> bool {
        matches!(self.letter(letter).stale, Stale::Question(_))
    }

    /// Whether the sender of a message still waits for its answer, if it is a question.
    pub(super) fn is_open(&self, letter: u32, sender: u32) -> bool {
        let letter = self.letter(letter);
        let gate = &self.gates[sender as usize];
        match letter.stale {
            Stale::Question(nonce) => letter.from != gate.who || gate.has_open(nonce),
            _ => true,
        }
    }

    /// Whether a replica with this gate can't ever take a message again that is for it.
    pub(super) fn is_forgotten(&self, receiver: u32, letter: u32) -> bool {
        let (letter, gate) = (self.letter(letter), &self.gates[receiver as usize]);
        letter.to == gate.who
            && match letter.stale {
                Stale::Below(view) => gate.promised > view,
                Stale::Ack(view, op) => {
                    let counted = gate.counted.is_some_and(|counted| counted >= op);
                    gate.promised > view || (gate.promised == view && counted)
                }
                Stale::Vote(view) => {
                    gate.promised > view || (gate.promised == view && gate.decided)
                }
                Stale::Answer(nonce) => !gate.has_open(nonce),
                Stale::Question(_) => false,
            }
    }

    /// A set to a replica with this gate, and another one with it, without what that replica can't take any more.
    pub(super) fn grown(&mut self, receiver: u32, set: u32, more: u32) -> u32 {
        let key = (receiver, set, more);
        if let Some(grown) = self.grown.get(&key) {
            return *grown;
        }
        let all = self.sets[set].iter().chain(self.sets[more].iter()).copied();
        let left = all
            .filter(|letter| !self.is_forgotten(receiver, *letter))
            .collect();
        let grown = self.set(left);
        self.grown.insert(key, grown);
        grown
    }

    /// A set without the questions of a replica with this gate that aren't open any more.
    pub(super) fn still_open(&mut self, sender: u32, set: u32) -> u32 {
        let key = (sender, set);
        if let Some(open) = self.open.get(&key) {
            return *open;
        }
        let all = self.of(set);
        let left = all.iter().copied();
        let left = left
            .filter(|letter| self.is_open(*letter, sender))
            .collect();
        let open = self.set(left);
        self.open.insert(key, open);
        open
    }

    /// Whether a set has everything that another has.
    pub(super) fn includes(&self, all: u32, some: u32) -> bool {
        if all == some || some == NONE {
            return true;
        }
        let (all, some) = (&self.sets[all], &self.sets[some]);
        let mut all = all.iter();
        some.len() <= all.len() && some.iter().all(|one| all.any(|other| other == one))
    }
}

fn stale(message: &Message) -> Stale {
    match message {
        Message::Prepare(prepare) => Stale::Below(prepare.view),
        Message::PrepareOk { view, last_op, .. } => Stale::Ack(*view, *last_op),
        Message::DoViewChange { view, .. } => Stale::Vote(*view),
        Message::Commit { view, .. }
        | Message::StartViewChange { view }
        | Message::StartView { view, .. }
        | Message::PreVote { view }
        | Message::PreVoteOk { view } => Stale::Below(*view),
        Message::GetState { nonce, .. }
        | Message::GetCheckpoint { nonce, .. }
        | Message::Recovery { nonce, .. } => Stale::Question(*nonce),
        Message::NewState { nonce, .. }
        | Message::CheckpointChunk { nonce, .. }
        | Message::RecoveryResponse { nonce, .. } => Stale::Answer(*nonce),
        Message::Hello { .. } | Message::HelloOk { .. } | Message::Bootstrap { .. } => {
            unreachable!("the group has begun")
        }
    }
}

/// Whether programs look at a message of this kind.
pub(super) fn of_the_fast_path(message: &Message) -> bool {
    matches!(message, Message::Prepare(_) | Message::PrepareOk { .. })
}
