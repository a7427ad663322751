//! Layout: blocks in a row, jumps as offsets, the frame's objects as distances from r10.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use super::super::error::BuildErrorKind;
use super::super::ir::{At, BlockId, Body};
use super::code::{Callee, Code, CodeBlock, End, Place, R, Src};
use super::lower::inverse;
use super::mixed::{BuildMixed, Mixed};
use crate::insn::{AluOp, Imm64, Insn, Reg, Source, Width};
use crate::program::{Function, Relocation, Target};

/// Joins blocks that do the same, and goes past those that do nothing.
pub(super) fn tidy(blocks: &mut [CodeBlock], order: &mut Vec<BlockId>) {
    // Blocks whose code differs differ in this, mostly.
    let fingerprint = |block: &CodeBlock| {
        let mut mixed = Mixed::default();
        let code = block.code.iter();
        code.for_each(|(code, _)| code.hash(&mut mixed));
        mixed.finish()
    };
    let fingerprints: Vec<u64> = blocks.iter().map(fingerprint).collect();
    loop {
        let mut same: HashMap<(u64, End), BlockId, BuildMixed> = HashMap::default();
        let mut instead: Vec<BlockId> = (0..blocks.len()).collect();
        for (place, &block) in order.iter().enumerate() {
            let end = blocks[block].end.0;
            let code = |block: BlockId| blocks[block].code.iter().map(|(code, _)| code);
            match end {
                End::Jump(to) if blocks[block].code.is_empty() && to != block => {
                    instead[block] = to;
                }
                // The entry stays where it is.
                _ if place > 0 => {
                    let first = *same.entry((fingerprints[block], end)).or_insert(block);
                    if first != block && code(first).eq(code(block)) {
                        instead[block] = first;
                    }
                }
                _ => {}
            }
        }
        let resolve = |mut block: BlockId| {
            // A circle of empty blocks is an endless loop, which stays one.
            for _ in 0..instead.len() {
                if instead[block] == block {
                    break;
                }
                block = instead[block];
            }
            block
        };
        let mut changed = false;
        for &block in order.iter() {
            let mut end = blocks[block].end.0;
            end.map_targets(resolve);
            if let End::Branch {
                then, otherwise, ..
            } = end
                && then == otherwise
            {
                end = End::Jump(then);
            }
            changed |= end != blocks[block].end.0;
            blocks[block].end.0 = end;
        }
        let mut reached = vec![false; blocks.len()];
        let mut next: Vec<BlockId> = order.first().copied().into_iter().collect();
        while let Some(block) = next.pop() {
            if !std::mem::replace(&mut reached[block], true) {
                next.extend(blocks[block].end.0.targets());
            }
        }
        order.retain(|&block| reached[block]);
        if !changed {
            return;
        }
    }
}

/// The distance from r10 of each object of the frame, and the size of it all; objects are 8-byte aligned.
pub(super) fn frame(sizes: impl Iterator<Item = u32>) -> (Vec<i32>, u32) {
    let mut bytes = 0u32;
    let mut offsets = Vec::new();
    for size in sizes {
        bytes = bytes
            .saturating_add(size.max(1))
            .checked_next_multiple_of(8)
            .unwrap_or(u32::MAX);
        offsets.push(i32::try_from(bytes).map_or(i32::MIN, |bytes| -bytes));
    }
    (offsets, bytes)
}

struct Emitter<'a> {
    body: &'a Body,
    frame: &'a [i32],
    insns: Vec<Insn>,
    lines: Vec<At>,
    relocations: Vec<Relocation>,
    slots: usize,
    /// Jumps whose offset is still open: instruction, the slot behind it, target.
    open: Vec<(usize, usize, BlockId)>,
}

/// Writes the blocks in this order.
pub(super) fn emit(
    body: &Body,
    name: &str,
    blocks: &[CodeBlock],
    order: &[BlockId],
    frame: &[i32],
) -> Function {
    let (insns, lines, relocations, open) = Default::default();
    let mut emitter = Emitter {
        body,
        frame,
        insns,
        lines,
        relocations,
        slots: 0,
        open,
    };
    let mut starts = vec![0; blocks.len()];
    for (place, &number) in order.iter().enumerate() {
        starts[number] = emitter.slots;
        let block = &blocks[number];
        for (code, at) in &block.code {
            emitter.code(code, at);
        }
        let next = order.get(place + 1).copied();
        let mut end = block.end.0;
        // A jump to a lone comparison becomes that comparison: loops test at their end.
        if let End::Jump(to) = end
            && next != Some(to)
            && blocks[to].code.is_empty()
        {
            end = blocks[to].end.0;
        }
        emitter.end(end, next, block.end.1);
    }
    emitter.close(&starts);
    let lines = emitter.lines.iter().map(|&at| at.into()).collect();
    let (insns, relocations) = (emitter.insns, emitter.relocations);
    Function {
        name: name.to_owned(),
        arguments: body.arguments.len(),
        insns,
        lines,
        relocations,
    }
}

fn register(reg: R) -> Reg {
    u8::try_from(reg)
        .ok()
        .and_then(Reg::new)
        .unwrap_or(Reg::R10)
}

fn source(src: Src) -> Source {
    match src {
        Src::Reg(reg) => Source::Reg(register(reg)),
        Src::Imm(imm) => Source::Imm(imm),
    }
}

