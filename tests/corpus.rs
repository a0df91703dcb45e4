//! Compares the program with captures of real modems.

mod fake;

use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use wwan_quirks::bus::DeviceId;
use wwan_quirks::database::layers::{ConfigFile, Layer};
use wwan_quirks::database::quirks::{Quirk, Seen, Select, Step, fragment};
use wwan_quirks::modem::device::descriptors::{Configuration, Endpoint, Interface};
use wwan_quirks::modem::device::vendor_interfaces::VendorInterfaces;
use wwan_quirks::modem::wire::mbim::{self, Body, CommandType, Status, Uuid};
use wwan_quirks::modem::wire::qmi::{self, Call, Kind, OperatingMode, Service, ctl, dms};
use wwan_quirks::usb::Function;

#[derive(Deserialize)]
struct CapturedDevice {
    id: String,
    modem: String,
    configurations: Vec<CapturedConfiguration>,
}

#[derive(Deserialize)]
struct CapturedConfiguration {
    value: u8,
    interfaces: Vec<CapturedInterface>,
}

#[derive(Deserialize)]
struct CapturedInterface {
    number: u8,
    class: u8,
    subclass: u8,
    protocol: u8,
    endpoint_count: u8,
    driver: Option<String>,
}

impl CapturedConfiguration {
    /// Uses the first alternate setting of each interface, because some captures show only the active one.
    fn parsed(&self) -> Configuration {
        let mut interfaces: Vec<Interface> = Vec::new();
        for captured in &self.interfaces {
            if interfaces.iter().any(|interface| interface.number == captured.number) {
                continue;
            }
            let endpoint = Endpoint { address: 0x81, attributes: 2 };
            interfaces.push(Interface {
                number: captured.number,
                alternate: 0,
                class: captured.class,
                subclass: captured.subclass,
                protocol: captured.protocol,
                endpoints: vec![endpoint; captured.endpoint_count.into()],
            });
        }
        Configuration { value: self.value, interfaces }
    }

    /// The functions of the drivers that the kernel bound. `None` if the capture shows no drivers.
    fn functions(&self) -> Option<BTreeSet<Function>> {
        let bound =
            self.interfaces.iter().filter_map(|interface| Some((interface.class, interface.driver.as_deref()?)));
        let bound: Vec<_> = bound.collect();
        let function = |(class, driver): &(u8, &str)| {
            Some(match *driver {
                "qmi_wwan" => Function::Qmi,
                "cdc_mbim" => Function::Mbim,
                "cdc_ether" => Function::Ecm,
                "cdc_ncm" | "huawei_cdc_ncm" => Function::Ncm,
                "rndis_host" => Function::Rndis,
                "usb-storage" => Function::Storage,
                "option" | "qcserial" | "sierra" if *class == 0xff => Function::Serial,
                _ => return None,
            })
        };
        (!bound.is_empty()).then(|| bound.iter().filter_map(function).collect())
    }
}

/// Captures that differ from what the kernel does by itself.
const EXCEPTIONS: [(&str, &str); 6] = [
    ("03f0:521d", "a person made option bind the MBIM interface (`new_id`)"),
    ("12d1:14ac", "the proposed commit that binds it was withdrawn"),
    ("1435:d191", "usb-storage was not loaded"),
    ("2c7c:0125", "cdc_ether was not loaded for an EC25-AF"),
    ("2c7c:0700", "Linux 7.2 does not have the ID of the proposed commit"),
    ("413c:8217", "Linux 7.2 does not have the ID of the proposed commit"),
];

fn captures() -> Vec<CapturedDevice> {
    serde_json::from_str(include_str!("corpus/descriptors.json")).unwrap()
}

