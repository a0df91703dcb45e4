//! QMI: QMUX frames, the control service, and parts of the device management service.

use crate::composition::{Composition, SUPPORTED};
use crate::digest;
use crate::radio::{LOW_POWER, Lock, Modem, ONLINE, Transition, mode_name};
use crate::transcript::{from_hex, hex};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const CTL: u8 = 0;
const WDS: u8 = 1;
const DMS: u8 = 2;
const NAS: u8 = 3;
/// Foxconn's own services.
pub(crate) const FOX: u8 = 0xe3;
pub(crate) const FOXAP: u8 = 0xe4;

/// The number of client IDs that a service allocates before it returns ClientIdsExhausted. Real modems have about ten.
const CLIENTS: usize = 10;
/// The first client ID, as in a capture of a real modem.
const FIRST_CLIENT: u8 = 0x14;

/// QMI protocol errors.
pub(crate) mod error {
    pub(crate) const MALFORMED: u16 = 1;
    pub(crate) const INTERNAL: u16 = 3;
    pub(crate) const CLIENT_IDS_EXHAUSTED: u16 = 5;
    pub(crate) const INVALID_CLIENT_ID: u16 = 7;
    pub(crate) const MISSING_ARGUMENT: u16 = 17;
    pub(crate) const NO_EFFECT: u16 = 26;
    pub(crate) const INVALID_SERVICE: u16 = 31;
    pub(crate) const AUTHENTICATION_FAILED: u16 = 34;
    pub(crate) const INVALID_ARGUMENT: u16 = 48;
    pub(crate) const DEVICE_NOT_READY: u16 = 52;
    pub(crate) const INVALID_TRANSITION: u16 = 60;
    pub(crate) const INVALID_COMMAND: u16 = 71;
    pub(crate) const HARDWARE_RESTRICTED: u16 = 83;
}

/// A QMUX frame with its service message.
#[derive(Debug, PartialEq)]
pub(crate) struct Message<'a> {
    pub service: u8,
    pub client: u8,
    pub transaction: u16,
    pub id: u16,
    pub tlvs: &'a [u8],
}

