//! `list`: the database, a line a quirk.

use std::io::Write;

use serde_json::json;

use crate::database::quirks;
use crate::host::root::Root;
use crate::serve::error::{Error, Exit};

/// Prints the database.
pub fn run(root: &Root, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let (quirks, errors) = quirks::all(root);
    let lines = quirks.iter().map(|quirk| {
        let ids: Vec<String> = quirk.ids.iter().map(ToString::to_string).collect();
        let steps: Vec<String> = quirk.steps.iter().map(ToString::to_string).collect();
        (quirk, ids, steps)
    });
    if json {
        let entries: Vec<_> = lines
            .map(|(quirk, ids, steps)| {
                json!({ "ids": ids, "name": quirk.name, "strings": quirk.strings, "steps": steps, "place": quirk.place })
            })
            .collect();
        serde_json::to_writer_pretty(&mut *out, &entries)?;
        writeln!(out)?;
    } else {
        for (quirk, ids, steps) in lines {
            writeln!(out, "{}  {}  {}  {}", ids.join(","), quirk.name, steps.join(" "), quirk.place)?;
        }
    }
    match errors.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Fine),
    }
}
