//! `check`: validates the database, the policy and the compositions.

use std::fs::File;
use std::io::Write;
use std::path::{self, Path, PathBuf};

use serde_json::{Value, json};

use crate::database::audit::{
    Finding, audit, incomplete_copies, outranked, overridden, unknown_ids, warnings, without_bus, without_rule,
};
use crate::database::compositions::{self, Compositions};
use crate::database::diagnostic::{LoadError, merge};
use crate::database::layers::{self, ConfigFile, FILE_LIMIT, FileError, Layer, Severity};
use crate::database::load;
use crate::database::policy::{self, Policy};
use crate::database::quirks::{Quirk, fragment};
use crate::database::udev_rules::RuledIds;
use crate::host::root::{Root, read_limited};
use crate::serve::error::{Error, Exit};
use crate::verbs::output::{errors_json, load_error_json, print_json, report_errors};

/// Prints all errors and warnings in the database and the policy of `root`, or in `files`.
pub fn run(root: &Root, files: &[PathBuf], json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let mut found = if files.is_empty() { installed(root) } else { Vec::new() };
    let mut missing = Vec::new();
    let mut texts = Vec::new();
    for path in files {
        match read_named(path) {
            Ok(text) => texts.push((path.as_path(), text)),
            Err(error) if error.is_missing() => missing.push(Error::from(error)),
            Err(error) => found.push(error.into()),
        }
    }
    let (mut quirks, unread) = if texts.is_empty() { Default::default() } else { load::all(root) };
    let mut is_complete = unread.is_empty() && !quirks.is_empty();
    // The policy comes last, because it may have IDs that another named file adds.
    let (policies, others): (Vec<_>, Vec<_>) = texts.into_iter().partition(|(path, text)| is_policy(path, text));
    for (path, text) in others {
        found.extend(check(path, &text, &mut quirks, &mut is_complete));
    }
    found.extend(policies.iter().flat_map(|(path, text)| check_policy(path, text, &quirks, is_complete)));
    let (errors, warned): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.severity() == Severity::Error);
    let exit = report_errors(&missing);
    if json {
        let diagnostics: Vec<Value> = errors.iter().map(load_error_json).collect();
        let warned: Vec<Value> = warned.iter().map(load_error_json).collect();
        let body = json!({ "diagnostics": diagnostics, "warnings": warned });
        print_json(out, "check", &body, &errors_json(&missing))?;
    } else {
        for found in errors.iter().chain(&warned) {
            writeln!(out, "{found}")?;
        }
        if errors.is_empty() && warned.is_empty() && exit == Exit::Success {
            writeln!(out, "no errors")?;
        }
    }
    Ok(if errors.is_empty() { exit } else { exit.max(Exit::Invalid) })
}

/// The errors in all files that are installed below `root`, and the warnings for the administrator's files and for IDs
/// without a udev rule.
fn installed(root: &Root) -> Vec<LoadError> {
    let (quirks, errors) = load::installed(root);
    let mut found = problems(root, &quirks, errors);
    let weak = warnings(&quirks).into_iter().filter(|warning| warning.location.layer != Layer::Shipped);
    let ruled = RuledIds::installed(root);
    let unruled = ruled.iter().flat_map(|ruled| without_rule(&quirks, ruled));
    found.extend(weak.chain(unruled).map(|finding| finding.read(root)));
    found
}

/// The errors in all files that are installed below `root`, and the warnings for what an administrator wrote that has no
/// effect. `errors` are those that were found while reading `quirks`.
pub(crate) fn problems(root: &Root, quirks: &[Quirk], errors: Vec<LoadError>) -> Vec<LoadError> {
    let (policy, policy_errors) = Policy::load(root);
    // An entry that could not be read may have the ID. A missing database is a problem of its own.
    let (unknown, copies) = match errors.is_empty() && !quirks.is_empty() {
        true => (unknown_ids(quirks, &policy), incomplete_copies(root, quirks)),
        false => (Vec::new(), Vec::new()),
    };
    let mut found = errors;
    let read = |finding: Finding| finding.read(root);
    found.extend(audit(quirks).into_iter().chain(without_bus(quirks, &policy)).map(read));
    merge(&mut found, policy_errors);
    merge(&mut found, Compositions::load(root).1);
    found.extend(layers::ignored(root).into_iter().chain(copies).map(LoadError::from));
    found.extend(outranked(quirks).into_iter().chain(unknown).chain(overridden(&policy)).map(read));
    found
}

/// The directories of files that are shipped, or that a package will ship.
const SHIPPED: [&str; 2] = ["share/wwan-quirks/quirks.d", "config/quirks.d"];

/// Whether a file has policy. Its name or its directory determines what kind of file it is. Elsewhere, its keys do.
fn is_policy(path: &Path, text: &str) -> bool {
    is_in(path, "config.d") || path.ends_with("config.toml") || (!is_in(path, "quirks.d") && policy::is_policy(text))
}

fn is_in(path: &Path, folder: &str) -> bool {
    // A path relative to the working directory may lack the name of the directory.
    path::absolute(path).unwrap_or_default().parent().is_some_and(|parent| parent.ends_with(folder))
}

/// The errors and the warnings in a file that has no policy. Adds its quirks to `quirks`, which has those that are
/// installed, and sets `is_complete` to false if an entry could not be read.
fn check(path: &Path, text: &str, quirks: &mut Vec<Quirk>, is_complete: &mut bool) -> Vec<LoadError> {
    if path.ends_with(compositions::FILE) {
        return compositions::check(path, text);
    }
    let layer =
        if SHIPPED.into_iter().any(|folder| is_in(path, folder)) { Layer::Shipped } else { Layer::Administrator };
    let (own, mut found) = fragment::parse(&ConfigFile { layer, path: path.to_owned() }, text);
    *is_complete &= found.is_empty();
    // The file replaces that of its name in a lower layer.
    quirks.retain(|other| other.location.path.file_name() != path.file_name());
    let is_below = |other: &&Quirk| other.location.layer < layer;
    let all: Vec<Quirk> = quirks.iter().filter(is_below).chain(&own).cloned().collect();
    let findings = audit(&own).into_iter().chain(warnings(&own)).chain(outranked(&all));
    found.extend(findings.map(|finding| finding.locate(path, text)));
    quirks.extend(own);
    found.into_iter().map(LoadError::from).collect()
}

/// The errors and the warnings in a file of the policy, for the database `quirks`.
fn check_policy(path: &Path, text: &str, quirks: &[Quirk], is_complete: bool) -> Vec<LoadError> {
    let mut policy = Policy::default();
    let mut found = policy.add(&ConfigFile { layer: Layer::Administrator, path: path.to_owned() }, text);
    let mut findings = without_bus(quirks, &policy);
    // An entry that could not be read may have the ID.
    if is_complete {
        findings.extend(unknown_ids(quirks, &policy));
    }
    findings.extend(overridden(&policy));
    found.extend(findings.iter().map(|finding| finding.locate(path, text)));
    found.into_iter().map(LoadError::from).collect()
}

fn read_named(path: &Path) -> Result<String, FileError> {
    let bytes = File::open(path).and_then(|file| read_limited(file, FILE_LIMIT));
    let bytes = bytes.map_err(|source| FileError::Io { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|_| FileError::NotText { path: path.to_owned() })
}
