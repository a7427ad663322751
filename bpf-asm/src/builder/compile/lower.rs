//! From the intermediate form to two-address code: constants become immediates where they fit, calls and atomics get
//! the registers that they insist on.

use super::super::ir::{
    Arg, At, Base, Block, BlockId, Body, Callee as IrCallee, Op, Operand, Reg, Terminator,
};
use super::code::{Callee, Code, CodeBlock, End, Place, R, Src, VIRTUAL, fetches};
use super::records::targets;
use crate::insn::{AluOp, AtomicOp, JumpOp, Width};
use crate::target::Feature;

/// What is being lowered.
pub(super) struct Lowered {
    pub(super) blocks: Vec<CodeBlock>,
    pub(super) order: Vec<BlockId>,
    /// How many registers there are, the machine's included.
    pub(super) registers: usize,
}

struct Lowering {
    registers: usize,
    uses: Vec<u32>,
    code: Vec<(Code, At)>,
    at: At,
    /// Whether there is an instruction for that.
    sign_extends: bool,
}

/// The blocks that can be reached, in the order in which they were begun, cold ones last.
pub(super) fn reachable(blocks: &[Block], begun: &[BlockId]) -> Vec<BlockId> {
    let mut reached = vec![false; blocks.len()];
    let mut next: Vec<BlockId> = begun.first().copied().into_iter().collect();
    while let Some(block) = next.pop() {
        if !std::mem::replace(&mut reached[block], true) {
            next.extend(targets(&blocks[block]));
        }
    }
    let parts = |cold| {
        begun
            .iter()
            .copied()
            .filter(move |&block| blocks[block].cold == cold)
    };
    let entry = begun.first().copied();
    let rest = parts(false)
        .chain(parts(true))
        .filter(|block| Some(*block) != entry && reached[*block]);
    entry.into_iter().chain(rest).collect()
}

pub(super) fn lower(body: &Body, blocks: &[Block], order: Vec<BlockId>) -> Lowered {
    let virtual_registers = body.state.borrow().regs.len();
    let at = std::panic::Location::caller();
    let mut lowering = Lowering {
        registers: VIRTUAL as usize + virtual_registers,
        uses: vec![0; virtual_registers],
        code: Vec::new(),
        at,
        sign_extends: body.session.borrow().target.has(Feature::SignExtendingMove),
    };
    lowering.count_uses(blocks, &order);
    let mut lowered = Vec::with_capacity(blocks.len());
    for (number, block) in blocks.iter().enumerate() {
        lowering.at = block
            .ops
            .first()
            .map(|op| op.1)
            .or(block.end.as_ref().map(|end| end.1))
            .unwrap_or(at);
        if order.first() == Some(&number) {
            for (argument, register) in (1..).zip(&body.arguments) {
                lowering.copy(VIRTUAL + register, argument);
            }
        }
        for (op, at) in &block.ops {
            lowering.at = at;
            lowering.op(op);
        }
        let end = match &block.end {
            Some((end, at)) => {
                lowering.at = at;
                lowering.end(end)
            }
            None => End::Exit, // nothing reaches it
        };
        let depth = i32::try_from(block.depth.min(6)).unwrap_or(6);
        let weight = 10f64.powi(depth) * if block.cold { 0.01 } else { 1.0 };
        let code = std::mem::take(&mut lowering.code);
        lowered.push(CodeBlock {
            code,
            end: (end, lowering.at),
            weight,
        });
    }
    Lowered {
        blocks: lowered,
        order,
        registers: lowering.registers,
    }
}

impl Lowering {
    fn count_uses(&mut self, blocks: &[Block], order: &[BlockId]) {
        let uses = &mut self.uses;
        let mut count = |operand: &Operand| {
            if let Operand::Reg(reg) = operand {
                uses[*reg as usize] += 1;
            }
        };
        for &block in order {
            for (op, _) in &blocks[block].ops {
                match op {
                    Op::Alu { a, b, .. } => [a, b].into_iter().for_each(&mut count),
                    Op::Copy { src, .. } | Op::Store { src, .. } => count(src),
                    Op::Endian { src, .. } | Op::SignExtend { src, .. } => {
                        count(&Operand::Reg(*src))
                    }
                    Op::Atomic { src, .. } => count(src),
                    Op::Address {
                        base: Base::Reg(base),
                        ..
                    }
                    | Op::Load {
                        base: Base::Reg(base),
                        ..
                    } => {
                        count(&Operand::Reg(*base));
                    }
                    Op::Call { args, .. } => {
                        for arg in args {
                            if let Arg::Value(operand) = arg {
                                count(operand);
                            }
                        }
                    }
                    _ => {}
                }
            }
            if let Some((Terminator::Branch { a, b, .. }, _)) = &blocks[block].end {
                [a, b].into_iter().for_each(&mut count);
            }
        }
    }

    fn push(&mut self, code: Code) {
        self.code.push((code, self.at));
    }