impl Emitter<'_> {
    fn push(&mut self, insn: Insn, at: At) {
        self.slots += insn.slots();
        self.insns.push(insn);
        self.lines.push(at);
    }

    fn place(&self, base: Place, offset: i16) -> (Reg, i16) {
        match base {
            Place::Reg(reg) => (register(reg), offset),
            // Frames over 512 bytes were refused before.
            Place::Slot(slot) => (
                Reg::R10,
                i16::try_from(self.frame[slot] + i32::from(offset)).unwrap_or(i16::MIN),
            ),
        }
    }

    fn code(&mut self, code: &Code, at: At) {
        let insn = match *code {
            Code::Alu {
                width,
                op,
                dst,
                src,
            } => Insn::Alu {
                width,
                op,
                dst: register(dst),
                src: source(src),
            },
            Code::Endian { kind, bits, dst } => Insn::Endian {
                kind,
                bits,
                dst: register(dst),
            },
            Code::Load {
                size,
                dst,
                base,
                offset,
            } => {
                let (base, offset) = self.place(base, offset);
                Insn::Load {
                    size,
                    signed: false,
                    dst: register(dst),
                    base,
                    offset,
                }
            }
            Code::Store {
                size,
                base,
                offset,
                src,
            } => {
                let (base, offset) = self.place(base, offset);
                Insn::Store {
                    size,
                    base,
                    offset,
                    src: source(src),
                }
            }
            Code::Atomic {
                size,
                op,
                base,
                offset,
                src,
            } => {
                let (base, offset) = self.place(base, offset);
                Insn::Atomic {
                    size,
                    op,
                    base,
                    offset,
                    src: register(src),
                }
            }
            Code::Imm64 { dst, value } => Insn::LoadImm64 {
                dst: register(dst),
                value: Imm64::Value(value),
            },
            Code::Map { dst, map } => {
                let name = self.body.session.borrow().maps[map].name.clone();
                self.relocations.push(Relocation {
                    at: self.insns.len(),
                    target: Target::Map(name),
                });
                Insn::LoadImm64 {
                    dst: register(dst),
                    value: Imm64::Map,
                }
            }
            Code::SignExtend {
                width,
                bits,
                dst,
                src,
            } => Insn::MovSx {
                width,
                bits,
                dst: register(dst),
                src: register(src),
            },
            Code::MapValue { dst, map, offset } => {
                let name = self.body.session.borrow().maps[map].name.clone();
                self.relocations.push(Relocation {
                    at: self.insns.len(),
                    target: Target::Map(name),
                });
                Insn::LoadImm64 {
                    dst: register(dst),
                    value: Imm64::MapValue { fd: 0, offset },
                }
            }
            Code::Function { dst, number } => {
                let name = self.body.session.borrow().subprograms[number].name.clone();
                self.relocations.push(Relocation {
                    at: self.insns.len(),
                    target: Target::Subprogram(name),
                });
                Insn::LoadImm64 {
                    dst: register(dst),
                    value: Imm64::Function { offset: -1 },
                }
            }
            Code::Frame { dst, slot, offset } => {
                let (width, dst) = (Width::W64, register(dst));
                self.push(
                    Insn::Alu {
                        width,
                        op: AluOp::Mov,
                        dst,
                        src: Reg::R10.into(),
                    },
                    at,
                );
                Insn::Alu {
                    width,
                    op: AluOp::Add,
                    dst,
                    src: (self.frame[slot] + offset).into(),
                }
            }
            Code::Call {
                callee: Callee::Helper(helper),
                ..
            } => Insn::Call { helper },
            Code::Call {
                callee: Callee::Subprogram(number),
                ..
            } => {
                let name = self.body.session.borrow().subprograms[number].name.clone();
                self.relocations.push(Relocation {
                    at: self.insns.len(),
                    target: Target::Subprogram(name),
                });
                Insn::CallLocal { offset: -1 }
            }
        };
        self.push(insn, at);
    }

    fn end(&mut self, end: End, next: Option<BlockId>, at: At) {
        match end {
            End::Exit => self.push(Insn::Exit, at),
            End::Jump(to) if next == Some(to) => {}
            End::Jump(to) => self.jump(Insn::Goto { offset: 0 }, to, at),
            End::MayGoto { out, go_on } => {
                self.jump(Insn::MayGoto { offset: 0 }, out, at);
                if next != Some(go_on) {
                    self.jump(Insn::Goto { offset: 0 }, go_on, at);
                }
            }
            End::Branch {
                width,
                op,
                a,
                b,
                then,
                otherwise,
            } => {
                let (dst, src, offset) = (register(a), source(b), 0);
                match inverse(op) {
                    Some(op) if next == Some(then) => {
                        self.jump(
                            Insn::Jump {
                                width,
                                op,
                                dst,
                                src,
                                offset,
                            },
                            otherwise,
                            at,
                        );
                    }
                    _ => {
                        self.jump(
                            Insn::Jump {
                                width,
                                op,
                                dst,
                                src,
                                offset,
                            },
                            then,
                            at,
                        );
                        if next != Some(otherwise) {
                            self.jump(Insn::Goto { offset: 0 }, otherwise, at);
                        }
                    }
                }
            }
        }
    }

    fn jump(&mut self, insn: Insn, to: BlockId, at: At) {
        self.open.push((self.insns.len(), self.slots + 1, to));
        self.push(insn, at);
    }

    fn close(&mut self, starts: &[usize]) {
        for (insn, behind, to) in std::mem::take(&mut self.open) {
            let distance = i16::try_from(starts[to] as i64 - behind as i64);
            match (&mut self.insns[insn], distance) {
                (
                    Insn::Jump { offset, .. } | Insn::Goto { offset } | Insn::MayGoto { offset },
                    Ok(distance),
                ) => *offset = distance,
                _ => self
                    .body
                    .fail_at(BuildErrorKind::JumpTooFar, self.lines[insn]),
            }
        }
    }
}