impl<'a> Message<'a> {
    /// Parses a request. A host uses no transaction 0.
    fn request(frame: &'a [u8]) -> Option<Message<'a>> {
        let is_request = frame.get(3) == Some(&0) && frame.get(6) == Some(&0);
        Message::parse(frame).filter(|request| is_request && request.transaction != 0)
    }

    pub(crate) fn parse(frame: &'a [u8]) -> Option<Message<'a>> {
        let [1, low, high, _, service, client, _, rest @ ..] = frame else { return None };
        if usize::from(u16::from_le_bytes([*low, *high])) + 1 != frame.len() {
            return None;
        }
        let (transaction, rest) = match (*service, rest) {
            (CTL, [transaction, rest @ ..]) => (u16::from(*transaction), rest),
            (CTL, _) => return None,
            (_, [low, high, rest @ ..]) => (u16::from_le_bytes([*low, *high]), rest),
            _ => return None,
        };
        let [id_low, id_high, low, high, tlvs @ ..] = rest else { return None };
        if usize::from(u16::from_le_bytes([*low, *high])) != tlvs.len() {
            return None;
        }
        let id = u16::from_le_bytes([*id_low, *id_high]);
        Some(Message { service: *service, client: *client, transaction, id, tlvs })
    }

    /// All TLVs in the order on the wire. A truncated TLV ends the list.
    pub(crate) fn all(&self) -> Vec<(u8, &'a [u8])> {
        let mut list = Vec::new();
        let mut rest = self.tlvs;
        while let [kind, low, high, after @ ..] = rest {
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            let Some((value, after)) = after.split_at_checked(length) else { break };
            list.push((*kind, value));
            rest = after;
        }
        list
    }

    pub(crate) fn tlv(&self, kind: u8) -> Option<&'a [u8]> {
        self.all().into_iter().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    fn byte(&self, kind: u8) -> Result<u8, u16> {
        match self.tlv(kind) {
            None => Err(error::MISSING_ARGUMENT),
            Some([byte]) => Ok(*byte),
            Some(_) => Err(error::MALFORMED),
        }
    }

    pub(crate) fn name(&self) -> String {
        let name = match (self.service, self.id) {
            (CTL, 0x0020) => "CTL Set Instance ID",
            (CTL, 0x0021) => "CTL Get Version Info",
            (CTL, 0x0022) => "CTL Allocate CID",
            (CTL, 0x0023) => "CTL Release CID",
            (CTL, 0x0026) => "CTL Set Data Format",
            (CTL, 0x0027) => "CTL Sync",
            (CTL, 0xff00) => "proxy open",
            (DMS, 0x0001) => "DMS Set Event Report",
            (DMS, 0x0020) => "DMS Get Capabilities",
            (DMS, 0x0021) => "DMS Get Manufacturer",
            (DMS, 0x0022) => "DMS Get Model",
            (DMS, 0x0023) => "DMS Get Revision",
            (DMS, 0x0024) => "DMS Get MSISDN",
            (DMS, 0x0025) => "DMS Get IDs",
            (DMS, 0x002b) => "DMS UIM Get PIN Status",
            (DMS, 0x003c) => "DMS UIM Get ICCID",
            (DMS, 0x0043) => "DMS UIM Get IMSI",
            (NAS, 0x0002) => "NAS Set Event Report",
            (NAS, 0x0003) => "NAS Register Indications",
            (NAS, 0x0020) => "NAS Get Signal Strength",
            (NAS, 0x0024) => "NAS Get Serving System",
            (DMS, 0x002c) => "DMS Get Hardware Revision",
            (DMS, 0x002d) => "DMS Get Operating Mode",
            (DMS, 0x002e) => "DMS Set Operating Mode",
            (DMS, 0x0051) => "DMS Get Software Version",
            (DMS, 0x555b) => "DMS SWI Get USB Composition",
            (DMS, 0x555c) => "DMS SWI Set USB Composition",
            (DMS, 0x555e) => "DMS Foxconn Get Firmware Version",
            (DMS, 0x555f) => "DMS Set FCC Authentication",
            (DMS, 0x5571) => "DMS Foxconn Set FCC Authentication",
            (FOX, 0x555e) => "FOX Get Firmware Version",
            (FOX, 0x5570) => "FOX Get FCC Lock",
            (FOX, 0x5571) => "FOX Set FCC Authentication",
            (FOXAP, 0x5570) => "FOXAP Get FCC Lock",
            (FOXAP, 0x5571) => "FOXAP Set FCC Authentication",
            (service, id) => return format!("service {service:#04x} message {id:#06x}"),
        };
        name.to_owned()
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Response,
    Indication,
}

/// Encodes a message from the modem as a frame.
pub(crate) fn emit(service: u8, client: u8, kind: Kind, transaction: u16, id: u16, tlvs: &[u8]) -> Vec<u8> {
    let flags = match (kind, service) {
        (Kind::Response, CTL) => 1,
        (Kind::Indication, CTL) => 2,
        (Kind::Response, _) => 2,
        (Kind::Indication, _) => 4,
    };
    let transaction = transaction.to_le_bytes();
    let transaction = if service == CTL { &transaction[..1] } else { &transaction[..] };
    let mut frame = vec![1, 0, 0, 0x80, service, client, flags];
    frame.extend(transaction);
    frame.extend(id.to_le_bytes());
    frame.extend((tlvs.len() as u16).to_le_bytes());
    frame.extend(tlvs);
    let length = (frame.len() as u16 - 1).to_le_bytes();
    frame[1..3].copy_from_slice(&length);
    frame
}

pub(crate) fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((value.len() as u16).to_le_bytes());
    bytes.extend(value);
    bytes
}

fn result(error: u16) -> Vec<u8> {
    let status = u16::from(error != 0).to_le_bytes();
    tlv(2, &[status, error.to_le_bytes()].concat())
}

/// The name of a frame.
pub(crate) fn name(frame: &[u8]) -> String {
    Message::parse(frame).map_or("malformed".to_owned(), |message| message.name())
}

/// The allocated client IDs.
#[derive(Default)]
pub struct Clients {
    by_service: BTreeMap<u8, Vec<u8>>,
    /// DMS clients that receive a report of each operating mode.
    mode_reports: BTreeSet<u8>,
}

impl Clients {
    pub fn count(&self) -> usize {
        self.by_service.values().map(Vec::len).sum()
    }

    fn allocate(&mut self, service: u8) -> Option<u8> {
        let taken = self.by_service.entry(service).or_default();
        let id = (FIRST_CLIENT..).find(|id| !taken.contains(id)).filter(|_| taken.len() < CLIENTS)?;
        taken.push(id);
        Some(id)
    }

    fn release(&mut self, service: u8, id: u8) -> bool {
        let Some(taken) = self.by_service.get_mut(&service) else { return false };
        if service == DMS {
            self.mode_reports.remove(&id);
        }
        let before = taken.len();
        taken.retain(|taken| *taken != id);
        taken.len() < before
    }

    fn report_mode(&mut self, id: u8, wanted: bool) {
        if wanted {
            self.mode_reports.insert(id);
        } else {
            self.mode_reports.remove(&id);
        }
    }

    fn holds(&self, service: u8, id: u8) -> bool {
        self.by_service.get(&service).is_some_and(|taken| taken.contains(&id))
    }
}

/// The services and versions that the modem reports.
fn services(modem: &Modem) -> Vec<(u8, u16, u16)> {
    let mut services = vec![(CTL, 1, 5), (WDS, 1, 9), (DMS, 1, 14), (NAS, 1, 0)];
    if let (Lock::Fox { service, .. }, false) = (modem.lock, modem.faults.has("generic")) {
        services.push((FOX, 1, 0));
        services.extend((service != FOX).then_some((service, 1, 0)));
    }
    services
}

impl Modem {
    /// Answers one frame from any host. A frame that is not a request gets no reply.
    pub fn answer_qmi(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        answer(self, frame)
    }
}

/// Answers one frame from the host. A frame that is not a request gets no reply.
pub(crate) fn answer(modem: &mut Modem, frame: &[u8]) -> Option<Vec<u8>> {
    let Some(request) = Message::request(frame) else {
        modem.transcript.event("qmi>", &format!("{} malformed", hex(frame)));
        return None;
    };
    modem.transcript.event("qmi>", &format!("{} {}", hex(frame), request.name()));
    if modem.faults.has("proxy") && request.id != 0xff00 {
        return None;
    }
    let answer = match request.service {
        CTL => control(modem, &request),
        _ if !modem.clients.holds(request.service, request.client) => Err(error::INVALID_CLIENT_ID),
        _ if modem.is_busy() => Err(error::DEVICE_NOT_READY),
        DMS => device_management(modem, &request),
        NAS => network_access(modem, &request),
        FOX | FOXAP => foxconn_service(modem, &request),
        _ => Err(error::INVALID_COMMAND),
    };
    let tlvs = match &answer {
        Ok(more) => [result(0), more.clone()].concat(),
        Err(error) => result(*error),
    };
    let (service, client) = (request.service, request.client);
    let reply = emit(service, client, Kind::Response, request.transaction, request.id, &tlvs);
    let outcome = answer.err().map_or("ok".to_owned(), |error| format!("error {error}"));
    modem.transcript.event("qmi<", &format!("{} {} {outcome}", hex(&reply), request.name()));
    Some(reply)
}

/// Failing replies to the transaction before that of `reply`, and to another client; and an indication.
pub(crate) fn stale(reply: &[u8]) -> Vec<Vec<u8>> {
    let Some(m) = Message::parse(reply) else { return Vec::new() };
    // There is no transaction 0: the last one comes before the first.
    let last = if m.service == CTL { u16::from(u8::MAX) } else { u16::MAX };
    let transaction = if m.transaction > 1 { m.transaction - 1 } else { last };
    let failed = result(error::INTERNAL);
    let mut stale = vec![emit(m.service, m.client, Kind::Response, transaction, m.id, &failed)];
    if m.service != CTL {
        stale.push(emit(m.service, m.client ^ 0x40, Kind::Response, m.transaction, m.id, &failed));
        stale.push(emit(m.service, m.client, Kind::Indication, m.transaction, m.id, &failed));
    }
    stale
}

/// CTL sync, as a modem sends it after its start.
pub(crate) fn sync_indication() -> Vec<u8> {
    emit(CTL, 0, Kind::Indication, 0, 0x0027, &[])
}

/// A DMS event report to a client, or to all clients (0xff): the operating mode.
pub(crate) fn mode_indication(client: u8, mode: u8) -> Vec<u8> {
    emit(DMS, client, Kind::Indication, 0, 0x0001, &tlv(0x14, &[mode]))
}

/// The event reports for a new operating mode.
pub(crate) fn mode_reports(modem: &Modem) -> Vec<Vec<u8>> {
    let mode = modem.reported_mode();
    modem.clients.mode_reports.iter().map(|client| mode_indication(*client, mode)).collect()
}

fn control(modem: &mut Modem, request: &Message) -> Result<Vec<u8>, u16> {
    match request.id {
        0x0020 => Ok(tlv(1, &[0])),
        0x0021 => {
            let services = services(modem);
            let mut list = vec![services.len() as u8];
            for (service, major, minor) in services {
                list.push(service);
                list.extend(major.to_le_bytes());
                list.extend(minor.to_le_bytes());
            }
            Ok(tlv(1, &list))
        }
        0x0022 => {
            let service = request.byte(1)?;
            if !services(modem).iter().any(|(known, _, _)| *known == service) {
                return Err(error::INVALID_SERVICE);
            }
            if modem.faults.has("cid-exhausted") {
                return Err(error::CLIENT_IDS_EXHAUSTED);
            }
            let id = modem.clients.allocate(service).ok_or(error::CLIENT_IDS_EXHAUSTED)?;
            Ok(tlv(1, &[service, id]))
        }
        0x0023 => match request.tlv(1) {
            Some([service, id]) if modem.clients.release(*service, *id) => Ok(tlv(1, &[*service, *id])),
            Some([_, _]) => Err(error::INVALID_CLIENT_ID),
            _ => Err(error::MISSING_ARGUMENT),
        },
        0x0026 => Ok(tlv(0x10, &[0, 0])),
        0xff00 if request.tlv(1).is_some() && request.tlv(1) == modem.faults.text("proxy").map(str::as_bytes) => {
            modem.faults.clear_one("proxy");
            Ok(Vec::new())
        }
        0x0027 => {
            if !modem.faults.has("keep-cids") {
                modem.clients = Clients::default();
            }
            Ok(Vec::new())
        }
        _ => Err(error::INVALID_COMMAND),
    }
}

fn device_management(modem: &mut Modem, request: &Message) -> Result<Vec<u8>, u16> {
    let text = |text: &str| Ok(tlv(1, text.as_bytes()));
    let identity = modem.identity.clone();
    match request.id {
        0x0001 => {
            let asked = request.tlv(0x14) == Some(&[1]);
            modem.clients.report_mode(request.client, asked);
            Ok(Vec::new())
        }
        // Rates in bit/s up and down, data capability 3 (simultaneous), SIM, LTE.
        0x0020 => {
            let rates = [50_000_000u32.to_le_bytes(), 100_000_000u32.to_le_bytes()].concat();
            Ok(tlv(1, &[rates, vec![3, 2, 2, 5, 8]].concat()))
        }
        0x0021 => text(&identity.manufacturer),
        0x0022 => text(&identity.model),
        0x0023 => text(&identity.revision),
        0x0024 => text("15550100"),
        0x0025 => Ok([tlv(0x10, b"0"), tlv(0x11, identity.imei.as_bytes())].concat()),
        // PIN 1 and 2: disabled, three tries to verify, ten to unblock.
        0x002b => Ok([tlv(0x11, &[3, 3, 10]), tlv(0x12, &[3, 3, 10])].concat()),
        0x002c => text("10"),
        0x002d => {
            let restricted = u8::from(modem.hardware_switch_off());
            let mode = modem.reported_mode();
            // The offline reason has no value for a lock.
            let reason = modem.faults.number("offline-reason").map(|reason| tlv(0x10, &(reason as u16).to_le_bytes()));
            Ok([tlv(1, &[mode]), reason.unwrap_or_default(), tlv(0x11, &[restricted])].concat())
        }
        0x002e => set_operating_mode(modem, request.byte(1)?).map(|()| Vec::new()),
        0x003c => text("8900100000000000001"),
        0x0043 => text("001010000000001"),
        0x0051 => text(&identity.revision),
        0x555b | 0x555c => usb_composition(modem, request),
        0x555e | 0x555f | 0x5571 if modem.faults.has("generic") => Err(error::INVALID_COMMAND),
        0x555e if foxconn(modem) && !modem.faults.has("no-firmware-version") => match request.byte(1)? {
            0 => text(FOXCONN_MCFG),
            1 => text(&format!("{FOXCONN_MCFG}_{FOXCONN_APPS}")),
            2 => text(FOXCONN_APPS),
            _ => Err(error::INVALID_ARGUMENT),
        },
        0x555f if modem.lock == Lock::Sierra && request.tlvs.is_empty() => authenticate(modem, Ok(())),
        0x555f if modem.lock == Lock::Sierra => Err(error::MALFORMED),
        0x5571 if foxconn(modem) => {
            let proof = check_foxconn(modem, request);
            authenticate(modem, proof)
        }
        _ => Err(error::INVALID_COMMAND),
    }
}

/// Sierra's 0x555B (get) and 0x555C (set, from the next reset on).
fn usb_composition(modem: &mut Modem, request: &Message) -> Result<Vec<u8>, u16> {
    let Some(composition) = &modem.next_composition else { return Err(error::INVALID_COMMAND) };
    if request.id == 0x555b {
        let list = [&[SUPPORTED.len() as u8], SUPPORTED.as_slice()].concat();
        let list = modem.faults.text("composition-list").and_then(from_hex).unwrap_or(list);
        return Ok([tlv(0x10, &[composition.number]), tlv(0x11, &list)].concat());
    }
    let value = request.byte(1)?;
    if !SUPPORTED.contains(&value) {
        return Err(error::INVALID_ARGUMENT);
    }
    if !modem.faults.has("composition-ignored") {
        modem.next_composition = Some(Composition::numbered(value));
    }
    Ok(Vec::new())
}

fn network_access(modem: &Modem, request: &Message) -> Result<Vec<u8>, u16> {
    const LTE: u8 = 8;
    let on = modem.radio_on();
    match request.id {
        0x0002 | 0x0003 => Ok(Vec::new()),
        // -70 dBm.
        0x0020 => Ok(tlv(1, &[(-70i8) as u8, LTE])),
        // Registered at home with both domains attached, or not registered; PLMN 001 01.
        0x0024 if on => {
            let plmn = [&1u16.to_le_bytes()[..], &1u16.to_le_bytes(), &[4], b"Test"].concat();
            Ok([tlv(1, &[1, 1, 1, 1, 1, LTE]), tlv(0x10, &[1]), tlv(0x12, &plmn)].concat())
        }
        0x0024 => Ok(tlv(1, &[0, 2, 2, 1, 0])),
        _ => Err(error::INVALID_COMMAND),
    }
}

fn set_operating_mode(modem: &mut Modem, mode: u8) -> Result<(), u16> {
    let low_power_error = modem.faults.number("low-power-error");
    match (mode, low_power_error) {
        (LOW_POWER, Some(error)) => Err(error as u16),
        (ONLINE, _) if modem.locked => {
            Err(modem.faults.number("online-error").map_or(modem.online_error, |error| error as u16))
        }
        (ONLINE, _) if modem.hardware_switch_off() => Err(error::HARDWARE_RESTRICTED),
        // A reset is allowed only from offline.
        (4, _) if modem.mode != 3 || modem.faults.has("refuse-reset") => Err(error::INVALID_TRANSITION),
        (4, _) => {
            modem.transcript.event("mode", mode_name(4));
            modem.transitions.push((Duration::from_millis(20), Transition::Reset));
            Ok(())
        }
        (ONLINE | LOW_POWER | 3 | 6 | 7, _) => {
            modem.set_mode(mode);
            Ok(())
        }
        _ => Err(error::INVALID_ARGUMENT),
    }
}

fn authenticate(modem: &mut Modem, proof: Result<(), u16>) -> Result<Vec<u8>, u16> {
    if let Some(error) = modem.faults.number("refuse") {
        modem.refuse_unlock("by fault");
        return Err(error as u16);
    }
    if !modem.locked {
        return Err(error::NO_EFFECT);
    }
    match proof {
        Ok(()) => {
            modem.unlock();
            Ok(Vec::new())
        }
        Err(error) => {
            modem.refuse_unlock("wrong proof");
            Err(error)
        }
    }
}

/// Foxconn's services: the lock of the modem, and the inputs of its unlock message.
fn foxconn_service(modem: &mut Modem, request: &Message) -> Result<Vec<u8>, u16> {
    let Lock::Fox { service, magic } = modem.lock else { return Err(error::INVALID_COMMAND) };
    match (request.id, request.service == service) {
        (0x555e, _) if request.service == FOX => match request.byte(1)? {
            0 => Ok(tlv(1, FOX_MCFG.as_bytes())),
            2 => Ok(tlv(1, FOX_APPS.as_bytes())),
            _ => Err(error::INVALID_ARGUMENT),
        },
        (0x5570, true) => Ok(tlv(1, &[modem.lock_state(modem.locked.into()) as u8])),
        (0x5571, true) => {
            let proof = check_proof(request, &fox_secret(FOX_MCFG, FOX_APPS, &modem.identity.imei), magic);
            authenticate(modem, proof)
        }
        // The reply of a T99W696 on FOX.
        (0x5571, false) => Err(error::MALFORMED),
        _ => Err(error::INVALID_COMMAND),
    }
}

const FOX_MCFG: &str = "FDE.F0.3.2.0.3.TO.002";
const FOX_APPS: &str = "020";
const FOXCONN_MCFG: &str = "T99W175.F0.1.0.0.9.GC.004.079";
const FOXCONN_APPS: &str = "T99W175.AP.0.1.2";
const FOXCONN_MAGIC: &str = "foxc";

fn foxconn(modem: &Modem) -> bool {
    matches!(modem.lock, Lock::FoxconnV1 | Lock::FoxconnV2)
}

/// Version 1: only TLV 1, with a zero byte.
fn check_foxconn(modem: &Modem, request: &Message) -> Result<(), u16> {
    match (modem.lock, request.all().as_slice()) {
        (Lock::FoxconnV1, [(1, [0])]) => Ok(()),
        (Lock::FoxconnV2, _) => {
            check_proof(request, &fox_secret(FOXCONN_MCFG, FOXCONN_APPS, &modem.identity.imei), FOXCONN_MAGIC)
        }
        (_, [(1, _), ..]) => Err(error::INVALID_ARGUMENT),
        _ => Err(error::MALFORMED),
    }
}

/// Version 2: salt and MD5 over `secret`, salt and magic in TLV 1, *then* '0' in TLV 2.
fn check_proof(request: &Message, secret: &str, magic: &str) -> Result<(), u16> {
    match request.all().as_slice() {
        [(1, proof), (2, b"0")] if proof.len() == 36 => {
            let (salt, digest) = proof.split_at(4);
            let expected = digest::md5(&[secret.as_bytes(), salt, magic.as_bytes()].concat());
            if digest == digest::to_hex(&expected).as_bytes() { Ok(()) } else { Err(error::AUTHENTICATION_FAILED) }
        }
        [(1, _), ..] => Err(error::INVALID_ARGUMENT),
        _ => Err(error::MALFORMED),
    }
}

/// The firmware name without its last two fields, the version of the application processor, and the IMEI.
fn fox_secret(firmware: &str, apps: &str, imei: &str) -> String {
    let fields = firmware.rsplitn(3, '.').last().unwrap_or(firmware);
    [fields, apps, imei].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;

    fn modem(lock: Lock) -> Modem {
        let mut model = models::row("mc7710-modem").unwrap().model();
        model.lock = lock;
        Modem::of(&model)
    }

    fn ask(modem: &mut Modem, request: &str) -> String {
        let reply = answer(modem, &from_hex(request).unwrap()).unwrap();
        hex(&reply).to_uppercase()
    }

    fn spaced(text: &str) -> String {
        text.replace(' ', "")
    }

    const ALLOCATE: &str = "01 0F 00 00 00 00 00 01 22 00 04 00 01 01 00 02";
    const AUTH: &str = "01 0C 00 00 02 14 00 01 00 5F 55 00 00";
    const MODE: &str = "01 0C 00 00 02 14 00 01 00 2D 00 00 00";

    #[test]
    fn the_captured_session() {
        let mut modem = modem(Lock::Sierra);
        assert_eq!(
            ask(&mut modem, "01 0B 00 00 00 00 00 01 21 00 00 00"),
            spaced(
                "01 2A 00 80 00 00 01 01 21 00 1F 00 02 04 00 00 00 00 00 01 15 00 04 00 01 00 05 00 01 01 00 09 00 02 01 00 0E 00 03 01 00 00 00"
            )
        );
        assert_eq!(
            ask(&mut modem, ALLOCATE),
            spaced("01 17 00 80 00 00 01 01 22 00 0C 00 02 04 00 00 00 00 00 01 02 00 02 14")
        );
        assert_eq!(
            ask(&mut modem, "01 10 00 00 02 14 00 02 00 2E 00 04 00 01 01 00 00"),
            spaced("01 13 00 80 02 14 02 02 00 2E 00 07 00 02 04 00 01 00 03 00")
        );
        assert_eq!(ask(&mut modem, AUTH), spaced("01 13 00 80 02 14 02 01 00 5F 55 07 00 02 04 00 00 00 00 00"));
        assert_eq!(modem.transitions, [(Duration::from_millis(50), Transition::Online)]);
        assert_eq!(ask(&mut modem, AUTH), spaced("01 13 00 80 02 14 02 01 00 5F 55 07 00 02 04 00 01 00 1A 00"));
        modem.set_mode(ONLINE);
        assert!(ask(&mut modem, MODE).contains("01010000"));
        assert_eq!(
            ask(&mut modem, "01 10 00 00 00 00 00 02 23 00 05 00 01 02 00 02 14"),
            spaced("01 17 00 80 00 00 01 02 23 00 0C 00 02 04 00 00 00 00 00 01 02 00 02 14")
        );
        assert_eq!(modem.clients.count(), 0);
    }

    #[test]
    fn client_ids_run_out_and_sync_releases_them() {
        let mut modem = modem(Lock::Free);
        for _ in 0..CLIENTS {
            assert!(ask(&mut modem, ALLOCATE).contains("02040000000000"));
        }
        let exhausted = spaced("01 12 00 80 00 00 01 01 22 00 07 00 02 04 00 01 00 05 00");
        assert_eq!(ask(&mut modem, ALLOCATE), exhausted);
        ask(&mut modem, "01 0B 00 00 00 00 00 01 27 00 00 00");
        assert_eq!(modem.clients.count(), 0);
    }

    #[test]
    fn mode_reports_go_to_registered_clients() {
        let mut modem = modem(Lock::Free);
        ask(&mut modem, ALLOCATE);
        assert!(mode_reports(&modem).is_empty());
        ask(&mut modem, "01 10 00 00 02 14 00 01 00 01 00 04 00 14 01 00 01");
        assert_eq!(mode_reports(&modem), [mode_indication(0x14, ONLINE)]);
        ask(&mut modem, "01 10 00 00 00 00 00 02 23 00 05 00 01 02 00 02 14");
        assert!(mode_reports(&modem).is_empty());
    }

    #[test]
    fn an_unallocated_client_is_refused() {
        assert!(ask(&mut modem(Lock::Sierra), MODE).ends_with("0700"));
    }

    #[test]
    fn other_locks_do_not_know_the_sierra_message() {
        let mut free = modem(Lock::Free);
        ask(&mut free, ALLOCATE);
        assert!(ask(&mut free, AUTH).ends_with("4700"));
        let mut generic = modem(Lock::Sierra);
        generic.faults.set("generic").unwrap();
        ask(&mut generic, ALLOCATE);
        assert!(ask(&mut generic, AUTH).ends_with("4700"));
        assert!(generic.locked);
    }

    #[test]
    fn foxconn_checks_digest_and_order() {
        let mut modem = modem(Lock::FoxconnV2);
        ask(&mut modem, ALLOCATE);
        let secret = fox_secret(FOXCONN_MCFG, FOXCONN_APPS, &modem.identity.imei);
        let digest = digest::md5(format!("{secret}saltfoxc").as_bytes());
        let right = [b"salt".as_slice(), digest::to_hex(&digest).as_bytes()].concat();
        let wrong = [b"salt".as_slice(), &[b'0'; 32]].concat();
        let send = |modem: &mut Modem, tlvs: &[Vec<u8>]| {
            let mut frame = emit(DMS, 0x14, Kind::Response, 1, 0x5571, &tlvs.concat());
            frame[3] = 0;
            frame[6] = 0;
            answer(modem, &frame).unwrap().ends_with(&[0, 0, 0, 0])
        };
        assert!(!send(&mut modem, &[tlv(1, &[0])]));
        assert!(!send(&mut modem, &[tlv(1, &wrong), tlv(2, b"0")]));
        assert!(!send(&mut modem, &[tlv(2, b"0"), tlv(1, &right)]));
        assert!(modem.locked);
        assert!(send(&mut modem, &[tlv(1, &right), tlv(2, b"0")]));
        assert!(!modem.locked);
    }

    #[test]
    fn foxconns_services_report_the_lock_and_check_the_digest() {
        for (service, magic, digest) in
            [(FOX, "FDE1", "827cd884a919747e1dad46238e46fd89"), (FOXAP, "FDE2", "633bc0e8d9175b6e166e283a134dd9f6")]
        {
            let mut modem = modem(Lock::Fox { service, magic });
            modem.identity.imei = "490154203237518".to_owned();
            let allocate = |modem: &mut Modem, service: u8| {
                let mut frame = from_hex("01 0F 00 00 00 00 00 01 22 00 04 00 01 01 00 00").unwrap();
                frame[15] = service;
                answer(modem, &frame).unwrap()
            };
            allocate(&mut modem, service);
            let send = |modem: &mut Modem, id: u16, tlvs: &[Vec<u8>]| {
                let mut frame = emit(service, 0x14, Kind::Response, 1, id, &tlvs.concat());
                (frame[3], frame[6]) = (0, 0);
                answer(modem, &frame).unwrap()
            };
            assert!(send(&mut modem, 0x5570, &[]).ends_with(&[1, 1, 0, 1]));
            let proof = |digest: &str| [tlv(1, format!("abcd{digest}").as_bytes()), tlv(2, b"0")];
            let refused = error::AUTHENTICATION_FAILED as u8;
            assert!(send(&mut modem, 0x5571, &proof(&"0".repeat(32))).ends_with(&[1, 0, refused, 0]));
            assert!(send(&mut modem, 0x5571, &proof(digest)).ends_with(&[0, 0, 0, 0]));
            assert!(send(&mut modem, 0x5570, &[]).ends_with(&[1, 1, 0, 0]));
            modem.faults.set("generic").unwrap();
            assert!(allocate(&mut modem, service).ends_with(&[1, 0, error::INVALID_SERVICE as u8, 0]));
        }
    }

    #[test]
    fn an_invalid_frame_gets_no_reply() {
        let mut modem = modem(Lock::Sierra);
        assert_eq!(answer(&mut modem, &[]), None);
        assert_eq!(answer(&mut modem, &[1, 2, 0, 0]), None);
        assert_eq!(answer(&mut modem, &from_hex(AUTH).unwrap()[..10]), None);
    }

    #[test]
    fn stale_replies_differ_in_their_transaction() {
        let mut modem = modem(Lock::Sierra);
        let reply = answer(&mut modem, &from_hex(ALLOCATE.replace("00 01 22", "00 05 22").as_str()).unwrap()).unwrap();
        assert_eq!(Message::parse(&stale(&reply)[0]).unwrap().transaction, 4);
        let first = answer(&mut modem, &from_hex(ALLOCATE).unwrap()).unwrap();
        assert_eq!(Message::parse(&stale(&first)[0]).unwrap().transaction, 255);
    }
}
