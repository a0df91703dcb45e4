//! `report`: what a maintainer needs to add a modem or to fix its quirk, as text for an issue.
//!
//! The software modem of the tests can load the lines `manufacturer`, `product`, `serial` and `descriptors` as a new
//! model. Everything that identifies a modem, its SIM or its owner is masked.

use std::io::Write;
use std::ops::Range;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::bus::Bus;
use crate::host::journal::{IDENTIFIER, printable};
use crate::host::root::{Root, read_limited};
use crate::modem::device::Device;
use crate::modem::device::descriptors::Descriptors;
use crate::modem::device::vendor_interfaces::VendorInterfaces;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Scope;
use crate::serve::lookup::lookup;
use crate::serve::record::results;
use crate::serve::trigger::Trigger;
use crate::serve::{preview, preview_lines};
use crate::verbs::output::print_json;

/// Digits in a row. IMEI, IMSI and MEID have 14 to 16, an ICCID has 19 or 20. A date or a process ID has fewer.
const DIGITS: usize = 10;
/// Characters of a vendor ID.
const VENDOR: usize = 4;
const LINES: &str = "20";

/// Prints the report on one device. The exit status is [`Exit::Invalid`] if a file that concerns the device is invalid.
pub(crate) fn run(root: &Root, name: &str, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let device = Device::one_named(root, name)?;
    // Lines from the journal are already escaped.
    let serial = printable(device.serial().unwrap_or_default().trim());
    let (lines, exit) = lines(root, &device)?;
    let lines = lines.into_iter().map(|(key, value)| (key, published(key, value, &serial)));
    if json {
        let lines: Vec<_> = lines.map(|(key, value)| json!({ "key": key, "value": value })).collect();
        print_json(out, "report", &json!({ "lines": lines }))?;
    } else {
        writeln!(
            out,
            "# Report of wwan-quirks {}. Known identifiers are masked. Read the report before you publish it.",
            env!("CARGO_PKG_VERSION")
        )?;
        for (key, value) in lines {
            writeln!(out, "{key} = {value}")?;
        }
    }
    Ok(exit)
}

