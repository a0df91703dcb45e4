//! Evaluates the shipped udev rules for a simulated device of every ID in the database.

mod fake;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use fake::Root;
use wwan_quirks::bus::{Bus, DeviceId};
use wwan_quirks::database::load;
use wwan_quirks::database::quirks::{DeviceString, Procedure, Quirk, Step};
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

/// What the rules import.
#[derive(Default)]
struct Imports<'a> {
    /// `WWAN_QUIRKS` of the earlier event of this device.
    db: &'a str,
    /// `WWAN_QUIRKS` of the device above.
    parent: &'a str,
    /// The properties that the program prints. `None` if it fails.
    printed: Option<&'a [(&'static str, &'a str)]>,
}

/// Evaluates the rules for `event` as udev does: lines in their order, all matches of a line must hold, alternatives are
/// separated by `|`. Adds what the rules set to `event`. Returns how often they run the program.
fn evaluate(event: &mut Event, imports: &Imports) -> usize {
    static LINES: LazyLock<Vec<Vec<Operation>>> = LazyLock::new(|| {
        let lines = RULES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| line.split(", ").map(operation).collect()).collect()
    });
    let (mut at, mut runs) = (0, 0);
    while let Some(line) = LINES.get(at) {
        at += 1;
        let imported = |value: &str| (!value.is_empty()).then(|| vec![("ENV{WWAN_QUIRKS}", value.to_owned())]);
        let (mut goto, mut set) = (None, Vec::new());
        let holds = line.iter().all(|(key, operator, value)| {
            let import = match (*key, *operator) {
                ("LABEL" | "SYMLINK" | "TAG", _) => return true,
                ("GOTO", "=") => {
                    goto = Some(*value);
                    return true;
                }
                ("IMPORT{program}", "=") => {
                    runs += 1;
                    imports.printed.map(|all| all.iter().map(|(key, value)| (*key, (*value).to_owned())).collect())
                }
                ("IMPORT{db}", "=") => imported(imports.db),
                ("IMPORT{parent}", "=") => imported(imports.parent),
                (key, "==") => return matches(event.get(key).map_or("", String::as_str), value),
                (key, "!=") => return !matches(event.get(key).map_or("", String::as_str), value),
                (key, "=" | "+=") if key.starts_with("ENV{") || key.starts_with("ATTR{") => {
                    Some(vec![(key, (*value).to_owned())])
                }
                (key, _) => panic!("{line:?}: this test does not know {key}"),
            };
            let holds = import.is_some();
            set.extend(import.into_iter().flatten());
            holds
        });
        if !holds {
            continue;
        }
        event.extend(set);
        if let Some(label) = goto {
            let wanted = ("LABEL", "=", label);
            at = LINES.iter().position(|line| *line == [wanted]).unwrap_or_else(|| panic!("no {wanted:?}"));
        }
    }
    runs
}

/// Whether the rules run the program for an event of a device without earlier events.
fn runs_hook(event: &Event) -> bool {
    evaluate(&mut event.clone(), &Imports { printed: Some(&[]), ..Imports::default() }) > 0
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
    let (quirks, errors) = load::all(&wwan_quirks::host::root::Root::new(&root.0));
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

const RESULT: &str = "ENV{WWAN_QUIRKS}";
const ID: &str = "1199:68a2";

/// Evaluates the event `action` of a device that the kernel may use or not, after an event with the result `before`. The
/// program prints `printed`, or fails. Returns the result of this event, and how often the program ran.
fn device_event(action: &str, uuid: &str, authorized: bool, before: &str, printed: Option<&str>) -> (String, usize) {
    let [(_, mut event), ..] = events(ID.parse().unwrap());
    event.insert("ACTION", action.to_owned());
    event.insert("ENV{SYNTH_UUID}", uuid.to_owned());
    event.insert("ATTR{authorized}", u8::from(authorized).to_string());
    let printed = printed.map(|result| [(RESULT, result), ("ENV{WWAN_QUIRKS_PORT}", "1-1")]);
    let imports = Imports { db: before, parent: "", printed: printed.as_ref().map(|all| &all[..]) };
    let runs = evaluate(&mut event, &imports);
    // The administrator's rules may have the same lines, in another file.
    assert_eq!(evaluate(&mut event, &imports), 0, "a second file runs the program again");
    (event.get(RESULT).cloned().unwrap_or_default(), runs)
}

/// The event that the rules request when an interface is new, for a device with this result.
fn requested_by_interface(parent: &str) -> Option<String> {
    let keys = [("ACTION", "add"), ("SUBSYSTEM", "usb"), ("ENV{DEVTYPE}", "usb_interface")];
    let mut interface = event(&keys);
    assert_eq!(evaluate(&mut interface, &Imports { parent, ..Imports::default() }), 0);
    assert_eq!(interface.get(RESULT).map_or("", String::as_str), "", "the result is that of the device");
    interface.remove("ATTR{../uevent}")
}

#[test]
fn a_device_that_is_authorized_later_is_served_once() {
    let blocked = ("not-authorized".to_owned(), 1);
    assert_eq!(device_event("add", "", false, "", Some("not-authorized")), blocked);
    assert_eq!(device_event("bind", "", false, "not-authorized", Some("done")), (blocked.0, 0));

    // Without remote wake-up, only the interfaces have events.
    let requested = requested_by_interface("not-authorized").unwrap();
    let uuid = requested.strip_prefix("change ").unwrap();
    for uuid in ["", uuid] {
        assert_eq!(device_event("change", uuid, true, "not-authorized", Some("done")), ("done".to_owned(), 1));
        // The other interfaces request an event, too.
        assert_eq!(device_event("change", uuid, true, "done", Some("done")), ("done".to_owned(), 0));
    }
    for result in ["", "done", "nothing", "failed"] {
        assert_eq!(requested_by_interface(result), None, "{result}");
    }
}

#[test]
fn a_device_that_is_blocked_after_a_success_is_served_again() {
    assert_eq!(device_event("change", "", false, "done", Some("done")), ("not-authorized".to_owned(), 0));
    assert_eq!(device_event("change", "", true, "not-authorized", Some("done")), ("done".to_owned(), 1));
}

#[test]
fn a_failed_run_is_recorded_and_not_repeated() {
    let failed = "failed".to_owned();
    for (action, uuid, before) in [("add", "", ""), ("change", "1-2-3", "done"), ("change", "", "not-authorized")] {
        assert_eq!(device_event(action, uuid, true, before, None), (failed.clone(), 1), "{action}");
    }
    // Our own writes cause these events.
    assert_eq!(device_event("change", "", true, "failed", None), (failed, 0));
}

#[test]
fn only_an_unfinished_run_starts_the_unit() {
    for result in ["unfinished", "done"] {
        let [(_, mut event), ..] = events(ID.parse().unwrap());
        let printed = [(RESULT, result), ("ENV{WWAN_QUIRKS_PORT}", "1-1")];
        evaluate(&mut event, &Imports { printed: Some(&printed), ..Imports::default() });
        assert_eq!(event.contains_key("ENV{SYSTEMD_WANTS}"), result == "unfinished");
    }
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
