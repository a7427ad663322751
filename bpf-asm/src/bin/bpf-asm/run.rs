//! `bpf-asm run`: runs plain code and prints r0.

use argh::FromArgs;
use bpf_asm::engine::EngineKind;
use bpf_asm::text;

use crate::{Failure, hex, read_text, run_code};

/// Run code with memory in r1 and its length in r2, and print r0.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "run",
    error_code(1, "the code is wrong, is refused, or fails")
)]
pub(crate) struct Run {
    /// a text to assemble and run, or - for standard input
    #[argh(positional)]
    file: Option<String>,

    /// code as hexadecimal digits, instead of a text
    #[argh(option)]
    hex: Option<String>,

    /// the memory as hexadecimal digits (default: none)
    #[argh(option, default = "String::new()")]
    mem: String,

    /// interpreter (the default), rbpf, or kernel, which needs root
    #[argh(option, default = "EngineKind::Interpreter")]
    engine: EngineKind,
}

pub(crate) fn run(arguments: &Run) -> Result<Vec<u8>, Failure> {
    let insns = match (&arguments.file, &arguments.hex) {
        (Some(file), None) => text::assemble_code(file, &read_text(file)?)
            .map_err(|errors| Failure::Error(errors.to_string()))?,
        (None, Some(digits)) => {
            hex::code(digits).map_err(|error| Failure::Error(format!("--hex: {error}")))?
        }
        _ => return Err(Failure::Usage("give a text, or code behind --hex".into())),
    };
    let memory =
        hex::bytes(&arguments.mem).map_err(|error| Failure::Error(format!("--mem: {error}")))?;
    let r0 = run_code(arguments.engine, &insns, &memory)?;
    Ok(format!("{r0:#x}\n").into_bytes())
}
