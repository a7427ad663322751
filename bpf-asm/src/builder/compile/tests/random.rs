//! Random bodies mean the same before and after compilation.

use std::rc::Rc;

use super::{run_body, run_insns};
use crate::builder::BuildErrorKind;
use crate::builder::compile::compile;
use crate::builder::ir::{Arg, Base, Body, Callee, Op, Operand, Reg, Terminator};
use crate::builder::subprogram::Returned;
use crate::insn::{AluOp, AtomicOp, EndianKind, JumpOp, Size, Width};
use crate::program::{Contents, MapDef, MapType};

const ALU: [AluOp; 11] = [
    AluOp::Add,
    AluOp::Sub,
    AluOp::Mul,
    AluOp::Div,
    AluOp::Mod,
    AluOp::Or,
    AluOp::And,
    AluOp::Xor,
    AluOp::Lsh,
    AluOp::Rsh,
    AluOp::Arsh,
];
const JUMPS: [JumpOp; 11] = [
    JumpOp::Eq,
    JumpOp::Ne,
    JumpOp::Gt,
    JumpOp::Ge,
    JumpOp::Lt,
    JumpOp::Le,
    JumpOp::Set,
    JumpOp::SGt,
    JumpOp::SGe,
    JumpOp::SLt,
    JumpOp::SLe,
];
const SIZES: [Size; 4] = [Size::B, Size::H, Size::W, Size::DW];
const CONSTANTS: [u64; 14] = [
    0,
    1,
    2,
    7,
    63,
    255,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x0123_4567_89ab_cdef,
    0xffff_ffff_8000_0000,
    u64::MAX,
    1 << 63,
];
const BUFFER: u32 = 32;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn width(&mut self) -> Width {
        self.of(&[Width::W32, Width::W64])
    }
}

struct Writer<'a> {
    random: Random,
    body: &'a Body,
    /// Values in scope.
    values: Vec<Operand>,
    variables: Vec<Reg>,
    buffers: Vec<usize>,
    depth: usize,
}

