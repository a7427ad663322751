//! Global variables: those of all programs in one section each.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::ObjectError;
use super::collect::check_name;
use crate::insn::{Imm64, Insn};
use crate::program::{BSS, Contents, DATA, Function, Global, MapDef, Program, RODATA, Target};

/// What variables are aligned to.
const ALIGN: u32 = 8;

/// The programs with one layout of each section: variables of one name are one variable.
pub(super) fn unify(programs: &[Program]) -> Result<Cow<'_, [Program]>, ObjectError> {
    let mut sections: BTreeMap<String, MapDef> = BTreeMap::new();
    for map in programs.iter().flat_map(|program| &program.maps) {
        let Contents::Globals(globals) = &map.contents else {
            continue;
        };
        let section = sections.entry(map.name.clone()).or_insert_with(|| MapDef {
            value_size: 0,
            contents: Contents::Globals(Vec::new()),
            ..map.clone()
        });
        for global in globals {
            add(section, global)?;
        }
    }
    if sections.is_empty() {
        return Ok(Cow::Borrowed(programs));
    }
    let mut programs = programs.to_vec();
    for program in &mut programs {
        let own = std::mem::take(&mut program.maps);
        let functions = std::iter::once(&mut program.main).chain(&mut program.subprograms);
        for function in functions {
            move_offsets(function, &own, &sections)?;
        }
        let unified = |map: MapDef| sections.get(&map.name).cloned().unwrap_or(map);
        program.maps = own.into_iter().map(unified).collect();
    }
    Ok(Cow::Owned(programs))
}

fn add(section: &mut MapDef, global: &Global) -> Result<(), ObjectError> {
    let Contents::Globals(globals) = &mut section.contents else {
        return Err(ObjectError::ConflictingMap(section.name.clone()));
    };
    if let Some(other) = globals.iter().find(|other| other.name == global.name) {
        if other.bytes != global.bytes {
            return Err(ObjectError::ConflictingGlobal(global.name.clone()));
        }
        return Ok(());
    }
    let len = u32::try_from(global.bytes.len()).map_err(|_| ObjectError::TooLarge)?;
    let offset = section.value_size.checked_next_multiple_of(ALIGN);
    let offset = offset.ok_or(ObjectError::TooLarge)?;
    section.value_size = offset.checked_add(len).ok_or(ObjectError::TooLarge)?;
    globals.push(Global {
        offset,
        ..global.clone()
    });
    Ok(())
}

/// Instructions say how far from the section's start; the variable that is there has moved.
fn move_offsets(
    function: &mut Function,
    own: &[MapDef],
    sections: &BTreeMap<String, MapDef>,
) -> Result<(), ObjectError> {
    for relocation in &function.relocations {
        let Target::Map(name) = &relocation.target else {
            continue;
        };
        let Some(Insn::LoadImm64 {
            value: Imm64::MapValue { offset, .. },
            ..
        }) = function.insns.get_mut(relocation.at)
        else {
            continue;
        };
        let moved = || {
            let before = own.iter().find(|map| map.name == *name)?;
            let after = sections.get(name)?;
            let (Contents::Globals(before), Contents::Globals(after)) =
                (&before.contents, &after.contents)
            else {
                return None;
            };
            let variable = before
                .iter()
                .filter(|global| global.offset <= *offset)
                .max_by_key(|global| global.offset)?;
            let new = after.iter().find(|global| global.name == variable.name)?;
            Some(new.offset + (*offset - variable.offset))
        };
        *offset = moved().ok_or_else(|| ObjectError::Relocation {
            function: function.name.clone(),
            at: relocation.at,
        })?;
    }
    Ok(())
}

/// A section of variables is one that loaders know, and its variables lie in it one after another.
pub(super) fn check(map: &MapDef, globals: &[Global]) -> Result<(), ObjectError> {
    if ![RODATA, DATA, BSS].contains(&map.name.as_str()) {
        return Err(ObjectError::Name(map.name.clone()));
    }
    let mut end = 0;
    for global in globals {
        check_name(&global.name)?;
        let is_zero = global.bytes.iter().all(|byte| *byte == 0);
        if (map.name == BSS && !is_zero) || global.offset < end {
            return Err(ObjectError::ConflictingGlobal(global.name.clone()));
        }
        end = global.offset.saturating_add(global.bytes.len() as u32);
    }
    if end == 0 || end > map.value_size {
        return Err(ObjectError::ConflictingMap(map.name.clone()));
    }
    Ok(())
}
