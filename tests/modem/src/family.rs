//! Families of modems whose USB composition is a single value in AT commands: the commands, and the form for each
//! value.

use crate::descriptors::{Configuration, Role};
use crate::radio::{Modem, Transition};
use std::time::Duration;

/// A family. In commands and replies, `{}` is the value.
pub struct Family {
    pub name: &'static str,
    pub manufacturer: &'static str,
    pub product: &'static str,
    read: &'static str,
    answer: &'static str,
    test: Option<(&'static str, &'static [&'static str])>,
    set: &'static str,
    /// The reply to a successful `set`, before OK.
    set_answer: &'static str,
    /// The command that restarts the modem. `None` with `set_restarts` if setting the composition restarts it.
    restart: Option<&'static str>,
    set_restarts: bool,
    also: &'static [(&'static str, &'static str)],
    pub forms: &'static [ValueForm],
}

/// The form of the modem with this value. The first value is the factory default.
pub struct ValueForm {
    pub value: &'static str,
    pub id: (u16, u16),
    pub build: fn(Configuration) -> Configuration,
    /// The command, if it differs from the family's `set`.
    set: &'static str,
}

const fn form(value: &'static str, vendor: u16, product: u16, build: fn(Configuration) -> Configuration) -> ValueForm {
    ValueForm { value, id: (vendor, product), build, set: "" }
}

const BLANK: Family = Family {
    name: "",
    manufacturer: "",
    product: "",
    read: "",
    answer: "",
    test: None,
    set: "",
    set_answer: "",
    restart: None,
    set_restarts: false,
    also: &[],
    forms: &[],
};

const TELIT: Family = Family {
    manufacturer: "Telit Wireless Solutions",
    read: "#USBCFG?",
    answer: "#USBCFG: {}",
    test: Some(("#USBCFG=?", &["#USBCFG: (0-3)"])),
    set: "#USBCFG={}",
    set_restarts: true,
    ..BLANK
};

/// Qualcomm's order: diagnostics, NMEA, AT, modem, then the network function.
fn quectel(network: fn(Configuration, u8) -> Configuration) -> impl Fn(Configuration) -> Configuration {
    move |one| network(one.diag(0).serial(1, Role::Silent).serial(2, Role::At).serial(3, Role::Silent), 4)
}

/// The network function is first, then diagnostics, NMEA, AT: the AT port moves from interface 2 to 4.
fn network_first(network: fn(Configuration, u8) -> Configuration) -> impl Fn(Configuration) -> Configuration {
    move |one| network(one, 0).diag(2).serial(3, Role::Silent).serial(4, Role::At)
}

/// Unisoc: the network function is first, then AT ports.
fn unisoc(network: fn(Configuration, u8) -> Configuration) -> impl Fn(Configuration) -> Configuration {
    move |one| network(one, 0).serial(2, Role::At).serial(3, Role::Silent).serial(4, Role::Silent)
}

/// Older Telit modems: interface 1 is a debug bridge, and the AT port has no protocol of its own.
fn older_telit(network: fn(Configuration, u8) -> Configuration, at: u8) -> impl Fn(Configuration) -> Configuration {
    move |one| network(one.diag(0), 2).serial(at - 1, Role::Silent).serial(at, Role::At)
}

/// Telit modems since 2020: the AT port has protocol 0x40.
fn telit(network: fn(Configuration, u8) -> Configuration) -> impl Fn(Configuration) -> Configuration {
    move |one| {
        network(one.diag(0), 2).serial_of(4, Role::Silent, (0xff, 0xff, 0x60)).serial_of(
            5,
            Role::At,
            (0xff, 0xff, 0x40),
        )
    }
}

fn acm_first(network: fn(Configuration, u8) -> Configuration) -> impl Fn(Configuration) -> Configuration {
    move |one| network(one.acm_of(0, Role::At, 0).acm_of(2, Role::Silent, 0), 4)
}

pub(crate) const FAMILIES: &[Family] = &[
    Family {
        name: "ec25",
        manufacturer: "Quectel",
        product: "EC25-AF",
        read: "+QCFG=\"usbnet\"",
        answer: "+QCFG: \"usbnet\",{}",
        test: Some((
            "+QCFG=?",
            &["+QCFG: \"gprsattach\",(0,1)", "+QCFG: \"usbnet\",(0-3)", "+QCFG: \"usbspeed\",(0,1)"],
        )),
        set: "+QCFG=\"usbnet\",{}",
        restart: Some("+CFUN=1,1"),
        also: &[("+QCFG=\"data_interface\"", "+QCFG: \"data_interface\",0,0")],
        forms: &[
            form("0", 0x2c7c, 0x0125, |one| quectel(Configuration::qmi)(one)),
            form("1", 0x2c7c, 0x0125, |one| quectel(Configuration::ecm)(one)),
            form("2", 0x2c7c, 0x0125, |one| quectel(Configuration::mbim)(one)),
            form("3", 0x2c7c, 0x0125, |one| network_first(Configuration::rndis)(one)),
        ],
        ..BLANK
    },
    Family {
        name: "rm500u",
        manufacturer: "Quectel, Incorporated",
        product: "RM500U-CN",
        read: "+QCFG=\"usbnet\"",
        answer: "+QCFG: \"usbnet\",{}",
        test: Some(("+QCFG=?", &["+QCFG: \"usbnet\",(1,2,3,5)"])),
        set: "+QCFG=\"usbnet\",{}",
        restart: Some("+CFUN=1,1"),
        forms: &[
            form("1", 0x2c7c, 0x0900, |one| network_first(Configuration::ecm)(one)),
            form("5", 0x2c7c, 0x0900, |one| network_first(Configuration::ncm)(one)),
        ],
        ..BLANK
    },
    Family {
        name: "l850",
        manufacturer: "FIBOCOM",
        product: "L850-GL",
        read: "+GTUSBMODE?",
        answer: "+GTUSBMODE: {}",
        test: Some(("+GTUSBMODE=?", &["+GTUSBMODE: (0,7,9)"])),
        set: "+GTUSBMODE={}",
        restart: Some("+CFUN=15"),
        forms: &[
            // usb-devices in 4IceG/luci-app-3ginfo-lite, issue 82. The ID of value 9 is not known.
            form("7", 0x2cb7, 0x0007, |one| {
                one.mbim(0).acm_of(2, Role::At, 0).acm_of(4, Role::Silent, 0).acm_of(6, Role::At, 0)
            }),
            form("0", 0x8087, 0x095a, |one| acm_first(Configuration::ncm)(one)),
            form("9", 0x2cb7, 0x0007, |one| acm_first(Configuration::ncm)(one)),
        ],
        ..BLANK
    },
    Family {
        name: "fm350",
        manufacturer: "Fibocom Wireless Inc.",
        product: "FM350-GL",
        read: "+GTUSBMODE?",
        answer: "+GTUSBMODE: {}",
        test: Some(("+GTUSBMODE=?", &["+GTUSBMODE: (40,41)"])),
        set: "+GTUSBMODE={}",
        restart: Some("+CFUN=15"),
        also: &[("+GTDIPCMODE?", "+GTDIPCMODE: 3,1,1,1,3,15")],
        forms: &[
            form("40", 0x0e8d, 0x7126, |one| network_first(Configuration::rndis)(one)),
            form("41", 0x0e8d, 0x7127, |one| network_first(Configuration::rndis)(one)),
        ],
        ..BLANK
    },
    Family {
        name: "fm160",
        manufacturer: "Fibocom",
        product: "Fibocom FM160 Modem",
        read: "+GTUSBMODE?",
        answer: "+GTUSBMODE: {}",
        test: Some(("+GTUSBMODE=?", &["+GTUSBMODE: (17-18,20-21,24,29-33)"])),
        set: "+GTUSBMODE={}",
        restart: Some("+CFUN=15"),
        forms: &[
            form("32", 0x2cb7, 0x0104, |one| quectel(Configuration::qmi)(one)),
            form("30", 0x2cb7, 0x0111, |one| {
                one.mbim(0).serial_of(2, Role::Silent, (0xff, 0xff, 0x40)).diag(3).serial_of(
                    4,
                    Role::At,
                    (0xff, 0xff, 0x40),
                )
            }),
            form("18", 0x2cb7, 0x0105, |one| quectel(Configuration::ecm)(one)),
        ],
        ..BLANK
    },
    Family {
        name: "fg650",
        manufacturer: "Fibocom Wireless Inc.",
        product: "Fibocom FG650 Module",
        read: "+GTUSBMODE?",
        answer: "+GTUSBMODE: {}",
        test: Some(("+GTUSBMODE=?", &["+GTUSBMODE: (36,40)"])),
        set: "+GTUSBMODE={}",
        restart: Some("+CFUN=15"),
        forms: &[
            form("36", 0x2cb7, 0x0a05, |one| unisoc(Configuration::ncm)(one)),
            form("40", 0x2cb7, 0x0a07, |one| unisoc(Configuration::mbim)(one)),
        ],
        ..BLANK
    },
    Family {
        name: "fn990",
        product: "FN990A28",
        forms: &[
            form("1", 0x1bc7, 0x1070, |one| telit(Configuration::qmi)(one)),
            form("2", 0x1bc7, 0x1071, |one| telit(Configuration::mbim)(one)),
            form("3", 0x1bc7, 0x1073, |one| telit(Configuration::ecm)(one)),
        ],
        ..TELIT
    },
    Family {
        name: "fn980",
        product: "FN980m",
        forms: &[
            form("1", 0x1bc7, 0x1050, |one| older_telit(Configuration::qmi, 4)(one)),
            form("2", 0x1bc7, 0x1051, |one| older_telit(Configuration::mbim, 5)(one)),
        ],
        ..TELIT
    },
    Family {
        name: "le910c4",
        manufacturer: "Telit",
        product: "LE910C4-EU",
        test: Some(("#USBCFG=?", &["#USBCFG: (0-14)"])),
        forms: &[
            form("0", 0x1bc7, 0x1201, |one| older_telit(Configuration::qmi, 4)(one)),
            form("4", 0x1bc7, 0x1206, |one| older_telit(Configuration::ecm, 5)(one)),
        ],
        ..TELIT
    },
    // Whether its values are those of FN990A is not known: this is one possibility.
    Family {
        name: "ln920",
        product: "LN920A6-WW",
        forms: &[
            form("1", 0x1bc7, 0x1060, |one| older_telit(Configuration::qmi, 4)(one)),
            form("2", 0x1bc7, 0x1061, |one| older_telit(Configuration::mbim, 5)(one)),
        ],
        ..TELIT
    },
    Family {
        name: "toby-l2",
        manufacturer: "u-blox",
        product: "TOBY-L210",
        read: "+UUSBCONF?",
        answer: "+UUSBCONF: {},\"\",,\"0x1141\"",
        restart: Some("+CFUN=16"),
        forms: &[
            ValueForm {
                value: "0",
                id: (0x1546, 0x1141),
                build: |one| one.acm(0, Role::At).acm(2, Role::Silent),
                set: "+UUSBCONF=0,\"\",0",
            },
            ValueForm {
                value: "2",
                id: (0x1546, 0x1143),
                build: |one| one.ecm(0).acm(2, Role::At),
                set: "+UUSBCONF=2,\"ECM\"",
            },
        ],
        ..BLANK
    },
    Family {
        name: "e3372",
        manufacturer: "HUAWEI_MOBILE",
        product: "HUAWEI_MOBILE",
        read: "^SETPORT?",
        answer: "^SETPORT:{}",
        test: Some((
            "^SETPORT=?",
            &[
                "^SETPORT:3: 3G DIAG",
                "^SETPORT:10: 4G MODEM",
                "^SETPORT:12: 4G PCUI",
                "^SETPORT:16: NCM",
                "^SETPORT:A1: CDROM",
                "^SETPORT:A2: SD",
            ],
        )),
        set: "^SETPORT=\"{}\"",
        restart: Some("^RESET"),
        forms: &[
            form("A1,A2;12,10,16,A1,A2", 0x12d1, 0x155e, |one| {
                one.serial_of(0, Role::Silent, (0xff, 2, 0x10))
                    .serial_of(1, Role::At, (0xff, 2, 0x12))
                    .ncm_of(2, (0xff, 3, 0x16))
                    .storage(4)
            }),
            form("FF;10,12,16", 0x12d1, 0x155e, |one| {
                one.serial_of(0, Role::Silent, (0xff, 2, 0x10))
                    .serial_of(1, Role::At, (0xff, 2, 0x12))
                    .ncm_of(2, (0xff, 3, 0x16))
            }),
        ],
        ..BLANK
    },
    Family {
        name: "mt5700",
        manufacturer: "Huawei Technologies Co., Ltd.",
        product: "MT5700M",
        read: "^SETMODE?",
        answer: "{}",
        test: Some(("^SETMODE=?", &["^SETMODE:(0-8)"])),
        set: "^SETMODE={}",
        set_restarts: true,
        forms: &[
            form("0", 0x12d1, 0x15c1, |one| one.ecm(0).serial_of(2, Role::At, (0xff, 6, 0x12))),
            form("7", 0x12d1, 0x15c1, |one| one.mbim(0).serial_of(2, Role::At, (0xff, 6, 0x12))),
            form("4", 0x12d1, 0x15c1, |one| one.ncm(0).serial_of(2, Role::At, (0xff, 6, 0x12))),
        ],
        ..BLANK
    },
    Family {
        name: "mf627",
        manufacturer: "ZTE,Incorporated",
        product: "ZTE WCDMA Technologies MSM",
        read: "+ZCDRUN=4",
        answer: "Inquiry autorun open state result(0:NO 1:YES):{}",
        set_answer: "Close autorun state result(0:FAIL 1:SUCCESS):1",
        forms: &[
            ValueForm {
                value: "1",
                id: (0x19d2, 0x0031),
                build: |one| one.diag(0).serial_of(1, Role::At, (0xff, 0xff, 0xff)).storage(2),
                set: "+ZCDRUN=9",
            },
            ValueForm {
                value: "0",
                id: (0x19d2, 0x0031),
                build: |one| one.diag(0).serial_of(1, Role::At, (0xff, 0xff, 0xff)),
                set: "+ZCDRUN=8",
            },
        ],
        ..BLANK
    },
    Family {
        name: "sim7600",
        manufacturer: "SimTech, Incorporated",
        product: "SimTech, Incorporated",
        read: "+CUSBPIDSWITCH?",
        answer: "+CUSBPIDSWITCH: {}",
        test: Some(("+CUSBPIDSWITCH=?", &["+CUSBPIDSWITCH: (9000,9001,9002,9003,9011,9018,901E),(0-1),(0-1)"])),
        set: "+CUSBPIDSWITCH={},1,1",
        set_restarts: true,
        forms: &[
            form("9001", 0x1e0e, 0x9001, |one| {
                one.diag(0)
                    .serial(1, Role::Silent)
                    .serial(2, Role::At)
                    .serial(3, Role::Silent)
                    .serial(4, Role::Silent)
                    .qmi(5)
            }),
            form("9011", 0x1e0e, 0x9011, |one| network_first(Configuration::rndis)(one)),
        ],
        ..BLANK
    },
    Family {
        name: "sim8200",
        manufacturer: "QCOM",
        product: "SDXPRAIRIE-MTP",
        read: "+CUSBCFG?",
        answer: "USBID: 0X1E0E,0X{}",
        set: "+CUSBCFG=usbid,1e0e,{}",
        restart: Some("+CFUN=1,1"),
        also: &[("+CPCIEMODE?", "+CPCIEMODE: RC")],
        forms: &[
            form("9001", 0x1e0e, 0x9001, |one| {
                one.diag(0)
                    .serial(1, Role::Silent)
                    .serial(2, Role::At)
                    .serial(3, Role::Silent)
                    .serial(4, Role::Silent)
                    .qmi(5)
            }),
            form("9011", 0x1e0e, 0x9011, |one| network_first(Configuration::rndis)(one)),
        ],
        ..BLANK
    },
    Family {
        name: "gm800",
        manufacturer: "GSW",
        product: "GSW_GM800",
        read: "+ZSWITCH?",
        answer: "+ZSWITCH: {}",
        test: Some(("+ZSWITCH=?", &["+ZSWITCH: (l,r,x)"])),
        set: "+ZSWITCH={}",
        restart: Some("+CFUN=1,1"),
        forms: &[
            form("l", 0x305a, 0x1406, |one| one.diag(0).serial(1, Role::At).serial(2, Role::Silent).ecm(3)),
            form("r", 0x305a, 0x1404, |one| one.rndis(0).diag(2).serial(5, Role::At)),
        ],
        ..BLANK
    },
    Family {
        name: "slm770",
        manufacturer: "MEIG",
        product: "LTE-A Module",
        read: "+SER?",
        answer: "+SER: {}",
        test: Some(("+SER=?", &["+SER: (1-3),(0,1)"])),
        set: "+SER={},1",
        set_restarts: true,
        forms: &[
            form("3", 0x2dee, 0x4d57, |one| one.rndis(0).diag(2).serial(3, Role::At)),
            form("2", 0x2dee, 0x4d58, |one| one.ecm(0).diag(2).serial(3, Role::At)),
        ],
        ..BLANK
    },
    Family {
        name: "t99w175-usb",
        manufacturer: "Qualcomm",
        product: "Snapdragon X55 5G",
        read: "^USBSWITCH?",
        answer: "^USBSWITCH: {}",
        set: "^USBSWITCH={}",
        restart: Some("+CFUN=1,1"),
        also: &[("^PCIEMODE?", "^PCIEMODE: 0")],
        forms: &[
            form("90d5", 0x05c6, 0x90d5, |one| one.mbim(0).diag(2).serial(3, Role::At)),
            form("9025", 0x05c6, 0x9025, |one| one.diag(0).serial(2, Role::At).qmi(4)),
        ],
        ..BLANK
    },
];

/// The family with this name, and its factory default.
pub(crate) fn first_value(name: &str) -> Option<(&'static Family, &'static str)> {
    let family = FAMILIES.iter().find(|family| family.name == name)?;
    Some((family, family.forms.first()?.value))
}

impl Family {
    fn form_set_by(&self, command: &str) -> Option<&'static str> {
        let sets = |form: &&ValueForm| {
            let set = if form.set.is_empty() { self.set.replace("{}", form.value) } else { form.set.to_owned() };
            set.eq_ignore_ascii_case(command)
        };
        self.forms.iter().find(sets).map(|form| form.value)
    }

    pub fn form(&self, value: &str) -> Option<&'static ValueForm> {
        self.forms.iter().find(|form| form.value == value)
    }
}

