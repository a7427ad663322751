//! `bpf_trace_printk` and its like: the conversions of C that the kernel knows, as far as numbers and strings go.

use super::{Helper, Returned};
use crate::insn::Size;
use crate::interpreter::cpu::Cpu;
use crate::interpreter::fault::FaultKind;
use crate::interpreter::map::Errno;
use crate::interpreter::state::State;
use crate::interpreter::value::{Pointer, Value};

/// The longest string that `%s` follows.
const MAX_STRING_BYTES: i64 = 512;

/// A conversion: its minimal width, how it is padded, and what for.
struct Conversion {
    width: usize,
    zeros: bool,
    left: bool,
    /// 4 or 8.
    bytes: u8,
    letter: char,
}

impl Cpu {
    /// `bpf_trace_printk(format, size, a, b, c)`.
    pub(super) fn trace_printk(&mut self, state: &mut State, helper: Helper) -> Returned {
        let format = self.format_argument(state, helper, 1, 2)?;
        let arguments: Vec<Value> = self.registers[3..6].to_vec();
        let text = self.formatted(state, &format, &arguments)?;
        Ok(printed(state, text))
    }

    /// `bpf_trace_vprintk(format, size, data, data_size)`.
    pub(super) fn trace_vprintk(&mut self, state: &mut State, helper: Helper) -> Returned {
        let format = self.format_argument(state, helper, 1, 2)?;
        let arguments = self.words_argument(state, helper, 3, 4)?;
        let text = self.formatted(state, &format, &arguments)?;
        Ok(printed(state, text))
    }

    /// `bpf_snprintf(out, size, format, data, data_size)`: the text's length with its NUL, also when it didn't fit.
    pub(super) fn snprintf(&mut self, state: &mut State, helper: Helper) -> Returned {
        let size = self.scalar(helper, 2)? as usize;
        let format = self.string(state, self.pointer_argument(helper, 3)?)?;
        let arguments = self.words_argument(state, helper, 4, 5)?;
        let Some(text) = self.formatted(state, &format, &arguments)? else {
            return Ok(Errno::EINVAL.result());
        };
        let mut bytes = text.into_bytes();
        bytes.push(0);
        let length = bytes.len() as u64;
        if size > 0 {
            let to = self.pointer_argument(helper, 1)?;
            bytes.resize(size, 0);
            bytes[size - 1] = 0;
            self.write_bytes(state, to, &bytes)?;
        }
        Ok(length)
    }

    fn format_argument(
        &self,
        state: &State,
        helper: Helper,
        n: u8,
        size: u8,
    ) -> Result<String, FaultKind> {
        let length = self.scalar(helper, size)?;
        let bytes = self.buffer_argument(state, helper, n, length)?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn words_argument(
        &mut self,
        state: &State,
        helper: Helper,
        n: u8,
        size: u8,
    ) -> Result<Vec<Value>, FaultKind> {
        const MAX_WORDS: u64 = 12;
        let length = self.scalar(helper, size)?;
        if length == 0 {
            return Ok(Vec::new());
        }
        if length % 8 != 0 || length / 8 > MAX_WORDS {
            return Err(helper.argument(size, "up to 12 words", Value::Scalar(length)));
        }
        let pointer = self.pointer_argument(helper, n)?;
        (0..length as i64 / 8)
            .map(|word| {
                let offset = pointer.offset + 8 * word;
                self.load(state, Pointer { offset, ..pointer }, Size::DW)
            })
            .collect()
    }

    fn string(&self, state: &State, pointer: Pointer) -> Result<String, FaultKind> {
        let mut text = Vec::new();
        for at in 0..MAX_STRING_BYTES {
            let mut byte = [0];
            let offset = pointer.offset + at;
            self.read_bytes(state, Pointer { offset, ..pointer }, &mut byte)?;
            if byte == [0] {
                break;
            }
            text.extend(byte);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The text; None for a format that isn't understood.
    fn formatted(
        &self,
        state: &State,
        format: &str,
        arguments: &[Value],
    ) -> Result<Option<String>, FaultKind> {
        let mut text = String::new();
        let mut letters = format.chars().peekable();
        let mut arguments = arguments.iter().copied();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                text.push(letter);
                continue;
            }
            if letters.next_if_eq(&'%').is_some() {
                text.push('%');
                continue;
            }
            let Some(conversion) = conversion(&mut letters) else {
                return Ok(None);
            };
            let argument = match arguments.next() {
                None | Some(Value::Uninit) => return Ok(None),
                Some(argument) => argument,
            };
            let shown = match argument {
                Value::Pointer(pointer) if conversion.letter == 's' => {
                    self.string(state, pointer)?
                }
                Value::Scalar(number) => match number_text(&conversion, number) {
                    Some(shown) => shown,
                    None => return Ok(None),
                },
                other => other.to_string(),
            };
            let missing = conversion.width.saturating_sub(shown.chars().count());
            let fill = if conversion.zeros { "0" } else { " " };
            if conversion.left {
                text.push_str(&shown);
            }
            text.push_str(&fill.repeat(missing));
            if !conversion.left {
                text.push_str(&shown);
            }
        }
        Ok(Some(text))
    }
}

fn conversion(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Conversion> {
    const MAX_WIDTH: usize = 64;
    let (mut zeros, mut left) = (false, false);
    while let Some(flag) = letters.next_if(|letter| "0-#+ ".contains(*letter)) {
        zeros |= flag == '0';
        left |= flag == '-';
    }
    let mut width = 0;
    while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
        width = (10 * width + digit as usize).min(MAX_WIDTH);
        letters.next();
    }
    let mut bytes = 4;
    while letters.next_if_eq(&'l').is_some() {
        bytes = 8;
    }
    let letter = letters.next()?;
    Some(Conversion {
        width,
        zeros: zeros && !left,
        left,
        bytes,
        letter,
    })
}

fn number_text(conversion: &Conversion, number: u64) -> Option<String> {
    let unused = 64 - 8 * u32::from(conversion.bytes);
    let unsigned = number << unused >> unused;
    let signed = (number << unused).cast_signed() >> unused;
    Some(match conversion.letter {
        'd' | 'i' => signed.to_string(),
        'u' => unsigned.to_string(),
        'x' => format!("{unsigned:x}"),
        'X' => format!("{unsigned:X}"),
        'p' => format!("{number:016x}"),
        'c' => char::from(number as u8).to_string(),
        _ => return None,
    })
}

/// Keeps a line, and returns what the helper does: its length.
fn printed(state: &mut State, text: Option<String>) -> u64 {
    match text {
        Some(text) => {
            let length = text.len() as u64;
            state.print(text);
            length
        }
        None => Errno::EINVAL.result(),
    }
}
