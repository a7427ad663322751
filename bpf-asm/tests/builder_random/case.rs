//! One seed's program, on the kernel, the interpreter and rbpf.

use std::cell::Cell;

use aya::EbpfLoader;
use aya::programs::{TestRun, TestRunOptions, Xdp as Loaded};
use bpf_asm::builder::{BPF_ANY, XDP_DROP, XDP_PASS, xdp, xdp_for};
use bpf_asm::engine::{Kernel, rbpf};
use bpf_asm::field;
use bpf_asm::harness::Harness;
use bpf_asm::interpreter::{Input, XdpInput};
use bpf_asm::object::Object;
use bpf_asm::program::Program;
use bpf_asm::target::{Feature, Target};

use crate::native::Machine;
use crate::statement::{Random, Statement, retain, statements, uses_table};
use crate::writer::{Writer, write_add, write_mix};
use crate::{CELLS, Cells, Counter, KEYS, MOST_VARIABLES, PRESENT, Packet, SLOTS, Sum, TABLE};

/// What the kernel at hand has of what programs may use.
#[derive(Clone, Copy)]
pub(crate) struct Has {
    pub(crate) atomics: bool,
    /// bpf_loop and bpf_xdp_load_bytes, of Linux 5.17 and 5.18.
    pub(crate) helpers: bool,
    /// may_goto, of Linux 6.9.
    pub(crate) budget: bool,
}

impl Has {
    pub(crate) fn of_the_kernel() -> Has {
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
        let target = Kernel.target().unwrap();
        Has {
            atomics: target.has(Feature::Atomics),
            budget: target.has(Feature::MayGoto),
            helpers: loaded.load().is_ok(),
        }
    }

    fn statement(self, statement: &Statement) -> bool {
        match statement {
            Statement::FetchAdd { .. }
            | Statement::CompareExchange { .. }
            | Statement::Change { .. } => self.atomics,
            Statement::Callback { .. } | Statement::LoadBytes { .. } => self.helpers,
            Statement::Budget { .. } => self.budget,
            _ => true,
        }
    }
}

/// Whether rbpf runs the program of a seed too.
pub(crate) fn on_rbpf(seed: u64) -> bool {
    seed % 2 == 1
}

pub(crate) fn rbpf_has(statement: &Statement) -> bool {
    !uses_table(statement)
        && !matches!(
            statement,
            Statement::Callback { .. } | Statement::LoadBytes { .. } | Statement::Budget { .. }
        )
}

pub(crate) struct Case {
    seed: u64,
    random: Random,
    variables: usize,
    statements: Vec<Statement>,
}

impl Case {
    pub(crate) fn new(seed: u64, has: Has) -> Case {
        let mut random = Random::of(seed);
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

    pub(crate) fn program(&self) -> Program {
        // Whatever else is newer is written by what all kernels have.
        let target = Target::common().with(Feature::MayGoto);
        xdp_for(&target, &self.name(), |f| {
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
                callbacks: Cell::new(0),
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
    pub(crate) fn check(&mut self, ebpf: &mut aya::Ebpf) {
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
