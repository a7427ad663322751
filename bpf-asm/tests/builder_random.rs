//! Random programs written with the typed builder: the kernel loads every one of them, and computes what Rust computes; so
//! do the interpreter and rbpf.
//!
//! `BUILDER_SEED=7` runs one seed alone, `BUILDER_SECONDS` as many as there is time for. On a kernel without 64-bit
//! atomics programs do without.

use std::time::{Duration, Instant};

use aya::EbpfLoader;
use aya::programs::{TestRun, TestRunOptions, Xdp as Loaded};
use bpf_asm::builder::{Array, Cond, Function, Int, Ptr, Val, Var, XDP_DROP, XDP_PASS, Xdp, xdp};
use bpf_asm::engine::{Kernel, rbpf};
use bpf_asm::field;
use bpf_asm::harness::Harness;
use bpf_asm::interpreter::{Input, XdpInput};
use bpf_asm::object::Object;
use bpf_asm::program::Program;
use bpf_asm::target::{Feature, Target};
use zerocopy::byteorder::{LE, U64};

const MOST_VARIABLES: usize = 14;
const SLOTS: usize = 3;
const SEEDS: u64 = 300;
/// Programs in one object: loading an object takes longer than loading a program.
const BATCH: u64 = 50;
/// The same where time is short, and everything takes long.
const TIMED_BATCH: u64 = 5;

#[repr(C)]
struct Packet {
    values: [U64<LE>; MOST_VARIABLES],
}

#[repr(C)]
struct Counter {
    value: u64,
}

#[repr(C)]
struct Cells {
    cells: [Counter; 4],
}

const CELLS: Array<Cells> = Array::new("cells", 1);