impl Writer<'_> {
    fn operand(&mut self) -> Operand {
        match self.random.below(8) {
            0 => Operand::Const(self.random.of(&CONSTANTS)),
            1 => Operand::Reg(self.random.of(&self.variables)),
            // Old values as likely as new ones, so that many stay alive.
            _ => self.random.of(&self.values),
        }
    }

    fn register(&mut self) -> Reg {
        loop {
            if let Operand::Reg(reg) = self.operand() {
                return reg;
            }
        }
    }

    fn fresh(&self) -> Reg {
        self.body.fresh(false, u64::MAX)
    }

    fn alu(&mut self, a: Operand) -> Operand {
        let (width, op, b, dst) = (
            self.random.width(),
            self.random.of(&ALU),
            self.operand(),
            self.fresh(),
        );
        let (a, b) = if self.random.below(3) == 0 {
            (b, a)
        } else {
            (a, b)
        };
        self.body.emit(Op::Alu {
            width,
            op,
            dst,
            a,
            b,
        });
        Operand::Reg(dst)
    }

    /// A place of this size in a buffer: named as such, or through a pointer, or through a computed one.
    fn place(&mut self, size: Size) -> (Base, i32) {
        let buffer = Base::Stack(self.random.of(&self.buffers));
        let bytes = i32::from(size.bytes());
        let offset = self.random.below(4) as i32 * 8 % (BUFFER as i32 - bytes + 1);
        let offset = offset / bytes * bytes;
        match self.random.below(3) {
            0 => (buffer, offset),
            1 => (Base::Reg(self.body.address(buffer, offset - 8)), 8),
            _ => {
                let start = self.body.address(buffer, 0);
                let (index, dst) = (self.fresh(), self.body.fresh(true, u64::MAX));
                let a = self.operand();
                self.body.emit(Op::Alu {
                    width: Width::W64,
                    op: AluOp::And,
                    dst: index,
                    a,
                    b: Operand::Const(24),
                });
                let (a, b) = (Operand::Reg(start), Operand::Reg(index));
                let (a, b) = if self.random.below(2) == 0 {
                    (a, b)
                } else {
                    (b, a)
                };
                self.body.emit(Op::Alu {
                    width: Width::W64,
                    op: AluOp::Add,
                    dst,
                    a,
                    b,
                });
                (Base::Reg(dst), 0)
            }
        }
    }

    fn call(&mut self) {
        let count = self.random.below(6);
        let args = (0..count)
            .map(|_| match self.random.below(6) {
                0 => Arg::Map(self.random.below(2)),
                1 => {
                    let (base, offset) = self.place(Size::DW);
                    Arg::Address(base, offset)
                }
                _ => Arg::Value(self.operand()),
            })
            .collect();
        let number = 6 * (1 + self.random.below(30)) as u32 + count as u32;
        let dst = self.fresh();
        self.body.emit(Op::Call {
            callee: Callee::Helper(number),
            args,
            dst: Some(dst),
        });
        self.values.push(Operand::Reg(dst));
    }

    fn atomic(&mut self) {
        let size = self.random.of(&[Size::W, Size::DW]);
        let (base, offset) = self.place(size);
        let op = self.random.of(&[
            AtomicOp::Add,
            AtomicOp::FetchAdd,
            AtomicOp::FetchXor,
            AtomicOp::Exchange,
            AtomicOp::CompareExchange,
        ]);
        let (src, expected) = (self.operand(), self.operand());
        let expected = (op == AtomicOp::CompareExchange).then_some(expected);
        let dst = (op != AtomicOp::Add).then(|| self.fresh());
        self.body.emit(Op::Atomic {
            size,
            op,
            base,
            offset,
            src,
            expected,
            dst,
        });
        self.values.extend(dst.map(Operand::Reg));
    }

    fn branch(&mut self, then: usize, otherwise: usize) {
        let (width, op, a, b) = (
            self.random.width(),
            self.random.of(&JUMPS),
            self.operand(),
            self.operand(),
        );
        self.body.end(Terminator::Branch {
            width,
            op,
            a,
            b,
            then,
            otherwise,
        });
    }

    fn inner(&mut self, statements: usize) {
        let scope = self.values.len();
        self.depth += 1;
        self.write(statements);
        self.depth -= 1;
        self.values.truncate(scope);
    }

    fn condition(&mut self) {
        let body = self.body;
        let rare = self.random.below(3) == 0;
        let yes = if rare {
            body.coldly(|| body.block())
        } else {
            body.block()
        };
        let (no, join) = (body.block(), body.block());
        let with_else = self.random.below(2) == 0;
        self.branch(yes, if with_else { no } else { join });
        body.begin(yes);
        let statements = self.random.below(8);
        self.inner(statements);
        if self.random.below(8) == 0 {
            let value = self.operand();
            body.end(Terminator::Return(value));
        } else {
            body.jump(join);
        }
        body.begin(no);
        let statements = self.random.below(5);
        self.inner(statements);
        body.jump(join);
        body.begin(join);
    }

    fn repeat(&mut self) {
        let body = self.body;
        let counter = body.fresh_variable(false, u64::MAX);
        body.copy(counter, Operand::Const(0));
        let (exit, start) = (body.block(), body.in_loop(|| body.block()));
        body.jump(start);
        body.begin(start);
        let statements = 1 + self.random.below(10);
        body.in_loop(|| self.inner(statements));
        if self.random.below(3) == 0 {
            let next = body.in_loop(|| body.block());
            self.branch(exit, next);
            body.begin(next);
        }
        let (now, added) = (self.fresh(), self.fresh());
        body.copy(now, Operand::Reg(counter));
        let (a, b) = (Operand::Reg(now), Operand::Const(1));
        body.emit(Op::Alu {
            width: Width::W64,
            op: AluOp::Add,
            dst: added,
            a,
            b,
        });
        body.copy(counter, Operand::Reg(added));
        let (a, b) = (
            Operand::Reg(counter),
            Operand::Const(1 + self.random.below(4) as u64),
        );
        body.end(Terminator::Branch {
            width: Width::W64,
            op: JumpOp::Lt,
            a,
            b,
            then: start,
            otherwise: exit,
        });
        body.begin(exit);
    }

    fn write(&mut self, statements: usize) {
        for _ in 0..statements {
            let variable = self.random.of(&self.variables);
            match self.random.below(20) {
                0..5 => {
                    let a = self.operand();
                    let value = self.alu(a);
                    self.values.push(value);
                }
                5 => {
                    let value = self.operand();
                    self.body.copy(variable, value);
                }
                6..10 => {
                    let now = self.fresh();
                    self.body.copy(now, Operand::Reg(variable));
                    if self.random.below(2) == 0 {
                        self.values.push(Operand::Reg(now));
                    }
                    let value = self.alu(Operand::Reg(now));
                    self.body.copy(variable, value);
                }
                10 => {
                    let (src, dst, bits) =
                        (self.register(), self.fresh(), self.random.of(&[16, 32, 64]));
                    self.body.emit(Op::Endian {
                        kind: EndianKind::ToBe,
                        bits,
                        dst,
                        src,
                    });
                    self.values.push(Operand::Reg(dst));
                }
                11 => {
                    let (src, dst) = (self.operand(), self.fresh());
                    self.body.emit(Op::Alu {
                        width: Width::W32,
                        op: AluOp::Mov,
                        dst,
                        a: src,
                        b: src,
                    });
                    self.values.push(Operand::Reg(dst));
                }
                12 | 13 => {
                    let size = self.random.of(&SIZES);
                    let (base, offset) = self.place(size);
                    let src = self.operand();
                    self.body.store(size, base, offset, src);
                }
                14 | 15 => {
                    let size = self.random.of(&SIZES);
                    let (base, offset) = self.place(size);
                    let dst = self.body.load(size, base, offset);
                    self.values.push(Operand::Reg(dst));
                }
                16 => self.atomic(),
                17 => self.call(),
                18 if self.depth < 3 => self.condition(),
                19 if self.depth < 2 => self.repeat(),
                _ => {}
            }
        }
    }
}

