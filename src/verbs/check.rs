//! `check`: validates the database, the policy and the compositions.

use std::fs::File;
use std::io::Write;
use std::path::{self, Path, PathBuf};

use serde_json::{Value, json};

use crate::database::audit::{Finding, audit, outranked, unknown_ids, warnings, without_bus, without_rule};
use crate::database::compositions::{self, Compositions};
use crate::database::diagnostic::{Diagnostic, LoadError, merge};
use crate::database::layers::{self, ConfigFile, FILE_LIMIT, FileError, Layer};
use crate::database::policy::{self, Policy};
use crate::database::quirks::{self, Quirk, fragment};
use crate::database::udev_rules::RuledIds;
use crate::host::root::{Root, read_limited};
use crate::serve::error::{Error, Exit};
use crate::verbs::output::{errors_json, load_error_json, print_json, report_errors};

/// Prints all errors in the database and the policy of `root`, or in `files`.
pub fn run(root: &Root, files: &[PathBuf], json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let (mut errors, mut warned) = (Vec::new(), Vec::new());
    let mut missing = Vec::new();
    if files.is_empty() {
        (errors, warned) = installed(root);
    }
    for path in files {
        match read_named(path) {
            Ok(text) => {
                let (wrong, weak) = check(path, &text);
                errors.extend(wrong);
                warned.extend(weak.into_iter().map(LoadError::from));
            }
            Err(error) if error.is_missing() => missing.push(Error::from(error)),
            Err(error) => errors.push(error.into()),
        }
    }
    let exit = report_errors(&missing);
    if json {
        let diagnostics: Vec<Value> = errors.iter().map(load_error_json).collect();
        let warned: Vec<Value> = warned.iter().map(load_error_json).collect();
        let body = json!({ "diagnostics": diagnostics, "warnings": warned });
        print_json(out, "check", &body, &errors_json(&missing))?;
    } else {
        for error in &errors {
            writeln!(out, "{error}")?;
        }
        for warning in &warned {
            writeln!(out, "{warning}")?;
        }
        if errors.is_empty() && warned.is_empty() && exit == Exit::Success {
            writeln!(out, "no errors")?;
        }
    }
    Ok(if errors.is_empty() { exit } else { exit.max(Exit::Invalid) })
}

/// The errors in all files that are installed below `root`, and the warnings for the administrator's files and for IDs
/// without a udev rule.
fn installed(root: &Root) -> (Vec<LoadError>, Vec<LoadError>) {
    let (quirks, errors) = quirks::installed(root);
    let (errors, mut warned) = problems(root, &quirks, errors);
    let weak = warnings(&quirks).into_iter().filter(|warning| warning.location.layer != Layer::Shipped);
    let ruled = RuledIds::installed(root);
    let unruled = ruled.iter().flat_map(|ruled| without_rule(&quirks, ruled));
    warned.extend(read(root, weak.chain(unruled)));
    (errors, warned)
}

/// The errors in all files that are installed below `root`, and the warnings for what an administrator wrote that has no
/// effect. `errors` are those that were found while reading `quirks`.
pub(crate) fn problems(root: &Root, quirks: &[Quirk], mut errors: Vec<LoadError>) -> (Vec<LoadError>, Vec<LoadError>) {
    let (policy, policy_errors) = Policy::load(root);
    let mut warned: Vec<_> = layers::ignored(root).into_iter().map(LoadError::from).collect();
    warned.extend(read(root, outranked(quirks).into_iter()));
    // An entry that could not be read may have the ID.
    if errors.is_empty() {
        warned.extend(read(root, unknown_ids(quirks, &policy).into_iter()));
    }
    errors.extend(read(root, audit(quirks).into_iter().chain(without_bus(quirks, &policy))));
    merge(&mut errors, policy_errors);
    merge(&mut errors, Compositions::load(root).1);
    (errors, warned)
}

/// The findings with their text, which is read from the file that each one names.
fn read<'a>(root: &Root, findings: impl Iterator<Item = Finding<'a>>) -> impl Iterator<Item = LoadError> {
    findings.map(|finding| finding.read(root).map_or_else(LoadError::from, LoadError::from))
}

/// The errors and the warnings in one file. Its name or its directory determines what kind of file it is.
fn check(path: &Path, text: &str) -> (Vec<LoadError>, Vec<Diagnostic>) {
    // A path relative to the working directory may lack the name of the directory.
    let is_drop_in =
        path::absolute(path).is_ok_and(|path| path.parent().is_some_and(|folder| folder.ends_with("config.d")));
    if is_drop_in || path.ends_with("config.toml") {
        return (policy::check(path, text).into_iter().map(LoadError::from).collect(), Vec::new());
    }
    if path.ends_with(compositions::FILE) {
        return (compositions::check(path, text), Vec::new());
    }
    let file = ConfigFile { layer: Layer::Administrator, path: path.to_owned() };
    let (quirks, mut errors) = fragment::parse(&file, text);
    errors.extend(audit(&quirks).iter().map(|finding| finding.locate(path, text)));
    let warned = warnings(&quirks).iter().map(|warning| warning.locate(path, text)).collect();
    (errors.into_iter().map(LoadError::from).collect(), warned)
}

fn read_named(path: &Path) -> Result<String, FileError> {
    let bytes = File::open(path).and_then(|file| read_limited(file, FILE_LIMIT));
    let bytes = bytes.map_err(|source| FileError::Io { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|_| FileError::NotText { path: path.to_owned() })
}
