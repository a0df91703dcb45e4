//! Compares the database with usb_modeswitch. `devices.json` has the data of usb-modeswitch-data 20251207 for each
//! device, and `traces.json` has what usb_modeswitch 2.6.1 sends to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wwan_quirks::bus::DeviceId;
use wwan_quirks::database::layers::{ConfigFile, Layer};
use wwan_quirks::database::load;
use wwan_quirks::database::quirks::switch::{InterruptIn, Op};
use wwan_quirks::database::quirks::{DeviceString, Quirk, Select, Step, fragment};
use wwan_quirks::host::root::Root;
use wwan_quirks::verbs::import::Import;

#[derive(Deserialize)]
struct Device {
    keys: BTreeMap<String, String>,
    name: String,
}

#[derive(Deserialize)]
struct Trace {
    ops: Vec<Transfer>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Transfer {
    /// usb_modeswitch's test double numbers the interface-wide endpoints.
    Bulk {
        #[serde(rename = "bulk-out")]
        endpoint: u8,
        data: String,
    },
    Interrupt {
        #[serde(rename = "interrupt")]
        endpoint: u8,
        data: String,
    },
    /// Request type, request, value, index, length.
    Control { control: [u16; 5], data: String },
    Configuration {
        #[serde(rename = "set-configuration")]
        value: u8,
    },
}

fn devices() -> BTreeMap<String, Device> {
    serde_json::from_str(include_str!("usb_modeswitch/devices.json")).unwrap()
}

fn traces() -> BTreeMap<String, Trace> {
    serde_json::from_str(include_str!("usb_modeswitch/traces.json")).unwrap()
}

/// A root that holds the shipped database.
struct Shipped(PathBuf);

impl Shipped {
    fn new(test: &str) -> Shipped {
        let root = std::env::temp_dir().join(format!("wwan-quirks-{}-{test}", std::process::id()));
        let directory = root.join("usr/share/wwan-quirks/quirks.d");
        std::fs::create_dir_all(&directory).unwrap();
        for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/quirks.d")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), directory.join(file.file_name())).unwrap();
        }
        Shipped(root)
    }

    fn root(&self) -> Root {
        Root::new(&self.0)
    }

    /// The quirk for a device for which usb_modeswitch would take the file `key`.
    fn quirk(&self, key: &str) -> Quirk {
        let texts = texts(key);
        let found = load::lookup(&self.root(), id(key), |text| texts.get(&text).cloned());
        assert!(found.errors.is_empty(), "{key}: {:?}", found.errors);
        found.quirk.unwrap_or_else(|| panic!("{key} has no quirk"))
    }
}

