//! Random programs written with the typed builder: the kernel loads every one of them, and computes what Rust computes; so
//! do the interpreter and, for every other program, rbpf; those are without callbacks, the table, and bytes that are loaded by a
//! helper, which rbpf doesn't have.
//!
//! `BUILDER_SEED=7` runs one seed alone, `BUILDER_SECONDS` as many as there is time for. On a kernel without 64-bit
//! atomics, or without the newest of the helpers, programs do without.

use std::time::{Duration, Instant};

use aya::EbpfLoader;
use aya::programs::{TestRun, TestRunOptions, Xdp as Loaded};
use bpf_asm::builder::{
    Array, BPF_ANY, Cond, Function, Hash, Int, Memory, Ptr, Subprogram, Val, Var, XDP_DROP,
    XDP_PASS, Xdp, xdp,
};
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
/// Keys of the hash map; those below [`PRESENT`] are there when a program begins.
const KEYS: usize = 4;
const PRESENT: usize = 2;
/// The first operation of a computation that divides.
const DIVIDE: usize = 11;
const SEEDS: u64 = 3_000;
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
const TABLE: Hash<u32, u64> = Hash::new("table", 64);

/// What a callback works on.
#[repr(C)]
struct Sum {
    sum: u64,
    step: u64,
}

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

