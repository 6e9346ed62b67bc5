//! What is wrong with a state file, where, and what to do: for a volunteer at seven in the morning.
//!
//! A diagnostic is complete in itself (it carries the line of the file), so that it can be shown long after the file has
//! changed again. It must not read anything.

use std::fmt::Write as _;
use std::ops::Range;

/// Nobody collects more problems than this: the rest of such a file is noise.
pub const MAX_PROBLEMS: usize = 100;
/// So many problems are shown; the rest is counted. A file that has more is not a state file.
const SHOWN: usize = 20;
/// Longer lines are cut around the place that matters.
const EXCERPT: usize = 100;

/// A place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The bytes of the text, quotes included; empty where only the position is known.
    pub bytes: Range<usize>,
}

impl Place {
    /// The beginning of the file: for what is missing there.
    pub const TOP: Self = Self {
        line: 1,
        column: 1,
        bytes: 0..0,
    };
}

/// One problem of a state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The path of the key, such as `postgres.port`; empty if it is not about one key.
    pub key: String,
    /// What is wrong, with which value.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The line of the file.
    excerpt: String,
    /// How many characters of the line are meant.
    width: usize,
}

impl Diagnostic {
    /// A problem at `at` of `text`.
    pub fn new(text: &str, at: &Place, key: &str, message: &str) -> Self {
        let excerpt = text.lines().nth(at.line.saturating_sub(1)).unwrap_or_default();
        let excerpt = excerpt.strip_prefix('\u{feff}').unwrap_or(excerpt);
        let meant = text
            .get(at.bytes.clone())
            .and_then(|meant| meant.lines().next())
            .unwrap_or_default();
        let width = meant.trim_end().chars().count();
        // Tabs would tear the caret away from its place, control characters could do anything to a terminal.
        let visible = |c: char| {
            if c == '\t' {
                '→'
            } else if c.is_control() {
                ' '
            } else {
                c
            }
        };
        let excerpt = excerpt.chars().map(visible).collect();
        Self {
            line: at.line,
            column: at.column,
            key: key.to_owned(),
            message: message.to_owned(),
            help: None,
            excerpt,
            width,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: &str) -> Self {
        self.help = Some(help.to_owned());
        self
    }

    /// The problem as a person reads it: place and message, the line with the place marked, help.
    pub fn render(&self, file: &str) -> String {
        self.written(file, true)
    }

    fn written(&self, file: &str, excerpt: bool) -> String {
        let mut out = format!("{file}:{}:{}: {}\n", self.line, self.column, self.message);
        if excerpt && !self.excerpt.trim().is_empty() {
            let (excerpt, before) = self.window();
            let number = self.line.to_string();
            let gutter = " ".repeat(number.len());
            let carets = "^".repeat(
                self.width
                    .min(excerpt.chars().count().saturating_sub(before))
                    .max(1),
            );
            let _ = writeln!(out, "  {number} | {excerpt}");
            let _ = writeln!(out, "  {gutter} | {}{carets}", " ".repeat(before));
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "  help: {help}");
        }
        out
    }

    /// The part of the line that is shown, and how many characters of it stand before the place.
    fn window(&self) -> (String, usize) {
        let before = self.column.saturating_sub(1);
        let line = self.excerpt.trim_end();
        if line.chars().count() <= EXCERPT {
            return (line.to_owned(), before);
        }
        let skipped = before.saturating_sub(EXCERPT / 2);
        (
            line.chars().skip(skipped).take(EXCERPT).collect(),
            before - skipped,
        )
    }
}

/// All problems of a file, in the order of the file, as a person reads them.
pub fn render(file: &str, diagnostics: &[Diagnostic]) -> String {
    written(file, diagnostics, true)
}

/// The same without the lines of the file, which may hold a password: for logs and for the status document.
pub fn brief(file: &str, diagnostics: &[Diagnostic]) -> String {
    written(file, diagnostics, false)
}

fn written(file: &str, diagnostics: &[Diagnostic], excerpt: bool) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics.iter().take(SHOWN) {
        out.push_str(&diagnostic.written(file, excerpt));
    }
    if diagnostics.len() > SHOWN {
        let _ = writeln!(out, "{file}: and {} more problems", diagnostics.len() - SHOWN);
    }
    out
}

/// A value of the file inside a sentence: in quotes, on one line, and not longer than a person wants to read.
pub fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(LONGEST).collect();
    format!("{head:?}…")
}

/// The word that was probably meant, if one is close enough.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer ones are no typing mistakes, and the comparison takes time with the square of the length.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase().replace('-', "_");
    let known: Vec<&str> = known.into_iter().collect();
    // A word that was not written to its end.
    let mut beginning = known
        .iter()
        .filter(|candidate| lower.len() >= 3 && candidate.starts_with(&lower));
    if let (Some(only), None) = (beginning.next(), beginning.next()) {
        return Some(only);
    }
    known
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
