//! Errors and warnings in configuration files, with their location: `path:line:column: message`, the line, and a caret.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use toml::Spanned;

use crate::database::layers::{FileError, Layer, Severity};
use crate::host::journal::{is_unprintable, printable, printable_path};

/// The location of an entry or a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    pub layer: Layer,
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Starts at 1.
    pub line: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", printable_path(&self.path), self.line)
    }
}

/// A file name need not be UTF-8, but JSON is.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// An error or a warning in the text of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Starts at 1.
    pub line: usize,
    /// Starts at 1, in characters.
    pub column: usize,
    pub message: String,
    #[serde(skip)]
    pub severity: Severity,
    /// The text of the line.
    #[serde(skip)]
    pub source: String,
    /// The number of characters to underline.
    #[serde(skip)]
    pub width: usize,
}

/// A problem in a file of the database or the policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    Invalid(#[from] Box<Diagnostic>),
}

impl LoadError {
    pub(crate) fn severity(&self) -> Severity {
        match self {
            LoadError::File(error) => error.severity(),
            LoadError::Invalid(diagnostic) => diagnostic.severity,
        }
    }

    /// The problem in one line, without its severity and its [`remedy`](Self::remedy).
    pub(crate) fn summary(&self) -> String {
        match self {
            LoadError::File(error) => format!("{}: {}", printable_path(error.path()), error.cause()),
            LoadError::Invalid(diagnostic) => format!("{}: {}", diagnostic.place(), printable(&diagnostic.message)),
        }
    }

    pub(crate) fn remedy(&self) -> String {
        let own = if let LoadError::File(error) = self { error.remedy() } else { None };
        own.unwrap_or_else(|| match self.severity() {
            Severity::Error => "correct the file".to_owned(),
            Severity::Warning => "correct, rename or remove the file".to_owned(),
        })
    }
}

/// Adds the errors in `more` that `errors` does not contain yet: one bad directory causes the same error for several
/// kinds of files.
pub(crate) fn merge(errors: &mut Vec<LoadError>, more: Vec<LoadError>) {
    for error in more {
        let text = error.to_string();
        if errors.iter().all(|known| known.to_string() != text) {
            errors.push(error);
        }
    }
}

impl From<Diagnostic> for LoadError {
    fn from(diagnostic: Diagnostic) -> LoadError {
        Box::new(diagnostic).into()
    }
}

impl std::error::Error for Diagnostic {}

impl Diagnostic {
    /// An error at the bytes `span` of `text`.
    pub fn at(path: &Path, text: &str, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        let start = floor(text, span.start);
        let begin = text.get(..start).unwrap_or_default().rfind('\n').map_or(0, |newline| newline + 1);
        let end = text.get(begin..).unwrap_or_default().find('\n').map_or(text.len(), |length| begin + length);
        let characters = |range: Range<usize>| text.get(range).unwrap_or_default().chars().count();
        Diagnostic {
            path: path.to_owned(),
            line: line_of(text, start),
            column: characters(begin..start) + 1,
            message: message.into(),
            severity: Severity::Error,
            source: text.get(begin..end).unwrap_or_default().trim_end_matches('\r').to_owned(),
            width: characters(start..floor(text, span.end).min(end)).max(1),
        }
    }

    pub(crate) fn from_toml(path: &Path, text: &str, error: &toml::de::Error) -> Diagnostic {
        // A message can span several lines.
        let message: Vec<&str> = error.message().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Diagnostic::at(path, text, error.span().unwrap_or(0..0), message.join("; "))
    }

    /// Like [`from_toml`](Self::from_toml), but adds a hint if the error is at one of `keys`, which belong elsewhere.
    /// `hint` gets the key and the text after it.
    pub(crate) fn from_toml_with_hint(
        path: &Path,
        text: &str,
        error: &toml::de::Error,
        keys: &[&str],
        hint: impl Fn(&str, &str) -> String,
    ) -> Diagnostic {
        // One of these is a key of each table that both kinds of files have, and of no inner table.
        const OUTER: [&str; 3] = ["`device`", "`match`", "`steps`"];
        let mut diagnostic = Diagnostic::from_toml(path, text, error);
        let expected = error.message().split_once(", expected ").map_or("", |(_, expected)| expected);
        let is_outer = OUTER.iter().any(|key| expected.contains(key));
        let found = error.span().and_then(|span| Some((text.get(span.clone())?, text.get(span.end..)?)));
        // In text that is not TOML, the error may be a second key with the same name.
        let found =
            found.filter(|(key, _)| is_outer && keys.contains(key) && toml::from_str::<toml::Table>(text).is_ok());
        if let Some((key, rest)) = found {
            diagnostic.message += &hint(key, rest);
        }
        diagnostic
    }

