//! Random programs of plain instructions on every engine: the interpreter, the kernel, and (without what it gets wrong) rbpf.
//! What this kernel lacks is replaced by what it has before it runs there, or isn't in the programs.
//!
//! `RAW_PROGRAMS` says how many, `RAW_SECONDS` for how long instead, `RAW_SEED` runs the program of one seed.

use std::time::{Duration, Instant};

use bpf_asm::engine::{Answer, Engine, EngineError, Interpreter, Kernel, Rbpf};
use bpf_asm::insn::{AluOp, AtomicOp, EndianKind, Insn, JumpOp, Reg, Size, Source, Width};
use bpf_asm::program::{Function, Line};
use bpf_asm::target::{Feature, Target};

const PROGRAMS: u64 = 2_000;
/// Of the programs that rbpf runs too, how many the kernel runs: those for the kernel alone have all that these have.
const PLAIN_PROGRAMS_IN_KERNEL: u64 = 300;
/// Programs between two looks at the clock, with the same memory.
const BATCH: u64 = 10;
/// Bytes of memory: a part to compute with, then a word for each register's last value.
const WORK_BYTES: usize = 96;
const MEMORY_BYTES: usize = WORK_BYTES + 8 * SCALARS.len();
/// Registers that hold numbers. r6 points to memory.
const SCALARS: [Reg; 9] = [
    Reg::R0,
    Reg::R1,
    Reg::R2,
    Reg::R3,
    Reg::R4,
    Reg::R5,
    Reg::R7,
    Reg::R8,
    Reg::R9,
];
/// Stack bytes that programs use.
const STACK_BYTES: i16 = 64;

const ALU: [AluOp; 14] = [
    AluOp::Add,
    AluOp::Sub,
    AluOp::Mul,
    AluOp::Div,
    AluOp::Or,
    AluOp::And,
    AluOp::Lsh,
    AluOp::Rsh,
    AluOp::Mod,
    AluOp::Xor,
    AluOp::Mov,
    AluOp::Arsh,
    AluOp::SDiv,
    AluOp::SMod,
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
const ATOMICS: [AtomicOp; 12] = [
    AtomicOp::Add,
    AtomicOp::And,
    AtomicOp::Or,
    AtomicOp::Xor,
    AtomicOp::FetchAdd,
    AtomicOp::FetchAnd,
    AtomicOp::FetchOr,
    AtomicOp::FetchXor,
    AtomicOp::Exchange,
    AtomicOp::CompareExchange,
    AtomicOp::LoadAcquire,
    AtomicOp::StoreRelease,
];
const SIZES: [Size; 4] = [Size::B, Size::H, Size::W, Size::DW];

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

    fn word(&mut self) -> u64 {
        let random = self.next();
        match self.below(6) {
            0 => random,
            1 => random & 0xff,
            2 => u64::from(random as u32),
            3 => self.of(&[
                0,
                1,
                u64::MAX,
                1 << 63,
                (1 << 63) - 1,
                1 << 31,
                (1 << 31) - 1,
            ]),
            4 => (random as i32 as i64) as u64,
            _ => 0xffff_ffff_0000_0000 | random & 0xf,
        }
    }

    fn imm(&mut self) -> i32 {
        match self.below(4) {
            0 => self.next() as i32,
            1 => self.of(&[0, 1, -1, i32::MIN, i32::MAX]),
            _ => self.below(64) as i32 - 20,
        }
    }
}

/// What a program may use.
#[derive(Clone)]
struct Dialect {
    /// Only what rbpf has and gets right.
    plain: bool,
    target: Target,
}

impl Dialect {
    /// What the kernel that `target` describes has, or what can be replaced there.
    fn of(target: &Target) -> Dialect {
        let replaced = [
            Feature::SignExtendingMove,
            Feature::SignExtendingLoad,
            Feature::ByteSwap,
            Feature::SignedDivision,
        ];
        Dialect {
            plain: false,
            target: replaced.into_iter().fold(target.clone(), Target::with),
        }
    }

    fn has(&self, insn: &Insn) -> bool {
        Feature::of(insn).is_none_or(|feature| self.target.has(feature))
    }
}

struct Writer {
    random: Random,
    dialect: Dialect,
    insns: Vec<Insn>,
}

impl Writer {
    /// The first of the random instructions that the dialect has.
    fn any(&mut self, write: impl Fn(&mut Writer) -> Insn) -> Insn {
        loop {
            let insn = write(self);
            if self.dialect.has(&insn) {
                return insn;
            }
        }
    }

    fn scalar(&mut self) -> Reg {
        self.random.of(&SCALARS)
    }

