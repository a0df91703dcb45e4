//! The modems: a table of their properties, and the forms that each modem takes on the bus.

use std::sync::LazyLock;

use crate::challenge::{Number, Order};
use crate::composition::Composition;
use crate::descriptors::{self, Configuration, Role};
use crate::family::{FAMILIES, Family};
use crate::install::{Expect, sierra};
use crate::qmi;
use crate::radio::{Identity, Lock};
use crate::transcript::from_hex;

/// The layout of a modem on the bus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Sierra's interface numbers, in this USB composition.
    Sierra(u8),
    /// Sierra's interface numbers, with this interface bitmask.
    SierraMask(u32),
    /// QMI on interface 0, then serial ports.
    Gobi,
    /// Only serial ports, with AT on 3.
    Serial,
    /// Configuration 1 QMI on interface 0 with serial ports, configuration 2 MBIM.
    FoxconnDual,
    /// MBIM on 0 and 1, then diagnostics, AT and another port.
    Mbim,
    /// RNDIS on 0 and 1, other ports, a debug bridge, then AT on this interface, as on a T7xx.
    Rndis(u8),
    /// HP lt4120: QMI on interface 1, ECM, MBIM.
    QmiEcmMbim,
    /// Huawei's layout: serial ports, ECM, MBIM.
    SerialEcmMbim,
    /// A disk.
    Disk,
    /// A disk and a debug port, as on phones.
    Phone,
    /// The layout of the first value of this entry of [`FAMILIES`].
    Family(usize),
}

/// The AT dialect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dialect {
    /// AT!UDPID and AT!UDUSBCOMP: MC77xx, MC73xx, EM73xx.
    SierraOld,
    /// AT!USBCOMP with configuration type 1: MC74xx, EM74xx.
    Sierra74,
    /// AT!USBCOMP with configuration type 3: EM75xx.
    Sierra75,
    /// AT!USBCOMP with configuration type 4: EM919x, EM929x.
    Sierra91,
    Plain,
}

pub struct Row {
    pub name: &'static str,
    pub id: (u16, u16),
    pub manufacturer: &'static str,
    pub product: &'static str,
    pub revision: &'static str,
    pub shape: Shape,
    pub dialect: Dialect,
    pub lock: Lock,
    /// The QMI error of a request to go online while locked.
    pub online_error: u16,
    /// Whether the modem first comes up as 1199:0fff.
    pub install: bool,
    pub note: &'static str,
}

const SIERRA: &str = "Sierra Wireless, Incorporated";

const fn sierra_row(
    name: &'static str,
    product_id: u16,
    product: &'static str,
    shape: Shape,
    note: &'static str,
) -> Row {
    Row {
        name,
        id: (0x1199, product_id),
        manufacturer: SIERRA,
        product,
        revision: "SWI9X15C_05.05.58.00 r27038 carmd-fwbuild1 2015/03/04 21:30:23",
        shape,
        dialect: Dialect::SierraOld,
        lock: Lock::Sierra,
        online_error: qmi::error::INTERNAL,
        install: false,
        note,
    }
}

const fn fm350_row(name: &'static str, product_id: u16, at: u8, note: &'static str) -> Row {
    Row {
        id: (0x0e8d, product_id),
        manufacturer: "MediaTek Inc.",
        revision: "81600.0000.00.29.23.06",
        dialect: Dialect::Plain,
        ..sierra_row(name, 0, "Fibocom FM350-GL", Shape::Rndis(at), note)
    }
}

const fn em9xxx_row(name: &'static str, product_id: u16, product: &'static str) -> Row {
    Row {
        revision: "SWIX55C_03.10.07.00 e32f05 jenkins 2022/12/14 16:18:06",
        dialect: Dialect::Sierra91,
        lock: Lock::Free,
        ..sierra_row(name, product_id, product, Shape::SierraMask(0x1009), "MBIM and AT, AT!USBCOMP of type MBIM V2")
    }
}

