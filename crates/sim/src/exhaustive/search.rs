//! The search over states of the group, those that have come least far first: so whatever may be on its way in a state is known
//! by the time that its turn comes.
//!
//! A replica's step depends on its own state and on what reaches it alone, so states of replicas and messages have numbers,
//! what an event does to a replica is worked out once, and a state of the group is three numbers, a set of
//! messages and a past. States are told apart by 64-bit fingerprints.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::rc::Rc;

use electrode_vr::{Message, Nonce, OpNumber, ReplicaId, Role, Status, View};

use super::choices::Choices;
use super::history::{History, Spent};
use super::node::{Event, Node, Outcome, Seen, Shape};
use super::{Bounds, Counterexample, Explored};
use crate::checks::Violation;

/// States between two calls of who wants to hear of the progress.
const PROGRESS: u64 = 1 << 18;

/// Numbers and fingerprints are spread already.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }
}

type Quick = BuildHasherDefault<Spread>;

/// When nobody can ever take a message again.
#[derive(Clone, Copy, Debug)]
enum Stale {
    /// Its receiver has promised a later view.
    Below(View),
    /// Its receiver has promised a later view, or leads this one and has committed the op.
    Ack(View, OpNumber),
    /// Its receiver has another question open.
    Answer(Nonce),
    /// Its sender has another question open.
    Question(Nonce),
}

struct Letter {
    from: usize,
    to: usize,
    message: Rc<Message>,
    stale: Stale,
}

/// A replica's state, with what the search has to know of it.
struct Local {
    node: Rc<Node>,
    fingerprint: u64,
    promised: View,
    life: u8,
    standing: u8,
    /// Recovering: its recovery's nonce. Otherwise its transfer's, if there is one.
    nonces: (Option<Nonce>, Option<Nonce>),
    leads: bool,
    recovering: bool,
    commit: OpNumber,
    /// How far it has come: more with most of what can happen to it.
    come: u32,
}

/// What one event makes of one state of a replica.
struct Step {
    event: Event,
    to: u32,
    sent: Vec<u32>,
    seen: Vec<Seen>,
    died: bool,
    broken: Option<Violation>,
}

/// What some events make of one state of a replica.
struct Steps {
    changes: Vec<Step>,
    /// Messages that leave without any change of the replica, and the acks among them.
    free: Vec<u32>,
    acks: Vec<Seen>,
}

/// A state of the group.
#[derive(Clone)]
struct Group {
    nodes: Vec<u32>,
    letters: Rc<[u32]>,
    past: Rc<History>,
    past_fingerprint: u64,
}

/// How a state was reached: who did what, and what that replica became.
struct Way {
    who: usize,
    event: Event,
    died: bool,
    to: u32,
}

struct Search {
    bounds: Bounds,
    choices: Rc<Choices>,
    locals: Vec<Local>,
    local_numbers: HashMap<u64, u32, Quick>,
    letters: Vec<Letter>,
    letter_numbers: HashMap<u64, u32, Quick>,
    own: HashMap<u32, Rc<Steps>, Quick>,
    taken: HashMap<u64, Rc<Steps>, Quick>,
    /// By everything else: the largest sets of messages that it was visited with, and what was spent.
    visited: HashMap<u64, Vec<Visited>, Quick>,
    /// What is left to visit, by how far it has come.
    waiting: BTreeMap<u32, Vec<Waiting>>,
    explored: Explored,
}

/// The way to a state, from its end.
struct Path {
    way: Way,
    before: Option<Rc<Path>>,
    length: usize,
}

/// A set of messages that a state was visited with, and what was spent until then.
type Visited = (Rc<[u32]>, Spent);

/// A state that is to be visited, and the way to it.
type Waiting = (Group, Option<Rc<Path>>);

type Found<T> = Result<T, Violation>;

