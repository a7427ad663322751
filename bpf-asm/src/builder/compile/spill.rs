//! Values that find no register: kept in 8-byte slots of the frame, constants computed anew.
//!
//! Each has a slot of its own, since the verifier takes a slot that holds a pointer on one path and a number on
//! another for neither. Whole registers are stored, so that it still knows pointers and bounds when they come back.

use std::collections::HashMap;

use super::super::ir::{At, BlockId};
use super::code::{Code, CodeBlock, Place, R, Src, VIRTUAL};
use super::graph::Alias;
use crate::insn::Size;

/// What becomes of a value without a register.
#[derive(Clone, Copy)]
enum Home {
    Slot(usize),
    Constant(Code),
}

/// Remembers what was spilled, over all rounds.
pub(super) struct Spiller {
    /// For each virtual register, whether it only carries a spilled value to or from one instruction.
    short: Vec<bool>,
    first_slot: usize,
    next_slot: usize,
}

impl Spiller {
    pub(super) fn new(first_slot: usize, registers: usize) -> Spiller {
        Spiller {
            short: vec![false; registers],
            first_slot,
            next_slot: first_slot,
        }
    }

    pub(super) fn registers(&self) -> usize {
        VIRTUAL as usize + self.short.len()
    }

    pub(super) fn slots(&self) -> usize {
        self.next_slot - self.first_slot
    }

    pub(super) fn is_short(&self, reg: R) -> bool {
        self.short[(reg - VIRTUAL) as usize]
    }

    /// A register that stands for others now is short if all of them are.
    pub(super) fn merge(&mut self, alias: &Alias) {
        for at in 0..self.short.len() {
            let kept = alias.find(VIRTUAL + at as R);
            if kept >= VIRTUAL && !self.short[at] {
                self.short[(kept - VIRTUAL) as usize] = false;
            }
        }
    }

    fn short_register(&mut self) -> R {
        self.short.push(true);
        VIRTUAL + (self.short.len() - 1) as R
    }

    /// Rewrites the code such that these registers don't occur in it.
    pub(super) fn spill(&mut self, blocks: &mut [CodeBlock], order: &[BlockId], registers: &[R]) {
        let constants = constants(blocks, order, self.registers());
        let mut homes = HashMap::new();
        for &reg in registers {
            let home = match constants[reg as usize] {
                Some(code) => Home::Constant(code),
                None => {
                    self.next_slot += 1;
                    Home::Slot(self.next_slot - 1)
                }
            };
            homes.insert(reg, home);
        }
        for &block in order {
            let block = &mut blocks[block];
            let mut out = Vec::with_capacity(block.code.len());
            for (code, at) in std::mem::take(&mut block.code) {
                self.rewrite(code, at, &homes, &mut out);
            }
            let at = block.end.1;
            let mut loaded = HashMap::new();
            let mut end = block.end.0;
            end.map(|reg| self.fetch(reg, at, &homes, &mut loaded, &mut out));
            block.end.0 = end;
            block.code = out;
        }
    }

    fn rewrite(
        &mut self,
        mut code: Code,
        at: At,
        homes: &HashMap<R, Home>,
        out: &mut Vec<(Code, At)>,
    ) {
        let written = code.def().and_then(|dst| Some((dst, *homes.get(&dst)?)));
        match (code.as_copy(), written) {
            (_, Some((_, Home::Constant(_)))) => return,
            (Some((_, src)), Some((_, Home::Slot(slot)))) => {
                let src = self.fetch(src, at, homes, &mut HashMap::new(), out);
                return out.push((store(slot, src), at));
            }
            (Some((dst, src)), None) if homes.contains_key(&src) => {
                return out.push((load(homes[&src], dst), at));
            }
            _ => {}
        }
        let mut loaded = HashMap::new();
        code.map_uses(|reg| self.fetch(reg, at, homes, &mut loaded, out));
        match written {
            Some((dst, Home::Slot(slot))) => {
                let value = loaded
                    .get(&dst)
                    .copied()
                    .unwrap_or_else(|| self.short_register());
                code.map(|reg| if reg == dst { value } else { reg });
                out.push((code, at));
                out.push((store(slot, value), at));
            }
            _ => out.push((code, at)),
        }
    }

    /// The register that stands for `reg` in one instruction.
    fn fetch(
        &mut self,
        reg: R,
        at: At,
        homes: &HashMap<R, Home>,
        loaded: &mut HashMap<R, R>,
        out: &mut Vec<(Code, At)>,
    ) -> R {
        let Some(&home) = homes.get(&reg) else {
            return reg;
        };
        *loaded.entry(reg).or_insert_with(|| {
            let temporary = self.short_register();
            out.push((load(home, temporary), at));
            temporary
        })
    }
}

fn load(home: Home, to: R) -> Code {
    match home {
        Home::Slot(slot) => Code::Load {
            size: Size::DW,
            dst: to,
            base: Place::Slot(slot),
            offset: 0,
        },
        Home::Constant(mut code) => {
            code.map(|_| to);
            code
        }
    }
}

fn store(slot: usize, src: R) -> Code {
    Code::Store {
        size: Size::DW,
        base: Place::Slot(slot),
        offset: 0,
        src: Src::Reg(src),
    }
}

/// By register: what writes it, if that is in one place and reads nothing, so that it can be computed anywhere.
pub(super) fn constants(
    blocks: &[CodeBlock],
    order: &[BlockId],
    registers: usize,
) -> Vec<Option<Code>> {
    let mut writers: Vec<Option<Code>> = vec![None; registers];
    let mut written = vec![false; registers];
    for (code, _) in order.iter().flat_map(|&block| &blocks[block].code) {
        if let Some(dst) = code.def() {
            let first = !std::mem::replace(&mut written[dst as usize], true);
            writers[dst as usize] = (first && code.is_constant()).then_some(*code);
        }
    }
    writers
}
