//! What can happen to a replica: what each event makes of each of its states, worked out once.

use std::rc::Rc;

use electrode_vr::{Message, ReplicaId};

use super::super::letters::{Letters, of_the_fast_path};
use super::super::node::{Event, Outcome, Seen};
use super::super::pasts::{NOTHING, Pasts};
use super::Locals;
use crate::checks::Violation;

/// What one event makes of one state of a replica.
pub(in super::super) struct Step {
    pub(in super::super) event: Event,
    pub(in super::super) to: u32,
    /// Sets of messages, by receiver.
    pub(in super::super) sent: Vec<(usize, u32)>,
    /// What the group's past has to know of it.
    pub(in super::super) seen: u32,
    pub(in super::super) died: bool,
    pub(in super::super) broken: Option<Violation>,
    /// Whether it takes a question: those can go before they are taken.
    pub(in super::super) asked: bool,
}

/// What some events make of one state of a replica.
pub(super) struct Steps {
    changes: Vec<u32>,
    /// Messages that leave without any change of the replica, and the acks among them.
    free: Vec<u32>,
    acks: Vec<Seen>,
}

/// Everything that can happen to a state of a replica which a set of messages may reach.
pub(in super::super) struct Menu {
    pub(in super::super) changes: Vec<u32>,
    /// What leaves without any change: sets of messages, by receiver; and the acks among them.
    pub(in super::super) free: Vec<(usize, u32)>,
    pub(in super::super) acks: u32,
}

impl Locals {
    /// How many pairs of a replica's state and messages to it there are.
    pub(in super::super) fn menus(&self) -> usize {
        self.menus.len()
    }

    pub(in super::super) fn step(&self, number: u32) -> Rc<Step> {
        Rc::clone(&self.steps[number as usize])
    }

    /// Everything that can happen to a replica in a state, with this set of messages on their way to it.
    pub(in super::super) fn menu(
        &mut self,
        (local, set): (u32, u32),
        who: usize,
        letters: &mut Letters,
        pasts: &mut Pasts,
    ) -> Rc<Menu> {
        if let Some(menu) = self.menus.get(&(local, set)) {
            return Rc::clone(menu);
        }
        let own = self.own_steps(local, who, letters, pasts);
        let mut changes = own.changes.clone();
        let (mut free, mut acks) = (own.free.clone(), own.acks.clone());
        for letter in letters.of(set).iter() {
            let steps = self.taking_steps(local, who, *letter, letters, pasts);
            free.extend(&steps.free);
            acks.extend(steps.acks.iter().cloned());
            for step in &steps.changes {
                let fresh = &self.steps[*step as usize];
                let known = |other: &u32| fresh.stands_for(&self.steps[*other as usize]);
                if !changes.iter().any(known) {
                    changes.push(*step);
                }
            }
        }
        let gate = self.local(local).gate;
        free.retain(|letter| letters.is_open(*letter, gate));
        acks.sort_unstable();
        acks.dedup();
        let life = self.local(local).node.life;
        let menu = Rc::new(Menu {
            changes,
            free: by_receiver(free, letters),
            acks: pasts.seen(who, life, acks),
        });
        self.menus.insert((local, set), Rc::clone(&menu));
        menu
    }

    /// What can happen to a replica by itself.
    fn own_steps(
        &mut self,
        local: u32,
        who: usize,
        letters: &mut Letters,
        pasts: &mut Pasts,
    ) -> Rc<Steps> {
        if let Some(steps) = self.own.get(&local) {
            return Rc::clone(steps);
        }
        let own = self.local(local);
        let mut events = vec![Event::Retry, Event::Doubt, Event::Crash];
        if own.node.has_news() {
            events.push(Event::Look);
        }
        events.extend(own.node.programs().into_iter().map(Event::Program));
        if own.leads {
            let requests = (0..self.bounds.clients)
                .flat_map(|client| (1..=self.bounds.ops).map(move |number| (client, number)));
            events.extend(requests.map(|(client, number)| Event::Request(client, number)));
        }
        let steps = self.steps((local, who), events, false, letters, pasts);
        self.own.insert(local, Rc::clone(&steps));
        steps
    }

    /// What a message can do to a replica.
    fn taking_steps(
        &mut self,
        local: u32,
        who: usize,
        letter: u32,
        letters: &mut Letters,
        pasts: &mut Pasts,
    ) -> Rc<Steps> {
        if let Some(steps) = self.taken.get(&(local, letter)) {
            return Rc::clone(steps);
        }
        let taken = letters.letter(letter);
        let from = ReplicaId(u8::try_from(taken.from).expect("few replicas"));
        let message = Rc::clone(&taken.message);
        let frame = |stop, full| Event::Frame {
            from,
            message: Rc::clone(&message),
            stop,
            full,
        };
        let mut events = Vec::new();
        if self.local(local).node.takes(&message) {
            events.push(frame(None, false));
            if self.bounds.standing > 0 {
                events.extend((1..=3).map(|stop| frame(Some(stop), false)));
            }
            if matches!(*message, Message::Prepare(_)) {
                events.push(frame(None, true));
            } else {
                events.push(Event::Deliver(from, message));
            }
        } else if of_the_fast_path(&message) {
            // Its program passes it up.
            events.push(frame(None, false));
        } else {
            events.push(Event::Deliver(from, message));
        }
        let asked = letters.is_question(letter);
        let steps = self.steps((local, who), events, asked, letters, pasts);
        self.taken.insert((local, letter), Rc::clone(&steps));
        steps
    }

