//! What a program computes, in Rust.

use bpf_asm::builder::Int;

use crate::statement::{Change, Operand, Statement, Test};
use crate::{DIVIDE, KEYS, SLOTS};

/// The program's state in Rust.
pub(crate) struct Machine {
    pub(crate) input: Vec<u64>,
    pub(crate) variables: Vec<u64>,
    pub(crate) slots: [u64; SLOTS],
    pub(crate) cells: [u64; 4],
    pub(crate) table: [Option<u64>; KEYS],
}

/// What the subprogram `mix` computes.
pub(crate) fn mix(a: u64, b: i16, c: u8) -> i32 {
    if a > 1 << 40 {
        return i32::from(b).wrapping_sub(i32::from(c));
    }
    (a as i32).wrapping_add(i32::from(b) * 3)
}

macro_rules! with_width {
    ($width:expr, $function:ident ( $($argument:expr),* )) => {
        match $width {
            $crate::statement::Width::U8 => $function::<u8>($($argument),*),
            $crate::statement::Width::U16 => $function::<u16>($($argument),*),
            $crate::statement::Width::U32 => $function::<u32>($($argument),*),
            $crate::statement::Width::U64 => $function::<u64>($($argument),*),
            $crate::statement::Width::I8 => $function::<i8>($($argument),*),
            $crate::statement::Width::I16 => $function::<i16>($($argument),*),
            $crate::statement::Width::I32 => $function::<i32>($($argument),*),
            $crate::statement::Width::I64 => $function::<i64>($($argument),*),
        }
    };
}

pub(crate) use with_width;

/// Arithmetic in Rust and in the builder by the same names.
pub(crate) trait Native: Int + PartialOrd {
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

pub(crate) fn computed<T: Native>(operation: usize, a: u64, b: u64) -> u64 {
    T::compute(operation, T::of(a), T::of(b)).out()
}

pub(crate) fn holds<T: Native>(test: Test, a: u64, b: u64) -> bool {
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

    pub(crate) fn run(&mut self, statements: &[Statement]) {
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
                }
                | Statement::Budget {
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
