//! Results as text or JSON, and as exit codes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use electrode_apps::KvResult;
use serde_json::{Map, Value, json};

/// The exit code of "not found" and "compare failed".
const NO: u8 = 1;

/// What the store answered to one operation.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Value(Option<Vec<u8>>),
    Ok,
    Deleted(bool),
    Mismatch(Option<Vec<u8>>),
    Length(u64),
    Count(u64),
    TooLarge,
}

impl Answer {
    pub(super) fn read(result: &[u8]) -> Result<Answer, &'static str> {
        match KvResult::decode(result) {
            Ok(KvResult::Value(value)) => Ok(Answer::Value(value.map(<[u8]>::to_vec))),
            Ok(KvResult::Stored) => Ok(Answer::Ok),
            Ok(KvResult::Deleted { existed }) => Ok(Answer::Deleted(existed)),
            Ok(KvResult::Mismatch { actual }) => Ok(Answer::Mismatch(actual.map(<[u8]>::to_vec))),
            Ok(KvResult::Appended { length }) => Ok(Answer::Length(length)),
            Ok(KvResult::Count(count)) => Ok(Answer::Count(count)),
            Ok(KvResult::TooLarge) => Ok(Answer::TooLarge),
            Ok(KvResult::Entries { .. } | KvResult::Omitted) => Err("an answer to something else"),
            Ok(KvResult::BadOperation) => Err("it didn't understand the operation"),
            Err(_) => Err("its answer can't be understood"),
        }
    }
}

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printer {
    pub(super) json: bool,
    pub(super) hex: bool,
}

impl Printer {
    /// Prints an answer and gives its exit code.
    pub(super) fn answer(&self, answer: &Answer) -> ExitCode {
        let (code, text, object) = match answer {
            Answer::Value(Some(value)) => (0, self.bytes(value), self.object("value", value)),
            Answer::Value(None) => return self.no("not found", json!({"found": false})),
            Answer::Deleted(false) => return self.no("not found", json!({"deleted": false})),
            Answer::Mismatch(None) => {
                return self.no(
                    "not swapped: the key isn't there",
                    json!({"swapped": false, "actual": null}),
                );
            }
            Answer::Mismatch(Some(actual)) => {
                let object = self.object("actual", actual);
                let text = [
                    b"not swapped: the value is ".as_slice(),
                    &self.bytes(actual),
                ]
                .concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                return self.no(&text, merge(json!({"swapped": false}), object));
            }
            Answer::TooLarge => {
                self.problem("the key or value is longer than the store allows", false);
                return ExitCode::from(crate::arguments::USAGE);
            }
            Answer::Ok => (0, b"ok".to_vec(), json!({"ok": true})),
            Answer::Deleted(true) => (0, b"ok".to_vec(), json!({"deleted": true})),
            Answer::Length(length) => (
                0,
                length.to_string().into_bytes(),
                json!({"length": length}),
            ),
            Answer::Count(count) => (0, count.to_string().into_bytes(), json!({"count": count})),
        };
        let object = if matches!(answer, Answer::Value(_)) {
            merge(json!({"found": true}), object)
        } else {
            object
        };
        self.line(&text, &object);
        ExitCode::from(code)
    }

    /// Prints the entries of a scan, a line each: key, tab, value.
    pub(super) fn entries(&self, entries: &[(Vec<u8>, Vec<u8>)], more: bool) -> ExitCode {
        if self.json {
            let entries: Vec<Value> = entries
                .iter()
                .map(|(key, value)| merge(self.object("key", key), self.object("value", value)))
                .collect();
            self.line(b"", &json!({"entries": entries, "more": more}));
        } else {
            let lines = entries.iter().map(|(key, value)| {
                [&self.bytes(key), b"\t".as_slice(), &self.bytes(value)].concat()
            });
            for line in lines {
                self.line(&line, &Value::Null);
            }
        }
        ExitCode::SUCCESS
    }

    /// Prints why there is no answer.
    pub(super) fn problem(&self, problem: &str, outcome_unknown: bool) {
        if self.json {
            self.line(
                b"",
                &json!({"error": problem, "outcome_unknown": outcome_unknown}),
            );
        } else {
            let _ = writeln!(std::io::stderr(), "electrode client: {problem}");
        }
    }

    fn no(&self, text: &str, object: Value) -> ExitCode {
        if self.json {
            self.line(b"", &object);
        } else {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
        ExitCode::from(NO)
    }

    /// One line on standard output; whether anybody reads it is theirs to decide.
    fn line(&self, text: &[u8], object: &Value) {
        let mut out = std::io::stdout().lock();
        let _ = if self.json {
            writeln!(out, "{object}")
        } else {
            out.write_all(&[text, b"\n"].concat())
        };
    }

    fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        if self.hex {
            to_hex(bytes).into_bytes()
        } else {
            bytes.to_vec()
        }
    }

    /// Bytes as a JSON string under `name`, or in hexadecimal under `name_hex` when they are no text.
    fn object(&self, name: &str, bytes: &[u8]) -> Value {
        let (name, text) = match std::str::from_utf8(bytes) {
            Ok(text) if !self.hex => (name.to_owned(), text.to_owned()),
            _ => (format!("{name}_hex"), to_hex(bytes)),
        };
        Value::Object(Map::from_iter([(name, Value::String(text))]))
    }
}

fn merge(first: Value, second: Value) -> Value {
    match (first, second) {
        (Value::Object(first), Value::Object(second)) => {
            Value::Object(first.into_iter().chain(second).collect())
        }
        (first, _) => first,
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