pub(crate) fn explore_within(
    bounds: &Bounds,
    mut progress: impl FnMut(&Explored),
) -> Result<Explored, Box<Counterexample>> {
    let mut search = Search::new(*bounds);
    let first = match search.first() {
        Ok(first) => first,
        Err(violation) => return Err(search.counterexample(violation, None)),
    };
    search.wait(first, None);
    let mut heard = 0;
    while let Some((mut group, path)) = search.next() {
        search.saturate(&mut group);
        if !search.visit(&group) {
            continue;
        }
        search.explored.states += 1;
        let length = path.as_ref().map_or(0, |path| path.length);
        search.explored.depth = search.explored.depth.max(length);
        match search.successors(&group) {
            Ok(successors) => {
                for (next, way) in successors {
                    if search.is_known(&next) {
                        continue;
                    }
                    let path = Path {
                        way,
                        before: path.clone(),
                        length: length + 1,
                    };
                    search.wait(next, Some(Rc::new(path)));
                }
            }
            Err((violation, way)) => {
                let path = Path {
                    way,
                    before: path,
                    length: length + 1,
                };
                return Err(search.counterexample(violation, Some(&path)));
            }
        }
        if search.explored.states - heard >= PROGRESS {
            heard = search.explored.states;
            progress(&search.explored);
        }
        if search.explored.states >= bounds.most_states {
            return Ok(search.explored);
        }
    }
    search.explored.complete = true;
    search.explored.keys = search.visited.len() as u64;
    Ok(search.explored)
}

impl Search {
    fn new(bounds: Bounds) -> Search {
        Search {
            bounds,
            choices: Rc::default(),
            locals: Vec::new(),
            local_numbers: HashMap::default(),
            letters: Vec::new(),
            letter_numbers: HashMap::default(),
            own: HashMap::default(),
            taken: HashMap::default(),
            visited: HashMap::default(),
            waiting: BTreeMap::new(),
            explored: Explored::default(),
        }
    }

    /// Puts a state where it waits for its turn.
    fn wait(&mut self, group: Group, path: Option<Rc<Path>>) {
        let come = group.nodes.iter();
        let come = come.map(|node| self.locals[*node as usize].come).sum();
        self.waiting.entry(come).or_default().push((group, path));
    }

    fn next(&mut self) -> Option<Waiting> {
        let mut least = self.waiting.first_entry()?;
        let next = least.get_mut().pop();
        if least.get().is_empty() {
            least.remove();
        }
        next
    }

    fn counterexample(&self, violation: Violation, path: Option<&Path>) -> Box<Counterexample> {
        let mut steps = Vec::new();
        let mut at = path;
        while let Some(path) = at {
            steps.push(self.describe(&path.way));
            at = path.before.as_deref();
        }
        steps.reverse();
        Box::new(Counterexample {
            violation,
            steps,
            explored: self.explored,
        })
    }

    /// Everybody normal in view 0.
    fn first(&mut self) -> Found<Group> {
        let shape = Shape {
            replicas: self.bounds.replicas,
            checkpoint_ops: self.bounds.checkpoint_ops,
            window: self.bounds.window,
        };
        let choices = Rc::clone(&self.choices);
        let mut group = Group {
            nodes: Vec::new(),
            letters: Rc::new([]),
            past: Rc::default(),
            past_fingerprint: History::default().fingerprint(),
        };
        // Everybody has heard of the view.
        for index in 0..self.bounds.replicas {
            let outcome = Node::bootstrapped(index, shape, &choices);
            let step = self.step(Event::Look, outcome, usize::from(index));
            if let Some(violation) = step.broken {
                return Err(violation);
            }
            group.nodes.push(step.to);
        }
        Ok(group)
    }

