//! MBIM 1.0: open and close, commands in fragments in both directions, Basic Connect as far as ModemManager needs it,
//! QMI over MBIM, and Quectel's radio state.

use crate::challenge::Order;
use crate::qmi;
use crate::radio::{LOW_POWER, Lock, Modem, ONLINE};
use crate::transcript::hex;

const OPEN: u32 = 1;
const CLOSE: u32 = 2;
const COMMAND: u32 = 3;
const HOST_ERROR: u32 = 4;
const DONE: u32 = 0x8000_0000;
const FUNCTION_ERROR: u32 = 0x8000_0004;
const INDICATE_STATUS: u32 = 0x8000_0007;

const HEADER: usize = 12;
const FRAGMENT_HEADER: usize = 20;

/// MBIM status codes.
mod status {
    pub(super) const NONE: u32 = 0;
    pub(super) const BUSY: u32 = 1;
    pub(super) const FAILURE: u32 = 2;
    pub(super) const NO_DEVICE_SUPPORT: u32 = 9;
    pub(super) const INVALID_PARAMETERS: u32 = 21;
    pub(super) const OPERATION_NOT_ALLOWED: u32 = 28;
}

/// MBIM protocol errors, in a FUNCTION_ERROR message.
mod protocol {
    pub(super) const FRAGMENT_OUT_OF_SEQUENCE: u32 = 2;
    pub(super) const LENGTH_MISMATCH: u32 = 3;
    pub(super) const NOT_OPENED: u32 = 5;
    pub(super) const MAX_TRANSFER: u32 = 8;
}

type Uuid = [u8; 16];
const BASIC_CONNECT: Uuid = *b"\xa2\x89\xcc\x33\xbc\xbb\x8b\x4f\xb6\xb0\x13\x3e\xc2\xaa\xe6\xdf";
const QMI: Uuid = *b"\xd1\xa3\x0b\xc2\xf9\x7a\x6e\x43\xbf\x65\xc7\xe2\x4f\xb0\xf0\xd3";
const INTEL: Uuid = *b"\xf8\x5d\x46\xef\xab\x26\x40\x81\x98\x68\x4d\x18\x3c\x0a\x3a\xec";
/// The service of mbim-proxy.
const PROXY: Uuid = *b"\x83\x8c\xf7\xfb\x8d\x0d\x4d\x7f\x87\x1e\xd7\x1d\xbe\xfb\xb3\x9b";
const QUECTEL: Uuid = *b"\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x11";

/// The Basic Connect commands that are supported.
const BASIC_CONNECT_CIDS: [u32; 12] = [1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 16, 19];
const RADIO_STATE: u32 = 3;
const SIGNAL_STATE: u32 = 11;

/// One MBIM function.
pub(crate) struct Mbim {
    open: bool,
    /// Whether the host has closed it since the modem was configured.
    closed: bool,
    /// wMaxControlMessage, and the host's limit in OPEN. Fragments are not longer than either.
    max_message: usize,
    max_transfer: usize,
    partial: Option<Partial>,
}

