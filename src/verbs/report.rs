//! `report`: what a maintainer needs to add a modem or to fix its quirk, as text for an issue.
//!
//! The software modem of the tests can load the lines `manufacturer`, `product`, `serial` and `descriptors` as a new
//! model. Everything that identifies a modem, its SIM or its owner is masked.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::bus::{Bus, DeviceId, Port};
use crate::database::diagnostic::Location;
use crate::host::journal::{IDENTIFIER, printable};
use crate::host::root::Root;
use crate::host::state::LastResult;
use crate::modem::device::descriptors::Interface;
use crate::modem::device::vendor_interfaces::VendorInterfaces;
use crate::modem::device::{BoundInterface, ControlPort, Device};
use crate::outcome::StepKind;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Scope;
use crate::serve::lookup::lookup;
use crate::serve::plan::PlanLine;
use crate::serve::preview::preview_lines;
use crate::serve::record::results;
use crate::serve::run::Run;
use crate::serve::trigger::Trigger;
use crate::usb::Function;
use crate::verbs::output::{errors_json, print_json};
use crate::verbs::select::without_database;

/// Digits in a row. IMEI, IMSI and MEID have 14 to 16, an ICCID has 19 or 20. A date or a process ID has fewer.
const DIGITS: usize = 10;
/// Characters of a vendor ID.
const VENDOR: usize = 4;
const PLAN: &str = "plan";
const LINES: &str = "20";
const NO_DRIVER: &str = "no driver";

/// Prints the report on `name`, or on the only modem that is plugged in. The exit status is [`Exit::Invalid`] if a file that concerns the device is invalid.
pub(crate) fn run(root: &Root, name: Option<&str>, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let device = name.map_or_else(|| only_modem(root), |name| Ok(Device::one_named(root, name)?))?;
    // Lines from the journal are already escaped.
    let serial = printable(device.serial().unwrap_or_default().trim());
    let (report, exit) = report(root, &device)?;
    if json {
        let mut errors = errors_json(&report.errors);
        let mut report = serde_json::to_value(report)?;
        publish(&mut report, "", &serial);
        errors.iter_mut().for_each(|error| publish(error, "", &serial));
        print_json(out, "report", &report, &errors)?;
    } else {
        writeln!(
            out,
            "# Report of wwan-quirks {}. Known identifiers are masked. Read the report before you publish it.",
            env!("CARGO_PKG_VERSION")
        )?;
        for (key, value) in report.lines() {
            writeln!(out, "{key} = {}", published(key, &value, &serial))?;
        }
    }
    Ok(exit)
}

/// The keys of a report that cannot be made.
pub(crate) fn empty() -> Json {
    json!({
        "port": null, "id": null, "attributes": {}, "descriptors": null, "configurations": [], "interfaces": [],
        "subsystem": null, "driver": null, "mhi-channels": [], "wwan-ports": [], "kernel": null, "name": null,
        "quirk": null, "complete": false, "plan": [], "last": {}, "journal": null,
    })
}

fn only_modem(root: &Root) -> Result<Device, Error> {
    let (mut known, mut invalid) = (Vec::new(), None);
    for device in Device::all(root)? {
        match lookup(root, &device) {
            (Some(_), _) => known.push(device),
            (None, errors) => invalid = invalid.or(errors.into_iter().next()),
        }
    }
    match known.pop() {
        None => Err(invalid.or_else(|| without_database(root).into_iter().next()).unwrap_or(Error::NoModem)),
        Some(device) if known.is_empty() => Ok(device),
        Some(device) => {
            Err(Error::SeveralModems(known.iter().chain([&device]).map(|device| device.port.to_string()).collect()))
        }
    }
}

/// The report, before identifiers are masked. Keys of USB devices are empty on PCI, and the other way round.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    #[serde(skip)]
    bus: Bus,
    port: Port,
    id: DeviceId,
    /// The text of attributes in sysfs, by name.
    attributes: BTreeMap<&'static str, String>,
    #[serde(skip)]
    errors: Vec<Error>,
    /// In hex.
    descriptors: Option<String>,
    configurations: Vec<Configuration>,
    /// Of the active configuration.
    interfaces: Vec<BoundInterface>,
    subsystem: Option<String>,
    driver: Option<String>,
    mhi_channels: Vec<String>,
    wwan_ports: Vec<WwanPort>,
    kernel: Option<String>,
    /// The name and the location of the quirk that applies.
    name: Option<String>,
    quirk: Option<Location>,
    /// All files that concern the device are valid.
    complete: bool,
    plan: Vec<PlanLine>,
    /// The last result of each step.
    last: BTreeMap<StepKind, LastResult>,
    /// The last lines about any modem. `None` if the journal cannot be read.
    journal: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Configuration {
    value: u8,
    functions: Vec<Function>,
    interfaces: Vec<Interface>,
}

