//! `list`: prints the database, one quirk per line.

use std::io::Write;

use serde_json::{Value, json};

use crate::bus::DeviceId;
use crate::database::load;
use crate::database::quirks::{Quirk, Select, Step};
use crate::host::journal::printable;
use crate::host::root::Root;
use crate::serve::error::{Error, Exit};
use crate::verbs::output::{errors_json, print_json, report_errors};

/// Prints the database. Errors go to standard error, and do not hide the entries of other files.
pub(crate) fn run(root: &Root, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let (quirks, errors) = load::installed(root);
    let errors: Vec<Error> = errors.into_iter().map(Error::from).collect();
    if json {
        let entries: Vec<Value> = quirks.iter().map(entry).collect();
        print_json(out, "list", &json!({ "quirks": entries }), &errors_json(&errors))?;
    } else {
        for quirk in &quirks {
            let ids: Vec<DeviceId> = quirk.ids().collect();
            let (ids, steps) = (join(&ids, ","), join(&quirk.steps, " "));
            // A long list of IDs is not truncated.
            let (name, location) = (printable(&quirk.name), printable(&quirk.location.to_string()));
            writeln!(out, "{ids}  {name}  {steps}  {location}")?;
        }
    }
    Ok(report_errors(&errors))
}

fn entry(quirk: &Quirk) -> Value {
    let steps = quirk.steps.iter().map(|step| {
        let (value, fallback) = match step {
            Step::Configuration { select: Select::Value(value), fallback, .. } => (json!(value), *fallback),
            Step::Configuration { select, fallback, .. } => (json!(select.to_string()), *fallback),
            step => (json!(step.value()), None),
        };
        json!({ "step": step.kind(), "value": value, "fallback": fallback })
    });
    json!({
        "models": quirk.models,
        "name": quirk.name,
        "note": quirk.note,
        "source": quirk.source,
        "seen": quirk.seen,
        "matchers": quirk.matchers,
        "new-id": quirk.new_id,
        "steps": steps.collect::<Vec<_>>(),
        "location": quirk.location,
    })
}

fn join(parts: &[impl ToString], separator: &str) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}
