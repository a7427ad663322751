//! All states of a small group, within bounds: every order of deliveries, with loss and duplication, time-outs, crashes with
//! recovery, view changes, and every place at which a program can stand still while user space goes on.
//!
//! What runs is `electrode_vr`'s core and `electrode_fastpath::host`, with the programs' steps beside them (`program.rs`); what is
//! abstracted away is said in docs/simulator.md. The network is a set of messages that only grows: one that is never
//! delivered is lost, and one may be delivered as often as you like. A message goes when nobody can ever take it again.

mod choices;
mod history;
mod letters;
mod locals;
mod memory;
mod node;
mod numbered;
mod pasts;
mod program;
mod search;
mod sequence;
mod states;

use crate::checks::Violation;

pub(crate) use search::explore_within;

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The group's size.
    pub replicas: u8,
    /// Clients, each with one request in flight.
    pub clients: u8,
    /// Requests of each client.
    pub ops: u8,
    /// View changes: no view above this is promised.
    pub view_changes: u64,
    /// Crashes, each followed by a restart with recovery; one replica at a time is without its state.
    pub crashes: u8,
    /// Programs that stand still at the same time, in the whole group.
    pub standing: u8,
    /// Packets of the fast path that no program takes: the ring is full, or programs are detached.
    pub around: u8,
    /// Times that a retry timer goes off and that changes something at its replica (slots that are opened again, state that is
    /// asked for anew). What is merely said again is unbounded.
    pub resends: u8,
    /// Prepares that a primary has in flight.
    pub window: u8,
    /// A checkpoint is taken at every multiple of this many ops.
    pub checkpoint_ops: u64,
    /// Gives up after so many states.
    pub most_states: u64,
}

/// What is explored to its end within minutes.
impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            replicas: 3,
            clients: 2,
            ops: 1,
            view_changes: 2,
            crashes: 1,
            standing: 0,
            around: 1,
            resends: 1,
            window: 2,
            checkpoint_ops: 1 << 20,
            most_states: u64::MAX,
        }
    }
}

/// What was explored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Explored {
    /// States of the group.
    pub states: u64,
    /// Transitions between them, those that lead back to a known state included.
    pub transitions: u64,
    /// The longest path that was followed.
    pub depth: usize,
    /// States of single replicas.
    pub replica_states: usize,
    /// Messages.
    pub messages: usize,
    /// Sets of messages to one replica.
    pub sets: usize,
    /// Pairs of a replica's state and the messages on their way to it.
    pub menus: usize,
    /// Pasts of the group.
    pub pasts: usize,
    /// The highest op that was committed, and the highest view that was entered.
    pub highest: (usize, u64),
    /// States but for the messages on their way.
    pub keys: u64,
    /// States that were visited again since more messages were on their way in them.
    pub again: u64,
    /// States that are left to visit.
    pub left: u64,
    /// Whether all states within the bounds were reached.
    pub complete: bool,
}

/// A path to a rule that doesn't hold.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{violation}, after {} steps", steps.len())]
pub struct Counterexample {
    /// The rule, and how it was broken.
    pub violation: Violation,
    /// The steps, as text.
    pub steps: Vec<String>,
    /// What was explored until then.
    pub explored: Explored,
}

/// Explores all states within the bounds. `progress` hears of it now and then.
///
/// # Errors
/// A rule was broken.
pub fn explore(
    bounds: &Bounds,
    progress: impl FnMut(&Explored),
) -> Result<Explored, Box<Counterexample>> {
    explore_within(bounds, progress)
}
