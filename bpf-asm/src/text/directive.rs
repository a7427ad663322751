//! Lines that begin with a dot: functions and maps.

use super::TextError;
use super::cursor::Cursor;
use super::line::Item;
use super::operand::unsigned;
use crate::program::{Contents, MapDef, MapType};

/// Names of map types, as bpftool and libbpf have them.
const MAP_TYPES: &[(&str, MapType)] = &[
    ("hash", MapType::Hash),
    ("array", MapType::Array),
    ("prog_array", MapType::ProgArray),
    ("percpu_hash", MapType::PerCpuHash),
    ("percpu_array", MapType::PerCpuArray),
    ("lru_hash", MapType::LruHash),
    ("lpm_trie", MapType::LpmTrie),
    ("devmap", MapType::DevMap),
    ("xskmap", MapType::XskMap),
    ("queue", MapType::Queue),
    ("ringbuf", MapType::RingBuf),
    ("bloom_filter", MapType::Bloom),
];

/// The line of text that [`assemble`](super::assemble) reads as this map.
#[must_use]
pub fn map_line(map: &MapDef) -> Option<String> {
    let (name, _) = MAP_TYPES.iter().find(|(_, kind)| *kind == map.map_type)?;
    let MapDef {
        key_size,
        value_size,
        max_entries,
        flags,
        ..
    } = map;
    let line = format!(
        ".map {} {name} {key_size} {value_size} {max_entries}",
        map.name
    );
    Some(match flags {
        0 => line,
        flags => format!("{line} {flags:#x}"),
    })
}

pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Item, TextError> {
    let start = *cursor;
    match cursor.word() {
        ".function" => Ok(Item::Function {
            name: name(cursor, "the function's name")?,
        }),
        ".map" => map(cursor),
        word => start.error(format!(
            "`{word}` is no directive; there are `.function NAME` and `.map NAME TYPE KEY VALUE ENTRIES [FLAGS]`"
        )),
    }
}

fn map(cursor: &mut Cursor<'_>) -> Result<Item, TextError> {
    let line = cursor.line();
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
    let map = MapDef {
        name,
        map_type: *map_type,
        key_size,
        value_size,
        max_entries,
        flags,
        contents: Contents::Empty,
    };
    Ok(Item::Map { map, line })
}

fn name(cursor: &mut Cursor<'_>, what: &str) -> Result<String, TextError> {
    let start = *cursor;
    match cursor.word() {
        "" => start.expected(what),
        name => Ok(name.to_owned()),
    }
}
