//! Which registers can't share one of the machine's, and a register of the machine for each (Chaitin, Briggs).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use super::allocate::Input;
use super::code::{CLOBBERED, Code, R, VIRTUAL};
use super::liveness::Live;
use super::mixed::BuildMixed;
use super::ranges::Interval;
use super::steps::step;

/// Registers to give out.
pub(super) const COLOURS: R = 10;

/// Registers of the machine, as bits.
pub(super) type Machine = u16;

/// Up to so many nodes pairs are bits of a matrix (2 MiB at most), beyond that a set: memory stays linear.
const MATRIX_NODES: usize = 4096;

enum Pairs {
    Matrix { bits: Vec<u64>, nodes: usize },
    Set(HashSet<u64, BuildMixed>),
}

impl Pairs {
    fn new(nodes: usize) -> Pairs {
        if nodes > MATRIX_NODES {
            return Pairs::Set(HashSet::default());
        }
        let bits = vec![0; (nodes * nodes).div_ceil(64)];
        Pairs::Matrix { bits, nodes }
    }

    /// Whether it is new.
    fn insert(&mut self, a: usize, b: usize) -> bool {
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        match self {
            Pairs::Matrix { bits, nodes } => {
                let place = high * *nodes + low;
                let (word, bit) = (&mut bits[place / 64], 1 << (place % 64));
                let is_new = *word & bit == 0;
                *word |= bit;
                is_new
            }
            Pairs::Set(pairs) => pairs.insert((high as u64) << 32 | low as u64),
        }
    }
}

/// A virtual register, or several that were merged.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// The nodes that it can't share a register with.
    neighbours: Vec<u32>,
    /// The machine's registers that it can't have.
    blocked: Machine,
    /// What spilling it costs: its reads and writes, weighed.
    pub(super) cost: f64,
    /// How often it is written.
    writes: u32,
    /// What writes it, if that reads nothing.
    constant: Option<Code>,
    /// What it would like to share a register with: names, the dearest copy first.
    partners: Vec<R>,
}

impl Node {
    /// What computes it anywhere, if it is written in one place only and from nothing.
    pub(super) fn constant(&self) -> Option<Code> {
        self.constant.filter(|_| self.writes == 1)
    }
}

/// The interference graph. Its registers are named by themselves if they are the machine's, and a node by [`VIRTUAL`] and
/// its number.
pub(super) struct Graph {
    /// Those of the code, then those for a moment.
    pub(super) nodes: Vec<Node>,
    /// The moments at which a register was asked for, and none was free.
    pub(super) moments: Vec<Interval>,
    pairs: Pairs,
}

impl Graph {
    /// The graph of the code with its registers merged.
    pub(super) fn new(input: &Input<'_>, live_out: &[Vec<R>]) -> Graph {
        let nodes = input.names.members.len();
        let mut graph = Graph {
            nodes: vec![Node::default(); nodes],
            moments: Vec::new(),
            pairs: Pairs::new(nodes),
        };
        let mut live = Live::new(VIRTUAL as usize + nodes);
        let name = |reg: R| input.names.of[reg as usize];
        for &number in input.order {
            let block = &input.blocks[number];
            live.set(live_out[number].iter().map(|reg| name(*reg)));
            block.end.0.uses(|reg| {
                graph.weigh(name(reg), block.weight);
                live.insert(name(reg));
            });
            for (code, _) in block.code.iter().rev() {
                graph.code(code, name, &mut live, block.weight);
            }
        }
        for &(dst, src) in input.copies {
            let (dst, src) = (name(dst), name(src));
            for (one, other) in [(dst, src), (src, dst)] {
                if one != other && one >= VIRTUAL {
                    graph.node(one).partners.push(other);
                }
            }
        }
        for node in &mut graph.nodes {
            if node.constant().is_some() {
                node.cost *= 0.3;
            }
        }
        graph
    }

    fn node(&mut self, name: R) -> &mut Node {
        &mut self.nodes[(name - VIRTUAL) as usize]
    }

    fn weigh(&mut self, name: R, weight: f64) {
        if name >= VIRTUAL {
            self.node(name).cost += weight;
        }
    }

    /// Adds what an instruction writes while other registers are live.
    fn code(&mut self, code: &Code, name: impl Fn(R) -> R, live: &mut Live, weight: f64) {
        if let Code::Call { .. } = code {
            CLOBBERED.for_each(|reg| live.remove(reg));
            for other in live.iter().filter(|other| *other >= VIRTUAL) {
                self.node(other).blocked |= (1 << CLOBBERED.end) - 1;
            }
        } else if let Some(dst) = code.def() {
            let dst = name(dst);
            let copied = code.as_copy().map(|(_, src)| name(src));
            if copied == Some(dst) {
                return;
            }
            live.remove(dst);
            for other in live.iter().filter(|other| copied != Some(*other)) {
                self.connect(dst, other);
            }
            if dst >= VIRTUAL {
                let node = self.node(dst);
                node.cost += weight;
                node.writes += 1;
                node.constant = code.is_constant().then_some(*code);
            }
        }
        code.uses(|reg| {
            self.weigh(name(reg), weight);
            live.insert(name(reg));
        });
    }