pub const ROWS: &[Row] = &[
    Row {
        install: true,
        revision: "SWI9200X_03.05.29.03ap r6485 CNSHZ-ED-XP0031 2014/12/02 17:53:15",
        ..sierra_row("mc7710", 0x68a2, "MC7710", Shape::Sierra(14), "install mode 1199:0fff, then QMI + MBIM, locked")
    },
    Row {
        revision: "SWI9200X_03.05.29.03ap r6485 CNSHZ-ED-XP0031 2014/12/02 17:53:15",
        ..sierra_row("mc7710-modem", 0x68a2, "MC7710", Shape::Sierra(14), "without install mode, QMI + MBIM, locked")
    },
    Row {
        lock: Lock::Free,
        ..sierra_row(
            "directip",
            0x68a3,
            "MC7710",
            Shape::Serial,
            "MC7710 as DirectIP modem: serial ports, AT on interface 3",
        )
    },
    sierra_row("mc7355", 0x9041, "MC7355", Shape::Sierra(14), "QMI + MBIM, locked"),
    sierra_row("em7355", 0x901f, "EM7355", Shape::Sierra(14), "QMI + MBIM, locked"),
    Row { lock: Lock::Free, ..sierra_row("mc8305", 0x9011, "MC8305", Shape::Gobi, "Gobi, QMI on interface 0") },
    Row {
        dialect: Dialect::Sierra74,
        ..sierra_row("em7455", 0x9071, "EM7455", Shape::Sierra(9), "one configuration, MBIM, locked")
    },
    Row {
        dialect: Dialect::Sierra74,
        ..sierra_row("em7455-at", 0x9071, "EM7455", Shape::Sierra(8), "one configuration, MBIM and AT, locked")
    },
    Row {
        dialect: Dialect::Sierra74,
        ..sierra_row("em7455-qmi", 0x9071, "EM7455", Shape::Sierra(6), "one configuration, QMI, locked")
    },
    Row {
        online_error: qmi::error::INVALID_TRANSITION,
        dialect: Dialect::Sierra74,
        ..sierra_row("em7455-lenovo", 0x9079, "EM7455", Shape::Sierra(9), "Lenovo's, one configuration, MBIM, locked")
    },
    Row {
        dialect: Dialect::Sierra75,
        ..sierra_row("em7565", 0x9091, "EM7565", Shape::Sierra(8), "one configuration, MBIM and AT, locked")
    },
    em9xxx_row("em9191", 0x90d3, "Sierra Wireless EM9191"),
    em9xxx_row("em9291", 0x90e3, "Sierra Wireless EM9291"),
    Row {
        id: (0x03f0, 0x4e1d),
        manufacturer: "HP",
        ..sierra_row(
            "lt4111",
            0,
            "HP lt4111 LTE/EV-DO/HSPA+ Gobi 4G Module",
            Shape::Sierra(14),
            "EM7355 of HP, QMI + MBIM, locked",
        )
    },
    Row {
        id: (0x413c, 0x81a3),
        manufacturer: "Sierra Wireless, Inc.",
        ..sierra_row(
            "dw5570",
            0,
            "Dell Wireless 5570 HSPA+ (42Mbps) Mobile Broadband Card",
            Shape::Sierra(14),
            "MC8805 of Dell, QMI + MBIM, locked",
        )
    },
    Row {
        id: (0x413c, 0x81a8),
        manufacturer: "Sierra Wireless, Inc.",
        ..sierra_row(
            "dw5808",
            0,
            "Dell Wireless 5808 Gobi 4G LTE Mobile Broadband Card",
            Shape::Sierra(14),
            "MC7355 of Dell, QMI + MBIM, locked",
        )
    },
    Row {
        id: (0x413c, 0x81b6),
        manufacturer: "Sierra Wireless, Incorporated",
        dialect: Dialect::Sierra74,
        ..sierra_row(
            "dw5811e",
            0,
            "DW5811e Snapdragon X7 LTE",
            Shape::Sierra(9),
            "EM7455 of Dell, one configuration, MBIM, locked",
        )
    },
    Row {
        id: (0x413c, 0x81b6),
        dialect: Dialect::Sierra74,
        ..sierra_row(
            "dw5811e-at",
            0,
            "DW5811e Snapdragon X7 LTE",
            Shape::SierraMask(0x20_100d),
            "EM7455 of Dell, MBIM and AT, and a bit that AT!USBCOMP=? does not list, locked",
        )
    },
    Row {
        id: (0x413c, 0x81d7),
        manufacturer: "DELL",
        dialect: Dialect::Plain,
        lock: Lock::Free,
        ..sierra_row(
            "dw5821e",
            0,
            "DW5821e Snapdragon X20 LTE",
            Shape::FoxconnDual,
            "T77W968 of Dell, QMI on interface 0 + MBIM",
        )
    },
    Row {
        id: (0x03f0, 0x9d1d),
        manufacturer: "Hewlett-Packard",
        dialect: Dialect::Plain,
        lock: Lock::Free,
        ..sierra_row(
            "lt4120",
            0,
            "HP lt4120 Snapdragon X5 LTE",
            Shape::QmiEcmMbim,
            "three configurations: QMI on interface 1, ECM, MBIM",
        )
    },
    Row {
        id: (0x12d1, 0x15c1),
        manufacturer: "Huawei Technologies Co., Ltd.",
        dialect: Dialect::Plain,
        lock: Lock::Free,
        ..sierra_row(
            "me906s",
            0,
            "HUAWEI Mobile Broadband Module",
            Shape::SerialEcmMbim,
            "three configurations: serial, ECM, MBIM",
        )
    },
    Row {
        id: (0x03f0, 0xa31d),
        manufacturer: "HP",
        dialect: Dialect::Plain,
        lock: Lock::Free,
        ..sierra_row(
            "lt4132",
            0,
            "HP lt4132 LTE/HSPA+ 4G Module",
            Shape::SerialEcmMbim,
            "ME906s of HP: serial, ECM, MBIM",
        )
    },
    Row {
        id: (0x2c7c, 0x030a),
        manufacturer: "Quectel",
        revision: "EM05GFAR07A07M1G_01.016.01.016",
        dialect: Dialect::Plain,
        lock: Lock::Quectel,
        ..sierra_row("em05", 0, "EM05-G", Shape::Mbim, "MBIM, locked, Quectel radio state")
    },
    Row {
        id: (0x05c6, 0x90d5),
        manufacturer: "Qualcomm",
        revision: "T99W175.F0.1.0.0.9.GC.004",
        dialect: Dialect::Plain,
        lock: Lock::FoxconnV2,
        ..sierra_row("t99w175", 0, "Snapdragon X55 5G", Shape::Mbim, "MBIM, locked, Foxconn version 2")
    },
    Row {
        id: (0x05c6, 0x90d5),
        manufacturer: "Qualcomm",
        revision: "T99W175.F0.1.0.0.5.GC.003",
        dialect: Dialect::Plain,
        lock: Lock::FoxconnV1,
        ..sierra_row("t99w175-v1", 0, "Snapdragon X55 5G", Shape::Mbim, "MBIM, locked, Foxconn version 1")
    },
    Row {
        id: (0x33f8, 0x01a4),
        manufacturer: "Rolling Wireless S.a.r.l.",
        revision: "19806.1000.00.02.76.08",
        dialect: Dialect::Plain,
        lock: Lock::Gtfcclock { order: Order::Big, number: Number::Hex, is_xmm: false },
        ..sierra_row(
            "rw101",
            0,
            "Rolling RW101R-GL Module",
            Shape::Mbim,
            "MBIM and AT, locked, SHA-256 challenge on AT",
        )
    },
    Row {
        lock: Lock::Gtfcclock { order: Order::Big, number: Number::Decimal, is_xmm: false },
        ..fm350_row("fm350-41", 0x7127, 6, "FM350-GL in USB mode 41: RNDIS, AT on interface 6, locked, challenge on AT")
    },
    Row {
        lock: Lock::Gtfcclock { order: Order::Big, number: Number::Decimal, is_xmm: false },
        ..fm350_row("fm350-40", 0x7126, 4, "FM350-GL in USB mode 40: RNDIS, AT on interface 4, locked, challenge on AT")
    },
    Row {
        id: (0x0781, 0x5567),
        manufacturer: "SanDisk",
        dialect: Dialect::Plain,
        lock: Lock::Free,
        ..sierra_row("stick", 0, "Cruzer Blade", Shape::Disk, "a flash drive, no modem")
    },
    Row {
        id: (0x12d1, 0x1038),
        manufacturer: "Android",
        dialect: Dialect::Plain,
        lock: Lock::Free,
        ..sierra_row("phone", 0, "Android Phone", Shape::Phone, "a phone with a modem maker's vendor id, no modem")
    },
    Row {
        id: (0x12d1, 0x1446),
        manufacturer: "HUAWEI Technology",
        dialect: Dialect::Plain,
        lock: Lock::Free,
        ..sierra_row("install", 0, "HUAWEI Mobile", Shape::Serial, "any stick in install mode, see --method")
    },
];

