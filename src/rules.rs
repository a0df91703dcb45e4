//! `rules`: the udev rules for the database as it stands.
//!
//! One event costs nothing that can be measured: whatever is no new device is sent away by the first lines, and what is
//! left is compared by vendor, then by product.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write;

use crate::error::{Error, Exit};
use crate::id::UsbId;
use crate::quirks::{self, Procedure, Quirk, Step};
use crate::root::Root;

const HEAD: &str = r#"# wwan-quirks: printed by `wwan-quirks rules` from the quirks database. Do not edit.

ACTION!="add|change", GOTO="wwan_quirks_end"
# The kernel's own "change" events follow from our own writes; those of `udevadm trigger` carry a UUID.
ACTION=="change", ENV{SYNTH_UUID}!="?*", GOTO="wwan_quirks_end"
SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", GOTO="wwan_quirks_device"
SUBSYSTEM=="usbmisc", KERNEL=="cdc-wdm*", GOTO="wwan_quirks_port"
SUBSYSTEM=="tty", KERNEL=="ttyUSB*|ttyACM*", GOTO="wwan_quirks_tty"
SUBSYSTEM=="scsi", ENV{DEVTYPE}=="scsi_device", GOTO="wwan_quirks_scsi"
GOTO="wwan_quirks_end"
"#;

const RUN: &str = r#"RUN+="/usr/sbin/wwan-quirks hook""#;
/// Products on a line: udev reads lines of up to 16 KiB, people shorter ones.
const PRODUCTS: usize = 16;

/// Prints the rules.
pub fn run(root: &Root, out: &mut impl Write) -> Result<Exit, Error> {
    let (quirks, errors) = quirks::all(root);
    out.write_all(text(&quirks).as_bytes())?;
    match errors.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Fine),
    }
}

/// The rules for `quirks`.
pub fn text(quirks: &[Quirk]) -> String {
    let mut text = HEAD.to_owned();
    for event in Event::ALL {
        section(&mut text, event, &event.products(quirks));
    }
    text.push_str("\nLABEL=\"wwan_quirks_end\"\n");
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
        let by_scsi = quirk.strings.keys().any(|text| text.is_scsi());
        quirk.steps.iter().any(|step| match step {
            Step::Switch(_) | Step::Configuration { .. } => self == if by_scsi { Event::Scsi } else { Event::Device },
            Step::FccAuth(Procedure::Rolling { .. }) => self == Event::Tty,
            Step::FccAuth(_) => self == Event::Port,
        })
    }

    fn products(self, quirks: &[Quirk]) -> Products {
        let mut products = Products::new();
        for quirk in quirks.iter().filter(|quirk| self.concerns(quirk)) {
            for id in &quirk.ids {
                products.entry(id.vendor).or_default().insert(id.product);
            }
        }
        products
    }
}

/// The IDs that rules name.
#[derive(Debug, Default)]
pub struct Ruled(BTreeSet<(Event, UsbId)>);

impl Ruled {
    /// Of the rules that are installed below `root`; none where there are none.
    pub fn installed(root: &Root) -> Option<Ruled> {
        let directories =
            ["/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d"];
        let paths = directories.iter().map(|directory| root.at(directory).join("85-wwan-quirks.rules"));
        let rules = paths.into_iter().find_map(|path| fs::read_to_string(path).ok())?;
        Some(Ruled::read(&rules))
    }

    /// Of rules as [`text`] writes them.
    pub fn read(rules: &str) -> Ruled {
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
        Ruled(ruled)
    }

    /// Whether the events that `quirk` needs for `id` are named.
    pub fn covers(&self, quirk: &Quirk, id: UsbId) -> bool {
        Event::ALL.into_iter().all(|event| !event.concerns(quirk) || self.0.contains(&(event, id)))
    }
}

type Products = BTreeMap<u16, BTreeSet<u16>>;

fn section(text: &mut String, event: Event, products: &Products) {
    // Attributes of the event's own device, or of the USB device above it.
    let (vendor, product) = match event {
        Event::Device => ("ATTR{idVendor}==", "ATTR{idProduct}=="),
        Event::Scsi | Event::Port | Event::Tty => ("SUBSYSTEMS==\"usb\", ATTRS{idVendor}==", "ATTRS{idProduct}=="),
    };
    // Writing to a String does not fail.
    let _ = writeln!(text, "\nLABEL=\"{}\"", event.label());
    for (id, products) in products {
        let products: Vec<String> = products.iter().map(|product| format!("{product:04x}")).collect();
        for line in products.chunks(PRODUCTS) {
            let _ = writeln!(text, "{vendor}\"{id:04x}\", {product}\"{}\", {RUN}", line.join("|"));
        }
    }
    text.push_str("GOTO=\"wwan_quirks_end\"\n");
}
