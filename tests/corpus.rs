//! Captures of real modems, and what the program makes of them.

use serde::Deserialize;
use std::collections::BTreeSet;
use wwan_quirks::bus::DeviceId;
use wwan_quirks::database::layers::{ConfigFile, Layer};
use wwan_quirks::database::quirks::{Quirk, Select, Step, fragment};
use wwan_quirks::modem::device::descriptors::{Configuration, Endpoint, Interface};
use wwan_quirks::modem::device::qmi_wwan::QmiInterfaces;
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
    /// With the first setting of each interface: some captures show only the active one.
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

    /// What the drivers that the kernel bound stand for; `None` if the capture shows no drivers.
    fn functions(&self) -> Option<BTreeSet<Function>> {
        let bound =
            self.interfaces.iter().filter_map(|interface| Some((interface.class, interface.driver.as_deref()?)));
        let bound: Vec<_> = bound.collect();
        let function = |(class, driver): &(u8, &str)| {
            Some(match *driver {
                "qmi_wwan" => Function::Qmi,
                "cdc_mbim" => Function::Mbim,
                "cdc_ether" => Function::Ecm,
                "cdc_ncm" => Function::Ncm,
                "rndis_host" => Function::Rndis,
                "usb-storage" => Function::Storage,
                "option" | "qcserial" | "sierra" if *class == 0xff => Function::Serial,
                _ => return None,
            })
        };
        (!bound.is_empty()).then(|| bound.iter().filter_map(function).collect())
    }
}

#[test]
fn functions_are_what_the_kernels_drivers_bind() {
    // Captures that show something else than the kernel does by itself.
    const EXCEPTIONS: [(&str, &str); 6] = [
        ("03f0:521d", "a person made option bind the MBIM interface (`new_id`)"),
        ("12d1:14ac", "the proposed commit that binds it was withdrawn"),
        ("1435:d191", "usb-storage was not loaded"),
        ("2c7c:0125", "cdc_ether was not loaded for an EC25-AF"),
        ("2c7c:0700", "Linux 7.2 does not have the ID of the proposed commit"),
        ("413c:8217", "Linux 7.2 does not have the ID of the proposed commit"),
    ];
    let captures: Vec<CapturedDevice> = serde_json::from_str(include_str!("corpus/descriptors.json")).unwrap();
    let (mut seen, mut different) = (0, Vec::new());
    for CapturedDevice { id, modem, configurations } in &captures {
        let qmi = QmiInterfaces::of(id.parse::<DeviceId>().unwrap(), &[]);
        for configuration in configurations {
            let Some(expected) = configuration.functions() else { continue };
            seen += 1;
            let mut found: BTreeSet<Function> = configuration.parsed().functions(&qmi).into_iter().collect();
            // A vendor-specific interface without a driver is called serial too.
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

/// What the database says of captured modems is what the captures show.
#[test]
fn captures_agree_with_their_quirks() {
    let database = concat!(env!("CARGO_MANIFEST_DIR"), "/config/quirks.d");
    let mut quirks: Vec<Quirk> = Vec::new();
    for entry in std::fs::read_dir(database).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let (more, errors) = fragment::parse(&ConfigFile { layer: Layer::Shipped, path }, &text);
        assert_eq!(errors, []);
        quirks.extend(more);
    }
    let captures: Vec<CapturedDevice> = serde_json::from_str(include_str!("corpus/descriptors.json")).unwrap();
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
            let qmi = QmiInterfaces::of(id, &quirk.qmi_interfaces);
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