    fn operand(&mut self) -> Source {
        match self.random.below(3) {
            0 => Source::Imm(self.random.imm()),
            _ => Source::Reg(self.scalar()),
        }
    }

    /// An aligned place in memory or on the stack.
    fn place(&mut self, size: Size, stack: bool) -> (Reg, i16) {
        let bytes = i16::from(size.bytes());
        if stack {
            let at = self.random.below((STACK_BYTES / bytes) as usize) as i16;
            (Reg::R10, at * bytes - STACK_BYTES)
        } else {
            let at = self.random.below(WORK_BYTES - bytes as usize + 1);
            (Reg::R6, at as i16)
        }
    }

    fn arithmetic(&mut self) -> Insn {
        let (width, dst) = (self.random.of(&[Width::W32, Width::W64]), self.scalar());
        let plain = self.dialect.plain;
        match self.random.below(8) {
            0 if !plain => {
                let bits = match width {
                    Width::W32 => self.random.of(&[8, 16]),
                    Width::W64 => self.random.of(&[8, 16, 32]),
                };
                let src = self.scalar();
                return Insn::MovSx {
                    width,
                    bits,
                    dst,
                    src,
                };
            }
            1 if !plain || width == Width::W32 => return Insn::Neg { width, dst },
            2 => {
                let kinds = [EndianKind::ToLe, EndianKind::ToBe, EndianKind::Swap];
                let kind = self.random.of(&kinds[..if plain { 2 } else { 3 }]);
                let bits = self.random.of(&[16, 32, 64]);
                return Insn::Endian { kind, bits, dst };
            }
            _ => {}
        }
        loop {
            let op = self.random.of(&ALU);
            let mut src = self.operand();
            match (op, src) {
                (AluOp::SDiv | AluOp::SMod, _) if plain => continue,
                // rbpf keeps the upper half when the divisor is zero.
                (AluOp::Mod, Source::Reg(_)) if plain && width == Width::W32 => continue,
                // The verifier refuses what is constantly wrong.
                (AluOp::Div | AluOp::Mod | AluOp::SDiv | AluOp::SMod, Source::Imm(0)) => continue,
                (AluOp::Lsh | AluOp::Rsh | AluOp::Arsh, Source::Imm(by)) => {
                    let bits = if width == Width::W32 { 32 } else { 64 };
                    src = Source::Imm(by.rem_euclid(bits));
                }
                _ => {}
            }
            return Insn::Alu {
                width,
                op,
                dst,
                src,
            };
        }
    }

    fn memory(&mut self) -> Insn {
        let size = self.random.of(&SIZES);
        let stack = self.random.below(2) == 0;
        match self.random.below(4) {
            0 | 1 => {
                let signed = !self.dialect.plain && size != Size::DW && self.random.below(2) == 0;
                let (base, offset) = self.place(size, stack);
                let dst = self.scalar();
                Insn::Load {
                    size,
                    signed,
                    dst,
                    base,
                    offset,
                }
            }
            2 => {
                let (base, offset) = self.place(size, stack);
                let src = self.operand();
                Insn::Store {
                    size,
                    base,
                    offset,
                    src,
                }
            }
            _ => {
                let op = self.random.of(&ATOMICS);
                let any = matches!(op, AtomicOp::LoadAcquire | AtomicOp::StoreRelease);
                let size = if any {
                    size
                } else {
                    self.random.of(&[Size::W, Size::DW])
                };
                // The kernel allows none on a packet.
                let (base, offset) = self.place(size, true);
                let src = self.scalar();
                Insn::Atomic {
                    size,
                    op,
                    base,
                    offset,
                    src,
                }
            }
        }
    }

    /// A jump over the next few instructions.
    fn jump(&mut self, over: i16) -> Insn {
        let (width, op, dst) = (
            self.random.of(&[Width::W32, Width::W64]),
            self.random.of(&JUMPS),
            self.scalar(),
        );
        let mut src = self.operand();
        if let (true, Source::Imm(imm)) = (self.dialect.plain, src) {
            // rbpf doesn't sign-extend them.
            src = Source::Imm(imm & i32::MAX);
        }
        match self.random.below(12) {
            0 => Insn::Goto { offset: over },
            1 if !self.dialect.plain => Insn::GotoLong {
                offset: over.into(),
            },
            2 if !self.dialect.plain => Insn::MayGoto { offset: over },
            _ => Insn::Jump {
                width,
                op,
                dst,
                src,
                offset: over,
            },
        }
    }