/// One model for each family.
static FAMILY_ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let row = |(index, family): (usize, &'static Family)| Row {
        id: family.forms[0].id,
        manufacturer: family.manufacturer,
        dialect: Dialect::Plain,
        lock: Lock::Free,
        ..sierra_row(
            family.name,
            0,
            family.product,
            Shape::Family(index),
            "USB compositions by AT commands, not locked",
        )
    };
    FAMILIES.iter().enumerate().map(row).collect()
});

pub fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(FAMILY_ROWS.iter())
}

pub fn row(name: &str) -> Option<&'static Row> {
    rows().find(|row| row.name == name)
}

/// The properties of a device on the bus, from one attach to the next.
#[derive(Clone, Debug)]
pub struct Form {
    pub device: [u8; 18],
    pub configurations: Vec<Configuration>,
    /// Manufacturer, product, serial.
    pub strings: [String; 3],
    pub scsi: Scsi,
    /// The traffic that makes the device leave. The device enumerates again between the stages. Empty: the device
    /// stays.
    pub switch: Vec<Vec<Expect>>,
}

/// The properties of the drive, as INQUIRY reports them.
#[derive(Clone, Debug, PartialEq)]
pub struct Scsi {
    pub vendor: String,
    pub model: String,
    pub revision: String,
    /// Whether the drive is a CD-ROM drive and not a disk.
    pub cdrom: bool,
    /// The bytes of a write-protected medium. Empty: a small medium of zeros.
    pub medium: Vec<u8>,
}

