//! Code over the machine's registers: values without one are loaded before they are read and stored after they are written.
//!
//! Whole registers are stored, so that the verifier still knows pointers and bounds when they come back. A value that was
//! loaded or stored a moment ago is read from the register that it is in still.

use super::super::ir::At;
use super::allocate::Input;
use super::code::{Code, CodeBlock, End, Place, R, Src, VIRTUAL};
use super::graph::{COLOURS, Machine};
use super::place::{Home, Placed};
use super::ranges::Interval;
use super::steps::step;
use crate::insn::{AluOp, Size, Width};

/// The code and the end of a block.
pub(super) type Rewritten = (Vec<(Code, At)>, End);

/// The code and the end of each block, in order; or the moments at which no register is free.
pub(super) fn rewrite(
    input: &Input<'_>,
    placed: &Placed,
    buffers: usize,
) -> Result<Vec<Rewritten>, Vec<Interval>> {
    let mut rewriter = Rewriter {
        placed,
        buffers,
        held: Vec::new(),
        out: Vec::new(),
        crowded: Vec::new(),
    };
    let mut blocks = Vec::with_capacity(input.order.len());
    let mut start = 1;
    for &number in input.order {
        let block = &input.blocks[number];
        blocks.push(rewriter.block(block, start));
        start += block.code.len() as u32 + 2;
    }
    if rewriter.crowded.is_empty() {
        Ok(blocks)
    } else {
        Err(rewriter.crowded)
    }
}

/// A register that has had the value of a home since a point.
struct Held {
    home: Home,
    reg: R,
    since: u32,
}

/// The instruction that is being rewritten.
struct Here {
    point: u32,
    at: At,
    /// Registers that it was given for a moment.
    taken: Machine,
}

struct Rewriter<'a> {
    placed: &'a Placed,
    buffers: usize,
    held: Vec<Held>,
    out: Vec<(Code, At)>,
    crowded: Vec<Interval>,
}