    fn connect(&mut self, a: R, b: R) {
        step(1);
        match (a.checked_sub(VIRTUAL), b.checked_sub(VIRTUAL)) {
            (Some(a), Some(b)) => {
                if self.pairs.insert(a as usize, b as usize) {
                    self.nodes[a as usize].neighbours.push(b);
                    self.nodes[b as usize].neighbours.push(a);
                }
            }
            (Some(node), None) => self.nodes[node as usize].blocked |= 1 << b,
            (None, Some(node)) => self.nodes[node as usize].blocked |= 1 << a,
            (None, None) => {}
        }
    }

    /// Adds a node for each of these moments that needs a register there, whatever it costs. They are in order, and none is
    /// longer than two points.
    pub(super) fn reserve(&mut self, input: &Input<'_>, moments: &[Interval]) {
        let first = self.nodes.len();
        let node = Node {
            cost: f64::INFINITY,
            ..Node::default()
        };
        self.nodes.resize(first + moments.len(), node);
        let known = std::mem::take(&mut self.moments);
        let all = known.iter().copied().chain(moments.iter().copied());
        let nodes = input.names.members.len();
        for reg in 0..COLOURS {
            for at in meeting(input.merged.of(reg).live(), moments) {
                self.nodes[first + at].blocked |= 1 << reg;
            }
        }
        for (node, members) in input.names.members.iter().enumerate() {
            for at in meeting(input.merged.of(members[0]).live(), moments) {
                self.join(node, first + at);
            }
        }
        for (other, moment) in all.clone().enumerate() {
            for at in meeting(&[moment], moments) {
                // Of two new ones, each meets the other.
                if nodes + other < first + at {
                    self.join(nodes + other, first + at);
                }
            }
        }
        self.moments = all.collect();
    }

    fn join(&mut self, a: usize, b: usize) {
        step(1);
        self.nodes[a].neighbours.push(b as u32);
        self.nodes[b].neighbours.push(a as u32);
    }

    /// A register of the machine for each node; none where there are too few.
    pub(super) fn colour(&self) -> Vec<Option<R>> {
        let mut colours: Vec<Option<R>> = vec![None; self.nodes.len()];
        for number in self.simplified().into_iter().rev() {
            let node = &self.nodes[number as usize];
            step(node.neighbours.len());
            let mut taken = node.blocked;
            for other in &node.neighbours {
                if let Some(colour) = colours[*other as usize] {
                    taken |= 1 << colour;
                }
            }
            let free = |colour: &R| *colour < COLOURS && taken & 1 << *colour == 0;
            let wanted = node.partners.iter().filter_map(|partner| {
                partner
                    .checked_sub(VIRTUAL)
                    .map_or(Some(*partner), |partner| colours[partner as usize])
            });
            colours[number as usize] = wanted.chain(0..COLOURS).find(free);
        }
        colours
    }

    /// The order in which to take nodes out: those that can always be coloured first, else the cheapest to spill.
    fn simplified(&self) -> Vec<u32> {
        let mut gone = vec![false; self.nodes.len()];
        let degree = |node: &Node| node.blocked.count_ones() + node.neighbours.len() as u32;
        let mut degree: Vec<u32> = self.nodes.iter().map(degree).collect();
        let price = |node: u32, degree: u32| {
            let price = self.nodes[node as usize].cost / f64::from(degree.max(1));
            Reverse((Price(price), node))
        };
        let all = 0..self.nodes.len() as u32;
        let (mut easy, hard): (Vec<u32>, Vec<u32>) =
            all.partition(|node| degree[*node as usize] < COLOURS);
        easy.reverse();
        // Prices rise as neighbours go: one that is out of date is too low, and put back.
        let prices = hard.iter().map(|&node| price(node, degree[node as usize]));
        let mut hard: BinaryHeap<_> = prices.collect();
        let mut stack = Vec::with_capacity(easy.len() + hard.len());
        loop {
            let node = match easy.pop() {
                Some(node) => node,
                None => {
                    let Some(cheapest) = hard.pop() else {
                        return stack;
                    };
                    let Reverse((_, node)) = cheapest;
                    if gone[node as usize] {
                        continue;
                    }
                    let now = price(node, degree[node as usize]);
                    if now < cheapest {
                        hard.push(now);
                        continue;
                    }
                    node
                }
            };
            if std::mem::replace(&mut gone[node as usize], true) {
                continue;
            }
            stack.push(node);
            for &other in &self.nodes[node as usize].neighbours {
                degree[other as usize] = degree[other as usize].saturating_sub(1);
                if !gone[other as usize] && degree[other as usize] + 1 == COLOURS {
                    easy.push(other);
                }
            }
        }
    }
}

/// The numbers of the moments that share a point with these intervals.
fn meeting(live: &[Interval], moments: &[Interval]) -> impl Iterator<Item = usize> {
    let each = |&(start, end): &Interval| {
        // A moment that began one point before may last.
        let first = moments.partition_point(|moment| moment.0 + 1 < start);
        let near = moments[first..].iter().take_while(move |at| at.0 < end);
        (first..).zip(near).filter(move |(_, at)| at.1 > start)
    };
    live.iter().flat_map(each).map(|(number, _)| number)
}

/// A price that can be compared.
#[derive(Clone, Copy, PartialEq)]
struct Price(f64);

impl Eq for Price {}

impl Ord for Price {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Price {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
