//! BTF, the kernel's type format: just the kinds that maps, functions and lines need.
//!
//! ```text
//!   header 24 bytes | types, one record after another, numbered from 1 | strings, each ended by NUL
//! ```
//! A type is added once; adding the same record again gives the number it already has.

mod ext;
mod strings;

use std::collections::BTreeMap;

pub use ext::{BtfExt, FunctionInfo, LineInfo};
use strings::Strings;

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
const HEADER_BYTES: u32 = 24;

/// A type's number. `VOID` is 0 and never written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(u32);

impl TypeId {
    /// No type: what a `void *` points to.
    pub const VOID: TypeId = TypeId(0);

    /// The number as written in records.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// The kinds of types that are written.
#[derive(Clone, Copy)]
enum Kind {
    Int = 1,
    Ptr = 2,
    Array = 3,
    Struct = 4,
    Func = 12,
    FuncProto = 13,
    Var = 14,
    DataSec = 15,
}

/// Whether a function or variable is known outside its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// Not known outside. The verifier checks a static function anew for every call of it.
    Static = 0,
    /// Known outside. The verifier checks a global function once, for any arguments.
    Global = 1,
}

/// A field of a struct.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type.
    pub ty: TypeId,
    /// Bits from the start of the struct.
    pub bit_offset: u32,
}

/// A variable's place in a section.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// The variable.
    pub variable: TypeId,
    /// Bytes from the start of the section.
    pub offset: u32,
    /// Bytes it takes.
    pub size: u32,
}

/// Types and strings under construction.
#[derive(Clone, Debug, Default)]
pub struct Btf {
    strings: Strings,
    types: Vec<u8>,
    known: BTreeMap<Vec<u8>, TypeId>,
}

impl Btf {
    /// No types, and the empty string.
    pub fn new() -> Btf {
        Btf::default()
    }

    /// The offset of `text` in the strings, added if it is new. Text from a NUL on is dropped.
    pub fn string(&mut self, text: &str) -> u32 {
        self.strings.offset(text)
    }

    /// An integer of `bytes` bytes.
    pub fn int(&mut self, name: &str, bytes: u8, signed: bool) -> TypeId {
        let encoding = (u32::from(signed) << 24) | (u32::from(bytes) * 8);
        let name = self.string(name);
        self.add(name, Kind::Int, 0, u32::from(bytes), &[encoding])
    }

    /// A pointer to `ty`.
    pub fn pointer(&mut self, ty: TypeId) -> TypeId {
        self.add(0, Kind::Ptr, 0, ty.0, &[])
    }

    /// `count` times `element`, indexed by `index`.
    pub fn array(&mut self, element: TypeId, index: TypeId, count: u32) -> TypeId {
        self.add(0, Kind::Array, 0, 0, &[element.0, index.0, count])
    }

    /// A struct of `bytes` bytes; an empty name makes it anonymous. At most 65535 members.
    pub fn structure(&mut self, name: &str, bytes: u32, members: &[Member<'_>]) -> TypeId {
        let name = self.string(name);
        let mut words = Vec::with_capacity(members.len() * 3);
        for member in members {
            words.extend([self.string(member.name), member.ty.0, member.bit_offset]);
        }
        self.add(name, Kind::Struct, members.len(), bytes, &words)
    }

    /// A global variable.
    pub fn variable(&mut self, name: &str, ty: TypeId, linkage: Linkage) -> TypeId {
        let name = self.string(name);
        self.add(name, Kind::Var, 0, ty.0, &[linkage as u32])
    }

    /// A section of variables, `bytes` bytes long. At most 65535 of them.
    pub fn section(&mut self, name: &str, bytes: u32, placed: &[Placed]) -> TypeId {
        let name = self.string(name);
        let words: Vec<u32> = placed
            .iter()
            .flat_map(|p| [p.variable.0, p.offset, p.size])
            .collect();
        self.add(name, Kind::DataSec, placed.len(), bytes, &words)
    }

    /// A function's type: what it returns and its named parameters.
    pub fn prototype(&mut self, returns: TypeId, parameters: &[(&str, TypeId)]) -> TypeId {
        let mut words = Vec::with_capacity(parameters.len() * 2);
        for (name, ty) in parameters {
            words.extend([self.string(name), ty.0]);
        }
        self.add(0, Kind::FuncProto, parameters.len(), returns.0, &words)
    }

    /// A function of the type `prototype`.
    pub fn function(&mut self, name: &str, prototype: TypeId, linkage: Linkage) -> TypeId {
        let name = self.string(name);
        self.add(name, Kind::Func, linkage as usize, prototype.0, &[])
    }

    /// The `.BTF` section.
    pub fn to_bytes(&self) -> Vec<u8> {
        let strings = self.strings.bytes();
        let (types_len, strings_len) = (length(&self.types), length(strings));
        let mut out = header(HEADER_BYTES);
        // Where the types and the strings are, from the end of the header.
        put(&mut out, &[0, types_len, types_len, strings_len]);
        out.extend_from_slice(&self.types);
        out.extend_from_slice(strings);
        out
    }

    fn add(&mut self, name: u32, kind: Kind, count: usize, size: u32, words: &[u32]) -> TypeId {
        // The count has 16 bits; objects of more than 65535 maps are refused before they get here.
        let info = (kind as u32) << 24 | (count as u32 & 0xffff);
        let mut record = Vec::with_capacity(12 + words.len() * 4);
        put(&mut record, &[name, info, size]);
        put(&mut record, words);
        let next = TypeId(self.known.len() as u32 + 1);
        *self.known.entry(record).or_insert_with_key(|record| {
            self.types.extend_from_slice(record);
            next
        })
    }
}

/// What `.BTF` and `.BTF.ext` both begin with.
fn header(bytes: u32) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(MAGIC.to_le_bytes());
    out.extend([VERSION, 0]);
    put(&mut out, &[bytes]);
    out
}

fn put(out: &mut Vec<u8>, words: &[u32]) {
    out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

/// A length as the format stores it; 4 GiB of types is beyond what a kernel takes.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_type_is_written_once() {
        let mut btf = Btf::new();
        let int = btf.int("int", 4, true);
        let pointer = btf.pointer(int);
        assert_eq!(btf.int("int", 4, true), int);
        assert_eq!(btf.pointer(int), pointer);
        assert_eq!((int.number(), pointer.number()), (1, 2));
        // int: 12 + 4 bytes, pointer: 12 bytes, strings: "\0int\0".
        assert_eq!(btf.to_bytes().len(), 24 + 16 + 12 + 5);
    }

    #[test]
    fn an_integer_is_laid_out_as_the_kernel_documents() {
        let mut btf = Btf::new();
        btf.int("u8", 1, false);
        let bytes = btf.to_bytes();
        let expected: [u8; 24 + 16 + 4] = [
            0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0, 4, 0, 0,
            0, //
            1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 8, 0, 0, 0, //
            0, b'u', b'8', 0,
        ];
        assert_eq!(bytes, expected);
    }
}