#[test]
fn functions_are_what_the_kernels_drivers_bind() {
    let captures = captures();
    let (mut seen, mut different) = (0, Vec::new());
    for CapturedDevice { id, modem, configurations } in &captures {
        let qmi = VendorInterfaces::of(id.parse::<DeviceId>().unwrap(), &[]);
        for configuration in configurations {
            let Some(expected) = configuration.functions() else { continue };
            seen += 1;
            let mut found: BTreeSet<Function> = configuration.parsed().functions(&qmi).into_iter().collect();
            // A vendor-specific interface without a driver is also called serial.
            if !expected.contains(&Function::Serial) {
                found.remove(&Function::Serial);
            }
            if found != expected {
                different.push((id.as_str(), format!("{modem}, {}: {found:?}, {expected:?}", configuration.value)));
            }
        }
    }
    assert!(seen > 140, "{seen} configurations");
    let ids: Vec<&str> = different.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, EXCEPTIONS.map(|(id, _)| id), "{different:#?}");
}

/// The shipped database.
fn quirks() -> Vec<Quirk> {
    let database = concat!(env!("CARGO_MANIFEST_DIR"), "/config/quirks.d");
    let mut quirks: Vec<Quirk> = Vec::new();
    for entry in std::fs::read_dir(database).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let (more, errors) = fragment::parse(&ConfigFile { layer: Layer::Shipped, path }, &text);
        assert_eq!(errors, []);
        quirks.extend(more);
    }
    quirks
}

/// The database agrees with the captures of its modems.
#[test]
fn captures_agree_with_their_quirks() {
    let quirks = quirks();
    let captures = captures();
    let (mut interfaces, mut functions) = (0, 0);
    for CapturedDevice { id, modem, configurations } in &captures {
        let Ok(id) = id.parse::<DeviceId>() else { continue };
        for quirk in quirks.iter().filter(|quirk| quirk.model(id).is_some()) {
            let bound = configurations.iter().flat_map(|configuration| &configuration.interfaces);
            for interface in bound.filter(|interface| interface.driver.as_deref() == Some("qmi_wwan")) {
                interfaces += 1;
                let listed = quirk.qmi_interfaces.is_empty() || quirk.qmi_interfaces.contains(&interface.number);
                assert!(listed, "{modem}, {id}: {} has QMI on interface {}", quirk.location, interface.number);
            }
            let qmi = VendorInterfaces::of(id, &quirk.qmi_interfaces);
            for step in &quirk.steps {
                let Step::Configuration { select: Select::Function(wanted), .. } = step else { continue };
                functions += 1;
                let mut all = configurations.iter().map(|configuration| configuration.parsed().functions(&qmi));
                let offered = configurations.len() < 2 || all.any(|functions| functions.contains(wanted));
                assert!(offered, "{modem}, {id}: no configuration offers {}", wanted.name());
            }
        }
    }
    assert!(interfaces > 2 && functions > 0, "{interfaces} interfaces, {functions} functions");
}

impl CapturedConfiguration {
    /// A device with this configuration and a mass storage configuration. Also returns the number of the latter.
    fn beside_storage(&self) -> (Vec<u8>, u8) {
        let interfaces = self.parsed().interfaces.into_iter().map(|interface| {
            let endpoints: Vec<_> = (0x81..).take(interface.endpoints.len()).map(|address| (address, 2)).collect();
            fake::interface(interface.number, [interface.class, interface.subclass, interface.protocol], &endpoints)
        });
        let captured = fake::configuration(self.value, &interfaces.collect::<Vec<_>>());
        let other = if self.value == 1 { 2 } else { 1 };
        let storage = fake::configuration(other, &[fake::interface(0, [8, 6, 0x50], &[(0x81, 2), (0x02, 2)])]);
        (fake::device(&[storage, captured]), other)
    }
}

/// Whether `found`, the names that a verb prints, are the functions of the drivers.
fn agree(found: &BTreeSet<String>, expected: &BTreeSet<Function>) -> bool {
    let expected: BTreeSet<String> = expected.iter().map(|function| function.name().to_owned()).collect();
    // A vendor-specific interface without a driver is also called serial.
    found.iter().filter(|name| *name != "serial" || expected.contains(*name)).eq(&expected)
}

