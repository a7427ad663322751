//! Which registers can't share one of the machine's, and which would like to.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use super::super::ir::BlockId;
use super::allocate::COLOURS;
use super::code::{Code, CodeBlock, R, VIRTUAL};
use super::liveness::{Live, live_out, walk};
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

/// What interferes with what: pairs for the question, and each virtual register's neighbours in a list.
struct Edges {
    pairs: Pairs,
    of_virtual: Vec<Vec<R>>,
}

/// Up to so many registers pairs are bits of a matrix (2 MiB at most), beyond that a set: memory stays linear.
const MATRIX_REGISTERS: usize = 4096;

enum Pairs {
    Matrix { bits: Vec<u64>, registers: usize },
    Set(HashSet<u64, BuildHasherDefault<Mixed>>),
}

impl Pairs {
    fn new(registers: usize) -> Pairs {
        if registers > MATRIX_REGISTERS {
            return Pairs::Set(HashSet::with_capacity_and_hasher(
                registers * 4,
                BuildHasherDefault::default(),
            ));
        }
        let bits = vec![0; (registers * registers).div_ceil(64)];
        Pairs::Matrix { bits, registers }
    }

    fn place(a: R, b: R, registers: usize) -> (usize, u64) {
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        let bit = high as usize * registers + low as usize;
        (bit / 64, 1 << (bit % 64))
    }

    fn contain(&self, a: R, b: R) -> bool {
        match self {
            Pairs::Matrix { bits, registers } => {
                let (word, bit) = Pairs::place(a, b, *registers);
                bits[word] & bit != 0
            }
            Pairs::Set(pairs) => pairs.contains(&pair(a, b)),
        }
    }

    /// Whether it is new.
    fn insert(&mut self, a: R, b: R) -> bool {
        match self {
            Pairs::Matrix { bits, registers } => {
                let (word, bit) = Pairs::place(a, b, *registers);
                let is_new = bits[word] & bit == 0;
                bits[word] |= bit;
                is_new
            }
            Pairs::Set(pairs) => pairs.insert(pair(a, b)),
        }
    }

    fn remove(&mut self, a: R, b: R) {
        match self {
            Pairs::Matrix { bits, registers } => {
                let (word, bit) = Pairs::place(a, b, *registers);
                bits[word] &= !bit;
            }
            Pairs::Set(pairs) => {
                pairs.remove(&pair(a, b));
            }
        }
    }
}

/// Hashes a pair of registers: a multiplication spreads it over the upper bits, which are then brought down.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, pair: u64) {
        let product = pair.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

const fn pair(a: R, b: R) -> u64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    (high as u64) << 32 | low as u64
}

impl Edges {
    fn new(registers: usize) -> Edges {
        Edges {
            pairs: Pairs::new(registers),
            of_virtual: vec![Vec::new(); registers],
        }
    }

    fn contain(&self, a: R, b: R) -> bool {
        self.pairs.contain(a, b)
    }

    /// Whether it is new.
    fn insert(&mut self, a: R, b: R) -> bool {
        let is_new = self.pairs.insert(a, b);
        if is_new {
            for (a, b) in [(a, b), (b, a)] {
                if a >= VIRTUAL {
                    self.of_virtual[a as usize].push(b);
                }
            }
        }
        is_new
    }

    /// Takes a virtual register out; its neighbours.
    fn remove(&mut self, gone: R) -> Vec<R> {
        let neighbours = std::mem::take(&mut self.of_virtual[gone as usize]);
        for &neighbour in &neighbours {
            self.pairs.remove(gone, neighbour);
            if neighbour >= VIRTUAL {
                let list = &mut self.of_virtual[neighbour as usize];
                if let Some(place) = list.iter().position(|reg| *reg == gone) {
                    list.swap_remove(place);
                }
            }
        }
        neighbours
    }

    /// The neighbours of a virtual register.
    fn of(&self, reg: R) -> &[R] {
        &self.of_virtual[reg as usize]
    }
}

/// The interference graph.
pub(super) struct Graph {
    edges: Edges,
    degree: Vec<usize>,
    /// Copies, the heaviest first.
    copies: Vec<(R, R)>,
    /// What spilling a register costs; infinite where it would gain nothing.
    cost: Vec<f64>,
    present: Vec<bool>,
    pub(super) alias: Alias,
}

