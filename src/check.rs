//! `check`: validates database and policy.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Exit};
use crate::layers::{Layer, LayerError, Layered};
use crate::policy::{self, Policy, PolicyError};
use crate::quirks::{self, QuirksError, fragment};
use crate::root::{Root, read_limited};
use crate::source::Invalid;

/// Prints what is wrong with the database and the policy of `root`, or with `files`, each by itself.
pub fn run(root: &Root, files: &[PathBuf], json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let mut faults = Vec::new();
    let mut others = Vec::new();
    if files.is_empty() {
        for error in quirks::all(root).1 {
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
        serde_json::to_writer_pretty(&mut *out, &faults)?;
        writeln!(out)?;
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
fn check(path: &Path, text: &str) -> Vec<Invalid> {
    let in_drop_ins = path.parent().is_some_and(|parent| parent.ends_with("config.d"));
    if in_drop_ins || path.ends_with("config.toml") {
        return policy::check(path, text);
    }
    fragment::parse(&Layered { layer: Layer::Administrator, path: path.to_owned() }, text).1
}

fn read(path: &Path) -> Result<String, LayerError> {
    let bytes = fs::File::open(path).and_then(|file| read_limited(file, 1 << 20));
    let bytes = bytes.map_err(|source| LayerError::Io { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|_| LayerError::NotText { path: path.to_owned() })
}
