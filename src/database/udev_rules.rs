//! The udev rules for a database, and the IDs that installed rules name.
//!
//! The rules cost an unrelated event next to nothing: the first lines skip removals and other subsystems, and the other
//! lines compare the vendor, then the product. For a PCI modem, the rules match only the events of its WWAN ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use crate::bus::{Bus, DeviceId};
use crate::database::quirks::{DeviceString, Quirk, Step};
use crate::host::root::Root;
use crate::modem::transport::Protocol;
use crate::pci::Subsystem;

const HEAD: &str = r#"# wwan-quirks: printed by `wwan-quirks rules` from the quirks database. Do not edit.

ACTION=="remove", GOTO="wwan_quirks_end"
SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", GOTO="wwan_quirks_device"
SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_interface", ACTION=="add", GOTO="wwan_quirks_interface"
SUBSYSTEM=="usbmisc", KERNEL=="cdc-wdm*", GOTO="wwan_quirks_port"
SUBSYSTEM=="tty", KERNEL=="ttyUSB*|ttyACM*", GOTO="wwan_quirks_tty"
SUBSYSTEM=="scsi", ENV{DEVTYPE}=="scsi_device", GOTO="wwan_quirks_scsi"
# Some kernels show a port of a USB modem twice. Its other node is cdc-wdm.
SUBSYSTEM=="wwan", SUBSYSTEMS=="usb", GOTO="wwan_quirks_end"
SUBSYSTEM=="wwan", ATTR{type}=="AT", GOTO="wwan_quirks_wwan_at"
SUBSYSTEM=="wwan", ATTR{type}=="MBIM", GOTO="wwan_quirks_wwan_mbim"
SUBSYSTEM=="wwan", ATTR{type}=="XMMRPC", GOTO="wwan_quirks_wwan_xmmrpc"
GOTO="wwan_quirks_end"
"#;

/// The links mark the devices that usb_modeswitch's unit must leave alone. The unit is named after the device or its
/// first interface. udev deletes a link if a later event of the device does not request it again.
///
/// `IMPORT` runs the hook, so that its result is a property of the device: `udevadm info` shows it, and the rules start
/// the unit that continues with a slow modem. udev evaluates all match keys of a line before it imports, so the keys
/// that depend on the result are on separate lines. udev imports nothing from a program that fails.
///
/// After a device is authorized, the kernel sends a `change` event only if the configuration supports remote wake-up. New
/// interfaces have events in any case. They request a `change` event, whose UUID marks it: after the first event of a
/// device, the others find that its result is no longer `not-authorized`.
const TAIL: &str = r#"
LABEL="wwan_quirks_interface"
IMPORT{parent}="WWAN_QUIRKS"
SUBSYSTEM=="usb", ENV{WWAN_QUIRKS}=="not-authorized", ATTR{../uevent}="change AUTHORIZED"
ENV{WWAN_QUIRKS}="", GOTO="wwan_quirks_end"

LABEL="wwan_quirks_known"
SYMLINK+="wwan-quirks/%k wwan-quirks/%k:1.0", GOTO="wwan_quirks_end"

LABEL="wwan_quirks_serve"
SYMLINK+="wwan-quirks/%k wwan-quirks/%k:1.0"
LABEL="wwan_quirks_hook"
# Another rules file of wwan-quirks has handled this event.
ENV{.WWAN_QUIRKS}=="?*", GOTO="wwan_quirks_end"
ENV{.WWAN_QUIRKS}="handled"
ACTION=="add", GOTO="wwan_quirks_run"
# A request by `udevadm trigger` carries a UUID.
ACTION=="change", ENV{SYNTH_UUID}=="?*", ENV{SYNTH_UUID}!="AUTHORIZED", GOTO="wwan_quirks_run"
# All other events follow from our own writes, and keep the last result. One "change" counts: the kernel was not authorized
# to use the device before, and is now.
IMPORT{db}="WWAN_QUIRKS"
SUBSYSTEM=="usb", ATTR{authorized}=="0", ENV{WWAN_QUIRKS}="not-authorized", GOTO="wwan_quirks_end"
ACTION!="change", GOTO="wwan_quirks_end"
ENV{WWAN_QUIRKS}!="not-authorized", GOTO="wwan_quirks_end"
LABEL="wwan_quirks_run"
IMPORT{program}="PROGRAM hook", ENV{.WWAN_QUIRKS}="imported"
ENV{.WWAN_QUIRKS}!="imported", ENV{WWAN_QUIRKS}="failed"
ENV{WWAN_QUIRKS}=="unfinished", ENV{WWAN_QUIRKS_PORT}=="?*", TAG+="systemd", ENV{SYSTEMD_WANTS}+="wwan-quirks@$env{WWAN_QUIRKS_PORT}.service"

LABEL="wwan_quirks_end"
"#;
/// The UUID of the events that the rules request for a device after it is authorized.
const AUTHORIZED: &str = "6d42db22-e18e-48f7-8020-810db32cc113";
/// The package's rules, and the administrator's rules for other IDs. The administrator's file has a name of its own,
/// because a file in `/etc` hides the package's file of the same name, and with it the IDs of later versions.
pub(crate) const FILES: [&str; 2] = ["85-wwan-quirks.rules", "86-wwan-quirks-local.rules"];