#[derive(Serialize)]
struct WwanPort {
    name: String,
    r#type: Option<String>,
}

/// The attributes in a report, in the order of its text.
fn attributes(bus: Bus) -> &'static [&'static str] {
    match bus {
        Bus::Usb => &["manufacturer", "product", "serial", "bcdDevice", "speed", "authorized", "bConfigurationValue"],
        Bus::Pci => &["class", "revision", "t7xx_mode"],
    }
}

fn report(root: &Root, device: &Device) -> Result<(Report, Exit), Error> {
    // Strings are optional.
    let attribute = |name: &&'static str| Some((*name, device.attribute(name).ok()?));
    let (known, errors) = lookup(root, device);
    let plan = match &known {
        Some(known) if errors.is_empty() => {
            Run::to_preview(root, device, &Scope::All, Trigger::Named).preview(known, false)?
        }
        _ => Vec::new(),
    };
    let exit = errors.iter().map(Error::exit).max().unwrap_or(Exit::Success);
    let mut report = Report {
        bus: device.id.bus,
        port: device.port.clone(),
        id: device.id,
        attributes: attributes(device.id.bus).iter().filter_map(attribute).collect(),
        complete: errors.is_empty(),
        errors,
        descriptors: None,
        configurations: Vec::new(),
        interfaces: Vec::new(),
        subsystem: device.subsystem().map(|subsystem| subsystem.to_string()),
        driver: None,
        mhi_channels: Vec::new(),
        wwan_ports: Vec::new(),
        kernel: first_line(root, "/proc/sys/kernel/osrelease"),
        name: known.as_ref().map(|known| known.quirk.name_of(device.id).to_owned()),
        quirk: known.as_ref().map(|known| known.quirk.location.clone()),
        plan,
        last: results(root, device).dated().last,
        journal: if root.is_live() { journal() } else { Some(Vec::new()) },
    };
    match device.id.bus {
        Bus::Usb => {
            let qmi_of_quirk = known.as_ref().map_or(&[][..], |known| &known.quirk.qmi_interfaces);
            report.add_usb(device, &VendorInterfaces::of(device.id, qmi_of_quirk))?;
        }
        Bus::Pci => report.add_pci(device)?,
    }
    Ok((report, exit))
}

impl Report {
    fn add_usb(&mut self, device: &Device, qmi: &VendorInterfaces) -> Result<(), Error> {
        self.descriptors = Some(device.raw_descriptors()?.iter().map(|byte| format!("{byte:02x}")).collect());
        match device.descriptors() {
            Ok(descriptors) => {
                self.configurations = descriptors
                    .configurations
                    .iter()
                    .map(|configuration| Configuration {
                        value: configuration.value,
                        functions: configuration.functions(qmi),
                        interfaces: configuration.interfaces.clone(),
                    })
                    .collect();
            }
            Err(error) => self.errors.push(error.into()),
        }
        self.interfaces = device.interfaces()?;
        Ok(())
    }

