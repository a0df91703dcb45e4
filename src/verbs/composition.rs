//! `composition`: shows the USB composition that a modem stores, or sets it.

use std::io::Write;

use serde_json::{Value as Json, json};

use crate::database::compositions::{Composition, Value, names};
use crate::host::journal::printable;
use crate::host::root::Root;
use crate::modem::device::Device;
use crate::outcome::StepResult;
use crate::serve::composition::{CompositionReport, serve_composition};
use crate::serve::error::{Error, Exit};
use crate::steps::composition::{CompositionState, Request, describe};
use crate::verbs::cli::Setting;
use crate::verbs::output::{errors_json, print_json, report_errors};

/// Shows the composition of the named modem, or sets another one if `setting` has a value.
pub(crate) fn run(root: &Root, name: &str, setting: Setting, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let Setting { value, no_at_port, reset, password } = setting;
    let request = Request { wanted: value, no_at_port, reset, password };
    let (all, errors) = serve_composition(root, Device::one_named(root, name)?, &request);
    let exit = report_errors(&errors);
    match json {
        true => print_json(out, "composition", &to_json(&all), &errors_json(&errors))?,
        false => all.iter().try_for_each(|conversed| print(conversed, out))?,
    }
    let results = all.iter().filter_map(|conversed| conversed.report.as_ref());
    let has_failed = results.into_iter().any(|report| matches!(report.result, StepResult::Failed | StepResult::Busy));
    Ok(if has_failed { exit.max(Exit::Failed) } else { exit })
}

fn print(conversed: &CompositionReport, out: &mut impl Write) -> Result<(), Error> {
    let CompositionReport { device, name, exchange, report } = conversed;
    if let Some(report) = report {
        writeln!(out, "{}", printable(&report.line(device, name)))?;
    } else if let Some(exchange) = exchange {
        print_reading(&format!("{} {} {name}", device.port, device.id), &exchange.reading, out)?;
    }
    if let Some(revert_command) = exchange.as_ref().and_then(|exchange| exchange.revert_command(device)) {
        match revert_command {
            Ok(command) => writeln!(out, "to revert: {command}")?,
            Err(reason) => writeln!(out, "to revert: not possible: {reason}")?,
        }
    }
    Ok(())
}

fn print_reading(head: &str, reading: &CompositionState, out: &mut impl Write) -> Result<(), Error> {
    let CompositionState { by, family, current, supported, read_only, settings, .. } = reading;
    let line = format!("{head}: composition {}, by {by}", describe(current));
    writeln!(out, "{}", printable(&line))?;
    for known in supported {
        let mark = if known.is_same_as(current) == Some(true) { '*' } else { ' ' };
        let without = match (known.configurations.is_empty(), known.has_at_port()) {
            (true, _) => "  (not known)",
            (false, true) => "",
            (false, false) => "  (no AT port)",
        };
        let (value, functions) = (known.value.to_string(), names(&known.functions()));
        let line = format!("{mark} {value:<8}{functions:<10}{}{without}", known.layout);
        writeln!(out, "{}", printable(line.trim_end()))?;
    }
    for (name, value) in settings {
        writeln!(out, "  {name}: {}", printable(value))?;
    }
    writeln!(out, "  family: {} ({}); seen: {}", family.name, family.confidence, family.seen)?;
    if let Some(reason) = read_only {
        writeln!(out, "  read only: {}", printable(reason))?;
    }
    Ok(())
}

/// The last conversation as JSON. The others are steps that led to it. Without any, all values are null.
pub(crate) fn to_json(all: &[CompositionReport]) -> Json {
    let last = all.last();
    let device = last.map(|last| &last.device);
    let ways_back = || all.iter().filter_map(|step| step.exchange.as_ref()?.revert_command(&step.device));
    let composition = |composition: &Composition| {
        let value = match &composition.value {
            Value::Number(number) => json!(number),
            value => json!(value.to_string()),
        };
        json!({
            "value": value,
            "functions": composition.functions(),
            "at-port": composition.has_at_port(),
            "configurations": composition.configurations,
            "layout": Some(&composition.layout).filter(|_| composition.is_known() && !composition.layout.is_empty()),
        })
    };
    let reading = last.and_then(|last| Some(&last.exchange.as_ref()?.reading));
    json!({
        "port": device.map(|device| &device.port),
        "id": device.map(|device| device.id),
        "name": last.map(|last| &last.name),
        "by": reading.map(|reading| &reading.by),
        "family": reading.map(|reading| &reading.family),
        "current": reading.map(|reading| composition(&reading.current)),
        "supported": reading.map(|reading| reading.supported.iter().map(composition).collect::<Vec<_>>()),
        "read-only": reading.and_then(|reading| reading.read_only.as_ref()),
        "settings": reading.map(|reading| &reading.settings),
        "revert": ways_back().filter_map(Result::ok).next_back(),
        "irreversible": ways_back().find_map(Result::err),
        "result": last.and_then(|last| last.report.as_ref()),
    })
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::database::compositions::{Confidence, Provenance, shipped};
    use crate::host::root::tests::TempRoot;
    use crate::outcome::StepKind;
    use crate::serve::record::StepReport;
    use crate::steps::composition::{Exchange, Restart};

    /// `tests/schema.rs` validates the files.
    #[test]
    fn the_json_of_a_composition_is_that_of_the_stored_files() {
        let root = TempRoot::new("json");
        for (name, text) in [("idVendor", "1199\n"), ("idProduct", "9071\n")] {
            root.write(&format!("/sys/devices/usb1/1-1/{name}"), text);
        }
        let table = shipped().sierra.unwrap();
        let printed = |chosen: Option<u8>, read_only: Option<&str>, report| {
            let reading = CompositionState {
                by: "QMI in MBIM".to_owned(),
                family: Provenance {
                    name: "Sierra Wireless".to_owned(),
                    confidence: Confidence::Sure,
                    seen: "MC7455".to_owned(),
                },
                current: table.of_number(8),
                supported: [6, 8, 9, 14, 23].map(|number| table.of_number(number)).to_vec(),
                other: None,
                read_only: read_only.map(str::to_owned),
                restart: Restart::OnRequest,
                settings: [("configuration type".to_owned(), "Generic".to_owned())].into(),
            };
            let chosen = chosen.map(|number| table.of_number(number));
            let exchange = Exchange { reading, chosen, resets: false, is_intermediate: false, failure: None };
            let device = Device::at_devpath(&root, "/devices/usb1/1-1").unwrap();
            let name = "Sierra Wireless MC7455".to_owned();
            let all = [CompositionReport { device, name, exchange: Some(exchange), report }];
            let mut out = Vec::new();
            print_json(&mut out, "composition", &to_json(&all), &[]).unwrap();
            String::from_utf8(out).unwrap()
        };
        let done = StepReport {
            step: StepKind::Composition,
            result: StepResult::Done,
            message: "6 (qmi) instead of 8".into(),
        };
        let (read, set) = (printed(None, Some("too little is known"), None), printed(Some(6), None, Some(done)));
        assert_eq!(read, include_str!("../../tests/json/composition-read.json"));
        assert_eq!(set, include_str!("../../tests/json/composition-set.json"));
    }
}
