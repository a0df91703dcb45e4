//! Output that all verbs share: errors on standard error, and one JSON envelope,
//! `{"schema": 1, "verb": "list", …, "errors": […]}`.
//!
//! JSON keys and the values of enumerations are in kebab-case. A boolean or a number is never printed as a string. IDs
//! and what has a modem's own notation (`0x100d`, `90d5`) are strings. `docs/schema/VERB.schema.json` describes the
//! output of each verb, and `tests/schema.rs` validates real output against it.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::database::diagnostic::LoadError;
use crate::database::layers::FileError;
use crate::host::journal::print_error;
use crate::serve::error::{Error, Exit};

/// The version of all output. A new key does not change it. A key that disappears or changes its meaning does.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Envelope<'a, T> {
    schema: u32,
    verb: &'a str,
    #[serde(flatten)]
    body: &'a T,
    errors: &'a [Value],
}

/// Standard output. If the reader closes the pipe, the rest is discarded, and the verb continues.
pub(crate) struct Stdout(pub(crate) io::Stdout);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unless_closed(self.0.write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_closed(self.0.flush(), ())
    }
}

fn unless_closed<T>(result: io::Result<T>, discarded: T) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(discarded),
        result => result,
    }
}

/// Prints the envelope of `verb` with the keys of `body`, which must be a struct or a JSON object. `errors` are from
/// [`errors_json`].
pub(crate) fn print_json(
    out: &mut impl Write,
    verb: &str,
    body: &impl Serialize,
    errors: &[Value],
) -> Result<(), Error> {
    serde_json::to_writer_pretty(&mut *out, &Envelope { schema: SCHEMA, verb, body, errors })?;
    writeln!(out)?;
    Ok(())
}

/// What [`report_errors`] prints, for the envelope.
pub(crate) fn errors_json(errors: &[Error]) -> Vec<Value> {
    distinct(errors).map(error_json).collect()
}

/// An error in the form of `check --json`. Without a line and a column, it does not concern a place in a file.
pub(crate) fn error_json(error: &Error) -> Value {
    match error {
        Error::Database(error) => load_error_json(error),
        Error::NamedFile(error) => file_error_json(error),
        error => json!({ "path": null, "line": null, "column": null, "message": error.chain() }),
    }
}

/// A file that cannot be read has no line and no column.
pub(crate) fn load_error_json(error: &LoadError) -> Value {
    match error {
        LoadError::Invalid(diagnostic) => json!(diagnostic),
        LoadError::File(error) => file_error_json(error),
    }
}

fn file_error_json(error: &FileError) -> Value {
    json!({ "path": error.path().display().to_string(), "line": null, "column": null, "message": error.message() })
}

/// Prints every error to standard error, once. Returns the highest exit status.
pub(crate) fn report_errors(errors: &[Error]) -> Exit {
    for error in distinct(errors) {
        print_error(format_args!("wwan-quirks: {}", error.chain()));
    }
    errors.iter().map(Error::exit).max().unwrap_or(Exit::Success)
}

/// The errors without those that say the same as an earlier one.
fn distinct(errors: &[Error]) -> impl Iterator<Item = &Error> {
    let mut known = BTreeSet::new();
    errors.iter().filter(move |error| known.insert(error.chain()))
}
