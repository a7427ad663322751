//! The same in the builder.

use std::cell::Cell;

use bpf_asm::builder::{BPF_ANY, Cond, Function, Memory, Ptr, Subprogram, Val, Var, Xdp};
use bpf_asm::field;

use crate::native::{Native, with_width};
use crate::statement::{Change, Operand, Statement, Test};
use crate::{Cells, Counter, DIVIDE, KEYS, SLOTS, Sum, TABLE};

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

fn condition<'f, T: Native>(test: Test, a: Val<'f, u64>, b: Val<'f, u64>) -> Cond<'f> {
    let (a, b) = (a.cast::<T>(), b.cast::<T>());
    match test {
        Test::Eq => a.eq(b),
        Test::Lt => a.lt(b),
        Test::Ge => a.ge(b),
        Test::Any => (a & b).ne(T::of(0)),
    }
}

/// The same in the builder.
pub(crate) struct Writer<'f> {
    pub(crate) f: Function<'f, Xdp>,
    pub(crate) variables: Vec<Var<'f, u64>>,
    pub(crate) slots: Ptr<'f, [u64; SLOTS]>,
    pub(crate) cells: Ptr<'f, Cells>,
    pub(crate) mix: Subprogram<(u64, i16, u8), i32>,
    pub(crate) add: Subprogram<(Memory<u64>, u64), u64>,
    /// How many callbacks there are: each has a name of its own, in all programs of an object.
    pub(crate) callbacks: Cell<u32>,
    pub(crate) seed: u64,
    pub(crate) sum: Ptr<'f, Sum>,
    pub(crate) bytes: Ptr<'f, u64>,
}

pub(crate) fn write_mix(f: Function<'_, Xdp>, seed: u64) -> Subprogram<(u64, i16, u8), i32> {
    f.subprogram::<(u64, i16, u8), i32>(&format!("mix_{seed}"), |g, (a, b, c)| {
        g.if_(a.gt(1u64 << 40), || {
            g.return_value(b.cast::<i32>() - c.cast::<i32>());
        });
        g.return_value(a.cast::<i32>() + b.cast::<i32>() * 3i32);
    })
}

pub(crate) fn write_add(f: Function<'_, Xdp>, seed: u64) -> Subprogram<(Memory<u64>, u64), u64> {
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

    pub(crate) fn write(&self, statements: &[Statement]) {
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
                Statement::Budget {
                    rounds,
                    leave_below,
                    a,
                    inside,
                } => {
                    let (a, round) = (self.variables[*a], f.var(0u64));
                    f.loop_budget(|inner| {
                        f.if_(round.get().ge(*rounds), || inner.break_());
                        f.if_(a.get().lt(*leave_below), || inner.break_());
                        a.set(a.get() + round.get());
                        round.set(round.get() + 1u64);
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
