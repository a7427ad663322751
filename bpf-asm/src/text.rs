//! Text to instructions: what [`disasm`](crate::disasm) prints, written or edited by hand, becomes code again.
//!
//! Two ways of writing are understood, line by line, without a switch: the verifier's, which listings and verifier logs
//! have, and the mnemonics of the public conformance suite (`mov32 %r0, 5`, `ldxdw %r1, [%r2+8]`, `lock fetch add [%r1], %r2`).
//!
//! ```text
//!   .map counts array 4 8 1       ; a map: name, type, bytes of a key, of a value, entries, and flags if any
//!   .map .data array 4 16 1       ; a section of global variables,
//!   .global .data limit 0 6400000000000000     ; one of them: name, where it begins, its first bytes,
//!   .global .data total 8 zero 8  ; or that many zeros
//!   .map groups array_of_maps 4 4 8            ; a map of maps,
//!   .inner groups group hash 4 8 100           ; and what those are like
//!   count:                        ; a label; before an instruction numbered 0 it begins a function, as `.function count` does
//!     r6 = 7                      ; decimal numbers are moves of 32 bits,
//!     r7 = 0x7                    ; hexadecimal ones 64-bit loads, as the verifier prints them (or with `ll` behind them)
//!     r1 = map[counts]            ; the address of a map by name
//!     r2 = map[.data][0]+8        ; the address of a byte in its first value
//!     r3 = subprog[NAME]          ; the address of a function of the same text
//!     if r6 s> 0x5 goto done      ; jumps lead to a label, or `goto pc+3` that many slots on
//!     call bpf_ktime_get_ns#5     ; helpers by name or number or both; `call NAME` is a function of the same text
//!   done:
//!     exit                        ; `;`, `//` and `#` begin comments
//! ```
//!
//! In a listing with slot numbers, a relative jump leads to the line that had the number, also after lines without numbers
//! were put in between; and `; map NAME` or `; NAME` behind a map's load or a local call is read as what it says. So
//! listings can be edited and assembled again.
//!
//! ```
//! let code = bpf_asm::text::assemble_code("example", "r0 = 2\nexit").unwrap();
//! assert_eq!(code.len(), 2);
//! let errors = bpf_asm::text::assemble("drop.s", "r0 = 2\n  exi").unwrap_err();
//! assert!(errors.to_string().starts_with("drop.s:2:3: `exi` is no instruction"));
//! ```

mod call;
mod cursor;
mod directive;
mod error;
mod line;
mod mnemonic;
mod operand;
mod resolve;
#[cfg(test)]
mod tests;
mod verifier;

use crate::insn::Insn;
use crate::program::{Function, Line, MapDef, Relocation};
pub use directive::map_lines;
pub use error::{TextError, TextErrors};

/// More slots than the kernel would ever look at (its verifier gives up after a million instructions).
pub const MAX_SLOTS: usize = 1 << 20;

/// How many errors are collected before the rest of the text is left unread.
pub const MAX_ERRORS: usize = 20;

/// A text, assembled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembly {
    /// The functions, in the order of the text; at least one.
    pub units: Vec<Unit>,
    /// The maps of its `.map` lines.
    pub maps: Vec<MapDef>,
}

/// One function of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name: from its label or `.function` line, else `main`.
    pub name: String,
    /// Its instructions, jumps resolved.
    pub insns: Vec<Insn>,
    /// For each instruction the number of its line in the text, from 1.
    pub lines: Vec<u32>,
    /// References to maps and to other functions, in order.
    pub relocations: Vec<Relocation>,
    /// Its labels, each with the slot that it stands before.
    pub labels: Vec<(String, usize)>,
}

impl Unit {
    /// The function for a [`Program`](crate::program::Program), its lines attributed to `file`.
    #[must_use]
    pub fn function(&self, file: &'static str, arguments: usize) -> Function {
        let line = |line: &u32| Line {
            file,
            line: *line,
            column: 1,
        };
        Function {
            name: self.name.clone(),
            arguments,
            insns: self.insns.clone(),
            lines: self.lines.iter().map(line).collect(),
            relocations: self.relocations.clone(),
        }
    }
}

/// Assembles `text`; `file` is its name in errors.
///
/// # Errors
/// Every line that makes no instruction and every jump that leads nowhere, up to [`MAX_ERRORS`], each with its place.
pub fn assemble(file: &str, text: &str) -> Result<Assembly, TextErrors> {
    let mut errors = TextErrors::new(file);
    let mut items = Vec::new();
    let mut slots = 0;
    for (number, text) in (1..).zip(text.lines()) {
        match line::parse(number, text, &mut items) {
            Ok(taken) => slots += taken,
            Err(error) => errors.add(error),
        }
        if slots > MAX_SLOTS {
            errors.add(TextError {
                line: number,
                column: 1,
                message: format!("more than {MAX_SLOTS} slots; the kernel takes no such program"),
            });
            break;
        }
        if errors.is_full() {
            break;
        }
    }
    let assembly = resolve::resolve(items, &mut errors);
    errors.into_result(assembly)
}

/// Assembles one function that needs no loader: no maps by name, no calls to other functions of the text.
///
/// # Errors
/// As [`assemble`], and where the text has several functions or refers to a map by name.
pub fn assemble_code(file: &str, text: &str) -> Result<Vec<Insn>, TextErrors> {
    let Assembly { mut units, .. } = assemble(file, text)?;
    let refuse = |line, message: &str| {
        let mut errors = TextErrors::new(file);
        errors.add(TextError {
            line,
            column: 1,
            message: message.to_owned(),
        });
        Err(errors)
    };
    if let Some(second) = units.get(1) {
        let line = second.lines.first().copied().unwrap_or(1);
        return refuse(
            line,
            "a second function begins here, and only one is expected",
        );
    }
    let Some(unit) = units.pop() else {
        return refuse(1, "there is no instruction in this text");
    };
    if let Some(relocation) = unit.relocations.first() {
        let line = unit.lines.get(relocation.at).copied().unwrap_or(1);
        return refuse(
            line,
            "plain code can't refer to a map by its name; give its file descriptor as map[fd:N]",
        );
    }
    Ok(unit.insns)
}
