//! `rules`: prints the udev rules for the installed database.

use std::io::Write;

use serde_json::json;

use crate::database::{load, udev_rules};
use crate::host::paths;
use crate::host::root::Root;
use crate::serve::error::{Error, Exit};
use crate::verbs::output::{errors_json, print_json, report_errors};

/// Prints the rules, or nothing if the database is empty or has an error.
pub(crate) fn run(root: &Root, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let (quirks, errors) = load::installed(root);
    let errors: Vec<Error> = errors.into_iter().map(Error::from).collect();
    // A caller may redirect the output into /etc/udev/rules.d: rules for a part of the database must not land there.
    let rules = errors.is_empty().then(|| udev_rules::text(&quirks, &paths::program(root)));
    if json {
        print_json(out, "rules", &json!({ "rules": rules }), &errors_json(&errors))?;
    } else if let Some(rules) = rules {
        out.write_all(rules.as_bytes())?;
    }
    Ok(report_errors(&errors))
}