    fn key(&self, group: &Group) -> u64 {
        let mut key = group.past_fingerprint;
        for node in &group.nodes {
            let own = self.locals[*node as usize].fingerprint;
            key = (key.rotate_left(9) ^ own).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        key
    }

    /// Whether a state has been visited, perhaps with more messages on their way: that one can do whatever this one can, since
    /// none of them has to arrive.
    fn is_known(&self, group: &Group) -> bool {
        let sets = self.visited.get(&self.key(group));
        sets.is_some_and(|sets| sets.iter().any(|set| covers(set, group)))
    }

    /// Takes note of a state; whether it is new.
    fn visit(&mut self, group: &Group) -> bool {
        let key = self.key(group);
        let sets = self.visited.entry(key).or_default();
        if sets.iter().any(|set| covers(set, group)) {
            return false;
        }
        let (before, spent) = (sets.len(), group.past.spent);
        sets.retain(|set| !(includes(&group.letters, &set.0) && spent.within(set.1)));
        self.explored.again += (before - sets.len()) as u64;
        sets.push((Rc::clone(&group.letters), spent));
        true
    }

    /// Sends what can be sent without any change of a replica: that takes nothing away from what can happen.
    fn saturate(&mut self, group: &mut Group) {
        loop {
            let mut fresh: Vec<u32> = Vec::new();
            let mut acks: Vec<(usize, Seen)> = Vec::new();
            for who in 0..group.nodes.len() {
                let node = group.nodes[who];
                let own = self.own_steps(node, who);
                fresh.extend(&own.free);
                acks.extend(own.acks.iter().map(|ack| (who, ack.clone())));
                for letter in group.letters.iter() {
                    if self.letters[*letter as usize].to == who {
                        let steps = self.taking_steps(node, who, *letter);
                        fresh.extend(&steps.free);
                        acks.extend(steps.acks.iter().map(|ack| (who, ack.clone())));
                    }
                }
            }
            fresh.sort_unstable();
            fresh.dedup();
            fresh.retain(|letter| {
                group.letters.binary_search(letter).is_err() && !self.is_stale(group, *letter)
            });
            if !acks.is_empty() {
                let mut past = (*group.past).clone();
                for (who, ack) in &acks {
                    past.note_ack(ReplicaId(u8::try_from(*who).expect("few replicas")), ack);
                }
                if past != *group.past {
                    group.past_fingerprint = past.fingerprint();
                    group.past = Rc::new(past);
                }
            }
            if fresh.is_empty() {
                return;
            }
            let mut letters = [&group.letters[..], &fresh[..]].concat();
            letters.sort_unstable();
            group.letters = letters.into();
        }
    }

    /// Everything that can happen next.
    fn successors(&mut self, group: &Group) -> Result<Vec<(Group, Way)>, (Violation, Way)> {
        let mut out = Vec::new();
        for who in 0..group.nodes.len() {
            let node = group.nodes[who];
            let own = self.own_steps(node, who);
            for step in &own.changes {
                self.follow(group, who, step, &mut out)?;
            }
            for letter in group.letters.iter() {
                if self.letters[*letter as usize].to == who {
                    let steps = self.taking_steps(node, who, *letter);
                    for step in &steps.changes {
                        self.follow(group, who, step, &mut out)?;
                    }
                }
            }
        }
        Ok(out)
    }

    /// The state after a step, unless the bounds forbid it or nothing has changed.
    fn follow(
        &mut self,
        group: &Group,
        who: usize,
        step: &Step,
        out: &mut Vec<(Group, Way)>,
    ) -> Result<(), (Violation, Way)> {
        let bounds = self.bounds;
        let before = &self.locals[group.nodes[who] as usize];
        let after = &self.locals[step.to as usize];
        let mut spent = group.past.spent;
        match step.event {
            Event::Request(client, number) => {
                let next = group.past.answered(client) + 1;
                if number > next || (client > 0 && !spent.begun) {
                    return Ok(());
                }
                spent.begun = true;
            }
            Event::Retry => spent.resends += 1,
            Event::Frame { full: true, .. } => spent.around += 1,
            Event::Deliver(_, ref message) if of_the_fast_path(message) => spent.around += 1,
            _ => {}
        }
        spent.crashes += u8::from(step.died);
        let standing: u8 = group
            .nodes
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != who)
            .map(|(_, node)| self.locals[*node as usize].standing)
            .sum();
        let others_lost = || {
            let others = group.nodes.iter().enumerate().filter(|(at, _)| *at != who);
            let mut lost = others.filter(|(_, node)| self.locals[**node as usize].recovering);
            lost.next().is_some()
        };
        let beyond = spent.crashes > bounds.crashes
            || spent.around > bounds.around
            || spent.resends > bounds.resends
            || standing + after.standing > bounds.standing
            || after.promised.0 > bounds.view_changes
            || (step.died && others_lost());
        if beyond {
            return Ok(());
        }
        let way = || Way {
            who,
            event: step.event.clone(),
            died: step.died,
            to: step.to,
        };
        if let Some(violation) = &step.broken {
            return Err((violation.clone(), way()));
        }
        self.explored.transitions += 1;
        let is_new = |letter: &&u32| group.letters.binary_search(letter).is_err();
        let fresh: Vec<u32> = step.sent.iter().filter(is_new).copied().collect();
        let mut next = group.clone();
        next.nodes[who] = step.to;
        if !step.seen.is_empty() || spent != group.past.spent {
            let mut past = (*group.past).clone();
            past.spent = spent;
            for seen in &step.seen {
                let node = ReplicaId(u8::try_from(who).expect("few replicas"));
                past.judge(node, before.life, bounds.replicas, seen)
                    .map_err(|violation| (violation, way()))?;
            }
            if past != *group.past {
                self.explored.highest.0 = self.explored.highest.0.max(past.commits());
                next.past_fingerprint = past.fingerprint();
                next.past = Rc::new(past);
            }
        }
        // What only spends leads nowhere that not spending doesn't lead to.
        let same = step.to == group.nodes[who]
            && fresh.is_empty()
            && next.past.same_but_spent(&group.past);
        if !same {
            if !fresh.is_empty() {
                let mut letters = [&group.letters[..], &fresh[..]].concat();
                letters.sort_unstable();
                next.letters = letters.into();
            }
            self.drop_stale(&mut next);
            out.push((next, way()));
        }
        Ok(())
    }

