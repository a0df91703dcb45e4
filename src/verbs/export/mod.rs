//! `export`: the database in the formats of other programs.
//!
//! | format | content |
//! |---|---|
//! | `usb-modeswitch DIR` | one file per ID for usb_modeswitch 2.6 |
//! | `usb-mode.json` | OpenWrt's `usbmode` |
//! | `json` | everything, in the structure of the TOML files; `import` reads it |
//! | `ids` | one line per ID: ID, tab, name |
//!
//! Entries that the other format cannot express are left out and reported on standard error.

mod left_out;
mod usb_mode;
mod usb_modeswitch;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::database::load;
use crate::database::quirks::Quirk;
use crate::host::journal::{print_error, printable, warn};
use crate::host::root::Root;
use crate::serve::error::{Error, Exit};
use crate::verbs::cli::Format;
use crate::verbs::output::{errors_json, print_json, report_errors};
use left_out::LeftOut;

/// Prints the database in another format, or writes it to a directory. Prints no entries if a database file has an
/// error.
pub(crate) fn run(
    root: &Root,
    format: Format,
    dir: Option<&Path>,
    json: bool,
    out: &mut impl Write,
) -> Result<Exit, Error> {
    if dir.is_some() && !matches!(format, Format::UsbModeswitch) {
        print_error(
            "wwan-quirks: only `export usb-modeswitch` writes to a directory: redirect the output for other formats",
        );
        return Ok(Exit::Usage);
    }
    if json && !matches!(format, Format::Json | Format::Ids) {
        print_error(
            "wwan-quirks: --json is for `export json` and `export ids`: other programs define the other formats",
        );
        return Ok(Exit::Usage);
    }
    let (mut quirks, errors) = load::installed(root);
    if !errors.is_empty() {
        let errors: Vec<Error> = errors.into_iter().map(Error::from).collect();
        if json {
            let key = if matches!(format, Format::Ids) { "ids" } else { "device" };
            print_json(out, "export", &json!({ key: [] }), &errors_json(&errors))?;
        }
        return Ok(report_errors(&errors));
    }
    let kept = applying(&quirks);
    for (quirk, kept) in quirks.iter_mut().zip(&kept) {
        retain(&mut quirk.models, kept);
    }
    quirks.retain(|quirk| !quirk.models.is_empty());
    match format {
        // The command line requires a directory for this format.
        Format::UsbModeswitch => write_files(&quirks, dir.unwrap_or(Path::new(".")))?,
        Format::UsbMode => {
            let (text, left_out) = usb_mode::export(&quirks);
            serde_json::to_writer_pretty(&mut *out, &text)?;
            writeln!(out)?;
            report(&left_out);
        }
        Format::Json => print_json(out, "export", &json!({ "device": whole(root, &kept)? }), &[])?,
        Format::Ids if json => {
            let ids = quirks.iter().flat_map(|quirk| quirk.ids().map(|id| (id, quirk.name_of(id))));
            let ids: Vec<Value> = ids.map(|(id, name)| json!({ "id": id, "name": name })).collect();
            print_json(out, "export", &json!({ "ids": ids }), &[])?;
        }
        Format::Ids => {
            for quirk in &quirks {
                for id in quirk.ids() {
                    writeln!(out, "{id}\t{}", printable(quirk.name_of(id)))?;
                }
            }
        }
    }
    Ok(Exit::Success)
}

/// For each model of each quirk, whether the model applies. It does not if a quirk of a higher layer has the same ID and
/// the same strings.
fn applying(quirks: &[Quirk]) -> Vec<Vec<bool>> {
    let mut last = BTreeMap::new();
    let mut by_layer: Vec<(usize, &Quirk)> = quirks.iter().enumerate().collect();
    by_layer.sort_by_key(|(_, quirk)| quirk.location.layer);
    for (index, quirk) in by_layer {
        last.extend(quirk.ids().map(|id| ((id, &quirk.matchers), index)));
    }
    let applies = |index, quirk: &Quirk, id| last.get(&(id, &quirk.matchers)) == Some(&index);
    let kept = |(index, quirk): (usize, &Quirk)| quirk.ids().map(|id| applies(index, quirk, id)).collect();
    quirks.iter().enumerate().map(kept).collect()
}

/// Removes each element whose `kept` is false.
fn retain<T>(list: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    list.retain(|_| kept.next() == Some(&true));
}

fn write_files(quirks: &[Quirk], dir: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let (files, left_out) = usb_modeswitch::export(quirks);
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).map_err(failed(&path))?;
    }
    report(&left_out);
    Ok(())
}

/// Reports the entries, or the parts of entries, that a format cannot express, one per line.
fn report(left_out: &[LeftOut]) {
    for LeftOut { quirk, reason } in left_out {
        warn(printable(&format!("{}: {}: left out: {reason}", quirk.location, quirk.name)));
    }
}

/// The entries of all files, as JSON. The structure is that of the TOML files.
fn whole(root: &Root, kept: &[Vec<bool>]) -> Result<Vec<Value>, Error> {
    let mut entries = Vec::new();
    for text in load::texts(root)? {
        // The database is valid here.
        let mut file: toml::Table = toml::from_str(&text).unwrap_or_default();
        if let Some(toml::Value::Array(more)) = file.remove("device") {
            entries.extend(more);
        }
    }
    let mut devices = Vec::new();
    for (mut entry, kept) in entries.into_iter().zip(kept) {
        if let Some(toml::Value::Array(models)) = entry.get_mut("id") {
            retain(models, kept);
        }
        if kept.contains(&true) {
            devices.push(serde_json::to_value(&entry)?);
        }
    }
    Ok(devices)
}
