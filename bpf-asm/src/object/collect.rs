//! From programs to sections: functions sorted into theirs, maps and subprograms of one name merged, all of it checked.

use std::collections::{BTreeMap, BTreeSet};

use super::{ObjectError, globals};
use crate::insn::{Imm64, Insn};
use crate::program::{Contents, Function, MapDef, Program, ProgramKind, Target};

const MAX_ARGUMENTS: usize = 5;
const MAX_MAP_NAME_BYTES: usize = 15;
const MAX_MAPS: usize = 65535;

/// An object's contents, in the order in which they are written.
pub(super) struct Parts<'a> {
    pub(super) sections: Vec<Section<'a>>,
    pub(super) maps: Vec<&'a MapDef>,
}

/// Who calls a function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The kernel, at a hook.
    Main(ProgramKind),
    /// Other functions.
    Subprogram,
}

/// A section of code.
pub(super) struct Section<'a> {
    pub(super) role: Role,
    pub(super) functions: Vec<&'a Function>,
}

impl Section<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self.role {
            Role::Main(ProgramKind::Xdp) => "xdp",
            Role::Main(ProgramKind::XdpFrags) => "xdp.frags",
            Role::Main(ProgramKind::Classifier) => "classifier",
            // Where libbpf looks for subprograms.
            Role::Subprogram => ".text",
        }
    }
}

/// Sorts, merges and checks.
pub(super) fn collect(programs: &[Program]) -> Result<Parts<'_>, ObjectError> {
    if programs.is_empty() {
        return Err(ObjectError::Empty);
    }
    let maps = merge_maps(programs)?;
    let subprograms = merge_subprograms(programs)?;
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut names: BTreeSet<&str> = subprograms.iter().map(|f| f.name.as_str()).collect();
    for map in &maps {
        let symbols: Vec<&str> = match &map.contents {
            Contents::Globals(globals) => globals.iter().map(|global| &*global.name).collect(),
            Contents::Empty | Contents::Maps(_) => vec![&*map.name],
        };
        for symbol in symbols {
            if !names.insert(symbol) {
                return Err(ObjectError::DuplicateSymbol(symbol.to_owned()));
            }
        }
    }
    for program in programs {
        check_program(program)?;
        if !names.insert(&program.main.name) {
            return Err(ObjectError::DuplicateSymbol(program.main.name.clone()));
        }
        let role = Role::Main(program.kind);
        match sections.iter_mut().find(|section| section.role == role) {
            Some(section) => section.functions.push(&program.main),
            None => sections.push(Section {
                role,
                functions: vec![&program.main],
            }),
        }
    }
    if !subprograms.is_empty() {
        sections.push(Section {
            role: Role::Subprogram,
            functions: subprograms,
        });
    }
    Ok(Parts { sections, maps })
}

fn merge_maps(programs: &[Program]) -> Result<Vec<&MapDef>, ObjectError> {
    let mut by_name: BTreeMap<&str, &MapDef> = BTreeMap::new();
    let mut maps = Vec::new();
    for map in programs.iter().flat_map(|program| &program.maps) {
        match &map.contents {
            Contents::Globals(globals) => globals::check(map, globals)?,
            Contents::Maps(inner) => {
                check_name(&map.name)?;
                if !matches!(inner.contents, Contents::Empty) {
                    return Err(ObjectError::Nested(map.name.clone()));
                }
            }
            Contents::Empty => check_name(&map.name)?,
        }
        if map.name.len() > MAX_MAP_NAME_BYTES {
            return Err(ObjectError::Name(map.name.clone()));
        }
        match by_name.insert(&map.name, map) {
            Some(other) if other != map => {
                return Err(ObjectError::ConflictingMap(map.name.clone()));
            }
            Some(_) => {}
            None => maps.push(map),
        }
    }
    if maps.len() > MAX_MAPS {
        return Err(ObjectError::TooLarge);
    }
    Ok(maps)
}

