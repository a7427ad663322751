//! The `bpf-asm` command: assembles, disassembles and runs eBPF code.
//!
//! Exit codes: 0 done, 1 the program, its loading or its run has an error, 2 a command line that can't be understood.

#![forbid(unsafe_code)]

mod arguments;
mod asm;
mod btf;
mod disasm;
mod hex;
mod maps;
mod plugin;
mod run;

use std::io::Write;
use std::process::ExitCode;

use argh::FromArgs;
use bpf_asm::engine::EngineKind;
use bpf_asm::insn::Insn;

/// Assemble, disassemble and run eBPF code.
#[derive(FromArgs, Debug)]
struct BpfAsm {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Command {
    Asm(asm::Asm),
    Disasm(disasm::Disasm),
    Run(run::Run),
    Plugin(plugin::Plugin),
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// Anything else; each line is printed as it is.
    Error(String),
}

impl Failure {
    /// For `map_err`: an error of a file, by its name.
    fn of(name: &str) -> impl FnOnce(std::io::Error) -> Failure {
        let name = name.to_owned();
        move |error| Failure::Error(format!("{name}: {error}"))
    }
}

fn main() -> ExitCode {
    let BpfAsm { command } = match arguments::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let (name, result) = match command {
        Command::Asm(arguments) => ("asm", asm::run(&arguments)),
        Command::Disasm(arguments) => ("disasm", disasm::run(&arguments)),
        Command::Run(arguments) => ("run", run::run(&arguments)),
        Command::Plugin(arguments) => ("plugin", plugin::run(&arguments)),
    };
    let output = match result {
        Ok(output) => output,
        Err(Failure::Usage(message)) => {
            eprintln!("bpf-asm {name}: {message}\n\nRun `bpf-asm {name} --help` for more.");
            return ExitCode::from(arguments::USAGE);
        }
        Err(Failure::Error(message)) => {
            eprintln!("bpf-asm {name}: {message}");
            return ExitCode::FAILURE;
        }
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(&output).and_then(|()| out.flush()) {
        // `| head` has what it wants.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("bpf-asm {name}: standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Runs plain code with a copy of the memory: its address in r1, its length in r2. What r0 holds in the end.
fn run_code(kind: EngineKind, insns: &[Insn], memory: &[u8]) -> Result<u64, Failure> {
    let mut slots = Vec::new();
    for insn in insns {
        insn.encode(&mut slots);
    }
    let answer = kind
        .engine()
        .and_then(|mut engine| engine.run(slots.as_flattened(), memory));
    match answer {
        Ok(answer) => Ok(answer.r0),
        Err(error) => Err(Failure::Error(error.to_string())),
    }
}

/// A file's contents, or standard input's for `-`.
fn read(path: &str) -> Result<Vec<u8>, Failure> {
    if path != "-" {
        return std::fs::read(path).map_err(Failure::of(path));
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes)
        .map_err(Failure::of("standard input"))?;
    Ok(bytes)
}

/// As [`read`], of text.
fn read_text(path: &str) -> Result<String, Failure> {
    String::from_utf8(read(path)?)
        .map_err(|_| Failure::Error(format!("{path}: this is no text (no UTF-8)")))
}