impl Drop for Shipped {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn id(key: &str) -> DeviceId {
    key.get(..9).unwrap().parse().unwrap()
}

/// The strings of a device that matches `key` (`05c6:1000:uMa=Co.,Ltd`) and no other key.
fn texts(key: &str) -> BTreeMap<DeviceString, String> {
    if key == "8888:6500" {
        // The ID is invented. Our entry has the strings that one owner reported.
        let manufacturer = (DeviceString::Manufacturer, "PART 3 SYSTEM CO.,LTD".to_owned());
        return BTreeMap::from([manufacturer, (DeviceString::Product, "PART 3 CDMA Technologies".to_owned())]);
    }
    let pairs = key.split(':').skip(2).map(|part| {
        let (attribute, part) = part.split_once('=').unwrap();
        let text = match attribute {
            "uMa" => DeviceString::Manufacturer,
            "uPr" => DeviceString::Product,
            "sVe" => DeviceString::ScsiVendor,
            "sMo" => DeviceString::ScsiModel,
            _ => panic!("{key}"),
        };
        (text, format!("The {} of it", part.replace('_', " ")))
    });
    pairs.collect()
}

fn ops(quirk: &Quirk) -> Vec<Op> {
    let switches = quirk.steps.iter().filter_map(|step| match step {
        Step::Switch(switch) => Some(switch.ops().to_vec()),
        _ => None,
    });
    switches.flatten().collect()
}

/// The transfers of `quirk` as usb_modeswitch's test double records them, for a device whose bulk endpoint is number 1
/// unless the quirk names another.
fn transfers(quirk: &Quirk) -> Vec<Transfer> {
    let out = quirk.steps.iter().find_map(|step| match step {
        Step::Switch(switch) => switch.out,
        _ => None,
    });
    let mut transfers = Vec::new();
    for op in ops(quirk) {
        match op {
            Op::Bulk(data) => transfers.push(Transfer::Bulk { endpoint: out.unwrap_or(1), data: data.to_string() }),
            Op::Control(control) => {
                let setup = control.setup(0);
                let length = if control.is_in() { control.length } else { control.data.0.len() as u16 };
                let control_fields =
                    [setup.request_type.into(), setup.request.into(), setup.value, setup.index, length];
                transfers.push(Transfer::Control { control: control_fields, data: control.data.to_string() });
            }
            Op::InterruptOut(out) => {
                transfers.push(Transfer::Interrupt { endpoint: out.endpoint, data: out.data.to_string() });
            }
            Op::InterruptIn(InterruptIn { endpoint, times, .. }) => {
                transfers.extend((0..times).map(|_| Transfer::Interrupt { endpoint, data: String::new() }));
            }
            Op::SetConfiguration(value) => transfers.push(Transfer::Configuration { value }),
            Op::Detach | Op::Sleep(_) | Op::WaitForReturn => {}
            Op::Reset | Op::AlternateSetting(_) => panic!("no device needs {op} so far"),
        }
    }
    transfers
}

/// Deliberate differences from usb_modeswitch.
enum Wanted {
    /// usb_modeswitch sends SET_CONFIGURATION(0), waits for 0.1 s, and sends the wanted number. We ask the kernel for
    /// the wanted number at once: only Huawei's devices are known to need the detour, and a device that is unplugged or
    /// refuses in between stays unconfigured.
    NotByWayOfZero,
    /// usb_modeswitch sets configuration 1, because Sierra's QMI is there. We look for the function in the descriptors,
    /// and leave the EM7355 alone, because this broke one in composition 14. For Novatel's USB730L, usb_modeswitch sets
    /// 3, and the manual 2.
    ByFunction,
    /// The trace ends with the first message, because the test double did not come back after it. We send the second
    /// message when the device is back, and then set the configuration.
    ToTheEnd,
    /// The trace is that of usb_modeswitch without its dispatcher. The dispatcher changes `PantechMode=1` to 4 if Linux
    /// has a driver for QMI.
    AsItsDispatcher,
}

/// Devices that the database leaves out, with the reason.
const LEFT_OUT: [(&str, &str); 5] = [
    ("0bdb:190d", "removed by the changelog of usb-modeswitch-data 20160803, since the kernel handles it"),
    ("0bdb:1910", "removed by the changelog of usb-modeswitch-data 20160803, since the kernel handles it"),
    ("12d1:1030", "an Android phone; usb_modeswitch's own rule skips Android"),
    ("12d1:1031", "an Android phone; usb_modeswitch's own rule skips Android"),
    ("1307:1169", "any Transcend stick may have this ID, and no string of Cisco's AM10 is known"),
];

fn is_left_out(key: &str) -> bool {
    LEFT_OUT.iter().any(|(left_out, _)| *left_out == key)
}

const WANTED: [(&str, Wanted); 24] = [
    ("04cc:225c", Wanted::NotByWayOfZero),
    ("0fce:d0df", Wanted::NotByWayOfZero),
    ("0fd1:1000", Wanted::NotByWayOfZero),
    ("1199:9013", Wanted::ByFunction),
    ("1199:901b", Wanted::ByFunction),
    ("1199:901c", Wanted::ByFunction),
    ("1199:901f", Wanted::ByFunction),
    ("1199:9041", Wanted::ByFunction),
    ("1199:9051", Wanted::ByFunction),
    ("1199:9063", Wanted::ByFunction),
    ("12d1:1d50", Wanted::NotByWayOfZero),
    ("1410:9030", Wanted::ByFunction),
    ("1782:0003", Wanted::NotByWayOfZero),
    ("1dbc:0669", Wanted::NotByWayOfZero),
    ("1edf:6003", Wanted::NotByWayOfZero),
    ("1fac:0032", Wanted::NotByWayOfZero),
    ("2001:7600", Wanted::NotByWayOfZero),
    ("230d:0001", Wanted::NotByWayOfZero),
    ("230d:0003", Wanted::NotByWayOfZero),
    ("230d:000c", Wanted::NotByWayOfZero),
    ("230d:000d", Wanted::NotByWayOfZero),
    ("230d:0101", Wanted::NotByWayOfZero),
    ("0fce:d0e1", Wanted::ToTheEnd),
    ("10a9:606f", Wanted::AsItsDispatcher),
];

#[test]
fn the_transfers_are_those_of_usb_modeswitch() {
    let shipped = Shipped::new("traces");
    let wanted: BTreeMap<&str, Wanted> = WANTED.into_iter().collect();
    let traces = traces();
    assert_eq!(traces.len(), 250);
    assert!(wanted.keys().all(|key| traces.contains_key(*key)));
    for (key, trace) in traces.iter().filter(|(key, _)| !is_left_out(key)) {
        let quirk = shipped.quirk(key);
        let ours = transfers(&quirk);
        match wanted.get(key.as_str()) {
            None => assert_eq!(ours, trace.ops, "{key}"),
            Some(Wanted::NotByWayOfZero) => {
                let [Transfer::Configuration { value: 0 }, Transfer::Configuration { value }] = *trace.ops else {
                    panic!("{key}: {:?}", trace.ops);
                };
                let step = Step::Configuration { select: Select::Value(value), fallback: None, unconfigured: None };
                assert_eq!(quirk.steps, [step], "{key}");
            }
            Some(Wanted::ByFunction) => {
                let by_number = |step: &Step| matches!(step, Step::Configuration { select: Select::Value(_), .. });
                assert!(!quirk.steps.iter().any(by_number), "{key}");
                assert_eq!(ours, [], "{key}");
            }
            Some(Wanted::AsItsDispatcher) => {
                assert_eq!(trace.ops, [], "{key}");
                assert_eq!(ours, [Transfer::Control { control: [0x40, 0x70, 4, 0, 0], data: String::new() }], "{key}");
            }
            Some(Wanted::ToTheEnd) => {
                let [first] = trace.ops.as_slice() else { panic!("{key}: {:?}", trace.ops) };
                let expected = [first.clone(), first.clone(), Transfer::Configuration { value: 2 }];
                assert_eq!(ours, expected, "{key}");
            }
        }
    }
}

/// Devices about which more is known than usb-modeswitch-data says, with the additional facts.
const BETTER_KNOWN: [(&str, &str); 34] = [
    ("8888:6500", "the ID is invented: the entry matches only with the strings of the device"),
    ("03f0:581d", "ME906E: needs to be unconfigured first"),
    ("03f0:a31d", "ME906s: needs to be unconfigured first"),
    ("12d1:1570", "needs to be unconfigured first"),
    ("12d1:1571", "needs to be unconfigured first"),
    ("12d1:1572", "needs to be unconfigured first"),
    ("12d1:1573", "needs to be unconfigured first"),
    ("12d1:15bb", "needs to be unconfigured first"),
    ("12d1:15c0", "needs to be unconfigured first"),
    ("12d1:15c1", "needs to be unconfigured first"),
    ("12d1:15f0", "needs to be unconfigured first"),
    ("12d1:1c25", "needs to be unconfigured first"),
    ("03f0:4e1d", "left alone: EM7355 in composition 14"),
    ("10a9:606f", "waits for mode 4 if there is a driver for QMI"),
    ("1199:9011", "usb_modeswitch sets configuration 1; here the policy selects it"),
    ("1199:9013", "usb_modeswitch sets configuration 1; here the policy selects it"),
    ("1199:9017", "usb_modeswitch sets configuration 1; here the policy selects it"),
    ("1199:901b", "usb_modeswitch sets configuration 1; here the policy selects it"),
    ("1199:901c", "usb_modeswitch sets configuration 1; here the policy selects it"),
    ("1199:901f", "left alone: EM7355 in composition 14"),
    ("1199:9041", "usb_modeswitch sets configuration 1; here the policy selects it"),
    ("1199:9051", "usb_modeswitch sets configuration 1; here the policy selects it"),
    ("1199:9053", "usb_modeswitch sets configuration 1; here the policy selects it"),
    ("1199:9063", "usb_modeswitch sets configuration 1; here the policy selects it"),
    ("413c:81a3", "locked by the maker, too"),
    ("413c:81a4", "locked by the maker, too"),
    ("413c:81a8", "locked by the maker, too"),
    ("0421:0632", "comes back with its own ID, as CDC-ACM"),
    ("1410:9020", "usb_modeswitch sets configuration 4, and the manual 2: CDC-ECM decides"),
    ("1410:9030", "usb_modeswitch sets configuration 3, and the manual 2: CDC-ECM decides"),
    ("05c6:98ff", "the request goes to mass storage only"),
    ("0af0:4007", "the request goes to mass storage only"),
    ("12d1:1da1", "the request goes to mass storage only"),
    ("1c9e:9e08", "the request goes to mass storage only"),
];

#[test]
fn importing_all_of_usb_modeswitch_data_gives_the_database() {
    let shipped = Shipped::new("import");
    let devices = devices();
    assert_eq!(devices.len(), 513);
    let mut import = Import::default();
    for (key, device) in &devices {
        let mut text = format!("# {}\n\n", device.name);
        for (name, value) in &device.keys {
            writeln!(text, "{name}={}", if name.contains("Content") { format!("{value:?}") } else { value.clone() })
                .unwrap();
        }
        import.add(Path::new(key), &text);
    }
    assert!(import.errors.is_empty(), "{:?}", import.errors);

    let file = ConfigFile { layer: Layer::Shipped, path: "imported.toml".into() };
    let (imported, errors) = fragment::parse(&file, &import.toml());
    assert!(errors.is_empty(), "{errors:?}");
    let better_known: BTreeMap<&str, &str> = BETTER_KNOWN.into_iter().collect();
    let mut seen = BTreeSet::new();
    for key in devices.keys().filter(|key| !is_left_out(key)) {
        let texts = texts(key);
        let same = |quirk: &&Quirk| quirk.model(id(key)).is_some() && quirk.matchers.keys().eq(texts.keys());
        let theirs: Vec<&Quirk> = imported.iter().filter(same).collect();
        let ours = shipped.quirk(key);
        assert!(ours.matchers.keys().eq(texts.keys()), "{key} finds {}", ours.location);
        let equal = theirs.iter().any(|quirk| quirk.matchers == ours.matchers && quirk.steps == ours.steps);
        match better_known.get(key.as_str()) {
            None => assert!(equal, "{key}: {:?} instead of {theirs:?}", ours),
            Some(why) => {
                assert!(!equal, "{key} is as usb-modeswitch-data has it, not {why}");
                seen.insert(key.as_str());
            }
        }
    }
    assert_eq!(seen.len(), better_known.len());
}

#[test]
fn every_device_has_its_rule() {
    let shipped = Shipped::new("rules");
    let rules = include_str!("../udev-rules/85-wwan-quirks.rules");
    let (device, rest) = rules.split_once("LABEL=\"wwan_quirks_idle\"").unwrap();
    let (_, rest) = rest.split_once("LABEL=\"wwan_quirks_scsi\"").unwrap();
    let (scsi, _) = rest.split_once("LABEL=\"wwan_quirks_port\"").unwrap();
    for key in devices().keys().filter(|key| !is_left_out(key)) {
        let quirk = shipped.quirk(key);
        let concerned = quirk.steps.iter().any(|step| matches!(step, Step::Switch(_) | Step::Configuration { .. }));
        let (vendor, product) = (key.get(..4).unwrap(), key.get(5..9).unwrap());
        let section = if quirk.matchers.keys().any(|text| text.is_scsi()) { scsi } else { device };
        let rule = section.lines().any(|line| {
            line.contains(&format!("{{idVendor}}==\"{vendor}\"")) && line.split(['"', '|']).any(|part| part == product)
        });
        // The EM7355's configuration is left alone.
        assert_eq!(rule, concerned, "{key}");
        assert!(concerned || ["03f0:4e1d", "1199:901f"].contains(&key.as_str()), "{key}");
    }
}

#[test]
fn what_is_left_out_is_left_alone() {
    let shipped = Shipped::new("left-out");
    for (key, why) in LEFT_OUT {
        assert!(devices().contains_key(key), "{key}");
        let found = load::lookup(&shipped.root(), id(key), |_| None);
        assert!(found.quirk.is_none(), "{key} has a quirk again: {why}");
    }
}

#[test]
fn a_device_with_other_strings_is_left_alone() {
    let shipped = Shipped::new("texts");
    for key in devices().keys().filter(|key| key.len() > 9) {
        let alone = !devices().contains_key(key.get(..9).unwrap());
        let found = load::lookup(&shipped.root(), id(key), |_| Some("A phone".to_owned()));
        assert_eq!(found.quirk.is_none(), alone, "{key}");
    }
}