    fn write(mut self) -> Vec<Insn> {
        let mov = |dst, src| Insn::Alu {
            width: Width::W64,
            op: AluOp::Mov,
            dst,
            src,
        };
        self.insns.push(mov(Reg::R6, Source::Reg(Reg::R1)));
        for (at, dst) in SCALARS.into_iter().enumerate() {
            self.insns.push(Insn::Load {
                size: Size::DW,
                signed: false,
                dst,
                base: Reg::R6,
                offset: 8 * at as i16,
            });
        }
        for at in 1..=STACK_BYTES / 8 {
            let src = self.scalar();
            self.insns.push(Insn::Store {
                size: Size::DW,
                base: Reg::R10,
                offset: -8 * at,
                src: Source::Reg(src),
            });
        }
        let pieces = 10 + self.random.below(50);
        for _ in 0..pieces {
            // A jump, and what it jumps over: single-slot instructions all.
            let over = if self.random.below(6) == 0 {
                self.random.below(5)
            } else {
                0
            };
            if over > 0 {
                let jump = self.any(|writer| writer.jump(over as i16));
                if matches!(jump, Insn::Goto { .. } | Insn::GotoLong { .. }) {
                    // The verifier refuses code that no jump leads to.
                    let (dst, src) = (self.scalar(), Source::Reg(self.scalar()));
                    let (width, op) = (Width::W64, self.random.of(&JUMPS));
                    self.insns.push(Insn::Jump {
                        width,
                        op,
                        dst,
                        src,
                        offset: 1,
                    });
                }
                self.insns.push(jump);
            }
            for _ in 0..over.max(1) {
                let insn = match self.random.below(3) {
                    0 => self.any(Writer::memory),
                    _ => self.any(Writer::arithmetic),
                };
                self.insns.push(insn);
            }
            if self.random.below(10) == 0 {
                let (dst, value) = (self.scalar(), self.random.word());
                let value = bpf_asm::insn::Imm64::Value(value);
                self.insns.push(Insn::LoadImm64 { dst, value });
            }
        }
        for (at, src) in SCALARS.into_iter().enumerate() {
            self.insns.push(Insn::Store {
                size: Size::DW,
                base: Reg::R6,
                offset: (WORK_BYTES + 8 * at) as i16,
                src: Source::Reg(src),
            });
        }
        // What the stack holds goes into r0.
        for at in 1..=STACK_BYTES / 8 {
            self.insns.push(Insn::Load {
                size: Size::DW,
                signed: false,
                dst: Reg::R1,
                base: Reg::R10,
                offset: -8 * at,
            });
            for (op, src) in [
                (AluOp::Mul, Source::Imm(31)),
                (AluOp::Xor, Source::Reg(Reg::R1)),
            ] {
                self.insns.push(Insn::Alu {
                    width: Width::W64,
                    op,
                    dst: Reg::R0,
                    src,
                });
            }
        }
        self.insns.push(Insn::Exit);
        self.insns
    }
}

fn program(seed: u64, dialect: &Dialect) -> Vec<Insn> {
    let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
    Writer {
        random,
        dialect: dialect.clone(),
        insns: Vec::new(),
    }
    .write()
}

fn memory(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let words = (0..MEMORY_BYTES / 8).map(|_| random.word().to_le_bytes());
    words.collect::<Vec<_>>().concat()
}

fn encoded(insns: &[Insn]) -> Vec<u8> {
    let mut slots = Vec::new();
    insns.iter().for_each(|insn| insn.encode(&mut slots));
    slots.concat()
}

fn listing(insns: &[Insn]) -> String {
    insns.iter().map(|insn| format!("{insn}\n")).collect()
}

/// The seeds, in batches: as many as asked for, or until the time is over.
fn batches() -> impl Iterator<Item = Vec<u64>> {
    let variable = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seconds: Option<u64> = variable("RAW_SECONDS");
    let (from, to) = match variable("RAW_SEED") {
        Some(seed) => (seed, seed + 1),
        None if seconds.is_some() => (0, u64::MAX),
        None => (0, variable("RAW_PROGRAMS").unwrap_or(PROGRAMS)),
    };
    let began = Instant::now();
    let in_time =
        move || seconds.is_none_or(|seconds| began.elapsed() < Duration::from_secs(seconds));
    (from..to)
        .step_by(usize::try_from(BATCH).unwrap())
        .take_while(move |first| *first == from || in_time())
        .map(move |first| (first..to.min(first + BATCH)).collect())
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t"))
}

/// What the kernel answers to the programs, in its own instructions.
fn in_kernel(
    target: &Target,
    programs: &[Vec<Insn>],
    memory: &[u8],
) -> Vec<Result<Answer, EngineError>> {
    let line = Line {
        file: "random",
        line: 1,
        column: 1,
    };
    let answers = programs.iter().map(|insns| {
        let function = Function {
            name: "random".into(),
            arguments: 2,
            lines: vec![line; insns.len()],
            insns: insns.clone(),
            relocations: Vec::new(),
        };
        let lowered = target.lower_function(&function);
        let lowered = lowered.unwrap_or_else(|error| panic!("{error}\n{}", listing(insns)));
        Kernel.run(&encoded(&lowered.insns), memory)
    });
    answers.collect()
}