    fn add_pci(&mut self, device: &Device) -> Result<(), Error> {
        self.driver = device.bound_driver();
        self.mhi_channels = device.mhi_channels();
        let ports = device.control_ports()?.into_iter();
        self.wwan_ports =
            ports.map(|ControlPort { name, wwan_type, .. }| WwanPort { name, r#type: wwan_type }).collect();
        Ok(())
    }

    /// Key and value of each line of the text.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("port", self.port.to_string()), ("id", self.id.to_string())];
        let attribute = |name: &&'static str| Some((*name, self.attributes.get(name)?.clone()));
        lines.extend(attributes(self.bus).iter().filter_map(attribute));
        lines.extend(self.errors.iter().map(|error| ("error", error.chain())));
        lines.extend(self.descriptors.iter().map(|hex| ("descriptors", hex.clone())));
        for configuration in &self.configurations {
            let functions: Vec<&str> = configuration.functions.iter().map(|function| function.name()).collect();
            lines.push(("configuration", format!("{}: {}", configuration.value, functions.join(" "))));
            lines.extend(configuration.interfaces.iter().map(|interface| ("interface", shape(interface))));
        }
        lines.extend(self.interfaces.iter().map(|BoundInterface { number, driver, nodes }| {
            let driver = driver.as_deref().unwrap_or(NO_DRIVER);
            ("bound", format!("interface {number}: {driver} {}", nodes.join(" ")))
        }));
        lines.extend(self.subsystem.iter().map(|subsystem| ("subsystem", subsystem.clone())));
        if self.bus == Bus::Pci {
            lines.push(("driver", self.driver.clone().unwrap_or_else(|| NO_DRIVER.to_owned())));
        }
        if !self.mhi_channels.is_empty() {
            lines.push(("mhi-channels", self.mhi_channels.join(" ")));
        }
        lines.extend(self.wwan_ports.iter().map(|WwanPort { name, r#type }| {
            ("wwan-port", format!("{name}: {}", r#type.as_deref().unwrap_or_default()))
        }));
        lines.push(("kernel", self.kernel.clone().unwrap_or_else(|| "unknown".to_owned())));
        match self.name.as_ref().zip(self.quirk.as_ref()) {
            None => lines.push(("quirk", "none".to_owned())),
            Some((name, location)) => {
                lines.push(("quirk", format!("{name} ({location})")));
                lines.extend(preview_lines(self.complete, &self.plan).into_iter().map(|line| (PLAN, line)));
            }
        }
        lines.extend(
            self.last.iter().map(|(step, last)| ("last", format!("{step}: {}: {}", last.result.name(), last.message))),
        );
        match &self.journal {
            None => lines.push(("journal", "not readable".to_owned())),
            Some(journal) => lines.extend(journal.iter().map(|line| ("journal", line.clone()))),
        }
        lines
    }
}

fn shape(interface: &Interface) -> String {
    let Interface { number, alternate, class, subclass, protocol, endpoints } = interface;
    let endpoints: Vec<String> = endpoints.iter().map(|endpoint| format!("{:02x}", endpoint.address)).collect();
    format!("{number}.{alternate}: {class:02x}/{subclass:02x}/{protocol:02x}, endpoints {}", endpoints.join(" "))
}

/// The last lines in the journal, about any modem. `None` if it cannot be read.
fn journal() -> Option<Vec<String>> {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--no-hostname", "--output=short-iso", "--lines", LINES, "--identifier"]);
    let output = command.arg(IDENTIFIER).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().map(str::to_owned).collect())
}

fn first_line(root: &Root, path: &str) -> Option<String> {
    let text = root.read(path, 4096).ok()?;
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}

/// Applies [`published`] to each string in `json`, which is the value of `key` or a part of the plan.
fn publish(json: &mut Json, key: &str, serial: &str) {
    match json {
        Json::String(text) => *text = published(key, text, serial),
        Json::Array(items) => items.iter_mut().for_each(|item| publish(item, key, serial)),
        Json::Object(members) => members.iter_mut().for_each(|(name, value)| {
            let key = if key == PLAN { PLAN } else { name };
            publish(value, key, serial);
        }),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// The value of a line as one line without identifiers. `serial` is escaped.
fn published(key: &str, value: &str, serial: &str) -> String {
    match key {
        // They identify a model. Descriptors contain only the numbers of strings.
        "port" | "id" | "descriptors" => value.to_owned(),
        "serial" => "x".repeat(value.trim().chars().count()),
        // It contains messages in hex, but nothing that the modem says about itself or its SIM.
        PLAN => masked(&printable(value), serial, usize::MAX),
        _ => masked(&printable(value), serial, DIGITS),
    }
}

/// `text` without the serial number of the device, without numbers of `long` or more digits, and without network
/// addresses.
fn masked(text: &str, serial: &str, long: usize) -> String {
    // A shorter string occurs everywhere: it can be a vendor ID, and identifies no modem.
    let is_long = serial.chars().count() > VENDOR;
    let text = if is_long { text.replace(serial, &"x".repeat(serial.len())) } else { text.to_owned() };
    let mut masked = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (shown, hidden) = match address(rest) {
            Some(address) => (address.start, address.len()),
            None if digits >= long => (0, digits),
            // Copy a short number as a whole, so that no part of it is examined again.
            None => (digits.max(first.len_utf8()), 0),
        };
        masked.push_str(rest.get(..shown).unwrap_or_default());
        masked.push_str(&"x".repeat(hidden));
        rest = rest.get(shown + hidden..).unwrap_or_default();
    }
    masked
}

/// Where the network address is, if `text` begins with one (`02:00:5e:10:00:00`) or with the name of a network interface
/// that contains one (`wwx02005e100000`, systemd.net-naming-scheme(7)).
fn address(text: &str) -> Option<Range<usize>> {
    let (address, has_colons) = match text.get(..3) {
        Some("enx" | "wlx" | "wwx") => (3..15, false),
        _ => (0..17, true),
    };
    let shaped = |(at, byte): (usize, &u8)| match has_colons && at % 3 == 2 {
        true => *byte == b':',
        false => byte.is_ascii_hexdigit(),
    };
    let bytes = text.as_bytes().get(address.clone())?;
    bytes.iter().enumerate().all(shaped).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_masked_and_the_rest_is_not() {
        let text = "1-1 LF53920000010: IMEI 358178040012345, ICCID 89490200001234567890; wwan0 02:00:5e:10:00:0a";
        assert_eq!(
            masked(text, "LF53920000010", DIGITS),
            format!(
                "1-1 {}: IMEI {}, ICCID {}; wwan0 {}",
                "x".repeat(13),
                "x".repeat(15),
                "x".repeat(20),
                "x".repeat(17)
            )
        );
        for kept in
            ["", "2026-11-21T08:47:00+00:00 wwan-quirks[2654]: 1-1 1199:9071", "ü 0a:0b", "9".repeat(9).as_str()]
        {
            assert_eq!(masked(kept, "1", DIGITS), kept);
        }
    }

    #[test]
    fn the_name_of_a_network_interface_shows_no_address() {
        for (name, expected) in [
            ("cdc-wdm0 wwx0a1b2c3d4e5f", "cdc-wdm0 wwxxxxxxxxxxxxx"),
            ("enx02005e100000: up", "enxxxxxxxxxxxxx: up"),
            ("wwan0 wwx0a1b2c3d4e5 wwp0s20u1 enxü", "wwan0 wwx0a1b2c3d4e5 wwp0s20u1 enxü"),
        ] {
            assert_eq!(masked(name, "", DIGITS), expected);
        }
    }

    #[test]
    fn a_plan_keeps_its_messages() {
        let line = "switch: huawei-new: bulk 55534243123456780000000000000011; LF53920000010; wwx0a1b2c3d4e5f is up";
        let expected = line.replace("LF53920000010", &"x".repeat(13)).replace("0a1b2c3d4e5f", &"x".repeat(12));
        assert_eq!(published("plan", line, "LF53920000010"), expected);
        let mut json = json!({ "plan": [{ "text": line }], "last": { "switch": { "text": "0123456789" } } });
        publish(&mut json, "", "LF53920000010");
        assert_eq!(json["plan"][0]["text"], expected);
        assert_eq!(json["last"]["switch"]["text"], "x".repeat(10));
    }

    #[test]
    fn a_serial_number_of_any_form_is_masked() {
        let published = |key, value: &str, serial: &str| published(key, value, &printable(serial));
        for serial in ["LF\u{1}539-abc", "abc", "1199", "ü\u{202e}"] {
            assert_eq!(published("serial", serial, serial), "x".repeat(serial.chars().count()), "{serial:?}");
        }
        let (raw, escaped) = ("LF\u{1}539-abc", "LF\\u{1}539-abc");
        for text in [raw, escaped] {
            let masked = published("last", &format!("no answer from {text}"), raw);
            assert_eq!(masked, format!("no answer from {}", "x".repeat(escaped.len())));
        }
        // The rest of the report is of use if the serial number equals the vendor ID or the whole ID.
        assert_eq!(published("id", "1199:68a2", "1199:68a2"), "1199:68a2");
        assert_eq!(published("quirk", "MC7710 (/x/1199-sierra.toml:27)", "1199"), "MC7710 (/x/1199-sierra.toml:27)");
    }
}
