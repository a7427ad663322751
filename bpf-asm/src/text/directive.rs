//! Lines that begin with a dot: functions, maps, and what is in maps from the start.

use std::fmt::Write;

use super::TextError;
use super::cursor::Cursor;
use super::line::Item;
use super::operand::unsigned;
use crate::program::{Contents, Global, MapDef, MapType};

/// The longest global variable that a text can hold, in bytes.
const MAX_GLOBAL_BYTES: u32 = 1 << 20;

/// Names of map types, as bpftool and libbpf have them.
const MAP_TYPES: &[(&str, MapType)] = &[
    ("hash", MapType::Hash),
    ("array", MapType::Array),
    ("prog_array", MapType::ProgArray),
    ("percpu_hash", MapType::PerCpuHash),
    ("percpu_array", MapType::PerCpuArray),
    ("lru_hash", MapType::LruHash),
    ("lru_percpu_hash", MapType::LruPerCpuHash),
    ("lpm_trie", MapType::LpmTrie),
    ("array_of_maps", MapType::ArrayOfMaps),
    ("hash_of_maps", MapType::HashOfMaps),
    ("devmap", MapType::DevMap),
    ("cpumap", MapType::CpuMap),
    ("xskmap", MapType::XskMap),
    ("queue", MapType::Queue),
    ("stack", MapType::Stack),
    ("devmap_hash", MapType::DevMapHash),
    ("ringbuf", MapType::RingBuf),
    ("bloom_filter", MapType::Bloom),
];

/// The type's name as `.map` lines have it.
fn type_name(map_type: MapType) -> &'static str {
    let found = MAP_TYPES.iter().find(|(_, kind)| *kind == map_type);
    found.map_or("unknown", |(name, _)| name)
}

/// The lines of text that [`assemble`](super::assemble) reads as this map, contents included, each with its line feed.
#[must_use]
pub fn map_lines(map: &MapDef) -> String {
    let mut text = format!(".map {} {}\n", map.name, shape(map));
    // Writing to a string can't fail.
    let _ = match &map.contents {
        Contents::Empty => Ok(()),
        Contents::Maps(inner) => {
            writeln!(text, ".inner {} {} {}", map.name, inner.name, shape(inner))
        }
        Contents::Globals(globals) => globals.iter().try_for_each(|global| {
            let Global {
                name,
                offset,
                bytes,
            } = global;
            write!(text, ".global {} {name} {offset} ", map.name)?;
            if bytes.iter().all(|byte| *byte == 0) {
                return writeln!(text, "zero {}", bytes.len());
            }
            bytes
                .iter()
                .try_for_each(|byte| write!(text, "{byte:02x}"))?;
            writeln!(text)
        }),
    };
    text
}

/// Type, sizes, entries, and flags if any.
fn shape(map: &MapDef) -> String {
    let MapDef {
        map_type,
        key_size,
        value_size,
        max_entries,
        flags,
        ..
    } = map;
    let shape = format!(
        "{} {key_size} {value_size} {max_entries}",
        type_name(*map_type)
    );
    match flags {
        0 => shape,
        flags => format!("{shape} {flags:#x}"),
    }
}

pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Item, TextError> {
    let start = *cursor;
    match cursor.word() {
        ".function" => Ok(Item::Function {
            name: name(cursor, "the function's name")?,
        }),
        ".map" => {
            let (line, column) = (cursor.line(), cursor.column());
            let map = map(cursor)?;
            Ok(Item::Map { map, line, column })
        }
        ".inner" => {
            let (line, column) = (cursor.line(), cursor.column());
            let outer = name(cursor, "the outer map's name")?;
            let map = map(cursor)?;
            Ok(Item::Inner {
                outer,
                map,
                line,
                column,
            })
        }
        ".global" => {
            let (line, column) = (cursor.line(), cursor.column());
            let section = name(cursor, "the section's name")?;
            let global = global(cursor)?;
            Ok(Item::Global {
                section,
                global,
                line,
                column,
            })
        }
        word => start.error(format!(
            "`{word}` is no directive; there are `.function NAME`, `.map NAME TYPE KEY VALUE ENTRIES [FLAGS]`, `.inner OUTER \
             NAME TYPE KEY VALUE ENTRIES [FLAGS]` and `.global SECTION NAME OFFSET BYTES`"
        )),
    }
}

fn map(cursor: &mut Cursor<'_>) -> Result<MapDef, TextError> {
    let name = name(cursor, "the map's name")?;
    let start = *cursor;
    let word = cursor.word();
    let Some((_, map_type)) = MAP_TYPES.iter().find(|(name, _)| *name == word) else {
        let names: Vec<&str> = MAP_TYPES.iter().map(|(name, _)| *name).collect();
        return start.expected(&format!("the map's type, one of {}", names.join(", ")));
    };
    let mut size = |what| unsigned(cursor, what);
    let key_size = size("the bytes of a key")?;
    let value_size = size("the bytes of a value")?;
    let max_entries = size("the number of entries")?;
    let flags = if cursor.at_end() {
        0
    } else {
        unsigned(cursor, "the flags")?
    };
    Ok(MapDef {
        name,
        map_type: *map_type,
        key_size,
        value_size,
        max_entries,
        flags,
        contents: Contents::Empty,
    })
}

/// `limit 8 6400000000000000` or `counts 16 zero 64`
fn global(cursor: &mut Cursor<'_>) -> Result<Global, TextError> {
    let name = name(cursor, "the variable's name")?;
    let offset = unsigned(cursor, "bytes from the start of the section")?;
    let start = *cursor;
    let bytes = if cursor.eat_word("zero") {
        let start = *cursor;
        let length = unsigned(cursor, "how many bytes")?;
        if length > MAX_GLOBAL_BYTES {
            return start.error(format!("a variable has at most {MAX_GLOBAL_BYTES} bytes"));
        }
        vec![0; length as usize]
    } else {
        let digits = cursor.digits();
        let nibbles: Option<Vec<u8>> = digits
            .chars()
            .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
            .collect();
        let nibbles = nibbles.unwrap_or_default();
        let (pairs, rest) = nibbles.as_chunks::<2>();
        if pairs.is_empty() || !rest.is_empty() || pairs.len() > MAX_GLOBAL_BYTES as usize {
            return start
                .expected("its bytes as hexadecimal digits, two for each, or `zero LENGTH`");
        }
        pairs.iter().map(|[high, low]| high << 4 | low).collect()
    };
    Ok(Global {
        name,
        offset,
        bytes,
    })
}

fn name(cursor: &mut Cursor<'_>, what: &str) -> Result<String, TextError> {
    let start = *cursor;
    match cursor.word() {
        "" => start.expected(what),
        name => Ok(name.to_owned()),
    }
}
