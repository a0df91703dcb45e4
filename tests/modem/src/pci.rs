//! PCI modems: functions of the kernel module in `tests/pci-modem`, and the modem behind their WWAN ports.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};

use crate::at::At;
use crate::challenge::{Number, Order};
use crate::device::Event;
use crate::family;
use crate::mbim::Mbim;
use crate::models::{Dialect, Model, SERIAL};
use crate::qmi;
use crate::radio::{Identity, Lock, Modem, Transition};
use crate::timers::Timers;
use crate::wdm::{Protocol, Wdm};

const NODE: &str = "/dev/pci-modem";
/// The length of the module's longest record.
const MAX_RECORD: usize = 64 * 1024;

/// Kernel drivers, by their number in the module.
#[derive(Clone, Copy, PartialEq)]
pub enum Driver {
    Mhi = 0,
    Iosm = 1,
    T7xx = 2,
}

/// Types of WWAN ports, by their number in the module.
#[derive(Clone, Copy, PartialEq)]
pub enum PortType {
    At = 0,
    Mbim = 1,
    Qmi = 2,
    Qcdm = 3,
    XmmRpc = 5,
}

pub struct Row {
    pub name: &'static str,
    pub id: (u16, u16),
    pub subsystem: (u16, u16),
    pub driver: Driver,
    pub ports: &'static [PortType],
    pub manufacturer: &'static str,
    pub product: &'static str,
    pub revision: &'static str,
    pub lock: Lock,
    pub dialect: Dialect,
    /// The family whose commands for the USB composition the modem accepts.
    pub family: Option<&'static str>,
    pub note: &'static str,
}

/// The ports that MHI modems have in addition to their own.
const MHI_PORTS: &[PortType] = &[PortType::Qcdm, PortType::Mbim, PortType::At];

const QUECTEL: Row = Row {
    name: "em120",
    id: (0x1eac, 0x1001),
    subsystem: (0x1eac, 0x1001),
    driver: Driver::Mhi,
    ports: MHI_PORTS,
    manufacturer: "Quectel",
    product: "EM120R-GL",
    revision: "EM120RGLAPR02A07M4G_01.001.01.001",
    lock: Lock::Quectel,
    dialect: Dialect::Plain,
    family: None,
    note: "EM120R-GL, MHI, Quectel radio state",
};

const T99W175: Row = Row {
    name: "t99w175-pci",
    id: (0x105b, 0xe0ab),
    subsystem: (0x105b, 0xe0ab),
    manufacturer: "Foxconn",
    product: "T99W175",
    revision: "T99W175.F0.1.0.0.9.GC.004",
    lock: Lock::FoxconnV2,
    note: "T99W175, MHI, Foxconn version 2",
    ..QUECTEL
};

const DW5934E: Row = Row {
    name: "dw5934e",
    id: (0x105b, 0xe11d),
    subsystem: (0x1028, 0x11d0),
    product: "DW5934e",
    revision: "FDE2.F0.3.2.0.3.TO.002",
    lock: Lock::Fox { service: qmi::FOXAP, magic: "FDE2" },
    note: "DW5934e, MHI, Foxconn's service FOXAP",
    ..T99W175
};

const FM350: Row = Row {
    name: "fm350-pci",
    id: (0x14c3, 0x4d75),
    subsystem: (0x1cf8, 0x3500),
    driver: Driver::T7xx,
    ports: &[PortType::At, PortType::Mbim],
    manufacturer: "MediaTek Inc.",
    product: "FM350-GL",
    revision: "81600.0000.00.29.23.06",
    lock: Lock::Gtfcclock { order: Order::Big, number: Number::Decimal, is_xmm: false },
    dialect: Dialect::Plain,
    family: Some("fm350"),
    note: "FM350-GL, t7xx, challenge on AT",
};

const L860: Row = Row {
    name: "l860",
    id: (0x8086, 0x7560),
    subsystem: (0x1cf8, 0x8521),
    driver: Driver::Iosm,
    ports: &[PortType::At, PortType::At, PortType::Mbim],
    manufacturer: "Fibocom",
    product: "L860-GL",
    revision: "18601.5001.00.01.00.17",
    lock: Lock::Gtfcclock { order: Order::Little, number: Number::Decimal, is_xmm: true },
    dialect: Dialect::Plain,
    family: None,
    note: "L860-GL, iosm, challenge on AT",
};

