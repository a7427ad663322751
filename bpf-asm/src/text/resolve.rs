//! From lines to functions: where each begins, and from labels and old slot numbers to offsets.

use std::collections::HashMap;

use super::line::{Item, Statement};
use super::operand::JumpTarget;
use super::{Assembly, TextError, TextErrors, Unit};
use crate::insn::{Imm64, Insn};
use crate::program::{Contents, Global, MapDef, Relocation, Target};

/// The name of a function that the text gives none.
const UNNAMED: &str = "main";

/// A label where nothing else is called so: the function's first `exit`, as in the conformance suite.
const EXIT: &str = "exit";

/// A function's lines.
struct Part {
    name: String,
    statements: Vec<Statement>,
    /// Name, index of the statement that follows, line, column.
    labels: Vec<(String, usize, u32, u32)>,
}

pub(super) fn resolve(items: Vec<Item>, errors: &mut TextErrors) -> Assembly {
    let (parts, maps) = parts(items, errors);
    let names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
    let units = parts.into_iter().map(|part| unit(part, &names, errors));
    Assembly {
        units: units.collect(),
        maps,
    }
}

/// A function begins at `.function`, and at a label whose next instruction is numbered 0, as in listings.
fn parts(items: Vec<Item>, errors: &mut TextErrors) -> (Vec<Part>, Vec<MapDef>) {
    let mut parts: Vec<Part> = Vec::new();
    let mut maps: Vec<MapDef> = Vec::new();
    let mut current = Part::new(UNNAMED.to_owned());
    let mut items = items.into_iter().peekable();
    while let Some(item) = items.next() {
        match item {
            Item::Label { name, line, column } => {
                let numbered_zero = |item: &Item| matches!(item, Item::Statement(statement) if statement.number == Some(0));
                if items.peek().is_some_and(numbered_zero) {
                    current = parts.next(current, name.clone());
                }
                let at = current.statements.len();
                current.labels.push((name, at, line, column));
            }
            Item::Function { name } => current = parts.next(current, name),
            Item::Map { map, line, column } => {
                let known = maps.iter().find(|known| known.name == map.name);
                // The lines of what is in it are for themselves.
                let differs = |known: &MapDef| {
                    let contents = map.contents.clone();
                    MapDef {
                        contents,
                        ..known.clone()
                    } != map
                };
                match known {
                    Some(known) if differs(known) => errors.add(TextError {
                        line,
                        column,
                        message: format!("the map `{}` is defined differently above", map.name),
                    }),
                    Some(_) => {}
                    None => maps.push(map),
                }
            }
            Item::Inner {
                outer,
                map,
                line,
                column,
            } => {
                let put = put_inner(&mut maps, &outer, map);
                if let Err(message) = put {
                    errors.add(TextError {
                        line,
                        column,
                        message,
                    });
                }
            }
            Item::Global {
                section,
                global,
                line,
                column,
            } => {
                let put = put_global(&mut maps, &section, global);
                if let Err(message) = put {
                    errors.add(TextError {
                        line,
                        column,
                        message,
                    });
                }
            }
            Item::Statement(statement) => current.statements.push(statement),
        }
    }
    let _ = parts.next(current, String::new());
    if parts.is_empty() && errors.is_empty() {
        errors.add(TextError {
            line: 1,
            column: 1,
            message: "there is no instruction in this text".to_owned(),
        });
    }
    (parts, maps)
}

fn map_above<'m>(maps: &'m mut [MapDef], name: &str) -> Result<&'m mut MapDef, String> {
    let found = maps.iter_mut().find(|map| map.name == name);
    found.ok_or_else(|| format!("there is no `.map {name}` above"))
}

/// Says what the maps in a map are like.
fn put_inner(maps: &mut [MapDef], outer: &str, inner: MapDef) -> Result<(), String> {
    let outer = map_above(maps, outer)?;
    match &outer.contents {
        Contents::Empty => {
            outer.contents = Contents::Maps(Box::new(inner));
            Ok(())
        }
        Contents::Maps(known) if **known == inner => Ok(()),
        _ => Err(format!("`{}` has other contents above", outer.name)),
    }
}

