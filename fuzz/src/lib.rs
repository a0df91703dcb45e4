//! The fuzz targets: one function per target, which accepts any bytes.
//!
//! No target may panic. Targets also check invariants: a message that is parsed and emitted again is the same, the fast
//! parser finds the same as the slow one, what is written can be read, and memory use is limited by the input size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use modem::challenge::{self, Order};
use modem::models::{self, Dialect};
use modem::port::Port as Simulated;
use modem::radio::{Lock, Modem};
use wwan_quirks::bus::Port;
use wwan_quirks::bus::{Bus, DeviceId};
use wwan_quirks::database::layers::{ConfigFile, Layer};
use wwan_quirks::database::policy;
use wwan_quirks::database::quirks::fragment::search::parse_for;
use wwan_quirks::database::quirks::switch::Switch;
use wwan_quirks::database::quirks::{ByteOrder, Gtfcclock, Number, Procedure, Quirk, StateCommand, fragment};
use wwan_quirks::host::deadline::Deadline;
use wwan_quirks::host::journal::printable;
use wwan_quirks::host::root::Root;
use wwan_quirks::host::smbios::{FccType, in_table};
use wwan_quirks::modem::device::vendor_interfaces::VendorInterfaces;
use wwan_quirks::modem::device::{Device, descriptors};
use wwan_quirks::modem::link::usb::{Usb, UsbError};
use wwan_quirks::modem::link::{self, LinkError};
use wwan_quirks::modem::transport::{Protocol, Transport};
use wwan_quirks::modem::wire::qmi::Service;
use wwan_quirks::modem::wire::{Framer, at, mbim, qmi, xmm};
use wwan_quirks::serve::event::Event;
use wwan_quirks::steps::fcc_auth::{self, Key, KeyUse, Keys};
use wwan_quirks::steps::switch;
use wwan_quirks::usb::{Setup, TransferTarget};
use wwan_quirks::verbs::import::Import;

/// A target.
pub type Fuzz = fn(&[u8]);

pub const TARGETS: &[(&str, Fuzz)] = &[
    ("descriptors", descriptors),
    ("qmi", qmi),
    ("mbim", mbim),
    ("scsi", scsi),
    ("at", at),
    ("xmm", xmm),
    ("smbios", smbios),
    ("session", session),
    ("quirks", quirks),
    ("policy", policy),
    ("import", import),
    ("event", event),
];

/// Counts the memory that the targets hold.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)]
// SAFETY: every call goes to the system's allocator, which keeps the contract. The counters touch no other memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `what`, and fails if it holds more than `bytes` at any time. Counts for the whole process: run one target at a
/// time.
fn within<T>(bytes: usize, what: impl FnOnce() -> T) -> T {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let done = what();
    let most = MOST.load(Ordering::Relaxed) - before;
    assert!(most <= bytes, "{most} bytes were held, {bytes} are enough");
    done
}

/// The descriptors of a device, as sysfs has them.
pub fn descriptors(data: &[u8]) {
    // An interface takes nine bytes in sysfs, and a hundred here.
    let parsed = within(1024 + 64 * data.len(), || descriptors::parse(data));
    let Ok(parsed) = parsed else { return };
    for configuration in &parsed.configurations {
        for quirk in [&[][..], &[0, 8]] {
            let id = DeviceId { bus: Bus::Usb, vendor: 0x12d1, product: 0x15c1 };
            let _ = configuration.functions(&VendorInterfaces::of(id, quirk));
        }
    }
    assert_eq!(descriptors::parse(data), Ok(parsed));
}

/// Cuts `data` into reads, as its first byte says, and calls `each` with the messages that the framer returns.
fn framed(mut framer: Framer, data: &[u8], mut each: impl FnMut(&[u8])) {
    let Some((first, data)) = data.split_first() else { return };
    for read in data.chunks(usize::from(*first).max(1)) {
        framer.push(read);
        while let Some(message) = framer.next_message() {
            assert!(!message.is_empty());
            each(message);
        }
    }
    framer.resynchronise();
    while framer.next_message().is_some() {}
    assert!(framer.skipped() <= data.len());
}