#[test]
fn every_verb_agrees_with_the_kernels_drivers() {
    let captures = captures();
    let is_usual = |device: &&CapturedDevice| EXCEPTIONS.iter().all(|(exception, _)| *exception != device.id);
    let all: Vec<(&CapturedDevice, &CapturedConfiguration)> = captures
        .iter()
        .filter(is_usual)
        .flat_map(|device| device.configurations.iter().map(move |configuration| (device, configuration)))
        .filter(|(_, configuration)| configuration.functions().is_some())
        .collect();
    assert!(all.len() > 130, "{} configurations", all.len());
    // The limits allow a process 64 open files.
    std::thread::scope(|scope| all.chunks(40).for_each(|captures| drop(scope.spawn(|| verbs_agree(captures)))));
}

fn verbs_agree(captures: &[(&CapturedDevice, &CapturedConfiguration)]) {
    let root = fake::Root::new();
    let mut expected: BTreeMap<String, (&str, u8, BTreeSet<Function>)> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for (number, (device, configuration)) in (1..).zip(captures) {
        let port = format!("1-{number}");
        let (descriptors, active) = configuration.beside_storage();
        let directory = root.plug(&port, &device.id, &descriptors);
        root.write(&format!("{directory}/bConfigurationValue"), format!("{active}\n"));
        expected.insert(port, (&device.modem, configuration.value, configuration.functions().unwrap()));
        ids.insert(format!("{:?}", device.id));
    }
    // The driver's table says where QMI is.
    let ids: Vec<String> = ids.into_iter().collect();
    root.write(
        "etc/wwan-quirks/quirks.d/99-captures.toml",
        format!(
            "schema = 1\n[[device]]\nid = [{}]\nname = \"Captured\"\nsteps = [{{ configuration = \"preferred\" }}]\n",
            ids.join(", ")
        ),
    );
    let devices = |arguments: &[&str]| -> BTreeMap<String, Value> {
        let ended = root.run(arguments);
        let mut output: Value =
            serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        let Value::Array(devices) = output["devices"].take() else { panic!("{arguments:?}") };
        devices.into_iter().map(|device| (device["port"].as_str().unwrap().to_owned(), device)).collect()
    };

    let status = devices(&["status", "--json"]);
    assert_eq!(status.len(), expected.len());
    for (port, (modem, value, functions)) in &expected {
        let shown = status[port]["configurations"].as_array().unwrap();
        let shown = shown.iter().find(|configuration| configuration["value"] == *value).unwrap();
        let found =
            shown["functions"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        assert!(agree(&found, functions), "status of {modem}: {found:?}, {functions:?}");

        let report = root.run(&["report", port]).stdout;
        let found =
            report.lines().find_map(|line| line.strip_prefix(&format!("configuration = {value}: "))).unwrap_or("");
        let found = found.split_whitespace().map(str::to_owned).collect();
        assert!(agree(&found, functions), "report of {modem}: {found:?}, {functions:?}");
    }

    for function in [Function::Qmi, Function::Mbim] {
        root.policy(&format!("prefer = \"{}\"\n", function.name()));
        let plans = devices(&["apply", "--dry-run", "--json"]);
        for (port, (modem, value, functions)) in &expected {
            let plan = &plans[port]["plan"];
            let writes = plan.to_string().contains(&format!("write {value} to bConfigurationValue"));
            assert_eq!(writes, functions.contains(&function), "prefer {function:?}, {modem}: {plan}");
        }
        // `explain` has the same plan.
        for (port, device) in devices(&["explain", "--json", &captures[0].0.id]) {
            assert_eq!(device["plan"], plans[&port]["plan"], "{port}");
        }
    }
}

#[derive(Deserialize)]
struct CapturedFrame {
    modem: String,
    proto: String,
    hex: String,
    what: String,
    truncated: bool,
}

/// Describes what the program reads in a frame, in the words of the captures. Encodes a request again, byte for byte.
fn read_mbim(bytes: &[u8]) -> Vec<String> {
    let message = mbim::Message::parse(bytes).unwrap();
    let is_request = matches!(message.body, Body::Open { .. } | Body::Close | Body::Command { .. });
    assert!(!is_request || message.emit() == bytes);
    match message.body {
        Body::Open { max_control_transfer } => {
            assert!([512, 4096].contains(&max_control_transfer));
            vec!["MBIM open".to_owned()]
        }
        Body::Close => vec!["MBIM close".to_owned()],
        Body::OpenDone(Status::SUCCESS) => vec!["MBIM open done, status 0".to_owned()],
        Body::OpenDone(status) => vec![format!("MBIM open done: {status}")],
        Body::CloseDone(Status::SUCCESS) => vec!["MBIM close done, status 0".to_owned()],
        Body::Command { service: Uuid::QMI, cid: 1, kind: CommandType::Set, buffer }
        | Body::CommandDone { service: Uuid::QMI, cid: 1, status: Status::SUCCESS, buffer } => {
            let mut read = read_qmi(buffer);
            read.push("QMI in MBIM".to_owned());
            read
        }
        Body::CommandDone { service: Uuid::BASIC_CONNECT, cid: 3, status: Status::SUCCESS, buffer } => {
            let state = |word: &[u8]| if word == [1, 0, 0, 0] { "on" } else { "off" };
            let (hardware, software) = buffer.split_at(4);
            vec![format!("Basic Connect radio state: hardware {}, software {}", state(hardware), state(software))]
        }
        other => panic!("{other:?}"),
    }
}

fn read_qmi(bytes: &[u8]) -> Vec<String> {
    let message = qmi::Message::parse(bytes).unwrap();
    let known = [
        ctl::PROXY_OPEN,
        ctl::ALLOCATE_CID,
        dms::GET_OPERATING_MODE,
        dms::SET_OPERATING_MODE,
        dms::SWI_GET_USB_COMPOSITION,
        dms::SET_FCC_AUTHENTICATION,
    ];
    let call = known.into_iter().find(|call| (call.service, call.id) == (message.service, message.id));
    let Some(call) = call else {
        // The program does not know this message. Some firmware ends its strings with NUL.
        let text = |tlv| message.tlvs.string(tlv, "text").unwrap();
        assert_eq!((text(0x17), text(0x10)), ("GENERIC".to_owned(), "MC7455".to_owned()));
        return vec![format!("DMS {:#06x}", message.id)];
    };
    let mut read = vec![call.name.to_owned()];
    if message.kind == Kind::Request {
        let tlvs: Vec<_> = message.tlvs.iter().collect();
        assert_eq!(qmi::request(call, message.cid, message.tid, &tlvs), bytes);
        read.extend(match call {
            ctl::PROXY_OPEN => Some(message.tlvs.string(1, "path").unwrap()),
            ctl::ALLOCATE_CID => Some(format!("({})", Service(message.tlvs.u8(1, "service").unwrap()))),
            dms::SET_OPERATING_MODE => Some(OperatingMode::from(message.tlvs.u8(1, "mode").unwrap()).to_string()),
            _ => None,
        });
        return read;
    }
    match message.result().unwrap() {
        Err(error) => read.push(error.to_string()),
        Ok(()) => read.extend(of_response(call, &message)),
    }
    read
}

fn of_response(call: Call, message: &qmi::Message) -> Option<String> {
    Some(match call {
        dms::GET_OPERATING_MODE => {
            OperatingMode::from(message.tlvs.u8(1, "mode").unwrap()).to_string().replace('-', " ")
        }
        dms::SWI_GET_USB_COMPOSITION => {
            let supported = message.tlvs.get(0x11, "supported").unwrap();
            let (count, supported) = supported.split_first().unwrap();
            assert_eq!(usize::from(*count), supported.len());
            let supported: Vec<String> = supported.iter().map(u8::to_string).collect();
            format!("current {}, supported {}", message.tlvs.u8(0x10, "current").unwrap(), supported.join(" "))
        }
        _ => "success".to_owned(),
    })
}

#[test]
fn every_complete_frame_is_read_as_its_capture_says() {
    let frames: Vec<CapturedFrame> = serde_json::from_str(include_str!("corpus/frames.json")).unwrap();
    let mut seen = 0;
    for CapturedFrame { modem, proto, hex, what, truncated } in &frames {
        let digits: Vec<&str> = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]).collect();
        let bytes: Vec<u8> = digits.into_iter().map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
        if *truncated {
            assert!(proto != "mbim" || mbim::Message::parse(&bytes).is_err(), "{modem}: {what}");
            continue;
        }
        seen += 1;
        let read = match proto.as_str() {
            "mbim" => read_mbim(&bytes),
            "qmi" => read_qmi(&bytes),
            // Without the QMUX header: DMS.
            "qmi-sdu" => {
                let flags = if bytes[0] == 0 { 0x00 } else { 0x80 };
                let header = [0x01, bytes.len() as u8 + 5, 0x00, flags, 0x02, 0x01];
                read_qmi(&[&header, &bytes[..]].concat())
            }
            other => panic!("{other}"),
        };
        for read in read {
            assert!(what.contains(&read), "{modem}: {read} is not in {what:?}");
        }
    }
    assert_eq!(seen, 20, "complete frames");
}

