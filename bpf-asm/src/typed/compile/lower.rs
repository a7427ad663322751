//! Instructions, with every register known.

use super::super::error::{BuildError, BuildErrorKind};
use super::super::ir::{Arg, At, Base, BlockId, Callee, Op, Operand, Reg, Session, Terminator};
use super::Code;
use super::allocate::Assignment;
use super::constrain::{commutes, fits};
use crate::asm::{Assembler, Label};
use crate::insn::{AluOp, AtomicOp, Imm64, Insn, Reg as Machine, Size, Source, Width};
use crate::program::Function;

/// Where the stack buffers lie.
#[derive(Debug)]
pub(super) struct Frame {
    offsets: Vec<i32>,
    bytes: u32,
}

impl Frame {
    pub(super) fn new(buffers: &[(u32, At)]) -> Frame {
        let mut bytes = 0u32;
        let offsets = buffers
            .iter()
            .map(|(size, _)| {
                bytes = bytes.saturating_add(size.saturating_add(7) & !7);
                -i32::try_from(bytes).unwrap_or(i32::MAX)
            })
            .collect();
        Frame { offsets, bytes }
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u32 {
        self.bytes
    }
}

struct Lowering<'c> {
    assembler: Assembler,
    assignment: &'c Assignment,
    frame: &'c Frame,
    session: &'c Session,
    labels: Vec<Label>,
}

pub(super) fn lower(
    code: &Code,
    assignment: &Assignment,
    frame: &Frame,
    name: &str,
    session: &Session,
) -> Result<Function, BuildError> {
    let mut assembler = Assembler::new(name);
    assembler.arguments(code.arguments.len());
    let labels = code.blocks.iter().map(|_| assembler.label()).collect();
    let mut lowering = Lowering { assembler, assignment, frame, session, labels };
    let first = code.blocks[0].ops.first().map_or(code.blocks[0].end_at, |(_, at)| at);
    lowering.assembler.at(first.into());
    for (number, argument) in code.arguments.iter().enumerate() {
        if let Some(to) = assignment[*argument as usize] {
            lowering.mov(Machine::new(to).expect("r0 to r9"), Machine::new(number as u8 + 1).expect("r1 to r5"));
        }
    }
    for (number, block) in code.blocks.iter().enumerate() {
        let label = lowering.labels[number];
        lowering.assembler.bind(label);
        for (op, at) in &block.ops {
            lowering.assembler.at((*at).into());
            lowering.op(op);
        }
        lowering.assembler.at(block.end_at.into());
        lowering.end(&block.end, number + 1);
    }
    lowering.assembler.finish().map_err(|error| BuildError { kind: BuildErrorKind::JumpTooFar, line: error.at })
}