/// The reads of a QMI port.
pub fn qmi(data: &[u8]) {
    framed(qmi::framer(), data, |frame| {
        let Ok(message) = qmi::Message::parse(frame) else { return };
        let _ = message.result();
        let tlvs: Vec<(u8, &[u8])> = message.tlvs.iter().collect();
        for (kind, value) in &tlvs {
            assert!(message.tlvs.get(*kind, "TLV").is_ok());
            assert_eq!(
                message.tlvs.u8(*kind, "TLV").is_ok(),
                !message.tlvs.get(*kind, "TLV").unwrap_or(value).is_empty()
            );
            let _ = message.tlvs.string(*kind, "TLV");
        }
        let call = qmi::Call::query(message.service, message.id, "fuzz");
        let again = qmi::request(call, message.cid, message.tid, &tlvs);
        let again = qmi::Message::parse(&again).unwrap();
        let expected = qmi::Message { kind: qmi::Kind::Request, ..message };
        assert_eq!(again, expected);
    });
}

/// The reads of an MBIM port: whole messages and fragments.
pub fn mbim(data: &[u8]) {
    let mut reassembly = mbim::Reassembly::default();
    framed(mbim::framer(), data, |message| {
        // One message is held. Its fragments state its length, but no memory is taken before the bytes arrive.
        let whole = within(64 * 1024 + 4 * data.len(), || reassembly.push(message));
        let Ok(Some(whole)) = whole else { return };
        let Ok(parsed) = mbim::Message::parse(&whole) else { return };
        let emitted = parsed.emit();
        assert_eq!(mbim::Message::parse(&emitted), Ok(parsed));
        let mut again = None;
        let mut reassembly = mbim::Reassembly::default();
        for fragment in mbim::fragments(&emitted, 128) {
            assert!(again.is_none() && fragment.len() <= 128.max(emitted.len()));
            again = reassembly.push(&fragment).unwrap();
        }
        let again = again.unwrap();
        assert_eq!(mbim::Message::parse(&again), Ok(parsed));
    });
}

/// A device in install mode whose answers are `data`: a byte that says how each transfer ends, and the data of the
/// transfer.
struct Device0<'a>(&'a [u8]);

impl Device0<'_> {
    fn answer(&mut self, data: &mut [u8]) -> Result<usize, UsbError> {
        let (kind, rest) = self.0.split_first().ok_or(UsbError::Gone)?;
        self.0 = rest;
        match kind % 8 {
            0 => return Err(UsbError::Stall),
            1 => return Err(UsbError::TimedOut),
            2 => return Err(UsbError::Refused),
            _ => {}
        }
        let (length, rest) = self.0.split_first().ok_or(UsbError::Gone)?;
        let length = usize::from(*length).min(data.len()).min(rest.len());
        let (now, later) = rest.split_at(length);
        if let Some(room) = data.get_mut(..length) {
            room.copy_from_slice(now);
        }
        self.0 = later;
        Ok(length)
    }
}

impl Usb for Device0<'_> {
    fn control_out(&mut self, _: Setup, _: &[u8], _: Duration) -> Result<usize, UsbError> {
        self.answer(&mut [])
    }
    fn control_in(&mut self, _: Setup, data: &mut [u8], _: Duration) -> Result<usize, UsbError> {
        self.answer(data)
    }
    fn bulk_out(&mut self, _: u8, _: &[u8], _: Duration) -> Result<usize, UsbError> {
        self.answer(&mut [])
    }
    fn bulk_in(&mut self, _: u8, data: &mut [u8], _: Duration) -> Result<usize, UsbError> {
        self.answer(data)
    }
    fn interrupt_out(&mut self, _: u8, _: &[u8], _: Duration) -> Result<usize, UsbError> {
        self.answer(&mut [])
    }
    fn interrupt_in(&mut self, _: u8, data: &mut [u8], _: Duration) -> Result<usize, UsbError> {
        self.answer(data)
    }
    fn clear_halt(&mut self, _: u8) -> Result<(), UsbError> {
        self.answer(&mut []).map(drop)
    }
    fn claim(&mut self, _: u8) -> Result<(), UsbError> {
        self.answer(&mut []).map(drop)
    }
    fn release(&mut self, _: u8) -> Result<(), UsbError> {
        self.answer(&mut []).map(drop)
    }
    fn detach(&mut self, _: u8) -> Result<bool, UsbError> {
        self.answer(&mut [0]).map(|length| length > 0)
    }
    fn attach(&mut self, _: u8) -> Result<(), UsbError> {
        self.answer(&mut []).map(drop)
    }
    fn set_alternate(&mut self, _: u8, _: u8) -> Result<(), UsbError> {
        self.answer(&mut []).map(drop)
    }
    fn reset(&mut self) -> Result<(), UsbError> {
        self.answer(&mut []).map(drop)
    }
    fn wait_until_gone(&mut self, _: Deadline) -> bool {
        self.answer(&mut []).is_err()
    }
}

