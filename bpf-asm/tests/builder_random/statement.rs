//! Random programs as trees of statements.

use crate::{DIVIDE, MOST_VARIABLES, SLOTS};

/// xorshift64*: a generator that needs no crate.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn of(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    /// Small, large, at the edges of the widths.
    pub(crate) fn constant(&mut self) -> u64 {
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
pub(crate) enum Width {
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
pub(crate) enum Operand {
    Variable(usize),
    Constant(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Test {
    Eq,
    Lt,
    Ge,
    Any,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    And,
    Or,
    Xor,
    Exchange,
}

#[derive(Clone, Debug)]
pub(crate) enum Statement {
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
    /// A loop that the kernel has a budget for; it is left long before that is used up.
    Budget {
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

pub(crate) fn statements(
    random: &mut Random,
    variables: usize,
    depth: usize,
    many: usize,
) -> Vec<Statement> {
    (0..many)
        .map(|_| statement(random, variables, depth))
        .collect()
}

pub(crate) fn statement(random: &mut Random, variables: usize, depth: usize) -> Statement {
    use Width::{I8, I16, I32, I64, U8, U16, U32, U64};
    let width = [U8, U16, U32, U64, I8, I16, I32, I64, U64, U64, U32][random.below(11)];
    let [to, a, other] = [0; 3].map(|_| random.below(variables));
    let b = if random.below(3) == 0 {
        Operand::Constant(random.constant())
    } else {
        Operand::Variable(other)
    };
    match random.below(if depth == 0 { 23 } else { 29 }) {
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
        loops => {
            let many = 1 + random.below(4);
            // The verifier walks each round by itself: no loops or deep branches in loops.
            let inside = statements(random, variables, 0, many);
            let leave_below = if random.below(2) == 0 {
                random.next() >> 2
            } else {
                0
            };
            if loops == 28 {
                return Statement::Budget {
                    rounds: random.next() % 6,
                    leave_below,
                    a,
                    inside,
                };
            }
            Statement::Loop {
                rounds: 1 + random.next() % 5,
                leave_below,
                a,
                inside,
            }
        }
    }
}

pub(crate) fn uses_table(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::LookUp { .. } | Statement::Insert { .. } | Statement::Delete { .. }
    )
}

/// Takes out what `keep` doesn't want, at any depth.
pub(crate) fn retain(statements: &mut Vec<Statement>, keep: &dyn Fn(&Statement) -> bool) {
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
            Statement::Loop { inside, .. }
            | Statement::Budget { inside, .. }
            | Statement::Unroll { inside, .. } => vec![inside],
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