/// Puts a variable into its section.
fn put_global(maps: &mut [MapDef], section: &str, global: Global) -> Result<(), String> {
    let section = map_above(maps, section)?;
    let end = u64::from(global.offset) + global.bytes.len() as u64;
    if end > u64::from(section.value_size) {
        return Err(format!(
            "this variable ends at byte {end}, and the section has {}",
            section.value_size
        ));
    }
    if section.contents == Contents::Empty {
        section.contents = Contents::Globals(Vec::new());
    }
    let Contents::Globals(globals) = &mut section.contents else {
        return Err(format!("`{}` has other contents above", section.name));
    };
    match globals.iter().find(|known| known.name == global.name) {
        Some(known) if *known == global => {}
        Some(_) => return Err(format!("`{}` is defined differently above", global.name)),
        None => globals.push(global),
    }
    Ok(())
}

/// Ends one function and begins another.
trait Next {
    fn next(&mut self, done: Part, name: String) -> Part;
}

impl Next for Vec<Part> {
    fn next(&mut self, done: Part, name: String) -> Part {
        if !done.statements.is_empty() {
            self.push(done);
        }
        Part::new(name)
    }
}

impl Part {
    fn new(name: String) -> Part {
        Part {
            name,
            statements: Vec::new(),
            labels: Vec::new(),
        }
    }
}

/// Where a function's labels and numbers are.
struct Places<'n> {
    /// Slots of the labels.
    labels: HashMap<String, usize>,
    /// From the numbers that the text has to the slots that they have become.
    numbers: HashMap<usize, usize>,
    /// The smallest and the largest such number.
    range: Option<(usize, usize)>,
    functions: &'n [String],
}

fn unit(part: Part, functions: &[String], errors: &mut TextErrors) -> Unit {
    let mut starts = Vec::with_capacity(part.statements.len() + 1);
    let mut slot = 0;
    for statement in &part.statements {
        starts.push(slot);
        slot += statement.insn.slots();
    }
    starts.push(slot);
    let places = places(&part, &starts, functions, errors);
    let mut unit = Unit {
        name: part.name,
        insns: Vec::with_capacity(part.statements.len()),
        lines: Vec::with_capacity(part.statements.len()),
        relocations: Vec::new(),
        labels: Vec::new(),
    };
    for (name, index, ..) in part.labels {
        unit.labels.push((name, starts[index]));
    }
    for (at, statement) in part.statements.into_iter().enumerate() {
        let (line, column) = (statement.line, statement.column);
        let relocation = statement.relocation.clone();
        match places.resolve(statement, starts[at]) {
            Ok((insn, called)) => {
                unit.insns.push(insn);
                unit.lines.push(line);
                let called = called.map(Target::Subprogram);
                let target = relocation.or(called);
                unit.relocations
                    .extend(target.map(|target| Relocation { at, target }));
            }
            Err((at, message)) => errors.add(TextError {
                line,
                column: at.unwrap_or(column),
                message,
            }),
        }
    }
    unit
}

fn places<'n>(
    part: &Part,
    starts: &[usize],
    functions: &'n [String],
    errors: &mut TextErrors,
) -> Places<'n> {
    let mut places = Places {
        labels: HashMap::new(),
        numbers: HashMap::new(),
        range: None,
        functions,
    };
    for (name, index, line, column) in &part.labels {
        let again = places.labels.insert(name.clone(), starts[*index]);
        if again.is_some() {
            errors.add(TextError {
                line: *line,
                column: *column,
                message: format!("there is a label `{name}` already in this function"),
            });
        }
    }
    let exit = part.statements.iter().position(|s| s.insn == Insn::Exit);
    if let Some(at) = exit {
        places.labels.entry(EXIT.to_owned()).or_insert(starts[at]);
    }
    for (statement, slot) in part.statements.iter().zip(starts) {
        let Some(number) = statement.number else {
            continue;
        };
        if places.numbers.insert(number, *slot).is_some() {
            errors.add(TextError {
                line: statement.line,
                column: 1,
                message: format!("two instructions of this function are numbered {number}"),
            });
        }
        let (low, high) = places.range.unwrap_or((number, number));
        places.range = Some((low.min(number), high.max(number)));
    }
    places
}

