//! The udev rules for a database, and which IDs installed rules name.
//!
//! The rules cost an unrelated event next to nothing: the first lines send away whatever is not a new device, and the
//! rest compare the vendor, then the product.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::database::quirks::{Procedure, Quirk, Step};
use crate::host::root::Root;
use crate::usb::UsbId;

const HEAD: &str = r#"# wwan-quirks: printed by `wwan-quirks rules` from the quirks database. Do not edit.

ACTION=="remove", GOTO="wwan_quirks_end"
SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", GOTO="wwan_quirks_device"
SUBSYSTEM=="usbmisc", KERNEL=="cdc-wdm*", GOTO="wwan_quirks_port"
SUBSYSTEM=="tty", KERNEL=="ttyUSB*|ttyACM*", GOTO="wwan_quirks_tty"
SUBSYSTEM=="scsi", ENV{DEVTYPE}=="scsi_device", GOTO="wwan_quirks_scsi"
GOTO="wwan_quirks_end"
"#;

/// The links tell usb_modeswitch's unit, which is named after the device or its first interface, what to leave alone.
/// They last for as long as every event but the last one asks for them.
///
/// The hook runs by `IMPORT`, so that its result is a property of the device: `udevadm info` shows it, and the rules
/// start the unit that continues with a slow modem. udev compares all keys of a line before it imports, so that what
/// depends on the result has lines of its own.
const TAIL: &str = r#"
LABEL="wwan_quirks_known"
SYMLINK+="wwan-quirks/%k wwan-quirks/%k:1.0", GOTO="wwan_quirks_end"

LABEL="wwan_quirks_serve"
SYMLINK+="wwan-quirks/%k wwan-quirks/%k:1.0"
LABEL="wwan_quirks_hook"
# Other rules of ours have served this event.
ENV{WWAN_QUIRKS_PORT}=="?*", GOTO="wwan_quirks_end"
# Other events of the kernel than "add" follow from our own writes; those of `udevadm trigger` carry a UUID. They keep the
# last result. One "change" counts: the kernel was not authorized to use the device before, and is now.
ACTION!="add", ENV{SYNTH_UUID}=="", IMPORT{db}="WWAN_QUIRKS"
ACTION!="add", ENV{SYNTH_UUID}=="", ENV{WWAN_QUIRKS}!="not-authorized", GOTO="wwan_quirks_end"
ACTION!="add|change", GOTO="wwan_quirks_end"
IMPORT{program}="PROGRAM hook"
ENV{WWAN_QUIRKS}=="unfinished", ENV{WWAN_QUIRKS_PORT}=="?*", TAG+="systemd", ENV{SYSTEMD_WANTS}+="wwan-quirks@$env{WWAN_QUIRKS_PORT}.service"

LABEL="wwan_quirks_end"
"#;
/// The package's rules, and the administrator's rules for other IDs. The administrator's have a name of their own, because
/// a file in `/etc` hides the package's file of the same name, and with it the IDs of later versions.
pub const FILES: [&str; 2] = ["85-wwan-quirks.rules", "86-wwan-quirks-local.rules"];

/// Products on a line: udev reads lines of up to 16 KiB, people shorter ones.
const PRODUCTS: usize = 16;

/// The rules for `quirks`, which run `program`.
pub fn text(quirks: &[Quirk], program: &Path) -> String {
    let mut text = HEAD.to_owned();
    let device = of_vendors(quirks, |quirk| Event::Device.concerns(quirk));
    let mut known = of_vendors(quirks, |_| true);
    for (vendor, products) in &mut known {
        products.retain(|product| !device.get(vendor).is_some_and(|served| served.contains(product)));
    }
    let own = ("ATTR{idVendor}==", "ATTR{idProduct}==");
    section(&mut text, Event::Device.label(), own, &device, "wwan_quirks_serve", "wwan_quirks_idle");
    section(&mut text, "wwan_quirks_idle", own, &known, "wwan_quirks_known", "wwan_quirks_end");
    // Attributes of the USB device above the event's own.
    let above = ("SUBSYSTEMS==\"usb\", ATTRS{idVendor}==", "ATTRS{idProduct}==");
    for event in [Event::Scsi, Event::Port, Event::Tty] {
        let products = of_vendors(quirks, |quirk| event.concerns(quirk));
        section(&mut text, event.label(), above, &products, "wwan_quirks_hook", "wwan_quirks_end");
    }
    text.push_str(&TAIL.replace("PROGRAM", &program.display().to_string()));
    text
}