/// xorshift64*: a generator that needs no crate.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    /// Small, large, at the edges of the widths.
    fn constant(&mut self) -> u64 {
        let any = self.next();
        match self.below(6) {
            0 => any & 0xff,
            1 => any & 0xffff,
            2 => any & 0xffff_ffff,
            3 => [
                0,
                1,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
                u64::MAX,
                1 << 63,
                1 << 32,
            ][self.below(8)],
            _ => any,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Width {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
}

#[derive(Clone, Copy, Debug)]
enum Operand {
    Variable(usize),
    Constant(u64),
}

#[derive(Clone, Copy, Debug)]
enum Test {
    Eq,
    Lt,
    Ge,
    Any,
}

#[derive(Clone, Debug)]
enum Statement {
    Compute {
        to: usize,
        width: Width,
        operation: usize,
        a: usize,
        b: Operand,
    },
    Rotate {
        to: usize,
        a: usize,
        by: u32,
        narrow: bool,
    },
    Swap {
        to: usize,
        a: usize,
    },
    If {
        width: Width,
        test: Test,
        a: usize,
        b: Operand,
        then: Vec<Statement>,
        otherwise: Vec<Statement>,
    },
    Loop {
        rounds: u64,
        leave_below: u64,
        a: usize,
        inside: Vec<Statement>,
    },
    Clobber,
    Push {
        slot: usize,
        a: usize,
    },
    Pop {
        slot: usize,
        to: usize,
    },
    FetchAdd {
        cell: usize,
        to: usize,
        a: Operand,
    },
    CompareExchange {
        cell: usize,
        to: usize,
        expected: Operand,
        a: usize,
    },
}

fn statements(random: &mut Random, variables: usize, depth: usize, many: usize) -> Vec<Statement> {
    (0..many)
        .map(|_| statement(random, variables, depth))
        .collect()
}

fn statement(random: &mut Random, variables: usize, depth: usize) -> Statement {
    use Width::{I8, I16, I32, I64, U8, U16, U32, U64};
    let width = [U8, U16, U32, U64, I8, I16, I32, I64, U64, U64, U32][random.below(11)];
    let [to, a, other] = [0; 3].map(|_| random.below(variables));
    let b = if random.below(3) == 0 {
        Operand::Constant(random.constant())
    } else {
        Operand::Variable(other)
    };
    match random.below(if depth == 0 { 14 } else { 18 }) {
        0..=5 => Statement::Compute {
            to,
            width,
            operation: random.below(11),
            a,
            b,
        },
        6 => Statement::Rotate {
            to,
            a,
            by: random.below(64) as u32,
            narrow: random.below(2) == 0,
        },
        7 => Statement::Swap { to, a },
        8 => Statement::Clobber,
        9 => Statement::Push {
            slot: random.below(SLOTS),
            a,
        },
        10 => Statement::Pop {
            slot: random.below(SLOTS),
            to,
        },
        11 => Statement::FetchAdd {
            cell: random.below(4),
            to,
            a: b,
        },
        12 => Statement::CompareExchange {
            cell: random.below(4),
            to,
            expected: b,
            a,
        },
        13 => Statement::Compute {
            to,
            width,
            operation: 0,
            a,
            b,
        },
        14..=16 => {
            let test = [Test::Eq, Test::Lt, Test::Ge, Test::Any][random.below(4)];
            let (many, rest) = (1 + random.below(4), random.below(4));
            let then = statements(random, variables, depth - 1, many);
            let otherwise = statements(random, variables, depth - 1, rest);
            Statement::If {
                width,
                test,
                a,
                b,
                then,
                otherwise,
            }
        }
        _ => {
            let many = 1 + random.below(4);
            // The verifier walks each round by itself: no loops or deep branches in loops.
            let inside = statements(random, variables, 0, many);
            let leave_below = if random.below(2) == 0 {
                random.next() >> 2
            } else {
                0
            };
            Statement::Loop {
                rounds: 1 + random.next() % 5,
                leave_below,
                a,
                inside,
            }
        }
    }
}

fn leave_out_atomics(statements: &mut Vec<Statement>) {
    use Statement::{CompareExchange, FetchAdd};
    statements.retain(|one| !matches!(one, FetchAdd { .. } | CompareExchange { .. }));
    for statement in statements {
        match statement {
            Statement::If {
                then, otherwise, ..
            } => {
                leave_out_atomics(then);
                leave_out_atomics(otherwise);
            }
            Statement::Loop { inside, .. } => leave_out_atomics(inside),
            _ => {}
        }
    }
}

/// The program's state in Rust.
struct Machine {
    variables: Vec<u64>,
    slots: [u64; SLOTS],
    cells: [u64; 4],
}

macro_rules! with_width {
    ($width:expr, $function:ident ( $($argument:expr),* )) => {
        match $width {
            Width::U8 => $function::<u8>($($argument),*),
            Width::U16 => $function::<u16>($($argument),*),
            Width::U32 => $function::<u32>($($argument),*),
            Width::U64 => $function::<u64>($($argument),*),
            Width::I8 => $function::<i8>($($argument),*),
            Width::I16 => $function::<i16>($($argument),*),
            Width::I32 => $function::<i32>($($argument),*),
            Width::I64 => $function::<i64>($($argument),*),
        }
    };
}

/// Arithmetic in Rust and in the builder by the same names.
trait Native: Int + PartialOrd {
    fn of(value: u64) -> Self;
    fn out(self) -> u64;
    fn compute(operation: usize, a: Self, b: Self) -> Self;
    fn common(a: Self, b: Self) -> bool;
}

macro_rules! native {
    ($($type:ty)*) => {$(
        impl Native for $type {
            fn of(value: u64) -> Self {
                value as $type
            }
            fn out(self) -> u64 {
                self as u64
            }
            fn compute(operation: usize, a: Self, b: Self) -> Self {
                match operation {
                    0 => a.wrapping_add(b),
                    1 => a.wrapping_sub(b),
                    2 => a.wrapping_mul(b),
                    3 => a & b,
                    4 => a | b,
                    5 => a ^ b,
                    6 => a << 3,
                    7 => a >> 5,
                    8 => !a,
                    9 => (7 as $type).wrapping_sub(a),
                    _ => b,
                }
            }
            fn common(a: Self, b: Self) -> bool {
                a & b != 0
            }
        }
    )*};
}
native! { u8 u16 u32 u64 i8 i16 i32 i64 }

fn built<'f, T: Native>(
    f: Function<'f, Xdp>,
    operation: usize,
    a: Val<'f, u64>,
    b: Val<'f, u64>,
) -> Val<'f, u64> {
    let (a, b) = (a.cast::<T>(), b.cast::<T>());
    let result = match operation {
        0 => a + b,
        1 => a - b,
        2 => a * b,
        3 => a & b,
        4 => a | b,
        5 => a ^ b,
        6 => a << T::of(3),
        7 => a >> T::of(5),
        8 => !a,
        9 => f.value(T::of(7)) - a,
        _ => b,
    };
    result.cast()
}