pub const ROWS: &[Row] = &[
    QUECTEL,
    Row {
        name: "em120-qmi",
        ports: &[PortType::Qcdm, PortType::Qmi, PortType::At],
        lock: Lock::Free,
        note: "with a QMI port, not locked",
        ..QUECTEL
    },
    T99W175,
    Row {
        name: "t99w175-pci-v1",
        revision: "T99W175.F0.1.0.0.5.GC.003",
        lock: Lock::FoxconnV1,
        note: "T99W175, MHI, Foxconn version 1",
        ..T99W175
    },
    FM350,
    Row {
        name: "dw5933e",
        id: (0x14c0, 0x4d75),
        subsystem: (0x1028, 0x5933),
        lock: Lock::Intel,
        note: "DW5933e, t7xx, challenge in MBIM",
        ..FM350
    },
    Row {
        name: "m80",
        id: (0x03f0, 0x09c8),
        subsystem: (0x103c, 0x8e6d),
        lock: Lock::Intel,
        note: "HP DRMR-H01, t7xx, challenge in MBIM",
        ..FM350
    },
    Row {
        name: "dw5932e",
        id: (0x105b, 0xe0f5),
        subsystem: (0x1028, 0x0f5d),
        product: "DW5932e",
        revision: "FDE.F0.3.2.0.3.TO.002",
        lock: Lock::Fox { service: qmi::FOX, magic: "FDE1" },
        note: "DW5932e, MHI, Foxconn's service FOX",
        ..T99W175
    },
    DW5934E,
    Row {
        name: "t99w696",
        id: (0x17cb, 0x0308),
        subsystem: (0x105b, 0xe142),
        product: "T99W696",
        note: "T99W696, MHI, Foxconn's service FOXAP; the ID is shared by several manufacturers",
        ..DW5934E
    },
    L860,
    Row { name: "dw5823e", lock: Lock::Intel, note: "L860R+ of Dell, iosm, challenge in MBIM", ..L860 },
    Row {
        name: "l850-pci",
        id: (0x8086, 0x7360),
        subsystem: (0x1cf8, 0x8521),
        driver: Driver::Iosm,
        ports: &[PortType::At, PortType::At, PortType::XmmRpc],
        manufacturer: "Fibocom",
        product: "L850-GL",
        revision: "18500.5001.00.05.27.30",
        lock: Lock::Xmm,
        family: Some("l850"),
        note: "L850-GL, iosm, challenge by RPC; Linux 6.1 has no XMMRPC port",
        ..QUECTEL
    },
];

pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

impl Row {
    pub fn model(&self) -> Model {
        Model {
            forms: Vec::new(),
            identity: Identity {
                manufacturer: self.manufacturer.into(),
                model: self.product.into(),
                revision: self.revision.into(),
                imei: SERIAL.into(),
            },
            dialect: self.dialect,
            lock: self.lock,
            online_error: qmi::error::INTERNAL,
            composition: None,
            family: self.family.and_then(family::first_value),
        }
    }
}

enum Port {
    Messages(Wdm),
    At(At),
    Silent,
}

enum Action {
    /// The port has a message for the host.
    Output(u8, Vec<u8>),
    Transition(Transition),
    Return,
}

pub struct Device {
    modem: Modem,
    row: &'static Row,
    id: (u16, u16),
    subsystem: (u16, u16),
    unlocked: bool,
    module: File,
    /// The name of the function, while it is plugged in.
    name: Option<String>,
    ports: Vec<Port>,
    timers: Timers<Action>,
    /// The number of messages in both directions since the first plug.
    transfers: u64,
    attaches: u64,
    /// Duration in seconds and error of an open, as the module last received them.
    opening: (u8, u8),
}

impl Device {
    pub fn new(row: &'static Row, modem: Modem, unlocked: bool, events: Sender<Event>) -> io::Result<Device> {
        let module = File::options().read(true).write(true).open(NODE)?;
        let mut reader = module.try_clone()?;
        std::thread::spawn(move || {
            let mut record = vec![0; MAX_RECORD];
            while let Ok(length) = reader.read(&mut record) {
                if events.send(Event::Pci(record[..length].to_vec())).is_err() {
                    return;
                }
            }
        });
        Ok(Device {
            timers: Timers::new(modem.clock),
            modem,
            row,
            id: row.id,
            subsystem: row.subsystem,
            unlocked,
            module,
            name: None,
            ports: Vec::new(),
            transfers: 0,
            attaches: 0,
            opening: (0, 0),
        })
    }

    pub fn set_id(&mut self, id: (u16, u16)) {
        self.id = id;
    }

    pub fn set_subsystem(&mut self, id: (u16, u16)) {
        self.subsystem = id;
    }

