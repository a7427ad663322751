//! What is done to processes and to who reaches whom: a deck of cards, shuffled by the seed, drawn again and again, so that
//! every kind has its turn.

use std::collections::BTreeMap;

use electrode_sim::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Card {
    KillPrimary,
    KillBackup,
    /// Killed, and back with some of the programs only.
    Reprogram,
    /// Killed, and back with clocks that are ahead.
    SkewClock,
    /// All at once; they come back from their disks.
    PowerCut,
    PausePrimary,
    PauseBackup,
    /// Paused and resumed many times a second.
    Slow,
    IsolatePrimary,
    IsolateBackup,
    /// One direction between two replicas.
    OneWay,
    /// Two parts.
    Split,
    /// Two parts that one replica is in both of.
    Bridge,
    /// Clients reach some of the replicas only.
    CutClients,
}

impl Card {
    const ALL: [Card; 14] = [
        Card::KillPrimary,
        Card::PauseBackup,
        Card::IsolatePrimary,
        Card::PowerCut,
        Card::OneWay,
        Card::SkewClock,
        Card::PausePrimary,
        Card::Split,
        Card::KillBackup,
        Card::CutClients,
        Card::Slow,
        Card::Reprogram,
        Card::IsolateBackup,
        Card::Bridge,
    ];

    /// As the report has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Card::KillPrimary => "primary killed",
            Card::KillBackup => "backup killed",
            Card::Reprogram => "restarted with other programs",
            Card::SkewClock => "restarted with clocks ahead",
            Card::PowerCut => "all killed at once",
            Card::PausePrimary => "primary paused",
            Card::PauseBackup => "backup paused",
            Card::Slow => "replica slowed down",
            Card::IsolatePrimary => "primary isolated",
            Card::IsolateBackup => "backup isolated",
            Card::OneWay => "one direction cut",
            Card::Split => "group split",
            Card::Bridge => "group split with a bridge",
            Card::CutClients => "clients cut off from some",
        }
    }
}

/// The faults of a run: the deck, and what has happened so far.
#[derive(Debug)]
pub(crate) struct Deck {
    kinds: Vec<Card>,
    cards: Vec<Card>,
    pub(crate) random: Random,
    /// How often each kind has happened.
    pub(crate) happened: BTreeMap<&'static str, u64>,
}

impl Deck {
    /// A deck of all kinds, but for clocks that are ahead where that isn't possible.
    pub(crate) fn new(seed: u64, clocks: bool) -> Deck {
        let all = Card::ALL.into_iter();
        let kinds: Vec<Card> = all
            .filter(|card| clocks || *card != Card::SkewClock)
            .collect();
        Deck {
            cards: Vec::new(),
            random: Random::new(seed),
            happened: kinds.iter().map(|card| (card.name(), 0)).collect(),
            kinds,
        }
    }

    /// The next card; the deck is shuffled when it is used up.
    pub(crate) fn draw(&mut self) -> Card {
        if self.cards.is_empty() {
            self.cards = self.shuffled();
        }
        self.cards.pop().unwrap_or(Card::KillBackup)
    }

    /// Not now: it comes again before the deck is used up.
    pub(crate) fn put_back(&mut self, card: Card) {
        self.cards.insert(0, card);
        if self.cards.len() == 1 {
            // It alone is left, and may not be possible for long.
            let more = self.shuffled();
            self.cards.extend(more);
        }
    }

    fn shuffled(&mut self) -> Vec<Card> {
        let mut cards = self.kinds.clone();
        for at in (1..cards.len()).rev() {
            cards.swap(at, self.random.index(at + 1));
        }
        // The last is drawn first: what has never happened.
        cards.sort_by_key(|card| self.happened.get(card.name()) == Some(&0));
        cards
    }

    /// Shuffles anew, for a group of another kind.
    pub(crate) fn shuffle(&mut self) {
        self.cards = self.shuffled();
    }
}
