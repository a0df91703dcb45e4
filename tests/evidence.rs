//! Replays each report in `tests/evidence`, which `wwan-quirks report` printed for a real modem, and compares it with
//! its quirk.

mod fake;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use fake::Root;

/// The lines that depend only on the descriptors, the drivers and the database.
const COMPARED: [&str; 5] = ["configuration", "interface", "bound", "quirk", "plan"];

/// The lines `KEY = VALUE` of a report, in their order.
fn lines(report: &str) -> Vec<(&str, &str)> {
    let lines = report.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(" = ")).collect()
}

fn value<'a>(lines: &[(&str, &'a str)], key: &str) -> Option<&'a str> {
    lines.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
}

/// The lines that two reports on the same modem have in common. Files and line numbers of the database may change.
fn compared(report: &str) -> String {
    let compared = lines(report).into_iter().filter(|(key, _)| COMPARED.contains(key));
    let text = compared.map(|(key, value)| match key {
        "quirk" => format!("quirk = {}\n", value.split(" (/").next().unwrap()),
        _ => format!("{key} = {}\n", value.trim_end()),
    });
    text.collect()
}

/// Plugs in a modem as the report describes it.
fn plug(root: &Root, report: &[(&str, &str)]) {
    let of = |key: &str| value(report, key).unwrap_or_else(|| panic!("no line `{key} = …`"));
    let hex = of("descriptors");
    assert!(hex.is_ascii() && hex.len() % 2 == 0);
    let descriptors: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let device = root.plug("1-1", of("id"), &descriptors);
    for key in ["manufacturer", "product", "serial", "bConfigurationValue"] {
        match value(report, key) {
            Some(value) => root.write(&format!("{device}/{key}"), format!("{value}\n")),
            None => fs::remove_file(root.0.join(format!("{device}/{key}").trim_start_matches('/'))).unwrap(),
        }
    }
    let active = of("bConfigurationValue");
    for (_, bound) in report.iter().filter(|(key, _)| *key == "bound") {
        let (number, rest) = bound.strip_prefix("interface ").and_then(|rest| rest.split_once(": ")).unwrap();
        let interface = format!("{active}.{number}");
        let directory = format!("{device}/1-1:{interface}");
        let (driver, nodes) = match rest.strip_prefix("no driver") {
            Some(nodes) => (None, nodes),
            None => rest.split_once(' ').map_or((Some(rest), ""), |(driver, nodes)| (Some(driver), nodes)),
        };
        for node in nodes.split_whitespace() {
            match (node, driver) {
                (node, Some(driver)) if node.starts_with("cdc-wdm") => {
                    root.control_port("1-1", &interface, driver, node);
                }
                (node, _) if node.starts_with("tty") => {
                    root.write(&format!("{directory}/{node}/tty/{node}/dev"), "188:1\n");
                }
                (node, _) => root.write(&format!("{directory}/net/{node}/flags"), "0x1002\n"),
            }
        }
        root.write(&format!("{directory}/bInterfaceNumber"), format!("{:02x}\n", number.parse::<u8>().unwrap()));
        let link = root.0.join(format!("{directory}/driver").trim_start_matches('/'));
        if let Some(driver) = driver.filter(|_| fs::symlink_metadata(&link).is_err()) {
            fs::create_dir_all(root.0.join("sys/bus/usb/drivers").join(driver)).unwrap();
            symlink(format!("../../../../../bus/usb/drivers/{driver}"), link).unwrap();
        }
    }
}

#[test]
fn a_stored_report_agrees_with_its_quirk() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence");
    let (mut ids, mut different) = (BTreeSet::new(), Vec::new());
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let stored = fs::read_to_string(&path).unwrap();
        let report = lines(&stored);
        assert!(stored.starts_with("# source: "), "{name}: the first line is not `# source: …`");
        let id = value(&report, "id").unwrap_or_default();
        assert!(name.starts_with(&format!("{}-", id.replace(':', "-"))), "{name}: its name does not begin with {id}");
        let root = Root::new();
        plug(&root, &report);
        let ended = root.run(&["report", "1-1"]);
        assert_eq!(ended.code, 0, "{name}: {}", ended.stderr);
        let (was, is) = (compared(&stored), compared(&ended.stdout));
        if was != is {
            different.push(format!("{name}: `report` prints now:\n{is}"));
        }
        // Some reports come from a system without the driver for the port.
        let is_impossible =
            |line: &str| line.contains(": not possible: ") && !line.contains(" has no QMI or MBIM port");
        assert!(!is.contains("quirk = none") && !is.lines().any(is_impossible), "{name}:\n{is}");
        ids.insert(id.to_owned());
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(ids.len() >= 10, "{ids:?}");
}