/// A column, if it is not the instruction's, and a message.
type Fault = (Option<u32>, String);

impl Places<'_> {
    /// The instruction with its offset, and the function that it calls by name.
    fn resolve(&self, statement: Statement, slot: usize) -> Result<(Insn, Option<String>), Fault> {
        let Some(target) = statement.target else {
            return Ok((statement.insn, None));
        };
        let (column, offset) = match target {
            JumpTarget::Relative(offset) => {
                (None, self.renumbered(statement.number, slot, offset)?)
            }
            JumpTarget::Label { name, column } => match self.labels.get(&name) {
                Some(target) => (Some(column), distance(slot + 1, *target)),
                None => {
                    let calls = matches!(statement.insn, Insn::CallLocal { .. });
                    if self.functions.contains(&name)
                        && let Some(insn) = to_function(statement.insn)
                    {
                        return Ok((insn, Some(name)));
                    }
                    let what = if calls {
                        "neither a helper, nor a label or function of this text"
                    } else {
                        "no label of this function"
                    };
                    return Err((Some(column), format!("`{name}` is {what}")));
                }
            },
        };
        match with_offset(statement.insn, offset) {
            Some(insn) => Ok((insn, None)),
            None => Err((
                column,
                format!("this jump spans {offset} slots, more than its offset can say; use gotol"),
            )),
        }
    }

    /// A relative jump of a numbered line means numbers, which may have moved since.
    fn renumbered(&self, number: Option<usize>, slot: usize, offset: i64) -> Result<i64, Fault> {
        let (Some(number), Some((low, high))) = (number, self.range) else {
            return Ok(offset);
        };
        let wanted = usize::try_from(distance(0, number + 1) + offset).ok();
        let Some(wanted) = wanted.filter(|wanted| (low..=high).contains(wanted)) else {
            return Ok(offset);
        };
        match self.numbers.get(&wanted) {
            Some(target) => Ok(distance(slot + 1, *target)),
            None => Err((
                None,
                format!(
                    "this leads to slot {wanted}, but no line has that number any more; use a label"
                ),
            )),
        }
    }
}

/// A call or a load of an address, of a function that a relocation names.
pub(super) fn to_function(insn: Insn) -> Option<Insn> {
    match insn {
        Insn::CallLocal { .. } => Some(Insn::CallLocal { offset: -1 }),
        Insn::LoadImm64 { dst, .. } => Some(Insn::LoadImm64 {
            dst,
            value: Imm64::Function { offset: -1 },
        }),
        _ => None,
    }
}

fn with_offset(insn: Insn, slots: i64) -> Option<Insn> {
    let near = i16::try_from(slots).ok();
    let far = i32::try_from(slots).ok();
    Some(match insn {
        Insn::Jump {
            width,
            op,
            dst,
            src,
            ..
        } => Insn::Jump {
            width,
            op,
            dst,
            src,
            offset: near?,
        },
        Insn::Goto { .. } => Insn::Goto { offset: near? },
        Insn::MayGoto { .. } => Insn::MayGoto { offset: near? },
        Insn::GotoLong { .. } => Insn::GotoLong { offset: far? },
        Insn::CallLocal { .. } => Insn::CallLocal { offset: far? },
        Insn::LoadImm64 { dst, .. } => Insn::LoadImm64 {
            dst,
            value: Imm64::Function { offset: far? },
        },
        other => other,
    })
}

/// Slots from one to another; there are at most [`MAX_SLOTS`](super::MAX_SLOTS) and a line's more.
fn distance(from: usize, to: usize) -> i64 {
    to as i64 - from as i64
}
