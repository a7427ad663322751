//! The search over states of the group.
//!
//! Not every order of steps is followed. A step that only its own replica can tell from none (it says nothing that wasn't said
//! already, spends nothing, and shows the checks nothing new) can as well happen right before that replica's next one that others
//! can tell: nobody else's step depends on it, and what it takes is still there then, since messages stay. So from each state a
//! replica goes through all such silent steps at once, to every step that isn't, and only what is reached by those is a state of
//! its own. A run that breaks a rule has one of this kind that breaks one, and isn't longer.
//!
//! Two things are kept out of it, since waiting could make a difference: steps that take a question (its asker may close it
//! meanwhile), and those that change how many programs stand still or who is without its state (others are bounded by it).

#[cfg(test)]
mod tests;

use super::letters::{Letters, NONE, of_the_fast_path};
use super::locals::{Locals, Step};
use super::node::Event;
use super::pasts::{NOTHING, Pasts};
use super::states::{Group, Spent, States};
use super::{Bounds, Counterexample, Explored};
use crate::checks::Violation;

/// States between two calls of who wants to hear of the progress.
const PROGRESS: u64 = 1 << 18;

type Found<T> = Result<T, Violation>;

/// The way from a state that was visited to another one: silent steps of one replica, then one that isn't silent.
struct Move<const N: usize> {
    /// Where the silent steps end: one of `Moves::silent`.
    from: usize,
    who: usize,
    step: u32,
    to: Group<N>,
}

/// A state that silent steps lead to: the last one started from which, who took it, and its number.
type Silent<const N: usize> = (Group<N>, Option<(usize, usize, u32)>);

/// Everything that can happen next.
struct Moves<const N: usize> {
    /// The state itself, and what silent steps make of it.
    silent: Vec<Silent<N>>,
    moves: Vec<Move<N>>,
}

impl<const N: usize> Moves<N> {
    /// The steps from the state itself to one of the silent ones.
    fn steps_to(&self, silent: usize) -> Vec<(usize, u32)> {
        let mut steps = Vec::new();
        let mut at = silent;
        while let Some((before, who, step)) = self.silent[at].1 {
            steps.push((who, step));
            at = before;
        }
        steps.reverse();
        steps
    }
}

/// A step that breaks a rule, and those before it.
struct Broken {
    violation: Violation,
    steps: Vec<(usize, u32)>,
}

struct Search<const N: usize> {
    bounds: Bounds,
    letters: Letters,
    locals: Locals,
    pasts: Pasts,
    states: States<N>,
    explored: Explored,
    /// Whether silent steps wait for others.
    quiet: bool,
}

pub(crate) fn explore_within(
    bounds: &Bounds,
    progress: impl FnMut(&Explored),
) -> Result<Explored, Box<Counterexample>> {
    match bounds.replicas {
        3 => Search::<3>::new(*bounds).explore(progress),
        5 => Search::<5>::new(*bounds).explore(progress),
        7 => Search::<7>::new(*bounds).explore(progress),
        others => panic!("groups of 3, 5 or 7 are explored, not of {others}"),
    }
}

impl<const N: usize> Search<N> {
    fn new(bounds: Bounds) -> Search<N> {
        Search {
            bounds,
            letters: Letters::new(),
            locals: Locals::new(bounds),
            pasts: Pasts::new(bounds.replicas),
            states: States::new(),
            explored: Explored::default(),
            quiet: true,
        }
    }

    fn explore(
        &mut self,
        mut progress: impl FnMut(&Explored),
    ) -> Result<Explored, Box<Counterexample>> {
        let first = match self.first() {
            Ok(first) => first,
            Err(violation) => {
                let steps = Vec::new();
                return Err(self.counterexample(None, &Broken { violation, steps }));
            }
        };
        self.wait(&first, None);
        let mut heard = 0;
        while let Some(number) = self.states.next() {
            self.explored.states += 1;
            let length = usize::from(self.states.length(number));
            self.explored.depth = self.explored.depth.max(length);
            let group = self.states.group(number);
            match self.moves(&group) {
                Ok(moves) => {
                    for next in &moves.moves {
                        self.wait(&next.to, Some(number));
                    }
                }
                Err(broken) => return Err(self.counterexample(Some(number), &broken)),
            }
            if self.explored.states - heard >= PROGRESS {
                heard = self.explored.states;
                self.take_stock();
                progress(&self.explored);
            }
            if self.explored.states >= self.bounds.most_states {
                self.take_stock();
                return Ok(self.explored);
            }
        }
        self.take_stock();
        self.explored.complete = true;
        Ok(self.explored)
    }

