//! Loading and running, for all the tests here.

use std::os::unix::fs::MetadataExt;

use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use bpf_asm::object::Object;
use bpf_asm::program::{Program, ProgramKind};
use bpf_asm::target::{Answer, Target};

/// Whether tests can load programs.
pub(crate) fn is_root() -> bool {
    let owner = std::fs::metadata("/proc/self").unwrap().uid();
    if owner != 0 {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"SKIPPED: loading programs needs root\n",
        );
    }
    owner == 0
}

/// A loaded program.
pub(crate) struct Running {
    pub(crate) ebpf: Ebpf,
    name: String,
    kind: ProgramKind,
}

impl Running {
    pub(crate) fn new(program: Program) -> Running {
        let (name, kind) = (program.main.name.clone(), program.kind);
        let listing = bpf_asm::disasm::listing(&program.main).to_string();
        let elf = Object::new("GPL").program(program).to_elf().unwrap();
        let mut ebpf = Ebpf::load(&elf).unwrap_or_else(|error| panic!("{error:?}\n{listing}"));
        let program = ebpf.program_mut(&name).unwrap();
        let loaded = if kind == ProgramKind::Classifier {
            <&mut SchedClassifier>::try_from(program).unwrap().load()
        } else {
            <&mut Xdp>::try_from(program).unwrap().load()
        };
        if let Err(error) = loaded {
            panic!("{error}\n{listing}");
        }
        Running { ebpf, name, kind }
    }

    /// The program's answer to a packet, and the packet afterwards.
    pub(crate) fn run(&mut self, packet: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; 4096];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let program = self.ebpf.program_mut(&self.name).unwrap();
        let result = if self.kind == ProgramKind::Classifier {
            let program: &mut SchedClassifier = program.try_into().unwrap();
            program.test_run(options).unwrap()
        } else {
            let program: &mut Xdp = program.try_into().unwrap();
            program.test_run(options).unwrap()
        };
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// The answer to a packet of zeros.
    pub(crate) fn verdict(&mut self) -> u32 {
        self.run(&[0; 64]).0
    }
}

/// What the running kernel can do.
pub(crate) fn probed() -> Target {
    Target::probe(|program| Ok::<_, String>(load(program))).unwrap()
}

/// What the kernel says to a program without maps.
pub(crate) fn load(program: &Program) -> Answer {
    let elf = Object::new("GPL")
        .program(program.clone())
        .to_elf()
        .unwrap();
    let mut loader = aya::EbpfLoader::new();
    let mut ebpf = loader.load(&elf).unwrap();
    let name = &program.main.name;
    let loaded = if program.kind == ProgramKind::Classifier {
        let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load()
    } else {
        let program: &mut Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load()
    };
    match loaded {
        Ok(()) => Answer::Loaded,
        Err(aya::programs::ProgramError::LoadError { verifier_log, .. }) => {
            Answer::Refused(verifier_log.to_string())
        }
        Err(other) => panic!("{other}"),
    }
}