#[derive(Clone, Copy, Debug)]
enum Change {
    And,
    Or,
    Xor,
    Exchange,
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
    Change {
        change: Change,
        cell: usize,
        to: usize,
        a: Operand,
    },
    /// By the lowest three bits, of which these are cases.
    Match {
        a: usize,
        cases: Vec<(u8, Vec<Statement>)>,
        otherwise: Vec<Statement>,
    },
    /// The same code several times.
    Unroll {
        rounds: u64,
        leave_below: u64,
        a: usize,
        inside: Vec<Statement>,
    },
    /// A function that the kernel calls once for each round.
    Callback {
        rounds: u32,
        to: usize,
        step: usize,
    },
    /// A subprogram on numbers of several widths.
    Mix {
        to: usize,
        a: usize,
        b: Operand,
        c: usize,
    },
    /// A subprogram on memory of the stack or of the map.
    Add {
        to: usize,
        cell: Option<usize>,
        a: usize,
    },
    /// Whatever the table has under this key, or nothing changes.
    LookUp {
        to: usize,
        key: usize,
    },
    Insert {
        key: usize,
        a: usize,
    },
    Delete {
        key: usize,
    },
    /// A word of the packet as it came.
    LoadBytes {
        to: usize,
        word: usize,
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
    match random.below(if depth == 0 { 23 } else { 28 }) {
        0..=5 => {
            let operation = random.below(13);
            let b = match b {
                // Division by the constant 0 is refused.
                Operand::Constant(constant) if operation >= DIVIDE => {
                    Operand::Constant(constant | 1)
                }
                b => b,
            };
            Statement::Compute {
                to,
                width,
                operation,
                a,
                b,
            }
        }
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
        14 => Statement::Change {
            change: [Change::And, Change::Or, Change::Xor, Change::Exchange][random.below(4)],
            cell: random.below(4),
            to,
            a: b,
        },
        15 => Statement::Callback {
            rounds: 1 + random.below(9) as u32,
            to,
            step: a,
        },
        16 => Statement::Mix { to, a, b, c: other },
        17 => Statement::Add {
            to,
            cell: (random.below(2) == 0).then(|| random.below(4)),
            a,
        },
        18 | 19 => Statement::LookUp { to, key: a },
        20 => Statement::Insert { key: other, a },
        21 => Statement::Delete { key: a },
        22 => Statement::LoadBytes {
            to,
            word: random.below(MOST_VARIABLES),
        },
        23 => {
            let mut cases: Vec<(u8, Vec<Statement>)> = Vec::new();
            for number in 0..8 {
                if random.below(3) == 0 {
                    let many = random.below(3);
                    cases.push((number, statements(random, variables, depth - 1, many)));
                }
            }
            let rest = random.below(3);
            let otherwise = statements(random, variables, depth - 1, rest);
            Statement::Match {
                a,
                cases,
                otherwise,
            }
        }
        24 => {
            let many = 1 + random.below(3);
            let inside = statements(random, variables, 0, many);
            let leave_below = if random.below(2) == 0 {
                random.next() >> 2
            } else {
                0
            };
            Statement::Unroll {
                rounds: 1 + random.next() % 3,
                leave_below,
                a,
                inside,
            }
        }
        25 | 26 => {
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

/// What the kernel at hand has of what programs may use.
#[derive(Clone, Copy)]
struct Has {
    atomics: bool,
    /// bpf_loop and bpf_xdp_load_bytes, of Linux 5.17 and 5.18.
    helpers: bool,
}

impl Has {
    fn of_the_kernel() -> Has {
        let program = xdp("newest", |f| {
            let (state, bytes) = (f.stack::<Sum>(), f.stack::<u64>());
            state.store(field!(Sum, sum), 0u64);
            state.store(field!(Sum, step), 0u64);
            bytes.write(0u64);
            f.loop_callback("round", 1, state, |_, _, _| {});
            let _ = f.load_bytes(0, bytes);
            f.ret(XDP_PASS);
        });
        let object = Object::new("GPL").program(program.unwrap()).to_elf();
        let mut ebpf = EbpfLoader::new().btf(None).load(&object.unwrap()).unwrap();
        let loaded: &mut Loaded = ebpf.program_mut("newest").unwrap().try_into().unwrap();
        Has {
            atomics: Kernel.target().unwrap().has(Feature::Atomics),
            helpers: loaded.load().is_ok(),
        }
    }

    fn statement(self, statement: &Statement) -> bool {
        match statement {
            Statement::FetchAdd { .. }
            | Statement::CompareExchange { .. }
            | Statement::Change { .. } => self.atomics,
            Statement::Callback { .. } | Statement::LoadBytes { .. } => self.helpers,
            _ => true,
        }
    }
}

/// Whether rbpf runs the program of a seed too.
fn on_rbpf(seed: u64) -> bool {
    seed % 2 == 1
}

fn rbpf_has(statement: &Statement) -> bool {
    !uses_table(statement)
        && !matches!(
            statement,
            Statement::Callback { .. } | Statement::LoadBytes { .. }
        )
}

fn uses_table(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::LookUp { .. } | Statement::Insert { .. } | Statement::Delete { .. }
    )
}

/// Takes out what `keep` doesn't want, at any depth.
fn retain(statements: &mut Vec<Statement>, keep: &dyn Fn(&Statement) -> bool) {
    statements.retain(keep);
    for statement in statements {
        for inside in statement.inside() {
            retain(inside, keep);
        }
    }
}

impl Statement {
    /// The statements within.
    fn inside(&mut self) -> Vec<&mut Vec<Statement>> {
        match self {
            Statement::If {
                then, otherwise, ..
            } => vec![then, otherwise],
            Statement::Loop { inside, .. } | Statement::Unroll { inside, .. } => vec![inside],
            Statement::Match {
                cases, otherwise, ..
            } => {
                let cases = cases.iter_mut().map(|(_, then)| then);
                cases.chain([otherwise]).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The program's state in Rust.
struct Machine {
    input: Vec<u64>,
    variables: Vec<u64>,
    slots: [u64; SLOTS],
    cells: [u64; 4],
    table: [Option<u64>; KEYS],
}

/// What the subprogram `mix` computes.
fn mix(a: u64, b: i16, c: u8) -> i32 {
    if a > 1 << 40 {
        return i32::from(b).wrapping_sub(i32::from(c));
    }
    (a as i32).wrapping_add(i32::from(b) * 3)
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
                    // By RFC 9669.
                    DIVIDE if b == 0 => 0,
                    DIVIDE => a.wrapping_div(b),
                    12 if b == 0 => a,
                    12 => a.wrapping_rem(b),
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
        DIVIDE => a / b,
        12 => a % b,
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
                &Statement::Change {
                    change,
                    cell,
                    to,
                    a,
                } => {
                    let (old, a) = (self.cells[cell], self.value(a));
                    self.cells[cell] = match change {
                        Change::And => old & a,
                        Change::Or => old | a,
                        Change::Xor => old ^ a,
                        Change::Exchange => a,
                    };
                    self.variables[to] = old;
                }
                Statement::Match {
                    a,
                    cases,
                    otherwise,
                } => {
                    let value = self.variables[*a] as u8 & 7;
                    let case = cases.iter().find(|case| case.0 == value);
                    self.run(case.map_or(otherwise, |case| &case.1));
                }
                Statement::Unroll {
                    rounds,
                    leave_below,
                    a,
                    inside,
                } => {
                    for _ in 0..*rounds {
                        if self.variables[*a] < *leave_below {
                            break;
                        }
                        self.run(inside);
                    }
                }
                &Statement::Callback { rounds, to, step } => {
                    let step = self.variables[step];
                    let mut sum = 0u64;
                    for round in 0..u64::from(rounds) {
                        if round == step & 7 {
                            break;
                        }
                        sum = sum.wrapping_add(step.wrapping_mul(round));
                    }
                    self.variables[to] = sum;
                }
                &Statement::Mix { to, a, b, c } => {
                    let (a, b, c) = (self.variables[a], self.value(b), self.variables[c]);
                    self.variables[to] = mix(a, b as i16, c as u8) as u64;
                }
                &Statement::Add { to, cell, a } => {
                    let a = self.variables[a];
                    let place = match cell {
                        Some(cell) => &mut self.cells[cell],
                        None => &mut self.slots[0],
                    };
                    self.variables[to] = *place;
                    *place = place.wrapping_add(a);
                }
                &Statement::LookUp { to, key } => {
                    if let Some(value) = self.table[self.variables[key] as usize % KEYS] {
                        self.variables[to] = value;
                    }
                }
                &Statement::Insert { key, a } => {
                    self.table[self.variables[key] as usize % KEYS] = Some(self.variables[a]);
                }
                &Statement::Delete { key } => {
                    self.table[self.variables[key] as usize % KEYS] = None;
                }
                &Statement::LoadBytes { to, word } => self.variables[to] = self.input[word],
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
    mix: Subprogram<(u64, i16, u8), i32>,
    add: Subprogram<(Memory<u64>, u64), u64>,
    /// How many callbacks there are: each has a name of its own, in all programs of an object.
    callbacks: std::cell::Cell<u32>,
    seed: u64,
    sum: Ptr<'f, Sum>,
    bytes: Ptr<'f, u64>,
}

fn write_mix(f: Function<'_, Xdp>, seed: u64) -> Subprogram<(u64, i16, u8), i32> {
    f.subprogram::<(u64, i16, u8), i32>(&format!("mix_{seed}"), |g, (a, b, c)| {
        g.if_(a.gt(1u64 << 40), || {
            g.return_value(b.cast::<i32>() - c.cast::<i32>());
        });
        g.return_value(a.cast::<i32>() + b.cast::<i32>() * 3i32);
    })
}

fn write_add(f: Function<'_, Xdp>, seed: u64) -> Subprogram<(Memory<u64>, u64), u64> {
    f.subprogram::<(Memory<u64>, u64), u64>(&format!("add_{seed}"), |g, (place, a)| {
        let old = place.read();
        place.write(old + a);
        g.return_value(old);
    })
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
                &Statement::Change {
                    change,
                    cell,
                    to,
                    a,
                } => {
                    let (place, field) = (self.cell(cell), field!(Counter, value));
                    let a = self.value(a);
                    self.variables[to].set(match change {
                        Change::And => place.fetch_and(field, a),
                        Change::Or => place.fetch_or(field, a),
                        Change::Xor => place.fetch_xor(field, a),
                        Change::Exchange => place.exchange(field, a),
                    });
                }
                Statement::Match {
                    a,
                    cases,
                    otherwise,
                } => {
                    let value = self.variables[*a].get().cast::<u8>() & 7u8;
                    let mut matched = f.match_(value);
                    for (number, then) in cases {
                        matched = matched.case(*number, || self.write(then));
                    }
                    matched.otherwise(|| self.write(otherwise));
                }
                Statement::Unroll {
                    rounds,
                    leave_below,
                    a,
                    inside,
                } => f.unroll(*rounds, |_, inner| {
                    f.if_(self.variables[*a].get().lt(*leave_below), || inner.break_());
                    self.write(inside);
                }),
                &Statement::Callback { rounds, to, step } => {
                    let number = self.callbacks.replace(self.callbacks.get() + 1);
                    let (state, name) = (self.sum, format!("e{}_{number}", self.seed));
                    state.store(field!(Sum, sum), 0u64);
                    state.store(field!(Sum, step), self.variables[step].get());
                    f.loop_callback(&name, rounds, state, |g, round, state| {
                        let (step, round) = (state.load(field!(Sum, step)), round.cast::<u64>());
                        g.if_(round.eq(step & 7u64), || g.return_value(1u64));
                        let sum = state.load(field!(Sum, sum)) + step * round;
                        state.store(field!(Sum, sum), sum);
                    });
                    self.variables[to].set(state.load(field!(Sum, sum)));
                }
                &Statement::Mix { to, a, b, c } => {
                    let (a, c) = (self.variables[a].get(), self.variables[c].get());
                    let b = self.value(b).cast::<i16>();
                    let mixed = f.call(self.mix, (a, b, c.cast::<u8>()));
                    self.variables[to].set(mixed.cast::<u64>());
                }
                &Statement::Add { to, cell, a } => {
                    let place = match cell {
                        Some(cell) => self.cell(cell).at(field!(Counter, value)),
                        None => self.slots.element(0),
                    };
                    let old = f.call(self.add, (place, self.variables[a].get()));
                    self.variables[to].set(old);
                }
                &Statement::LookUp { to, key } => f.unroll(1, |_, inner| {
                    let value = TABLE.lookup(f, self.key(key), || inner.break_());
                    self.variables[to].set(value.read());
                }),
                &Statement::Insert { key, a } => {
                    let _ = TABLE.update(f, self.key(key), self.variables[a].get(), BPF_ANY);
                }
                &Statement::Delete { key } => {
                    let _ = TABLE.delete(f, self.key(key));
                }
                &Statement::LoadBytes { to, word } => {
                    let result = f.load_bytes(8 * word as u32, self.bytes);
                    f.if_(result.eq(0i64), || {
                        self.variables[to].set(self.bytes.read())
                    });
                }
            }
        }
    }

    fn key(&self, variable: usize) -> Val<'f, u32> {
        self.variables[variable].get().cast::<u32>() & (KEYS as u32 - 1)
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
    fn new(seed: u64, has: Has) -> Case {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let variables = 2 + random.below(MOST_VARIABLES - 1);
        let many = 4 + random.below(30);
        let mut statements = statements(&mut random, variables, 3, many);
        retain(&mut statements, &|one| {
            has.statement(one) && (!on_rbpf(seed) || rbpf_has(one))
        });
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
            // Those for rbpf don't touch the table.
            let keys = if on_rbpf(self.seed) { 0 } else { KEYS };
            for key in 0..keys as u32 {
                if (key as usize) < PRESENT {
                    let _ = TABLE.update(f, key, u64::from(key) + 100, BPF_ANY);
                } else {
                    let _ = TABLE.delete(f, key);
                }
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
                mix: write_mix(f, self.seed),
                add: write_add(f, self.seed),
                callbacks: std::cell::Cell::new(0),
                seed: self.seed,
                sum: f.stack::<Sum>(),
                bytes: f.stack::<u64>(),
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
        let plain = on_rbpf(seed).then(|| {
            let lowered = Target::rbpf().lower(&self.program());
            let lowered = lowered.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            Harness::new([lowered]).unwrap()
        });
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
                input: input.clone(),
                slots: [0; SLOTS],
                cells: [0; 4],
                table: std::array::from_fn(|key| (key < PRESENT).then_some(key as u64 + 100)),
            };
            machine.run(&self.statements);
            // The interpreter, on the same program, finds nothing to object to and leaves the same packet.
            let frame: Input = XdpInput::new(packet.clone()).into();
            let interpreted = match harness.xdp(&name, packet) {
                Ok(outcome) => (outcome.verdict, outcome.packet),
                Err(fault) => panic!("seed {seed}, run {run}: {fault}"),
            };
            let mut left = vec![("interpreter", interpreted)];
            if let Some(plain) = &plain {
                match rbpf::run(plain.machine(), plain.program(&name).unwrap(), frame) {
                    Ok(ran) => left.push(("rbpf", (ran.verdict, ran.packet))),
                    Err(error) => panic!("seed {seed}, run {run}: {error}"),
                }
            }
            for (engine, left) in left {
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
    let has = Has::of_the_kernel();
    let mut programs_run = 0;
    for seeds in batches() {
        let cases = seeds.iter().map(|&seed| Case::new(seed, has));
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
    let atomics = if has.atomics { "" } else { ", without atomics" };
    let helpers = if has.helpers {
        ""
    } else {
        ", without the newest helpers"
    };
    println!("{programs_run} random programs of the builder{atomics}{helpers}");
}