    fn take_stock(&mut self) {
        let explored = &mut self.explored;
        (explored.messages, explored.sets) = self.letters.counts();
        explored.replica_states = self.locals.len();
        explored.menus = self.locals.menus();
        explored.pasts = self.pasts.len();
        explored.highest = (self.pasts.most_commits, self.locals.highest_view.0);
        explored.keys = self.states.keys();
        explored.left = self.states.left();
        explored.again = self.states.again();
    }

    fn wait(&mut self, group: &Group<N>, before: Option<u32>) {
        let come = group.locals.iter();
        let come = come.map(|local| self.locals.local(*local).come).sum();
        self.states.add(group, before, come, &self.letters);
    }

    fn counterexample(&mut self, last: Option<u32>, broken: &Broken) -> Box<Counterexample> {
        let way = last.map_or_else(Vec::new, |last| self.states.way(last));
        let mut steps = Vec::new();
        for pair in way.windows(2) {
            let (from, to) = (self.states.group(pair[0]), self.states.group(pair[1]));
            let moves = self
                .moves(&from)
                .unwrap_or_else(|_| unreachable!("it went on from there"));
            let taken = moves.moves.iter().find(|next| next.to == to);
            let taken = taken.expect("the same state has the same moves");
            steps.extend(moves.steps_to(taken.from));
            steps.push((taken.who, taken.step));
        }
        steps.extend(&broken.steps);
        self.take_stock();
        let steps = steps.iter();
        Box::new(Counterexample {
            violation: broken.violation.clone(),
            steps: steps
                .map(|(who, step)| self.locals.describe(*who, *step))
                .collect(),
            explored: self.explored,
        })
    }

    /// Everybody normal in view 0.
    fn first(&mut self) -> Found<Group<N>> {
        let mut group = Group {
            locals: [0; N],
            sets: [NONE; N],
            past: NOTHING,
            spent: Spent::default(),
        };
        for (index, local) in (0..).zip(&mut group.locals) {
            *local = self
                .locals
                .first(index, &mut self.letters, &mut self.pasts)?;
        }
        self.saturate(&mut group, [true; N]);
        Ok(group)
    }

    /// Everything that can happen next.
    fn moves(&mut self, group: &Group<N>) -> Result<Moves<N>, Broken> {
        let mut all = Moves {
            silent: vec![(*group, None)],
            moves: Vec::new(),
        };
        for who in 0..N {
            let own = all.silent.len();
            let mut at = 0;
            while at < all.silent.len() {
                let (from, _) = all.silent[at];
                let has = (from.locals[who], from.sets[who]);
                let (letters, pasts) = (&mut self.letters, &mut self.pasts);
                let menu = self.locals.menu(has, who, letters, pasts);
                for number in menu.changes.iter().copied() {
                    let step = self.locals.step(number);
                    let to = match self.follow(&from, who, &step) {
                        Ok(Some(to)) => to,
                        Ok(None) => continue,
                        Err(violation) => {
                            let mut steps = all.steps_to(at);
                            steps.push((who, number));
                            return Err(Broken { violation, steps });
                        }
                    };
                    if !self.is_silent(&from, &to, who, &step) {
                        let step = number;
                        all.moves.push(Move {
                            from: at,
                            who,
                            step,
                            to,
                        });
                    } else if to != *group && !all.silent[own..].iter().any(|one| one.0 == to) {
                        all.silent.push((to, Some((at, who, number))));
                    }
                }
                // The state itself, then what this replica's silent steps made of it.
                at = if at == 0 { own } else { at + 1 };
            }
        }
        Ok(all)
    }