    fn temporary(&mut self) -> R {
        self.registers += 1;
        R::try_from(self.registers - 1).unwrap_or(R::MAX - 1)
    }

    fn copy(&mut self, dst: R, src: R) {
        self.push(Code::Alu {
            width: Width::W64,
            op: AluOp::Mov,
            dst,
            src: Src::Reg(src),
        });
    }

    /// Puts a constant into a register.
    fn constant(&mut self, dst: R, value: u64) {
        let code = if let Ok(imm) = i32::try_from(value.cast_signed()) {
            Code::Alu {
                width: Width::W64,
                op: AluOp::Mov,
                dst,
                src: Src::Imm(imm),
            }
        } else if let Ok(imm) = u32::try_from(value) {
            Code::Alu {
                width: Width::W32,
                op: AluOp::Mov,
                dst,
                src: Src::Imm(imm.cast_signed()),
            }
        } else {
            Code::Imm64 { dst, value }
        };
        self.push(code);
    }

    fn move_to(&mut self, dst: R, operand: Operand) {
        match operand {
            Operand::Reg(src) => self.copy(dst, VIRTUAL + src),
            Operand::Const(value) => self.constant(dst, value),
        }
    }

    fn register(&mut self, operand: Operand) -> R {
        match operand {
            Operand::Reg(reg) => VIRTUAL + reg,
            Operand::Const(value) => {
                let dst = self.temporary();
                self.constant(dst, value);
                dst
            }
        }
    }

    /// An immediate if it fits, else a register.
    fn source(&mut self, width: Width, operand: Operand) -> Src {
        match operand {
            Operand::Const(value) if width == Width::W32 => Src::Imm((value as u32).cast_signed()),
            Operand::Const(value) => match i32::try_from(value.cast_signed()) {
                Ok(imm) => Src::Imm(imm),
                Err(_) => Src::Reg(self.register(operand)),
            },
            Operand::Reg(reg) => Src::Reg(VIRTUAL + reg),
        }
    }

    /// The memory operand of a load or a store.
    fn place(&mut self, base: Base, offset: i32) -> (Place, i16) {
        // The typed layer split larger offsets off already.
        let short = i16::try_from(offset).unwrap_or(i16::MAX);
        match base {
            Base::Reg(reg) => (Place::Reg(VIRTUAL + reg), short),
            Base::Stack(slot) => (Place::Slot(slot), short),
        }
    }

    fn address(&mut self, dst: R, base: Base, offset: i32) {
        match base {
            Base::Stack(slot) => self.push(Code::Frame { dst, slot, offset }),
            Base::Reg(reg) => {
                self.copy(dst, VIRTUAL + reg);
                if offset != 0 {
                    self.push(Code::Alu {
                        width: Width::W64,
                        op: AluOp::Add,
                        dst,
                        src: Src::Imm(offset),
                    });
                }
            }
        }
    }

    fn is_last_use(&self, operand: Operand) -> bool {
        matches!(operand, Operand::Reg(reg) if self.uses[reg as usize] == 1)
    }

