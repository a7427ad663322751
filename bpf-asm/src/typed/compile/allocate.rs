//! Registers: linear scan over lifetimes with holes. What doesn't fit is kept on the stack and loaded around each use, and
//! the scan begins again (so no register is set aside for that).
//!
//! Positions: operation `i` reads at `2i` and writes at `2i + 1`; the end of a block takes an operation's place.

use super::super::error::{BuildError, BuildErrorKind};
use super::super::ir::{Arg, Base, Op, Operand, Reg, Terminator};
use super::constrain::commutes;
use super::liveness::live_out;
use super::{Code, Straight};
use crate::insn::{AtomicOp, Size};

/// Spilling ends long before this.
const ROUNDS: usize = 200;
/// Registers r0 to r9.
const MACHINE: usize = 10;
/// r0 to r5: a call leaves nothing in them.
const CLOBBERED: u16 = 0b00_0011_1111;

/// The machine register of each virtual one.
pub(super) type Assignment = Vec<Option<u8>>;

#[derive(Clone, Debug, Default)]
struct Lifetime {
    /// From (inclusive) to (exclusive), ascending, disjoint.
    ranges: Vec<(usize, usize)>,
    /// Machine registers that it can't have.
    forbidden: u16,
    /// Wanted: machine registers, and registers whose machine register would spare a move.
    hints: Vec<u8>,
    like: Vec<Reg>,
    /// What reading and writing it from the stack would cost.
    cost: f64,
    /// Made by spilling: can't be spilled again.
    short: bool,
}

impl Lifetime {
    fn add(&mut self, from: usize, to: usize) {
        // Ranges are added from the end of the code to its start.
        match self.ranges.last_mut() {
            Some(first) if to >= first.0 => {
                first.0 = first.0.min(from);
                first.1 = first.1.max(to);
            }
            _ => self.ranges.push((from, to)),
        }
    }

    fn covers(&self, position: usize) -> bool {
        let after = self.ranges.partition_point(|range| range.1 <= position);
        self.ranges.get(after).is_some_and(|range| range.0 <= position)
    }

    fn meets(&self, other: &Lifetime) -> bool {
        let (mut a, mut b) = (0, 0);
        while let (Some(x), Some(y)) = (self.ranges.get(a), other.ranges.get(b)) {
            if x.1 <= y.0 {
                a += 1;
            } else if y.1 <= x.0 {
                b += 1;
            } else {
                return true;
            }
        }
        false
    }

    fn start(&self) -> usize {
        self.ranges.first().map_or(usize::MAX, |range| range.0)
    }

    fn length(&self) -> usize {
        self.ranges.iter().map(|(from, to)| to - from).sum()
    }
}

/// Assigns registers; may add stack slots and the code that uses them.
pub(super) fn allocate(code: &mut Code) -> Result<Assignment, BuildError> {
    let mut short = vec![false; code.regs.len()];
    for _ in 0..ROUNDS {
        let lifetimes = lifetimes(code, &short);
        let Some((assignment, victims)) = scan(&lifetimes) else { break };
        if victims.is_empty() {
            return Ok(assignment);
        }
        for victim in victims {
            spill(code, victim, &mut short);
        }
    }
    let line = code.blocks[0].end_at.into();
    Err(BuildError { kind: BuildErrorKind::OutOfRegisters, line })
}

fn lifetimes(code: &Code, short: &[bool]) -> Vec<Lifetime> {
    let out = live_out(code);
    let mut all = vec![Lifetime::default(); code.regs.len()];
    for (reg, lifetime) in all.iter_mut().enumerate() {
        lifetime.short = short.get(reg).copied().unwrap_or(false);
    }
    let starts: Vec<usize> = code
        .blocks
        .iter()
        .scan(1, |next, block| {
            let start = *next;
            *next += block.ops.len() + 1;
            Some(start)
        })
        .collect();
    // What a position takes away from whatever lives there: (position, machine registers).
    let mut taken: Vec<(usize, u16)> = Vec::new();
    for (number, block) in code.blocks.iter().enumerate().rev() {
        let (from, to) = (2 * starts[number], 2 * (starts[number] + block.ops.len() + 1));
        let weight = 10f64.powi(block.depth.min(6) as i32);
        for reg in out[number].iter() {
            all[reg as usize].add(from, to);
        }
        let at = 2 * (starts[number] + block.ops.len());
        block.end.each_use(|reg| {
            all[reg as usize].add(from, at + 1);
            all[reg as usize].cost += weight;
        });
        if let Terminator::Return(Operand::Reg(reg)) = &block.end {
            all[*reg as usize].hints.push(0);
        }
        for (place, (op, _)) in block.ops.iter().enumerate().rev() {
            let at = 2 * (starts[number] + place);
            if let Some(dst) = op.def() {
                let lifetime = &mut all[dst as usize];
                lifetime.cost += weight;
                match lifetime.ranges.last_mut() {
                    // It lives from here, not from the block's start (unless it is a variable that is read before).
                    Some(first) if first.0 == from && first.1 > at + 1 => first.0 = at + 1,
                    _ => lifetime.add(at + 1, at + 2),
                }
            }
            each_late_use(op, |reg| all[reg as usize].add(from, at + 2));
            op.each_use(|reg| {
                all[reg as usize].add(from, at + 1);
                all[reg as usize].cost += weight;
            });
            hint(op, &mut all);
            match op {
                Op::Call { .. } => taken.push((at, CLOBBERED)),
                Op::Atomic { op: AtomicOp::CompareExchange, base, src, .. } => {
                    taken.push((at, 1));
                    for operand in [Some(*src), base_operand(*base)].into_iter().flatten() {
                        if let Operand::Reg(reg) = operand {
                            all[reg as usize].forbidden |= 1;
                        }
                    }
                }
                _ => {}
            }
        }
    }
    for (number, argument) in code.arguments.iter().enumerate() {
        let lifetime = &mut all[*argument as usize];
        if !lifetime.ranges.is_empty() {
            lifetime.add(0, 2);
            lifetime.hints.push(number as u8 + 1);
            // The others of r1 to r5 still hold arguments when this one is moved.
            for other in 0..code.arguments.len() {
                if other != number {
                    lifetime.forbidden |= 1 << (other + 1);
                }
            }
        }
    }
    for lifetime in &mut all {
        lifetime.ranges.reverse();
        for (at, registers) in &taken {
            // Alive on both sides of the clobber.
            if lifetime.covers(*at) && lifetime.covers(at + 1) && !lifetime.ranges.iter().any(|range| range.0 == at + 1) {
                lifetime.forbidden |= registers;
            }
        }
    }
    all
}