/// Programs may share a subprogram; it counts as the same one if it does the same, wherever it was written.
fn merge_subprograms(programs: &[Program]) -> Result<Vec<&Function>, ObjectError> {
    let mut by_name: BTreeMap<&str, &Function> = BTreeMap::new();
    let mut functions = Vec::new();
    for program in programs {
        let mut own = BTreeSet::new();
        for function in &program.subprograms {
            if !own.insert(&function.name) {
                return Err(ObjectError::DuplicateSymbol(function.name.clone()));
            }
            let Some(other) = by_name.get(function.name.as_str()) else {
                by_name.insert(&function.name, function);
                functions.push(function);
                continue;
            };
            let same = other.insns == function.insns
                && other.relocations == function.relocations
                && other.arguments == function.arguments;
            if !same {
                return Err(ObjectError::ConflictingSubprogram(function.name.clone()));
            }
        }
    }
    Ok(functions)
}

/// Checks what concerns one program alone.
pub(super) fn check_program(program: &Program) -> Result<(), ObjectError> {
    for function in std::iter::once(&program.main).chain(&program.subprograms) {
        let name = &function.name;
        check_name(name)?;
        if function.insns.is_empty() {
            return Err(ObjectError::EmptyFunction(name.clone()));
        }
        if function.arguments > MAX_ARGUMENTS {
            return Err(ObjectError::Arguments(name.clone()));
        }
        if function.lines.len() != function.insns.len() {
            return Err(ObjectError::Lines(name.clone()));
        }
        check_instructions(program, function)?;
    }
    Ok(())
}

/// Every instruction is legal, and has a relocation exactly if it needs one.
fn check_instructions(program: &Program, function: &Function) -> Result<(), ObjectError> {
    let name = || function.name.clone();
    let mut relocations = function.relocations.iter().peekable();
    for (at, insn) in function.insns.iter().enumerate() {
        insn.check().map_err(|illegal| ObjectError::Illegal {
            function: name(),
            at,
            illegal,
        })?;
        let target = relocations.next_if(|r| r.at == at).map(|r| &r.target);
        match (insn, target) {
            (
                Insn::LoadImm64 {
                    value: value @ (Imm64::Map | Imm64::MapValue { .. }),
                    ..
                },
                Some(Target::Map(map)),
            ) => {
                let Some(def) = program.maps.iter().find(|def| def.name == *map) else {
                    return Err(ObjectError::UnknownMap {
                        function: name(),
                        map: map.clone(),
                    });
                };
                // Loaders give the address of a value for global variables only, and nothing else for them.
                let is_global = matches!(def.contents, Contents::Globals(_));
                let is_value = match value {
                    Imm64::MapValue { offset, .. } => *offset < def.value_size,
                    _ => false,
                };
                if is_global != is_value {
                    let function = name();
                    return Err(ObjectError::Relocation { function, at });
                }
            }
            (
                Insn::CallLocal { .. }
                | Insn::LoadImm64 {
                    value: Imm64::Function { .. },
                    ..
                },
                Some(Target::Subprogram(callee)),
            ) => {
                if !program.subprograms.iter().any(|f| f.name == *callee) {
                    return Err(ObjectError::UnknownSubprogram {
                        function: name(),
                        callee: callee.clone(),
                    });
                }
            }
            (
                Insn::LoadImm64 {
                    value: Imm64::Map | Imm64::Function { .. },
                    ..
                }
                | Insn::CallLocal { .. },
                None,
            ) => {
                let function = name();
                return Err(ObjectError::Unrelocated { function, at });
            }
            (_, Some(_)) => {
                let function = name();
                return Err(ObjectError::Relocation { function, at });
            }
            (_, None) => {}
        }
    }
    match relocations.next() {
        Some(left_over) => Err(ObjectError::Relocation {
            function: name(),
            at: left_over.at,
        }),
        None => Ok(()),
    }
}

/// The kernel's BTF takes C identifiers only.
pub(super) fn check_name(name: &str) -> Result<(), ObjectError> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if starts && goes_on {
        Ok(())
    } else {
        Err(ObjectError::Name(name.to_owned()))
    }
}