impl Form {
    pub fn id(&self) -> (u16, u16) {
        let word = |at: usize| u16::from_le_bytes([self.device[at], self.device[at + 1]]);
        (word(8), word(10))
    }

    pub fn set_id(&mut self, (vendor, product): (u16, u16)) {
        self.device[8..10].copy_from_slice(&vendor.to_le_bytes());
        self.device[10..12].copy_from_slice(&product.to_le_bytes());
    }

    pub fn installs(&self) -> bool {
        !self.switch.is_empty()
    }

    fn new(id: (u16, u16), configurations: Vec<Configuration>, strings: [&str; 3]) -> Form {
        let count = configurations.len() as u8;
        let scsi = |cdrom| Scsi {
            vendor: strings[0].chars().take(8).collect(),
            model: if cdrom { "TRU-Install".into() } else { strings[1].chars().take(16).collect() },
            revision: "2.31".into(),
            cdrom,
            medium: Vec::new(),
        };
        Form {
            device: descriptors::device(id.0, id.1, 0, 0x0200, count),
            configurations,
            strings: strings.map(str::to_owned),
            scsi: scsi(id == TRU_INSTALL),
            switch: Vec::new(),
        }
    }
}

const TRU_INSTALL: (u16, u16) = (0x1199, 0x0fff);
pub const SERIAL: &str = "358178040012345";