impl Lowering<'_> {
    fn reg(&self, reg: Reg) -> Machine {
        let number = self.assignment[reg as usize].expect("what is used has a register");
        Machine::new(number).expect("r0 to r9")
    }

    fn source(&self, operand: Operand) -> Source {
        match operand {
            Operand::Reg(reg) => Source::Reg(self.reg(reg)),
            Operand::Const(value) => Source::Imm(value as i32),
        }
    }

    fn emit(&mut self, insn: Insn) {
        self.assembler.emit(insn);
    }

    fn alu(&mut self, width: Width, op: AluOp, dst: Machine, src: Source) {
        self.emit(Insn::Alu { width, op, dst, src });
    }

    fn mov(&mut self, dst: Machine, src: Machine) {
        if dst != src {
            self.alu(Width::W64, AluOp::Mov, dst, Source::Reg(src));
        }
    }

    fn constant(&mut self, dst: Machine, value: u64) {
        if fits(Width::W64, value) {
            self.alu(Width::W64, AluOp::Mov, dst, Source::Imm(value as i32));
        } else if let Ok(low) = u32::try_from(value) {
            self.alu(Width::W32, AluOp::Mov, dst, Source::Imm(low.cast_signed()));
        } else {
            self.emit(Insn::LoadImm64 { dst, value: Imm64::Value(value) });
        }
    }

    fn set(&mut self, dst: Machine, operand: Operand) {
        match operand {
            Operand::Reg(reg) => {
                let src = self.reg(reg);
                self.mov(dst, src);
            }
            Operand::Const(value) => self.constant(dst, value),
        }
    }

    fn place(&self, base: Base, offset: i32) -> (Machine, i32) {
        match base {
            Base::Reg(reg) => (self.reg(reg), offset),
            Base::Stack(buffer) => (Machine::R10, self.frame.offsets[buffer] + offset),
        }
    }

    /// A place whose offset is in an instruction: the front end keeps offsets from registers within 16 bits, the stack has 512 bytes.
    fn near(&self, base: Base, offset: i32) -> (Machine, i16) {
        let (base, offset) = self.place(base, offset);
        (base, i16::try_from(offset).expect("within reach"))
    }

    fn address(&mut self, dst: Machine, base: Base, offset: i32) {
        let (base, offset) = self.place(base, offset);
        self.mov(dst, base);
        if offset != 0 {
            self.alu(Width::W64, AluOp::Add, dst, Source::Imm(offset));
        }
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::Alu { width, op: AluOp::Mov, dst, a, .. } => {
                let (dst, src) = (self.reg(*dst), self.source(*a));
                self.alu(*width, AluOp::Mov, dst, src);
            }
            Op::Alu { width, op, dst, a, b } => self.binary(*width, *op, *dst, *a, *b),
            Op::Copy { dst, src } => {
                let dst = self.reg(*dst);
                self.set(dst, *src);
            }
            Op::Endian { kind, bits, dst, src } => {
                let (dst, src) = (self.reg(*dst), self.reg(*src));
                self.mov(dst, src);
                self.emit(Insn::Endian { kind: *kind, bits: *bits, dst });
            }
            Op::Load { size, dst, base, offset } => {
                let (dst, (base, offset)) = (self.reg(*dst), self.near(*base, *offset));
                self.emit(Insn::Load { size: *size, signed: false, dst, base, offset });
            }
            Op::Store { size, base, offset, src } => {
                let ((base, offset), src) = (self.near(*base, *offset), self.source(*src));
                self.emit(Insn::Store { size: *size, base, offset, src });
            }
            Op::Atomic { size, op, base, offset, src, expected, dst } => {
                self.atomic(*size, *op, (*base, *offset), *src, *expected, *dst);
            }
            Op::Address { dst, base, offset } => {
                let dst = self.reg(*dst);
                self.address(dst, *base, *offset);
            }
            Op::Call { callee, args, dst } => self.call(callee, args, *dst),
            Op::OpenRecord(_) | Op::CloseRecord(_) => {}
        }
    }

    fn binary(&mut self, width: Width, op: AluOp, dst: Reg, a: Operand, b: Operand) {
        let to = self.reg(dst);
        let (mut first, mut second) = (a, self.source(b));
        if second == Source::Reg(to) && self.source_of(a) != Some(to) {
            // The result has the register of the right side: only possible where the sides can be swapped.
            debug_assert!(commutes(op), "constrained before");
            first = b;
            second = self.source(a);
        }
        self.set(to, first);
        self.alu(width, op, to, second);
    }

    fn source_of(&self, operand: Operand) -> Option<Machine> {
        match operand {
            Operand::Reg(reg) => Some(self.reg(reg)),
            Operand::Const(_) => None,
        }
    }

    fn atomic(
        &mut self,
        size: Size,
        op: AtomicOp,
        (base, offset): (Base, i32),
        src: Operand,
        expected: Option<Operand>,
        dst: Option<Reg>,
    ) {
        let (base, offset) = self.near(base, offset);
        let src = self.source_of(src).expect("constrained to a register");
        match (expected, dst.filter(|dst| self.assignment[*dst as usize].is_some())) {
            (Some(expected), dst) => {
                self.set(Machine::R0, expected);
                self.emit(Insn::Atomic { size, op, base, offset, src });
                if let Some(dst) = dst {
                    let dst = self.reg(dst);
                    self.mov(dst, Machine::R0);
                }
            }
            (None, Some(dst)) => {
                let dst = self.reg(dst);
                self.mov(dst, src);
                self.emit(Insn::Atomic { size, op, base, offset, src: dst });
            }
            (None, None) => self.emit(Insn::Atomic { size, op, base, offset, src }),
        }
    }

    fn call(&mut self, callee: &Callee, args: &[Arg], dst: Option<Reg>) {
        // First what comes from registers, all at once; then constants, which need none.
        let mut moves = Vec::new();
        let mut later = Vec::new();
        for (number, arg) in args.iter().enumerate() {
            let to = Machine::new(number as u8 + 1).expect("at most five arguments");
            match arg {
                Arg::Value(Operand::Reg(reg)) => moves.push((to, self.reg(*reg), 0)),
                Arg::Address(base, offset) => {
                    let (base, offset) = self.place(*base, *offset);
                    moves.push((to, base, offset));
                }
                Arg::Value(Operand::Const(_)) | Arg::Map(_) => later.push((to, arg)),
            }
        }
        self.parallel(moves);
        for (to, arg) in later {
            match arg {
                Arg::Value(Operand::Const(value)) => self.constant(to, *value),
                Arg::Map(map) => {
                    self.assembler.load_map(to, &self.session.maps[*map].name);
                }
                _ => unreachable!("moved above"),
            }
        }
        match callee {
            Callee::Helper(number) => self.emit(Insn::Call { helper: *number }),
            Callee::Subprogram(number) => {
                self.assembler.call_local(&self.session.subprograms[*number].name);
            }
        }
        if let Some(dst) = dst.filter(|dst| self.assignment[*dst as usize].is_some()) {
            let dst = self.reg(dst);
            self.mov(dst, Machine::R0);
        }
    }

    /// Moves `(to, from, plus)` as if all at once. r0 is free right before a call and breaks cycles.
    fn parallel(&mut self, mut moves: Vec<(Machine, Machine, i32)>) {
        moves.retain(|(to, from, plus)| to != from || *plus != 0);
        while !moves.is_empty() {
            let ready = moves.iter().position(|(to, ..)| {
                moves.iter().filter(|(_, from, _)| from == to).count()
                    == usize::from(moves.iter().any(|(other, from, _)| other == to && from == to))
            });
            match ready {
                Some(at) => {
                    let (to, from, plus) = moves.swap_remove(at);
                    self.mov(to, from);
                    if plus != 0 {
                        self.alu(Width::W64, AluOp::Add, to, Source::Imm(plus));
                    }
                }
                None => {
                    let parked = moves[0].1;
                    self.mov(Machine::R0, parked);
                    for (_, from, _) in &mut moves {
                        if *from == parked {
                            *from = Machine::R0;
                        }
                    }
                }
            }
        }
    }

    fn end(&mut self, end: &Terminator, next: BlockId) {
        match end {
            Terminator::Jump(to) => self.goto(*to, next),
            Terminator::Return(value) => {
                self.set(Machine::R0, *value);
                self.emit(Insn::Exit);
            }
            Terminator::Branch { width, op, a, b, then, otherwise } => {
                let a = self.source_of(*a).expect("constrained to a register");
                let b = self.source(*b);
                match op.inverse() {
                    Some(inverse) if *then == next => {
                        let label = self.labels[*otherwise];
                        self.assembler.jump(*width, inverse, a, b, label);
                    }
                    _ => {
                        let label = self.labels[*then];
                        self.assembler.jump(*width, *op, a, b, label);
                        self.goto(*otherwise, next);
                    }
                }
            }
        }
    }

    fn goto(&mut self, to: BlockId, next: BlockId) {
        if to != next {
            let label = self.labels[to];
            self.assembler.goto(label);
        }
    }
}