type Line = (&'static str, String);

fn lines(root: &Root, device: &Device) -> Result<(Vec<Line>, Exit), Error> {
    let mut lines = vec![("port", device.port.to_string()), ("id", device.id.to_string())];
    let attributes: &[&str] = match device.id.bus {
        Bus::Usb => &["manufacturer", "product", "serial", "bcdDevice", "speed", "authorized", "bConfigurationValue"],
        Bus::Pci => &["class", "revision", "t7xx_mode"],
    };
    for name in attributes {
        // Strings are optional.
        lines.extend(device.attribute(name).ok().map(|value| (*name, value)));
    }
    let (known, errors) = lookup(root, device);
    let exit = errors.iter().map(Error::exit).max().unwrap_or(Exit::Fine);
    lines.extend(errors.iter().map(|error| ("error", error.chain())));
    let qmi_of_quirk = known.as_ref().map(|known| known.quirk.qmi_interfaces.as_slice()).unwrap_or_default();
    lines.extend(match device.id.bus {
        Bus::Usb => of_usb(device, qmi_of_quirk)?,
        Bus::Pci => of_pci(device)?,
    });
    lines.push(("kernel", first_line(root, "/proc/sys/kernel/osrelease")));
    match &known {
        None => lines.push(("quirk", "none".to_owned())),
        Some(known) => {
            let quirk = &known.quirk;
            lines.push(("quirk", format!("{} ({})", quirk.name_of(device.id), quirk.location)));
            let plan = preview(root, device, &Scope::All, Trigger::Named, known, false)?;
            lines.extend(preview_lines(known.complete, &plan).into_iter().map(|line| ("plan", line)));
        }
    }
    for (step, last) in results(root, device).last {
        lines.push(("last", format!("{step}: {}: {}", last.outcome.name(), last.text)));
    }
    if root.is_live() {
        lines.extend(journal().into_iter().map(|line| ("journal", line)));
    }
    Ok((lines, exit))
}

fn of_usb(device: &Device, qmi_of_quirk: &[u8]) -> Result<Vec<Line>, Error> {
    let raw = device.raw_descriptors()?;
    let mut lines = vec![("descriptors", raw.iter().map(|byte| format!("{byte:02x}")).collect())];
    match device.descriptors() {
        Ok(descriptors) => lines.extend(shape(&descriptors, &VendorInterfaces::of(device.id, qmi_of_quirk))),
        Err(error) => lines.push(("error", Error::from(error).chain())),
    }
    for interface in device.interfaces()? {
        let driver = interface.driver.as_deref().unwrap_or("no driver");
        lines.push(("bound", format!("interface {}: {driver} {}", interface.number, interface.nodes.join(" "))));
    }
    Ok(lines)
}

fn of_pci(device: &Device) -> Result<Vec<Line>, Error> {
    let subsystem = device.subsystem().map(|subsystem| ("subsystem", subsystem.to_string()));
    let mut lines: Vec<Line> = subsystem.into_iter().collect();
    lines.push(("driver", device.bound_driver().unwrap_or("no driver".to_owned())));
    let channels = device.mhi_channels();
    if !channels.is_empty() {
        lines.push(("mhi-channels", channels.join(" ")));
    }
    for port in device.control_ports()? {
        lines.push(("wwan-port", format!("{}: {}", port.name, port.wwan_type.unwrap_or_default())));
    }
    Ok(lines)
}

/// The functions and interfaces of each configuration.
fn shape(descriptors: &Descriptors, qmi: &VendorInterfaces) -> Vec<Line> {
    let mut lines = Vec::new();
    for configuration in &descriptors.configurations {
        let functions: Vec<_> = configuration.functions(qmi).into_iter().map(|f| f.name()).collect();
        lines.push(("configuration", format!("{}: {}", configuration.value, functions.join(" "))));
        for interface in &configuration.interfaces {
            let endpoints: Vec<String> = interface.endpoints.iter().map(|e| format!("{:02x}", e.address)).collect();
            let (class, subclass, protocol) = (interface.class, interface.subclass, interface.protocol);
            lines.push((
                "interface",
                format!(
                    "{}.{}: {class:02x}/{subclass:02x}/{protocol:02x}, endpoints {}",
                    interface.number,
                    interface.alternate,
                    endpoints.join(" ")
                ),
            ));
        }
    }
    lines
}

/// The last lines in the journal, about any modem.
fn journal() -> Vec<String> {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--no-hostname", "--output=short-iso", "--lines", LINES, "--identifier"]);
    match command.arg(IDENTIFIER).stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        }
        _ => vec!["not readable".to_owned()],
    }
}

fn first_line(root: &Root, path: &str) -> String {
    let text = std::fs::File::open(root.at(path)).and_then(|file| read_limited(file, 4096)).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").to_owned()
}

/// The value of a line as one line without identifiers. `serial` is escaped.
fn published(key: &str, value: String, serial: &str) -> String {
    match key {
        // They identify a model. Descriptors contain only the numbers of strings.
        "port" | "id" | "descriptors" => value,
        "serial" => "x".repeat(value.trim().chars().count()),
        _ => masked(&printable(&value), serial),
    }
}

/// `text` without the serial number of the device, without long numbers, and without network addresses.
fn masked(text: &str, serial: &str) -> String {
    // A shorter string occurs everywhere: it can be a vendor ID, and identifies no modem.
    let is_long = serial.chars().count() > VENDOR;
    let text = if is_long { text.replace(serial, &"x".repeat(serial.len())) } else { text.to_owned() };
    let mut masked = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (shown, hidden) = match address(rest) {
            Some(address) => (address.start, address.len()),
            None if digits >= DIGITS => (0, digits),
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
            masked(text, "LF53920000010"),
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
            assert_eq!(masked(kept, "1"), kept);
        }
    }

    #[test]
    fn the_name_of_a_network_interface_shows_no_address() {
        for (name, expected) in [
            ("cdc-wdm0 wwx0a1b2c3d4e5f", "cdc-wdm0 wwxxxxxxxxxxxxx"),
            ("enx02005e100000: up", "enxxxxxxxxxxxxx: up"),
            ("wwan0 wwx0a1b2c3d4e5 wwp0s20u1 enxü", "wwan0 wwx0a1b2c3d4e5 wwp0s20u1 enxü"),
        ] {
            assert_eq!(masked(name, ""), expected);
        }
    }

    #[test]
    fn a_serial_number_of_any_form_is_masked() {
        let published = |key, value: &str, serial: &str| published(key, value.to_owned(), &printable(serial));
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
