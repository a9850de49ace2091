//! What is wrong with a file, and where: each problem points at its line.

use std::fmt::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("read configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It says something that cannot be.
    #[error("{}", render(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of them, from the first line to the last.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What, in a sentence.
    pub sentence: String,
    /// Where; several where settings do not agree.
    pub places: Vec<Place>,
}

/// A place in the file, with its line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// How many characters are meant, at least one.
    pub width: usize,
    /// The line as it may be shown.
    pub text: String,
}

/// More problems than these are only counted: a file that is no TOML at all has one in every line.
const SHOWN_MOST: usize = 50;
/// Characters of a line that are shown.
const LINE_MOST: usize = 120;
/// A value whose key has one of these in it may be a secret by mistake, and is not shown.
const SECRET_KEYS: &[&str] = &["pass", "secret", "token", "auth", "conninfo"];

impl Place {
    /// The place of a byte range. Ends that lie outside the text or inside a character are moved.
    pub(crate) fn new(text: &str, span: Range<usize>) -> Place {
        let start = character_at(text, span.start);
        let end = character_at(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = text[line_start..].lines().next().unwrap_or_default();
        let before = text[line_start..start].chars().count();
        let meant = text[start..end].lines().next().unwrap_or_default().chars().count();
        let shown = line.get(..shown_until(line)).unwrap_or(line);
        let mut shown: String =
            shown.chars().take(LINE_MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let (column, width) = (before, meant.max(1));
        if shown.chars().count() < line.chars().count() {
            shown.push('…');
        }
        Place {
            line: text[..line_start].matches('\n').count() + 1,
            column: column + 1,
            width,
            text: shown,
        }
    }
}

/// The beginning of the character that a byte belongs to.
fn character_at(text: &str, byte: usize) -> usize {
    (0..=byte.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Up to which byte a line may be shown.
fn shown_until(line: &str) -> usize {
    let lower = line.to_ascii_lowercase();
    let key = SECRET_KEYS.iter().filter_map(|word| lower.find(word)).min();
    key.map_or(line.len(), |key| line[key..].find('=').map_or(line.len(), |at| key + at + 1))
}

impl Problem {
    /// The text, as a compiler would print it.
    fn write(&self, file: &Path, out: &mut String) -> fmt::Result {
        let Some(first) = self.places.first() else {
            return writeln!(out, "{}: {}", file.display(), self.sentence);
        };
        writeln!(out, "{}:{}:{}: {}", file.display(), first.line, first.column, self.sentence)?;
        let gutter =
            self.places.iter().map(|place| place.line.to_string().len()).max().unwrap_or(1);
        for place in &self.places {
            let length = place.text.chars().count();
            // The mark stays below what is shown.
            let column = place.column.min(length.max(1));
            let width = place.width.min((length + 1).saturating_sub(column)).max(1);
            writeln!(out, "  {:>gutter$} | {}", place.line, place.text)?;
            let (indent, mark) = (" ".repeat(column - 1), "^".repeat(width));
            writeln!(out, "  {:gutter$} | {indent}{mark}", "")?;
        }
        Ok(())
    }
}

fn render(path: &Path, problems: &[Problem]) -> String {
    let count = problems.len();
    let mut out =
        format!("{} has {count} problem{}\n", path.display(), if count == 1 { "" } else { "s" });
    for problem in problems.iter().take(SHOWN_MOST) {
        // Writing to a string cannot fail.
        let _ = problem.write(path, &mut out);
    }
    if count > SHOWN_MOST {
        let _ = writeln!(out, "and {} more", count - SHOWN_MOST);
    }
    out.truncate(out.trim_end().len());
    out
}
