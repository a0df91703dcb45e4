//! `status`: what each modem is, where it stands, and how the last run ended. Only sysfs and the state are read: nobody
//! who holds the modem's port is disturbed.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use crate::apply::devices;
use crate::device::{BoundInterface, Device, DeviceError};
use crate::error::{Error, Exit};
use crate::journal::printable;
use crate::quirks::Step;
use crate::root::Root;
use crate::run::{Known, look_up};
use crate::state::{self, Last};

/// One modem, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Status {
    port: String,
    id: String,
    name: String,
    /// `install` or `modem`.
    mode: &'static str,
    configurations: Vec<Configuration>,
    interfaces: Vec<Interface>,
    last: BTreeMap<String, Last>,
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
        for status in &all {
            writeln!(out, "{}", printable(&status.line()))?;
        }
    }
    Ok(exit)
}

fn status(root: &Root, device: &Device, Known { quirk, .. }: &Known) -> Result<Status, DeviceError> {
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
    Ok(Status {
        port: device.port.to_string(),
        id: device.id.to_string(),
        name: quirk.name.clone(),
        mode: if install { "install" } else { "modem" },
        configurations: configurations.collect(),
        interfaces: interfaces.collect(),
        last: state::peek(root, &device.port).last,
    })
}

impl Status {
    fn line(&self) -> String {
        let configurations = self.configurations.iter().map(|configuration| {
            let mark = if configuration.active { "*" } else { "" };
            format!("{mark}{}={}", configuration.value, configuration.functions.join("+"))
        });
        let mut line = format!("{} {} {}: {} mode", self.port, self.id, self.name, self.mode);
        line += &format!("; configurations {}", configurations.collect::<Vec<_>>().join(" "));
        for interface in self.interfaces.iter().filter(|interface| !interface.nodes.is_empty()) {
            let driver = interface.driver.as_deref().unwrap_or("no driver");
            line += &format!("; {} ({driver})", interface.nodes.join(" "));
        }
        for (step, last) in &self.last {
            line += &format!("; {step} {}: {}", last.outcome, last.text);
        }
        line
    }
}