/// Where udev looks for rules.
pub(crate) const DIRECTORIES: [&str; 5] = [
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
];
/// Bytes. Rules files are shorter.
const LIMIT: usize = 16 << 20;

/// Products per line. udev accepts lines of up to 16 KiB, but shorter lines are easier to read.
const PRODUCTS: usize = 16;

/// The rules for `quirks`, which run `program`.
pub(crate) fn text(quirks: &[Quirk], program: &Path) -> String {
    let mut text = HEAD.to_owned();
    let device = of_vendors(quirks, |quirk| Event::Device.concerns(quirk));
    let mut known = of_vendors(quirks, |_| true);
    for (vendor, products) in &mut known {
        products.retain(|product| !device.get(vendor).is_some_and(|served| served.contains(product)));
    }
    let own = ("ATTR{idVendor}==", "ATTR{idProduct}==");
    // Attributes of the USB device above the device of the event.
    let above = ("SUBSYSTEMS==\"usb\", ATTRS{idVendor}==", "ATTRS{idProduct}==");
    for event in Event::ALL {
        match event {
            Event::Device => {
                section(&mut text, &event.label(), own, &device, "wwan_quirks_serve", "wwan_quirks_idle");
                section(&mut text, "wwan_quirks_idle", own, &known, "wwan_quirks_known", "wwan_quirks_end");
            }
            Event::Scsi | Event::Port | Event::Tty => {
                let products = of_vendors(quirks, |quirk| event.concerns(quirk));
                section(&mut text, &event.label(), above, &products, "wwan_quirks_hook", "wwan_quirks_end");
            }
            Event::Wwan(_) => wwan_section(&mut text, event, quirks),
        }
    }
    text.push_str(&TAIL.replace("AUTHORIZED", AUTHORIZED).replace("PROGRAM", &program.display().to_string()));
    text
}

/// The events that the rules handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The USB device.
    Device,
    /// A SCSI device on the USB device.
    Scsi,
    /// A control port of the USB device.
    Port,
    /// A tty of the USB device.
    Tty,
    /// A WWAN port of a PCI device.
    Wwan(Protocol),
}

impl Event {
    /// In the order of their sections. Procedures use WWAN ports with these three protocols.
    const ALL: [Event; 7] = [
        Event::Device,
        Event::Scsi,
        Event::Port,
        Event::Tty,
        Event::Wwan(Protocol::At),
        Event::Wwan(Protocol::Mbim),
        Event::Wwan(Protocol::XmmRpc),
    ];

    fn label(self) -> String {
        let name = match self {
            Event::Device => "device",
            Event::Scsi => "scsi",
            Event::Port => "port",
            Event::Tty => "tty",
            Event::Wwan(protocol) => return format!("wwan_quirks_wwan_{}", protocol.wwan_type().to_lowercase()),
        };
        format!("wwan_quirks_{name}")
    }

    /// Whether `quirk` has something to do at this event.
    fn concerns(self, quirk: &Quirk) -> bool {
        let by_scsi = quirk.matchers.keys().any(|text| text.is_scsi());
        if let Event::Wwan(protocol) = self {
            let is_pci = quirk.is_pci();
            return is_pci && quirk.procedures().any(|procedure| procedure.wwan_protocol() == Some(protocol));
        }
        if quirk.is_pci() {
            return false;
        }
        quirk.steps.iter().any(|step| match step {
            Step::Switch(_) | Step::Configuration { .. } => self == if by_scsi { Event::Scsi } else { Event::Device },
            Step::FccAuth(procedure) => {
                self == if procedure.protocols().contains(&Protocol::At) { Event::Tty } else { Event::Port }
            }
        })
    }
}

/// The IDs that rules name, with the subsystem if the rule names one.
#[derive(Debug, Default)]
pub(crate) struct RuledIds(BTreeSet<(Event, DeviceId, Option<Subsystem>)>);

impl RuledIds {
    /// Reads the rules that are installed below `root`. `None` if the package's rules are missing or masked: `doctor`
    /// reports that.
    pub(crate) fn installed(root: &Root) -> Option<RuledIds> {
        let read = |name: &str| String::from_utf8(root.read(&root.layered(&DIRECTORIES, name)?, LIMIT).ok()?).ok();
        let [package, own] = FILES.map(|name| read(name).unwrap_or_default());
        (!package.is_empty()).then(|| RuledIds::read(&(package + &own)))
    }

