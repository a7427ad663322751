//! The `electrode` command.

#![forbid(unsafe_code)]

mod arguments;
mod bench;
mod check;
mod client;
mod demo;
mod doctor;
mod dump;
mod replica;
mod status;

use std::process::ExitCode;

use argh::FromArgs;

/// Electrode: state-machine replication whose hot path runs in the kernel.
#[derive(FromArgs, Debug)]
struct Electrode {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Command {
    Replica(replica::Replica),
    Check(check::Check),
    Client(client::Client),
    Bench(bench::Bench),
    Demo(demo::Demo),
    Status(status::Status),
    Doctor(doctor::Doctor),
    Dump(dump::Dump),
}

fn main() -> ExitCode {
    let arguments: Electrode = match arguments::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match arguments.command {
        Command::Replica(arguments) => replica::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Client(arguments) => client::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Dump(arguments) => dump::run(arguments),
    }
}