fn computed<T: Native>(operation: usize, a: u64, b: u64) -> u64 {
    T::compute(operation, T::of(a), T::of(b)).out()
}

fn condition<'f, T: Native>(test: Test, a: Val<'f, u64>, b: Val<'f, u64>) -> Cond<'f> {
    let (a, b) = (a.cast::<T>(), b.cast::<T>());
    match test {
        Test::Eq => a.eq(b),
        Test::Lt => a.lt(b),
        Test::Ge => a.ge(b),
        Test::Any => (a & b).ne(T::of(0)),
    }
}

fn holds<T: Native>(test: Test, a: u64, b: u64) -> bool {
    let (a, b) = (T::of(a), T::of(b));
    match test {
        Test::Eq => a == b,
        Test::Lt => a < b,
        Test::Ge => a >= b,
        Test::Any => T::common(a, b),
    }
}

impl Machine {
    fn value(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Variable(number) => self.variables[number],
            Operand::Constant(value) => value,
        }
    }

    fn run(&mut self, statements: &[Statement]) {
        for statement in statements {
            match statement {
                &Statement::Compute {
                    to,
                    width,
                    operation,
                    a,
                    b,
                } => {
                    let (a, b) = (self.variables[a], self.value(b));
                    self.variables[to] = with_width!(width, computed(operation, a, b));
                }
                &Statement::Rotate { to, a, by, narrow } => {
                    let a = self.variables[a];
                    self.variables[to] = if narrow {
                        u64::from((a as u32).rotate_left(by))
                    } else {
                        a.rotate_left(by)
                    };
                }
                &Statement::Swap { to, a } => {
                    self.variables[to] = u64::from((self.variables[a] as u32).swap_bytes())
                }
                Statement::If {
                    width,
                    test,
                    a,
                    b,
                    then,
                    otherwise,
                } => {
                    let (a, b) = (self.variables[*a], self.value(*b));
                    let holds = with_width!(width, holds(*test, a, b));
                    self.run(if holds { then } else { otherwise });
                }
                Statement::Loop {
                    rounds,
                    leave_below,
                    a,
                    inside,
                } => {
                    for round in 0..*rounds {
                        if self.variables[*a] < *leave_below {
                            break;
                        }
                        self.variables[*a] = self.variables[*a].wrapping_add(round);
                        self.run(inside);
                    }
                }
                Statement::Clobber => {}
                &Statement::Push { slot, a } => self.slots[slot] = self.variables[a],
                &Statement::Pop { slot, to } => self.variables[to] = self.slots[slot],
                &Statement::FetchAdd { cell, to, a } => {
                    let old = self.cells[cell];
                    self.cells[cell] = old.wrapping_add(self.value(a));
                    self.variables[to] = old;
                }
                &Statement::CompareExchange {
                    cell,
                    to,
                    expected,
                    a,
                } => {
                    let old = self.cells[cell];
                    if old == self.value(expected) {
                        self.cells[cell] = self.variables[a];
                    }
                    self.variables[to] = old;
                }
            }
        }
    }
}

/// The same in the builder.
struct Writer<'f> {
    f: Function<'f, Xdp>,
    variables: Vec<Var<'f, u64>>,
    slots: Ptr<'f, [u64; SLOTS]>,
    cells: Ptr<'f, Cells>,
}

