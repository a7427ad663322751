//! Small programs in the assembler.

use bpf_asm::asm::Assembler;
use bpf_asm::interpreter::{Fault, FaultKind, Input, Machine, SkbInput, XdpInput};
use bpf_asm::program::{Function, MapDef, MapType, Program, ProgramKind};

pub(crate) fn function(name: &str, write: impl FnOnce(&mut Assembler)) -> Function {
    let mut assembler = Assembler::new(name);
    write(&mut assembler);
    assembler.finish().expect("it assembles")
}

pub(crate) fn program(
    kind: ProgramKind,
    maps: &[MapDef],
    write: impl FnOnce(&mut Assembler),
) -> Program {
    Program {
        kind,
        main: function("main", write),
        subprograms: Vec::new(),
        maps: maps.to_vec(),
    }
}

pub(crate) fn map(name: &str, map_type: MapType, sizes: (u32, u32), entries: u32) -> MapDef {
    MapDef {
        name: name.to_owned(),
        map_type,
        key_size: sizes.0,
        value_size: sizes.1,
        max_entries: entries,
        flags: 0,
        contents: bpf_asm::program::Contents::Empty,
    }
}

/// An array of one 16-byte value.
pub(crate) fn array() -> MapDef {
    map("array", MapType::Array, (4, 16), 1)
}

pub(crate) fn ring() -> MapDef {
    map("ring", MapType::RingBuf, (0, 0), 4096)
}

/// Runs an XDP program on 64 bytes.
pub(crate) fn xdp(maps: &[MapDef], write: impl FnOnce(&mut Assembler)) -> Result<u64, Fault> {
    let program = program(ProgramKind::Xdp, maps, write);
    run(&program, XdpInput::new(vec![7; 64]))
}

/// Runs a TC program on 64 bytes.
pub(crate) fn tc(write: impl FnOnce(&mut Assembler)) -> Result<u64, Fault> {
    let program = program(ProgramKind::Classifier, &[], write);
    run(&program, SkbInput::new(vec![7; 64]))
}

pub(crate) fn run(program: &Program, input: impl Into<Input>) -> Result<u64, Fault> {
    let machine = Machine::new();
    let id = machine.load(program).expect("it loads");
    machine.start(id, input).run()
}

/// How an XDP program fails.
#[track_caller]
pub(crate) fn fault(maps: &[MapDef], write: impl FnOnce(&mut Assembler)) -> FaultKind {
    match xdp(maps, write) {
        Ok(r0) => panic!("it ran, and returned {r0}"),
        Err(fault) => fault.kind,
    }
}
