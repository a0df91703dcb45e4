//! `apply`: does at once what the hook would do.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::bus::{DeviceId, Port};
use crate::database::diagnostic::LoadError;
use crate::database::load;
use crate::host::journal::{Journal, print_error, printable};
use crate::host::root::Root;
use crate::host::sys;
use crate::modem::device::{Device, DeviceError};
use crate::outcome::StepResult;
use crate::serve::before_sleep::before_sleep;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Scope;
use crate::serve::lookup::MatchedDevice;
use crate::serve::plan::PlanLine;
use crate::serve::preview::{no_action, preview_lines};
use crate::serve::record::{RunReport, StepReport, first_line};
use crate::serve::run::Run;
use crate::serve::serve;
use crate::serve::trigger::Trigger;
use crate::verbs::cli::Apply;
use crate::verbs::output::{error_json, errors_json, print_json, report_errors};
use crate::verbs::select::{Devices, Found, NO_MODEM, devices, look_up, no_quirk, without_database};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DeviceReport {
    port: Port,
    id: DeviceId,
    /// The name in the database; `None` if no quirk applies.
    name: Option<String>,
    results: Vec<StepReport>,
    errors: Vec<Value>,
}

impl DeviceReport {
    fn new(device: &Device, served: &RunReport) -> DeviceReport {
        DeviceReport {
            port: device.port.clone(),
            id: device.id,
            name: served.name.clone(),
            results: served.steps.clone(),
            errors: served.errors.iter().map(error_json).collect(),
        }
    }
}

/// Handles the named devices, or all that are in the database.
pub(crate) fn run(root: &Root, options: &Apply, verbose: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let names = &options.devices.device;
    let scope = if options.unlock { Scope::Unlock } else { Scope::All };
    let journal = Journal::open(root);
    if options.before_sleep {
        serve_apart(root, devices(root, names)?.flatten(), &mut Vec::new(), |device| {
            before_sleep(root, &journal, device);
            Exit::Success
        });
        return Ok(Exit::Success);
    }
    let trigger = match (options.unit, names.is_empty()) {
        (true, _) => Trigger::Unit,
        (false, true) => Trigger::Command,
        (false, false) => Trigger::Named,
    };
    let devices = match devices(root, names) {
        Err(Error::Device(DeviceError::NotFound(port))) if options.unit => {
            disconnected(&journal, &port);
            return Ok(Exit::Success);
        }
        found => found?,
    };
    let devices = Box::new(devices.filter_map(|device| match device {
        Err(DeviceError::Gone { port }) if options.unit => {
            disconnected(&journal, &port);
            None
        }
        device => Some(device),
    }));
    let json = options.output.json;
    if options.dry_run {
        let plan = |device: &Device, matched: &MatchedDevice| {
            Run::to_preview(root, device, &scope, trigger).preview(matched, verbose)
        };
        return print_plans(root, devices, trigger, json, out, plan);
    }
    let serve = |device: &Device| {
        let served = serve(root, &journal, device, &scope, trigger);
        let exit = served.exit(&scope, trigger);
        (served, exit)
    };
    if options.unit && names.is_empty() {
        let mut errors = Vec::new();
        let exit = serve_apart(root, devices.flatten(), &mut errors, |device| serve(device).1);
        let lines: BTreeSet<_> = errors.iter().map(with_remedy).collect();
        for line in &lines {
            journal.send(StepResult::Invalid, line, &[]);
        }
        return Ok(if lines.is_empty() { exit } else { Exit::Failed });
    }
    serve_all(root, devices, trigger, json, out, serve)
}

/// An error in the database and its remedy, in one line.
fn with_remedy(error: &Error) -> String {
    let text = error.chain();
    match error {
        Error::Database(LoadError::File(file)) if file.remedy().is_some() => text,
        _ => format!("{}; correct the file (`wwan-quirks check`)", first_line(&text)),
    }
}

/// Reports that the device on the port of a unit is gone.
fn disconnected(journal: &Journal, port: &str) {
    let text =
        format!("{port}: the device disconnected before its unit started; wwan-quirks handles it when it returns");
    journal.send(StepResult::Unchanged, &text, &[("WWAN_QUIRKS_PORT", port)]);
}

/// Handles the devices in the database at the same time, so that an unresponsive modem does not delay the others. Prints
/// nothing: the journal has the results. Adds errors that concern none of these devices to `errors`.
fn serve_apart(
    root: &Root,
    devices: impl Iterator<Item = Device>,
    errors: &mut Vec<Error>,
    serve: impl Fn(&Device) -> Exit,
) -> Exit {
    let mut is_any = false;
    let known = devices.filter(|device| is_known(root, device, errors)).inspect(|_| is_any = true);
    let all_succeeded = sys::in_parallel(known, |device| serve(&device) == Exit::Success);
    if !is_any {
        errors.extend(without_database(root));
    }
    if all_succeeded { Exit::Success } else { Exit::Failed }
}