impl<'f> Writer<'f> {
    fn value(&self, operand: Operand) -> Val<'f, u64> {
        match operand {
            Operand::Variable(number) => self.variables[number].get(),
            Operand::Constant(value) => self.f.value(value),
        }
    }

    fn write(&self, statements: &[Statement]) {
        let f = self.f;
        for statement in statements {
            match statement {
                &Statement::Compute {
                    to,
                    width,
                    operation,
                    a,
                    b,
                } => {
                    let (a, b) = (self.variables[a].get(), self.value(b));
                    self.variables[to].set(with_width!(width, built(f, operation, a, b)));
                }
                &Statement::Rotate { to, a, by, narrow } => {
                    let a = self.variables[a].get();
                    self.variables[to].set(if narrow {
                        a.cast::<u32>().rotate_left(by).widen()
                    } else {
                        a.rotate_left(by)
                    });
                }
                &Statement::Swap { to, a } => {
                    self.variables[to].set(
                        self.variables[a]
                            .get()
                            .cast::<u32>()
                            .swap_bytes()
                            .widen::<u64>(),
                    );
                }
                Statement::If {
                    width,
                    test,
                    a,
                    b,
                    then,
                    otherwise,
                } => {
                    let (a, b) = (self.variables[*a].get(), self.value(*b));
                    let condition = with_width!(width, condition(*test, a, b));
                    f.if_else(condition, || self.write(then), || self.write(otherwise));
                }
                Statement::Loop {
                    rounds,
                    leave_below,
                    a,
                    inside,
                } => {
                    let a = self.variables[*a];
                    f.loop_up_to(*rounds, |round, inner| {
                        f.if_(a.get().lt(*leave_below), || inner.break_());
                        a.set(a.get() + round);
                        self.write(inside);
                    });
                }
                Statement::Clobber => {
                    let _ = f.random_u32();
                }
                &Statement::Push { slot, a } => {
                    self.slots.element(slot).write(self.variables[a].get())
                }
                &Statement::Pop { slot, to } => {
                    self.variables[to].set(self.slots.element(slot).read())
                }
                &Statement::FetchAdd { cell, to, a } => {
                    let old = self
                        .cell(cell)
                        .fetch_add(field!(Counter, value), self.value(a));
                    self.variables[to].set(old);
                }
                &Statement::CompareExchange {
                    cell,
                    to,
                    expected,
                    a,
                } => {
                    let (expected, new) = (self.value(expected), self.variables[a].get());
                    let old =
                        self.cell(cell)
                            .compare_exchange(field!(Counter, value), expected, new);
                    self.variables[to].set(old);
                }
            }
        }
    }

    fn cell(&self, cell: usize) -> Ptr<'f, Counter> {
        self.cells.at(field!(Cells, cells)).element(cell)
    }
}

struct Case {
    seed: u64,
    random: Random,
    variables: usize,
    statements: Vec<Statement>,
}

impl Case {
    fn new(seed: u64, atomics: bool) -> Case {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let variables = 2 + random.below(MOST_VARIABLES - 1);
        let many = 4 + random.below(30);
        let mut statements = statements(&mut random, variables, 3, many);
        if !atomics {
            leave_out_atomics(&mut statements);
        }
        Case {
            seed,
            random,
            variables,
            statements,
        }
    }

    fn name(&self) -> String {
        format!("random_{}", self.seed)
    }