impl Graph {
    pub(super) fn build(blocks: &[CodeBlock], order: &[BlockId], spiller: &Spiller) -> Graph {
        let registers = spiller.registers();
        let mut graph = Graph {
            edges: Edges::new(registers),
            degree: vec![0; registers],
            copies: Vec::new(),
            cost: vec![0.0; registers],
            present: vec![false; registers],
            alias: Alias((0..registers as R).collect()),
        };
        let live_out = live_out(blocks, order, registers);
        let mut live = Live::new(registers);
        let mut copies = Vec::new();
        for &number in order {
            let block = &blocks[number];
            live.set(&live_out[number]);
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
        let constants = constants(blocks, order, registers);
        for (cost, constant) in graph.cost.iter_mut().zip(&constants).skip(VIRTUAL as usize) {
            if constant.is_some() {
                *cost *= 0.3;
            }
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
        self.present[reg as usize] = true;
    }

    fn connect(&mut self, a: R, b: R) {
        if a == b || (a < VIRTUAL && b < VIRTUAL) || !self.edges.insert(a, b) {
            return;
        }
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
            if kept == gone || gone < VIRTUAL || self.edges.contain(kept, gone) {
                continue;
            }
            if careful && !self.is_harmless(kept, gone) {
                continue;
            }
            any = true;
            for neighbour in self.edges.remove(gone) {
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
        let theirs = self.edges.of(gone).iter().copied();
        if kept < VIRTUAL {
            return theirs
                .into_iter()
                .all(|reg| !heavy(reg) || reg < VIRTUAL || self.edges.contain(kept, reg));
        }
        let mine = self.edges.of(kept).iter().copied();
        let others = theirs.filter(|reg| !self.edges.contain(kept, *reg));
        mine.chain(others).filter(|reg| heavy(*reg)).count() < colours
    }

    /// A colour for each register, and the registers for which there was none. `None` if such a one can't be spilled.
    pub(super) fn colour(&self) -> Option<(Vec<R>, Vec<R>)> {
        let registers = self.degree.len();
        let mut colours: Vec<R> = (0..registers as R).collect();
        let mut done = vec![false; registers];
        // What each would like to share a register with, the dearest copy first.
        let mut partners: Vec<Vec<R>> = vec![Vec::new(); registers];
        for &(dst, src) in &self.copies {
            partners[dst as usize].push(src);
            partners[src as usize].push(dst);
        }
        let mut uncoloured = Vec::new();
        for reg in self.simplified().into_iter().rev() {
            let mut taken = [false; COLOURS as usize];
            for &other in self.edges.of(reg) {
                if (other < VIRTUAL || done[other as usize]) && colours[other as usize] < COLOURS {
                    taken[colours[other as usize] as usize] = true;
                }
            }
            let free = |colour: &R| *colour < COLOURS && !taken[*colour as usize];
            let is_placed = |other: &&R| **other < VIRTUAL || done[**other as usize];
            let wanted = partners[reg as usize].iter().filter(is_placed);
            let wanted = wanted.map(|other| colours[*other as usize]);
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
        let easy = |degree: usize| degree < COLOURS as usize;
        let mut degree = self.degree.clone();
        let registers = (VIRTUAL..self.degree.len() as R).filter(|reg| self.present[*reg as usize]);
        let mut left: Vec<R> = registers.collect();
        let all = left.len();
        let mut stack = Vec::with_capacity(all);
        let mut gone = vec![false; self.degree.len()];
        let mut next: Vec<R> = left.iter().rev().copied().collect();
        next.retain(|reg| easy(degree[*reg as usize]));
        while stack.len() < all {
            let reg = next.pop().or_else(|| {
                left.retain(|reg| !gone[*reg as usize]);
                let price = |reg: R| self.cost[reg as usize] / degree[reg as usize].max(1) as f64;
                let prices = left.iter().copied().map(|reg| (price(reg), reg));
                Some(prices.min_by(|a, b| a.0.total_cmp(&b.0))?.1)
            });
            let Some(reg) = reg else {
                break;
            };
            if std::mem::replace(&mut gone[reg as usize], true) {
                continue;
            }
            for &other in self.edges.of(reg) {
                if !gone[other as usize] {
                    degree[other as usize] -= 1;
                    if other >= VIRTUAL && degree[other as usize] + 1 == COLOURS as usize {
                        next.push(other);
                    }
                }
            }
            stack.push(reg);
        }
        stack
    }
}
