//! Writing the file.

use std::collections::BTreeMap;

use object::write::{
    Object as Elf, Relocation as ElfRelocation, SectionId, Symbol, SymbolId, SymbolSection,
};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope, elf,
};

use super::ObjectError;
use super::collect::{Parts, Role, Section};
use super::sources::Sources;
use super::types;
use crate::btf::{Btf, BtfExt, FunctionInfo, LineInfo};
use crate::program::{Function, Target};

const SLOT_BYTES: usize = 8;
const SLOT_ALIGN: u64 = 8;

/// A function's place in its section.
struct Placed<'a> {
    function: &'a Function,
    offset: usize,
}

/// Everything, in one go.
pub(super) fn write(
    license: &str,
    parts: &Parts<'_>,
    sources: &Sources,
) -> Result<Vec<u8>, ObjectError> {
    let mut elf = Elf::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let (mut btf, mut btf_ext) = (Btf::new(), BtfExt::new());
    let mut symbols = BTreeMap::new();
    let mut relocated = Vec::new();
    for section in &parts.sections {
        let (code, placed) = lay_out(section);
        let id = add_section(
            &mut elf,
            section.name(),
            SectionKind::Text,
            &code,
            SLOT_ALIGN,
        );
        describe(&mut btf, &mut btf_ext, section, &placed, sources)?;
        for Placed { function, offset } in placed {
            let scope = if section.role == Role::Subprogram {
                SymbolScope::Compilation
            } else {
                SymbolScope::Dynamic
            };
            let size = slots(function) * SLOT_BYTES;
            let place = (offset as u64, size as u64);
            let symbol = add_symbol(&mut elf, &function.name, id, place, SymbolKind::Text, scope);
            symbols.insert(function.name.as_str(), symbol);
            relocated.push((id, function, offset));
        }
    }
    let (maps, maps_bytes) = types::add_maps(&mut btf, parts);
    if !maps.is_empty() {
        let zeroes = vec![0; maps_bytes as usize];
        let id = add_section(&mut elf, ".maps", SectionKind::Data, &zeroes, SLOT_ALIGN);
        for map in maps {
            let place = (u64::from(map.offset), u64::from(map.size));
            let (kind, scope) = (SymbolKind::Data, SymbolScope::Dynamic);
            symbols.insert(
                map.name,
                add_symbol(&mut elf, map.name, id, place, kind, scope),
            );
        }
    }
    for (section, function, offset) in relocated {
        relocate(&mut elf, section, function, offset, &symbols)?;
    }
    let license = [license.as_bytes(), b"\0"].concat();
    add_section(&mut elf, "license", SectionKind::Data, &license, 1);
    add_section(&mut elf, ".BTF", SectionKind::Other, &btf.to_bytes(), 4);
    add_section(
        &mut elf,
        ".BTF.ext",
        SectionKind::Other,
        &btf_ext.to_bytes(),
        4,
    );
    elf.write()
        .map_err(|error| ObjectError::Write(error.to_string()))
}

fn lay_out<'a>(section: &Section<'a>) -> (Vec<u8>, Vec<Placed<'a>>) {
    let mut code = Vec::new();
    let mut placed = Vec::new();
    for function in &section.functions {
        placed.push(Placed {
            function,
            offset: code.len() * SLOT_BYTES,
        });
        for insn in &function.insns {
            insn.encode(&mut code);
        }
    }
    (code.into_flattened(), placed)
}

fn slots(function: &Function) -> usize {
    function.insns.iter().map(|insn| insn.slots()).sum()
}

/// Adds a section's functions and lines to the debug information.
fn describe(
    btf: &mut Btf,
    btf_ext: &mut BtfExt,
    section: &Section<'_>,
    placed: &[Placed<'_>],
    sources: &Sources,
) -> Result<(), ObjectError> {
    let byte_offset = |offset: usize| u32::try_from(offset).map_err(|_| ObjectError::TooLarge);
    let mut functions = Vec::new();
    let mut lines = Vec::new();
    for Placed { function, offset } in placed {
        functions.push(FunctionInfo {
            offset: byte_offset(*offset)?,
            function: types::add_function(btf, function, section.role),
        });
        let mut at = *offset;
        let mut last = None;
        for (insn, line) in function.insns.iter().zip(&function.lines) {
            if last != Some(line) {
                lines.push((byte_offset(at)?, line, sources.text(line)));
                last = Some(line);
            }
            at += insn.slots() * SLOT_BYTES;
        }
    }
    let lines: Vec<LineInfo<'_>> = lines
        .iter()
        .map(|(offset, line, text)| LineInfo {
            offset: *offset,
            file: line.file,
            text,
            line: line.line,
            column: line.column,
        })
        .collect();
    btf_ext.section(btf, section.name(), &functions, &lines);
    Ok(())
}

fn relocate(
    elf: &mut Elf<'_>,
    section: SectionId,
    function: &Function,
    function_offset: usize,
    symbols: &BTreeMap<&str, SymbolId>,
) -> Result<(), ObjectError> {
    let starts: Vec<usize> = function
        .insns
        .iter()
        .scan(function_offset, |at, insn| {
            let here = *at;
            *at += insn.slots() * SLOT_BYTES;
            Some(here)
        })
        .collect();
    for relocation in &function.relocations {
        let (name, r_type) = match &relocation.target {
            Target::Map(name) => (name, elf::R_BPF_64_64),
            Target::Subprogram(name) => (name, elf::R_BPF_64_32),
        };
        let missing = || ObjectError::Relocation {
            function: function.name.clone(),
            at: relocation.at,
        };
        let relocation = ElfRelocation {
            offset: *starts.get(relocation.at).ok_or_else(missing)? as u64,
            symbol: *symbols.get(name.as_str()).ok_or_else(missing)?,
            // Anything else would be written over the instruction, whose own immediate is what loaders go by.
            addend: 0,
            flags: RelocationFlags::Elf { r_type },
        };
        elf.add_relocation(section, relocation)
            .map_err(|error| ObjectError::Write(error.to_string()))?;
    }
    Ok(())
}

fn add_section(
    elf: &mut Elf<'_>,
    name: &str,
    kind: SectionKind,
    data: &[u8],
    align: u64,
) -> SectionId {
    let id = elf.add_section(Vec::new(), name.as_bytes().to_vec(), kind);
    elf.append_section_data(id, data, align);
    id
}

fn add_symbol(
    elf: &mut Elf<'_>,
    name: &str,
    section: SectionId,
    (value, size): (u64, u64),
    kind: SymbolKind,
    scope: SymbolScope,
) -> SymbolId {
    elf.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value,
        size,
        kind,
        scope,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    })
}
