//! Evaluates the shipped udev rules for a simulated device of every ID in the database.

mod fake;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use fake::Root;
use wwan_quirks::bus::{Bus, DeviceId};
use wwan_quirks::database::quirks::{self, DeviceString, Procedure, Quirk, Step};
use wwan_quirks::modem::transport::Protocol;
use wwan_quirks::pci::Subsystem;

const RULES: &str = include_str!("../udev-rules/85-wwan-quirks.rules");
/// An ID that no entry has.
const UNKNOWN: &str = "1d1d:0001";

/// An event, by the keys that rules match: `ACTION`, `SUBSYSTEM`, `ATTR{idVendor}`. `ATTRS` and `SUBSYSTEMS` are
/// those of the devices above.
type Event = BTreeMap<&'static str, String>;

/// A key, an operator and a value.
type Operation = (&'static str, &'static str, &'static str);

/// Whether the rules run the program for `event`, as udev evaluates them: lines in their order, all matches of a line
/// must hold, alternatives are separated by `|`.
fn runs_hook(event: &Event) -> bool {
    static LINES: LazyLock<Vec<Vec<Operation>>> = LazyLock::new(|| {
        let lines = RULES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| line.split(", ").map(operation).collect()).collect()
    });
    let mut at = 0;
    while let Some(line) = LINES.get(at) {
        at += 1;
        let mut goto = None;
        let mut runs = false;
        let mut holds = true;
        for (key, operator, value) in line {
            match (*key, *operator) {
                ("LABEL" | "SYMLINK" | "TAG" | "ENV{SYSTEMD_WANTS}", _) => {}
                ("GOTO", "=") => goto = Some(*value),
                ("IMPORT{program}", "=") => runs = true,
                ("IMPORT{db}", "=") => holds = false,
                (key, "==") => holds &= matches(event.get(key).map_or("", String::as_str), value),
                (key, "!=") => holds &= !matches(event.get(key).map_or("", String::as_str), value),
                _ => panic!("{line:?}: this test does not know {key}"),
            }
        }
        if holds && runs {
            return true;
        }
        if let Some(label) = goto.filter(|_| holds) {
            let wanted = ("LABEL", "=", label);
            at = LINES.iter().position(|line| *line == [wanted]).unwrap_or_else(|| panic!("no {wanted:?}"));
        }
    }
    false
}

/// `KEY=="VALUE"` in its three parts.
fn operation(part: &str) -> (&str, &str, &str) {
    let (left, value) = part.split_once('"').unwrap_or_else(|| panic!("{part}"));
    let key = left.trim_end_matches(['=', '!', '+']);
    (key, &left[key.len()..], value.trim_end_matches('"'))
}

fn matches(text: &str, patterns: &str) -> bool {
    patterns.split('|').any(|pattern| match pattern.split_once('*') {
        Some(("?", "")) => !text.is_empty(),
        Some((before, after)) => text.starts_with(before) && text.ends_with(after),
        None => pattern == text,
    })
}

