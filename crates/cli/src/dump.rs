//! `electrode dump`: the eBPF programs, as an object file, as instructions, or beside the Rust lines that they come from.

mod listing;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, bail};
use argh::FromArgs;
use bpf_asm::program::Program;
use bpf_asm::{disasm, text};
use electrode_fastpath::programs;

use crate::arguments::USAGE;

/// Print the fast path's eBPF programs.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "dump",
    error_code(1, "the output can't be written")
)]
pub(crate) struct Dump {
    /// dispatch, prepare, prepare_ok (or prepare-ok), broadcast, or all
    #[argh(option)]
    program: Chosen,

    /// elf: the object file, which aya, bpftool and libbpf load; asm: the instructions as the verifier prints them;
    /// listing: these below the Rust lines that they come from
    #[argh(option)]
    format: Format,

    /// file to write (default: standard output)
    #[argh(option)]
    output: Option<PathBuf>,
}

/// The programs asked for, by name.
#[derive(Debug, PartialEq)]
struct Chosen(Vec<&'static str>);

impl FromStr for Chosen {
    type Err = String;

    fn from_str(text: &str) -> Result<Chosen, String> {
        let text = text.replace('-', "_");
        if text == "all" {
            return Ok(Chosen(programs::NAMES.to_vec()));
        }
        let found = programs::NAMES.iter().find(|name| **name == text);
        found.map(|name| Chosen(vec![name])).ok_or_else(|| {
            format!(
                "there is no such program; there are {} and all",
                programs::NAMES.join(", ")
            )
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Elf,
    Asm,
    Listing,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "elf" => Ok(Format::Elf),
            "asm" => Ok(Format::Asm),
            "listing" => Ok(Format::Listing),
            _ => Err("expected elf, asm or listing".into()),
        }
    }
}

pub(crate) fn run(arguments: Dump) -> ExitCode {
    if arguments.format == Format::Elf
        && arguments.output.is_none()
        && std::io::stdout().is_terminal()
    {
        eprintln!(
            "electrode dump: an object file is nothing for a terminal; give --output FILE or a pipe"
        );
        return ExitCode::from(USAGE);
    }
    match dump(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("electrode dump: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dump(arguments: &Dump) -> anyhow::Result<()> {
    let built = build(&arguments.program)?;
    let bytes = match arguments.format {
        Format::Elf => programs::object_of(built)?,
        Format::Asm => assembly(&built).into_bytes(),
        Format::Listing => listing::of(&built).into_bytes(),
    };
    if let Some(path) = &arguments.output {
        return std::fs::write(path, bytes).with_context(|| path.display().to_string());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(&bytes).and_then(|()| out.flush()) {
        // `| head` has what it wants.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}

fn build(chosen: &Chosen) -> anyhow::Result<Vec<Program>> {
    let mut built = Vec::new();
    for name in &chosen.0 {
        match programs::build(name) {
            Some(program) => built.push(program.with_context(|| format!("program {name}"))?),
            None => bail!("program {name} isn't there"),
        }
    }
    Ok(built)
}

/// The maps, and every function: its name, then its instructions by slot. `bpf_asm::text` reads it.
fn assembly(programs: &[Program]) -> String {
    let maps: Vec<_> = programs.iter().flat_map(|program| &program.maps).collect();
    let mut lines = String::new();
    for (at, map) in maps.iter().enumerate() {
        if !maps[..at].contains(map) {
            lines.push_str(&text::map_lines(map));
        }
    }
    for function in programs
        .iter()
        .flat_map(|program| std::iter::once(&program.main).chain(&program.subprograms))
    {
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(&format!(
            "{}:\n{}",
            function.name,
            disasm::listing(function)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_go_by_their_names_with_either_dash() {
        let chosen = |text: &str| text.parse::<Chosen>();
        assert_eq!(chosen("prepare_ok"), Ok(Chosen(vec!["prepare_ok"])));
        assert_eq!(chosen("prepare-ok"), chosen("prepare_ok"));
        assert_eq!(chosen("all"), Ok(Chosen(programs::NAMES.to_vec())));
        assert!(
            chosen("commit")
                .unwrap_err()
                .contains("dispatch, prepare, prepare_ok, broadcast")
        );
    }
}