    /// Plugs in, and serves until a client sends `quit`. The module unplugs a modem when its process ends.
    pub fn run(&mut self, events: &Receiver<Event>) -> io::Result<()> {
        self.power_on();
        self.plug()?;
        loop {
            match self.timers.receive(events) {
                Ok(Event::Pci(record)) => self.record(&record)?,
                Ok(Event::Control(line, client)) => {
                    if self.control(&line, client)? {
                        return Ok(());
                    }
                }
                Ok(Event::Usb(..) | Event::Detached(_)) => {}
                Err(RecvTimeoutError::Timeout) => self.timer_due()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.settle()?;
        }
    }

    fn timer_due(&mut self) -> io::Result<()> {
        let Some(action) = self.timers.pop_due() else { return Ok(()) };
        match action {
            Action::Output(port, data) => self.output(port, &data),
            Action::Transition(Transition::Online) => {
                self.modem.come_online();
                Ok(())
            }
            Action::Transition(Transition::Reset) => self.reset(),
            Action::Return => self.plug(),
        }
    }

    /// Handles the consequences of a message or a timer.
    fn settle(&mut self) -> io::Result<()> {
        for (delay, transition) in std::mem::take(&mut self.modem.transitions) {
            self.timers.after(delay, Action::Transition(transition));
        }
        if std::mem::take(&mut self.modem.mode_changed) {
            let reports = self.ports.iter().zip(0..).flat_map(|(port, number)| match port {
                Port::Messages(wdm) => wdm.mode_changed(&self.modem).into_iter().map(|data| (number, data)).collect(),
                _ => Vec::new(),
            });
            for (number, data) in reports.collect::<Vec<_>>() {
                self.output(number, &data)?;
            }
        }
        self.set_opening()
    }

    /// Makes the module open ports as the faults say.
    fn set_opening(&mut self) -> io::Result<()> {
        let fault = |name| self.modem.faults.number_or(name, 1).unwrap_or(0).min(255) as u8;
        let opening = (fault("open-blocks"), fault("open-fails"));
        if std::mem::replace(&mut self.opening, opening) != opening {
            self.send(b'B', 0, &[opening.0])?;
            self.send(b'F', 0, &[opening.1])?;
        }
        Ok(())
    }

    // On and off the bus.

    fn power_on(&mut self) {
        self.modem.power_cycle();
        if self.unlocked {
            self.modem.unlocked_from_the_start();
        }
    }

    fn plug(&mut self) -> io::Result<()> {
        if self.name.is_some() {
            return Ok(());
        }
        self.set_opening()?;
        let port = |port: &PortType| match port {
            PortType::At => Port::At(At::new(self.row.dialect)),
            PortType::Mbim => Port::Messages(Wdm::new(Protocol::Mbim(Mbim::new(4096)))),
            PortType::Qmi => Port::Messages(Wdm::new(Protocol::Qmi)),
            PortType::XmmRpc => Port::Messages(Wdm::new(Protocol::Xmm)),
            PortType::Qcdm => Port::Silent,
        };
        self.ports = self.row.ports.iter().map(port).collect();
        self.attaches += 1;
        // The module reports the name later.
        self.name = Some(String::new());
        let (vendor, device) = self.id;
        self.modem.transcript.event("plug", &format!("{vendor:04x}:{device:04x}"));
        let ids = [self.id.0, self.id.1, self.subsystem.0, self.subsystem.1].map(u16::to_le_bytes).concat();
        let mhi = u8::from(self.row.driver == Driver::Mhi);
        let types = self.row.ports.iter().map(|port| *port as u8);
        let shape = [self.row.driver as u8, mhi, 1, self.row.ports.len() as u8].into_iter().chain(types);
        self.send(b'P', 0, &[ids, shape.collect()].concat())
    }

    fn unplug(&mut self) -> io::Result<()> {
        self.timers.clear();
        if self.name.take().is_some() {
            self.modem.transcript.event("unplug", "");
            self.send(b'U', 0, &[])?;
        }
        Ok(())
    }

    /// A reset of the modem itself, or a crash: the modem leaves the bus and returns locked.
    fn reset(&mut self) -> io::Result<()> {
        self.modem.transcript.event("reset", "");
        self.unplug()?;
        self.modem.reset();
        if self.unlocked {
            self.modem.unlocked_from_the_start();
        }
        if !self.modem.faults.has("never-back") {
            self.timers.after(self.modem.faults.millis("return-delay", 100), Action::Return);
        }
        Ok(())
    }

    // Records.

    fn send(&mut self, kind: u8, port: u8, data: &[u8]) -> io::Result<()> {
        let record = [&[kind, port], data].concat();
        if self.module.write(&record)? == record.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn record(&mut self, record: &[u8]) -> io::Result<()> {
        let [kind, number, data @ ..] = record else { return Ok(()) };
        match kind {
            b'P' if self.name.is_some() => self.name = Some(String::from_utf8_lossy(data).into_owned()),
            // A removal that this process did not request. The record of a requested one arrives before the next name.
            b'R' if self.name.as_ref().is_some_and(|name| !name.is_empty()) => {
                self.name = None;
                self.timers.clear();
                self.modem.transcript.event("unplug", "by the host");
            }
            b'O' => {
                self.modem.transcript.event("opened", self.type_name(*number));
                let is_at = matches!(self.ports.get(usize::from(*number)), Some(Port::At(_)));
                if is_at && self.modem.faults.has("takes-nothing") {
                    self.send(b'X', *number, &[1])?;
                }
            }
            b'C' => self.modem.transcript.event("closed", self.type_name(*number)),
            b'D' if self.transfer()? => self.receive(*number, data),
            _ => {}
        }
        Ok(())
    }

    fn type_name(&self, number: u8) -> &'static str {
        match self.row.ports.get(usize::from(number)) {
            Some(PortType::At) => "at",
            Some(PortType::Mbim) => "mbim",
            Some(PortType::Qmi) => "qmi",
            Some(PortType::Qcdm) => "qcdm",
            Some(PortType::XmmRpc) => "xmmrpc",
            None => "unknown",
        }
    }

    /// Counts a message. Returns `false` if the modem leaves with it.
    fn transfer(&mut self) -> io::Result<bool> {
        self.transfers += 1;
        if self.modem.faults.number("gone-after") != Some(self.transfers) {
            return Ok(true);
        }
        self.modem.transcript.event("fault", &format!("gone-after={}", self.transfers));
        self.unplug()?;
        Ok(false)
    }

    fn receive(&mut self, number: u8, data: &[u8]) {
        let (delay, replies) = match self.ports.get_mut(usize::from(number)) {
            Some(Port::Messages(wdm)) => wdm.receive(&mut self.modem, data),
            Some(Port::At(at)) => at.replies(&mut self.modem, data),
            Some(Port::Silent) | None => return,
        };
        for reply in replies {
            self.timers.after(delay, Action::Output(number, reply));
        }
    }

    fn output(&mut self, number: u8, data: &[u8]) -> io::Result<()> {
        if self.name.is_none() || data.is_empty() || !self.transfer()? {
            return Ok(());
        }
        self.send(b'D', number, data)
    }

    // The control socket.

    /// Answers a line. Returns `true` if it was the last one.
    fn control(&mut self, line: &str, mut client: UnixStream) -> io::Result<bool> {
        let quit = line == "quit";
        if quit {
            self.unplug()?;
        }
        let answer = self.control_line(line)?.unwrap_or_else(|error| format!("error: {error}"));
        // The client may have disconnected.
        let _ = writeln!(client, "{answer}");
        Ok(quit)
    }

    fn control_line(&mut self, line: &str) -> io::Result<Result<String, String>> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (verb, rest.trim()) {
            ("quit", _) => {}
            ("unplug", _) => self.unplug()?,
            ("plug", _) => {
                self.power_on();
                self.plug()?;
            }
            ("reset", _) => self.reset()?,
            ("get", key) => return Ok(self.get(key)),
            ("set", rest) => return Ok(self.set(rest)),
            (verb, rest) => return Ok(self.modem.control_line(verb, rest)),
        }
        Ok(Ok("ok".into()))
    }

