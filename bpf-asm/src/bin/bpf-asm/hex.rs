//! Bytes as hexadecimal digits, with white space wherever one likes it.

use std::fmt::Write;

use bpf_asm::insn::Insn;

/// The bytes.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut digits = Vec::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        let digit = c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        digits.push(digit.ok_or_else(|| format!("`{c}` is no hexadecimal digit"))?);
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(format!(
            "{} hexadecimal digits make no whole bytes",
            digits.len()
        ));
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// The instructions.
pub(crate) fn code(text: &str) -> Result<Vec<Insn>, String> {
    let bytes = bytes(text)?;
    let (slots, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || slots.is_empty() {
        let length = bytes.len();
        return Err(format!(
            "{length} bytes are no code: an instruction has 8, or 16"
        ));
    }
    Insn::decode_all(slots).map_err(|(slot, error)| format!("slot {slot}: {error}"))
}

/// A line for each slot: its eight bytes.
pub(crate) fn of_code(insns: &[Insn]) -> String {
    let mut slots = Vec::new();
    for insn in insns {
        insn.encode(&mut slots);
    }
    let mut text = String::with_capacity(slots.len() * 24);
    for slot in slots {
        let separators = " ".repeat(7) + "\n";
        for (byte, separator) in slot.iter().zip(separators.chars()) {
            // Writing to a string can't fail.
            let _ = write!(text, "{byte:02x}{separator}");
        }
    }
    text
}