/// A complete modem: its forms, in the order in which it takes them.
pub struct Model {
    pub forms: Vec<Form>,
    pub identity: Identity,
    pub dialect: Dialect,
    pub lock: Lock,
    pub online_error: u16,
    pub composition: Option<Composition>,
    /// The family and its first value.
    pub family: Option<(&'static Family, &'static str)>,
}

impl Row {
    pub fn model(&self) -> Model {
        let composition = match self.shape {
            Shape::Sierra(number) => Some(Composition::numbered(number)),
            Shape::SierraMask(mask) => Some(Composition::masked(mask)),
            _ if self.name == "directip" => Some(Composition::numbered(1)),
            _ => None,
        };
        let modem = Form::new(self.id, self.configurations(), [self.manufacturer, self.product, SERIAL]);
        let install = self.install.then(|| {
            let strings = [SIERRA, "Sierra Wireless TRU-Install", SERIAL];
            let mut form = Form::new(TRU_INSTALL, vec![Configuration::new(1).storage(0)], strings);
            form.switch = vec![sierra()];
            form
        });
        Model {
            forms: install.into_iter().chain([modem]).collect(),
            identity: Identity {
                manufacturer: self.manufacturer.into(),
                model: self.product.into(),
                revision: self.revision.into(),
                imei: SERIAL.into(),
            },
            dialect: self.dialect,
            lock: self.lock,
            online_error: self.online_error,
            composition,
            family: self.family(),
        }
    }

    fn family(&self) -> Option<(&'static Family, &'static str)> {
        let Shape::Family(index) = self.shape else { return None };
        Some((&FAMILIES[index], FAMILIES[index].forms[0].value))
    }

    fn configurations(&self) -> Vec<Configuration> {
        let one = Configuration::new(1);
        match self.shape {
            Shape::Sierra(number) => Composition::numbered(number).configurations(self.dialect),
            Shape::SierraMask(mask) => Composition::masked(mask).configurations(self.dialect),
            Shape::Gobi => {
                vec![one.qmi(0).diag(1).serial(2, Role::At).serial(3, Role::Silent)]
            }
            Shape::Serial => vec![serial_ports(one)],
            Shape::FoxconnDual => {
                let qmi = one.qmi(0).serial(2, Role::At).serial(3, Role::Silent).diag(4);
                vec![qmi, Configuration::new(2).mbim(0).serial(2, Role::At)]
            }
            Shape::Mbim => vec![one.mbim(0).diag(2).serial(3, Role::At).serial(4, Role::Silent)],
            Shape::Rndis(at) => {
                let other =
                    |configuration: Configuration, number| configuration.bulk(number, Role::Silent, (0xff, 0, 0));
                let bridge = (2..at - 1).fold(one.rndis(0), other).bulk(at - 1, Role::Silent, (0xff, 0x42, 0x01));
                vec![bridge.serial(at, Role::At)]
            }
            Shape::QmiEcmMbim => {
                let qmi = one.diag(0).qmi(1).serial(2, Role::At);
                vec![qmi, Configuration::new(2).ecm(0).serial(2, Role::At), Configuration::new(3).mbim(0)]
            }
            Shape::SerialEcmMbim => {
                vec![serial_ports(one), Configuration::new(2).ecm(0), Configuration::new(3).mbim(0)]
            }
            Shape::Family(index) => vec![(FAMILIES[index].forms[0].build)(one)],
            Shape::Disk => vec![one.storage(0)],
            // The debug bridge has its own class.
            Shape::Phone => vec![one.storage(0).serial_of(1, Role::Silent, (0xff, 0x42, 0x01))],
        }
    }
}

