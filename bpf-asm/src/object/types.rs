//! The BTF of maps and functions.

use super::collect::Parts;
use crate::btf::{Btf, Linkage, Member, Placed, TypeId};
use crate::program::{Function, MapDef};

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
    (btf.structure("", bytes, &members), bytes)
}

/// Adds a function. Main functions are `int name(void *ctx)`; subprograms take and return 64-bit numbers, and are
/// static so that the verifier follows what is really passed, pointers included.
pub(super) fn add_function(btf: &mut Btf, function: &Function, is_subprogram: bool) -> TypeId {
    const PARAMETERS: [&str; 5] = ["r1", "r2", "r3", "r4", "r5"];
    let (prototype, linkage) = if is_subprogram {
        let word = btf.int("u64", 8, false);
        let parameters: Vec<_> = PARAMETERS.into_iter().map(|name| (name, word)).collect();
        let count = function.arguments.min(PARAMETERS.len());
        (btf.prototype(word, &parameters[..count]), Linkage::Static)
    } else {
        let int = btf.int("int", 4, true);
        let context = btf.pointer(TypeId::VOID);
        (btf.prototype(int, &[("ctx", context)]), Linkage::Global)
    };
    btf.function(&function.name, prototype, linkage)
}
