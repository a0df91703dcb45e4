//! `status`: what each modem is, where it stands, and how the last run ended. Only sysfs and the state are read: nobody
//! who holds the modem's port is disturbed.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::apply::devices;
use crate::device::{BoundInterface, Device, DeviceError};
use crate::error::{Error, Exit};
use crate::event::Occasion;
use crate::journal::{Kind, printable};
use crate::plan::{Action, Planned, plan};
use crate::quirks::Step;
use crate::root::Root;
use crate::run::{Known, look_up, stand};
use crate::state::{self, Last};

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

/// Prints the status of the devices named, or of all that the database knows.
pub fn run(root: &Root, names: &[String], json: bool, out: &mut impl Write) -> Result<Exit, Error> {
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
            Ok(status) => all.push(status),
            Err(DeviceError::Gone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if json {
        serde_json::to_writer_pretty(&mut *out, &all)?;
        writeln!(out)?;
    } else {
        // A person reads one below the other, a program a line a modem.
        let separator = if io::stdout().is_terminal() { "\n    " } else { "; " };
        for status in &all {
            let parts: Vec<String> = status.parts().iter().map(|part| printable(part)).collect();
            writeln!(out, "{}", parts.join(separator))?;
        }
    }
    Ok(exit)
}

fn status(root: &Root, device: &Device, known: &Known) -> Result<Status, DeviceError> {
    let Known { quirk, policy } = known;
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
    Ok(Status {
        port: device.port.to_string(),
        id: device.id.to_string(),
        name: quirk.name.clone(),
        manufacturer: device.attribute("manufacturer").ok(),
        product: device.attribute("product").ok(),
        mode: if install { "install" } else { "modem" },
        configurations: configurations.collect(),
        interfaces: interfaces.collect(),
        unlocked: last.get("fcc-auth").is_some_and(|last| last.outcome == Kind::Done.name()),
        in_the_way: planned.iter().filter_map(|planned| in_the_way(device, planned, &last)).collect(),
        last,
    })
}

/// What keeps `planned` from being done, as far as it can be known without asking the modem.
fn in_the_way(device: &Device, planned: &Planned, last: &BTreeMap<String, Last>) -> Option<String> {
    let ended = last.get(planned.step());
    let well = ended.is_some_and(|last| [Kind::Done.name(), Kind::Nothing.name()].contains(&last.outcome.as_str()));
    match (planned, ended) {
        (Planned::Cannot { trouble, .. }, _) => Some(format!("{}: {trouble}", planned.step())),
        (Planned::Stands { .. }, _) => None,
        // Every port might have an unlock ahead: how the last one ended tells more.
        (Planned::Act(Action::FccAuth { .. }), Some(_)) if well => None,
        (Planned::Act(_), Some(last)) if !well => Some(format!("{}: {}", planned.step(), last.text)),
        (Planned::Act(_), _) => {
            Some(format!("{} is still to be done: `wwan-quirks apply {}` does it", planned.step(), device.port))
        }
    }
}

impl Status {
    /// What there is to say, the most important first.
    fn parts(&self) -> Vec<String> {
        let mut parts = vec![format!("{} {} {}: {} mode", self.port, self.id, self.name, self.mode)];
        parts.extend(self.in_the_way.iter().map(|what| format!("in the way: {what}")));
        let told: Vec<&str> = [&self.manufacturer, &self.product].into_iter().flatten().map(String::as_str).collect();
        parts.push(format!("calls itself {}", told.join(" ")));
        let configurations = self.configurations.iter().map(|configuration| {
            let mark = if configuration.active { "*" } else { "" };
            format!("{mark}{}={}", configuration.value, configuration.functions.join("+"))
        });
        parts.push(format!("configurations {}", configurations.collect::<Vec<_>>().join(" ")));
        for interface in self.interfaces.iter().filter(|interface| !interface.nodes.is_empty()) {
            let driver = interface.driver.as_deref().unwrap_or("no driver");
            parts.push(format!("{} ({driver})", interface.nodes.join(" ")));
        }
        for (step, Last { at, outcome, text }) in &self.last {
            parts.push(format!("{step} {outcome} {}: {text}", ago(*at)));
        }
        parts
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
