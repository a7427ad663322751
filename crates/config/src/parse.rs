//! Text to a [`Config`]: errors say where, and what was expected there.

use std::fmt;

use electrode_vr::MAX_REPLICAS;

use crate::Config;
use crate::endpoint::Endpoint;

/// The most failures that a group of [`MAX_REPLICAS`] survives.
const MAX_F: usize = (MAX_REPLICAS - 1) / 2;

/// Why there is no configuration. Displayed as `file:line:column: expected ..., found ...`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{file}: can't be read: {error}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        error: String,
    },
    /// The file has more than [`crate::MAX_FILE_BYTES`] bytes.
    #[error("{file}: longer than {limit} bytes, which no configuration is", limit = crate::MAX_FILE_BYTES)]
    TooLong {
        /// The file.
        file: String,
    },
    /// The text isn't a configuration.
    #[error("{place}: expected {expected}, found {found}")]
    Unexpected {
        /// Where.
        place: Place,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
}

/// A place in a file, displayed as `file:line:column`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Config {
    /// Parses the text of a configuration; `file_name` is for errors alone.
    ///
    /// # Errors
    /// [`ConfigError::Unexpected`], at the first thing that is wrong.
    pub fn parse(text: &str, file_name: &str) -> Result<Config, ConfigError> {
        let mut group = Group::default();
        let mut last = 1;
        for (index, line) in text.lines().enumerate() {
            last = index + 1;
            let line = Line {
                file: file_name,
                number: last,
                text: line,
            };
            group.take(line)?;
        }
        // What is missing is missing at the end of the file.
        let end_column = text
            .lines()
            .last()
            .map_or(1, |line| line.chars().count() + 1);
        let end = Place {
            file: file_name.to_owned(),
            line: last,
            column: end_column,
        };
        group.finish(file_name, end)
    }
}

impl ConfigError {
    pub(crate) fn not_utf8(bytes: &[u8], valid: usize, file: &str) -> ConfigError {
        let before = &bytes[..valid];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        ConfigError::Unexpected {
            place: Place {
                file: file.to_owned(),
                line,
                column,
            },
            expected: "UTF-8 text".to_owned(),
            found: format!("the byte {:#04x}", bytes[valid]),
        }
    }
}

/// The group so far.
#[derive(Default)]
struct Group {
    f: Option<(usize, Place)>,
    replicas: Vec<(Endpoint, Place)>,
}

impl Group {
    fn take(&mut self, line: Line<'_>) -> Result<(), ConfigError> {
        let mut words = line.words();
        let Some((at, keyword)) = words.next() else {
            return Ok(());
        };
        let what = match keyword {
            "f" => "a number, the failures to survive",
            "replica" => "host:port",
            _ => return Err(line.unexpected(at, "`f` or `replica`", keyword)),
        };
        let end = line.content().trim_end().len();
        let Some((value_at, value)) = words.next() else {
            return Err(line.unexpected(end, what, ""));
        };
        if let Some((at, extra)) = words.next() {
            return Err(line.unexpected(at, "the end of the line", extra));
        }
        if keyword == "f" {
            self.take_f(line, at, value_at, value)
        } else {
            self.take_replica(line, value_at, value)
        }
    }

    fn take_f(
        &mut self,
        line: Line<'_>,
        at: usize,
        value_at: usize,
        value: &str,
    ) -> Result<(), ConfigError> {
        if let Some((_, first)) = &self.f {
            let expected = format!("one `f` line only (the first is line {})", first.line);
            return Err(line.unexpected(at, &expected, "f"));
        }
        let digits = value.bytes().all(|digit| digit.is_ascii_digit());
        let f = value.parse().ok().filter(|f| digits && *f <= MAX_F);
        let Some(f) = f else {
            return Err(line.unexpected(value_at, &format!("a number from 0 to {MAX_F}"), value));
        };
        self.f = Some((f, line.place(value_at)));
        Ok(())
    }

    fn take_replica(&mut self, line: Line<'_>, at: usize, value: &str) -> Result<(), ConfigError> {
        let endpoint = Endpoint::parse(value).map_err(|error| {
            line.unexpected(at + error.offset, error.expected, &value[error.offset..])
        })?;
        let canonical = endpoint.canonical();
        if let Some((_, first)) = self
            .replicas
            .iter()
            .find(|(other, _)| other.canonical() == canonical)
        {
            let expected = format!("a replica other than the one of line {}", first.line);
            return Err(line.unexpected(at, &expected, value));
        }
        if self.replicas.len() == MAX_REPLICAS {
            let expected = format!("at most {MAX_REPLICAS} replicas");
            return Err(line.unexpected(at, &expected, "one more"));
        }
        self.replicas.push((endpoint, line.place(at)));
        Ok(())
    }

    fn finish(self, file: &str, end: Place) -> Result<Config, ConfigError> {
        let Some((f, f_place)) = self.f else {
            let expected = "an `f` line".to_owned();
            return Err(ConfigError::Unexpected {
                place: end,
                expected,
                found: END.to_owned(),
            });
        };
        let needed = 2 * f + 1;
        let count = self.replicas.len();
        if count != needed {
            let place = self
                .replicas
                .get(needed)
                .map_or(end, |(_, place)| place.clone());
            return Err(ConfigError::Unexpected {
                place,
                expected: format!("{needed} replicas (2f+1 with f = {f})"),
                found: count.to_string(),
            });
        }
        let mut warnings = Vec::new();
        if f == 0 {
            warnings.push(format!("{f_place}: f is 0: the group survives no failure"));
        }
        let (replicas, places): (Vec<_>, Vec<_>) = self.replicas.into_iter().unzip();
        let lines = places.into_iter().map(|place| place.line).collect();
        Ok(Config {
            f,
            replicas,
            warnings,
            file: file.to_owned(),
            lines,
        })
    }
}

/// What is found where the file ends.
const END: &str = "the end of the file";

/// One line, and where it stands.
#[derive(Clone, Copy)]
struct Line<'a> {
    file: &'a str,
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// The line without its comment.
    fn content(self) -> &'a str {
        self.text.split('#').next().unwrap_or_default()
    }

    /// The words and their byte offsets.
    fn words(self) -> impl Iterator<Item = (usize, &'a str)> {
        let content = self.content();
        content
            .split_whitespace()
            .map(move |word| (word.as_ptr().addr() - content.as_ptr().addr(), word))
    }

    fn place(self, offset: usize) -> Place {
        let column = self.text[..offset].chars().count() + 1;
        Place {
            file: self.file.to_owned(),
            line: self.number,
            column,
        }
    }

    fn unexpected(self, offset: usize, expected: &str, found: &str) -> ConfigError {
        let found = match found {
            "" => "the end of the line".to_owned(),
            found => format!("`{found}`"),
        };
        ConfigError::Unexpected {
            place: self.place(offset),
            expected: expected.to_owned(),
            found,
        }
    }
}
