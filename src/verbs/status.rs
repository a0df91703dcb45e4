//! `status`: what each modem is, where it stands, and how the last run ended. Only sysfs and the state are read: nobody
//! who holds the modem's port is disturbed. With `--query` the modem itself is asked, through the proxy where one holds
//! its port. `docs/status.schema.json` describes what `--json` prints.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::database::quirks::{Procedure, Quirk, Step};
use crate::host::deadline::Deadline;
use crate::host::journal::printable;
use crate::host::root::Root;
use crate::host::state::{self, Last, State, StateError};
use crate::host::sys;
use crate::modem::access;
use crate::modem::device::{BoundInterface, Device, DeviceError};
use crate::modem::transport::Protocol;
use crate::outcome::StepResult;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Occasion;
use crate::serve::plan::{Action, Planned, plan};
use crate::serve::run::{Known, look_up, stand};
use crate::steps::fcc_auth::{self, Said};
use crate::verbs::apply::devices;

/// One modem, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Status {
    port: String,
    id: String,
    name: String,
    /// What it says of itself.
    manufacturer: Option<String>,
    product: Option<String>,
    /// `install` or `modem`.
    mode: &'static str,
    configurations: Vec<Configuration>,
    interfaces: Vec<Interface>,
    /// Whether the maker's lock is known to be open: only the modem itself could say that it is shut.
    unlocked: bool,
    /// What the modem says; none where it was not asked.
    asked: Option<Asked>,
    last: BTreeMap<String, Last>,
    /// What is still to be done, or cannot be, with the cure.
    in_the_way: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Configuration {
    value: u8,
    functions: Vec<&'static str>,
    active: bool,
}

#[derive(Debug, Serialize)]
struct Interface {
    number: u8,
    driver: Option<String>,
    nodes: Vec<String>,
}

/// What came of asking the modem.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Asked {
    Says(Said),
    /// Why it did not say anything.
    Silent(String),
}

/// How long one modem may take to answer.
const QUESTION: Duration = Duration::from_secs(5);

