//! `bpf-asm asm`: text to an object, or to hexadecimal code.

use std::io::IsTerminal;
use std::str::FromStr;

use argh::FromArgs;
use bpf_asm::object::{self, Object};
use bpf_asm::program::{Program, ProgramKind};
use bpf_asm::text::Assembly;
use bpf_asm::{code, text};

use crate::{Failure, hex, read_text};

/// Assemble a text, in the verifier's syntax or in the conformance suite's, to an object file.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "asm",
    note = "A listing of `bpf-asm disasm` is such a text. Its first function is the program, the others are its subprograms.",
    error_code(1, "the text has errors, or a file can't be read or written")
)]
pub(crate) struct Asm {
    /// the text, or - for standard input
    #[argh(positional)]
    file: String,

    /// file to write (default: standard output)
    #[argh(option, short = 'o')]
    output: Option<String>,

    /// write the code as hexadecimal digits, a line for each slot, instead of an object
    #[argh(switch)]
    hex: bool,

    /// the hook: xdp (the default), xdp.frags or classifier
    #[argh(option, default = "Kind(ProgramKind::Xdp)")]
    kind: Kind,

    /// the licence (default: GPL)
    #[argh(option, default = "String::from(\"GPL\")")]
    license: String,
}

#[derive(Clone, Copy, Debug)]
struct Kind(ProgramKind);

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        match text {
            "xdp" => Ok(Kind(ProgramKind::Xdp)),
            "xdp.frags" => Ok(Kind(ProgramKind::XdpFrags)),
            "classifier" => Ok(Kind(ProgramKind::Classifier)),
            _ => Err("expected xdp, xdp.frags or classifier".into()),
        }
    }
}

pub(crate) fn run(arguments: &Asm) -> Result<Vec<u8>, Failure> {
    let to_terminal = arguments.output.is_none() && std::io::stdout().is_terminal();
    if to_terminal && !arguments.hex {
        return Err(Failure::Usage(
            "an object is nothing for a terminal; give -o FILE, --hex or a pipe".into(),
        ));
    }
    let source = read_text(&arguments.file)?;
    let assembly = text::assemble(&arguments.file, &source).map_err(failure)?;
    let bytes = if arguments.hex {
        code_of(assembly, arguments)?.into_bytes()
    } else {
        let program = program(assembly, arguments)?;
        let sources = [(arguments.file.as_str(), source.as_str())];
        let object = Object::new(arguments.license.as_str()).sources(&sources);
        object.program(program).to_elf().map_err(failure)?
    };
    match &arguments.output {
        None => Ok(bytes),
        Some(path) => {
            std::fs::write(path, bytes).map_err(Failure::of(path))?;
            Ok(Vec::new())
        }
    }
}

/// The code as the kernel would get it; where there is one piece of it, as it is written.
fn code_of(assembly: Assembly, arguments: &Asm) -> Result<String, Failure> {
    if let [unit] = &assembly.units[..]
        && unit.relocations.is_empty()
    {
        return Ok(hex::of_code(&unit.insns));
    }
    let linked = object::link(&program(assembly, arguments)?).map_err(failure)?;
    if let Some((_, map)) = linked.maps.first() {
        return Err(Failure::Error(format!(
            "plain code can't refer to the map `{map}` by its name; leave out --hex, or write map[fd:N]"
        )));
    }
    Ok(hex::of_code(&linked.insns))
}

/// The first function and what it calls, by name or by label.
fn program(assembly: Assembly, arguments: &Asm) -> Result<Program, Failure> {
    // Lines name their file for as long as they like; this process has one, and ends soon.
    let file: &'static str = Box::leak(arguments.file.clone().into_boxed_str());
    let mut functions = Vec::with_capacity(assembly.units.len());
    for (at, unit) in assembly.units.iter().enumerate() {
        // The program takes its context; what functions take the verifier sees.
        let function = unit.function(file, if at == 0 { 1 } else { 5 });
        functions.extend(code::cut(&function).map_err(failure)?);
    }
    let mut functions = functions.into_iter();
    Ok(Program {
        kind: arguments.kind.0,
        main: functions
            .next()
            .ok_or_else(|| Failure::Error("there is no instruction".into()))?,
        subprograms: functions.collect(),
        maps: assembly.maps,
    })
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::Error(error.to_string())
}
