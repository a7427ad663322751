//! A program of the builder from bytes, and what it comes to in Rust.

use bpf_asm::builder::{Function, Var, XDP_DROP, XDP_PASS, Xdp, xdp};
use bpf_asm::field;
use bpf_asm::harness::Harness;
use zerocopy::byteorder::{LE, U64};

const VARIABLES: usize = 4;
/// A loop is written out, so what is in loops in loops becomes long.
const MOST_STATEMENTS: usize = 40;
const MOST_DEPTH: usize = 3;

#[repr(C)]
struct Packet {
    values: [U64<LE>; VARIABLES],
}

enum Statement {
    Add(usize, usize),
    Multiply(usize, usize),
    Divide(usize, usize),
    Mix(usize, u64),
    Narrow(usize, usize),
    Shift(usize, u32),
    IfBelow(usize, usize, Vec<Statement>, Vec<Statement>),
    Repeat(u64, Vec<Statement>),
}

struct Reader<'a> {
    bytes: std::slice::Iter<'a, u8>,
    left: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0))
    }

    fn variable(&mut self) -> usize {
        self.byte() % VARIABLES
    }

    fn statements(&mut self, most: usize, depth: usize) -> Vec<Statement> {
        let mut statements = Vec::new();
        while statements.len() < most && self.left > 0 && self.bytes.len() > 0 {
            self.left -= 1;
            let nested = if depth > 0 { 8 } else { 6 };
            statements.push(match self.byte() % nested {
                0 => Statement::Add(self.variable(), self.variable()),
                1 => Statement::Multiply(self.variable(), self.variable()),
                2 => Statement::Divide(self.variable(), self.variable()),
                3 => Statement::Mix(
                    self.variable(),
                    (self.byte() as u64).wrapping_mul(0x0101_0101_8000_0001),
                ),
                4 => Statement::Narrow(self.variable(), self.variable()),
                5 => Statement::Shift(self.variable(), self.byte() as u32 % 64),
                6 => {
                    let (a, b) = (self.variable(), self.variable());
                    let (then, otherwise) = (self.byte() % 4, self.byte() % 4);
                    let then = self.statements(then, depth - 1);
                    Statement::IfBelow(a, b, then, self.statements(otherwise, depth - 1))
                }
                _ => {
                    let (rounds, inside) = (self.byte() as u64 % 4, self.byte() % 4);
                    Statement::Repeat(rounds, self.statements(inside, depth - 1))
                }
            });
        }
        statements
    }
}

fn write<'f>(f: Function<'f, Xdp>, variables: &[Var<'f, u64>], statements: &[Statement]) {
    let of = |number: usize| variables[number].get();
    for statement in statements {
        match statement {
            &Statement::Add(to, a) => variables[to].set(of(to) + of(a)),
            &Statement::Multiply(to, a) => variables[to].set(of(to) * of(a)),
            &Statement::Divide(to, a) => variables[to].set(of(to) / of(a)),
            &Statement::Mix(to, value) => variables[to].set(of(to) ^ f.value(value)),
            &Statement::Narrow(to, a) => {
                let sum = of(to).cast::<i16>() - of(a).cast::<i16>();
                variables[to].set(sum.cast::<u64>());
            }
            &Statement::Shift(to, by) => {
                variables[to].set(of(to) >> f.value(u64::from(by)));
            }
            Statement::IfBelow(a, b, then, otherwise) => f.if_else(
                of(*a).lt(of(*b)),
                || write(f, variables, then),
                || write(f, variables, otherwise),
            ),
            Statement::Repeat(rounds, inside) => {
                f.unroll(*rounds, |_, _| write(f, variables, inside));
            }
        }
    }
}

fn run(variables: &mut [u64; VARIABLES], statements: &[Statement]) {
    for statement in statements {
        match statement {
            &Statement::Add(to, a) => variables[to] = variables[to].wrapping_add(variables[a]),
            &Statement::Multiply(to, a) => {
                variables[to] = variables[to].wrapping_mul(variables[a]);
            }
            // By RFC 9669 a division by zero is zero.
            &Statement::Divide(to, a) => {
                variables[to] = variables[to].checked_div(variables[a]).unwrap_or(0);
            }
            &Statement::Mix(to, value) => variables[to] ^= value,
            &Statement::Narrow(to, a) => {
                let sum = (variables[to] as i16).wrapping_sub(variables[a] as i16);
                variables[to] = sum as u64;
            }
            &Statement::Shift(to, by) => variables[to] >>= by,
            Statement::IfBelow(a, b, then, otherwise) => {
                let taken = if variables[*a] < variables[*b] {
                    then
                } else {
                    otherwise
                };
                run(variables, taken);
            }
            Statement::Repeat(rounds, inside) => {
                for _ in 0..*rounds {
                    run(variables, inside);
                }
            }
        }
    }
}

/// The first bytes are the variables' values, the others the program.
pub(crate) fn check(data: &[u8]) {
    let Some((values, code)) = data.split_first_chunk::<{ 8 * VARIABLES }>() else {
        return;
    };
    let mut reader = Reader {
        bytes: code.iter(),
        left: MOST_STATEMENTS,
    };
    let statements = reader.statements(MOST_STATEMENTS, MOST_DEPTH);
    let program = xdp("fuzz", |f| {
        let packet = f.packet();
        let view = packet.view::<Packet>(0, || f.ret(XDP_DROP));
        let values = view.at(field!(Packet, values));
        let read = |number| f.var(values.element(number).read().to_native());
        let variables: Vec<_> = (0..VARIABLES).map(read).collect();
        write(f, &variables, &statements);
        for (number, variable) in variables.iter().enumerate() {
            values.element(number).write(variable.get().to_le());
        }
        f.ret(XDP_PASS);
    });
    let harness = Harness::new([program.expect("nothing of it is wrong")]).expect("it loads");
    let outcome = harness
        .xdp("fuzz", values.to_vec())
        .expect("it breaks no rule");
    let mut variables = std::array::from_fn(|at| {
        u64::from_le_bytes(*values[8 * at..].first_chunk().expect("eight"))
    });
    run(&mut variables, &statements);
    let left = variables.map(u64::to_le_bytes).concat();
    assert_eq!((outcome.verdict, outcome.packet), (XDP_PASS, left));
}