/// The reply to a command of the modem's family, given without AT. `None` for other commands.
pub(crate) fn answer(modem: &mut Modem, command: &str) -> Option<Result<Vec<String>, String>> {
    let (family, value) = modem.family?;
    let is = |known: &str| known.eq_ignore_ascii_case(command);
    let lines = |lines: &[&str]| Some(Ok(lines.iter().map(|line| (*line).to_owned()).collect()));
    if is(family.read) {
        return lines(&[&family.answer.replace("{}", value)]);
    }
    if let Some((test, listed)) = family.test.filter(|(test, _)| is(test)) {
        return if modem.faults.has("no-test-command") && is(test) { Some(Err("ERROR".into())) } else { lines(listed) };
    }
    if let Some((_, answer)) = family.also.iter().find(|(command, _)| is(command)) {
        return lines(&[answer]);
    }
    if family.restart.is_some_and(is) {
        modem.transitions.push((Duration::from_millis(50), Transition::Reset));
        return lines(&[]);
    }
    let set = family.form_set_by(command)?;
    if !modem.faults.has("composition-ignored") {
        modem.family = Some((family, set));
    }
    if family.set_restarts {
        modem.transitions.push((Duration::from_millis(50), Transition::Reset));
    }
    if family.set_answer.is_empty() { lines(&[]) } else { lines(&[family.set_answer]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;

    #[test]
    fn every_family_reports_and_accepts_each_of_its_values() {
        for family in FAMILIES {
            let mut modem = Modem::of(&models::row(family.name).unwrap().model());
            for form in family.forms {
                let set = if form.set.is_empty() { family.set.replace("{}", form.value) } else { form.set.to_owned() };
                assert!(answer(&mut modem, &set).is_some_and(|answer| answer.is_ok()), "{}", family.name);
                let read = answer(&mut modem, family.read).unwrap().unwrap();
                assert!(read[0].contains(form.value), "{}: {read:?}", family.name);
                let built = (form.build)(Configuration::new(1));
                assert!(built.roles.iter().any(|(_, role)| *role == Role::At), "{}", family.name);
            }
            assert_eq!(answer(&mut modem, "+NONSENSE"), None);
        }
    }
}
