//! The author's Rust files, for the text of lines.

use crate::program::Line;

/// Files by how their names end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    files: Vec<(String, String)>,
}

impl Sources {
    pub(crate) fn add(&mut self, files: &[(&str, &str)]) {
        let owned = |(suffix, text): &(&str, &str)| ((*suffix).to_owned(), (*text).to_owned());
        self.files.extend(files.iter().map(owned));
    }

    /// The text of a line without the white space around it, or `file:line`.
    pub(super) fn text(&self, line: &Line) -> String {
        self.known(line)
            .unwrap_or_else(|| format!("{}:{}", line.file, line.line))
    }

    /// The text of a line without the white space around it, if its file is known and the line is not blank.
    pub(crate) fn known(&self, line: &Line) -> Option<String> {
        let index = usize::try_from(line.line).ok()?.checked_sub(1)?;
        let text = self.file(line.file)?.lines().nth(index)?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The file with the longest matching suffix, so that adding a vaguer one changes nothing.
    fn file(&self, name: &str) -> Option<&str> {
        let fits = |suffix: &str| {
            let before = name.strip_suffix(suffix);
            before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        let fitting = self.files.iter().filter(|(suffix, _)| fits(suffix));
        let best = fitting.max_by_key(|(suffix, _)| suffix.len());
        best.map(|(_, text)| text.as_str())
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
