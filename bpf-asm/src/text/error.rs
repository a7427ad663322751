//! What is wrong with a text, and where.

use std::fmt;

use super::{Assembly, MAX_ERRORS};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What was expected there, or what is wrong, and what to write instead.
    pub message: String,
}

/// Everything that is wrong with a text, in the order of its lines; printed as `file:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextErrors {
    /// The name of the text.
    pub file: String,
    /// The errors: at least one, at most [`MAX_ERRORS`].
    pub errors: Vec<TextError>,
}

impl TextErrors {
    pub(super) fn new(file: &str) -> TextErrors {
        TextErrors {
            file: file.to_owned(),
            errors: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, error: TextError) {
        if !self.is_full() {
            self.errors.push(error);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn into_result(mut self, assembly: Assembly) -> Result<Assembly, TextErrors> {
        if self.is_empty() {
            return Ok(assembly);
        }
        self.errors.sort_by_key(|error| (error.line, error.column));
        Err(self)
    }
}

impl fmt::Display for TextErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            let TextError {
                line,
                column,
                message,
            } = error;
            write!(f, "{}:{line}:{column}: {message}", self.file)?;
        }
        if self.is_full() {
            write!(f, "\n{}: too many errors; the rest was not read", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for TextErrors {}