/// Whether a valid entry has the ID of the device. If not, adds the errors in files that may have one to `errors`. Reads
/// no string of the device, which could block.
fn is_known(root: &Root, device: &Device, errors: &mut Vec<Error>) -> bool {
    let needs_string = Cell::new(false);
    let found = load::lookup(root, device.id, |_| {
        needs_string.set(true);
        None
    });
    let is_known = found.quirk.is_some() || needs_string.get();
    if !is_known {
        errors.extend(found.errors.into_iter().map(Error::from));
    }
    is_known
}

/// Serves the devices in turn with `serve`, and prints their results.
fn serve_all(
    root: &Root,
    devices: Devices,
    trigger: Trigger,
    json: bool,
    out: &mut impl Write,
    serve: impl Fn(&Device) -> (RunReport, Exit),
) -> Result<Exit, Error> {
    let mut exit = Exit::Success;
    let (mut reports, mut errors) = (Vec::new(), Vec::new());
    let mut printed = Ok(());
    for device in devices {
        let device = match device {
            Ok(device) => device,
            Err(error) => {
                errors.push(error.into());
                continue;
            }
        };
        let is_stopped = sys::stop_requests() > 0;
        if (trigger == Trigger::Command || is_stopped) && !is_known(root, &device, &mut errors) {
            continue;
        }
        if is_stopped {
            errors.push(Error::Stopped);
            break;
        }
        let (served, ended) = serve(&device);
        exit = exit.max(ended);
        if served.name.is_none() && served.errors.is_empty() {
            // Report a device without a quirk only if it was named.
            if trigger.is_named() {
                errors.push(no_quirk(&device));
            }
            continue;
        }
        if !json {
            // A full disk must not keep the next modem from being served.
            printed = printed.and(print_lines(&device, &served, out));
        }
        if served.errors.iter().any(|error| error.exit() == Exit::Invalid) {
            print_error(format_args!("wwan-quirks: {} {}: {}", device.port, device.id, no_action()));
        }
        reports.push(DeviceReport::new(&device, &served));
        errors.extend(served.errors);
    }
    if reports.is_empty() {
        errors.extend(without_database(root));
    }
    exit = exit.max(report_errors(&errors));
    printed?;
    if json {
        print_json(out, "apply", &json!({ "devices": reports }), &errors_json(&errors))?;
    } else if reports.is_empty() && !trigger.is_named() {
        writeln!(out, "{NO_MODEM}")?;
    }
    Ok(exit)
}

fn print_lines(device: &Device, served: &RunReport, out: &mut impl Write) -> Result<(), Error> {
    let name = served.name.as_deref().unwrap_or_default();
    for report in &served.steps {
        writeln!(out, "{}", printable(&report.line(device, name)))?;
    }
    if served.steps.is_empty() && served.errors.is_empty() {
        print_nothing_to_do(device, name, out)?;
    }
    Ok(())
}

fn print_nothing_to_do(device: &Device, name: &str, out: &mut impl Write) -> Result<(), Error> {
    Ok(writeln!(out, "{} {} {}: nothing to do", device.port, device.id, printable(name))?)
}

/// Prints what `plan` says about each device.
fn print_plans(
    root: &Root,
    devices: Devices,
    trigger: Trigger,
    json: bool,
    out: &mut impl Write,
    plan: impl Fn(&Device, &MatchedDevice) -> Result<Vec<PlanLine>, DeviceError>,
) -> Result<Exit, Error> {
    let (mut plans, mut errors, mut is_any) = (Vec::new(), Vec::new(), false);
    for device in devices {
        let Some(Found { device, matched, complete }) = look_up(root, device, &mut errors) else { continue };
        let Some(matched) = matched else {
            if trigger.is_named() && complete {
                errors.push(no_quirk(&device));
            }
            continue;
        };
        let steps = if complete { plan(&device, &matched) } else { Ok(Vec::new()) };
        let steps = match steps {
            Ok(steps) => steps,
            Err(DeviceError::Gone { .. }) if !trigger.is_named() => continue,
            Err(error) => {
                errors.push(error.into());
                continue;
            }
        };
        is_any = true;
        let name = matched.quirk.name_of(device.id);
        if json {
            let (port, id) = (&device.port, device.id);
            plans.push(json!({ "port": port, "id": id, "name": name, "complete": complete, "plan": steps }));
        } else if complete && steps.is_empty() {
            print_nothing_to_do(&device, name, out)?;
        } else {
            writeln!(out, "{} {} {}", device.port, device.id, printable(name))?;
            for line in preview_lines(complete, &steps) {
                writeln!(out, "  {line}")?;
            }
        }
    }
    if !is_any {
        errors.extend(without_database(root));
    }
    let exit = report_errors(&errors);
    if json {
        print_json(out, "apply", &json!({ "devices": plans }), &errors_json(&errors))?;
    } else if !is_any && !trigger.is_named() {
        writeln!(out, "{NO_MODEM}")?;
    }
    Ok(exit)
}