    fn op(&mut self, op: &Op) {
        match *op {
            Op::Alu {
                width: Width::W32,
                op: AluOp::Mov,
                dst,
                a,
                ..
            } => {
                let (src, dst) = (Src::Reg(self.register(a)), VIRTUAL + dst);
                self.push(Code::Alu {
                    width: Width::W32,
                    op: AluOp::Mov,
                    dst,
                    src,
                });
            }
            Op::Alu {
                width,
                op,
                dst,
                a,
                b,
            } => self.alu(width, op, dst, a, b),
            Op::Copy { dst, src } => self.move_to(VIRTUAL + dst, src),
            Op::Endian {
                kind,
                bits,
                dst,
                src,
            } => {
                self.copy(VIRTUAL + dst, VIRTUAL + src);
                self.push(Code::Endian {
                    kind,
                    bits,
                    dst: VIRTUAL + dst,
                });
            }
            Op::Load {
                size,
                dst,
                base,
                offset,
            } => {
                let (base, offset) = self.place(base, offset);
                self.push(Code::Load {
                    size,
                    dst: VIRTUAL + dst,
                    base,
                    offset,
                });
            }
            Op::Store {
                size,
                base,
                offset,
                src,
            } => {
                let (base, offset) = self.place(base, offset);
                let width = if size.bytes() == 8 {
                    Width::W64
                } else {
                    Width::W32
                };
                let src = self.source(width, src);
                self.push(Code::Store {
                    size,
                    base,
                    offset,
                    src,
                });
            }
            Op::Atomic {
                size,
                op,
                base,
                offset,
                src,
                expected,
                dst,
            } => {
                let (base, offset) = self.place(base, offset);
                let mut src = self.register(src);
                if fetches(op) {
                    let old = self.temporary();
                    self.copy(old, src);
                    src = old;
                }
                if let Some(expected) = expected {
                    self.move_to(0, expected);
                }
                self.push(Code::Atomic {
                    size,
                    op,
                    base,
                    offset,
                    src,
                });
                if let Some(dst) = dst {
                    self.copy(
                        VIRTUAL + dst,
                        if op == AtomicOp::CompareExchange {
                            0
                        } else {
                            src
                        },
                    );
                }
            }
            Op::SignExtend {
                width,
                bits,
                dst,
                src,
            } => self.sign_extend(width, bits, VIRTUAL + dst, VIRTUAL + src),
            Op::Address { dst, base, offset } => self.address(VIRTUAL + dst, base, offset),
            Op::Global { dst, map, offset } => self.push(Code::MapValue {
                dst: VIRTUAL + dst,
                map,
                offset,
            }),
            Op::Call {
                ref callee,
                ref args,
                dst,
            } => {
                // What lives in registers goes first: the rest needs none to come from.
                let in_register = |arg: &Arg| {
                    matches!(
                        arg,
                        Arg::Value(Operand::Reg(_)) | Arg::Address(Base::Reg(_), _)
                    )
                };
                for first in [true, false] {
                    for (register, arg) in
                        (1..).zip(args).filter(|(_, arg)| in_register(arg) == first)
                    {
                        match *arg {
                            Arg::Value(operand) => self.move_to(register, operand),
                            Arg::Map(map) => self.push(Code::Map { dst: register, map }),
                            Arg::Address(base, offset) => self.address(register, base, offset),
                            Arg::Function(number) => self.push(Code::Function {
                                dst: register,
                                number,
                            }),
                        }
                    }
                }
                let callee = match *callee {
                    IrCallee::Helper(number) => Callee::Helper(number),
                    IrCallee::Subprogram(number) => Callee::Subprogram(number),
                };
                self.push(Code::Call {
                    callee,
                    arguments: args.len() as u32,
                });
                if let Some(dst) = dst {
                    self.copy(VIRTUAL + dst, 0);
                }
            }
            Op::OpenRecord(_) | Op::CloseRecord(_) => {}
        }
    }

    fn sign_extend(&mut self, width: Width, bits: u8, dst: R, src: R) {
        if self.sign_extends {
            return self.push(Code::SignExtend {
                width,
                bits,
                dst,
                src,
            });
        }
        let register = if width == Width::W64 { 64 } else { 32 };
        let by = Src::Imm(register - i32::from(bits));
        self.copy(dst, src);
        for op in [AluOp::Lsh, AluOp::Arsh] {
            let src = by;
            self.push(Code::Alu {
                width,
                op,
                dst,
                src,
            });
        }
    }

    fn alu(&mut self, width: Width, op: AluOp, dst: Reg, a: Operand, b: Operand) {
        let commutes = matches!(
            op,
            AluOp::Add | AluOp::Mul | AluOp::And | AluOp::Or | AluOp::Xor
        );
        let (a, b) =
            if commutes && self.is_last_use(b) && !self.is_last_use(a) && a != Operand::Reg(dst) {
                (b, a)
            } else {
                (a, b)
            };
        // A variable that is its own second operand needs a copy, since the first is moved over it.
        let mut src = self.source(width, b);
        let dst = VIRTUAL + dst;
        if src == Src::Reg(dst) && a != b {
            let kept = self.temporary();
            self.copy(kept, dst);
            src = Src::Reg(kept);
        }
        self.move_to(dst, a);
        self.push(Code::Alu {
            width,
            op,
            dst,
            src,
        });
    }

    fn end(&mut self, end: &Terminator) -> End {
        match *end {
            Terminator::Jump(to) => End::Jump(to),
            Terminator::Branch {
                then, otherwise, ..
            } if then == otherwise => End::Jump(then),
            Terminator::Branch {
                width,
                op,
                a,
                b,
                then,
                otherwise,
            } => {
                let a = self.register(a);
                let b = self.source(width, b);
                End::Branch {
                    width,
                    op,
                    a,
                    b,
                    then,
                    otherwise,
                }
            }
            Terminator::MayGoto { out, go_on } => End::MayGoto { out, go_on },
            Terminator::Return(value) => {
                self.move_to(0, value);
                End::Exit
            }
        }
    }
}

/// The comparison that holds where `op` doesn't, if there is one.
pub(super) const fn inverse(op: JumpOp) -> Option<JumpOp> {
    Some(match op {
        JumpOp::Eq => JumpOp::Ne,
        JumpOp::Ne => JumpOp::Eq,
        JumpOp::Gt => JumpOp::Le,
        JumpOp::Ge => JumpOp::Lt,
        JumpOp::Lt => JumpOp::Ge,
        JumpOp::Le => JumpOp::Gt,
        JumpOp::SGt => JumpOp::SLe,
        JumpOp::SGe => JumpOp::SLt,
        JumpOp::SLt => JumpOp::SGe,
        JumpOp::SLe => JumpOp::SGt,
        JumpOp::Set => return None,
    })
}