fn base_operand(base: Base) -> Option<Operand> {
    match base {
        Base::Reg(reg) => Some(Operand::Reg(reg)),
        Base::Stack(_) => None,
    }
}

/// Registers that are read after the result's register was written: they can't share it.
fn each_late_use(op: &Op, mut f: impl FnMut(Reg)) {
    match op {
        Op::Alu { op, dst, a, b: Operand::Reg(b), .. } => {
            let swappable = commutes(*op) && matches!(a, Operand::Reg(_));
            if *a != Operand::Reg(*b) && !swappable && dst != b {
                f(*b);
            }
        }
        Op::Atomic { base, src, expected, dst: Some(_), .. } => {
            if let Base::Reg(base) = base {
                f(*base);
            }
            if expected.is_some()
                && let Operand::Reg(src) = src
            {
                f(*src);
            }
        }
        _ => {}
    }
}

fn hint(op: &Op, all: &mut [Lifetime]) {
    let mut alike = |a: Reg, b: Reg| {
        all[a as usize].like.push(b);
        all[b as usize].like.push(a);
    };
    match op {
        Op::Alu { dst, a: Operand::Reg(a), .. } => alike(*dst, *a),
        Op::Copy { dst, src: Operand::Reg(src) } => alike(*dst, *src),
        Op::Endian { dst, src, .. } => alike(*dst, *src),
        Op::Address { dst, base: Base::Reg(base), .. } => alike(*dst, *base),
        Op::Atomic { op: AtomicOp::CompareExchange, expected, dst, .. } => {
            if let Some(dst) = dst {
                all[*dst as usize].hints.push(0);
            }
            if let Some(Operand::Reg(expected)) = expected {
                all[*expected as usize].hints.push(0);
            }
        }
        Op::Atomic { src: Operand::Reg(src), dst: Some(dst), .. } => alike(*dst, *src),
        Op::Call { args, dst, .. } => {
            if let Some(dst) = dst {
                all[*dst as usize].hints.push(0);
            }
            for (number, arg) in args.iter().enumerate() {
                if let Arg::Value(Operand::Reg(reg)) = arg {
                    all[*reg as usize].hints.push(number as u8 + 1);
                }
            }
        }
        _ => {}
    }
}

/// The scan: who has which register, and who has to go to the stack. None when nobody can.
fn scan(lifetimes: &[Lifetime]) -> Option<(Assignment, Vec<Reg>)> {
    let mut order: Vec<usize> = (0..lifetimes.len()).filter(|reg| !lifetimes[*reg].ranges.is_empty()).collect();
    order.sort_by_key(|reg| (lifetimes[*reg].start(), *reg));
    let mut assignment: Assignment = vec![None; lifetimes.len()];
    // Per machine register, who has it.
    let mut holders: Vec<Vec<usize>> = vec![Vec::new(); MACHINE];
    let mut victims = Vec::new();
    for &reg in &order {
        let lifetime = &lifetimes[reg];
        for holder in &mut holders {
            holder.retain(|other| lifetimes[*other].ranges.last().is_some_and(|range| range.1 > lifetime.start()));
        }
        loop {
            if let Some(machine) = choose(lifetimes, &assignment, &holders, lifetime) {
                assignment[reg] = Some(machine);
                holders[usize::from(machine)].push(reg);
                break;
            }
            // The cheapest of those in the way (or this one) goes to the stack.
            let price = |candidate: usize| {
                let lifetime = &lifetimes[candidate];
                if lifetime.short { f64::INFINITY } else { lifetime.cost / lifetime.length() as f64 }
            };
            let in_the_way = holders
                .iter()
                .enumerate()
                .filter(|(machine, _)| lifetime.forbidden & 1 << machine == 0)
                .flat_map(|(_, holder)| holder.iter().copied())
                .filter(|other| lifetimes[*other].meets(lifetime));
            let victim = in_the_way.chain([reg]).min_by(|a, b| price(*a).total_cmp(&price(*b)))?;
            if !price(victim).is_finite() {
                return None;
            }
            victims.push(victim as Reg);
            if victim == reg {
                break;
            }
            assignment[victim] = None;
            for holder in &mut holders {
                holder.retain(|other| *other != victim);
            }
        }
    }
    Some((assignment, victims))
}

