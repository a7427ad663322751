//! A line of text: labels, slot number, instruction, and what listings say behind it.

use super::cursor::Cursor;
use super::operand::JumpTarget;
use super::resolve::to_function;
use super::{TextError, directive, mnemonic, verifier};
use crate::insn::{Imm64, Insn};
use crate::program::{Global, MapDef, Target};

/// What a line can hold.
#[derive(Debug)]
pub(super) enum Item {
    Label {
        name: String,
        line: u32,
        column: u32,
    },
    Function {
        name: String,
    },
    Map {
        map: MapDef,
        line: u32,
        column: u32,
    },
    /// What the maps in a map are like.
    Inner {
        outer: String,
        map: MapDef,
        line: u32,
        column: u32,
    },
    Global {
        section: String,
        global: Global,
        line: u32,
        column: u32,
    },
    Statement(Statement),
}

/// An instruction whose target, if it has one, is not yet an offset.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) insn: Insn,
    pub(super) target: Option<JumpTarget>,
    /// The map or the function that a listing names behind it.
    pub(super) relocation: Option<Target>,
    /// The slot number before it.
    pub(super) number: Option<usize>,
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Statement {
    pub(super) fn new(insn: Insn) -> Statement {
        Statement {
            insn,
            target: None,
            relocation: None,
            number: None,
            line: 0,
            column: 0,
        }
    }

    pub(super) fn to(insn: Insn, target: JumpTarget) -> Statement {
        Statement {
            target: Some(target),
            ..Statement::new(insn)
        }
    }
}

/// Appends what the line holds to `items`; returns how many slots that takes.
pub(super) fn parse(line: u32, text: &str, items: &mut Vec<Item>) -> Result<usize, TextError> {
    let mut cursor = Cursor::new(line, text);
    while let Some(label) = label(&mut cursor) {
        items.push(label);
    }
    if cursor.at_end() {
        return Ok(0);
    }
    if cursor.rest().starts_with('.') {
        items.push(directive::parse(&mut cursor)?);
        end(&cursor)?;
        return Ok(0);
    }
    let number = slot_number(&mut cursor)?;
    let opcode = opcode(&mut cursor);
    let column = cursor.column();
    let mut statement = match verifier::parse(&mut cursor, opcode)? {
        Some(statement) => statement,
        None => mnemonic::parse(&mut cursor)?,
    };
    if let Err(illegal) = statement.insn.check() {
        return Err(TextError {
            line,
            column,
            message: format!("there is no such instruction: {illegal}"),
        });
    }
    // LLVM's listings repeat the target of a jump: `goto +0x1 <main+0x10>`.
    if statement.target.is_some() && cursor.rest().starts_with('<') {
        let after = cursor.rest().split_once('>').map_or("", |(_, after)| after);
        cursor = Cursor::new(line, after);
    }
    end(&cursor)?;
    annotate(&mut statement, cursor.rest());
    (statement.number, statement.line, statement.column) = (number, line, column);
    let slots = statement.insn.slots();
    items.push(Item::Statement(statement));
    Ok(slots)
}

/// `name:`
fn label(cursor: &mut Cursor<'_>) -> Option<Item> {
    let (line, column) = (cursor.line(), cursor.column());
    let mut ahead = *cursor;
    let name = ahead.word();
    if name.is_empty() || !ahead.eat(":") {
        return None;
    }
    *cursor = ahead;
    Some(Item::Label {
        name: name.to_owned(),
        line,
        column,
    })
}

/// `12:`
fn slot_number(cursor: &mut Cursor<'_>) -> Result<Option<usize>, TextError> {
    let mut ahead = *cursor;
    if !ahead.rest().starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(None);
    }
    let Some(number) = ahead.number()? else {
        return Ok(None);
    };
    if !ahead.eat(":") {
        return cursor.expected("an instruction, or a slot number with a colon");
    }
    match usize::try_from(number.value) {
        Ok(number) if number <= super::MAX_SLOTS => {
            *cursor = ahead;
            Ok(Some(number))
        }
        _ => cursor.error("a slot number larger than any program"),
    }
}

/// `(b7)`: the verifier prints opcodes; they only matter where the text alone is ambiguous, so that an edited instruction
/// may keep a stale one.
fn opcode(cursor: &mut Cursor<'_>) -> Option<u8> {
    let inner = cursor.rest().strip_prefix('(')?;
    let (code, _) = inner.split_once(')')?;
    if code.len() != 2 {
        return None;
    }
    let code = u8::from_str_radix(code, 16).ok()?;
    let token = &cursor.rest()[..4];
    cursor.eat(token).then_some(code)
}

fn end(cursor: &Cursor<'_>) -> Result<(), TextError> {
    if cursor.at_end() {
        Ok(())
    } else {
        cursor.expected("the end of the line or a comment")
    }
}

/// Reads what [`listing`](crate::disasm::listing) writes behind an instruction that is relocated.
fn annotate(statement: &mut Statement, rest: &str) {
    let Some(words) = rest.strip_prefix(';') else {
        return;
    };
    let mut words = words.split_whitespace();
    let words = (words.next(), words.next(), words.next());
    match (&statement.insn, &statement.target, words) {
        (
            Insn::LoadImm64 {
                dst,
                value: Imm64::Value(0),
            },
            None,
            (Some("map"), Some(name), None),
        ) => {
            statement.relocation = Some(Target::Map(name.to_owned()));
            statement.insn = Insn::LoadImm64 {
                dst: *dst,
                value: Imm64::Map,
            };
        }
        // A variable: how far it is from the section's start stands in the instruction.
        (
            Insn::LoadImm64 {
                value: Imm64::MapValue { fd: 0, .. },
                ..
            },
            None,
            (Some("map"), Some(name), None),
        ) => statement.relocation = Some(Target::Map(name.to_owned())),
        (insn, Some(JumpTarget::Relative(-1)), (Some(name), None, None)) => {
            let Some(insn) = to_function(*insn) else {
                return;
            };
            statement.insn = insn;
            statement.relocation = Some(Target::Subprogram(name.to_owned()));
            statement.target = None;
        }
        _ => {}
    }
}
