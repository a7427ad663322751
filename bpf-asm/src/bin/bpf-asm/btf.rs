//! Reading BTF, as far as maps need it: `Documentation/bpf/btf.rst` of the kernel says what the bytes mean.

/// Types that lead on to others before there is one with a size: as deep as the kernel follows them.
const MAX_DEPTH: usize = 32;

/// A type, in the parts that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type<'d> {
    Pointer(u32),
    Array { element: u32, count: u32 },
    Struct { members: Vec<(&'d str, u32)> },
    Other,
}

/// A type as it lies there.
#[derive(Clone, Copy, Debug)]
struct Record<'d> {
    name: u32,
    kind: u32,
    /// How many members or variables there are.
    count: usize,
    /// A size, or the number of another type.
    size: u32,
    rest: &'d [u8],
}

/// The types of an object, numbered from 1.
#[derive(Debug)]
pub(crate) struct Btf<'d> {
    records: Vec<Record<'d>>,
    strings: &'d [u8],
}

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

impl<'d> Btf<'d> {
    /// Reads the section.
    pub(crate) fn parse(data: &'d [u8]) -> Result<Btf<'d>, String> {
        const MAGIC: u32 = 0xeb9f;
        let header = |at| word(data, at).ok_or("`.BTF` is cut off");
        if header(0)? & 0xffff != MAGIC {
            return Err("`.BTF` doesn't begin as BTF does".into());
        }
        let length = header(4)?;
        let part = |offset: u32, bytes: u32| {
            let start = length.checked_add(offset)?;
            let range = start as usize..start.checked_add(bytes)? as usize;
            data.get(range)
        };
        let types = part(header(8)?, header(12)?).ok_or("`.BTF` is cut off")?;
        let strings = part(header(16)?, header(20)?).ok_or("`.BTF` is cut off")?;
        let mut records = Vec::new();
        let mut left = types;
        while !left.is_empty() {
            let (record, after) =
                record(left).ok_or("a type in `.BTF` is cut off, or of no known kind")?;
            records.push(record);
            left = after;
        }
        Ok(Btf { records, strings })
    }

    fn record(&self, number: u32) -> Result<Record<'d>, String> {
        let at = (number as usize).checked_sub(1);
        let found = at.and_then(|at| self.records.get(at)).copied();
        found.ok_or_else(|| format!("`.BTF` has no type {number}"))
    }

    fn string(&self, offset: u32) -> &'d str {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0);
        let text = &rest[..end.unwrap_or(rest.len())];
        std::str::from_utf8(text).unwrap_or_default()
    }

    /// The variables of a section, in its order: name and type.
    pub(crate) fn variables_of(&self, section: &str) -> Vec<(&'d str, u32)> {
        let is_it = |record: &&Record<'d>| {
            record.kind == kind::DATASEC && self.string(record.name) == section
        };
        let Some(found) = self.records.iter().find(is_it) else {
            return Vec::new();
        };
        let mut placed: Vec<(u32, u32)> = (0..found.count)
            .filter_map(|at| Some((word(found.rest, 12 * at + 4)?, word(found.rest, 12 * at)?)))
            .collect();
        placed.sort_unstable();
        let variables = placed.into_iter().filter_map(|(_, number)| {
            let variable = self.record(number).ok()?;
            (variable.kind == kind::VAR).then(|| (self.string(variable.name), variable.size))
        });
        variables.collect()
    }

    /// A type without its aliases and qualifiers.
    pub(crate) fn resolved(&self, number: u32) -> Result<Type<'d>, String> {
        let record = self.resolved_record(number)?;
        let rest = |at| word(record.rest, at).unwrap_or(0);
        Ok(match record.kind {
            kind::PTR => Type::Pointer(record.size),
            kind::ARRAY => Type::Array {
                element: rest(0),
                count: rest(8),
            },
            kind::STRUCT => Type::Struct {
                members: (0..record.count)
                    .map(|at| (self.string(rest(12 * at)), rest(12 * at + 4)))
                    .collect(),
            },
            _ => Type::Other,
        })
    }

    fn resolved_record(&self, mut number: u32) -> Result<Record<'d>, String> {
        for _ in 0..MAX_DEPTH {
            let record = self.record(number)?;
            match record.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    number = record.size;
                }
                _ => return Ok(record),
            }
        }
        Err(format!("type {number} of `.BTF` leads to no end"))
    }

    /// `int (*name)[N]`: N.
    pub(crate) fn number(&self, number: u32) -> Result<u32, String> {
        if let Type::Pointer(array) = self.resolved(number)?
            && let Type::Array { count, .. } = self.resolved(array)?
        {
            return Ok(count);
        }
        Err(format!(
            "type {number} of `.BTF` is no pointer to an array, by whose length a map's member is said"
        ))
    }

    /// Bytes of what a pointer points to.
    pub(crate) fn pointee_bytes(&self, number: u32) -> Result<u32, String> {
        match self.resolved(number)? {
            Type::Pointer(to) => self.bytes(to),
            _ => Err(format!("type {number} of `.BTF` is no pointer")),
        }
    }

    /// `struct {...} *values[]`: the struct, if it is one.
    pub(crate) fn values(&self, number: u32) -> Result<Option<u32>, String> {
        if let Type::Array { element, .. } = self.resolved(number)?
            && let Type::Pointer(to) = self.resolved(element)?
            && let Type::Struct { .. } = self.resolved(to)?
        {
            return Ok(Some(to));
        }
        Ok(None)
    }

    fn bytes(&self, mut number: u32) -> Result<u32, String> {
        let mut times: u32 = 1;
        for _ in 0..MAX_DEPTH {
            let record = self.resolved_record(number)?;
            let bytes = match record.kind {
                kind::PTR => 8,
                kind::ARRAY => {
                    let count = word(record.rest, 8).unwrap_or(0);
                    times = times
                        .checked_mul(count)
                        .ok_or("an array of more than 4 GiB")?;
                    number = word(record.rest, 0).unwrap_or(0);
                    continue;
                }
                kind::INT
                | kind::STRUCT
                | kind::UNION
                | kind::ENUM
                | kind::FLOAT
                | kind::ENUM64 => record.size,
                _ => break,
            };
            return times
                .checked_mul(bytes)
                .ok_or_else(|| "a type of more than 4 GiB".into());
        }
        Err(format!("type {number} of `.BTF` has no size"))
    }
}

/// The first type of these bytes, and what is behind it.
fn record(data: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (name, info, size) = (word(data, 0)?, word(data, 4)?, word(data, 8)?);
    let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
    let bytes = match kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
        kind::ENUM | kind::FUNC_PROTO => 8 * count,
        1..=kind::ENUM64 => 0,
        _ => return None,
    };
    let (rest, after) = data.get(12..)?.split_at_checked(bytes)?;
    let record = Record {
        name,
        kind,
        count,
        size,
        rest,
    };
    Some((record, after))
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}
