//! The BTF of maps and functions.

use super::collect::{Parts, Role};
use crate::btf::{Btf, Linkage, Member, Placed, TypeId};
use crate::program::{Contents, Function, Global, MapDef, ProgramKind};

/// A map's variable is a struct of pointers, which nothing ever reads; only its type counts.
const POINTER_BYTES: u32 = 8;

/// A map's variable in `.maps`.
pub(super) struct MapPlace<'a> {
    pub(super) name: &'a str,
    pub(super) offset: u32,
    pub(super) size: u32,
}

/// Adds the maps' types; says where each one's variable is, and how long the section gets.
pub(super) fn add_maps<'a>(btf: &mut Btf, parts: &Parts<'a>) -> (Vec<MapPlace<'a>>, u32) {
    let mut places = Vec::new();
    let mut placed = Vec::new();
    let mut end = 0;
    for map in &parts.maps {
        if matches!(map.contents, Contents::Globals(_)) {
            continue;
        }
        let (ty, size) = map_type(btf, map);
        let variable = btf.variable(&map.name, ty, Linkage::Global);
        let offset = end;
        placed.push(Placed {
            variable,
            offset,
            size,
        });
        places.push(MapPlace {
            name: &map.name,
            offset,
            size,
        });
        end += size;
    }
    if !placed.is_empty() {
        btf.section(".maps", end, &placed);
    }
    (places, end)
}

/// `struct { int (*type)[N]; ... }`: each number is the length of an array that a member points to.
fn map_type(btf: &mut Btf, map: &MapDef) -> (TypeId, u32) {
    let int = btf.int("int", 4, true);
    let fields = [
        ("type", map.map_type as u32),
        ("key_size", map.key_size),
        ("value_size", map.value_size),
        ("max_entries", map.max_entries),
        ("map_flags", map.flags),
    ];
    let mut members = Vec::new();
    let mut bytes = 0;
    // A size of 0 is left out: libbpf takes a key size of 0 for a mistake, and absence for "no keys".
    for (name, number) in fields.into_iter().filter(|(_, number)| *number != 0) {
        let array = btf.array(int, int, number);
        members.push(Member {
            name,
            ty: btf.pointer(array),
            bit_offset: bytes * 8,
        });
        bytes += POINTER_BYTES;
    }
    if let Contents::Maps(inner) = &map.contents {
        // `struct {...} *values[]`: no more than the type of what it points to is asked for.
        let (structure, _) = map_type(btf, inner);
        let pointer = btf.pointer(structure);
        members.push(Member {
            name: "values",
            ty: btf.array(pointer, int, 0),
            bit_offset: bytes * 8,
        });
    }
    (btf.structure("", bytes, &members), bytes)
}

/// Adds a section of global variables, each as the bytes that it is.
pub(super) fn add_globals(btf: &mut Btf, section: &MapDef, globals: &[Global]) {
    let (byte, int) = (btf.int("u8", 1, false), btf.int("int", 4, true));
    let mut placed = Vec::new();
    for global in globals {
        // Object writers refuse sections of 4 GiB before.
        let size = u32::try_from(global.bytes.len()).unwrap_or(u32::MAX);
        let ty = btf.array(byte, int, size);
        let variable = btf.variable(&global.name, ty, Linkage::Global);
        let offset = global.offset;
        placed.push(Placed {
            variable,
            offset,
            size,
        });
    }
    btf.section(&section.name, section.value_size, &placed);
}

/// The context's struct. The verifier knows it by name; without members it is only that.
fn context(btf: &mut Btf, kind: ProgramKind) -> TypeId {
    let (name, bytes) = match kind {
        ProgramKind::Xdp | ProgramKind::XdpFrags => ("xdp_md", 24),
        ProgramKind::Classifier => ("__sk_buff", 192),
    };
    let structure = btf.structure(name, bytes, &[]);
    btf.pointer(structure)
}

/// Adds a function. Main functions are `int name(struct xdp_md *ctx)` or alike; subprograms take and return 64-bit
/// numbers, and are static so that the verifier follows what is really passed, pointers included.
pub(super) fn add_function(btf: &mut Btf, function: &Function, role: Role) -> TypeId {
    const PARAMETERS: [&str; 5] = ["r1", "r2", "r3", "r4", "r5"];
    let (prototype, linkage) = match role {
        Role::Main(kind) => {
            let int = btf.int("int", 4, true);
            let context = context(btf, kind);
            (btf.prototype(int, &[("ctx", context)]), Linkage::Global)
        }
        Role::Subprogram => {
            let word = btf.int("u64", 8, false);
            let parameters = PARAMETERS.map(|name| (name, word));
            let count = function.arguments.min(PARAMETERS.len());
            (btf.prototype(word, &parameters[..count]), Linkage::Static)
        }
    };
    btf.function(&function.name, prototype, linkage)
}
