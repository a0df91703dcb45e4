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
use crate::quirks::{self, Quirk, Step};
use crate::root::Root;

const HEAD: &str = r#"# wwan-quirks: printed by `wwan-quirks rules` from the quirks database. Do not edit.

ACTION!="add|change", GOTO="wwan_quirks_end"
# The kernel's own "change" events follow from our own writes; those of `udevadm trigger` carry a UUID.
ACTION=="change", ENV{SYNTH_UUID}!="?*", GOTO="wwan_quirks_end"
SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", GOTO="wwan_quirks_device"
SUBSYSTEM=="usbmisc", KERNEL=="cdc-wdm*", GOTO="wwan_quirks_port"
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
    let device = group(quirks, for_device);
    let port = group(quirks, for_port);
    let mut text = HEAD.to_owned();
    section(&mut text, "device", r#"ATTR{idVendor}=="#, r#"ATTR{idProduct}=="#, &device);
    section(&mut text, "port", r#"SUBSYSTEMS=="usb", ATTRS{idVendor}=="#, r#"ATTRS{idProduct}=="#, &port);
    text.push_str("\nLABEL=\"wwan_quirks_end\"\n");
    text
}

/// Whether a step is done when the device itself appears.
fn for_device(step: &Step) -> bool {
    matches!(step, Step::Switch(_) | Step::Configuration { .. })
}

/// Whether a step is done when a control port of the device appears.
fn for_port(step: &Step) -> bool {
    matches!(step, Step::FccAuth(_))
}

/// The IDs that rules name.
#[derive(Debug, Default)]
pub struct Ruled {
    device: BTreeSet<UsbId>,
    port: BTreeSet<UsbId>,
}

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
        let mut ruled = Ruled::default();
        for line in rules.lines() {
            let value = |key: &str| line.split_once(&format!("{key}==\""))?.1.split('"').next();
            let of_port = line.contains("ATTRS{idVendor}");
            let (vendor, products) =
                if of_port { ("ATTRS{idVendor}", "ATTRS{idProduct}") } else { ("ATTR{idVendor}", "ATTR{idProduct}") };
            let (Some(vendor), Some(products)) = (value(vendor), value(products)) else { continue };
            let ids = products.split('|').filter_map(|product| format!("{vendor}:{product}").parse::<UsbId>().ok());
            if of_port { ruled.port.extend(ids) } else { ruled.device.extend(ids) }
        }
        ruled
    }

    /// Whether the events that `quirk` needs for `id` are named.
    pub fn covers(&self, quirk: &Quirk, id: UsbId) -> bool {
        (self.device.contains(&id) || !quirk.steps.iter().any(for_device))
            && (self.port.contains(&id) || !quirk.steps.iter().any(for_port))
    }
}

type Products = BTreeMap<u16, BTreeSet<u16>>;

fn group(quirks: &[Quirk], concerned: impl Fn(&Step) -> bool) -> Products {
    let mut products = Products::new();
    for quirk in quirks.iter().filter(|quirk| quirk.steps.iter().any(&concerned)) {
        for id in &quirk.ids {
            products.entry(id.vendor).or_default().insert(id.product);
        }
    }
    products
}

fn section(text: &mut String, label: &str, vendor: &str, product: &str, products: &Products) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "\nLABEL=\"wwan_quirks_{label}\"");
    for (id, products) in products {
        let products: Vec<String> = products.iter().map(|product| format!("{product:04x}")).collect();
        for line in products.chunks(PRODUCTS) {
            let _ = writeln!(text, "{vendor}\"{id:04x}\", {product}\"{}\", {RUN}", line.join("|"));
        }
    }
    text.push_str("GOTO=\"wwan_quirks_end\"\n");
}
