//! `.BTF.ext`: which function and which source line each instruction belongs to, section by section.

use super::{Btf, TypeId, header, put};

/// Up to the CO-RE part's place and length. LLVM refuses the shorter header that the kernel's documents show.
const HEADER_BYTES: u32 = 32;
const FUNCTION_RECORD_BYTES: u32 = 8;
const LINE_RECORD_BYTES: u32 = 16;

/// The most a record has room for: 22 bits for the line, 10 for the column.
const MAX_LINE: u32 = (1 << 22) - 1;
const MAX_COLUMN: u32 = (1 << 10) - 1;

/// A function begins here.
#[derive(Clone, Copy, Debug)]
pub struct FunctionInfo {
    /// Bytes from the start of the ELF section.
    pub offset: u32,
    /// The function's BTF type.
    pub function: TypeId,
}

/// A source line begins here.
#[derive(Clone, Copy, Debug)]
pub struct LineInfo<'a> {
    /// Bytes from the start of the ELF section.
    pub offset: u32,
    /// The file's name.
    pub file: &'a str,
    /// The line's text.
    pub text: &'a str,
    /// Its number, from 1; one that 22 bits can't hold is written as 0.
    pub line: u32,
    /// Its column, from 1; one that 10 bits can't hold is written as 0.
    pub column: u32,
}

/// The section under construction. CO-RE relocations have no place here: the part is there, and empty.
#[derive(Clone, Debug, Default)]
pub struct BtfExt {
    functions: Vec<u8>,
    lines: Vec<u8>,
}

impl BtfExt {
    /// Nothing yet.
    pub fn new() -> BtfExt {
        BtfExt::default()
    }

    /// Adds an ELF section's functions and lines, both by ascending offset; strings go into `btf`.
    pub fn section(
        &mut self,
        btf: &mut Btf,
        name: &str,
        functions: &[FunctionInfo],
        lines: &[LineInfo<'_>],
    ) {
        let name = btf.string(name);
        if !functions.is_empty() {
            put(&mut self.functions, &[name, functions.len() as u32]);
        }
        for function in functions {
            put(
                &mut self.functions,
                &[function.offset, function.function.number()],
            );
        }
        if !lines.is_empty() {
            put(&mut self.lines, &[name, lines.len() as u32]);
        }
        for line in lines {
            let number = if line.line > MAX_LINE { 0 } else { line.line };
            let column = if line.column > MAX_COLUMN {
                0
            } else {
                line.column
            };
            let record = [
                line.offset,
                btf.string(line.file),
                btf.string(line.text),
                number << 10 | column,
            ];
            put(&mut self.lines, &record);
        }
    }

    /// The `.BTF.ext` section.
    pub fn to_bytes(&self) -> Vec<u8> {
        let part = |record_bytes: u32, records: &[u8]| {
            let mut part = record_bytes.to_le_bytes().to_vec();
            part.extend_from_slice(records);
            part
        };
        let functions = part(FUNCTION_RECORD_BYTES, &self.functions);
        let lines = part(LINE_RECORD_BYTES, &self.lines);
        let (functions_len, lines_len) = (super::length(&functions), super::length(&lines));
        let mut out = header(HEADER_BYTES);
        let end = functions_len + lines_len;
        put(
            &mut out,
            &[0, functions_len, functions_len, lines_len, end, 0],
        );
        out.extend_from_slice(&functions);
        out.extend_from_slice(&lines);
        out
    }
}