struct Partial {
    transaction: u32,
    total: u32,
    next: u32,
    data: Vec<u8>,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn message(kind: u32, transaction: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = words(&[kind, (HEADER + body.len()) as u32, transaction]);
    bytes.extend(body);
    bytes
}

fn function_error(transaction: u32, error: u32) -> Vec<Vec<u8>> {
    vec![message(FUNCTION_ERROR, transaction, &words(&[error]))]
}

/// Splits the data after the fragment header into messages of at most `max` bytes.
fn fragments(kind: u32, transaction: u32, data: &[u8], max: usize) -> Vec<Vec<u8>> {
    let room = max.max(FRAGMENT_HEADER + 4) - FRAGMENT_HEADER;
    let chunks: Vec<&[u8]> = data.chunks(room).collect();
    let total = chunks.len() as u32;
    let one = |(current, chunk): (usize, &&[u8])| {
        message(kind, transaction, &[words(&[total, current as u32]), chunk.to_vec()].concat())
    };
    chunks.iter().enumerate().map(one).collect()
}

pub(crate) fn name(bytes: &[u8]) -> String {
    let kind = u32_at(bytes, 0).unwrap_or(0);
    let plain = match kind {
        OPEN => "OPEN",
        CLOSE => "CLOSE",
        HOST_ERROR => "HOST_ERROR",
        COMMAND => "COMMAND",
        INDICATE_STATUS => "INDICATE_STATUS",
        FUNCTION_ERROR => return format!("FUNCTION_ERROR {}", u32_at(bytes, 12).unwrap_or(0)),
        _ if kind == DONE | OPEN => "OPEN_DONE",
        _ if kind == DONE | CLOSE => "CLOSE_DONE",
        _ if kind == DONE | COMMAND => "COMMAND_DONE",
        _ => return format!("type {kind:#x}"),
    };
    let service = match bytes.get(20..36) {
        Some(uuid) if uuid == BASIC_CONNECT => "basic-connect",
        Some(uuid) if uuid == QMI => "qmi",
        Some(uuid) if uuid == PROXY => "proxy",
        Some(uuid) if uuid == QUECTEL => "quectel",
        Some(uuid) if uuid == INTEL => "intel-mutual-authentication",
        _ => "service",
    };
    let Some(cid) = u32_at(bytes, 36) else { return plain.to_owned() };
    match (kind, u32_at(bytes, 40)) {
        (COMMAND, Some(0)) => format!("{plain} {service} {cid} query"),
        (COMMAND, _) => format!("{plain} {service} {cid} set"),
        (INDICATE_STATUS, _) => format!("{plain} {service} {cid}"),
        (_, Some(status)) => format!("{plain} {service} {cid} status {status}"),
        _ => plain.to_owned(),
    }
}

impl Mbim {
    pub(crate) fn new(max_message: u16) -> Mbim {
        let max_message = usize::from(max_message);
        Mbim { open: false, closed: false, max_message, max_transfer: max_message, partial: None }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Takes one message from the host. Returns the messages that answer it.
    pub(crate) fn receive(&mut self, modem: &mut Modem, bytes: &[u8]) -> Vec<Vec<u8>> {
        modem.transcript.event("mbim>", &format!("{} {}", hex(bytes), name(bytes)));
        let replies = self.answer(modem, bytes);
        for reply in &replies {
            modem.transcript.event("mbim<", &format!("{} {}", hex(reply), name(reply)));
        }
        replies
    }

    fn answer(&mut self, modem: &mut Modem, bytes: &[u8]) -> Vec<Vec<u8>> {
        let (Some(kind), Some(length), Some(transaction)) = (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8))
        else {
            return Vec::new();
        };
        if length as usize != bytes.len() {
            return function_error(transaction, protocol::LENGTH_MISMATCH);
        }
        if bytes.len() > self.max_message {
            return function_error(transaction, protocol::MAX_TRANSFER);
        }
        let is_left_open = modem.faults.has("left-open") && (!self.closed || modem.faults.has("stays-left-open"));
        match kind {
            // A host uses no transaction 0.
            _ if transaction == 0 => Vec::new(),
            COMMAND if modem.faults.has("proxy") => match bytes.get(FRAGMENT_HEADER..) {
                Some(command) if bytes.get(20..36) == Some(&PROXY) => self.command(modem, transaction, command),
                _ => Vec::new(),
            },
            OPEN if modem.faults.has("proxy") => Vec::new(),
            OPEN if is_left_open => {
                let transaction = modem.faults.number("left-open").map_or(transaction, |tid| tid as u32);
                vec![message(DONE | CLOSE, transaction, &words(&[status::NONE]))]
            }
            OPEN => {
                self.open = true;
                self.partial = None;
                let asked = u32_at(bytes, HEADER).unwrap_or(0) as usize;
                self.max_transfer = asked.clamp(64, self.max_message);
                vec![message(DONE | OPEN, transaction, &words(&[status::NONE]))]
            }
            CLOSE => {
                self.open = false;
                self.closed = true;
                vec![message(DONE | CLOSE, transaction, &words(&[status::NONE]))]
            }
            COMMAND if !self.open || modem.faults.take("closes") => {
                self.open = false;
                function_error(transaction, protocol::NOT_OPENED)
            }
            COMMAND => match self.assemble(transaction, bytes) {
                Ok(Some(command)) => self.command(modem, transaction, &command),
                Ok(None) => Vec::new(),
                Err(error) => function_error(transaction, error),
            },
            _ => Vec::new(),
        }
    }

