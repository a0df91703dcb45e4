//! Endpoint 0: standard requests, vendor requests of install mode, and class requests.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Action, Answer, Device, Fate, Function};
use crate::at::At;
use crate::descriptors::{self, INPUT, Role, Transfer};
use crate::install::Seen;
use crate::mbim::Mbim;
use crate::rndis;
use crate::storage::Storage;
use crate::transcript::hex;
use crate::wdm::{Protocol, Wdm};
use vhci::{Link, Submit};

impl Device {
    pub(super) fn control(&mut self, urb: Submit) {
        let standard = urb.setup[0] & 0x60 == 0 && !matches!(urb.setup[1], 3 | 9 | 11) && urb.setup[..2] != [2, 1];
        // SEND_ENCAPSULATED_COMMAND and SET_CONTROL_LINE_STATE.
        if matches!(urb.setup[..2], [0x21, 0 | 0x22]) && self.is_naking() {
            self.on_link(|link| link.wait(urb.endpoint, urb.seqnum, urb.length));
            return self.naked.push(urb);
        }
        let fate = if standard { Fate::Good } else { self.fate() };
        self.record(&urb, standard);
        if fate == Fate::Stalled {
            return self.on_link(|link| link.stall(urb.seqnum));
        }
        match self.answer(&urb) {
            Answer::Data(mut data) => {
                let asked = usize::from(u16::from_le_bytes([urb.setup[6], urb.setup[7]]));
                data.truncate(asked.min(urb.length));
                self.on_link(|link| link.done(urb.seqnum, data.len(), &data));
            }
            Answer::Done => {
                let sent = urb.data.len();
                self.on_link(|link| link.done(urb.seqnum, sent, &[]));
            }
            Answer::Stall => self.on_link(|link| link.stall(urb.seqnum)),
            Answer::Fail => self.on_link(|link| link.fail(urb.seqnum)),
            Answer::Never => self.on_link(|link| link.wait(urb.endpoint, urb.seqnum, urb.length)),
        }
        if fate == Fate::Last {
            self.leave();
        }
    }

    /// Whether requests to ports get NAK now.
    fn is_naking(&mut self) -> bool {
        if !self.modem.faults.has("naks") {
            return false;
        }
        let Some(seconds) = self.modem.faults.number("naks") else { return true };
        let now = (self.modem.clock)();
        let until = *self.accepts.get_or_insert_with(|| now + Duration::from_secs(seconds));
        if self.naked.is_empty() && now < until {
            self.timers.after(until - now, Action::Accept);
        }
        now < until
    }

    fn record(&mut self, urb: &Submit, standard: bool) {
        let [request_type, request, low, _, index, ..] = urb.setup;
        match (request_type, request) {
            (0, 9) => self.modem.transcript.event("configured", &low.to_string()),
            (1, 11) => self.modem.transcript.event("interface", &format!("{index} {low}")),
            (2, 1) => self.modem.transcript.event("clear-halt", &format!("{index:02x}")),
            _ => {
                let kind = if standard { "std" } else { "control" };
                let data = if urb.data.is_empty() { String::new() } else { format!(" {}", hex(&urb.data)) };
                self.modem.transcript.event(kind, &format!("{}{data}", hex(&urb.setup)));
            }
        }
    }

    fn answer(&mut self, urb: &Submit) -> Answer {
        let [request_type, request, low, high, index, ..] = urb.setup;
        let switched = self.watch(Seen::Control(&urb.setup, &urb.data));
        match (request_type, request, switched) {
            (0, 9, None) => self.set_configuration(low),
            (1, 11, None) => {
                self.alternates.insert(index, low);
                Answer::Done
            }
            (_, _, Some(Answer::Done)) if request_type & INPUT != 0 => Answer::Data(vec![0; urb.length]),
            (_, _, Some(answer)) => answer,
            (0x80, 6, None) => self.descriptor(high, low),
            (0x80..=0x82, 0, None) => {
                let halted = request_type == 0x82 && self.link.as_ref().is_some_and(|link| link.is_halted(index));
                Answer::Data(vec![u8::from(halted), 0])
            }
            (0x80, 8, None) => Answer::Data(vec![self.configuration]),
            (0x81, 10, None) => Answer::Data(vec![self.alternates.get(&index).copied().unwrap_or(0)]),
            (2, 1, None) => {
                self.on_link(|link| link.clear_halt(index));
                self.pump(index);
                Answer::Done
            }
            (0, 1 | 3, None) => Answer::Done,
            (0xc0, 0x0a, None) if self.active.installs() => self.swoc_info(),
            (0x21 | 0xa1, _, None) => self.class_request(urb, index),
            // The power state of the sierra driver, and harmless vendor writes of qmi_wwan and other drivers.
            (0x40, 0, None) if !self.active.installs() => Answer::Done,
            _ => Answer::Stall,
        }
    }

