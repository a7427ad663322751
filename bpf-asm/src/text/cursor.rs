//! A place in a line of text, from which words, signs and numbers are taken.

use super::TextError;

/// What is left of a line. White space before a token is skipped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'t> {
    line: u32,
    text: &'t str,
    /// A byte index into `text`, on a character's boundary.
    at: usize,
}

/// A number as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) value: i128,
    pub(super) hexadecimal: bool,
}

/// Digits of the longest number with a meaning: 2^64 in decimal has 20.
const MAX_DIGITS: usize = 24;

impl<'t> Cursor<'t> {
    pub(super) fn new(line: u32, text: &'t str) -> Cursor<'t> {
        Cursor { line, text, at: 0 }
    }

    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// What is left, without the space before it.
    pub(super) fn rest(&self) -> &'t str {
        self.text[self.at..].trim_start()
    }

    /// Where the next token is.
    pub(super) fn column(&self) -> u32 {
        let next = self.text.len() - self.rest().len();
        u32::try_from(self.text[..next].chars().count() + 1).unwrap_or(u32::MAX)
    }

    /// An error at the next token.
    pub(super) fn error<T>(&self, message: impl Into<String>) -> Result<T, TextError> {
        Err(TextError {
            line: self.line,
            column: self.column(),
            message: message.into(),
        })
    }

    /// An error that says what should be here and what is.
    pub(super) fn expected<T>(&self, what: &str) -> Result<T, TextError> {
        let found = self.rest();
        if is_end(found, true) {
            return self.error(format!("expected {what}, but the line ends"));
        }
        let end =
            |(at, c): (usize, char)| (at > 0 && (c.is_whitespace() || c == ',')).then_some(at);
        let end = found.char_indices().find_map(end).unwrap_or(found.len());
        self.error(format!("expected {what}, not `{}`", &found[..end]))
    }

    fn skip(&mut self, bytes: usize) {
        self.at = self.text.len() - self.rest().len() + bytes;
    }

    /// Takes `token` if it is next.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token);
        if is_next {
            self.skip(token.len());
        }
        is_next
    }

    /// Takes `token`, which has to be next.
    pub(super) fn expect(&mut self, token: &str) -> Result<(), TextError> {
        if self.eat(token) {
            Ok(())
        } else {
            self.expected(&format!("`{token}`"))
        }
    }

    /// The word that is next, not taken: letters, digits, `_`, `.`, `$`, not beginning with a digit; or nothing.
    pub(super) fn peek_word(&self) -> &'t str {
        let rest = self.rest();
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$');
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            ""
        } else {
            &rest[..end]
        }
    }

    /// Takes a word.
    pub(super) fn word(&mut self) -> &'t str {
        let word = self.peek_word();
        if !word.is_empty() {
            self.skip(word.len());
        }
        word
    }

    /// Takes the word `word` if it is next, and whole.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let is_next = self.peek_word() == word;
        if is_next {
            self.skip(word.len());
        }
        is_next
    }

    /// Takes letters and digits, with whatever they begin.
    pub(super) fn digits(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
        let digits = &rest[..end.unwrap_or(rest.len())];
        self.skip(digits.len());
        digits
    }

    /// Takes a number, with a sign or without, space allowed behind the sign; None if there is none.
    pub(super) fn number(&mut self) -> Result<Option<Number>, TextError> {
        let start = *self;
        let negative = self.eat("-");
        if !negative {
            self.eat("+");
        }
        let rest = self.rest();
        let hexadecimal = rest.starts_with("0x") || rest.starts_with("0X");
        let (radix, prefix) = if hexadecimal { (16, 2) } else { (10, 0) };
        let digits = &rest[prefix..];
        let end = digits.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let digits = &digits[..end.unwrap_or(digits.len())];
        if !rest.starts_with(|c: char| c.is_ascii_digit()) {
            *self = start;
            return Ok(None);
        }
        let significant = digits.trim_start_matches('0');
        let value = match (digits.is_empty(), significant) {
            (true, _) => None,
            (false, "") => Some(0),
            (false, digits) if digits.len() <= MAX_DIGITS && !digits.contains('_') => {
                i128::from_str_radix(digits, radix).ok()
            }
            _ => None,
        };
        let Some(value) = value else {
            return start.expected("a number");
        };
        self.skip(prefix + digits.len());
        Ok(Some(Number {
            value: if negative { -value } else { value },
            hexadecimal,
        }))
    }

    /// Whether nothing but a comment follows.
    pub(super) fn at_end(&self) -> bool {
        let spaced = self.at == 0 || self.text[self.at..].starts_with(char::is_whitespace);
        is_end(self.rest(), spaced)
    }
}

/// Whether a line's rest is empty or a comment; `#` begins one only after white space, since helpers have it in their names.
fn is_end(rest: &str, spaced: bool) -> bool {
    rest.is_empty()
        || rest.starts_with(';')
        || rest.starts_with("//")
        || (spaced && rest.starts_with('#'))
}
