//! `check`: validates database and policy.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::database::diagnostic::Diagnostic;
use crate::database::layers::{self, Layer, LayerError, Layered};
use crate::database::policy::{self, Policy, PolicyError};
use crate::database::quirks::audit::{Finding, audit};
use crate::database::quirks::{self, Place, QuirksError, fragment};
use crate::database::udev_rules::Ruled;
use crate::host::root::{Root, read_limited};
use crate::serve::error::{Error, Exit};
use crate::verbs::output::print_json;

/// Prints what is wrong with the database and the policy of `root`, or with `files`, each by itself.
pub fn run(root: &Root, files: &[PathBuf], json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let mut faults = Vec::new();
    let mut others = Vec::new();
    if files.is_empty() {
        let (quirks, errors) = quirks::all(root);
        for finding in audit(&quirks, Ruled::installed(root).as_ref()) {
            let Place { layer, path, .. } = finding.place;
            match layers::read(root, &Layered { layer: *layer, path: path.clone() }) {
                Ok(text) => faults.push(placed(&finding, path, &text.unwrap_or_default())),
                Err(error) => others.push(error),
            }
        }
        for error in errors {
            match error {
                QuirksError::Invalid(fault) => faults.push(*fault),
                QuirksError::Layer(error) => others.push(error),
            }
        }
        for error in Policy::load(root).1 {
            match error {
                PolicyError::Invalid(fault) => faults.push(*fault),
                PolicyError::Layer(error) => others.push(error),
            }
        }
    }
    for path in files {
        match read(path) {
            Ok(text) => faults.extend(check(path, &text)),
            Err(error) => others.push(error),
        }
    }
    if json {
        print_json(out, "check", &json!({ "diagnostics": faults }))?;
    } else {
        for fault in &faults {
            writeln!(out, "{fault}")?;
        }
    }
    let clean = faults.is_empty() && others.is_empty();
    match others.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(if clean { Exit::Fine } else { Exit::Invalid }),
    }
}

/// A policy is known by its name or by the folder of drop-ins that it lies in; all else is database.
fn check(path: &Path, text: &str) -> Vec<Diagnostic> {
    let in_drop_ins = path.parent().is_some_and(|parent| parent.ends_with("config.d"));
    if in_drop_ins || path.ends_with("config.toml") {
        return policy::check(path, text);
    }
    let (quirks, mut faults) = fragment::parse(&Layered { layer: Layer::Administrator, path: path.to_owned() }, text);
    faults.extend(audit(&quirks, None).iter().map(|finding| placed(finding, path, text)));
    faults
}

/// A finding where its ID stands in `text`.
fn placed(finding: &Finding, path: &Path, text: &str) -> Diagnostic {
    let lines = text.split_inclusive('\n').take(finding.place.line.saturating_sub(1));
    let entry: usize = lines.map(str::len).sum();
    let id = finding.id.to_string();
    let rest = text.get(entry..).unwrap_or_default();
    let at = entry + rest.to_ascii_lowercase().find(&id).unwrap_or_default();
    Diagnostic::at(path, text, at..at + id.len(), finding.message.clone())
}

fn read(path: &Path) -> Result<String, LayerError> {
    let bytes = fs::File::open(path).and_then(|file| read_limited(file, 1 << 20));
    let bytes = bytes.map_err(|source| LayerError::Io { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|_| LayerError::NotText { path: path.to_owned() })
}