    fn descriptor(&self, kind: u8, index: u8) -> Answer {
        let lie = self.modem.faults.text("bad-descriptors").unwrap_or("");
        match kind {
            1 => {
                let mut device = self.active.device;
                device[17] = if lie == "configurations" { 8 } else { self.active.configurations.len() as u8 };
                Answer::Data(device.to_vec())
            }
            2 => match self.active.configurations.get(usize::from(index)) {
                Some(configuration) => Answer::Data(configuration.lying(lie)),
                None => Answer::Stall,
            },
            3 => self.string(index),
            _ => Answer::Stall,
        }
    }

    fn string(&self, index: u8) -> Answer {
        let text = match index {
            0 => return Answer::Data(vec![4, 3, 0x09, 0x04]),
            1..=3 => self.active.strings[usize::from(index) - 1].as_str(),
            4 => "Mass Storage",
            descriptors::MAC_ADDRESS => "020000000001",
            _ => return Answer::Stall,
        };
        match self.modem.faults.text("bad-strings") {
            Some("control") => Answer::Data(descriptors::string("\u{1b}[31m\n\t\u{7}../../etc \u{202e}%s$(reboot)")),
            Some("surrogate") => Answer::Data(vec![8, 3, 0x00, 0xd8, b'A', 0, 0x00, 0xdc]),
            Some("odd") => Answer::Data(vec![7, 3, b'A', 0, b'B', 0, b'C']),
            Some("empty") => Answer::Data(vec![2, 3]),
            Some("long") => Answer::Data(descriptors::string(&"W".repeat(126))),
            Some("stall") => Answer::Stall,
            _ => Answer::Data(descriptors::string(text)),
        }
    }

    fn set_configuration(&mut self, value: u8) -> Answer {
        let known = value == 0 || self.active.configurations.iter().any(|c| c.value() == value);
        let other = value != 0 && self.chosen.is_some_and(|chosen| chosen != value);
        if !known || other && self.modem.faults.has("config-refuse") {
            return Answer::Stall;
        }
        if other && self.modem.faults.has("config-mute") {
            return Answer::Never;
        }
        self.configuration = value;
        if value != 0 {
            self.chosen.get_or_insert(value);
        }
        if value == 0 {
            self.modem.unconfigured();
        }
        self.alternates.clear();
        self.on_link(Link::configured);
        self.functions = self.functions_of(value);
        let zero = std::mem::replace(&mut self.unconfigured, (value == 0).then(self.modem.clock));
        let rested = zero.is_some_and(|since| (self.modem.clock)() - since >= Duration::from_millis(50));
        let deaf = other && !rested && self.modem.faults.has("config-needs-zero");
        for function in self.functions.values_mut() {
            if let Function::Wdm(wdm) = function {
                wdm.deaf = deaf;
            }
        }
        if other && self.modem.faults.take("config-reenumerates") {
            self.timers.after(Duration::from_millis(20), Action::Leave);
        }
        if other && self.modem.faults.has("config-sticky") {
            let form = &mut self.forms[self.form];
            form.configurations.retain(|c| c.value() == value);
            let _ = self.modem.faults.set("mute");
            self.timers.after(Duration::from_millis(20), Action::Leave);
        }
        Answer::Done
    }