    /// Collects fragments. Returns the whole command after its last fragment.
    fn assemble(&mut self, transaction: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, u32> {
        let (Some(total), Some(current)) = (u32_at(bytes, 12), u32_at(bytes, 16)) else {
            return Err(protocol::LENGTH_MISMATCH);
        };
        if current == 0 {
            self.partial = Some(Partial { transaction, total, next: 0, data: Vec::new() });
        }
        let fits = |p: &&mut Partial| (p.transaction, p.total, p.next) == (transaction, total, current);
        let Some(partial) = self.partial.as_mut().filter(fits) else {
            self.partial = None;
            return Err(protocol::FRAGMENT_OUT_OF_SEQUENCE);
        };
        partial.data.extend(&bytes[FRAGMENT_HEADER..]);
        partial.next += 1;
        if partial.next < partial.total {
            return Ok(None);
        }
        Ok(self.partial.take().map(|whole| whole.data))
    }

    fn command(&self, modem: &mut Modem, transaction: u32, command: &[u8]) -> Vec<Vec<u8>> {
        let fields = (command.get(..16), u32_at(command, 16), u32_at(command, 20), u32_at(command, 24));
        let (Some(uuid), Some(cid), Some(kind), Some(length)) = fields else {
            return function_error(transaction, protocol::LENGTH_MISMATCH);
        };
        let Some(buffer) = command.get(28..28 + length as usize) else {
            return function_error(transaction, protocol::LENGTH_MISMATCH);
        };
        let set = kind == 1;
        let answer = if modem.reply_is_hit() && modem.faults.take("mbim-busy") {
            Err(status::BUSY)
        } else if uuid == PROXY {
            proxy(modem, cid, buffer)
        } else if uuid == QMI {
            qmi_command(modem, cid, buffer)
        } else if modem.is_busy() {
            Err(status::BUSY)
        } else if uuid == BASIC_CONNECT {
            basic_connect(modem, cid, set, buffer)
        } else if uuid == QUECTEL && has_quectel(modem) {
            quectel(modem, cid, set, buffer)
        } else if uuid == INTEL && has_intel(modem) {
            intel(modem, cid, set, buffer)
        } else {
            Err(status::NO_DEVICE_SUPPORT)
        };
        let (status, buffer) = answer.map_or_else(|status| (status, Vec::new()), |buffer| (0, buffer));
        let data = [uuid.to_vec(), words(&[cid, status, buffer.len() as u32]), buffer].concat();
        let max = match modem.faults.number_or("fragments", 64) {
            Some(size) => size as usize,
            None => self.max_transfer,
        };
        fragments(DONE | COMMAND, transaction, &data, max)
    }

    pub(crate) fn radio_indication(&self, modem: &Modem) -> Vec<u8> {
        indication(&BASIC_CONNECT, RADIO_STATE, &radio_state(modem))
    }
}

fn indication(uuid: &Uuid, cid: u32, buffer: &[u8]) -> Vec<u8> {
    let data = [uuid.as_slice(), &words(&[cid, buffer.len() as u32]), buffer].concat();
    message(INDICATE_STATUS, 0, &[words(&[1, 0]), data].concat())
}

pub(crate) fn signal_indication() -> Vec<u8> {
    indication(&BASIC_CONNECT, SIGNAL_STATE, &signal_state())
}

pub(crate) fn qmi_indication(frame: &[u8]) -> Vec<u8> {
    indication(&QMI, 1, frame)
}

/// The QMI frame in a command or in its reply.
pub(crate) fn qmi_frame(bytes: &[u8]) -> Option<&[u8]> {
    let is_qmi = u32_at(bytes, 0).is_some_and(|kind| kind & !DONE == COMMAND) && bytes.get(20..36) == Some(&QMI);
    bytes.get(48..).filter(|_| is_qmi)
}

/// Failing replies to the transaction before that of `reply`, and stale QMI frames in replies to it.
pub(crate) fn stale(reply: &[u8]) -> Vec<Vec<u8>> {
    let (Some(kind), Some(transaction)) = (u32_at(reply, 0), u32_at(reply, 8)) else { return Vec::new() };
    let transaction = transaction.wrapping_sub(1);
    let Some(head) = reply.get(20..40).filter(|_| kind == DONE | COMMAND) else {
        return vec![message(kind, transaction, &words(&[status::FAILURE]))];
    };
    let done = |status, buffer: &[u8]| {
        let data = [head, &words(&[status, buffer.len() as u32]), buffer].concat();
        fragments(kind, transaction, &data, 4096)
    };
    let frames = qmi_frame(reply).map(qmi::stale).unwrap_or_default();
    frames.iter().fold(done(status::FAILURE, &[]), |stale, frame| [stale, done(status::NONE, frame)].concat())
}

/// The last `count` fragments of the message before `reply`.
pub(crate) fn stale_fragments(reply: &[u8], count: usize) -> Option<Vec<Vec<u8>>> {
    let transaction = u32_at(reply, 8)?.wrapping_sub(1);
    let data = vec![0; 16 * (count + 1)];
    Some(fragments(DONE | COMMAND, transaction, &data, FRAGMENT_HEADER + 16).split_off(1))
}

fn has_intel(modem: &Modem) -> bool {
    modem.lock == Lock::Intel && !modem.faults.has("generic")
}

/// Intel Mutual Authentication, CID 1. The reply to QUERY: mode (0 no lock), state (0 locked). SET: whether there is a
/// response, and the response. The reply to SET: whether there is a challenge, and the challenge.
fn intel(modem: &mut Modem, cid: u32, set: bool, buffer: &[u8]) -> Result<Vec<u8>, u32> {
    match (cid, set, u32_at(buffer, 0), u32_at(buffer, 4)) {
        (1, false, ..) => Ok(words(&[modem.lock_mode(), modem.lock_state((!modem.locked).into())])),
        (1, true, Some(0), Some(_)) => Ok(words(&[1, modem.ask_challenge()])),
        (1, true, Some(1), response) => match (modem.judge(response, Order::Little), modem.faults.number("refuse")) {
            (Some(_), Some(status)) => Err(status as u32),
            (Some(right), None) => Ok(words(&[u32::from(!right), 0])),
            (None, _) => Err(status::INVALID_PARAMETERS),
        },
        (1, ..) => Err(status::INVALID_PARAMETERS),
        _ => Err(status::NO_DEVICE_SUPPORT),
    }
}

fn has_quectel(modem: &Modem) -> bool {
    modem.lock == Lock::Quectel && !modem.faults.has("generic")
}

fn qmi_command(modem: &mut Modem, cid: u32, frame: &[u8]) -> Result<Vec<u8>, u32> {
    if modem.faults.has("no-qmi-service") {
        return Err(status::NO_DEVICE_SUPPORT);
    }
    if cid != 1 {
        return Err(status::NO_DEVICE_SUPPORT);
    }
    qmi::answer(modem, frame).ok_or(status::INVALID_PARAMETERS)
}

/// Radio state: 0 off, 1 on, 4 locked.
fn quectel(modem: &mut Modem, cid: u32, set: bool, buffer: &[u8]) -> Result<Vec<u8>, u32> {
    if cid != 1 {
        return Err(status::NO_DEVICE_SUPPORT);
    }
    if set {
        if let Some(status) = modem.faults.number("refuse") {
            modem.refuse_unlock("by fault");
            return Err(status as u32);
        }
        match u32_at(buffer, 0) {
            Some(1) if modem.locked => modem.unlock(),
            Some(1) => modem.set_mode(ONLINE),
            Some(0) => modem.set_mode(LOW_POWER),
            _ => return Err(status::INVALID_PARAMETERS),
        }
        return Ok(Vec::new());
    }
    let state = match (modem.locked, modem.radio_on()) {
        (true, _) => 4,
        (false, on) => u32::from(on),
    };
    Ok(words(&[modem.lock_state(state)]))
}

/// The buffer is offset and length of a path, a time limit, and the path.
fn proxy(modem: &mut Modem, cid: u32, buffer: &[u8]) -> Result<Vec<u8>, u32> {
    let range = |at: u32, length: u32| buffer.get(at as usize..at as usize + length as usize);
    let path = u32_at(buffer, 0).zip(u32_at(buffer, 4)).and_then(|(at, length)| range(at, length));
    let expected = modem.faults.text("proxy").map(utf16);
    let is_limited = u32_at(buffer, 8).is_some_and(|seconds| seconds > 0);
    if cid != 1 || path.is_none() || path != expected.as_deref() || !is_limited {
        return Err(status::INVALID_PARAMETERS);
    }
    modem.faults.clear_one("proxy");
    Ok(Vec::new())
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Fixed fields, followed by the data that (offset, size) pairs among them refer to.
#[derive(Default)]
struct Fields {
    fixed: Vec<u8>,
    data: Vec<u8>,
    /// The positions in `fixed` of the offsets, to which the length of `fixed` must be added.
    offsets: Vec<usize>,
}

impl Fields {
    fn words(mut self, values: &[u32]) -> Fields {
        self.fixed.extend(words(values));
        self
    }

    fn bytes(mut self, value: &[u8]) -> Fields {
        if value.is_empty() {
            return self.words(&[0, 0]);
        }
        self.offsets.push(self.fixed.len());
        self.fixed.extend(words(&[self.data.len() as u32, value.len() as u32]));
        self.data.extend(value);
        self.data.resize(self.data.len().next_multiple_of(4), 0);
        self
    }

    fn string(self, text: &str) -> Fields {
        self.bytes(&utf16(text))
    }

    fn finish(mut self) -> Vec<u8> {
        let behind = self.fixed.len() as u32;
        for at in self.offsets {
            let offset = u32_at(&self.fixed, at).unwrap_or(0) + behind;
            self.fixed[at..at + 4].copy_from_slice(&offset.to_le_bytes());
        }
        self.fixed.extend(self.data);
        self.fixed
    }
}

const HOME: &str = "00101";
const HOME_NAME: &str = "Test network";
const LTE: u32 = 1 << 5;

fn home_provider() -> Vec<u8> {
    Fields::default().string(HOME).words(&[1]).string(HOME_NAME).words(&[1, 0, 0]).finish()
}

fn radio_state(modem: &Modem) -> Vec<u8> {
    words(&[u32::from(!modem.hardware_switch_off()), u32::from(modem.mode == ONLINE)])
}

fn signal_state() -> Vec<u8> {
    // RSSI 20 of 31, unknown error rate, reports every 5 s, no thresholds.
    words(&[20, 99, 5, 0, 0])
}

fn basic_connect(modem: &mut Modem, cid: u32, set: bool, buffer: &[u8]) -> Result<Vec<u8>, u32> {
    let on = modem.radio_on();
    match (cid, set) {
        (RADIO_STATE, _) if modem.faults.has("no-radio-state") => Err(status::OPERATION_NOT_ALLOWED),
        // Device caps: embedded, 3GPP, no voice, removable SIM, data classes, SMS, control, one session.
        (1, false) => Ok(Fields::default()
            .words(&[1, 1, 1, 2, 0x3f, 3, 1, 1])
            .string("")
            .string(&modem.identity.imei)
            .string(&modem.identity.revision)
            .string(&modem.identity.model)
            .finish()),
        // Subscriber ready: initialized.
        (2, false) => Ok(Fields::default()
            .words(&[1])
            .string("001010000000001")
            .string("8900100000000000001")
            .words(&[0, 0])
            .finish()),
        (RADIO_STATE, true) => {
            match u32_at(buffer, 0) {
                Some(1) if modem.locked => return Err(status::OPERATION_NOT_ALLOWED),
                Some(1) => modem.set_mode(ONLINE),
                Some(0) => modem.set_mode(LOW_POWER),
                _ => return Err(status::INVALID_PARAMETERS),
            }
            Ok(radio_state(modem))
        }
        (RADIO_STATE, false) => Ok(radio_state(modem)),
        // PIN: none required.
        (4, false) => Ok(words(&[0, 0, 0])),
        // Home provider, and the list of visible providers, which has only this one.
        (6, false) => Ok(home_provider()),
        (8, false) => Ok(Fields::default().words(&[1]).bytes(&home_provider()).finish()),
        // Registration: home and automatic, or deregistered.
        (9, _) => {
            let state = if on { 3 } else { 1 };
            let head = Fields::default().words(&[0, state, 1, if on { LTE } else { 0 }, u32::from(on)]);
            let (id, name) = if on { (HOME, HOME_NAME) } else { ("", "") };
            Ok(head.string(id).string(name).string("").words(&[0]).finish())
        }
        // Packet service: attached or detached; 50 and 100 Mbit/s.
        (10, _) => {
            let (state, class) = if on { (2, LTE) } else { (4, 0) };
            Ok(words(&[0, state, class, 50_000_000, 0, 100_000_000, 0]))
        }
        (SIGNAL_STATE, _) => Ok(signal_state()),
        // Connect: always deactivated.
        (12, false) => {
            let session = u32_at(buffer, 0).unwrap_or(0);
            Ok(words(&[session, 3, 0, 0, 0, 0, 0, 0, 0]))
        }
        (12, true) => Err(status::FAILURE),
        (16, false) => Ok(device_services(modem)),
        // The subscription as requested.
        (19, true) => Ok(buffer.to_vec()),
        _ => Err(status::NO_DEVICE_SUPPORT),
    }
}

fn device_services(modem: &Modem) -> Vec<u8> {
    let element = |uuid: &Uuid, cids: &[u32]| [uuid.to_vec(), words(&[0, 0, cids.len() as u32]), words(cids)].concat();
    let mut elements = vec![element(&BASIC_CONNECT, &BASIC_CONNECT_CIDS)];
    if !modem.faults.has("no-qmi-service") {
        elements.push(element(&QMI, &[1]));
    }
    if has_quectel(modem) {
        elements.push(element(&QUECTEL, &[1]));
    }
    if has_intel(modem) {
        elements.push(element(&INTEL, &[1]));
    }
    let head = Fields::default().words(&[elements.len() as u32, 0]);
    elements.iter().fold(head, |fields, element| fields.bytes(element)).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;
    use crate::transcript::from_hex;

    fn modem(lock: Lock) -> Modem {
        let mut model = models::row("em7455").unwrap().model();
        model.lock = lock;
        Modem::of(&model)
    }

    fn ask(mbim: &mut Mbim, modem: &mut Modem, request: &str) -> Vec<String> {
        let replies = mbim.receive(modem, &from_hex(request).unwrap());
        replies.iter().map(|reply| hex(reply).to_uppercase()).collect()
    }

    const OPEN_4096: &str = "01000000 10000000 01000000 00100000";
    #[test]
    fn left_open_accepts_no_open_before_a_close() {
        let (mut modem, mut mbim) = (modem(Lock::Sierra), Mbim::new(4096));
        modem.faults.set("left-open").unwrap();
        let close = "02000000 0c000000 05000000";
        let closed = |transaction: u32| format!("02000080100000000{transaction}00000000000000");
        for _ in 0..2 {
            assert_eq!(ask(&mut mbim, &mut modem, OPEN_4096), [closed(1)]);
        }
        assert_eq!(ask(&mut mbim, &mut modem, close), [closed(5)]);
        assert_eq!(ask(&mut mbim, &mut modem, OPEN_4096), ["01000080100000000100000000000000"]);
    }

    #[test]
    fn generic_firmware_has_no_quectel_service() {
        let mut modem = modem(Lock::Quectel);
        let query = [QUECTEL.to_vec(), words(&[1, 0, 0])].concat();
        let request = |mbim: &Mbim, modem: &mut Modem| u32_at(&mbim.command(modem, 1, &query)[0], 40);
        let mbim = Mbim::new(4096);
        assert_eq!(request(&mbim, &mut modem), Some(status::NONE));
        modem.faults.set("generic").unwrap();
        assert_eq!(request(&mbim, &mut modem), Some(status::NO_DEVICE_SUPPORT));
        assert!(!device_services(&modem).windows(16).any(|uuid| uuid == QUECTEL));
    }

    #[test]
    fn stale_fragments_are_the_end_of_the_message_before() {
        let reply = message(DONE | OPEN, 7, &words(&[0]));
        let fragments = stale_fragments(&reply, 2).unwrap();
        let heads: Vec<_> = fragments.iter().map(|f| [0, 8, 12, 16].map(|at| u32_at(f, at).unwrap())).collect();
        assert_eq!(heads, [[DONE | COMMAND, 6, 3, 1], [DONE | COMMAND, 6, 3, 2]]);
    }

    const QMI_UUID: &str = "D1A30BC2F97A6E43BF65C7E24FB0F0D3";

    #[test]
    fn the_captured_unlock() {
        let (mut mbim, mut modem) = (Mbim::new(4096), modem(Lock::Sierra));
        assert_eq!(ask(&mut mbim, &mut modem, OPEN_4096), ["01000080100000000100000000000000"]);
        let allocate = format!(
            "03000000 40000000 02000000 01000000 00000000 {QMI_UUID} 01000000 01000000 10000000 010F0000000000012200040001010002"
        );
        let reply = format!(
            "03000080 48000000 02000000 01000000 00000000 {QMI_UUID} 01000000 00000000 18000000 0117008000000101 22000C00 02040000000000 0102000214"
        );
        assert_eq!(ask(&mut mbim, &mut modem, &allocate), [reply.replace(' ', "")]);
        let auth = format!(
            "03000000 3D000000 07000000 01000000 00000000 {QMI_UUID} 01000000 01000000 0D000000 010C00000214000100 5F550000"
        );
        let reply = format!(
            "03000080 44000000 07000000 01000000 00000000 {QMI_UUID} 01000000 00000000 14000000 0113008002140201005F550700 02040000000000"
        );
        assert_eq!(ask(&mut mbim, &mut modem, &auth), [reply.replace(' ', "")]);
        assert!(!modem.locked);
    }

    #[test]
    fn closed_means_not_opened() {
        let (mut mbim, mut modem) = (Mbim::new(4096), modem(Lock::Sierra));
        let query =
            "03000000 30000000 07000000 01000000 00000000 A289CC33BCBB8B4FB6B0133EC2AAE6DF 03000000 00000000 00000000";
        assert_eq!(ask(&mut mbim, &mut modem, query), ["04000080100000000700000005000000"]);
        ask(&mut mbim, &mut modem, OPEN_4096);
        assert!(ask(&mut mbim, &mut modem, query)[0].ends_with("080000000100000000000000"));
        ask(&mut mbim, &mut modem, "02000000 0C000000 09000000");
        assert_eq!(ask(&mut mbim, &mut modem, query), ["04000080100000000700000005000000"]);
    }

    #[test]
    fn a_locked_radio_cannot_be_switched_on() {
        let (mut mbim, mut modem) = (Mbim::new(4096), modem(Lock::Sierra));
        ask(&mut mbim, &mut modem, OPEN_4096);
        let on = "03000000 34000000 04000000 01000000 00000000 A289CC33BCBB8B4FB6B0133EC2AAE6DF 03000000 01000000 04000000 01000000";
        assert_eq!(u32_at(&from_hex(&ask(&mut mbim, &mut modem, on)[0]).unwrap(), 40), Some(28));
        modem.locked = false;
        assert!(ask(&mut mbim, &mut modem, on)[0].ends_with("0100000001000000"));
        assert_eq!(modem.mode, ONLINE);
    }

    #[test]
    fn quectel_reports_the_lock_until_it_is_unlocked() {
        let (mut mbim, mut modem) = (Mbim::new(4096), modem(Lock::Quectel));
        ask(&mut mbim, &mut modem, OPEN_4096);
        let uuid = "112233445566778899AABBCCDDEEFF11";
        let query = format!("03000000 30000000 03000000 01000000 00000000 {uuid} 01000000 00000000 00000000");
        let on = format!("03000000 34000000 03000000 01000000 00000000 {uuid} 01000000 01000000 04000000 01000000");
        assert!(ask(&mut mbim, &mut modem, &query)[0].ends_with("0400000004000000"));
        ask(&mut mbim, &mut modem, &on);
        assert!(!modem.locked);
        modem.set_mode(ONLINE);
        assert!(ask(&mut mbim, &mut modem, &query)[0].ends_with("0400000001000000"));
    }

    #[test]
    fn intels_service_accepts_only_the_right_response() {
        let (mut mbim, mut modem) = (Mbim::new(4096), modem(Lock::Intel));
        ask(&mut mbim, &mut modem, OPEN_4096);
        let uuid = "F85D46EFAB26408198684D183C0A3AEC";
        let query = format!("03000000 30000000 03000000 01000000 00000000 {uuid} 01000000 00000000 00000000");
        let set = |first: &str, second: &str| {
            format!("03000000 38000000 03000000 01000000 00000000 {uuid} 01000000 01000000 08000000 {first} {second}")
        };
        let mut reply = |request: &str| ask(&mut mbim, &mut modem, request)[0].split_off(96);
        assert_eq!(reply(&query), "0100000000000000");
        // A response without a challenge, and a wrong one.
        assert_eq!(reply(&set("01000000", "81f81c40")), "");
        assert_eq!(reply(&set("00000000", "00000000")), "0100000078563412");
        assert_eq!(reply(&set("01000000", "00000000")), "0100000000000000");
        assert_eq!(reply(&query), "0100000000000000");
        assert_eq!(reply(&set("00000000", "00000000")), "01000000EEFFC000");
        assert_eq!(reply(&set("01000000", "d588a3d5")), "0000000000000000");
        assert_eq!(reply(&query), "0100000001000000");
    }

    #[test]
    fn fragments_in_both_directions_are_the_same_command() {
        let (mut mbim, mut modem) = (Mbim::new(64), modem(Lock::Sierra));
        ask(&mut mbim, &mut modem, "01000000 10000000 01000000 40000000");
        let buffer: Vec<u8> = (0..90).collect();
        let data = [BASIC_CONNECT.to_vec(), words(&[19, 1, buffer.len() as u32]), buffer.clone()].concat();
        let sent = fragments(COMMAND, 5, &data, 64);
        assert_eq!(sent.len(), 3);
        let mut replies = Vec::new();
        for fragment in &sent {
            assert!(fragment.len() <= 64);
            replies = mbim.receive(&mut modem, fragment);
        }
        let back: Vec<u8> = replies.iter().flat_map(|reply| reply[FRAGMENT_HEADER..].to_vec()).collect();
        assert_eq!(back[28..], buffer);
        assert_eq!(u32_at(&replies[2], 12), Some(3));
    }

    #[test]
    fn a_fragment_out_of_sequence_is_an_error() {
        let (mut mbim, mut modem) = (Mbim::new(64), modem(Lock::Sierra));
        ask(&mut mbim, &mut modem, OPEN_4096);
        let sent = fragments(COMMAND, 5, &[0; 100], 64);
        mbim.receive(&mut modem, &sent[0]);
        let reply = mbim.receive(&mut modem, &sent[2]);
        assert_eq!(reply, function_error(5, protocol::FRAGMENT_OUT_OF_SEQUENCE));
    }

    #[test]
    fn offsets_point_after_the_fixed_fields() {
        let fields = Fields::default().words(&[7]).string("ab").string("").finish();
        assert_eq!(fields, words(&[7, 20, 4, 0, 0, 0x0062_0061]));
    }
}
