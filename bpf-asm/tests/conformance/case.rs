//! Reading case files.
//!
//! ```text
//!   # a comment
//!   -- case what is claimed
//!   -- rbpf differs: why                 (or `kernel refuses: why`, `hook classifier`)
//!   -- asm                               (or `-- code`: bytes in hexadecimal)
//!       ldxdw %r0, [%r1]
//!       add %r0, $imm
//!       exit
//!   -- rows                              one run each: words go into memory in their order, 8 bytes each;
//!       a    $imm  result                what has a dollar sign replaces that in the text
//!       0x1  2     0x3
//! ```
//! Instead of rows: `-- mem` with bytes, `-- result` with r0; or `-- refused` with a piece of the message.

use bpf_asm::insn::Insn;
use bpf_asm::text;

/// How many instructions one `$fill` may stand for.
const MAX_FILL: usize = 1 << 16;

/// A claim about the instruction set.
#[derive(Debug, Default)]
pub(crate) struct Case {
    /// `file:line: title`
    pub(crate) title: String,
    pub(crate) source: String,
    pub(crate) is_code: bool,
    pub(crate) memory: Vec<u8>,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) refused: Option<String>,
    pub(crate) rbpf_differs: Option<String>,
    pub(crate) kernel_refuses: Option<String>,
    pub(crate) is_classifier: bool,
}

/// One run of a case.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) text: String,
    pub(crate) memory: Vec<u8>,
    pub(crate) result: u64,
}

/// All cases of a file.
pub(crate) fn read(file: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut section = "";
    for (number, line) in (1..).zip(text.lines()) {
        let at = format!("{file}:{number}");
        if let Some(heading) = line.strip_prefix("-- ") {
            if let Some(title) = heading.strip_prefix("case ") {
                cases.push(Case {
                    title: format!("{at}: {title}"),
                    ..Case::default()
                });
                continue;
            }
            let case = cases
                .last_mut()
                .unwrap_or_else(|| panic!("{at}: no case yet"));
            let (name, note) = heading.split_once(": ").unwrap_or((heading, ""));
            match name {
                "rbpf differs" => case.rbpf_differs = Some(note.to_owned()),
                "kernel refuses" => case.kernel_refuses = Some(note.to_owned()),
                "hook classifier" => case.is_classifier = true,
                "code" => (section, case.is_code) = ("asm", true),
                "asm" | "mem" | "rows" | "result" | "refused" => section = name,
                _ => panic!("{at}: no such section"),
            }
            continue;
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        let words = || line.split_whitespace().map(str::to_owned);
        match section {
            "asm" if line.is_empty() => {}
            "asm" => case.source.push_str(&format!("{line}\n")),
            _ if line.trim().is_empty() || line.starts_with('#') => {}
            "mem" => case
                .memory
                .extend(words().map(|byte| u8::from_str_radix(&byte, 16).expect(&at))),
            "rows" if case.columns.is_empty() => case.columns = words().collect(),
            "rows" => {
                let row: Vec<String> = words().collect();
                assert_eq!(row.len(), case.columns.len(), "{at}");
                case.rows.push(row);
            }
            "result" => {
                case.columns = vec!["result".to_owned()];
                case.rows.push(words().collect());
            }
            "refused" => case.refused = Some(line.trim().to_owned()),
            _ => panic!("{at}: outside of every section"),
        }
    }
    for case in &cases {
        let runs = !case.rows.is_empty();
        assert!(
            runs != case.refused.is_some(),
            "{}: rows, a result, or refused",
            case.title
        );
    }
    cases
}

/// `0x10`, `16` or `-16`, as 64 bits.
pub(crate) fn number(text: &str) -> u64 {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text
            .parse()
            .ok()
            .or_else(|| Some(text.parse::<i64>().ok()?.cast_unsigned())),
    };
    parsed.unwrap_or_else(|| panic!("`{text}` is no number of 64 bits"))
}

impl Case {
    /// Its runs, one for each row.
    pub(crate) fn runs(&self) -> Vec<Run> {
        self.rows.iter().map(|row| self.run(row)).collect()
    }

    fn run(&self, row: &[String]) -> Run {
        let mut run = Run {
            text: self.source.clone(),
            memory: self.memory.clone(),
            result: 0,
        };
        for (column, value) in self.columns.iter().zip(row) {
            match column.as_str() {
                "result" => run.result = number(value),
                "$fill" => {
                    let times = value.parse().ok().filter(|times| *times <= MAX_FILL);
                    let moves = "mov %r0, 2\n".repeat(times.expect(&self.title));
                    run.text = run.text.replace("$fill\n", &moves);
                }
                name if name.starts_with('$') => run.text = run.text.replace(name, value),
                _ => run.memory.extend(number(value).to_le_bytes()),
            }
        }
        run
    }

    /// What the assembler, or for bytes the decoder, says.
    pub(crate) fn assemble(&self, source: &str) -> Result<Vec<Insn>, String> {
        if !self.is_code {
            return text::assemble_code(&self.title, source).map_err(|errors| errors.to_string());
        }
        let byte = |byte: &str| u8::from_str_radix(byte, 16).expect(&self.title);
        let bytes: Vec<u8> = source.split_whitespace().map(byte).collect();
        let (slots, rest) = bytes.as_chunks::<8>();
        assert!(rest.is_empty(), "{}: no whole slots", self.title);
        Insn::decode_all(slots).map_err(|(at, error)| format!("slot {at}: {error}"))
    }
}