    /// Reads rules in the form that [`text`] writes.
    pub(crate) fn read(rules: &str) -> RuledIds {
        let mut ruled = BTreeSet::new();
        let mut event = None;
        for line in rules.lines() {
            let value = |key: &str| line.split_once(key)?.1.split_once("==\"")?.1.split('"').next();
            if let Some(label) = line.strip_prefix("LABEL=\"") {
                event = Event::ALL.into_iter().find(|event| label.trim_end_matches('"') == event.label());
            }
            let Some(event) = event else { continue };
            let (prefix, vendor, products) = match event {
                Event::Wwan(_) => ("pci:", value("{vendor}"), value("{device}")),
                _ => ("", value("{idVendor}"), value("{idProduct}")),
            };
            let (Some(vendor), Some(products)) = (vendor, products) else { continue };
            let without_0x = |number: &str| number.trim_start_matches("0x").to_owned();
            let subsystem = value("{subsystem_vendor}").and_then(|vendor| {
                let device = value("{subsystem_device}").map_or("*".to_owned(), without_0x);
                format!("{}:{device}", without_0x(vendor)).parse().ok()
            });
            let ids =
                products.split('|').map(|product| format!("{prefix}{}:{}", without_0x(vendor), without_0x(product)));
            ruled.extend(ids.filter_map(|id| Some((event, id.parse().ok()?, subsystem))));
        }
        RuledIds(ruled)
    }

    /// Whether the rules name `id`.
    pub(crate) fn has(&self, id: DeviceId) -> bool {
        self.0.iter().any(|(_, ruled, _)| *ruled == id)
    }

    /// Whether the rules name all events that `quirk` needs for `id`.
    pub(crate) fn covers(&self, quirk: &Quirk, id: DeviceId) -> bool {
        let subsystem = subsystem_of(quirk);
        let is_ruled = |event| {
            let named = |subsystem| self.0.contains(&(event, id, subsystem));
            // A rule for all cards of a vendor, or for all cards, also serves this card.
            named(subsystem) || named(subsystem.map(|subsystem| Subsystem { device: None, ..subsystem })) || named(None)
        };
        Event::ALL.into_iter().all(|event| !event.concerns(quirk) || is_ruled(event))
    }
}

type Products = BTreeMap<u16, BTreeSet<u16>>;

/// The IDs of the quirks for which `wanted` returns true.
fn of_vendors(quirks: &[Quirk], wanted: impl Fn(&Quirk) -> bool) -> Products {
    let mut products = Products::new();
    let ids = quirks.iter().filter(|quirk| wanted(quirk)).flat_map(Quirk::ids);
    for id in ids.filter(|id| id.bus == Bus::Usb) {
        products.entry(id.vendor).or_default().insert(id.product);
    }
    products
}

/// Writes the section `label`. Devices whose `keys` match `products` jump to the label `to`, and all others to `on`.
fn section(text: &mut String, label: &str, keys: (&str, &str), products: &Products, to: &str, on: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "\nLABEL=\"{label}\"");
    if keys.0.starts_with("ATTR{") {
        // Only events of this subsystem reach this section, but lintian requires the section to name the subsystem.
        let _ = writeln!(text, "SUBSYSTEM!=\"usb\", GOTO=\"{on}\"");
    }
    for (vendor, products) in products {
        let products: Vec<String> = products.iter().map(|product| format!("{product:04x}")).collect();
        for line in products.chunks(PRODUCTS) {
            let _ = writeln!(text, "{}\"{vendor:04x}\", {}\"{}\", GOTO=\"{to}\"", keys.0, keys.1, line.join("|"));
        }
    }
    let _ = writeln!(text, "GOTO=\"{on}\"");
}

fn subsystem_of(quirk: &Quirk) -> Option<Subsystem> {
    quirk.matchers.get(&DeviceString::Subsystem)?.parse().ok()
}

/// Writes the section of `event`. WWAN ports of the PCI devices in `quirks` jump to the hook. udev compares all `ATTRS`
/// of a line with one parent.
fn wwan_section(text: &mut String, event: Event, quirks: &[Quirk]) {
    let mut products: BTreeMap<(u16, Option<Subsystem>), BTreeSet<u16>> = BTreeMap::new();
    for quirk in quirks.iter().filter(|quirk| event.concerns(quirk)) {
        for id in quirk.ids() {
            products.entry((id.vendor, subsystem_of(quirk))).or_default().insert(id.product);
        }
    }
    // Writing to a String does not fail.
    let _ = writeln!(text, "\nLABEL=\"{}\"", event.label());
    for ((vendor, subsystem), products) in &products {
        let products: Vec<String> = products.iter().map(|product| format!("0x{product:04x}")).collect();
        let subsystem = subsystem.map_or(String::new(), |Subsystem { vendor, device }| {
            let device =
                device.map_or(String::new(), |device| format!("ATTRS{{subsystem_device}}==\"0x{device:04x}\", "));
            format!("ATTRS{{subsystem_vendor}}==\"0x{vendor:04x}\", {device}")
        });
        for line in products.chunks(PRODUCTS) {
            let _ = writeln!(
                text,
                "SUBSYSTEMS==\"pci\", ATTRS{{vendor}}==\"0x{vendor:04x}\", ATTRS{{device}}==\"{}\", {subsystem}GOTO=\"wwan_quirks_hook\"",
                line.join("|")
            );
        }
    }
    let _ = writeln!(text, "GOTO=\"wwan_quirks_end\"");
}