const METHODS: &[&str] = &["eject", "huawei-new", "cisco", "option", "mobile-action", "sony", "gct", "blackberry"];

/// CSWs, the data before them, and all other answers of a device in install mode.
pub fn scsi(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let Some(method) = METHODS.get(usize::from(first % 16)).and_then(|name| Switch::method(name).ok()) else { return };
    let target = TransferTarget { interface: 0, bulk_out: Some(1), bulk_in: Some(0x81), interfaces: vec![0, 1] };
    // The deadline has already passed, so that there are no pauses. The transfers here take no time.
    let deadline = Deadline::after(Duration::ZERO);
    let returned = first & 0x80 != 0;
    let mut usb = Device0(data);
    within(64 * 1024 + 4 * data.len(), || {
        switch::run(&mut usb, &method, &target, returned, &mut |_| first & 0x40 != 0, Duration::ZERO, deadline)
    });
}

/// The reads of an AT port.
pub fn at(data: &[u8]) {
    framed(at::framer(), data, |line| {
        let line = String::from_utf8_lossy(line);
        let _ = at::final_result(&line);
        for value in at::values(&line, "+GTFCCLOCKGEN").unwrap_or_default() {
            assert!(value.len() <= line.len());
        }
    });
}

/// The reads of an RPC port of an XMM7360.
pub fn xmm(data: &[u8]) {
    framed(xmm::framer(), data, |frame| {
        let Ok(message) = xmm::Message::parse(frame) else { return };
        assert!(message.body.len() < frame.len());
        for call in [xmm::FCC_LOCK_QUERY, xmm::FCC_LOCK_CHALLENGE, xmm::FCC_LOCK_RESPONSE] {
            let Some(integers) = message.answer_to(call) else { continue };
            assert_eq!(message.code, call.code + 1);
            let again = xmm::emit(message.code, message.tid, &[&[message.tid], integers.as_slice()].concat());
            let again = xmm::Message::parse(&again).unwrap();
            assert_eq!(again.answer_to(call), Some(integers));
        }
    });
}

/// The SMBIOS table of a computer.
pub fn smbios(data: &[u8]) {
    let found = within(64 * 1024, || in_table(data));
    for FccType { oem_string, .. } in found {
        assert!(data.windows(14).any(|window| window == oem_string.as_bytes()));
    }
}

/// A modem whose answers are `data`: a length, and that many bytes. It is gone after the last answer. Length 255 means
/// no answer. Length 254 means the next answer of a simulated modem, and length 253 the same with one changed byte: its
/// position, and the change.
struct Answers<'a> {
    data: &'a [u8],
    modem: Simulated,
    waiting: VecDeque<Vec<u8>>,
    read: Vec<u8>,
    /// The last request, from which a transaction ID can be copied into an answer.
    sent: VecDeque<u8>,
}