    /// The state after a step, unless the bounds forbid it or nothing has changed.
    fn follow(&mut self, group: &Group<N>, who: usize, step: &Step) -> Found<Option<Group<N>>> {
        let bounds = self.bounds;
        let mut next = *group;
        match step.event {
            Event::Request(client, number) => {
                let past = self.pasts.past(group.past);
                if number > past.answered(client) + 1 || (client > 0 && !past.begun) {
                    return Ok(None);
                }
                next.past = self.pasts.begun(group.past);
            }
            Event::Retry => next.spent.resends += 1,
            Event::Frame { full: true, .. } => next.spent.around += 1,
            Event::Deliver(_, ref message) if of_the_fast_path(message) => next.spent.around += 1,
            _ => {}
        }
        next.spent.crashes += u8::from(step.died);
        next.locals[who] = step.to;
        let others = || {
            let others = next.locals.iter().enumerate();
            others
                .filter(|(at, _)| *at != who)
                .map(|(_, local)| self.locals.local(*local))
        };
        let after = self.locals.local(step.to);
        let standing: u8 = after.standing + others().map(|other| other.standing).sum::<u8>();
        let beyond = next.spent.crashes > bounds.crashes
            || next.spent.around > bounds.around
            || next.spent.resends > bounds.resends
            || standing > bounds.standing
            || (step.died && others().any(|other| other.recovering));
        if beyond {
            return Ok(None);
        }
        if let Some(violation) = &step.broken {
            return Err(violation.clone());
        }
        self.explored.transitions += 1;
        next.past = self.pasts.judged(next.past, step.seen)?;
        let before = self.locals.local(group.locals[who]);
        if before.gate != after.gate {
            next.sets[who] = self.letters.grown(after.gate, next.sets[who], NONE);
        }
        if before.questions != after.questions {
            for (_, set) in next
                .sets
                .iter_mut()
                .enumerate()
                .filter(|(at, _)| *at != who)
            {
                *set = self.letters.still_open(after.questions, *set);
            }
        }
        for (to, sent) in &step.sent {
            let gate = self.locals.local(next.locals[*to]).gate;
            next.sets[*to] = self.letters.grown(gate, next.sets[*to], *sent);
        }
        if before.promised != after.promised {
            let promised = next.locals.map(|local| self.locals.local(local).promised);
            next.past = self.pasts.settled(next.past, &promised);
        }
        // What only spends leads nowhere that not spending doesn't lead to.
        if (next.locals, next.sets, next.past) == (group.locals, group.sets, group.past) {
            return Ok(None);
        }
        let mut changed = [false; N];
        for (at, changed) in changed.iter_mut().enumerate() {
            *changed = (next.locals[at], next.sets[at]) != (group.locals[at], group.sets[at]);
        }
        self.saturate(&mut next, changed);
        Ok(Some(next))
    }

    /// Sends what can be sent without any change of a replica: that takes nothing away from what can happen. Only replicas that
    /// have changed, or that more messages are on their way to, have more to say.
    fn saturate(&mut self, group: &mut Group<N>, mut changed: [bool; N]) {
        while let Some(who) = changed.iter().position(|changed| *changed) {
            changed[who] = false;
            let has = (group.locals[who], group.sets[who]);
            let (letters, pasts) = (&mut self.letters, &mut self.pasts);
            let menu = self.locals.menu(has, who, letters, pasts);
            for (to, free) in &menu.free {
                let gate = self.locals.local(group.locals[*to]).gate;
                let grown = self.letters.grown(gate, group.sets[*to], *free);
                changed[*to] |= grown != group.sets[*to];
                group.sets[*to] = grown;
            }
            let judged = self.pasts.judged(group.past, menu.acks);
            group.past = judged.unwrap_or_else(|_| unreachable!("acks alone break no rule"));
        }
    }

    /// Whether only the replica itself can tell a step from none.
    fn is_silent(&self, from: &Group<N>, to: &Group<N>, who: usize, step: &Step) -> bool {
        let (before, after) = (
            self.locals.local(from.locals[who]),
            self.locals.local(to.locals[who]),
        );
        let mut others = (0..N).filter(|other| *other != who);
        self.quiet
            && !step.asked
            && (from.past, from.spent) == (to.past, to.spent)
            && (before.standing, before.recovering) == (after.standing, after.recovering)
            && others.all(|other| self.letters.includes(from.sets[other], to.sets[other]))
    }
}
