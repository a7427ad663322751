//! Which registers can't share one of the machine's, and which would like to.

use super::super::ir::BlockId;
use super::allocate::COLOURS;
use super::code::{Code, CodeBlock, R, VIRTUAL};
use super::liveness::{Set, live_out, walk};
use super::spill::{Spiller, constants};

/// Registers merged into others.
pub(super) struct Alias(Vec<R>);

impl Alias {
    pub(super) fn find(&self, mut reg: R) -> R {
        while self.0[reg as usize] != reg {
            reg = self.0[reg as usize];
        }
        reg
    }
}

/// The interference graph.
pub(super) struct Graph {
    edges: Vec<Set>,
    degree: Vec<usize>,
    /// Copies, the heaviest first.
    copies: Vec<(R, R)>,
    /// What spilling a register costs; infinite where it would gain nothing.
    cost: Vec<f64>,
    present: Set,
    pub(super) alias: Alias,
}

impl Graph {
    pub(super) fn build(blocks: &[CodeBlock], order: &[BlockId], spiller: &Spiller) -> Graph {
        let registers = spiller.registers();
        let mut graph = Graph {
            edges: vec![Set::new(registers); registers],
            degree: vec![0; registers],
            copies: Vec::new(),
            cost: vec![0.0; registers],
            present: Set::new(registers),
            alias: Alias((0..registers as R).collect()),
        };
        let live_out = live_out(blocks, order, registers);
        let mut copies = Vec::new();
        for &number in order {
            let block = &blocks[number];
            let mut live = live_out[number].clone();
            walk(block, &mut live, |at, live| {
                let code = &block.code[at].0;
                let copied = code.as_copy();
                code.defs(|dst| {
                    for other in live.iter() {
                        if other != dst && copied != Some((dst, other)) {
                            graph.connect(dst, other);
                        }
                    }
                });
            });
            for (code, _) in &block.code {
                graph.count(code, block.weight);
                if let Some((dst, src)) = code.as_copy() {
                    copies.push((block.weight, dst, src));
                }
            }
            block.end.0.uses(|reg| graph.weigh(reg, block.weight));
        }
        copies.sort_by(|a, b| b.0.total_cmp(&a.0));
        graph.copies = copies.into_iter().map(|(_, dst, src)| (dst, src)).collect();
        for reg in constants(blocks, order)
            .into_keys()
            .filter(|&reg| reg >= VIRTUAL)
        {
            graph.cost[reg as usize] *= 0.3;
        }
        for reg in (VIRTUAL..registers as R).filter(|&reg| spiller.is_short(reg)) {
            graph.cost[reg as usize] = f64::INFINITY;
        }
        graph
    }

    fn count(&mut self, code: &Code, weight: f64) {
        code.uses(|reg| self.weigh(reg, weight));
        code.defs(|reg| self.weigh(reg, weight));
    }

    fn weigh(&mut self, reg: R, weight: f64) {
        self.cost[reg as usize] += weight;
        self.present.insert(reg);
    }

    fn connect(&mut self, a: R, b: R) {
        if a == b || (a < VIRTUAL && b < VIRTUAL) || self.edges[a as usize].contains(b) {
            return;
        }
        self.edges[a as usize].insert(b);
        self.edges[b as usize].insert(a);
        self.degree[a as usize] += 1;
        self.degree[b as usize] += 1;
    }

    /// Merges the registers of copies where they don't interfere; whether there were any. Careful: only where the
    /// result is as easy to colour as before.
    pub(super) fn coalesce(&mut self, careful: bool) -> bool {
        let mut any = false;
        for (dst, src) in self.copies.clone() {
            let (a, b) = (self.alias.find(dst), self.alias.find(src));
            let (kept, gone) = (a.min(b), a.max(b));
            if kept == gone || gone < VIRTUAL || self.edges[kept as usize].contains(gone) {
                continue;
            }
            if careful && !self.is_harmless(kept, gone) {
                continue;
            }
            any = true;
            let neighbours: Vec<R> = self.edges[gone as usize].iter().collect();
            for neighbour in neighbours {
                self.edges[neighbour as usize].remove(gone);
                self.degree[neighbour as usize] -= 1;
                self.connect(kept, neighbour);
            }
            self.alias.0[gone as usize] = kept;
        }
        any
    }

    /// The test of George for a register of the machine, that of Briggs for a virtual one.
    fn is_harmless(&self, kept: R, gone: R) -> bool {
        let colours = COLOURS as usize;
        let heavy = |reg: R| reg < VIRTUAL || self.degree[reg as usize] >= colours;
        let (mine, theirs) = (&self.edges[kept as usize], &self.edges[gone as usize]);
        if kept < VIRTUAL {
            return theirs
                .iter()
                .all(|reg| !heavy(reg) || reg < VIRTUAL || mine.contains(reg));
        }
        let mut union = mine.clone();
        union.add(theirs);
        union.iter().filter(|&reg| heavy(reg)).count() < colours
    }

    /// A colour for each register, and the registers for which there was none. `None` if such a one can't be spilled.
    pub(super) fn colour(&self) -> Option<(Vec<R>, Vec<R>)> {
        let mut colours: Vec<R> = (0..self.edges.len() as R).collect();
        let mut done = vec![false; self.edges.len()];
        let mut uncoloured = Vec::new();
        for reg in self.simplified().into_iter().rev() {
            let mut taken = [false; COLOURS as usize];
            for other in self.edges[reg as usize].iter() {
                if (other < VIRTUAL || done[other as usize]) && colours[other as usize] < COLOURS {
                    taken[colours[other as usize] as usize] = true;
                }
            }
            let free = |colour: &R| *colour < COLOURS && !taken[*colour as usize];
            let wanted = self.copies.iter().filter_map(|&(dst, src)| {
                let other = if dst == reg {
                    src
                } else if src == reg {
                    dst
                } else {
                    return None;
                };
                (other < VIRTUAL || done[other as usize]).then(|| colours[other as usize])
            });
            match wanted.chain(0..COLOURS).find(free) {
                Some(colour) => {
                    colours[reg as usize] = colour;
                    done[reg as usize] = true;
                }
                None if self.cost[reg as usize].is_infinite() => return None,
                None => uncoloured.push(reg),
            }
        }
        Some((colours, uncoloured))
    }

    /// The order in which to take registers out: those that can always be coloured first, else the cheapest to spill.
    fn simplified(&self) -> Vec<R> {
        let mut degree = self.degree.clone();
        let mut left: Vec<R> = self.present.iter().filter(|&reg| reg >= VIRTUAL).collect();
        let mut stack = Vec::with_capacity(left.len());
        let mut gone = vec![false; self.edges.len()];
        while !left.is_empty() {
            let easy = left
                .iter()
                .position(|&reg| degree[reg as usize] < COLOURS as usize);
            let price = |reg: R| self.cost[reg as usize] / degree[reg as usize].max(1) as f64;
            let cheapest =
                || (0..left.len()).min_by(|&a, &b| price(left[a]).total_cmp(&price(left[b])));
            let Some(next) = easy.or_else(cheapest) else {
                break;
            };
            let reg = left.swap_remove(next);
            for other in self.edges[reg as usize].iter() {
                if !gone[other as usize] {
                    degree[other as usize] -= 1;
                }
            }
            gone[reg as usize] = true;
            stack.push(reg);
        }
        stack
    }
}
