//! Operands that both ways of writing share: registers, numbers, places in memory, targets.

use super::TextError;
use super::cursor::{Cursor, Number};
use crate::insn::{Reg, Size, Source, Width};

/// Where a jump or a local call leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JumpTarget {
    /// So many slots from the next instruction.
    Relative(i64),
    /// To a label, or for calls to a function.
    Label { name: String, column: u32 },
}

/// `r3`, `w3` or `%r3`, if it is next.
pub(super) fn peek_register(cursor: &Cursor<'_>) -> bool {
    let mut ahead = *cursor;
    ahead.eat("%");
    let word = ahead.word();
    let number = word.strip_prefix(['r', 'w']).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// A register, by the name of the part that is used: `r3` is 64 bits wide, `w3` 32.
pub(super) fn any_register(cursor: &mut Cursor<'_>) -> Result<(Width, Reg), TextError> {
    let start = *cursor;
    if !peek_register(cursor) {
        return start.expected("a register, r0 to r10");
    }
    cursor.eat("%");
    let word = cursor.word();
    let width = match word.as_bytes().first() {
        Some(b'w') => Width::W32,
        _ => Width::W64,
    };
    // One way to write each: `r01` is none.
    let number = word
        .get(1..)
        .filter(|text| *text == "0" || !text.starts_with('0'));
    let register = number.and_then(|text| Reg::new(text.parse().ok()?));
    match register {
        Some(register) => Ok((width, register)),
        None => start.error(format!("there is no register `{word}`; they are r0 to r10")),
    }
}

/// A register of this width.
pub(super) fn register(cursor: &mut Cursor<'_>, width: Width) -> Result<Reg, TextError> {
    let start = *cursor;
    let (found, register) = any_register(cursor)?;
    if found == width {
        return Ok(register);
    }
    let letter = match width {
        Width::W32 => 'w',
        Width::W64 => 'r',
    };
    start.expected(&format!(
        "{letter}{}, since the whole instruction is {} bits wide",
        register.number(),
        if width == Width::W32 { 32 } else { 64 }
    ))
}

/// A register of this width, or a number of 32 bits.
pub(super) fn source(cursor: &mut Cursor<'_>, width: Width) -> Result<Source, TextError> {
    if peek_register(cursor) {
        register(cursor, width).map(Source::Reg)
    } else {
        immediate(cursor, "a register or a number").map(Source::Imm)
    }
}

/// A number of 32 bits: signed, or hexadecimal for the bits as they are.
pub(super) fn immediate(cursor: &mut Cursor<'_>, what: &str) -> Result<i32, TextError> {
    let start = *cursor;
    let Some(number) = cursor.number()? else {
        return start.expected(what);
    };
    let bits = u32::try_from(number.value)
        .ok()
        .filter(|_| number.hexadecimal);
    match i32::try_from(number.value).ok().or(bits.map(u32::cast_signed)) {
        Some(value) => Ok(value),
        None => start.error(
            "this number does not fit into 32 bits: -2147483648 to 2147483647, or hexadecimal to 0xffffffff",
        ),
    }
}

/// A number of 64 bits: signed or unsigned.
pub(super) fn wide(number: Number) -> Option<u64> {
    let signed = || i64::try_from(number.value).ok().map(i64::cast_unsigned);
    u64::try_from(number.value).ok().or_else(signed)
}

/// A number of 32 bits without a sign.
pub(super) fn unsigned(cursor: &mut Cursor<'_>, what: &str) -> Result<u32, TextError> {
    let start = *cursor;
    match cursor.number()? {
        None => start.expected(what),
        Some(number) => u32::try_from(number.value)
            .or_else(|_| start.error(format!("{what}: 0 to {}", u32::MAX))),
    }
}

/// A number of 16 bits without a sign.
pub(super) fn unsigned16(cursor: &mut Cursor<'_>, what: &str) -> Result<u16, TextError> {
    let start = *cursor;
    let number = unsigned(cursor, what)?;
    u16::try_from(number).or_else(|_| start.error(format!("{what}: 0 to {}", u16::MAX)))
}

/// The distance from a base register: with its sign, or nothing for 0.
fn offset(cursor: &mut Cursor<'_>) -> Result<i16, TextError> {
    let start = *cursor;
    if !matches!(start.rest().as_bytes().first(), Some(b'+' | b'-')) {
        return Ok(0);
    }
    let Some(number) = cursor.number()? else {
        return start.expected("an offset such as +8 or -8");
    };
    let bits = u16::try_from(number.value)
        .ok()
        .filter(|_| number.hexadecimal);
    match i16::try_from(number.value)
        .ok()
        .or(bits.map(u16::cast_signed))
    {
        Some(value) => Ok(value),
        None => start.error("this offset does not fit into 16 bits: -32768 to 32767"),
    }
}

/// `(r1 +4)` or `[%r1+4]`, whichever brackets are asked for.
pub(super) fn place(
    cursor: &mut Cursor<'_>,
    open: &str,
    close: &str,
) -> Result<(Reg, i16), TextError> {
    cursor.expect(open)?;
    let base = register(cursor, Width::W64)?;
    let offset = offset(cursor)?;
    if !cursor.eat(close) {
        return cursor.expected(&format!("an offset such as +8, or `{close}`"));
    }
    Ok((base, offset))
}

/// `(u32 *)` or, where loads are signed, `(s32 *)`: whether it is signed, and the size.
pub(super) fn cast(cursor: &mut Cursor<'_>) -> Result<(bool, Size), TextError> {
    cursor.expect("(")?;
    let start = *cursor;
    let word = cursor.word();
    let found = match word.split_at_checked(1) {
        Some((sign @ ("u" | "s"), bits)) => size_of_bits(bits).map(|size| (sign == "s", size)),
        _ => None,
    };
    let Some(found) = found else {
        return start.expected("u8, u16, u32, u64, s8, s16 or s32");
    };
    cursor.expect("*")?;
    cursor.expect(")")?;
    Ok(found)
}

/// `(u32 *)`: the size.
pub(super) fn unsigned_cast(cursor: &mut Cursor<'_>) -> Result<Size, TextError> {
    let start = *cursor;
    match cast(cursor)? {
        (false, size) => Ok(size),
        (true, _) => start.error("only loads extend a sign; write u8, u16, u32 or u64"),
    }
}

fn size_of_bits(bits: &str) -> Option<Size> {
    Some(match bits {
        "8" => Size::B,
        "16" => Size::H,
        "32" => Size::W,
        "64" => Size::DW,
        _ => return None,
    })
}

/// `pc+3`, `+3` or a label.
pub(super) fn jump_target(cursor: &mut Cursor<'_>) -> Result<JumpTarget, TextError> {
    let start = *cursor;
    let mut ahead = *cursor;
    ahead.eat_word("pc");
    if matches!(ahead.rest().as_bytes().first(), Some(b'+' | b'-')) {
        let Some(number) = ahead.number()? else {
            return start.expected("a distance such as +3");
        };
        *cursor = ahead;
        return match i32::try_from(number.value) {
            Ok(slots) => Ok(JumpTarget::Relative(i64::from(slots))),
            Err(_) => start
                .error("no jump is that far: an offset has 16 bits, that of gotol and calls 32"),
        };
    }
    let column = cursor.column();
    match cursor.word() {
        "" => start.expected("a label, or a distance such as +3"),
        name => Ok(JumpTarget::Label {
            name: name.to_owned(),
            column,
        }),
    }
}