/// Devices that people ask for, or that are in another project's table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedDevices {
    ids: Vec<String>,
    #[serde(rename = "name")]
    _name: String,
    /// The step in the source. `None` if a note is enough.
    step: Option<String>,
    /// In hex.
    #[serde(default)]
    messages: Vec<String>,
    #[serde(rename = "source")]
    _source: String,
    confidence: Confidence,
    /// The reason why the database lacks them.
    excluded: Option<String>,
    /// The evidence that makes a row with low confidence more than a hint.
    evidence: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Confidence {
    /// Several people saw it work, or a maintained table lists it and there is a log.
    High,
    /// One maintained table lists it.
    Medium,
    Low,
}

impl WantedDevices {
    /// What is wrong with the entries that the database has for a device.
    fn complaint(&self, entries: &[&Quirk]) -> Option<&'static str> {
        let has_step =
            |step: &String| entries.iter().any(|quirk| quirk.steps.iter().any(|own| own.kind().name() == step));
        let ops: Vec<String> = entries
            .iter()
            .flat_map(|quirk| &quirk.steps)
            .filter_map(|step| if let Step::Switch(switch) = step { Some(switch.ops()) } else { None })
            .flat_map(|ops| ops.iter().map(ToString::to_string).collect::<Vec<_>>())
            .collect();
        let is_low = self.confidence == Confidence::Low;
        match (&self.excluded, entries) {
            (Some(_), _) if !is_low => Some("only low confidence can exclude a device"),
            (Some(_), []) => None,
            (Some(_), _) => Some("the database has it: it is not excluded"),
            (None, []) => Some("the database lacks it"),
            (None, _) if !self.step.iter().all(has_step) => Some("the step differs"),
            (None, _) if !self.messages.iter().all(|message| ops.iter().any(|op| op.contains(message))) => {
                Some("a message differs")
            }
            (None, _)
                if is_low && self.evidence.is_none() && entries.iter().any(|own| own.seen != Some(Seen::Hint)) =>
            {
                Some("low confidence is `seen = \"hint\"`")
            }
            (None, _) => None,
        }
    }
}

#[test]
fn the_database_has_the_devices_that_people_ask_for() {
    let quirks = quirks();
    let wanted: Vec<WantedDevices> = serde_json::from_str(include_str!("corpus/wanted.json")).unwrap();
    let (mut seen, mut complaints) = (BTreeSet::new(), Vec::new());
    for row in &wanted {
        for id in &row.ids {
            let id: DeviceId = id.parse().unwrap();
            assert!(seen.insert(id), "{id} is there twice");
            let entries: Vec<&Quirk> = quirks.iter().filter(|quirk| quirk.model(id).is_some()).collect();
            complaints.extend(row.complaint(&entries).map(|complaint| format!("{id}: {complaint}")));
        }
    }
    assert_eq!(complaints, [""; 0]);
    assert!(seen.len() > 140);
}
