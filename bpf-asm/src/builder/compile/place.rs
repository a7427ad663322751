//! Where each register's values are kept: in a register of the machine, in the frame, or nowhere if they are constant.

use super::allocate::Input;
use super::code::{Code, R, VIRTUAL};
use super::graph::{COLOURS, Graph};
use super::ranges::{Interval, Range};

/// Where values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// In a register of the machine.
    Machine(R),
    /// In a slot of the frame, after the buffers. Each node has one of its own, since the verifier takes a slot that holds a
    /// pointer on one path and a number on another for neither.
    Slot(usize),
    /// Nowhere: computed wherever it is wanted, by this of [`Placed::constants`].
    Constant(usize),
}

/// A home for each register.
pub(super) struct Placed {
    /// By register.
    pub(super) homes: Vec<Home>,
    pub(super) constants: Vec<Code>,
    /// How many slots there are.
    pub(super) slots: usize,
    /// What lives in each register of the machine; empty if no value is anywhere else.
    pub(super) machine: Vec<Range>,
    /// Registers that are kept free for a moment.
    pub(super) reserved: Vec<(Interval, R)>,
}

impl Placed {
    /// Colours the graph, takes apart what finds no colour, and keeps the rest in the frame. `None` if there is no register
    /// for what can't be kept there.
    pub(super) fn new(input: &Input<'_>, graph: &Graph) -> Option<Placed> {
        let mut colours = graph.colour();
        let moments = colours.split_off(input.names.members.len());
        let names = &input.names.of;
        let machine = |name: R| match name.checked_sub(VIRTUAL) {
            Some(node) => *colours.get(node as usize)?,
            None => Some(name),
        };
        let mut homes: Vec<Option<Home>> = names
            .iter()
            .map(|name| machine(*name).map(Home::Machine))
            .collect();
        let mut placed = Placed {
            homes: Vec::new(),
            constants: Vec::new(),
            slots: 0,
            machine: Vec::new(),
            reserved: Vec::new(),
        };
        if colours.contains(&None) {
            placed.machine = (0..COLOURS)
                .map(|reg| input.merged.of(reg).into())
                .collect();
            for (members, colour) in input.names.members.iter().zip(&colours) {
                if let Some(colour) = colour {
                    placed.machine[*colour as usize].add(input.merged.of(members[0]));
                }
            }
            for (&moment, colour) in graph.moments.iter().zip(moments) {
                placed.machine[colour? as usize].reserve(moment);
                placed.reserved.push((moment, colour?));
            }
            placed.take_apart(input, &colours, &mut homes);
        }
        // What is left has one home for each node.
        let mut left: Vec<Option<Home>> = vec![None; colours.len()];
        placed.homes = (0..)
            .zip(homes)
            .map(|(reg, home)| match (home, input.names.node(reg)) {
                (Some(home), _) => home,
                (None, None) => Home::Machine(reg),
                (None, Some(node)) => *left[node].get_or_insert_with(|| {
                    if let Some(code) = graph.nodes[node].constant() {
                        placed.constants.push(code);
                        return Home::Constant(placed.constants.len() - 1);
                    }
                    placed.slots += 1;
                    Home::Slot(placed.slots - 1)
                }),
            })
            .collect();
        Some(placed)
    }

    /// Gives registers to the parts of nodes that found none as a whole, the dearest first.
    fn take_apart(&mut self, input: &Input<'_>, colours: &[Option<R>], homes: &mut [Option<Home>]) {
        let is_part = |reg: R| {
            input.names.node(reg).is_some_and(|node| {
                colours.get(node) == Some(&None) && input.names.members[node].len() > 1
            })
        };
        let mut weights = vec![0.0; homes.len()];
        for &block in input.order {
            let block = &input.blocks[block];
            for (code, _) in &block.code {
                code.uses(|reg| weights[reg as usize] += block.weight);
                code.defs(|reg| weights[reg as usize] += block.weight);
            }
            block
                .end
                .0
                .uses(|reg| weights[reg as usize] += block.weight);
        }
        let mut parts: Vec<R> = (VIRTUAL..homes.len() as R)
            .filter(|reg| is_part(*reg))
            .collect();
        parts.sort_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]));
        // What each would like to share a register with, the dearest copy first.
        let mut partners: Vec<(R, R)> = Vec::new();
        for &(dst, src) in input.copies {
            partners.extend(
                [(dst, src), (src, dst)]
                    .iter()
                    .filter(|pair| is_part(pair.0)),
            );
        }
        partners.sort_by_key(|pair| pair.0);
        for part in parts {
            let first = partners.partition_point(|pair| pair.0 < part);
            let partners = partners[first..].iter().take_while(|pair| pair.0 == part);
            let wanted = partners.filter_map(|pair| match homes[pair.1 as usize] {
                Some(Home::Machine(reg)) if reg < COLOURS => Some(reg),
                _ => None,
            });
            let span = input.ranges.of(part);
            let fits = |reg: &R| {
                let is_harmless =
                    |src: R| src == part || homes[src as usize] == Some(Home::Machine(*reg));
                !self.machine[*reg as usize]
                    .span()
                    .interferes(span, is_harmless)
            };
            if let Some(reg) = wanted.chain(0..COLOURS).find(fits) {
                self.machine[reg as usize].add(span);
                homes[part as usize] = Some(Home::Machine(reg));
            }
        }
    }
}