/// Prints the status of the devices named, or of all that the database knows, which are asked themselves where `ask`.
pub fn run(root: &Root, names: &[String], ask: bool, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    if ask {
        if let Err(error) = sys::catch_stop_signals() {
            log::warn!("a signal would leave a modem as it is then: {error}");
        }
    }
    let mut exit = Exit::Fine;
    let mut all = Vec::new();
    for device in devices(root, names)? {
        let known = look_up(root, &device, &mut |error| {
            exit = exit.max(error.exit());
            eprintln!("wwan-quirks: {error}");
        });
        let Some(known) = known else {
            if !names.is_empty() {
                eprintln!("wwan-quirks: {} {}: no quirk applies, and nothing is done", device.port, device.id);
            }
            continue;
        };
        match status(root, &device, &known) {
            Ok(mut status) => {
                status.asked = ask.then(|| asked(root, &device, &known.quirk));
                if let Some(Asked::Says(Said { locked: Some(true), .. })) = &status.asked {
                    let cure = format!("`wwan-quirks apply --unlock {}` opens it", device.port);
                    status.in_the_way.push(format!("the maker's lock is shut: {cure}"));
                }
                all.push(status);
            }
            Err(DeviceError::Gone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if json {
        serde_json::to_writer_pretty(&mut *out, &all)?;
        writeln!(out)?;
    } else {
        for status in &all {
            status.print(out)?;
        }
    }
    Ok(exit)
}

fn status(root: &Root, device: &Device, known: &Known) -> Result<Status, DeviceError> {
    let Known { quirk, policy, is_sure } = known;
    let active = device.configuration()?;
    let descriptors = device.descriptors().map(|descriptors| descriptors.configurations).unwrap_or_default();
    let configurations = descriptors.iter().map(|configuration| Configuration {
        value: configuration.value,
        functions: configuration.functions(&quirk.qmi_interfaces).into_iter().map(|function| function.name()).collect(),
        active: active == Some(configuration.value),
    });
    let interfaces = device.interfaces()?.into_iter().map(|BoundInterface { number, driver, nodes }| Interface {
        number,
        driver,
        nodes,
    });
    let install = quirk.steps.iter().any(|step| matches!(step, Step::Switch(_)));
    let last = state::peek(root, &device.port).last;
    let planned = plan(&Occasion::ByHand, &stand(device, quirk, &Occasion::ByHand)?, quirk, policy);
    let in_the_way = match is_sure {
        true => planned.iter().filter_map(|planned| in_the_way(device, planned, &last)).collect(),
        false => vec!["database or policy is not right: `wwan-quirks check` shows where".to_owned()],
    };
    Ok(Status {
        port: device.port.to_string(),
        id: device.id.to_string(),
        name: quirk.name.clone(),
        manufacturer: device.attribute("manufacturer").ok(),
        product: device.attribute("product").ok(),
        mode: if install { "install" } else { "modem" },
        configurations: configurations.collect(),
        interfaces: interfaces.collect(),
        unlocked: last.get("fcc-auth").is_some_and(|last| last.outcome == StepResult::Done.name()),
        in_the_way,
        last,
        asked: None,
    })
}

/// Asks the modem how its radio stands, and changes nothing.
fn asked(root: &Root, device: &Device, quirk: &Quirk) -> Asked {
    let deadline = Deadline::after(QUESTION);
    // Another run on this modem is waited for, and waits for us.
    let _alone = match State::lock(root, &device.port, deadline) {
        Err(error @ StateError::Busy) => return Asked::Silent(error.to_string()),
        locked => locked.ok(),
    };
    let procedure =
        quirk.steps.iter().find_map(|step| if let Step::FccAuth(procedure) = step { Some(procedure) } else { None });
    let ports = match procedure {
        Some(Procedure::Rolling { interface, .. }) => device.tty(*interface).map(|tty| tty.into_iter().collect()),
        _ => device.control_ports(),
    };
    let ports = match ports {
        Ok(ports) => ports,
        Err(error) => return Asked::Silent(error.to_string()),
    };
    let port = ports.iter().find_map(|port| Some((port, Protocol::of_driver(port.driver.as_deref()?)?)));
    let Some((port, protocol)) = port else { return Asked::Silent("it has no port that can be asked".to_owned()) };
    match access::over(root, port, protocol, |transport| fcc_auth::ask(transport, procedure, deadline)) {
        Ok(Ok(said)) => Asked::Says(said),
        Ok(Err(error)) => Asked::Silent(error.to_string()),
        Err(error) => Asked::Silent(error.to_string()),
    }
}

/// What keeps `planned` from being done, as far as it can be known without asking the modem.
fn in_the_way(device: &Device, planned: &Planned, last: &BTreeMap<String, Last>) -> Option<String> {
    let ended = last.get(planned.step());
    let well = ended.is_some_and(ended_well);
    match (planned, ended) {
        (Planned::Cannot { trouble, .. }, _) => Some(format!("{}: {trouble}", planned.step())),
        (Planned::Stands { .. }, _) => None,
        (Planned::Withheld { .. }, Some(last)) if last.outcome == StepResult::Done.name() => None,
        (Planned::Withheld { step, why }, _) => Some(format!("{step} is not done: {why}")),
        // Every port might have an unlock ahead: how the last one ended tells more.
        (Planned::Act(Action::FccAuth { .. }), Some(_)) if well => None,
        (Planned::Act(_), Some(last)) if !well => Some(format!("{}: {}", planned.step(), last.text)),
        (Planned::Act(_), _) => {
            Some(format!("{} is still to be done: `wwan-quirks apply {}` does it", planned.step(), device.port))
        }
    }
}

fn ended_well(last: &Last) -> bool {
    [StepResult::Done.name(), StepResult::Unchanged.name()].contains(&last.outcome.as_str())
}

impl Status {
    /// What there is to say, the most important first; what has the same name stands together.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("mode", self.mode.to_owned())];
        rows.extend(self.in_the_way.iter().map(|what| ("in the way", what.clone())));
        if self.mode == "modem" {
            rows.push(("radio", self.radio()));
        }
        let told: Vec<&str> = [&self.manufacturer, &self.product].into_iter().flatten().map(String::as_str).collect();
        if !told.is_empty() {
            rows.push(("calls itself", told.join(" ")));
        }
        rows.extend(self.configurations.iter().map(|configuration| {
            let mark = if configuration.active { " (active)" } else { "" };
            ("configurations", format!("{}={}{mark}", configuration.value, configuration.functions.join("+")))
        }));
        rows.extend(self.interfaces.iter().filter(|interface| !interface.nodes.is_empty()).map(|interface| {
            ("ports", format!("{} ({})", interface.nodes.join(" "), interface.driver.as_deref().unwrap_or("no driver")))
        }));
        rows.extend(
            self.last.iter().map(|(step, Last { at, outcome, text })| {
                ("last run", format!("{step} {outcome} {}: {text}", ago(*at)))
            }),
        );
        rows
    }

    fn radio(&self) -> String {
        match &self.asked {
            None => match self.last.get("fcc-auth").filter(|last| ended_well(last)) {
                Some(last) => format!("{}, {}", last.text, ago(last.at)),
                None => format!("not known; `wwan-quirks status --query {}` asks the modem", self.port),
            },
            Some(Asked::Silent(why)) => format!("the modem could not be asked: {why}"),
            Some(Asked::Says(Said { operating_mode, locked })) => {
                let locked = match locked {
                    Some(true) => "locked",
                    Some(false) => "not locked",
                    None => "locked, or switched off",
                };
                format!("{operating_mode}, {locked}")
            }
        }
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{} {} {}", self.port, self.id, printable(&self.name))?;
        let mut above = "";
        for (label, text) in self.rows() {
            writeln!(out, "  {:<15} {}", if label == above { "" } else { label }, printable(&text))?;
            above = label;
        }
        Ok(())
    }
}

/// A time of the past, as people say it.
fn ago(at: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(at, |since| since.as_secs());
    match now.saturating_sub(at) {
        seconds @ ..120 => format!("{seconds} s ago"),
        seconds @ ..7200 => format!("{} min ago", seconds / 60),
        seconds @ ..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}