    fn program(&self) -> Program {
        xdp(&self.name(), |f| {
            let packet = f.packet();
            let view = packet.view::<Packet>(0, || f.ret(XDP_DROP));
            let values = view.at(field!(Packet, values));
            let cells = CELLS.lookup(f, 0u32, || f.ret(XDP_DROP));
            for cell in 0..4 {
                cells
                    .at(field!(Cells, cells))
                    .element(cell)
                    .store(field!(Counter, value), 0u64);
            }
            let slots = f.stack::<[u64; SLOTS]>();
            for slot in 0..SLOTS {
                slots.element(slot).write(0u64);
            }
            let read = |number| f.var(values.element(number).read().to_native());
            let writer = Writer {
                f,
                variables: (0..self.variables).map(read).collect(),
                slots,
                cells,
            };
            writer.write(&self.statements);
            for (number, variable) in writer.variables.iter().enumerate() {
                values.element(number).write(variable.get().to_le());
            }
            f.ret(XDP_PASS);
        })
        .unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    /// Loads the program and runs it on a few packets.
    fn check(&mut self, ebpf: &mut aya::Ebpf) {
        let (seed, variables) = (self.seed, self.variables);
        let name = self.name();
        let listing = || bpf_asm::disasm::listing(&self.program().main).to_string();
        let loaded: &mut Loaded = ebpf.program_mut(&name).unwrap().try_into().unwrap();
        if let Err(error) = loaded.load() {
            panic!(
                "seed {seed} is refused: {error}\n{}\n{:?}",
                listing(),
                self.statements
            );
        }
        let harness = Harness::new([self.program()]).unwrap();
        // rbpf in what it has, and gets right.
        let lowered = Target::rbpf().lower(&self.program());
        let lowered = lowered.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let plain = Harness::new([lowered]).unwrap();
        let plain_program = plain.program(&name).unwrap();
        for run in 0..4 {
            let input: Vec<u64> = (0..MOST_VARIABLES)
                .map(|_| self.random.constant())
                .collect();
            let packet: Vec<u8> = input.iter().flat_map(|value| value.to_le_bytes()).collect();
            let mut out = vec![0; packet.len()];
            let options = TestRunOptions {
                data_in: Some(&packet),
                data_out: Some(&mut out),
                ..TestRunOptions::default()
            };
            assert_eq!(loaded.test_run(options).unwrap().return_value, XDP_PASS);
            let mut machine = Machine {
                variables: input[..variables].to_vec(),
                slots: [0; SLOTS],
                cells: [0; 4],
            };
            machine.run(&self.statements);
            // The interpreter, on the same program, finds nothing to object to and leaves the same packet.
            let frame: Input = XdpInput::new(packet.clone()).into();
            let interpreted = match harness.xdp(&name, packet) {
                Ok(outcome) => (outcome.verdict, outcome.packet),
                Err(fault) => panic!("seed {seed}, run {run}: {fault}"),
            };
            let second = match rbpf::run(plain.machine(), plain_program, frame) {
                Ok(ran) => (ran.verdict, ran.packet),
                Err(error) => panic!("seed {seed}, run {run}: {error}"),
            };
            for (engine, left) in [("interpreter", interpreted), ("rbpf", second)] {
                assert!(
                    left == (XDP_PASS, out.clone()),
                    "seed {seed}, run {run}: {engine} leaves {left:02x?}"
                );
            }
            let words: Vec<u64> = out
                .chunks_exact(8)
                .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            assert_eq!(
                words[..variables],
                machine.variables,
                "seed {seed}, run {run}, from {input:x?}\n{}\n{:?}",
                bpf_asm::disasm::listing(&self.program().main),
                self.statements
            );
        }
        loaded.unload().unwrap();
    }
}

/// The seeds, in batches: as many as asked for, or until the time is over.
fn batches() -> impl Iterator<Item = Vec<u64>> {
    let variable = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seconds: Option<u64> = variable("BUILDER_SECONDS");
    let (from, to) = match variable("BUILDER_SEED") {
        Some(seed) => (seed, seed + 1),
        None if seconds.is_some() => (0, u64::MAX),
        None => (0, SEEDS),
    };
    let size = if seconds.is_some() {
        TIMED_BATCH
    } else {
        BATCH
    };
    let began = Instant::now();
    let in_time = move || seconds.is_none_or(|limit| began.elapsed() < Duration::from_secs(limit));
    (from..to)
        .step_by(usize::try_from(size).unwrap())
        .take_while(move |first| *first == from || in_time())
        .map(move |first| (first..to.min(first + size)).collect())
}

#[test]
fn random_programs_load_and_agree_with_rust() {
    let atomics = Kernel.target().unwrap().has(Feature::Atomics);
    let mut programs_run = 0;
    for seeds in batches() {
        let cases = seeds.iter().map(|&seed| Case::new(seed, atomics));
        let mut cases: Vec<Case> = cases.collect();
        let object = cases.iter().fold(Object::new("GPL"), |object, case| {
            object.program(case.program())
        });
        let loader = EbpfLoader::new().btf(None).load(&object.to_elf().unwrap());
        let mut ebpf = loader.unwrap();
        for case in &mut cases {
            case.check(&mut ebpf);
            programs_run += 1;
        }
    }
    let which = if atomics { "" } else { ", without atomics" };
    println!("{programs_run} random programs of the builder{which}");
}
