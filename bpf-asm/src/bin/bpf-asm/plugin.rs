//! `bpf-asm plugin`: what the public conformance suite's runner calls.
//!
//! It gives the memory as its first argument (none if there is none), then the options that it was told to pass, and the code
//! on standard input; it reads r0 from standard output, all in hexadecimal. To it the command is
//! `--plugin_path bpf-asm --plugin_options "plugin --engine=interpreter"`, and so the memory comes before `plugin`;
//! [`arguments`](crate::arguments) puts that right.

use argh::FromArgs;
use bpf_asm::engine::EngineKind;

use crate::{Failure, hex, read_text, run_code};

/// Run code for the public conformance suite's runner: memory as an argument, code on standard input, r0 to standard output.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "plugin",
    error_code(1, "the code is wrong, is refused, or fails")
)]
pub(crate) struct Plugin {
    /// the memory as hexadecimal digits
    #[argh(positional, default = "String::new()")]
    memory: String,

    /// interpreter (the default), rbpf, or kernel, which needs root
    #[argh(option, default = "EngineKind::Interpreter")]
    engine: EngineKind,

    /// accepted for the runner's sake: errors are always told
    #[argh(switch)]
    #[allow(dead_code, reason = "the runner may pass it")]
    debug: bool,

    /// refused: code comes as it is, not in an object
    #[argh(switch)]
    elf: bool,
}

pub(crate) fn run(arguments: &Plugin) -> Result<Vec<u8>, Failure> {
    if arguments.elf {
        return Err(Failure::Usage(
            "objects aren't taken; run the suite with --elf false".into(),
        ));
    }
    let memory = hex::bytes(&arguments.memory)
        .map_err(|error| Failure::Error(format!("the memory: {error}")))?;
    let insns = hex::code(&read_text("-")?)
        .map_err(|error| Failure::Error(format!("standard input: {error}")))?;
    let r0 = run_code(arguments.engine, &insns, &memory)?;
    Ok(format!("{r0:x}\n").into_bytes())
}
