//! A program as the kernel gets it: its functions one after another, in the order in which loaders append them.
//!
//! Loaders number instructions anew when they link. Doing the same here leads from a number in a verifier log back to
//! the Rust line, also on kernels whose logs don't name it.

use std::fmt::Write;

use super::{ObjectError, collect};
use crate::insn::{Imm64, Insn};
use crate::program::{Function, Line, Program, Target};

/// A program's functions, linked. Map loads are as they were; local calls have their offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The instructions.
    pub insns: Vec<Insn>,
    /// For each instruction, where it was written.
    pub lines: Vec<Line>,
    /// For each instruction, its slot.
    pub slots: Vec<usize>,
    /// Where each function begins, as an index into `insns`, and its name; the main function first.
    pub functions: Vec<(usize, String)>,
    /// The map loads, as indices into `insns`, with their maps' names.
    pub maps: Vec<(usize, String)>,
}

/// Links `program` the way aya and libbpf do: callees follow in the order of the first calls, depth first.
///
/// # Errors
/// As [`Object::to_elf`](super::Object::to_elf), for this program alone.
pub fn link(program: &Program) -> Result<Linked, ObjectError> {
    collect::check_program(program)?;
    let mut linked = Linked {
        insns: Vec::new(),
        lines: Vec::new(),
        slots: Vec::new(),
        functions: Vec::new(),
        maps: Vec::new(),
    };
    linked.append(program, &program.main)?;
    Ok(linked)
}

impl Linked {
    /// Where the instruction at `slot`, a number in a verifier log, was written. The second slot of a 64-bit immediate
    /// load belongs to its first.
    pub fn line_at(&self, slot: usize) -> Option<Line> {
        let after = self.slots.partition_point(|start| *start <= slot);
        let index = after.checked_sub(1)?;
        let end = self.slots[index] + self.insns[index].slots();
        (slot < end).then(|| self.lines[index])
    }

    /// A verifier log with the Rust line before each instruction whose line differs from the one before.
    pub fn annotate(&self, log: &str) -> String {
        let mut out = String::with_capacity(log.len() * 2);
        let mut last = None;
        for text in log.lines() {
            let line = slot_of(text).and_then(|slot| self.line_at(slot));
            if let Some(line) = line.filter(|line| last != Some(*line)) {
                // Writing to a string can't fail.
                let _ = writeln!(out, "; {}:{}:{}", line.file, line.line, line.column);
                last = Some(line);
            }
            out.push_str(text);
            out.push('\n');
        }
        out
    }

    /// Appends `function` and, unless they are there already, what it calls; returns its first slot. The recursion
    /// ends because each function is appended once.
    fn append(&mut self, program: &Program, function: &Function) -> Result<usize, ObjectError> {
        let known = self
            .functions
            .iter()
            .find(|(_, name)| *name == function.name);
        if let Some((index, _)) = known {
            return Ok(self.slots[*index]);
        }
        let first = self.insns.len();
        let first_slot = match self.insns.last() {
            Some(insn) => self.slots[first - 1] + insn.slots(),
            None => 0,
        };
        self.functions.push((first, function.name.clone()));
        let mut slot = first_slot;
        for (insn, line) in function.insns.iter().zip(&function.lines) {
            self.insns.push(*insn);
            self.lines.push(*line);
            self.slots.push(slot);
            slot += insn.slots();
        }
        for relocation in &function.relocations {
            let at = first + relocation.at;
            match &relocation.target {
                Target::Map(name) => self.maps.push((at, name.clone())),
                Target::Subprogram(name) => {
                    let callee = program.subprograms.iter().find(|f| f.name == *name);
                    let callee = callee.ok_or_else(|| ObjectError::UnknownSubprogram {
                        function: function.name.clone(),
                        callee: name.clone(),
                    })?;
                    let target = self.append(program, callee)?;
                    let offset = target as i64 - (self.slots[at] as i64 + 1);
                    let offset = i32::try_from(offset).map_err(|_| ObjectError::TooLarge)?;
                    match &mut self.insns[at] {
                        Insn::LoadImm64 { value, .. } => *value = Imm64::Function { offset },
                        call => *call = Insn::CallLocal { offset },
                    }
                }
            }
        }
        Ok(first_slot)
    }
}

/// The slot of a log's line like `12: (b7) r0 = 1`.
fn slot_of(text: &str) -> Option<usize> {
    let (number, rest) = text.split_once(": ")?;
    if rest.starts_with('(') {
        number.parse().ok()
    } else {
        None
    }
}
