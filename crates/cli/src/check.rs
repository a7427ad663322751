//! `electrode check`: check a configuration file.

use std::path::PathBuf;
use std::process::ExitCode;

use argh::FromArgs;
use electrode_config::Config;

use crate::arguments::config_path;

/// Check a configuration file without resolving names or touching the network.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check", error_code(1, "it isn't valid"))]
pub(crate) struct Check {
    /// the configuration file (default: $ELECTRODE_CONFIG, then ./config.txt)
    #[argh(option)]
    config: Option<PathBuf>,
}

pub(crate) fn run(arguments: Check) -> ExitCode {
    let path = config_path(arguments.config);
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    let count = config.replicas.len();
    println!(
        "{}: valid; {count} replicas, {} may fail",
        path.display(),
        config.f
    );
    for (index, replica) in config.replicas.iter().enumerate() {
        println!("  {index}  {replica}");
    }
    ExitCode::SUCCESS
}