/// What the rules wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The USB device.
    Device,
    /// A SCSI device on it.
    Scsi,
    /// A control port of it.
    Port,
    /// A tty of it.
    Tty,
}

impl Event {
    const ALL: [Event; 4] = [Event::Device, Event::Scsi, Event::Port, Event::Tty];

    fn label(self) -> &'static str {
        match self {
            Event::Device => "wwan_quirks_device",
            Event::Scsi => "wwan_quirks_scsi",
            Event::Port => "wwan_quirks_port",
            Event::Tty => "wwan_quirks_tty",
        }
    }

    /// Whether `quirk` has something to do then.
    fn concerns(self, quirk: &Quirk) -> bool {
        let by_scsi = quirk.matchers.keys().any(|text| text.is_scsi());
        quirk.steps.iter().any(|step| match step {
            Step::Switch(_) | Step::Configuration { .. } => self == if by_scsi { Event::Scsi } else { Event::Device },
            Step::FccAuth(Procedure::Rolling { .. }) => self == Event::Tty,
            Step::FccAuth(_) => self == Event::Port,
        })
    }
}

/// The IDs that rules name.
#[derive(Debug, Default)]
pub struct RuledIds(BTreeSet<(Event, UsbId)>);

impl RuledIds {
    /// Of the rules that are installed below `root`; none where there are none.
    pub fn installed(root: &Root) -> Option<RuledIds> {
        let directories =
            ["/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d"];
        let read = |name| directories.iter().find_map(|path| fs::read_to_string(root.at(path).join(name)).ok());
        let rules: Vec<String> = FILES.into_iter().filter_map(read).collect();
        (!rules.is_empty()).then(|| RuledIds::read(&rules.concat()))
    }

    /// Of rules as [`text`] writes them.
    pub fn read(rules: &str) -> RuledIds {
        let mut ruled = BTreeSet::new();
        let mut event = None;
        for line in rules.lines() {
            let value = |key: &str| line.split_once(key)?.1.split_once("==\"")?.1.split('"').next();
            if let Some(label) = line.strip_prefix("LABEL=\"") {
                event = Event::ALL.into_iter().find(|event| label.trim_end_matches('"') == event.label());
            }
            let (Some(event), Some(vendor), Some(products)) = (event, value("{idVendor}"), value("{idProduct}")) else {
                continue;
            };
            let ids = products.split('|').filter_map(|product| format!("{vendor}:{product}").parse().ok());
            ruled.extend(ids.map(|id| (event, id)));
        }
        RuledIds(ruled)
    }

    /// Whether the events that `quirk` needs for `id` are named.
    pub fn covers(&self, quirk: &Quirk, id: UsbId) -> bool {
        Event::ALL.into_iter().all(|event| !event.concerns(quirk) || self.0.contains(&(event, id)))
    }
}

type Products = BTreeMap<u16, BTreeSet<u16>>;

/// The IDs of the quirks that are `wanted`.
fn of_vendors(quirks: &[Quirk], wanted: impl Fn(&Quirk) -> bool) -> Products {
    let mut products = Products::new();
    for id in quirks.iter().filter(|quirk| wanted(quirk)).flat_map(Quirk::ids) {
        products.entry(id.vendor).or_default().insert(id.product);
    }
    products
}

/// From `label` on, devices whose `keys` are those of `products` go `to`, and all others `on`.
fn section(text: &mut String, label: &str, keys: (&str, &str), products: &Products, to: &str, on: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "\nLABEL=\"{label}\"");
    if keys.0.starts_with("ATTR{") {
        // Only events of this subsystem come here; lintian checks that the section names it.
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