impl link::Link for Answers<'_> {
    fn send(&mut self, message: &[u8], _: Deadline) -> Result<(), LinkError> {
        self.sent = message.iter().copied().collect();
        self.waiting.extend(self.modem.receive(message).1);
        // The names of all requests are not bounded by the size of the input.
        self.modem.modem.seen.clear();
        Ok(())
    }

    fn receive(&mut self, _: Deadline) -> Result<Option<&[u8]>, LinkError> {
        let (length, rest) = self.data.split_first().ok_or(LinkError::Gone)?;
        let length = match length {
            253 | 254 => {
                let (change, rest) =
                    rest.split_at_checked(if *length == 253 { 2 } else { 0 }).ok_or(LinkError::Gone)?;
                self.data = rest;
                self.read = self.waiting.pop_front().unwrap_or_default();
                if let ([at, change], false) = (change, self.read.is_empty()) {
                    let at = usize::from(*at) % self.read.len();
                    self.read[at] ^= change;
                }
                return Ok(if self.read.is_empty() { None } else { Some(&self.read) });
            }
            255 => {
                self.data = rest;
                return Ok(None);
            }
            length => usize::from(*length).min(rest.len()),
        };
        let (now, later) = rest.split_at(length);
        self.data = later;
        self.read = now.to_vec();
        // The host chooses the transaction ID at random. The byte 0xee is replaced by that of the last request.
        for (at, byte) in self.read.iter_mut().enumerate() {
            if *byte == 0xee {
                *byte = self.sent.get(at).copied().unwrap_or(0xee);
            }
        }
        Ok(if self.read.is_empty() { None } else { Some(&self.read) })
    }

    fn longest(&self) -> usize {
        4096
    }
}

fn simulated(protocol: Protocol, lock: Lock, proxied: Option<&Path>) -> Simulated {
    let mut model = models::row("em7455").unwrap().model();
    model.lock = lock;
    let mut modem = Modem::of(&model);
    modem.faults.set("auth-delay=0").unwrap();
    if let Some(path) = proxied {
        modem.faults.set(&format!("proxy={}", path.display())).unwrap();
    }
    match protocol {
        Protocol::Qmi => Simulated::qmi(modem),
        Protocol::Mbim => Simulated::mbim(modem, 4096),
        Protocol::At => Simulated::at(modem, Dialect::Plain),
        Protocol::XmmRpc => Simulated::xmm(modem),
    }
}

/// A whole unlock of a modem that answers anything.
pub fn session(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let protocol = [Protocol::Qmi, Protocol::Mbim, Protocol::At, Protocol::XmmRpc][usize::from(first % 4)];
    let (oem_strings, keys) = (vec!["KHOIHGIUCCHHII".to_owned(), "DW5931EFCCLOCK".to_owned()], Vec::new());
    let foxconn = |service, magic: &str| Procedure::Foxconn { service, magic: magic.to_owned() };
    let fox = |service: Service, magic| (foxconn(service, magic), Lock::Fox { service: service.0, magic });
    let (procedure, lock) = match (protocol, first / 4 % 8) {
        (Protocol::At, number) => {
            let byte_order = if number & 1 == 0 { ByteOrder::BigEndian } else { ByteOrder::LittleEndian };
            let state = if number & 4 == 0 { StateCommand::Gtfcceffstatus } else { StateCommand::Gtfcclockstate };
            let number = if number & 2 == 0 { Number::Decimal } else { Number::Hex };
            let interface = None;
            let procedure = Procedure::Gtfcclock(Gtfcclock { interface, byte_order, number, state, oem_strings, keys });
            (procedure, Lock::Gtfcclock { order: Order::Big, number: challenge::Number::Decimal, is_xmm: false })
        }
        (Protocol::XmmRpc, _) => (Procedure::Xmm { oem_strings, keys }, Lock::Xmm),
        (_, 0) => (Procedure::Sierra, Lock::Sierra),
        (_, 1) => (Procedure::Quectel, Lock::Quectel),
        (_, 2) => (foxconn(Service::DMS, "foxc"), Lock::FoxconnV2),
        (_, 3) => fox(Service::FOX, "FDE1"),
        (_, 4) => fox(Service::FOXAP, "FDE2"),
        (_, 5) => (Procedure::Intel { oem_strings, keys }, Lock::Intel),
        _ => return,
    };
    let stays_off = (first & 0x20 != 0).then_some("switched off");
    let oem_strings = procedure.oem_strings().unwrap_or_default();
    let of = |oem_string: &String| Key::new(String::new(), &procedure.to_string(), oem_string).id();
    // The first key has been refused.
    let refused = oem_strings.iter().take(usize::from(first & 0x40 != 0));
    let tried: Vec<u32> = refused.clone().flat_map(|text| [of(text); 3]).collect();
    let mut used = 0;
    let proxied = (first & 0x80 != 0).then(|| Path::new("/dev/cdc-wdm0"));
    let modem = simulated(protocol, lock, proxied);
    let mut port = Answers { data, modem, waiting: VecDeque::new(), read: Vec::new(), sent: VecDeque::new() };
    within(256 * 1024 + 4 * data.len(), || {
        let transport = Transport { port: &mut port, protocol, proxied };
        let keys = Keys::new(&[], &procedure, &tried, |note| used += usize::from(matches!(note, KeyUse::Sending(_))));
        fcc_auth::run(transport, &procedure, keys, stays_off, Deadline::after(Duration::from_millis(600)))
    });
    assert!(used <= oem_strings.len() - refused.len());
}