impl Rewriter<'_> {
    fn block(&mut self, block: &CodeBlock, start: u32) -> Rewritten {
        self.held.clear();
        self.out = Vec::with_capacity(block.code.len());
        for (point, &(code, at)) in (start + 1..).zip(&block.code) {
            let taken = 0;
            self.code(code, Here { point, at, taken });
        }
        let (mut end, at) = block.end;
        let mut here = Here {
            point: start + block.code.len() as u32 + 1,
            at,
            taken: 0,
        };
        end.map(|reg| self.fetch(reg, false, &mut here));
        (std::mem::take(&mut self.out), end)
    }

    fn home(&self, reg: R) -> Home {
        self.placed.homes[reg as usize]
    }

    fn code(&mut self, mut code: Code, mut here: Here) {
        let point = here.point;
        step(1);
        let written = code.def().map(|dst| (dst, self.home(dst)));
        if let Some((_, Home::Constant(_))) = written {
            return; // it is computed where it is read
        }
        if let (Some((_, src)), Some((_, dst))) = (code.as_copy(), written) {
            return self.copy(dst, src, here);
        }
        let mut changed = None;
        code.map_uses(|reg| {
            let is_written = written.is_some_and(|(dst, _)| dst == reg);
            let now = self.fetch(reg, is_written, &mut here);
            if is_written {
                changed = Some(now);
            }
            now
        });
        let reg = match written {
            None => None,
            Some((_, Home::Machine(reg))) => Some(reg),
            Some(_) => changed.or_else(|| {
                here.taken = 0; // what was read is read
                Some(self.free(&mut here, (point, point + 1)))
            }),
        };
        if let Some(reg) = reg {
            code.map(|other| if other >= VIRTUAL { reg } else { other });
        }
        self.out.push((code, here.at));
        if let (Some((_, home @ Home::Slot(slot))), Some(reg)) = (written, reg) {
            self.store(slot, reg, here.at);
            self.held.retain(|held| held.reg != reg);
            self.hold(home, reg, point);
        }
    }

    fn copy(&mut self, dst: Home, src: R, mut here: Here) {
        let from = self.home(src);
        if dst == from {
            return;
        }
        match dst {
            Home::Machine(dst) => {
                let value = match from {
                    Home::Machine(src) => Some(src),
                    _ => self.held(from, here.point),
                };
                match value {
                    Some(src) if src == dst => {}
                    Some(src) => self.out.push((mov(dst, src), here.at)),
                    None => self.load(from, dst, here.at),
                }
                if !matches!(from, Home::Machine(_)) {
                    self.hold(from, dst, here.point);
                }
            }
            Home::Slot(slot) => {
                let reg = self.fetch(src, false, &mut here);
                self.store(slot, reg, here.at);
                self.hold(dst, reg, here.point - 1);
            }
            Home::Constant(_) => {}
        }
    }

    /// The register of the machine that has the value before this instruction, which may write to it.
    fn fetch(&mut self, reg: R, is_written: bool, here: &mut Here) -> R {
        let home = self.home(reg);
        if let Home::Machine(reg) = home {
            return reg;
        }
        let point = here.point;
        if let Some(reg) = self.held(home, point)
            && !(is_written && self.placed.machine[reg as usize].span().is_live_at(point))
        {
            here.taken |= 1 << reg;
            return reg;
        }
        let reg = self.free(here, (point - 1, point + u32::from(is_written)));
        self.load(home, reg, here.at);
        self.hold(home, reg, point - 1);
        reg
    }

    /// A register that is free for a moment; better one whose value nobody may want again.
    fn free(&mut self, here: &mut Here, moment: Interval) -> R {
        let is_taken = |reg: R| here.taken & 1 << reg != 0;
        let reserved = self.placed.reserved.iter();
        let mut reserved = reserved.filter(|(at, reg)| *at == moment && !is_taken(*reg));
        let is_held = |reg: &R| self.held.iter().any(|held| held.reg == *reg);
        let is_free = |reg: &R| {
            let span = self.placed.machine[*reg as usize].span();
            !is_taken(*reg) && !(moment.0..moment.1).any(|point| span.is_live_at(point))
        };
        let mut free = (0..COLOURS).filter(is_free);
        let found = reserved
            .next()
            .map(|(_, reg)| *reg)
            .or_else(|| free.clone().find(|reg| !is_held(reg)))
            .or_else(|| free.next());
        let Some(reg) = found else {
            self.crowded.push(moment);
            return 0;
        };
        here.taken |= 1 << reg;
        self.held.retain(|held| held.reg != reg);
        reg
    }

    /// The register that has had the value of a home up to here.
    fn held(&self, home: Home, point: u32) -> Option<R> {
        let is_unwritten = |held: &&Held| {
            let machine = self.placed.machine[held.reg as usize].span();
            !machine.is_written_between(held.since, point)
        };
        let mut all = self.held.iter().rev().filter(|held| held.home == home);
        all.find(is_unwritten).map(|held| held.reg)
    }

    fn hold(&mut self, home: Home, reg: R, since: u32) {
        self.held.retain(|held| held.home != home);
        self.held.push(Held { home, reg, since });
    }

    fn load(&mut self, home: Home, to: R, at: At) {
        let code = match home {
            Home::Machine(src) => mov(to, src),
            Home::Slot(slot) => Code::Load {
                size: Size::DW,
                dst: to,
                base: Place::Slot(self.buffers + slot),
                offset: 0,
            },
            Home::Constant(number) => {
                let mut code = self.placed.constants[number];
                code.map(|_| to);
                code
            }
        };
        self.out.push((code, at));
    }

    fn store(&mut self, slot: usize, src: R, at: At) {
        let code = Code::Store {
            size: Size::DW,
            base: Place::Slot(self.buffers + slot),
            offset: 0,
            src: Src::Reg(src),
        };
        self.out.push((code, at));
    }
}

fn mov(dst: R, src: R) -> Code {
    Code::Alu {
        width: Width::W64,
        op: AluOp::Mov,
        dst,
        src: Src::Reg(src),
    }
}
