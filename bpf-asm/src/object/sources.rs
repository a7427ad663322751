//! The author's Rust files, for the text of lines.

use std::ops::Range;

use crate::program::Line;

/// Files by how their names end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    files: Vec<File>,
}

#[derive(Clone, Debug)]
struct File {
    suffix: String,
    text: String,
    /// Where each line lies in `text`, so that none is looked for once per instruction.
    lines: Vec<Range<usize>>,
}

impl File {
    fn new(&(suffix, text): &(&str, &str)) -> File {
        let mut start = 0;
        let line = |line: &str| {
            let begun = start;
            start += line.len();
            begun..start
        };
        File {
            suffix: suffix.to_owned(),
            text: text.to_owned(),
            lines: text.split_inclusive('\n').map(line).collect(),
        }
    }

    fn line(&self, index: usize) -> Option<&str> {
        self.text.get(self.lines.get(index)?.clone())
    }
}

impl Sources {
    pub(crate) fn add(&mut self, files: &[(&str, &str)]) {
        self.files.extend(files.iter().map(File::new));
    }

    /// The text of a line without the white space around it, or `file:line`.
    pub(super) fn text(&self, line: &Line) -> String {
        self.known(line)
            .unwrap_or_else(|| format!("{}:{}", line.file, line.line))
    }

    /// The text of a line without the white space around it, if its file is known and the line is not blank.
    pub(crate) fn known(&self, line: &Line) -> Option<String> {
        let index = usize::try_from(line.line).ok()?.checked_sub(1)?;
        let text = self.file(line.file)?.line(index)?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The file with the longest matching suffix, so that adding a vaguer one changes nothing.
    fn file(&self, name: &str) -> Option<&File> {
        let fits = |suffix: &str| {
            let before = name.strip_suffix(suffix);
            before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        let fitting = self.files.iter().filter(|file| fits(&file.suffix));
        fitting.max_by_key(|file| file.suffix.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(file: &'static str, line: u32) -> Line {
        Line {
            file,
            line,
            column: 1,
        }
    }

    #[test]
    fn the_longest_suffix_of_whole_components_wins() {
        let mut sources = Sources::default();
        sources.add(&[("b.rs", "vague"), ("a/b.rs", "  exact  \n\nthird")]);
        assert_eq!(sources.text(&line("x/a/b.rs", 1)), "exact");
        assert_eq!(sources.text(&line("x/c/b.rs", 1)), "vague");
        assert_eq!(sources.text(&line("x/ab.rs", 1)), "x/ab.rs:1");
    }

    #[test]
    fn a_line_that_is_blank_or_missing_is_quoted_by_its_place() {
        let mut sources = Sources::default();
        sources.add(&[("a.rs", "one\n\nthree")]);
        assert_eq!(sources.text(&line("a.rs", 2)), "a.rs:2");
        assert_eq!(sources.text(&line("a.rs", 4)), "a.rs:4");
        assert_eq!(sources.text(&line("a.rs", 0)), "a.rs:0");
    }
}
