//! Install mode: the exact traffic that makes a stick leave it.

use crate::descriptors::Configuration;
use crate::models::{self, Model};
use crate::transcript::from_hex;

/// A transfer that the host must make.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// This SETUP packet, with this data stage if it is OUT.
    Control([u8; 8], Vec<u8>),
    /// These bytes on a bulk OUT endpoint. The tag of a CBW is ignored.
    Bulk(Vec<u8>),
    /// These bytes on an interrupt OUT endpoint.
    Interrupt(Vec<u8>),
}

/// A transfer that the host made.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    Control(&'a [u8; 8], &'a [u8]),
    Bulk(&'a [u8]),
    Interrupt(&'a [u8]),
}

impl Expect {
    pub fn matches(&self, seen: Seen) -> bool {
        match (self, seen) {
            (Expect::Control(setup, data), Seen::Control(seen, sent)) => setup == seen && data == sent,
            (Expect::Bulk(bytes), Seen::Bulk(seen)) if bytes.starts_with(b"USBC") => {
                seen.len() == bytes.len() && seen.starts_with(b"USBC") && seen.get(8..) == bytes.get(8..)
            }
            (Expect::Bulk(bytes), Seen::Bulk(seen)) => bytes == seen,
            (Expect::Interrupt(bytes), Seen::Interrupt(seen)) => bytes == seen,
            _ => false,
        }
    }
}

fn control(setup: [u8; 8]) -> Expect {
    Expect::Control(setup, Vec::new())
}

/// Set SWoC mode: modem.
pub fn sierra() -> Vec<Expect> {
    vec![control([0x40, 0x0b, 1, 0, 0, 0, 0, 0])]
}

fn bulk(hex: &str) -> Option<Expect> {
    from_hex(hex).map(Expect::Bulk)
}

/// The names for `--method`, and what the stick waits for.
pub const METHODS: &[(&str, &str)] = &[
    ("sierra", "control 40 0b 0001"),
    ("huawei", "control 00 03 0001"),
    ("huawei-new", "CBW, CDB 11 06 20 .. 01 01 00 01"),
    ("huawei-alt", "CBW, CDB 11 06 30 .. 01"),
    ("huawei-serial", "CBW, CDB 11 06 30 .. 01 00 00"),
    ("option", "CBW, CDB 01 (REZERO UNIT)"),
    ("eject", "CBWs 1e and 1b 00 00 00 02 on LUN 0"),
    ("message", "each --message in turn"),
    ("sequans", "control 40 0b 0002"),
    ("qisda", "control 40 04 with 16 bytes"),
    ("quanta", "control c0 ff"),
    ("kobil", "control c0 88, 8 bytes"),
    ("gct", "control a1 a0, then a1 fe"),
    ("blackberry", "control c0 b1, then c0 a9 000e"),
    ("pantech", "control 40 70 with --value (2)"),
    ("sony", "control c0 11 0002, a return in install mode, the same again"),
    ("cisco", "eleven CBWs, CDB fd"),
    ("mobile-action", "two SET_REPORTs, then reports on the interrupt endpoints"),
    ("configuration", "SET_CONFIGURATION --value (2); changes in place"),
    ("alternate", "SET_INTERFACE --interface --value (1); changes in place"),
];

/// The options of the `install` model.
#[derive(Default)]
pub struct Options {
    pub method: Option<String>,
    pub messages: Vec<Vec<u8>>,
    pub value: Option<u8>,
    pub interface: u8,
    pub class: Option<(u8, u8, u8)>,
    pub scsi_vendor: Option<String>,
    pub scsi_model: Option<String>,
    pub disk: bool,
    pub medium: Vec<u8>,
    /// The numbers of more configurations, with MBIM and with ECM.
    pub mbim: Option<u8>,
    pub ecm: Option<u8>,
}

/// Parses `CC:SS:PP`.
pub fn parse_class(text: &str) -> Option<(u8, u8, u8)> {
    let mut bytes = text.split(':').map(|part| u8::from_str_radix(part, 16).ok());
    match (bytes.next(), bytes.next(), bytes.next(), bytes.next()) {
        (Some(class), Some(subclass), Some(protocol), None) => Some((class?, subclass?, protocol?)),
        _ => None,
    }
}

impl Model {
    /// Adds an install mode before the modem, or replaces the existing one.
    pub fn with_install(&mut self, options: &Options) -> Result<(), String> {
        let mut form = self.forms[0].clone();
        if !form.installs() {
            self.forms.insert(0, form.clone());
        }
        let name = options.method.as_deref().unwrap_or("eject");
        let value = options.value.unwrap_or(if name == "alternate" { 1 } else { 2 });
        form.switch = method(name, value, &options.messages, options.interface)
            .ok_or_else(|| format!("unknown method, or nothing to wait for: {name} (see `modem methods`)"))?;
        let class = options.class.unwrap_or((0x08, 0x06, 0x50));
        let storage = Configuration::new(1).storage_of(options.interface, class);
        form.configurations = match name {
            "mobile-action" => vec![Configuration::new(1).reports(options.interface)],
            "alternate" => vec![storage.vendor_alternate(options.interface, value)],
            "configuration" => vec![storage, models::serial_ports(Configuration::new(value))],
            _ => vec![storage],
        };
        form.configurations.extend(options.mbim.map(|value| Configuration::new(value).mbim(0)));
        form.configurations.extend(options.ecm.map(|value| Configuration::new(value).ecm(0)));
        form.device[17] = form.configurations.len() as u8;
        form.scsi.cdrom = !options.disk;
        form.scsi.medium.clone_from(&options.medium);
        if let Some(vendor) = &options.scsi_vendor {
            form.scsi.vendor.clone_from(vendor);
        }
        if let Some(model) = &options.scsi_model {
            form.scsi.model.clone_from(model);
        }
        if form.switch.is_empty() {
            // The stick changes in place.
            self.forms.truncate(1);
        }
        self.forms[0] = form;
        Ok(())
    }
}

/// The transfers that the stick waits for, stage by stage. `interface` is the number of its interface.
pub fn method(name: &str, value: u8, messages: &[Vec<u8>], interface: u8) -> Option<Vec<Vec<Expect>>> {
    let one = |stage: Vec<Expect>| Some(vec![stage]);
    match name {
        "sierra" => one(sierra()),
        "huawei" => one(vec![control([0, 3, 1, 0, 0, 0, 0, 0])]),
        "huawei-new" => one(vec![bulk("55534243123456780000000000000011062000000101000100000000000000")?]),
        "huawei-alt" => one(vec![bulk("55534243123456780000000000000011063000000000010000000000000000")?]),
        "huawei-serial" => one(vec![bulk("55534243123456780000000000000011063000000100000000000000000000")?]),
        "option" => one(vec![bulk("55534243123456780000000000000601000000000000000000000000000000")?]),
        "eject" => one(vec![
            bulk("5553424387654321000000000000061e000000000000000000000000000000")?,
            bulk("5553424397654321000000000000061b000000020000000000000000000000")?,
        ]),
        "message" if !messages.is_empty() => one(messages.iter().cloned().map(Expect::Bulk).collect()),
        "sequans" => one(vec![control([0x40, 0x0b, 2, 0, 0, 0, 0, 0])]),
        "qisda" => {
            let data = from_hex("058c0408a0ee20005c01040898cdeabf")?;
            one(vec![Expect::Control([0x40, 4, 0, 0, 0, 0, 16, 0], data)])
        }
        "quanta" => one(vec![control([0xc0, 0xff, 0, 0, 0, 0, 0, 0])]),
        "kobil" => one(vec![control([0xc0, 0x88, 0, 0, 0, 0, 8, 0])]),
        "gct" => {
            one(vec![control([0xa1, 0xa0, 0, 0, interface, 0, 1, 0]), control([0xa1, 0xfe, 0, 0, interface, 0, 1, 0])])
        }
        "blackberry" => one(vec![control([0xc0, 0xb1, 0, 0, 0, 0, 8, 0]), control([0xc0, 0xa9, 0x0e, 0, 0, 0, 2, 0])]),
        "pantech" => one(vec![control([0x40, 0x70, value, 0, 0, 0, 0, 0])]),
        "sony" => {
            let again = vec![control([0xc0, 0x11, 2, 0, 0, 0, 3, 0])];
            Some(vec![again.clone(), again])
        }
        "cisco" => one(cisco()?),
        "mobile-action" => one(mobile_action()?),
        "configuration" | "alternate" => Some(Vec::new()),
        _ => None,
    }
}

fn cisco() -> Option<Vec<Expect>> {
    let commands = [
        "55534243f83bcd810002000080000afd000000030000000100000000000000",
        "55534243984300820002000080000afd000000070000000100000000000000",
        "55534243984300820000000000000afd000100071000000000000000000000",
        "55534243984300820002000080000afd000200230000000100000000000000",
        "55534243984300820000000000000afd000300238200000000000000000000",
        "55534243984300820002000080000afd000200260000000100000000000000",
        "55534243984300820000000000000afd00030026c800000000000000000000",
        "55534243d84c04820002000080000afd000010730000000100000000000000",
        "55534243d84c04820002000080000afd000200240000000100000000000000",
        "55534243d84c04820000000000000afd000300241300000000000000000000",
        "55534243d84c04820000000000000afd000110732400000000000000000000",
    ];
    commands.into_iter().map(bulk).collect()
}

fn mobile_action() -> Option<Vec<Expect>> {
    let report = Expect::Control([0x21, 0x09, 0, 3, 0, 0, 8, 0], from_hex("b004000002902686")?);
    let outputs = [
        "3701fedbc1331f83",
        "370eb59d3b8a9151",
        "3487ba0dfc8a9151",
        "3701fedbc1331f83",
        "370eb59d3b8a9151",
        "3487ba0dfc8a9151",
        "3304fe00f46c1ff0",
        "3207fef029b93af0",
    ];
    let mut expected = vec![report.clone(), report];
    for hex in outputs {
        expected.push(Expect::Interrupt(from_hex(hex)?));
    }
    Some(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(name: &str) -> Vec<Expect> {
        method(name, 2, &[], 0).unwrap().remove(0)
    }

    fn bytes(hex: &str) -> Vec<u8> {
        from_hex(hex).unwrap()
    }

    #[test]
    fn cbws_of_usb_modeswitch_match_with_any_tag() {
        for (name, hex) in [
            ("huawei-new", "55534243123456780000000000000011062000000101000100000000000000"),
            ("huawei-alt", "55534243123456780000000000000011063000000000010000000000000000"),
            ("option", "55534243123456780000000000000601000000000000000000000000000000"),
        ] {
            let wire = bytes(hex);
            assert!(only(name)[0].matches(Seen::Bulk(&wire)), "{name}");
            let mut other_tag = wire.clone();
            other_tag[4..8].copy_from_slice(&[9, 9, 9, 9]);
            assert!(only(name)[0].matches(Seen::Bulk(&other_tag)), "{name}");
            let mut other_command = wire.clone();
            other_command[15] ^= 1;
            assert!(!only(name)[0].matches(Seen::Bulk(&other_command)), "{name}");
        }
    }

    #[test]
    fn eject_is_allow_removal_and_stop_with_eject() {
        let eject = only("eject");
        let allow = bytes("5553424387654321000000000000061e000000000000000000000000000000");
        let stop = bytes("5553424397654321000000000000061b000000020000000000000000000000");
        let other_lun = bytes("5553424397654321000000000001061b000000020000000000000000000000");
        assert!(eject[0].matches(Seen::Bulk(&allow)) && eject[1].matches(Seen::Bulk(&stop)));
        assert!(!eject[1].matches(Seen::Bulk(&other_lun)));
    }

    #[test]
    fn control_needs_its_data() {
        let qisda = only("qisda");
        let setup = [0x40, 4, 0, 0, 0, 0, 16, 0];
        assert!(!qisda[0].matches(Seen::Control(&setup, &[0; 16])));
        assert!(qisda[0].matches(Seen::Control(&setup, &bytes("058c0408a0ee20005c01040898cdeabf"))));
    }

    #[test]
    fn every_method_of_the_list_exists() {
        for (name, _) in METHODS {
            assert!(method(name, 2, &[vec![1]], 0).is_some(), "{name}");
        }
        assert_eq!(method("message", 0, &[], 0), None);
        assert_eq!(method("sony", 0, &[], 0).unwrap().len(), 2);
    }
}
