//! Programs of the builder beside clang's for the same logic: instructions, native code, and time, after the same answers.

use std::path::Path;
use std::time::Duration;

use aya::programs::{TestRun, TestRunOptions, Xdp};
use bpf_asm::object::Object;
use bpf_asm::program::Program;

use crate::compiler::compiled;

/// A program in both languages, what its maps hold, and a frame on which to measure it.
pub(crate) struct Pair {
    pub(crate) program: Program,
    pub(crate) source: &'static str,
    pub(crate) fill: fn(&mut aya::Ebpf),
    pub(crate) frame: Vec<u8>,
}

/// What one of the two costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Instructions as the kernel runs them, its own inlining included.
    pub(crate) instructions: u32,
    /// Bytes of machine code.
    pub(crate) native_bytes: u32,
    /// Per packet.
    pub(crate) time: Duration,
}

struct Loaded {
    ebpf: aya::Ebpf,
    name: String,
}

impl Loaded {
    fn new(elf: &[u8], name: &str, fill: fn(&mut aya::Ebpf)) -> Loaded {
        let mut ebpf = aya::Ebpf::load(elf).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        fill(&mut ebpf);
        let name = name.to_owned();
        let mut loaded = Loaded { ebpf, name };
        let result = loaded.program().load();
        result.unwrap_or_else(|error| panic!("{}: {error}", loaded.name));
        loaded
    }

    fn program(&mut self) -> &mut Xdp {
        let program = self.ebpf.program_mut(&self.name);
        program.unwrap().try_into().unwrap()
    }

    fn answer(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; 4096];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let result = self.program().test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// The best of several series: what interrupts a series only adds.
    fn cost(&mut self, frame: &[u8], repeat: u32) -> Cost {
        let series = |program: &mut Xdp| {
            let options = TestRunOptions {
                data_in: Some(frame),
                repeat,
                ..TestRunOptions::default()
            };
            program.test_run(options).unwrap().duration
        };
        let time = (0..9).map(|_| series(self.program())).min().unwrap();
        let info = self.program().info().unwrap();
        Cost {
            instructions: info.size_translated().unwrap() / 8,
            native_bytes: info.size_jitted(),
            time,
        }
    }
}

impl Pair {
    /// The name, then the builder's cost and clang's. Both give the same answers to `frames`, or this panics.
    pub(crate) fn compare(self, frames: &[Vec<u8>], repeat: u32) -> (String, Cost, Cost) {
        let name = self.program.main.name.clone();
        let elf = Object::new("GPL").program(self.program).to_elf().unwrap();
        let mut ours = Loaded::new(&elf, &name, self.fill);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clang");
        let elf = compiled(&folder.join(self.source), &folder);
        let mut theirs = Loaded::new(&elf, &name, self.fill);
        for frame in frames {
            let (a, b) = (ours.answer(frame), theirs.answer(frame));
            assert_eq!(a, b, "{name}: {frame:x?}");
        }
        let frame = &self.frame;
        assert_eq!(ours.answer(frame), theirs.answer(frame), "{name}");
        let costs = (ours.cost(frame, repeat), theirs.cost(frame, repeat));
        (name, costs.0, costs.1)
    }
}