    fn steps(
        &mut self,
        (local, who): (u32, usize),
        events: Vec<Event>,
        asked: bool,
        letters: &mut Letters,
        pasts: &mut Pasts,
    ) -> Rc<Steps> {
        let from = Rc::clone(&self.local(local).node);
        let choices = Rc::clone(&self.choices);
        let mut steps = Steps {
            changes: Vec::new(),
            free: Vec::new(),
            acks: Vec::new(),
        };
        for event in events {
            for outcome in from.outcomes(&event, &choices) {
                let acks = |seen: &Seen| matches!(seen, Seen::Acknowledged { .. });
                let only_says = outcome.broken.is_none()
                    && outcome.seen.iter().all(acks)
                    && matches!(spends(&event), 0 | 2);
                let (sent, seen) = (outcome.sent.clone(), outcome.seen.clone());
                let from = (who, from.life);
                let step = self.outcome((event.clone(), asked), outcome, from, letters, pasts);
                if step.to == local && only_says {
                    let sent = sent.into_iter();
                    let sent = sent.map(|(to, message)| letters.number(who, to.index(), message));
                    steps.free.extend(sent);
                    steps.acks.extend(seen);
                    continue;
                }
                let nothing = step.to == local && step.sent.is_empty() && step.seen == NOTHING;
                if nothing && step.broken.is_none() {
                    continue;
                }
                // No view above the bounds is promised.
                if self.local(step.to).promised.0 > self.bounds.view_changes {
                    continue;
                }
                let known = |other: &u32| step.stands_for(&self.steps[*other as usize]);
                if !steps.changes.iter().any(known) {
                    let number = u32::try_from(self.steps.len()).expect("fewer than 2^32 steps");
                    steps.changes.push(number);
                    self.steps.push(Rc::new(step));
                }
            }
        }
        Rc::new(steps)
    }

    /// Gives numbers to what an event made.
    pub(super) fn outcome(
        &mut self,
        (event, asked): (Event, bool),
        outcome: Outcome,
        (who, life): (usize, u8),
        letters: &mut Letters,
        pasts: &mut Pasts,
    ) -> Step {
        let sent = outcome.sent.into_iter();
        let mut sent: Vec<u32> = sent
            .map(|(to, message)| letters.number(who, to.index(), message))
            .collect();
        let to = self.number(outcome.node, who, letters);
        let gate = self.local(to).gate;
        sent.retain(|letter| letters.is_open(*letter, gate));
        Step {
            event,
            to,
            sent: by_receiver(sent, letters),
            seen: pasts.seen(who, life, outcome.seen),
            died: outcome.died,
            broken: outcome.broken,
            asked,
        }
    }

    /// A step in words: who did what, and what it became.
    pub(in super::super) fn describe(&self, who: usize, step: u32) -> String {
        let step = &self.steps[step as usize];
        let died = if step.died { " and dies" } else { "" };
        format!(
            "replica {who}: {:?}{died}\n      {}",
            step.event,
            self.local(step.to).node.describe()
        )
    }
}

impl Step {
    /// Whether another is the same but for what caused it.
    fn stands_for(&self, other: &Step) -> bool {
        (self.to, &self.sent, self.seen, self.died, self.asked)
            == (other.to, &other.sent, other.seen, other.died, other.asked)
            && self.broken == other.broken
            && spends(&self.event) == spends(&other.event)
    }
}

/// Sorts messages of one sender by who gets them.
fn by_receiver(mut sent: Vec<u32>, letters: &mut Letters) -> Vec<(usize, u32)> {
    sent.sort_unstable_by_key(|letter| (letters.letter(*letter).to, *letter));
    sent.dedup();
    let mut sets = Vec::new();
    for chunk in sent.chunk_by(|one, other| letters.letter(*one).to == letters.letter(*other).to) {
        sets.push((letters.letter(chunk[0]).to, chunk.to_vec()));
    }
    let sets = sets.into_iter();
    sets.map(|(to, set)| (to, letters.set(set))).collect()
}

/// Which bound an event counts towards.
fn spends(event: &Event) -> u8 {
    match event {
        Event::Frame { full: true, .. } => 1,
        Event::Deliver(_, message) if of_the_fast_path(message) => 1,
        Event::Retry => 2,
        Event::Request(client, number) => 3 + 16 * client + number,
        _ => 0,
    }
}
