//! `composition`: shows the USB composition that a modem stores, or sets it.

use std::io::Write;

use serde_json::{Value as Json, json};

use crate::database::compositions::{Composition, names};
use crate::host::journal::printable;
use crate::host::root::Root;
use crate::modem::device::Device;
use crate::outcome::StepResult;
use crate::serve::composition::{Conversed, serve_composition};
use crate::serve::error::{Error, Exit};
use crate::steps::composition::{Reading, Request, describe};
use crate::verbs::cli::Setting;
use crate::verbs::output::{print_json, report_errors};

/// Shows the composition of the named modem, or sets another one if `setting` has a value.
pub(crate) fn run(root: &Root, name: &str, setting: Setting, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let Setting { value, no_at_port, reset, password } = setting;
    let request = Request { wanted: value, no_at_port, reset, password };
    let (all, errors) = serve_composition(root, Device::one_named(root, name)?, &request);
    let exit = report_errors(errors);
    match all.last() {
        Some(last) if json => print_json(out, "composition", &to_json(last, &all))?,
        _ => all.iter().try_for_each(|conversed| print(conversed, out))?,
    }
    let results = all.iter().filter_map(|conversed| conversed.report.as_ref());
    let has_failed = results.into_iter().any(|report| matches!(report.result, StepResult::Failed | StepResult::Busy));
    Ok(if has_failed { exit.max(Exit::Failed) } else { exit })
}

fn print(conversed: &Conversed, out: &mut impl Write) -> Result<(), Error> {
    let Conversed { device, name, exchange, report } = conversed;
    if let Some(report) = report {
        writeln!(out, "{}", printable(&report.line(device, name)))?;
    } else if let Some(exchange) = exchange {
        print_reading(&format!("{} {} {name}", device.port, device.id), &exchange.reading, out)?;
    }
    if let Some(way_back) = exchange.as_ref().and_then(|exchange| exchange.way_back(device)) {
        match way_back {
            Ok(command) => writeln!(out, "to revert: {command}")?,
            Err(reason) => writeln!(out, "to revert: not possible: {reason}")?,
        }
    }
    Ok(())
}

fn print_reading(head: &str, reading: &Reading, out: &mut impl Write) -> Result<(), Error> {
    let Reading { by, family, current, supported, read_only, facts, .. } = reading;
    let line = format!("{head}: composition {}, by {by}", describe(current));
    writeln!(out, "{}", printable(&line))?;
    for known in supported {
        let mark = if known.is(current) == Some(true) { '*' } else { ' ' };
        let without = match (known.configurations.is_empty(), known.has_at_port()) {
            (true, _) => "  (not known)",
            (false, true) => "",
            (false, false) => "  (no AT port)",
        };
        let (value, functions) = (known.value.to_string(), names(&known.functions()));
        let line = format!("{mark} {value:<8}{functions:<10}{}{without}", known.layout);
        writeln!(out, "{}", printable(line.trim_end()))?;
    }
    for (name, value) in facts {
        writeln!(out, "  {name}: {}", printable(value))?;
    }
    writeln!(out, "  family: {} ({}); seen: {}", family.name, family.confidence, family.seen)?;
    if let Some(reason) = read_only {
        writeln!(out, "  read only: {}", printable(reason))?;
    }
    Ok(())
}

/// `last` as JSON. `all` also has the steps that led to it.
fn to_json(last: &Conversed, all: &[Conversed]) -> Json {
    let Conversed { device, name, exchange, report } = last;
    let ways_back = || all.iter().filter_map(|step| step.exchange.as_ref()?.way_back(&step.device));
    let composition = |composition: &Composition| {
        json!({
            "value": composition.value.to_string(),
            "functions": composition.functions(),
            "at-port": composition.has_at_port(),
            "configurations": composition.layout.split(" | ").filter(|text| !text.is_empty()).collect::<Vec<_>>(),
        })
    };
    let reading = exchange.as_ref().map(|exchange| &exchange.reading);
    json!({
        "port": device.port.as_str(),
        "id": device.id.to_string(),
        "name": name,
        "by": reading.map(|reading| &reading.by),
        "family": reading.map(|reading| &reading.family),
        "current": reading.map(|reading| composition(&reading.current)),
        "supported": reading.map(|reading| reading.supported.iter().map(composition).collect::<Vec<_>>()),
        "read-only": reading.and_then(|reading| reading.read_only.as_ref()),
        "settings": reading.map(|reading| &reading.facts),
        "revert": ways_back().filter_map(Result::ok).next_back(),
        "irreversible": ways_back().find_map(Result::err),
        "result": report.as_ref().map(|report| json!({ "outcome": report.result.name(), "text": report.text })),
    })
}
