//! States of single replicas, and what can happen to them. A replica's step depends on its own state and on what reaches it
//! alone, so each state has a number and what an event makes of it is worked out once.

mod steps;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use electrode_vr::{Role, Status, View};

use super::Bounds;
use super::choices::Choices;
use super::letters::{Gate, Letters};
use super::node::{Event, Node, Shape};
use super::numbered::Quick;
use super::pasts::Pasts;
use crate::checks::Violation;

use steps::Steps;
pub(super) use steps::{Menu, Step};

/// A replica's state, with what the search has to know of it.
pub(super) struct Local {
    node: Rc<Node>,
    pub(super) promised: View,
    pub(super) standing: u8,
    pub(super) recovering: bool,
    leads: bool,
    pub(super) gate: u32,
    /// The questions that are open, by a number of their own.
    pub(super) questions: u32,
    /// How far it has come: more with most of what can happen to it.
    pub(super) come: u32,
}

/// All states of replicas, and what was worked out of them.
pub(super) struct Locals {
    bounds: Bounds,
    choices: Rc<Choices>,
    locals: Vec<Local>,
    /// By fingerprint.
    numbers: HashMap<u64, u32, Quick>,
    steps: Vec<Rc<Step>>,
    own: HashMap<u32, Rc<Steps>, Quick>,
    taken: HashMap<(u32, u32), Rc<Steps>, Quick>,
    menus: HashMap<(u32, u32), Rc<Menu>, Quick>,
    /// The highest view that was entered.
    pub(super) highest_view: View,
}

impl Locals {
    pub(super) fn new(bounds: Bounds) -> Locals {
        Locals {
            bounds,
            choices: Rc::default(),
            locals: Vec::new(),
            numbers: HashMap::default(),
            steps: Vec::new(),
            own: HashMap::default(),
            taken: HashMap::default(),
            menus: HashMap::default(),
            highest_view: View(0),
        }
    }

    /// How many states of replicas there are.
    pub(super) fn len(&self) -> usize {
        self.locals.len()
    }

    pub(super) fn local(&self, number: u32) -> &Local {
        &self.locals[number as usize]
    }

    /// Replica `index` of a group that begins, after its first look at its view.
    pub(super) fn first(
        &mut self,
        index: u8,
        letters: &mut Letters,
        pasts: &mut Pasts,
    ) -> Result<u32, Violation> {
        let shape = Shape {
            replicas: self.bounds.replicas,
            checkpoint_ops: self.bounds.checkpoint_ops,
            window: self.bounds.window,
        };
        let outcome = Node::bootstrapped(index, shape, &self.choices);
        let who = usize::from(index);
        let step = self.outcome((Event::Look, false), outcome, (who, 0), letters, pasts);
        match step.broken {
            Some(violation) => Err(violation),
            None => Ok(step.to),
        }
    }

    fn number(&mut self, node: Node, who: usize, letters: &mut Letters) -> u32 {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        let fingerprint = hasher.finish();
        if let Some(number) = self.numbers.get(&fingerprint) {
            return *number;
        }
        let number = u32::try_from(self.locals.len()).expect("fewer than 2^32 states");
        let now = node.core().snapshot();
        let normal = (now.status == Status::Normal).then_some(now.view);
        let (recovery, transfer) = node.core().open_nonces();
        let recovering = now.status == Status::Recovering;
        let leads = normal.is_some() && now.role == Role::Primary;
        let promised = node.core().promised();
        let own = promised.primary(usize::from(self.bounds.replicas)) == node.index;
        let chosen = own && now.view == promised && transfer.is_some();
        let open = (recovering.then_some(recovery), transfer);
        let gate = Gate {
            who,
            promised,
            counted: leads.then_some(now.commit),
            // It is in the view, fetches the log that it chose for it, or never votes in it.
            decided: normal.is_some() || recovering || chosen,
            open,
        };
        let questions = Gate {
            promised: View(0),
            counted: None,
            decided: false,
            ..gate
        };
        self.highest_view = self.highest_view.max(normal.unwrap_or_default());
        self.locals.push(Local {
            promised,
            standing: u8::try_from(node.standing()).expect("few programs"),
            recovering,
            leads,
            gate: letters.gate(gate),
            questions: letters.gate(questions),
            come: node.come(),
            node: Rc::new(node),
        });
        self.numbers.insert(fingerprint, number);
        number
    }
}