/// A free machine register, if there is one: one that spares a move, if there is one.
fn choose(
    lifetimes: &[Lifetime],
    assignment: &Assignment,
    holders: &[Vec<usize>],
    lifetime: &Lifetime,
) -> Option<u8> {
    let free = |machine: &u8| {
        lifetime.forbidden & 1 << machine == 0
            && holders[usize::from(*machine)].iter().all(|other| !lifetimes[*other].meets(lifetime))
    };
    let liked = || lifetime.like.iter().filter_map(|other| assignment[*other as usize]).find(|machine| free(machine));
    // The wishes of those that it is like and that have no register yet.
    let wished = || {
        let mut wishes = lifetime.like.iter().flat_map(|other| lifetimes[*other as usize].hints.iter().copied());
        wishes.find(|machine| free(machine))
    };
    let hinted = lifetime.hints.iter().copied().find(|machine| free(machine));
    let any = || [1, 2, 3, 4, 5, 0, 6, 7, 8, 9].into_iter().find(|machine| free(machine));
    hinted.or_else(liked).or_else(wished).or_else(any)
}

/// Keeps a register on the stack: stored after it is written, loaded before it is read. A constant is made anew instead.
fn spill(code: &mut Code, victim: Reg, short: &mut Vec<bool>) {
    let info = code.regs[victim as usize];
    let constant = the_constant(code, victim);
    let slot = match constant {
        Some(_) => 0,
        None => {
            code.buffers.push((8, code.blocks[0].end_at));
            code.buffers.len() - 1
        }
    };
    let is_argument = code.arguments.contains(&victim);
    let regs = &mut code.regs;
    let mut fresh = |short: &mut Vec<bool>| {
        regs.push(super::RegInfo { variable: false, ..info });
        short.resize(regs.len() - 1, false);
        short.push(true);
        (regs.len() - 1) as Reg
    };
    let slot_load = |dst| match constant {
        Some(value) => Op::Copy { dst, src: Operand::Const(value) },
        None => Op::Load { size: Size::DW, dst, base: Base::Stack(slot), offset: 0 },
    };
    for number in 0..code.blocks.len() {
        let block: &mut Straight = &mut code.blocks[number];
        let mut ops = Vec::with_capacity(block.ops.len() + 8);
        if number == 0 && is_argument {
            let at = block.ops.first().map_or(block.end_at, |(_, at)| *at);
            let src = Operand::Reg(victim);
            ops.push((Op::Store { size: Size::DW, base: Base::Stack(slot), offset: 0, src }, at));
        }
        for (mut op, at) in block.ops.drain(..) {
            let mut read = false;
            op.each_use(|reg| read |= reg == victim);
            if constant.is_some() && op.def() == Some(victim) {
                continue;
            }
            if read {
                let loaded = fresh(short);
                op.each_use_mut(|reg| {
                    if *reg == victim {
                        *reg = loaded;
                    }
                });
                ops.push((slot_load(loaded), at));
            }
            let mut store = None;
            if let Some(dst) = op.def_mut()
                && *dst == victim
            {
                *dst = fresh(short);
                let src = Operand::Reg(*dst);
                store = Some((Op::Store { size: Size::DW, base: Base::Stack(slot), offset: 0, src }, at));
            }
            ops.push((op, at));
            ops.extend(store);
        }
        let mut read = false;
        block.end.each_use(|reg| read |= reg == victim);
        if read {
            let loaded = fresh(short);
            block.end.each_operand_mut(|operand| {
                if *operand == Operand::Reg(victim) {
                    *operand = Operand::Reg(loaded);
                }
            });
            ops.push((slot_load(loaded), block.end_at));
        }
        block.ops = ops;
    }
    if is_argument {
        // It lives from the entry to its store, in the register it came in.
        short.resize(code.regs.len(), false);
        short[victim as usize] = true;
    }
}

/// The constant that this register always holds, if it does.
fn the_constant(code: &Code, victim: Reg) -> Option<u64> {
    let mut found = None;
    for (op, _) in code.blocks.iter().flat_map(|block| &block.ops) {
        if op.def() == Some(victim) {
            match op {
                Op::Copy { src: Operand::Const(value), .. } if found.is_none() => found = Some(*value),
                _ => return None,
            }
        }
    }
    found
}
