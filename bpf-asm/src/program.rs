//! A finished program: what the builder and the assembler produce, and what the object writer packs.

use std::panic::Location;

use crate::insn::Insn;

/// Where in the author's Rust source an instruction was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The Rust file as `#[track_caller]` names it.
    pub file: &'static str,
    /// Its line, from 1.
    pub line: u32,
    /// Its column, from 1.
    pub column: u32,
}

impl From<&'static Location<'static>> for Line {
    fn from(at: &'static Location<'static>) -> Line {
        Line {
            file: at.file(),
            line: at.line(),
            column: at.column(),
        }
    }
}

/// Which hook a program is for; it decides the ELF section, the context and the helpers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProgramKind {
    /// XDP, section `xdp`.
    Xdp,
    /// XDP that accepts multi-buffer packets, section `xdp.frags`.
    XdpFrags,
    /// TC ingress or egress, section `classifier`.
    Classifier,
}

/// A map type, numbered as in the kernel's `enum bpf_map_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum MapType {
    Hash = 1,
    Array = 2,
    ProgArray = 3,
    PerCpuHash = 5,
    PerCpuArray = 6,
    LruHash = 9,
    LpmTrie = 11,
    DevMap = 14,
    XskMap = 17,
    Queue = 22,
    RingBuf = 27,
    Bloom = 30,
}

/// A map's definition, as BTF describes it in `.maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapDef {
    /// The ELF symbol; at most 15 bytes (the kernel's BPF_OBJ_NAME_LEN).
    pub name: String,
    /// The type.
    pub map_type: MapType,
    /// Bytes per key; 0 for a ring buffer.
    pub key_size: u32,
    /// Bytes per value; 0 for a ring buffer.
    pub value_size: u32,
    /// Entries, or bytes of a ring buffer.
    pub max_entries: u32,
    /// `BPF_F_*` flags, for example `BPF_F_MMAPABLE` (1 << 10).
    pub flags: u32,
}

/// What an instruction refers to that is only known when the program is loaded or linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A map, by name: the instruction is a 64-bit immediate load (`R_BPF_64_64`).
    Map(String),
    /// A subprogram of the same program, by name: the instruction is a local call (`R_BPF_64_32`).
    Subprogram(String),
}

/// One relocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The index of the instruction in [`Function::insns`] (a 64-bit immediate load counts as one here).
    pub at: usize,
    /// What it refers to.
    pub target: Target,
}

/// The main function or a subprogram. Jumps are relative in encoded 8-byte slots, as in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The symbol.
    pub name: String,
    /// How many arguments (r1..) it takes; the main function takes 1, the context.
    pub arguments: usize,
    /// The instructions.
    pub insns: Vec<Insn>,
    /// For each instruction, where it was written; as long as `insns`.
    pub lines: Vec<Line>,
    /// The relocations, in order.
    pub relocations: Vec<Relocation>,
}

/// A program ready for the object writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The hook.
    pub kind: ProgramKind,
    /// The main function; its name is the program's.
    pub main: Function,
    /// Subprograms called by it.
    pub subprograms: Vec<Function>,
    /// Every map that it uses.
    pub maps: Vec<MapDef>,
}
