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
    LruPerCpuHash = 10,
    LpmTrie = 11,
    ArrayOfMaps = 12,
    HashOfMaps = 13,
    DevMap = 14,
    CpuMap = 16,
    XskMap = 17,
    Queue = 22,
    Stack = 23,
    DevMapHash = 25,
    RingBuf = 27,
    Bloom = 30,
}

impl MapType {
    /// All of them.
    pub const ALL: [MapType; 18] = [
        MapType::Hash,
        MapType::Array,
        MapType::ProgArray,
        MapType::PerCpuHash,
        MapType::PerCpuArray,
        MapType::LruHash,
        MapType::LruPerCpuHash,
        MapType::LpmTrie,
        MapType::ArrayOfMaps,
        MapType::HashOfMaps,
        MapType::DevMap,
        MapType::CpuMap,
        MapType::XskMap,
        MapType::Queue,
        MapType::Stack,
        MapType::DevMapHash,
        MapType::RingBuf,
        MapType::Bloom,
    ];
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
    /// What a loader puts into it.
    pub contents: Contents,
}

/// What a map holds when it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing but zeros.
    Empty,
    /// The program's global variables: a section of the file (the map's name, [`RODATA`], [`DATA`] or [`BSS`]), which
    /// loaders turn into an array of one value. Instructions refer to it by `Imm64::MapValue` and the map's name.
    Globals(Vec<Global>),
    /// Maps that are all like this one (`BPF_MAP_TYPE_ARRAY_OF_MAPS`, `BPF_MAP_TYPE_HASH_OF_MAPS`).
    Maps(Box<MapDef>),
}

/// The section of constants: programs can't write to it.
pub const RODATA: &str = ".rodata";
/// The section of variables with a first value.
pub const DATA: &str = ".data";
/// The section of variables that begin as zeros.
pub const BSS: &str = ".bss";

/// A global variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// Its symbol.
    pub name: String,
    /// Bytes from the start of the section.
    pub offset: u32,
    /// Its bytes at the start; in [`BSS`] they are zeros.
    pub bytes: Vec<u8>,
}

impl MapDef {
    /// The bytes of a section of global variables; empty for other maps.
    #[must_use]
    pub fn global_bytes(&self) -> Vec<u8> {
        let Contents::Globals(globals) = &self.contents else {
            return Vec::new();
        };
        let mut bytes = vec![0; self.value_size as usize];
        for global in globals {
            let place = bytes.iter_mut().skip(global.offset as usize);
            place.zip(&global.bytes).for_each(|(to, from)| *to = *from);
        }
        bytes
    }
}

/// What an instruction refers to that is only known when the program is loaded or linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A map, by name: the instruction is a 64-bit immediate load (`R_BPF_64_64`) of the map or of a byte in its value.
    Map(String),
    /// A subprogram of the same program, by name: the instruction is a local call (`R_BPF_64_32`), or a 64-bit immediate
    /// load of the function's address (`R_BPF_64_64`).
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