    /// Forgets what nobody can take any more: of a view that its receiver is above of, or of a question that isn't open.
    fn drop_stale(&self, group: &mut Group) {
        let promised = |of: ReplicaId| self.locals[group.nodes[of.index()] as usize].promised;
        if group.past.has_old_acks(promised, self.bounds.replicas) {
            let mut past = (*group.past).clone();
            past.forget_acks(promised, self.bounds.replicas);
            group.past_fingerprint = past.fingerprint();
            group.past = Rc::new(past);
        }
        if group
            .letters
            .iter()
            .any(|letter| self.is_stale(group, *letter))
        {
            let left = group.letters.iter().copied();
            group.letters = left
                .filter(|letter| !self.is_stale(group, *letter))
                .collect();
        }
    }

    fn is_stale(&self, group: &Group, letter: u32) -> bool {
        let letter = &self.letters[letter as usize];
        let local = |who: usize| &self.locals[group.nodes[who] as usize];
        let open = |who: usize, nonce: Nonce| {
            let (recovery, transfer) = local(who).nonces;
            recovery == Some(nonce) || transfer == Some(nonce)
        };
        match letter.stale {
            Stale::Below(view) => local(letter.to).promised > view,
            Stale::Ack(view, op) => {
                let to = local(letter.to);
                to.promised > view || (to.leads && to.promised == view && to.commit >= op)
            }
            Stale::Answer(nonce) => !open(letter.to, nonce),
            Stale::Question(nonce) => !open(letter.from, nonce),
        }
    }

    /// What can happen to a replica by itself.
    fn own_steps(&mut self, node: u32, who: usize) -> Rc<Steps> {
        if let Some(steps) = self.own.get(&node) {
            return Rc::clone(steps);
        }
        let local = &self.locals[node as usize];
        let mut events = vec![Event::Retry, Event::Doubt, Event::Crash];
        if local.node.has_news() {
            events.push(Event::Look);
        }
        events.extend(local.node.programs().into_iter().map(Event::Program));
        if local.leads {
            let requests = (0..self.bounds.clients)
                .flat_map(|client| (1..=self.bounds.ops).map(move |number| (client, number)));
            events.extend(requests.map(|(client, number)| Event::Request(client, number)));
        }
        let steps = self.steps(node, who, events);
        self.own.insert(node, Rc::clone(&steps));
        steps
    }

    /// What a message can do to a replica.
    fn taking_steps(&mut self, node: u32, who: usize, letter: u32) -> Rc<Steps> {
        let key = u64::from(node) << 32 | u64::from(letter);
        if let Some(steps) = self.taken.get(&key) {
            return Rc::clone(steps);
        }
        let Letter { from, message, .. } = &self.letters[letter as usize];
        let from = ReplicaId(u8::try_from(*from).expect("few replicas"));
        let frame = |stop, full| Event::Frame {
            from,
            message: Rc::clone(message),
            stop,
            full,
        };
        let mut events = Vec::new();
        if self.locals[node as usize].node.takes(message) {
            events.push(frame(None, false));
            events.extend((1..=3).map(|stop| frame(Some(stop), false)));
            if matches!(**message, Message::Prepare(_)) {
                events.push(frame(None, true));
            } else {
                events.push(Event::Deliver(from, Rc::clone(message)));
            }
        } else if of_the_fast_path(message) {
            // Its program passes it up.
            events.push(frame(None, false));
        } else {
            events.push(Event::Deliver(from, Rc::clone(message)));
        }
        let steps = self.steps(node, who, events);
        self.taken.insert(key, Rc::clone(&steps));
        steps
    }