    fn functions_of(&self, value: u8) -> BTreeMap<u8, Function> {
        let Some(configuration) = self.active.configurations.iter().find(|c| c.value() == value) else {
            return BTreeMap::new();
        };
        let max = configuration.max_control_message().unwrap_or(descriptors::MAX_CONTROL_MESSAGE);
        let function = |role| match role {
            Role::Storage => Function::Storage(Storage::new(self.active.scsi.clone())),
            Role::Qmi => Function::Wdm(Wdm::new(Protocol::Qmi)),
            Role::Mbim => Function::Wdm(Wdm::new(Protocol::Mbim(Mbim::new(max)))),
            Role::At => Function::At(At::new(self.dialect)),
            Role::Network => Function::Network(VecDeque::new()),
            Role::Reports => Function::Reports,
            Role::Silent => Function::Silent,
        };
        configuration.roles.iter().map(|(number, role)| (*number, function(*role))).collect()
    }

    fn swoc_info(&self) -> Answer {
        let faults = &self.modem.faults;
        if faults.has("stall-swoc") {
            return Answer::Stall;
        }
        let sku = faults.text("sku").and_then(|sku| u16::from_str_radix(sku, 16).ok()).unwrap_or(0x2100);
        let mut info = vec![0; if faults.has("short-swoc") { 16 } else { 60 }];
        info[0] = 1;
        info[9..11].copy_from_slice(&sku.to_le_bytes());
        info[11..13].copy_from_slice(&0x0001u16.to_le_bytes());
        Answer::Data(info)
    }

    fn class_request(&mut self, urb: &Submit, interface: u8) -> Answer {
        let [request_type, request, low, ..] = urb.setup;
        match (request_type, request, self.functions.get_mut(&interface)) {
            (0x21, 0x00, Some(Function::Wdm(_))) if self.modem.faults.take("write-error") => Answer::Stall,
            (0xa1, 0x01, Some(Function::Wdm(wdm)))
                if !wdm.responses.is_empty() && self.modem.faults.take("read-error") =>
            {
                Answer::Fail
            }
            // SEND_ENCAPSULATED_COMMAND, GET_ENCAPSULATED_RESPONSE
            (0x21, 0x00, Some(Function::Wdm(wdm))) => {
                let (delay, reads) = wdm.receive(&mut self.modem, &urb.data);
                for data in reads {
                    self.timers.after(delay, Action::Response(interface, data));
                }
                Answer::Done
            }
            (0xa1, 0x01, Some(Function::Wdm(wdm))) => Answer::Data(wdm.responses.pop_front().unwrap_or_default()),
            (0x21, 0x00, Some(Function::Network(responses))) => {
                responses.extend(rndis::response(&urb.data));
                Answer::Done
            }
            (0xa1, 0x01, Some(Function::Network(responses))) => Answer::Data(responses.pop_front().unwrap_or_default()),
            // SET_CONTROL_LINE_STATE
            (0x21, 0x22, Some(Function::Wdm(wdm))) => {
                wdm.dtr = low & 1 != 0;
                Answer::Done
            }
            // Line state, line coding and break of a serial port.
            (0x21, 0x20 | 0x22 | 0x23, Some(Function::At(_) | Function::Silent)) => Answer::Done,
            (0xa1, 0x21, _) => Answer::Data(vec![0x00, 0xc2, 0x01, 0x00, 0, 0, 8]),
            // GET_MAX_LUN, BULK_ONLY_RESET
            (0xa1, 0xfe, Some(Function::Storage(_))) => Answer::Data(vec![0]),
            (0x21, 0xff, Some(Function::Storage(storage))) => {
                *storage = Storage::new(self.active.scsi.clone());
                Answer::Done
            }
            // GET_NTB_PARAMETERS, and the other requests of the NCM part of cdc_mbim.
            (0xa1, 0x80, Some(Function::Wdm(_) | Function::Network(_))) => Answer::Data(NTB_PARAMETERS.to_vec()),
            (0xa1, 0x83 | 0x87, Some(Function::Wdm(_) | Function::Network(_))) => Answer::Data(vec![0, 0]),
            (0xa1, 0x85, Some(Function::Wdm(_) | Function::Network(_))) => {
                Answer::Data(16384u32.to_le_bytes().to_vec())
            }
            // Includes SET_ETHERNET_PACKET_FILTER (0x43) of CDC Ethernet.
            (0x21, 0x43 | 0x84 | 0x86 | 0x88 | 0x8a, Some(Function::Wdm(_) | Function::Network(_))) => Answer::Done,
            // RESET_FUNCTION
            (0x21, 0x05, Some(Function::Wdm(_))) => Answer::Done,
            _ => Answer::Stall,
        }
    }