    fn place(&self) -> String {
        format!("{}:{}:{}", printable_path(&self.path), self.line, self.column)
    }
}

/// The error in the key `schema` of a file.
pub(crate) fn unsupported(schema: &Spanned<u32>, expected: u32) -> Option<String> {
    let schema = schema.get_ref();
    (*schema != expected).then(|| {
        format!("unsupported schema {schema} (expected {expected}): this file needs a newer version of wwan-quirks")
    })
}

/// The number of the line that contains the byte `at`. The first line is 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    memchr::memchr_iter(b'\n', before).count() + 1
}

/// Where a line of `text` begins. The first line is 1.
pub(crate) fn line_start(text: &str, line: usize) -> usize {
    let after_newlines = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
    std::iter::once(0).chain(after_newlines).nth(line.saturating_sub(1)).unwrap_or(text.len())
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic { line, column, message, severity, source, width, .. } = self;
        writeln!(f, "{}: {severity}{}", self.place(), printable(message))?;
        let number = line.to_string();
        let indent: String =
            source.chars().take(column - 1).map(|character| if character == '\t' { '\t' } else { ' ' }).collect();
        // Each character keeps its column.
        let shown: String = source
            .chars()
            .map(|character| if character != '\t' && is_unprintable(character) { '\u{fffd}' } else { character })
            .collect();
        writeln!(f, "{number} | {shown}")?;
        write!(f, "{:width$} | {indent}{}", "", "^".repeat(*width), width = number.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_several_kinds_of_files_have_is_merged() {
        let insecure = |path: &str| LoadError::from(FileError::Insecure { path: path.into() });
        let mut errors = vec![insecure("/etc/wwan-quirks")];
        merge(&mut errors, vec![insecure("/etc/wwan-quirks"), insecure("/etc/wwan-quirks/config.toml")]);
        assert_eq!(errors.len(), 2);
    }

    #[test]
    fn a_line_begins_after_the_line_before_it() {
        let starts = |text| [1, 2, 3, 4].map(|line| line_start(text, line));
        assert_eq!(starts("ab\nc\n"), [0, 3, 5, 5]);
        assert_eq!(starts(""), [0, 0, 0, 0]);
    }

    #[test]
    fn an_error_is_printed_with_its_line_and_a_caret() {
        let text = "schema = 1\n\tü = \"x\"\n";
        let at = text.find("\"x\"").unwrap();
        let shown = Diagnostic::at(Path::new("a.toml"), text, at..at + 3, "no").to_string();
        assert_eq!(shown, "a.toml:2:6: no\n2 | \tü = \"x\"\n  | \t    ^^^");
    }

    /// A file from elsewhere may contain escape sequences for the terminal.
    #[test]
    fn control_characters_are_not_printed() {
        let text = "a = \"\u{1b}[2J\u{202e}\u{9b}\" x";
        let at = text.find('x').unwrap();
        let shown = Diagnostic::at(Path::new("\u{1b}c.toml"), text, at..at + 1, "no \u{7}").to_string();
        let expected = "\\u{1b}c.toml:1:14: no \\u{7}\n1 | a = \"\u{fffd}[2J\u{fffd}\u{fffd}\" x\n  |              ^";
        assert_eq!(shown, expected);
        let location = Location { layer: Layer::Runtime, path: "\u{1b}c".into(), line: 1 };
        assert_eq!(location.to_string(), "\\u{1b}c:1");
        let error = FileError::Insecure { path: "\u{1b}c".into() }.to_string();
        assert!(error.starts_with("\\u{1b}c: ") && error.contains("chown root \\u{1b}c "), "{error}");
    }

    #[test]
    fn a_span_outside_the_text_is_accepted() {
        for span in [0..0, 5..5, 99..120] {
            let _ = Diagnostic::at(Path::new("a"), "ä\nb", span, "").to_string();
        }
    }
}