fn layered() -> ConfigFile {
    ConfigFile { layer: Layer::Administrator, path: PathBuf::from("/etc/wwan-quirks/quirks.d/fuzz.toml") }
}

/// A file of quirks. A lookup finds what reading the whole file finds.
pub fn quirks(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (all, errors) = fragment::parse(&layered(), text);
    for error in &errors {
        assert!(error.line >= 1 && error.column >= 1);
        let _ = error.to_string();
    }
    let ids = all.iter().flat_map(Quirk::ids).chain(["1199:9071".parse::<DeviceId>().unwrap()]);
    for id in ids.take(8) {
        let Ok((found, _)) = parse_for(&layered(), text.as_bytes(), id) else { panic!("{text:?} is text") };
        if errors.is_empty() {
            let about = |quirks: &[Quirk]| {
                let about = quirks.iter().filter(|quirk| quirk.model(id).is_some());
                // A lookup leaves out the other models of an entry.
                let shown = |quirk: &Quirk| {
                    format!("{:?} {:?} {:?} {}", quirk.model(id), quirk.matchers, quirk.steps, quirk.location)
                };
                about.map(shown).collect::<Vec<_>>()
            };
            assert_eq!(about(&found), about(&all));
        }
    }
}

/// A file of the policy.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut policy = policy::Policy::default();
    for error in policy.add(&layered(), text) {
        let _ = error.to_string();
    }
    let id = "1199:9071".parse().unwrap();
    let resolved = policy.resolve(id, Port::new("1-1.2").as_ref(), || Some("LF1".to_owned()));
    assert!((0.1..=30.0).contains(&resolved.hook.value.as_secs_f64()));
    assert!((1.0..=600.0).contains(&resolved.modem_ready.value.as_secs_f64()));
}

/// A configuration file of usb_modeswitch. The result is quirks that can be read.
pub fn import(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut import = Import::default();
    import.add(Path::new("/usr/share/usb_modeswitch/12d1:1446"), &text);
    for fault in &import.errors {
        let _ = fault.to_string();
    }
    let toml = import.toml();
    let (_, errors) = fragment::parse(&layered(), &toml);
    assert!(errors.is_empty(), "{toml}\n{}", errors[0]);
}

/// The environment of an event, as `NAME=value` strings that end with NUL.
pub fn event(data: &[u8]) {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let variable = |name: &str| {
        let mut variables = data.split(|byte| *byte == 0);
        variables.find_map(|text| {
            let value = text.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(OsString::from_vec(value.to_vec()))
        })
    };
    if let Ok(Some(event)) = Event::read(variable) {
        // There is no sysfs below this root, so no path may lead to a device.
        assert!(Device::at_devpath(&Root::new("/nonexistent"), &event.devpath).is_err());
    }
    let text = String::from_utf8_lossy(data);
    if let Some(port) = Port::new(&text) {
        assert_eq!(port.as_str(), text);
        assert!(!text.contains('/') && text.len() < 40);
    }
    if let Ok(id) = text.parse::<DeviceId>() {
        assert_eq!(id.to_string().parse::<DeviceId>().as_ref().ok(), Some(&id));
    }
    let line = printable(&text);
    assert!(!line.chars().any(char::is_control) && line.len() < 2000);
}