    fn steps(&mut self, node: u32, who: usize, events: Vec<Event>) -> Rc<Steps> {
        let choices = Rc::clone(&self.choices);
        let from = Rc::clone(&self.locals[node as usize].node);
        let mut steps = Steps {
            changes: Vec::new(),
            free: Vec::new(),
            acks: Vec::new(),
        };
        for event in events {
            for outcome in from.outcomes(&event, &choices) {
                let step = self.step(event.clone(), outcome, who);
                let acks = |seen: &Seen| matches!(seen, Seen::Acknowledged { .. });
                let free = step.to == node
                    && step.broken.is_none()
                    && step.seen.iter().all(acks)
                    && matches!(spends(&event), 0 | 2);
                if free {
                    steps.free.extend(step.sent);
                    steps.acks.extend(step.seen);
                    continue;
                }
                let known = |other: &Step| {
                    (other.to, &other.sent, &other.seen, other.died)
                        == (step.to, &step.sent, &step.seen, step.died)
                        && other.broken == step.broken
                        && spends(&other.event) == spends(&step.event)
                };
                if !steps.changes.iter().any(known) {
                    steps.changes.push(step);
                }
            }
        }
        Rc::new(steps)
    }

    /// Gives numbers to what an event made.
    fn step(&mut self, event: Event, outcome: Outcome, who: usize) -> Step {
        let mut sent: Vec<u32> = outcome
            .sent
            .into_iter()
            .map(|(to, message)| self.letter(who, to.index(), message))
            .collect();
        sent.sort_unstable();
        sent.dedup();
        Step {
            event,
            to: self.local(outcome.node),
            sent,
            seen: outcome.seen,
            died: outcome.died,
            broken: outcome.broken,
        }
    }

    fn letter(&mut self, from: usize, to: usize, message: Message) -> u32 {
        let mut hasher = DefaultHasher::new();
        (from, to, &message).hash(&mut hasher);
        let fingerprint = hasher.finish();
        if let Some(number) = self.letter_numbers.get(&fingerprint) {
            return *number;
        }
        let number = u32::try_from(self.letters.len()).expect("fewer than 2^32 messages");
        self.letter_numbers.insert(fingerprint, number);
        let stale = stale(&message);
        let message = Rc::new(message);
        self.letters.push(Letter {
            from,
            to,
            message,
            stale,
        });
        self.explored.messages = self.letters.len();
        number
    }

    fn local(&mut self, node: Node) -> u32 {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        let fingerprint = hasher.finish();
        if let Some(number) = self.local_numbers.get(&fingerprint) {
            return *number;
        }
        let number = u32::try_from(self.locals.len()).expect("fewer than 2^32 states");
        let now = node.core.snapshot();
        let normal = now.status == Status::Normal;
        let (recovery, transfer) = node.core.open_nonces();
        let recovering = now.status == Status::Recovering;
        if normal {
            self.explored.highest.1 = self.explored.highest.1.max(now.view.0);
        }
        self.locals.push(Local {
            fingerprint,
            promised: node.core.promised(),
            life: node.life,
            standing: u8::try_from(node.standing()).expect("few programs"),
            nonces: (recovering.then_some(recovery), transfer),
            leads: normal && now.role == Role::Primary,
            recovering,
            commit: now.commit,
            come: node.come(),
            node: Rc::new(node),
        });
        self.local_numbers.insert(fingerprint, number);
        self.explored.replica_states = self.locals.len();
        number
    }

    fn describe(&self, way: &Way) -> String {
        let Way {
            who,
            event,
            died,
            to,
        } = way;
        let died = if *died { " and dies" } else { "" };
        format!(
            "replica {who}: {event:?}{died}\n      {}",
            self.locals[*to as usize].node.describe()
        )
    }
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

/// Whether a visited state with this set can do whatever that state can.
fn covers(set: &Visited, group: &Group) -> bool {
    includes(&set.0, &group.letters) && set.1.within(group.past.spent)
}

/// Whether a sorted set has everything that another has.
fn includes(all: &[u32], some: &[u32]) -> bool {
    let mut all = all.iter();
    some.len() <= all.len() && some.iter().all(|one| all.any(|other| other == one))
}

fn of_the_fast_path(message: &Message) -> bool {
    matches!(message, Message::Prepare(_) | Message::PrepareOk { .. })
}

fn stale(message: &Message) -> Stale {
    match message {
        Message::Prepare(prepare) => Stale::Below(prepare.view),
        Message::PrepareOk { view, last_op, .. } => Stale::Ack(*view, *last_op),
        Message::Commit { view, .. }
        | Message::StartViewChange { view }
        | Message::DoViewChange { view, .. }
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
