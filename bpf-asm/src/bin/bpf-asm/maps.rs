//! The maps of an object, as its BTF describes them, and its sections of global variables.

use bpf_asm::program::{BSS, Contents, DATA, Global, MapDef, MapType, RODATA};
use bpf_asm::text::map_lines;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

use crate::btf::{Btf, Type};

/// `BPF_F_RDONLY_PROG`: programs can't write to the section of constants.
const RDONLY_PROG: u32 = 1 << 7;

/// Bytes of a section of variables that are read.
const MAX_SECTION_BYTES: u64 = 1 << 20;

/// The maps of an object as lines of text, in the order of its sections. A map that lines can't say is a comment that tells why:
/// the functions can be read all the same.
pub(crate) fn text(file: &ElfFile64<'_>) -> Result<String, String> {
    let said = |error: object::Error| error.to_string();
    let mut text = String::new();
    let mut put = |map: Result<MapDef, String>| match map {
        Ok(map) => text.push_str(&map_lines(&map)),
        Err(why) => text.push_str(&format!("; {why}\n")),
    };
    if let Some(section) = file.section_by_name(".BTF") {
        let btf = Btf::parse(section.data().map_err(said)?)?;
        for (name, structure) in btf.variables_of(".maps") {
            put(map(&btf, name, structure));
        }
    } else if file.section_by_name(".maps").is_some() {
        put(Err(
            "there are maps, and no `.BTF` that says what they are".into()
        ));
    }
    for name in [RODATA, DATA, BSS] {
        if let Some(section) = file.section_by_name(name).filter(|s| s.size() > 0) {
            put(variables(file, &section, name));
        }
    }
    Ok(text)
}

/// A map by the members of the struct that its variable is.
fn map(btf: &Btf<'_>, name: &str, structure: u32) -> Result<MapDef, String> {
    let Type::Struct { members } = btf.resolved(structure)? else {
        return Err(format!("the map `{name}` is no struct in `.BTF`"));
    };
    let mut map = MapDef {
        name: name.to_owned(),
        map_type: MapType::Hash,
        key_size: 0,
        value_size: 0,
        max_entries: 0,
        flags: 0,
        contents: Contents::Empty,
    };
    let mut map_type = None;
    for (member, ty) in members {
        match member {
            "type" => map_type = Some(btf.number(ty)?),
            "key_size" => map.key_size = btf.number(ty)?,
            "value_size" => map.value_size = btf.number(ty)?,
            "max_entries" => map.max_entries = btf.number(ty)?,
            "map_flags" => map.flags = btf.number(ty)?,
            "key" => map.key_size = btf.pointee_bytes(ty)?,
            "value" => map.value_size = btf.pointee_bytes(ty)?,
            "values" => {
                if let Some(inner) = btf.values(ty)? {
                    let inner = self::map(btf, name, inner)?;
                    map.contents = Contents::Maps(Box::new(inner));
                }
            }
            other => {
                return Err(format!(
                    "the map `{name}` has a member `{other}`, which a `.map` line can't say"
                ));
            }
        }
    }
    let Some(number) = map_type else {
        return Err(format!("the map `{name}` has no type in `.BTF`"));
    };
    map.map_type = MapType::ALL
        .into_iter()
        .find(|known| *known as u32 == number)
        .ok_or_else(|| format!("the map `{name}` is of type {number}, which isn't known here"))?;
    // A file descriptor, which needn't be said.
    if matches!(map.contents, Contents::Maps(_)) && map.value_size == 0 {
        map.value_size = 4;
    }
    Ok(map)
}

/// A section of variables: those that have symbols, with their bytes.
fn variables<'d>(
    file: &ElfFile64<'_>,
    section: &impl ObjectSection<'d>,
    name: &str,
) -> Result<MapDef, String> {
    let said = |error: object::Error| error.to_string();
    if section.size() > MAX_SECTION_BYTES {
        return Err(format!("{name} has more than {MAX_SECTION_BYTES} bytes"));
    }
    let mut data = match section.kind() {
        SectionKind::UninitializedData => Vec::new(),
        _ => section.data().map_err(said)?.to_vec(),
    };
    data.resize(usize::try_from(section.size()).unwrap_or(0), 0);
    let mut globals = Vec::new();
    for symbol in file.symbols() {
        let is_variable = symbol.section_index() == Some(section.index())
            && symbol.kind() != SymbolKind::Section
            && symbol.size() > 0;
        if !is_variable {
            continue;
        }
        let place = usize::try_from(symbol.address()).ok();
        let place = place.zip(usize::try_from(symbol.size()).ok());
        let place = place.and_then(|(at, size)| Some(at..at.checked_add(size)?));
        let symbol_name = symbol.name().map_err(said)?;
        let bytes = place.clone().and_then(|place| data.get(place));
        let (Some(place), Some(bytes)) = (place, bytes) else {
            return Err(format!(
                "section {name}: `{symbol_name}` ends outside of it"
            ));
        };
        globals.push(Global {
            name: symbol_name.to_owned(),
            offset: u32::try_from(place.start).unwrap_or(u32::MAX),
            bytes: bytes.to_vec(),
        });
    }
    globals.sort_by_key(|global| global.offset);
    Ok(MapDef {
        name: name.to_owned(),
        map_type: MapType::Array,
        key_size: 4,
        value_size: u32::try_from(section.size()).unwrap_or(u32::MAX),
        max_entries: 1,
        flags: if name == RODATA { RDONLY_PROG } else { 0 },
        contents: Contents::Globals(globals),
    })
}
