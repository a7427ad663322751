//! The words of the command line as an operation.

use electrode_apps::KvOp;

/// What is asked.
#[derive(Debug, PartialEq)]
pub(super) enum Question {
    /// One request.
    One(Op),
    /// All keys with this prefix: as many requests as it takes.
    Scan(Vec<u8>),
}

/// An operation that owns its bytes.
#[derive(Debug, PartialEq)]
pub(super) enum Op {
    Get(Vec<u8>),
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Swap(Vec<u8>, Option<Vec<u8>>, Vec<u8>),
    Append(Vec<u8>, Vec<u8>),
    Count(Vec<u8>),
}

impl Op {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Op::Get(key) => KvOp::Get { key },
            Op::Put(key, value) => KvOp::Put { key, value },
            Op::Delete(key) => KvOp::Delete { key },
            Op::Swap(key, expected, new) => KvOp::CompareAndSwap {
                key,
                expected: expected.as_deref(),
                new,
            },
            Op::Append(key, value) => KvOp::Append { key, value },
            Op::Count(prefix) => KvOp::Count { prefix },
        }
        .encode()
    }
}

impl Question {
    /// Reads the words; `input` gives standard input for the word `-`, which may stand once.
    pub(super) fn read(
        words: &[String],
        absent: bool,
        hex: bool,
        input: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Question, String> {
        let (verb, words) = words
            .split_first()
            .ok_or("say what to do: put, get, delete, cas, ...")?;
        let expected = match (verb.as_str(), absent) {
            ("get" | "delete", false) => "KEY",
            ("put" | "append", false) => "KEY VALUE",
            ("cas", false) => "KEY OLD NEW",
            ("cas", true) => "KEY NEW",
            ("scan" | "count", false) => "PREFIX",
            ("get" | "delete" | "put" | "append" | "scan" | "count", true) => {
                return Err("--absent goes with cas only".to_owned());
            }
            _ => {
                return Err(format!(
                    "`{verb}` is none of put, get, delete, append, cas, scan, count"
                ));
            }
        };
        // Everything has a prefix of no bytes.
        let words = if words.is_empty() && expected == "PREFIX" {
            &[String::new()][..]
        } else {
            words
        };
        if words.len() != expected.split(' ').count() {
            return Err(format!(
                "expected `{verb} {expected}`, found {} words after {verb}",
                words.len()
            ));
        }
        if words.iter().filter(|word| *word == "-").count() > 1 {
            return Err("standard input (-) can be read once only".to_owned());
        }
        let mut input = Some(input);
        let bytes = |word: &String| match (word.as_str(), hex) {
            ("-", _) => input.take().map_or(Ok(Vec::new()), |read| read()),
            (_, true) => from_hex(word).ok_or(format!("`{word}` isn't hexadecimal")),
            (_, false) => Ok(word.clone().into_bytes()),
        };
        let bytes: Vec<Vec<u8>> = words.iter().map(bytes).collect::<Result<_, _>>()?;
        let mut bytes = bytes.into_iter();
        let mut next = || bytes.next().unwrap_or_default();
        Ok(Question::One(match verb.as_str() {
            "get" => Op::Get(next()),
            "delete" => Op::Delete(next()),
            "put" => Op::Put(next(), next()),
            "append" => Op::Append(next(), next()),
            "cas" if absent => Op::Swap(next(), None, next()),
            "cas" => Op::Swap(next(), Some(next()), next()),
            "count" => Op::Count(next()),
            _ => return Ok(Question::Scan(next())),
        }))
    }

    /// Whether it may change something.
    pub(super) fn writes(&self) -> bool {
        !matches!(
            self,
            Question::Scan(_) | Question::One(Op::Get(_) | Op::Count(_))
        )
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, absent: bool, hex: bool) -> Result<Question, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Question::read(&words, absent, hex, || Ok(b"from\ninput".to_vec()))
    }

    #[test]
    fn words_become_operations() {
        let one = |line| match read(line, false, false) {
            Ok(Question::One(op)) => op,
            other => panic!("{other:?}"),
        };
        assert_eq!(one("put k v"), Op::Put(b"k".into(), b"v".into()));
        assert_eq!(one("put k -"), Op::Put(b"k".into(), b"from\ninput".into()));
        assert_eq!(
            one("cas k a b"),
            Op::Swap(b"k".into(), Some(b"a".into()), b"b".into())
        );
        assert_eq!(one("count"), Op::Count(b"".into()));
        assert_eq!(
            read("scan p", false, false),
            Ok(Question::Scan(b"p".into()))
        );
        let absent = Op::Swap(b"k".into(), None, b"b".into());
        assert_eq!(read("cas k b", true, false), Ok(Question::One(absent)));
        assert_eq!(
            read("get 00fF", false, true),
            Ok(Question::One(Op::Get(vec![0, 255])))
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |line, absent, hex| read(line, absent, hex).unwrap_err();
        assert_eq!(
            wrong("put k", false, false),
            "expected `put KEY VALUE`, found 1 words after put"
        );
        assert_eq!(
            wrong("fetch k", false, false),
            "`fetch` is none of put, get, delete, append, cas, scan, count"
        );
        assert_eq!(
            wrong("put - -", false, false),
            "standard input (-) can be read once only"
        );
        assert_eq!(wrong("get 0g", false, true), "`0g` isn't hexadecimal");
        assert_eq!(wrong("get +f", false, true), "`+f` isn't hexadecimal");
        assert_eq!(wrong("get é", false, true), "`é` isn't hexadecimal");
        assert_eq!(wrong("get k", true, false), "--absent goes with cas only");
        assert!(Question::read(&[], false, false, || Ok(vec![])).is_err());
    }
}
