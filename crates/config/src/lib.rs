//! config.txt: the group in the classic format.
//!
//! ```text
//! # comments and blank lines anywhere
//! f 1
//! replica alpha.example:51510
//! replica 10.0.0.2:51510
//! replica [2001:db8::3]:51510
//! ```
//! Parsing touches neither network nor names; [`Config::resolve`] does, when asked.

#![forbid(unsafe_code)]

mod endpoint;
mod parse;
mod resolve;

use std::fmt;
use std::io::Read;
use std::path::Path;

pub use endpoint::Endpoint;
pub use parse::{ConfigError, Place};
pub use resolve::ResolveError;

/// The longest configuration file, in bytes: far beyond what the largest group needs.
pub const MAX_FILE_BYTES: usize = 64 << 10;

/// A group of replicas; the index of a replica is its place in [`Config::replicas`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many replicas may fail.
    pub f: usize,
    /// The 2f+1 replicas, in order.
    pub replicas: Vec<Endpoint>,
    /// What is allowed but should be known, each a line `file:line:column: words`.
    pub warnings: Vec<String>,
    /// The name of the file, for errors that come later.
    file: String,
    /// The line of each replica, from 1.
    lines: Vec<usize>,
}

impl Config {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// The file can't be read, is too long, or isn't a configuration: see [`ConfigError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Config, ConfigError> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|open| open.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| ConfigError::Read {
                file: file.clone(),
                error: error.to_string(),
            })?;
        if bytes.len() > MAX_FILE_BYTES {
            return Err(ConfigError::TooLong { file });
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Config::parse(text, &file),
            Err(error) => Err(ConfigError::not_utf8(&bytes, error.valid_up_to(), &file)),
        }
    }
}

/// The configuration as a file: parsing it gives the same group.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "f {}", self.f)?;
        self.replicas
            .iter()
            .try_for_each(|replica| writeln!(f, "replica {replica}"))
    }
}
