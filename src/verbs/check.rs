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
    for path in files {
        match read_named(path) {
            Ok(text) => found.extend(check(root, path, &text)),
            Err(error) if error.is_missing() => missing.push(Error::from(error)),
            Err(error) => found.push(error.into()),
        }
    }
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
    found.extend(read(root, weak.chain(unruled)));
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
    found.extend(read(root, audit(quirks).into_iter().chain(without_bus(quirks, &policy))));
    merge(&mut found, policy_errors);
    merge(&mut found, Compositions::load(root).1);
    found.extend(layers::ignored(root).into_iter().chain(copies).map(LoadError::from));
    found.extend(read(root, outranked(quirks).into_iter().chain(unknown).chain(overridden(&policy))));
    found
}

/// The findings with their text, which is read from the file that each one names.
fn read<'a>(root: &Root, findings: impl Iterator<Item = Finding<'a>>) -> impl Iterator<Item = LoadError> {
    findings.map(|finding| finding.read(root).map_or_else(LoadError::from, LoadError::from))
}

/// The directories of files that are shipped, or that a package will ship.
const SHIPPED: [&str; 2] = ["share/wwan-quirks/quirks.d", "config/quirks.d"];

/// The errors and the warnings in one file. Its name or its directory determines what kind of file it is. Elsewhere, its
/// keys do.
fn check(root: &Root, path: &Path, text: &str) -> Vec<LoadError> {
    // A path relative to the working directory may lack the name of the directory.
    let absolute = path::absolute(path).unwrap_or_default();
    let is_in = |folder: &str| absolute.parent().is_some_and(|parent| parent.ends_with(folder));
    let is_policy = || !is_in("quirks.d") && policy::is_policy(text);
    if is_in("config.d") || path.ends_with("config.toml") || is_policy() {
        return check_policy(root, path, text);
    }
    if path.ends_with(compositions::FILE) {
        return compositions::check(path, text);
    }
    let layer = if SHIPPED.into_iter().any(is_in) { Layer::Shipped } else { Layer::Administrator };
    let file = ConfigFile { layer, path: path.to_owned() };
    let (quirks, mut found) = fragment::parse(&file, text);
    found.extend(audit(&quirks).iter().chain(&warnings(&quirks)).map(|finding| finding.locate(path, text)));
    found.into_iter().map(LoadError::from).collect()
}

/// The errors and the warnings in a file of the policy, for the database of `root`.
fn check_policy(root: &Root, path: &Path, text: &str) -> Vec<LoadError> {
    let mut policy = Policy::default();
    let mut found = policy.add(&ConfigFile { layer: Layer::Administrator, path: path.to_owned() }, text);
    let (quirks, errors) = load::all(root);
    let mut findings = without_bus(&quirks, &policy);
    // An entry that could not be read may have the ID.
    if errors.is_empty() && !quirks.is_empty() {
        findings.extend(unknown_ids(&quirks, &policy));
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