/// The sierra driver requires ff/ff/ff on a DirectIP modem.
pub fn serial_ports(configuration: Configuration) -> Configuration {
    let class = (0xff, 0xff, 0xff);
    let silent = configuration.diag(0).serial_of(1, Role::Silent, class).serial_of(2, Role::Silent, class);
    silent.serial_of(3, Role::At, class)
}

/// The form of a DirectIP modem, which has no QMI.
pub fn direct_ip() -> Vec<Configuration> {
    vec![serial_ports(Configuration::new(1))]
}

/// Builds a model from the output of `wwan-quirks report`: the lines `descriptors = HEX`, and if they exist,
/// `manufacturer`, `product` and `serial`. Other text is ignored.
pub fn from_report(text: &str) -> Result<Model, String> {
    let value = |key: &str| {
        let of_line = |line: &str| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
        };
        text.lines().find_map(of_line)
    };
    let hex = value("descriptors").ok_or("no line `descriptors = HEX`")?;
    let blob = from_hex(&hex).ok_or("`descriptors` is not hex")?;
    let (device, configurations) = descriptors::parse(&blob).ok_or("`descriptors` is cut or not descriptors")?;
    let text = |key: &str, default: &str| value(key).unwrap_or_else(|| default.to_owned());
    let strings = [text("manufacturer", "Unknown"), text("product", "Modem"), text("serial", SERIAL)];
    let mut form = Form::new((0, 0), configurations, [&strings[0], &strings[1], &strings[2]]);
    form.device = device;
    if form.id() == TRU_INSTALL {
        form.switch = vec![sierra()];
        form.scsi.cdrom = true;
    }
    let sierra_made = matches!(form.id().0, 0x1199 | 0x0f3d | 0x114f | 0x413c | 0x03f0);
    Ok(Model {
        identity: Identity {
            manufacturer: strings[0].clone(),
            model: strings[1].clone(),
            revision: "1.0".into(),
            imei: SERIAL.into(),
        },
        forms: vec![form],
        dialect: Dialect::Plain,
        lock: if sierra_made { Lock::Sierra } else { Lock::Free },
        online_error: qmi::error::INTERNAL,
        composition: None,
        family: None,
    })
}

/// Parses `VID:PID`.
pub fn parse_id(text: &str) -> Option<(u16, u16)> {
    let (vendor, product) = text.split_once(':')?;
    Some((u16::from_str_radix(vendor, 16).ok()?, u16::from_str_radix(product, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_strings_fit() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(!ROWS[..index].iter().any(|other| other.name == row.name), "{}", row.name);
            let model = row.model();
            let modem = model.forms.last().unwrap();
            assert_eq!(modem.id(), row.id);
            assert_eq!(usize::from(modem.device[17]), modem.configurations.len());
        }
    }

    #[test]
    fn the_mc7710_starts_in_install_mode() {
        let model = row("mc7710").unwrap().model();
        let ids: Vec<_> = model.forms.iter().map(Form::id).collect();
        assert_eq!(ids, [(0x1199, 0x0fff), (0x1199, 0x68a2)]);
        assert!(model.forms[0].installs() && !model.forms[1].installs());
        assert_eq!(model.forms[1].configurations.len(), 2);
    }

    #[test]
    fn a_report_is_a_model() {
        let original = row("mc7355").unwrap().model().forms.remove(0);
        let mut blob = original.device.to_vec();
        original.configurations.iter().for_each(|c| blob.extend(&c.bytes));
        let text = format!("some words\nproduct = \"MC7355\"\ndescriptors = {}\n", crate::transcript::hex(&blob));
        let form = from_report(&text).unwrap().forms.remove(0);
        assert_eq!(form.id(), (0x1199, 0x9041));
        assert_eq!(form.strings[1], "MC7355");
        assert!(form.configurations[0].roles.contains(&(8, Role::Qmi)));
        assert!(form.configurations[1].roles.contains(&(12, Role::Mbim)));
        assert!(from_report("nothing").is_err());
        assert!(from_report("descriptors = 1201").is_err());
    }
}
