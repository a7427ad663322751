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
use crate::insn::{Imm64, Insn};
use crate::program::{BSS, Contents, Function, MapDef, RODATA, Target};

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
    let subprograms = parts.sections.iter().find(|s| s.role == Role::Subprogram);
    let starts = subprograms.map(|section| lay_out(section, &BTreeMap::new()).1);
    let starts: BTreeMap<&str, usize> = starts
        .iter()
        .flatten()
        .map(|placed| (placed.function.name.as_str(), placed.offset))
        .collect();
    let mut text = None;
    for section in &parts.sections {
        let (code, placed) = lay_out(section, &starts);
        let id = add_section(
            &mut elf,
            section.name(),
            SectionKind::Text,
            &code,
            SLOT_ALIGN,
        );
        if section.role == Role::Subprogram {
            text = Some(id);
        }
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
    for map in &parts.maps {
        let Contents::Globals(globals) = &map.contents else {
            continue;
        };
        types::add_globals(&mut btf, map, globals);
        let id = add_global_section(&mut elf, map);
        symbols.insert(map.name.as_str(), elf.section_symbol(id));
        for global in globals {
            let place = (u64::from(global.offset), global.bytes.len() as u64);
            let (kind, scope) = (SymbolKind::Data, SymbolScope::Dynamic);
            add_symbol(&mut elf, &global.name, id, place, kind, scope);
        }
    }
    let text = text.map(|id| elf.section_symbol(id));
    for (section, function, offset) in relocated {
        relocate(&mut elf, section, function, offset, (&symbols, text))?;
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

/// The code of a section; `starts` says where subprograms begin in theirs.
fn lay_out<'a>(
    section: &Section<'a>,
    starts: &BTreeMap<&str, usize>,
) -> (Vec<u8>, Vec<Placed<'a>>) {
    let mut code = Vec::new();
    let mut placed = Vec::new();
    for function in &section.functions {
        placed.push(Placed {
            function,
            offset: code.len() * SLOT_BYTES,
        });
        let mut relocations = function.relocations.iter().peekable();
        for (at, insn) in function.insns.iter().enumerate() {
            let target = relocations.next_if(|r| r.at == at).map(|r| &r.target);
            as_relocated(insn, target, starts).encode(&mut code);
        }
    }
    (code.into_flattened(), placed)
}

/// How an instruction looks in the file: loaders add what it holds to the address of the section that it refers to.
fn as_relocated(insn: &Insn, target: Option<&Target>, starts: &BTreeMap<&str, usize>) -> Insn {
    match (*insn, target) {
        (
            Insn::LoadImm64 {
                dst,
                value: Imm64::MapValue { offset, .. },
            },
            Some(_),
        ) => Insn::LoadImm64 {
            dst,
            value: Imm64::Value(offset.into()),
        },
        (
            Insn::LoadImm64 {
                dst,
                value: Imm64::Function { .. },
            },
            Some(Target::Subprogram(name)),
        ) => {
            let start = starts.get(name.as_str()).copied().unwrap_or(0);
            let offset = i32::try_from(start).unwrap_or(i32::MAX);
            Insn::LoadImm64 {
                dst,
                value: Imm64::Function { offset },
            }
        }
        (insn, _) => insn,
    }
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
    (symbols, text): (&BTreeMap<&str, SymbolId>, Option<SymbolId>),
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
        // A function's address is given relative to the section, a call by the function's own symbol.
        let is_address = matches!(
            (function.insns.get(relocation.at), &relocation.target),
            (Some(Insn::LoadImm64 { .. }), Target::Subprogram(_))
        );
        let (symbol, r_type) = if is_address {
            (text.ok_or_else(missing)?, elf::R_BPF_64_64)
        } else {
            (*symbols.get(name.as_str()).ok_or_else(missing)?, r_type)
        };
        let relocation = ElfRelocation {
            offset: *starts.get(relocation.at).ok_or_else(missing)? as u64,
            symbol,
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

fn add_global_section(elf: &mut Elf<'_>, map: &MapDef) -> SectionId {
    let kind = match map.name.as_str() {
        RODATA => SectionKind::ReadOnlyData,
        BSS => SectionKind::UninitializedData,
        _ => SectionKind::Data,
    };
    let id = elf.add_section(Vec::new(), map.name.as_bytes().to_vec(), kind);
    if kind == SectionKind::UninitializedData {
        elf.append_section_bss(id, u64::from(map.value_size), SLOT_ALIGN);
    } else {
        elf.append_section_data(id, &map.global_bytes(), SLOT_ALIGN);
    }
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