    /// Makes a response readable and notifies the host.
    pub(super) fn respond(&mut self, interface: u8, data: Vec<u8>) {
        let Some(Function::Wdm(wdm)) = self.functions.get_mut(&interface) else { return };
        wdm.responses.push_back(data);
        let notify = self.current().and_then(|current| current.endpoint(interface, Transfer::InterruptIn));
        let Some(endpoint) = notify else { return };
        // RESPONSE_AVAILABLE
        self.on_link(|link| link.queue(endpoint, vec![0xa1, 0x01, 0, 0, interface, 0, 0, 0]));
        self.pump(endpoint);
    }
}

/// NTBs of 16 KiB in both directions, 16-bit format, no alignment.
const NTB_PARAMETERS: [u8; 28] =
    [28, 0, 1, 0, 0, 0x40, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0, 0x40, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0];

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;
    use crate::models;
    use crate::radio::Modem;
    use crate::timers::stopped;
    use crate::transcript::from_hex;

    const QMI_INTERFACE: u8 = 8;

    /// A configured modem, and the host's end of its link.
    fn plugged(fault: &str) -> (Device, UnixStream) {
        let model = models::row("em7455-qmi").unwrap().model();
        let mut modem = Modem::of(&model);
        modem.faults.set(fault).unwrap();
        modem.clock = stopped::now;
        let mut device = Device::new(model, modem, false, None, mpsc::channel().0);
        let (ours, host) = UnixStream::pair().unwrap();
        host.set_nonblocking(true).unwrap();
        device.link = Some(Link::new(ours));
        device.set_configuration(1);
        (device, host)
    }

    fn send(device: &mut Device, seqnum: u32) {
        let data = from_hex("010b00000000000127000000").unwrap();
        let setup = [0x21, 0, 0, 0, QMI_INTERFACE, 0, 12, 0];
        device.control(Submit { seqnum, endpoint: 0, setup, length: data.len(), data });
    }

    fn receive(device: &mut Device, seqnum: u32) {
        let setup = [0xa1, 1, 0, 0, QMI_INTERFACE, 0, 0, 16];
        device.control(Submit { seqnum, endpoint: 0, setup, length: 4096, data: Vec::new() });
    }

    /// Sequence number and status of the URBs that were completed since the last call.
    fn completed(host: &mut UnixStream) -> Vec<(u32, i32)> {
        let mut list = Vec::new();
        let mut header = [0; 48];
        while host.read_exact(&mut header).is_ok() {
            let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
            list.push((u32::from_be_bytes(word(4)), i32::from_be_bytes(word(20))));
            let mut data = vec![0; u32::from_be_bytes(word(24)) as usize];
            if list.last().is_some_and(|(seqnum, _)| seqnum % 2 == 0) {
                host.read_exact(&mut data).unwrap();
            }
        }
        list
    }

    #[test]
    fn requests_get_nak_until_the_time_is_up() {
        let (mut device, mut host) = plugged("naks=40");
        send(&mut device, 1);
        send(&mut device, 3);
        assert_eq!(completed(&mut host), []);
        // The host unlinks the first one.
        device.on_link(|link| link.unlink(5, 1));
        assert_eq!(completed(&mut host), [(5, -104)]);
        stopped::advance(Duration::from_millis(39_999));
        device.timer_due().unwrap();
        assert_eq!(completed(&mut host), []);
        stopped::advance(Duration::from_millis(1));
        device.timer_due().unwrap();
        assert_eq!(completed(&mut host), [(3, 0)]);
    }

    #[test]
    fn a_request_and_a_response_can_fail() {
        let (mut device, mut host) = plugged("write-error=1");
        send(&mut device, 1);
        send(&mut device, 3);
        assert_eq!(completed(&mut host), [(1, -32), (3, 0)]);

        let (mut device, mut host) = plugged("read-error=1");
        device.respond(QMI_INTERFACE, vec![1, 2, 3]);
        receive(&mut device, 2);
        receive(&mut device, 4);
        assert_eq!(completed(&mut host), [(2, -71), (4, 0)]);
    }
}
