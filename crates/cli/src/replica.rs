//! `electrode replica`: run one replica of a group.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use argh::FromArgs;
use electrode_config::Config;
use electrode_replica::{Accelerate, App, Options};
use electrode_vr::{Durability, ReplicaId, Timing};
use electrode_wire::Key;
use tracing_subscriber::filter::LevelFilter;

/// run one replica of a group
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "replica")]
pub(crate) struct Replica {
    /// configuration file (default: $ELECTRODE_CONFIG, then ./config.txt)
    #[argh(option)]
    config: Option<PathBuf>,

    /// which line `replica` of the configuration this one is, from 0
    #[argh(option)]
    index: u8,

    /// network interface for the fast path (default: the one that the other replicas are reached through)
    #[argh(option)]
    interface: Option<String>,

    /// auto (default): the whole fast path, or user space with a warning; none; all; or a list of broadcast, prepare,
    /// prepare-ok. With all or a list, what prevents it is an error
    #[argh(option, default = "Accelerate::Auto")]
    accelerate: Accelerate,

    /// state machine: kv (default) or null
    #[argh(option, default = "App::Kv")]
    app: App,

    /// where the group's name and the promised view are kept, in memory mode too (default: $STATE_DIRECTORY, then
    /// ./electrode-INDEX.state)
    #[argh(option)]
    state_dir: Option<PathBuf>,

    /// start a new group with this replica, without waiting for all others to come up new
    #[argh(switch)]
    bootstrap: bool,

    /// file with the group's secret key: 32 hex digits or 16 bytes; the same on all replicas
    #[argh(option)]
    group_key_file: Option<PathBuf>,

    /// address on which to serve Prometheus metrics, for example 127.0.0.1:9100
    #[argh(option)]
    metrics: Option<SocketAddr>,

    /// what to log on standard error: off, error, warn, info (default), debug or trace
    #[argh(option, default = "LevelFilter::INFO")]
    log: LevelFilter,

    /// spin instead of sleeping: lower latency for a whole CPU
    #[argh(switch)]
    busy_poll: bool,

    /// multiply the protocol's time-outs by this, 1 to 100 (default 1): for slow machines and long distances, the same on
    /// all replicas
    #[argh(option, default = "1")]
    timeout_factor: u8,

    /// as a primary, answer reads without asking the backups while its lease holds: for 87 ms after the last op, provided
    /// that no clock runs an eighth faster than another
    #[argh(switch)]
    read_leases: bool,

    /// what survives the process. memory (default): the group's name and the promised view; a replica that loses its
    /// process recovers the log from the others. disk: the log too; nothing is acknowledged before it is on disk
    #[argh(option, default = "Durability::Memory", from_str_fn(durability))]
    durability: Durability,
}

pub(crate) fn run(arguments: Replica) -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(arguments.log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let options = match options(arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("electrode replica: {error:#}");
            return ExitCode::from(2);
        }
    };
    match electrode_replica::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("electrode replica: {error}");
            ExitCode::FAILURE
        }
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "memory" => Ok(Durability::Memory),
        "disk" => Ok(Durability::Disk),
        _ => Err(format!("there is no {text:?}; expected memory or disk")),
    }
}

/// The configuration file to read when none was named.
pub(super) fn default_config(named: Option<PathBuf>) -> PathBuf {
    let from_environment = || std::env::var_os("ELECTRODE_CONFIG").map(PathBuf::from);
    named
        .or_else(from_environment)
        .unwrap_or_else(|| "config.txt".into())
}

fn options(arguments: Replica) -> anyhow::Result<Options> {
    let config = Config::load(default_config(arguments.config))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let index = arguments.index;
    if usize::from(index) >= config.replicas.len() {
        bail!(
            "--index {index}: the configuration has {} replicas, counted from 0",
            config.replicas.len()
        );
    }
    let from_systemd = || {
        let directories = std::env::var("STATE_DIRECTORY").ok()?;
        Some(PathBuf::from(directories.split(':').next()?))
    };
    let state_dir = arguments.state_dir.or_else(from_systemd);
    let state_dir = state_dir.unwrap_or_else(|| format!("electrode-{index}.state").into());
    let key = arguments
        .group_key_file
        .map_or(Ok(Key::UNKEYED), |file| group_key(&file))?;
    Ok(Options {
        key,
        app: arguments.app,
        accelerate: arguments.accelerate,
        interface: arguments.interface,
        durability: arguments.durability,
        read_leases: arguments.read_leases,
        bootstrap: arguments.bootstrap,
        metrics: arguments.metrics,
        busy_poll: arguments.busy_poll,
        handle_signals: true,
        timing: Timing::default().slower(timeout_factor(arguments.timeout_factor)?),
        ..Options::new(config.resolve()?, ReplicaId(index), state_dir)
    })
}

fn timeout_factor(factor: u8) -> anyhow::Result<u32> {
    match factor {
        1..=100 => Ok(factor.into()),
        _ => bail!("--timeout-factor {factor}: expected 1 to 100"),
    }
}

fn group_key(file: &Path) -> anyhow::Result<Key> {
    let shown = file.display();
    let bytes = std::fs::read(file).with_context(|| format!("--group-key-file {shown}"))?;
    let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.mode());
    if mode & 0o077 != 0 {
        tracing::warn!(
            "{shown} holds the group's secret and others may read it: chmod 600 {shown}"
        );
    }
    let Some(key) = parse_key(&bytes) else {
        bail!(
            "--group-key-file {shown}: expected 32 hex digits or 16 bytes, found {} bytes",
            bytes.len()
        );
    };
    if key == Key::UNKEYED {
        bail!(
            "--group-key-file {shown}: a key of zeros is no secret; `openssl rand -hex 16` makes one"
        );
    }
    Ok(key)
}

fn parse_key(bytes: &[u8]) -> Option<Key> {
    if let Ok(key) = bytes.try_into() {
        return Some(Key(key));
    }
    let digits = std::str::from_utf8(bytes).ok()?.trim();
    let valid = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(digits, 16).ok().filter(|_| valid)?;
    Some(Key(number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_factor_of_nothing_or_of_hours_is_refused() {
        assert_eq!(timeout_factor(1).unwrap(), 1);
        assert_eq!(timeout_factor(100).unwrap(), 100);
        assert!(timeout_factor(0).is_err() && timeout_factor(101).is_err());
    }

    #[test]
    fn a_key_is_sixteen_bytes_or_as_many_in_hex() {
        let key = Key(std::array::from_fn(|i| i as u8 * 16 + 1));
        assert_eq!(parse_key(&key.0), Some(key));
        assert_eq!(parse_key(b"01112131415161718191a1b1c1d1e1f1\n"), Some(key));
        assert_eq!(parse_key(b"01112131415161718191A1B1C1D1E1F1"), Some(key));
        assert_eq!(parse_key(b"+1112131415161718191a1b1c1d1e1f1"), None);
        assert_eq!(parse_key(b"0111"), None);
        assert_eq!(parse_key(b""), None);
        assert_eq!(parse_key(&[0xff; 32]), None);
    }
}