    fn get(&self, key: &str) -> Result<String, String> {
        let is_open =
            |port: &Port| matches!(port, Port::Messages(Wdm { protocol: Protocol::Mbim(mbim), .. }) if mbim.is_open());
        Ok(match key {
            "identity" => format!("{:04x}:{:04x}", self.id.0, self.id.1),
            "subsystem" => format!("{:04x}:{:04x}", self.subsystem.0, self.subsystem.1),
            "plugged" => self.name.is_some().to_string(),
            "port" => self.name.clone().unwrap_or_else(|| "none".into()),
            "mbim-open" => self.ports.iter().any(is_open).to_string(),
            "transfers" => self.transfers.to_string(),
            "attaches" => self.attaches.to_string(),
            _ => return self.modem.get(key),
        })
    }

    fn set(&mut self, rest: &str) -> Result<String, String> {
        let (key, value) = rest.split_once(' ').ok_or("set KEY VALUE")?;
        let id = || crate::models::parse_id(value).ok_or("VID:PID");
        match key {
            "unlocked" => self.unlocked = value == "true",
            "transfers" => self.transfers = value.parse().map_err(|_| format!("{value} is not a number"))?,
            "id" => self.id = id()?,
            "subsystem" => self.subsystem = id()?,
            _ => self.modem.set(key, value)?,
        }
        Ok("ok".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_on_both_buses() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(!ROWS[..index].iter().any(|other| other.name == row.name), "{}", row.name);
            assert!(crate::models::row(row.name).is_none(), "{}", row.name);
        }
    }
}
