//! Instructions below the Rust lines that they come from.

use std::fmt::Write;

use bpf_asm::insn::Insn;
use bpf_asm::program::{Function, Line, Program, Target};
use electrode_fastpath::programs::SOURCES;

/// The column at which instructions begin, so that the source stands out at the left.
const INDENT: usize = 8;

/// All functions of the programs.
pub(super) fn of(programs: &[Program]) -> String {
    let mut text = String::new();
    for program in programs {
        for function in std::iter::once(&program.main).chain(&program.subprograms) {
            let slots: usize = function.insns.iter().map(Insn::slots).sum();
            let _ = writeln!(text, "{}: {:?}, {slots} slots", function.name, program.kind);
            write_function(&mut text, function);
            text.push('\n');
        }
    }
    text.pop();
    text
}

fn write_function(text: &mut String, function: &Function) {
    let mut last = None;
    let mut slot = 0;
    let mut relocations = function.relocations.iter().peekable();
    for (at, (insn, line)) in function.insns.iter().zip(&function.lines).enumerate() {
        let place = Some((line.file, line.line));
        if place != last {
            let _ = writeln!(text, "{}", quote(line));
        }
        last = place;
        let _ = write!(text, "{:INDENT$}{slot:4}: {insn}", "");
        let _ = match relocations
            .next_if(|relocation| relocation.at == at)
            .map(|relocation| &relocation.target)
        {
            Some(Target::Map(name)) => writeln!(text, "  ; map {name}"),
            Some(Target::Subprogram(name)) => writeln!(text, "  ; {name}"),
            None => writeln!(text),
        };
        slot += insn.slots();
    }
}

/// `prepare.rs:120  let now = f.ktime_ns();`
fn quote(line: &Line) -> String {
    let file = line.file.rsplit('/').next().unwrap_or(line.file);
    let place = format!("{file}:{}", line.line);
    match source(line) {
        Some(source) => format!("{place}  {source}"),
        None => place,
    }
}

fn source(line: &Line) -> Option<&'static str> {
    let (_, text) = SOURCES.iter().find(|(name, _)| line.file.ends_with(name))?;
    let index = usize::try_from(line.line).ok()?.checked_sub(1)?;
    text.lines()
        .nth(index)
        .map(str::trim)
        .filter(|text| !text.is_empty())
}