/// Writes one body, runs it both ways, and says how many bytes were spilled; `None` if they don't fit into a frame.
fn check(seed: u64, statements: usize, calls: bool) -> Option<u32> {
    let session = Rc::default();
    let body = Body::new(Rc::clone(&session), Some(Returned::of::<u64>()), 3);
    for name in ["m0", "m1"] {
        let name = name.to_owned();
        body.map(MapDef {
            name,
            map_type: MapType::Array,
            key_size: 4,
            value_size: 8,
            max_entries: 1,
            flags: 0,
            contents: Contents::Empty,
        });
    }
    let values = body
        .arguments
        .iter()
        .map(|reg| Operand::Reg(*reg))
        .collect();
    let mut writer = Writer {
        random: Random(seed),
        body: &body,
        values,
        variables: Vec::new(),
        buffers: Vec::new(),
        depth: 0,
    };
    for number in 0..1 + writer.random.below(6) as u64 {
        let variable = body.fresh_variable(false, u64::MAX);
        body.copy(variable, Operand::Const(number));
        writer.variables.push(variable);
    }
    for _ in 0..2 {
        let buffer = body.buffer(BUFFER);
        for offset in [0, 8, 16, 24] {
            body.store(Size::DW, Base::Stack(buffer), offset, Operand::Const(0));
        }
        writer.buffers.push(buffer);
    }
    writer.write(statements);
    if calls {
        writer.call();
    }
    let read_at_end = writer.random.below(12) + 1;
    let mut sum = writer.operand();
    for value in writer
        .values
        .clone()
        .into_iter()
        .rev()
        .take(read_at_end)
        .chain(writer.values.clone().into_iter().take(4))
    {
        let dst = body.fresh(false, u64::MAX);
        body.emit(Op::Alu {
            width: Width::W64,
            op: AluOp::Xor,
            dst,
            a: sum,
            b: value,
        });
        sum = Operand::Reg(dst);
    }
    body.end(Terminator::Return(sum));

    let inputs: Vec<[u64; 3]> = (0..3)
        .map(|input| {
            [
                seed,
                writer.random.next(),
                writer.random.of(&CONSTANTS).wrapping_mul(input),
            ]
        })
        .collect();
    // Compiling uses the body up.
    let expected: Vec<u64> = inputs
        .iter()
        .map(|arguments| run_body::run(&body, arguments))
        .collect();
    let (function, frame) = match compile(&body, "random") {
        Ok(done) => done,
        Err(error) if matches!(error.kind, BuildErrorKind::StackOverflow { .. }) => return None,
        Err(error) => panic!("seed {seed}: {error}"),
    };
    for (arguments, expected) in inputs.iter().zip(expected) {
        let actual = run_insns::run(&function, arguments, 2 * BUFFER);
        assert_eq!(
            actual, expected,
            "seed {seed}, {statements} statements, arguments {arguments:x?}"
        );
    }
    Some(frame - 2 * BUFFER)
}

#[test]
fn small_bodies_keep_their_meaning() {
    for seed in 0..600 {
        check(seed, 3 + (seed % 20) as usize, seed % 2 == 0);
    }
}

#[test]
fn large_bodies_keep_their_meaning_and_spill() {
    let bytes: Vec<Option<u32>> = (1000..1200)
        .map(|seed| check(seed, 60 + (seed % 60) as usize, true))
        .collect();
    let spilled = bytes
        .iter()
        .filter(|bytes| bytes.is_some_and(|bytes| bytes > 0))
        .count();
    assert!(
        spilled > 100,
        "only {spilled} bodies spilled: the test has lost its point"
    );
}
