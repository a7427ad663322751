//! What a verifier's log says, told for the Rust source: the complaint, the last instructions before it with their lines, and
//! what the registers held.
//!
//! Kernels from 6.12 on print Rust lines themselves; which instruction is which line is known here ([`Linked`]), so the
//! explanation has them on every kernel.
//!
//! ```
//! # use bpf_asm::{asm::Assembler, insn::Reg, object::link, program::{Program, ProgramKind}, verifier};
//! let mut a = Assembler::new("drop");
//! a.mov64(Reg::R0, Reg::R9).exit();
//! let main = a.finish().unwrap();
//! let program = Program { kind: ProgramKind::Xdp, main, subprograms: vec![], maps: vec![] };
//! let log = "0: R1=ctx() R10=fp0\n0: (bf) r0 = r9\nR9 !read_ok\nprocessed 1 insns";
//! let told = verifier::explain(log, &link(&program).unwrap(), &[]);
//! assert_eq!(told.complaint, ["R9 !read_ok"]);
//! assert!(told.to_string().starts_with("the verifier says: R9 !read_ok"));
//! ```

mod advice;
mod log;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::object::{Linked, Sources};
use crate::program::Line;

/// How many instructions before the complaint are shown.
pub const MAX_STEPS: usize = 12;

/// How many lines of complaint are shown: the verifier has one to three.
pub const MAX_COMPLAINT_LINES: usize = 8;

/// A refusal, explained. `Display` is the whole of it, in some twenty lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// The verifier's words, without what it says about its own work; empty where the log ends without any.
    pub complaint: Vec<String>,
    /// What to do about it, where the words are well known.
    pub advice: Option<&'static str>,
    /// The last instructions that it walked, at most [`MAX_STEPS`]; it stopped at the last one.
    pub steps: Vec<Step>,
    /// How many instructions it walked before those.
    pub omitted: usize,
    /// What registers and stack slots held before the last instruction, as `R1=ctx()`, in the order of their names.
    pub state: Vec<String>,
}

/// An instruction that the verifier walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, in slots.
    pub slot: usize,
    /// The instruction, as the verifier printed it.
    pub insn: String,
    /// Where it was written.
    pub line: Option<Line>,
    /// What is written there.
    pub source: Option<String>,
}

/// Explains `log`, of the refusal of `linked`. `sources` are files by how their names end, with their texts, as for
/// [`Object::sources`](crate::object::Object::sources); without them lines have their places alone.
#[must_use]
pub fn explain(log: &str, linked: &Linked, sources: &[(&str, &str)]) -> Explanation {
    let mut texts = Sources::default();
    texts.add(sources);
    let read = log::read(log);
    let step = |(slot, insn): (usize, String)| {
        let line = linked.line_at(slot);
        let source = line.as_ref().and_then(|line| texts.known(line));
        Step {
            slot,
            insn,
            line,
            source,
        }
    };
    Explanation {
        advice: advice::on(&read.complaint),
        complaint: read.complaint,
        steps: read.steps.into_iter().map(step).collect(),
        omitted: read.omitted,
        state: read.state,
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.complaint.split_first() {
            None => writeln!(f, "the verifier gave no reason")?,
            Some((first, rest)) => {
                writeln!(f, "the verifier says: {first}")?;
                for line in rest {
                    writeln!(f, "  {line}")?;
                }
            }
        }
        let culprit = self.steps.last();
        if let Some(line) = culprit.and_then(|step| step.line) {
            writeln!(f, "at {}:{}:{}", line.file, line.line, line.column)?;
        }
        if let Some(advice) = self.advice {
            writeln!(f, "that is: {advice}")?;
        }
        if culprit.is_some() {
            writeln!(f, "what led there:")?;
        }
        if self.omitted > 0 {
            writeln!(f, "  ({} instructions before)", self.omitted)?;
        }
        let mut last = None;
        for step in &self.steps {
            let place = step.line.map(|line| (line.file, line.line));
            if let Some((file, line)) = place.filter(|_| place != last) {
                match &step.source {
                    Some(source) => writeln!(f, "  {file}:{line}  {source}")?,
                    None => writeln!(f, "  {file}:{line}")?,
                }
            }
            last = place;
            writeln!(f, "    {:4}: {}", step.slot, step.insn)?;
        }
        if !self.state.is_empty() {
            writeln!(f, "with {}", self.state.join(" "))?;
        }
        Ok(())
    }
}
