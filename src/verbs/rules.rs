//! `rules`: prints the udev rules for the installed database.

use std::io::Write;

use serde_json::json;

use crate::database::{quirks, udev_rules};
use crate::host::paths;
use crate::host::root::Root;
use crate::serve::error::{Error, Exit};
use crate::verbs::output::{print_json, report_errors};

/// Prints the rules, or nothing if the database is empty or has an error.
pub(crate) fn run(root: &Root, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let (quirks, errors) = quirks::installed(root);
    // A caller may redirect the output into /etc/udev/rules.d: rules for a part of the database must not land there.
    if !errors.is_empty() {
        return Ok(report_errors(errors.into_iter().map(Error::from)));
    }
    let rules = udev_rules::text(&quirks, &paths::program(root));
    if json {
        print_json(out, "rules", &json!({ "rules": rules }))?;
    } else {
        out.write_all(rules.as_bytes())?;
    }
    Ok(Exit::Success)
}