#[track_caller]
fn interpreted(seed: u64, insns: &[Insn], memory: &[u8]) -> Answer {
    let answer = Interpreter.run(&encoded(insns), memory);
    answer.unwrap_or_else(|error| panic!("seed {seed}: {error}\n{}", listing(insns)))
}

#[track_caller]
fn agree(seed: u64, insns: &[Insn], a: &Answer, b: Result<Answer, EngineError>, name: &str) {
    let b = match b {
        Ok(b) => b,
        Err(error) => panic!("seed {seed}: {name}: {error}\n{}", listing(insns)),
    };
    assert_eq!(
        a,
        &b,
        "seed {seed}: interpreter, {name}\n{}",
        listing(insns)
    );
}

#[test]
fn the_kernel_ends_random_programs_in_the_state_of_the_interpreter() {
    if !is_root() {
        eprintln!("skipped: programs in the kernel need root");
        return;
    }
    let target = Kernel.target().unwrap();
    let dialect = Dialect::of(&target);
    let mut programs_run = 0;
    for (batch, seeds) in batches().enumerate() {
        let memory = memory(batch as u64);
        let programs: Vec<Vec<Insn>> = seeds.iter().map(|seed| program(*seed, &dialect)).collect();
        let answers = in_kernel(&target, &programs, &memory);
        for ((seed, insns), kernel) in seeds.iter().zip(&programs).zip(answers) {
            let ours = interpreted(*seed, insns, &memory);
            agree(*seed, insns, &ours, kernel, "kernel");
            programs_run += 1;
        }
    }
    let lacks = Feature::ALL.iter().filter(|feature| !target.has(**feature));
    let lacks: Vec<String> = lacks.map(Feature::to_string).collect();
    println!(
        "{programs_run} random programs; this kernel lacks: {}",
        lacks.join(", ")
    );
}

#[test]
fn all_engines_end_plain_random_programs_in_the_same_state() {
    let root = is_root();
    let target = if root {
        Kernel.target().unwrap()
    } else {
        eprintln!("skipped: programs in the kernel need root");
        Target::everything()
    };
    let dialect = Dialect {
        plain: true,
        ..Dialect::of(&target)
    };
    let timed = std::env::var("RAW_SECONDS").is_ok();
    let mut programs_run = 0;
    for seeds in batches() {
        let memory = memory(seeds[0]);
        let programs: Vec<Vec<Insn>> = seeds.iter().map(|seed| program(*seed, &dialect)).collect();
        let wanted = root && (timed || programs_run < PLAIN_PROGRAMS_IN_KERNEL);
        let kernel = wanted.then(|| in_kernel(&target, &programs, &memory));
        let mut kernel = kernel.into_iter().flatten();
        for (seed, insns) in seeds.iter().zip(&programs) {
            let ours = interpreted(*seed, insns, &memory);
            agree(
                *seed,
                insns,
                &ours,
                Rbpf.run(&encoded(insns), &memory),
                "rbpf",
            );
            if let Some(kernel) = kernel.next() {
                agree(*seed, insns, &ours, kernel, "kernel");
            }
            programs_run += 1;
        }
    }
    println!("{programs_run} plain random programs");
}

#[test]
fn every_operation_of_both_widths_occurs_in_the_random_programs() {
    let insns: Vec<Insn> = (0..200)
        .flat_map(|seed| program(seed, &Dialect::of(&Target::everything())))
        .collect();
    for width in [Width::W32, Width::W64] {
        for wanted in ALU {
            for register in [false, true] {
                let found = insns.iter().any(|insn| {
                    matches!(insn, Insn::Alu { width: w, op, src, .. }
                        if *w == width && *op == wanted && matches!(src, Source::Reg(_)) == register)
                });
                assert!(found, "{width:?} {wanted:?}");
            }
        }
        for wanted in JUMPS {
            let found = insns.iter().any(
                |insn| matches!(insn, Insn::Jump { width: w, op, .. } if *w == width && *op == wanted),
            );
            assert!(found, "{width:?} {wanted:?}");
        }
    }
    for wanted in ATOMICS {
        let found = |size: Size| {
            insns.iter().any(
                |insn| matches!(insn, Insn::Atomic { size: s, op, .. } if *s == size && *op == wanted),
            )
        };
        assert!(found(Size::W) && found(Size::DW), "{wanted:?}");
    }
}