fn event(keys: &[(&'static str, &str)]) -> Event {
    keys.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
}

/// The events of a device that is plugged in: the device, a SCSI device, a control port and a tty of it.
fn events(id: DeviceId) -> [(&'static str, Event); 4] {
    let (vendor, product) = (format!("{:04x}", id.vendor), format!("{:04x}", id.product));
    let above =
        [("ACTION", "add"), ("SUBSYSTEMS", "usb"), ("ATTRS{idVendor}", &vendor), ("ATTRS{idProduct}", &product)];
    let below = |more: &[(&'static str, &str)]| event(&[&above[..], more].concat());
    let device = [
        ("ACTION", "add"),
        ("SUBSYSTEM", "usb"),
        ("ENV{DEVTYPE}", "usb_device"),
        ("ATTR{idVendor}", &vendor),
        ("ATTR{idProduct}", &product),
    ];
    [
        ("device", event(&device)),
        ("scsi", below(&[("SUBSYSTEM", "scsi"), ("ENV{DEVTYPE}", "scsi_device")])),
        ("port", below(&[("SUBSYSTEM", "usbmisc"), ("KERNEL", "cdc-wdm0")])),
        ("tty", below(&[("SUBSYSTEM", "tty"), ("KERNEL", "ttyUSB0")])),
    ]
}

/// The events at which the program has something to do for `quirk`.
fn wanted(quirk: &Quirk) -> Vec<&'static str> {
    let scsi = quirk.matchers.keys().any(|string| string.is_scsi());
    let events = quirk.steps.iter().map(|step| match step {
        Step::Switch(_) | Step::Configuration { .. } if scsi => "scsi",
        Step::Switch(_) | Step::Configuration { .. } => "device",
        Step::FccAuth(procedure) if procedure.protocols().contains(&Protocol::At) => "tty",
        Step::FccAuth(_) => "port",
    });
    events.collect()
}

fn shipped() -> Vec<Quirk> {
    let root = Root::new();
    let (quirks, errors) = quirks::all(&wwan_quirks::host::root::Root::new(&root.0));
    assert!(errors.is_empty(), "{errors:?}");
    quirks
}

#[test]
fn the_rules_run_the_program_for_every_device_of_the_database_and_for_no_other() {
    let quirks = shipped();
    let mut wanted_of: BTreeMap<DeviceId, Vec<&str>> = BTreeMap::new();
    for quirk in &quirks {
        for id in quirk.ids().filter(|id| id.bus == Bus::Usb) {
            wanted_of.entry(id).or_default().extend(wanted(quirk));
        }
    }
    assert!(wanted_of.len() > 600);
    wanted_of.insert(UNKNOWN.parse().unwrap(), Vec::new());
    for (id, wanted) in &wanted_of {
        for (name, event) in events(*id) {
            assert_eq!(runs_hook(&event), wanted.contains(&name), "{id} {name}");
            // Nothing runs when the device leaves, or for the kernel's own changes.
            for action in ["remove", "change", "bind"] {
                let other = Event::from_iter(event.clone().into_iter().chain([("ACTION", action.to_owned())]));
                assert!(!runs_hook(&other), "{id} {name} {action}");
            }
            let requested = [("ACTION", "change".to_owned()), ("ENV{SYNTH_UUID}", "1-2-3".to_owned())];
            let requested = Event::from_iter(event.into_iter().chain(requested));
            assert_eq!(runs_hook(&requested), wanted.contains(&name), "{id} {name}, requested");
        }
    }
}

/// The event of a WWAN port of this type, below a PCI device.
fn wwan_event(id: DeviceId, subsystem: Subsystem, port: &'static str) -> Event {
    event(&[
        ("ACTION", "add"),
        ("SUBSYSTEM", "wwan"),
        ("KERNEL", "wwan0port0"),
        ("ATTR{type}", port),
        ("SUBSYSTEMS", "pci"),
        ("ATTRS{vendor}", &format!("0x{:04x}", id.vendor)),
        ("ATTRS{device}", &format!("0x{:04x}", id.product)),
        ("ATTRS{subsystem_vendor}", &format!("0x{:04x}", subsystem.vendor)),
        ("ATTRS{subsystem_device}", &format!("0x{:04x}", subsystem.device.unwrap_or(1))),
    ])
}

#[test]
fn the_rules_run_the_program_for_the_right_port_of_every_pci_modem() {
    const PORTS: [&str; 6] = ["MBIM", "AT", "XMMRPC", "QMI", "QCDM", "FIREHOSE"];
    let quirks = shipped();
    let subsystem = |quirk: &Quirk| Some(quirk.matchers.get(&DeviceString::Subsystem)?.parse::<Subsystem>().unwrap());
    // The types of the ports that the entries of a card need.
    let wanted = |id: DeviceId, card: Subsystem| {
        let applies = |quirk: &&Quirk| subsystem(quirk).is_none_or(|subsystem| subsystem.includes(card));
        let applying = quirks.iter().filter(|quirk| quirk.model(id).is_some()).filter(applies);
        let protocols = applying.flat_map(Quirk::procedures).filter_map(Procedure::wwan_protocol);
        protocols.map(Protocol::wwan_type).collect::<Vec<_>>()
    };
    let another: Subsystem = "1d1d:0001".parse().unwrap();
    let cards = |quirk: &Quirk| {
        [subsystem(quirk).map(|own| Subsystem { device: own.device.or(Some(1)), ..own }), Some(another)]
    };
    let mut seen = 0;
    for quirk in quirks.iter().filter(|quirk| quirk.is_pci()) {
        for id in quirk.ids() {
            for card in cards(quirk).into_iter().flatten() {
                let wanted = wanted(id, card);
                for port in PORTS {
                    let event = wwan_event(id, card, port);
                    assert_eq!(runs_hook(&event), wanted.contains(&port), "{id}, subsystem {card}, {port}");
                    let below_usb = Event::from_iter(event.into_iter().chain([("SUBSYSTEMS", "usb".to_owned())]));
                    assert!(!runs_hook(&below_usb), "{id} {port}");
                }
                seen += wanted.len();
            }
        }
    }
    assert!(seen >= 25, "{seen} ports");
    assert!(PORTS.iter().all(|port| !runs_hook(&wwan_event("pci:1d1d:0001".parse().unwrap(), another, port))));
}

/// The wwan ports that other device managers pass on.
#[test]
fn mdev_and_procd_run_the_program_for_every_port_that_the_rules_name() {
    let mdev = include_str!("../packaging/mdev/mdev.conf");
    let pattern = mdev.split_once(";wwan[0-9]+(").and_then(|(_, rest)| rest.split_once(")[0-9]+")).unwrap().0;
    let of_mdev: BTreeSet<&str> = pattern.split('|').collect();
    let of_rules = RULES.lines().filter_map(|line| line.split_once("ATTR{type}==\"")?.1.split('"').next());
    let of_rules: BTreeSet<String> = of_rules.map(str::to_lowercase).collect();
    assert!(of_mdev.into_iter().eq(of_rules.iter()), "{pattern}: {of_rules:?}");
    // procd's script passes on all WWAN ports.
    assert!(include_str!("../packaging/openwrt/wwan-quirks.hotplug").contains("add:wwan:wwan_port:*"));
}
